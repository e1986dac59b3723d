"""Profiles: heads and strengths that are kept, found again by name, and refused when they are damaged."""

import json
from dataclasses import replace

import pytest

from recuerdo.errors import MarkError
from recuerdo.steer.marks import boost, mute
from recuerdo.steer.places import Scope
from recuerdo.steer.profiles import Profile, load_profile, looked_up, profiles_folder, shipped_profiles

HEADS = ((0, 1), (2, 0), (2, 3))
ONE = Profile(
    name="facts.v1",
    model="a model",
    heads=HEADS,
    action="boost",
    amount=8.0,
    strengths=(2.0, 8.0, 32.0),
    queries="after",
    steps=(0, 4),
    examples=12,
    scores={"held out, steered": 0.6},
    note="a note",
    date="2026-11-30T14:05:00+00:00",
)


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("RECUERDO_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def test_what_is_saved_is_what_is_loaded(home):
    path = ONE.save()
    assert path == profiles_folder() / "facts.v1.json" == home / "profiles" / "facts.v1.json"
    assert load_profile("facts.v1") == ONE
    assert load_profile(path) == load_profile(str(path)) == ONE
    assert [p.name for p in path.parent.iterdir()] == ["facts.v1.json"]  # no draft is left
    assert json.loads(path.read_text(encoding="utf-8")) == json.loads(json.dumps(ONE.as_data()))
    again = replace(ONE, note="Ñandú 😀", strengths=None)
    again.save()
    assert load_profile("facts.v1") == again


def test_another_folder(tmp_path):
    assert ONE.save(tmp_path / "there") == tmp_path / "there" / "facts.v1.json"
    assert load_profile("facts.v1", tmp_path / "there") == ONE


def test_a_save_that_fails_leaves_the_old_one(monkeypatch):
    path = ONE.save()
    monkeypatch.setattr("recuerdo.steer.profiles.json.dumps", lambda *a, **k: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        replace(ONE, note="new").save()
    assert path.exists()
    monkeypatch.undo()
    assert load_profile(path) == ONE


def test_the_package_ships_profiles_and_ones_own_comes_first():
    assert shipped_profiles() == ["smollm2-facts"]
    shipped = load_profile("smollm2-facts")
    assert shipped.name == "smollm2-facts"
    assert shipped.queries == "after"
    assert all(0 <= layer < 30 and 0 <= head < 9 for layer, head in shipped.heads)
    assert shipped.scores
    replace(ONE, name="smollm2-facts").save()
    assert load_profile("smollm2-facts").model == "a model"


def test_a_name_that_nobody_has():
    ONE.save()
    with pytest.raises(MarkError) as caught:
        load_profile("nosuch")
    assert str(caught.value) == (
        "there is no profile 'nosuch': there is facts.v1, smollm2-facts, and `recuerdo profile` makes others"
    )


DAMAGED = {
    "empty": "",
    "cut off": json.dumps(ONE.as_data())[:40],
    "a list": "[1, 2]",
    "a number": "3",
    "no heads": json.dumps({k: v for k, v in ONE.as_data().items() if k != "heads"}),
    "heads that are none": json.dumps(ONE.as_data() | {"heads": [1, 2]}),
    "a thousand brackets": "[" * 100_000,
}


@pytest.mark.parametrize("damage", DAMAGED)
def test_a_damaged_file_is_named(damage, tmp_path):
    path = tmp_path / "x.json"
    path.write_text(DAMAGED[damage], encoding="utf-8")
    with pytest.raises(MarkError) as caught:
        load_profile(path)
    assert str(caught.value) == f"{path} is not a profile: make it again"


def test_a_file_that_is_no_text_or_a_folder(tmp_path):
    (tmp_path / "x.json").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "y.json").mkdir()
    for name in ("x", "y"):
        with pytest.raises(MarkError, match=f"{name}.json is not a profile: make it again$"):
            load_profile(tmp_path / f"{name}.json")


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"version": 2}, "a newer recuerdo (version 2) wrote the profile x.json: update recuerdo"),
        ({"version": None}, "the version of the profile x.json is no version: it is 1"),
        ({"colour": 1}, "a profile has no 'colour': there is name, model, heads"),
        ({"name": "../x"}, "the name of a profile is 1 to 80 letters, digits, dots and dashes"),
        ({"name": 3}, "the name of a profile is 1 to 80 letters, digits, dots and dashes"),
        ({"action": "love"}, "a profile boosts, damps, shares or mutes, it cannot 'love'"),
        ({"action": "share"}, "a share is between 0 and 1, not 8"),
        ({"amount": None}, "boost needs an amount"),
        ({"queries": "none"}, "a profile steers all queries, or those after the document, not 'none'"),
        ({"steps": [3, 1]}, "steps 3 to 1 hold nothing: the end is not included, and must be larger"),
        ({"steps": 3}, "steps are a pair (first, end), either of them None for open"),
        ({"strengths": [1.0]}, "a profile of 3 heads has as many strengths, each from 1e-6 to 1e6"),
        ({"strengths": [1.0, 0.0, 2.0]}, "as many strengths, each from 1e-6 to 1e6"),
        ({"strengths": [1.0, float("nan"), 2.0]}, "a strength is nan: give a finite number"),
        ({"strengths": [1.0, True, 2.0]}, "a strength is a number, not bool"),
        ({"heads": [], "strengths": None}, "heads are an empty list: name at least one"),
        ({"heads": [["a", "b"]], "strengths": None}, "a layer is a whole number, not str"),
        ({"heads": [[0, 1.5]], "strengths": None}, "a head is a whole number, not float"),
        ({"heads": [[0, float("inf")]], "strengths": None}, "a head is a whole number, not float"),
        ({"heads": [[1, 2, 3]], "strengths": None}, "heads are pairs (layer, head), such as ((3, 0), (3, 5))"),
        ({"heads": [[0, -1]], "strengths": None}, "a head is -1: it counts from 0"),
    ],
)
def test_what_a_profile_cannot_be(changed, words, tmp_path):
    path = tmp_path / "x.json"
    path.write_text(json.dumps(ONE.as_data() | changed), encoding="utf-8")
    with pytest.raises(MarkError) as caught:
        load_profile(path)
    assert words in str(caught.value)


