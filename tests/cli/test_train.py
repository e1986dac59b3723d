"""The verbs of training: from a recipe to numbers and answers; progress, JSON, Ctrl-C; one clear line for what cannot be."""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from recuerdo.cli import evaluate, predict, recipes, train
from recuerdo.cli.train import _opening, seeds_of
from recuerdo.errors import InputError, RunError
from recuerdo.workbench import shelf
from recuerdo.workbench.running import Started

TINY = Path(__file__).parents[1] / "train"
app = typer.Typer()
app.command(name="train", epilog=train.EXAMPLES)(train.train)
app.command(name="evaluate", epilog=evaluate.EXAMPLES)(evaluate.evaluate)
app.command(name="predict", epilog=predict.EXAMPLES)(predict.predict)
app.add_typer(recipes.app, name="recipes")
TEXT = """
about = "points and their classes"
task = "tiny:Tiny"
[model]
name = "net"
[train]
steps = 20
lr = 0.05
every = 10
"""


def run(*arguments):
    done = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(TINY)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "120")
    (tmp_path / "points.toml").write_text(TEXT, encoding="utf-8")
    return tmp_path


# ------------------------------------------------------------------------------------------------------------- training


def test_a_vision_model_that_looks_first_is_named():
    told = Started(Path("runs/x"), 0, 20, 1234, 0, "dinov2")
    assert _opening(told) == (
        "runs/x: 1,234 parameters, seed 0, 20 steps; first dinov2 looks at all pictures, which takes minutes"
    )


def test_from_a_recipe_to_numbers(here):
    done = run("train", "points.toml")
    assert re.search(r"runs/points/seed-0: best after step \d+ \(loss [\d.]+, error [\d.]+\); 0 min \d s", done.stdout)
    assert "next: recuerdo evaluate runs/points/seed-0" in done.stdout
    assert "101 parameters, seed 0, 20 steps" in done.stderr
    assert re.search(r"step 10 of 20: loss [\d.]+, error [\d.]+", done.stderr)
    shown = run("evaluate", "runs/points/seed-0").stdout
    assert re.search(r"^loss\s+[\d.]+\nerror\s+[\d.]+$", shown.strip())
    assert run("evaluate", "runs/points/seed-0", "--truth").stdout.split() == ["hit", "100"]
    assert json.loads(run("evaluate", "runs/points/seed-0", "--truth", "--split", "valid", "--json").stdout) == {
        "hit": 50
    }


def test_json_is_one_object_an_event():
    lines = [json.loads(line) for line in run("train", "points.toml", "--json", "--out", "x").stdout.splitlines()]
    assert [line["event"] for line in lines] == (
        ["started"] + ["step"] * 10 + ["checked", "saved"] + ["step"] * 10 + ["checked", "saved", "finished"]
    )
    assert lines[1].keys() == {"event", "number", "steps", "loss", "parts", "rate", "norm"}
    again = [json.loads(line)["event"] for line in run("train", "x", "--json").stdout.splitlines()]
    assert again == ["started", "finished"]


def test_changes_and_steps_and_seed(here):
    run("train", "points.toml", "--set", "model.width=3", "-s", "train.lr=0.1", "--steps", 4, "--seed", 7)
    card = json.loads((here / "runs/points/seed-7/card.json").read_text())
    assert (card["steps"], card["seed"], card["parameters"]) == (4, 7, 6 * 3 + 3 + 3 * 5 + 5)
    assert "lr = 0.1" in (here / "runs/points/seed-7/recipe.toml").read_text()


