"""Recipes: what a file says, what can be changed, and the nearest name for what is not there."""

import tomllib
from pathlib import Path

import pytest

from recuerdo.errors import InputError
from recuerdo.train import Pace
from recuerdo.workbench import shelf
from recuerdo.workbench.recipe import TASKS, Recipe, differences, load_recipe
from recuerdo.workbench.shelf import recipe_text, recipes, written

TINY = Path(__file__).parents[1] / "train"
TEXT = """
about = "points and their classes"
task = "tiny:Tiny"
[data]
size = 9
[model]
name = "net"
width = 4
[train]
steps = 20
lr = 0.01
every = 5
seed = 3
[result]
error = 12.4
"""


@pytest.fixture
def path(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(TINY)
    file = tmp_path / "points.toml"
    file.write_text(TEXT, encoding="utf-8")
    return file


def changed(path, old, new):
    path.write_text(TEXT.replace(old, new), encoding="utf-8")
    return path


def test_a_recipe_is_what_the_file_says(path):
    found = load_recipe(path)
    assert (found.name, found.about, found.task, found.model) == (
        "points", "points and their classes", "tiny:Tiny", "net"
    )  # fmt: skip
    assert found.data == {"size": 9}
    assert found.arguments == {"width": 4}
    assert [phase.pace for phase in found.phases] == [Pace(20, 0.01)]
    assert found.train == {"steps": 20, "lr": 0.01, "every": 5, "seed": 3}
    assert found.result == {"error": 12.4}
    task = found.new_task()
    assert task.size == 9
    assert found.new_model(task).layers[0].out_features == 4


def test_it_survives_its_own_text(path, tmp_path):
    first = load_recipe(
        path, ['about="a \\"quoted\\" — line"', "train.phase=[{steps=2, set={linear=true}}, {steps=4}]"]
    )
    other = tmp_path / "other.toml"
    other.write_text(first.as_toml(), encoding="utf-8")
    assert load_recipe(other) == first


@pytest.mark.parametrize(
    "content",
    [
        {"a": 1, "b": 1.5e-7, "c": True, "d": 'x"\\\n\t\x00\x7f é', "e": [1, [2.0, "x"]], "f": []},
        {"s": {"x": {"deep": {"a b": -1}}, "inf": float("inf"), "empty": {}}, "top": 3},
    ],
)
def test_written_toml_is_read_back(content):
    assert tomllib.loads(written(content)) == content


def test_changes_are_toml_values(path):
    told = load_recipe(
        path, ["train.lr=1e-3", "model.width = 16", "data.classes=3", "train.optimiser=sgd", "about='x'"]
    )
    assert told.phases[0].pace == Pace(20, 1e-3, optimiser="sgd")
    assert told.arguments == {"width": 16}
    assert told.data == {"size": 9, "classes": 3}
    assert told.about == "x"


def test_phases_change_the_pace_for_a_while(path):
    text = (
        TEXT
        + """
[[train.phase]]
lr = 0.5
steps = 7
set = { linear = true }
[[train.phase]]
warmup = 0
"""
    )
    path.write_text(text.replace("[result]\nerror = 12.4\n", ""), encoding="utf-8")
    found = load_recipe(path)
    assert [phase.pace for phase in found.phases] == [Pace(7, 0.5), Pace(20, 0.01, warmup=0)]
    assert [phase.attributes for phase in found.phases] == [{"linear": True}, {}]
    assert found.steps == 27
    assert load_recipe(path, ["train.phase.0.steps=1"]).steps == 21


def test_differences_name_the_keys():
    one = {"a": 1, "s": {"x": 1, "y": 2}, "t": {}}
    other = {"a": 1, "s": {"x": 2, "z": 2}, "t": {}}
    assert differences(one, other) == ["s.x", "s.y", "s.z"]
    assert differences(one, one) == []


def test_the_shelf_and_a_folder(path, tmp_path, monkeypatch):
    box = tmp_path / "box"
    box.mkdir()
    (box / "points.toml").write_text(TEXT, encoding="utf-8")
    (box / "__init__.py").touch()
    monkeypatch.setattr(shelf, "files", lambda package: box)
    assert recipes() == {"points": "points and their classes"}
    assert recipe_text("points") == ("points", TEXT)
    assert load_recipe("points").name == "points"
    (box / "recipe.toml").write_text('name = "other"\n' + TEXT, encoding="utf-8")
    assert load_recipe(box).name == "other"
    with pytest.raises(InputError, match="there is no recipe 'point': did you mean 'points'?"):
        load_recipe("point")
    with pytest.raises(InputError, match="see `recuerdo recipes ls`, or give the path of a .toml file"):
        load_recipe("zzz")


@pytest.mark.parametrize("name", recipes())
def test_every_recipe_on_the_shelf_is_one(name):
    """Its task, its model and every key exist."""
    found = load_recipe(name)
    assert isinstance(found, Recipe)
    assert found.about
    assert found.task in TASKS


REFUSED = {
    "no toml": ("task =", "task", "the recipe points is not TOML"),
    "a section": ("[data]", "[dat]", "the recipe points has no key 'dat': did you mean 'data'?"),
    "data": ("size", "sizes", "[data] of points (task tiny:Tiny) has no key 'sizes': did you mean 'size'?"),
    "model key": ("width", "wide", "[model] of points (net) has no key 'wide': did you mean 'width'?"),
    "what the task gives": ("width =", "width_in =", "[model] of points (net) has no key 'width_in'"),
    "train": ("every", "evry", "[train] of points has no key 'evry': did you mean 'every'?"),
    "model": ('"net"', '"nett"', "the task tiny:Tiny has no model 'nett': did you mean 'net'?"),
    "no model": ('name = "net"', "", 'names no model: write name = "memn2n" in [model]'),
    "no task": ('task = "tiny:Tiny"', "", 'the recipe points names no task: write task = "answer"'),
    "task": ("tiny:Tiny", "anser", "there is no task 'anser': did you mean 'answer'?"),
    "task elsewhere": ("tiny:Tiny", "tiny:Tini", "the task 'tiny:Tini' cannot be imported"),
    "task of no class": ("tiny:Tiny", "tiny:Bare", "'tiny:Bare' is no task: a task is a dataclass, whose fields are"),
    "no module": ("tiny:Tiny", "nowhere.at:All", "the task 'nowhere.at:All' cannot be imported (No module named"),
    "kind": ("steps = 20", 'steps = "20"', "train.steps of points is a whole number, not '20'"),
    "true": ("steps = 20", "steps = true", "train.steps of points is a whole number, not True"),
    "half": ("steps = 20", "steps = 1.5", "train.steps of points is a whole number, not 1.5"),
    "device": ("every = 5", "device = 5", "train.device of points is a text, not 5"),
    "every": ("every = 5", "every = -5", "train.every of points is a number of steps, or 0 for only at the end"),
    "no steps": ("steps = 20", "", "[train] of points says no steps: write steps = 1000"),
    "pace": ("lr = 0.01", "lr = -1", "is no pace: at least 1 step, lr and clip above 0"),
    "no section": ("[data]\nsize = 9", "data = 9", "data of the recipe points is a section: write [data]"),
    "phases": ("every = 5", "phase = 3", "phases of points are tables: write [[train.phase]]"),
    "set": ("every = 5", "phase = [{ set = 1 }]", "set of a phase of points is a table: write set = { linear = true }"),
    "phase key": ("every = 5", "phase = [{ step = 1 }]", "[[train.phase]] of points has no key 'step': did you mean"),
    "empty phase": ("every = 5", "phase = [{}, { steps = 1 }]", "a phase of points changes nothing: give it steps, lr"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_no_recipe_is_told(path, case):
    old, new, words = REFUSED[case]
    if old == "[data]":
        words = words.replace("points", "points")
    with pytest.raises(InputError) as error:
        load_recipe(changed(path, old, new))
    assert words in str(error.value)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("train.lr", "'train.lr' changes nothing: write it like train.lr=0.01"),
        ("train..lr=1", "changes nothing"),
        ("train.lr=1 2", "'1 2' is no value of TOML: write 1, 0.5, true, [1, 2], or a text in \"quotes\""),
        ("about.x=1", "there is no about.x to set: see `recuerdo recipes show`"),
        ("train.phase.0.steps=1", "there is no train.phase.0.steps to set|phases of points are tables"),
        ("model.wdth=1", "did you mean 'width'?"),
    ],
)
def test_changes_that_cannot_be(path, change, words):
    with pytest.raises(InputError) as error:
        load_recipe(path, [change])
    assert any(word in str(error.value) for word in words.split("|"))


def test_data_and_arguments_that_do_not_fit(path):
    with pytest.raises(InputError, match=r"\[model\] of points does not fit net: "):
        found = load_recipe(path, ["model.width='x'"])
        found.new_model(found.new_task())
    with pytest.raises(InputError, match="the recipe latin is not TOML|latin.toml is not a text in UTF-8"):
        latin = path.with_name("latin.toml")
        latin.write_bytes("about = 'é'".encode("latin1"))
        load_recipe(latin)