def test_a_missing_field_is_named(tmp_path):
    path = tmp_path / "x.json"
    path.write_text(json.dumps({k: v for k, v in ONE.as_data().items() if k != "action"}), encoding="utf-8")
    with pytest.raises(MarkError, match="^a profile has no 'action', which it needs$"):
        load_profile(path)


def test_its_marks_are_at_the_same_place_with_its_heads():
    mark = ONE.mark(mute("words", layers=[1], steps=(0, 3), author="Ada"))
    assert (mark.action, mark.amount, mark.where.quote, mark.author) == ("boost", 8.0, "words", "Ada")
    assert mark.scope == Scope(steps=(0, 3), head_set="facts.v1")
    assert ONE.mark(mark) == mark


def test_strengths_turn_together():
    assert ONE.strengths_at(8.0) == pytest.approx(dict(zip(HEADS, (2.0, 8.0, 32.0), strict=True)))
    assert ONE.strengths_at(64.0) == pytest.approx(dict(zip(HEADS, (4.0, 64.0, 1024.0), strict=True)))
    half = ONE.strengths_at(8.0**0.5)
    assert half == pytest.approx(dict(zip(HEADS, (2**0.5, 8**0.5, 32**0.5), strict=True)))
    assert ONE.strengths_at(None) == ONE.strengths_at(8.0)
    assert max(ONE.strengths_at(1e6).values()) <= 1e6
    assert replace(ONE, strengths=None).strengths_at(8.0) is None


def test_a_head_set_is_looked_up():
    mark = boost("x", 2.0, head_set="facts.v1", queries=(3, None))
    found, profile = looked_up(mark, ONE)
    assert profile is ONE
    assert found.scope == Scope(heads=HEADS, queries=(3, None))
    assert looked_up(boost("x", 2.0), ONE) == (boost("x", 2.0), None)
    with pytest.raises(MarkError, match="^there is no profile 'facts.v1'"):
        looked_up(mark)
    ONE.save()
    assert looked_up(mark)[1] == ONE
    assert looked_up(mark, replace(ONE, name="another"))[1] == ONE  # it goes by the name