def test_several_seeds_are_summed_up(here):
    shown = run("train", "points.toml", "--seeds", "0-1,4", "--out", "many", "--steps", 5).stdout
    assert sorted(path.name for path in (here / "many").iterdir()) == ["seed-0", "seed-1", "seed-4"]
    titles = r"best by validation: seed \d\s+best by training loss: seed \d\s+mean of 3 seeds\s+± sd"
    assert re.search(titles, shown)
    assert "test" not in shown.splitlines()
    measured = run("evaluate", "many")
    assert re.search(r"^test\s*$", measured.stdout, flags=re.M)
    told = json.loads(run("evaluate", "many", "--json").stdout)
    assert told["seeds"] == [0, 1, 4]
    assert {"mean", "sd"} == told["test"]["error"].keys()
    assert json.loads(run("evaluate", "many", "--truth", "--json").stdout)["many/seed-1"] == {"hit": 100.0}
    assert json.loads(run("train", "points.toml", "--seeds", "2", "--steps", 2, "--json").stdout.splitlines()[-1]) | {
        "event": "summary", "seeds": [2]
    }  # fmt: skip


def test_the_live_line_of_a_terminal(here, monkeypatch):
    import io

    class Terminal(io.StringIO):
        def isatty(self):
            return True

    terminal = Terminal()
    from recuerdo.workbench.recipe import load_recipe
    from recuerdo.workbench.running import train as events

    with monkeypatch.context() as patch:
        patch.setattr(sys, "stderr", terminal)
        patch.setenv("TERM", "xterm")
        with train.live(20, here / "x", False) as show:
            for event in events(load_recipe("points.toml"), here / "x"):
                show(event)
    shown = re.sub(r"\x1b\[[\d;?]*[A-Za-z]", "", terminal.getvalue().replace("\r", "\n"))
    assert "101 parameters" in shown
    assert re.search(r"x .*20/20 loss [\d.]+ .*steps/s left .*\[20: loss [\d.]+, error [\d.]+\]", shown)
    assert re.search(r"^step 10: loss [\d.]+, error [\d.]+", shown, flags=re.M)


@pytest.mark.skipif(os.name == "nt", reason="signals are sent to a process")
@pytest.mark.parametrize("sent", ["SIGINT", "SIGTERM"])
def test_ctrl_c_saves_and_says_how_to_go_on(here, sent):
    words = ["train", "points.toml", "--set", "train.steps=100000", "--set", "train.every=0", "--out", "long", "--json"]
    code = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); from recuerdo.cli.app import main; main()"
    child = subprocess.Popen(
        [sys.executable, "-c", code, *words], cwd=here, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env=os.environ | {"PYTHONPATH": str(TINY), "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert child.stdout is not None
    lines = [json.loads(child.stdout.readline()) for _ in range(20)]
    child.send_signal(getattr(signal, sent))
    _, err = child.communicate(timeout=60)
    assert child.returncode == 130
    told = re.search(r"stopped after step (\d+), which is saved; go on with: recuerdo train long", err)
    assert told, err
    assert int(told[1]) >= lines[-1]["number"]
    from recuerdo.train import load_checkpoint

    assert load_checkpoint(here / "long/last.safetensors")[1]["number"] == int(told[1])


# -------------------------------------------------------------------------------------------------------------- predict


def test_predict_says_and_writes(here):
    run("train", "points.toml", "--steps", 2, "--out", "x")
    (here / "story.txt").write_text("Mary went.\n", encoding="utf-8")
    asked = ["predict", "x", "--story", "story.txt", "-q", "Where?", "--boost", "a", "--mute", "b", "--mute", "c"]
    assert run(*asked).stdout == "Where? Mary went. 1 2\n"
    assert json.loads(run(*asked, "--json").stdout) == {"answer": "Where? Mary went. 1 2"}
    run(*asked, "--out", "page.html")
    assert (here / "page.html").read_text() == "<p>Where? Mary went. 1 2</p>"
    run(*asked, "--out", "page.json")
    assert json.loads((here / "page.json").read_text()) == {"answer": "Where? Mary went. 1 2"}


def test_predict_says_a_line_for_a_line(here):
    run("train", "points.toml", "--steps", 2, "--out", "x")
    (here / "lines.txt").write_text("one\n\nthree é\n", encoding="utf-8")
    assert run("predict", "x", "--lines", "lines.txt").stdout == "ONE\n\nTHREE É\n"
    told = run("predict", "x", "--lines", "lines.txt", "--json").stdout.splitlines()
    assert json.loads(told[2]) == {"text": "three é", "said": "THREE É"}
    done = CliRunner().invoke(app, ["predict", "x", "--lines", "-"], input="a\r\nb")
    assert done.stdout == "A\nB\n"
    assert CliRunner().invoke(app, ["predict", "x", "--lines", "-"], input="\ufeffa\nb").stdout == "A\nB\n"


def test_evaluate_by_length(here):
    run("train", "points.toml", "--steps", 2, "--out", "x")
    run("train", "points.toml", "--steps", 2, "--out", "y")
    asked = ["evaluate", "x", "--by-length", "--beside", "y"]
    told = run(*asked, "--plot", "curves.svg").stdout.splitlines()
    assert [line.split() for line in told] == [
        ["words", "pairs", "x", "y"], ["1-5", "5", "50.50", "50.50"], ["6-", "1", "9.50", "9.50"],
    ]  # fmt: skip
    assert "6 or more" in (here / "curves.svg").read_text()
    assert [row["pairs"] for row in json.loads(run(*asked, "--json").stdout)["y"]] == [5, 1]
    run("train", "points.toml", "--steps", 2, "--out", "z", "--set", "data.classes=4")
    with pytest.raises(InputError, match="these runs are judged on other pairs"):
        run("evaluate", "x", "--by-length", "--beside", "z")


def test_predict_draws_and_streams(here):
    run("train", "points.toml", "--steps", 2, "--out", "x")
    drawn = ["predict", "x", "one", "--sample", 2, "--temperature", 0.5, "--seed", 7]
    assert run(*drawn).stdout == " -1.500  one 0.5 7\n" * 2
    assert json.loads(run(*drawn, "--json").stdout) == [{"text": "one 0.5 7", "score": -1.5}] * 2
    assert run("predict", "x", "one", "--stream").stdout == "ONE\n"


# -------------------------------------------------------------------------------------------------------------- recipes


def test_recipes_are_listed_shown_and_copied(here, monkeypatch):
    box = here / "box"
    box.mkdir()
    (box / "net-points.toml").write_text(TEXT, encoding="utf-8")
    monkeypatch.setattr(shelf, "files", lambda package: box)
    assert re.search(r"net-points\s+points and their classes", run("recipes", "ls").stdout)
    listed = json.loads(run("recipes", "ls", "--json").stdout)
    assert listed == [{"name": "net-points", "about": "points and their classes"}]
    assert run("recipes", "show", "net-points").stdout == TEXT
    assert (
        "net-points.toml: change it, then `recuerdo train net-points.toml`"
        in run("recipes", "copy", "net-points").stdout
    )
    assert (here / "net-points.toml").read_text() == TEXT
    run("recipes", "copy", "net-points", "mine.toml")
    assert (here / "mine.toml").read_text() == TEXT
    with pytest.raises(InputError, match="mine.toml is there already, and nothing is overwritten: name another file"):
        run("recipes", "copy", "net-points", "mine.toml")
    with pytest.raises(InputError, match="nowhere/mine.toml cannot be written .*: name another file"):
        run("recipes", "copy", "net-points", "nowhere/mine.toml")
    with pytest.raises(InputError, match="there is no recipe 'net-point': did you mean 'net-points'?"):
        run("recipes", "show", "net-point")


# --------------------------------------------------------------------------------------------------------- help, refused


@pytest.mark.parametrize("verb", ["train", "evaluate", "predict", "recipes"])
def test_help_is_there_without_torch(verb):
    code = f"""
import sys
sys.argv = ["recuerdo", "{verb}", "--help"]
from recuerdo.cli.app import main
try:
    main()
finally:
    assert "torch" not in sys.modules
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "Examples" in done.stdout or verb == "recipes"


def test_the_list_of_recipes_needs_no_torch():
    code = "import sys; from recuerdo.workbench.shelf import recipes; recipes(); assert 'torch' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_seeds_are_read():
    assert seeds_of("0-3") == [0, 1, 2, 3]
    assert seeds_of("5, 1,1-2") == [5, 1, 2]
    for wrong in ("", "a", "3-1", "1;2", "-1"):
        with pytest.raises(InputError, match="are no seeds: write them like 0-9 or 1,5,7"):
            seeds_of(wrong)


REFUSED = {
    "both": (["train", "points.toml", "--seed", 1, "--seeds", "1"], InputError, "--seed and --seeds exclude each other"),
    "recipe": (["train", "point"], InputError, "there is no recipe 'point'"),
    "steps and phases": (
        ["train", "points.toml", "--set", "train.phase=[{steps=1}]", "--steps", 2], InputError,
        "the recipe has phases, each with its steps: write --set train.phase.0.steps=…",
    ),
    "a folder that is none": (["evaluate", "nothing"], RunError, "nothing is no folder of a run"),
    "predict from none": (["predict", "nothing", "-q", "x"], RunError, "make one with `recuerdo train`"),
    "an ending": (["predict", "x", "--out", "x.png"], InputError, "x.png is neither .html nor .json: these can be written"),
    "a page nowhere": (
        ["predict", "translate-fr-en", "Un chat.", "--out", "no/x.html"],
        InputError,
        "cannot be written (No such file or directory): name another file with --out",
    ),
    "lines and more": (["predict", "x", "a", "--lines", "x.txt"], InputError, "--lines stands alone"),
    "lines to a page": (["predict", "x", "--lines", "x.txt", "--out", "x.html"], InputError, "leave --out away"),
    "lines of a story": (
        ["predict", "babi-reader", "--lines", "points.toml"],
        InputError,
        "the task answer has nothing to say of single lines: leave --lines away",
    ),
    "lengths of stories": (
        ["evaluate", "babi-reader", "--by-length"], InputError, "the task answer has no lengths to part by",
    ),
    "curves of nothing": (["evaluate", "x", "--plot", "x.svg"], InputError, "--beside and --plot belong to --by-length"),
    "a curve as a page": (
        ["evaluate", "x", "--by-length", "--plot", "x.html"], InputError, "x.html is neither .svg nor .png",
    ),
    "a curve nowhere": (
        ["evaluate", "x", "--by-length", "--plot", "no/x.svg"], InputError, "there is no folder no to draw x.svg in",
    ),
    "two questions": (["evaluate", "x", "--by-length", "--truth"], InputError, "ask one at a time"),
    "a picture of a story": (
        ["predict", "babi-reader", "--image", "a.png"], InputError, "predict does not know 'image': it knows",
    ),
    "samples of a story": (
        ["predict", "babi-reader", "a", "--sample", 2],
        InputError,
        "the task answer says no texts: leave --sample and --stream away",
    ),
    "samples and a mark": (["predict", "x", "a", "--sample", 2, "--mute", "a"], InputError, "take a text and nothing more"),
    "samples of nothing": (["predict", "x", "--stream"], InputError, "--sample and --stream take a text"),
    "both ways": (["predict", "x", "a", "--stream", "--sample", 2], InputError, "choose one of them"),
    "no lines": (["predict", "x", "--lines", "none.txt"], InputError, "none.txt cannot be read"),
    "no text": (["predict", "x", "--text-file", "none.txt"], InputError, "the text none.txt cannot be read"),
    "two texts": (["predict", "x", "a", "--text-file", "none.txt"], InputError, "the text is given twice"),
    "no story": (["predict", "x", "--story", "none.txt"], InputError, "the story none.txt cannot be read"),
    "a seed to go on": (["train", "x", "--seed", 3], RunError, "x holds another run (train.seed): go on with it by"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_is_one_line(case):
    arguments, kind, words = REFUSED[case]
    if case == "a seed to go on":
        run("train", "points.toml", "--steps", 1, "--out", "x")
    with pytest.raises(kind) as error:
        run(*arguments)
    assert words in str(error.value)
