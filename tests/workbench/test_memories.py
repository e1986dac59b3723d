"""The verbs of a memory from end to end, over a file, a real PostgreSQL and a cluster."""

import json
import os
import shutil
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from recuerdo.cli.app import app
from recuerdo.errors import InputError, RecuerdoError
from recuerdo.store.embedded import Embedded
from recuerdo.workbench.moving import salvage
from recuerdo.workbench.remembering import Memory

sys.path.insert(0, str(Path(__file__).parent))
import places
from places import TOWN, filled, told


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RECUERDO_MEMORY", raising=False)

    def call(*words, stdin=None, code=0):
        got = CliRunner().invoke(app, list(map(str, words)), input=stdin)
        assert got.exit_code == code, (got.output, got.exception)
        return got.output

    return call


@pytest.mark.parametrize("kind", places.KINDS)
def test_all_verbs_over_every_kind_of_place(kind, run, tmp_path, monkeypatch, encoder):
    where = places.place(kind, tmp_path)
    monkeypatch.setenv("RECUERDO_MEMORY", where)
    (tmp_path / "town.txt").write_text(TOWN, encoding="utf-8")
    assert "2 passages kept" in run("remember", "town.txt", "--encoder", encoder, "--tag", "town", "--author", "Ada")
    assert "0 passages kept; 2 were there" in run("remember", "town.txt")
    assert "▸Bob has the key.◂" in run("ask", "Who has the key?")
    assert json.loads(run("correct", "1", "Carl has the key.", "--reason", "moved", "--json")) == {
        "id": 1,
        "version": 2,
    }
    assert "Carl" in run("ask", "Who has the key?")
    assert json.loads(run("pin", "1", "0", "--json")) == {"ids": [1, 0], "bias": 4.0}
    assert "#1 boosted by 2" in run("boost", "1", "--by", "2")
    assert json.loads(run("mute", "1", "--author", "Eve", "--json"))["bias"] is None
    shown = run("memories", "show", "1")
    for words in (
        "#1\n",
        "from     town.txt",
        "tags     town",
        "version 2",
        "bias     -inf",
        "Carl has the key.",
        "Eve",
    ):
        assert words in shown
    assert json.loads(run("memories", "show", "1", "--json"))["hands"][0]["what"] == "correct"
    assert "#1 has bias +2 now; taken back: " in run("undo", "1", "--reason", "too much")
    assert "#1 has bias +4 now" in run("undo", "1")
    undone = json.loads(run("undo", "1", "--json"))
    assert (undone["bias"], undone["undone"]["amount"], undone["version"]) == (0.0, 4.0, 2)
    assert "#1 has version 3 now; taken back: " in run("undo", "1", "--author", "Eve")
    assert "▸Bob has the key.◂" in run("ask", "Who has the key?")
    assert "undo  Eve" in run("memories", "history", "1")
    assert "2 rows in " in run("memories", "ls", "--tag", "town", "--author", "Ada")
    assert json.loads(run("memories", "stats", "--json"))["next"] >= 2
    assert json.loads(run("memories", "check", "--json"))["wrong"] == []
    assert ("were made again" if kind == "file" else "has no caches") in run("memories", "rebuild")
    assert json.loads(run("memories", "rebuild", "--json"))["rebuilt"] == (kind == "file")
    assert "2 rows of " in run("memories", "export", "town.jsonl")
    assert json.loads(run("memories", "export", "town.parquet", "--vectors", "--json"))["rows"] == 2
    assert "2 rows in 4 versions came to b.db, with the vectors" in run(
        "memories", "import", "town.parquet", "-m", "b.db"
    )
    assert "2 were there already" in run("memories", "import", "town.jsonl", "-m", "b.db")
    said = run("memories", "move", where, "c.db")
    assert "2 rows in 4 versions and 9 things done by hand are in c.db; all were compared with " in said
    assert json.loads(run("memories", "move", where, "c.db", "--json"))["rows"] == 2
    assert told(where) == told("c.db")
    run("undo", "0")
    assert run("forget", "--query", "Who has the key?", "--top", "1", stdin="n\n", code=1).count("#1  ") == 1
    gone = json.loads(run("forget", "--query", "Who has the key?", "--top", "1", "--yes", "--by", "Ada", "--json"))
    assert (gone["ids"], gone["rows"], gone["versions"]) == ([1], 1, 3)
    assert 0 < gone["weights"][0] <= 1
    assert "1 rows in 1 versions were erased" in run("forget", "--author", "Ada", "--yes")
    assert "0 rows in " in run("memories", "ls")


def test_rows_are_forgotten_by_filters(run, encoder):
    lines = [{"text": f"Ada leads it on day {i}.", "time": 86_400.0 * i, "author": "AB"[i % 2]} for i in range(8)]
    Path("days.jsonl").write_text("\n".join(map(json.dumps, lines)))
    run("remember", "days.jsonl", "--encoder", encoder)
    assert "3 rows in " in run("memories", "ls", "--since", "1970-01-06")
    said = run("forget", "--author", "A", "--since", "1970-01-04", "--until", "1970-01-06", stdin="n\n", code=1)
    assert ("#4" in said, "#3" in said, "#5" in said) == (True, False, False)
    gone = json.loads(run("forget", "--until", "1970-01-03", "--yes", "--json", "--reason", "old"))
    assert gone["ids"] == [0, 1]
    assert json.loads(run("forget", "--author", "B", "--since", "1970-01-05 00:00", "--yes", "--json"))["ids"] == [5, 7]
    assert json.loads(run("memories", "ls", "--json"))[0]["id"] == 2
    many = "\n".join(f"Bob leads it {'on ' * i}." for i in range(60))
    run("remember", "-", "--tag", "many", stdin="\n\n".join(many.splitlines()))
    assert "and 10 more\n" in run("forget", "--tag", "many", stdin="n\n", code=1)


def test_the_encoder_is_not_loaded_to_show_and_undo(run, encoder, monkeypatch):
    run("remember", "-", "--encoder", encoder, stdin="Bob has \x1b[31mthe key.")
    run("pin", "0", "--author", "A\x1b", "--reason", "why\x1b[0m")
    monkeypatch.setattr("recuerdo.workbench.remembering.SentenceEncoder", None)
    for words in (["memories", "show", "0"], ["undo", "0"], ["memories", "history", "0"]):
        said = run(*words)
        assert "\x1b" not in said
        assert "�" in said


def test_a_page_of_an_answer_holds_no_password(run, encoder, tmp_path, monkeypatch):
    where = places.place("server", tmp_path).replace("postgres@", "postgres:s3cr3t@", 1)
    with Memory(where, encoder=str(encoder)) as memory:
        memory.remember(TOWN)
    words = ["ask", "Who has the key?", f"--memory={where}", "--html", "answer.html"]
    monkeypatch.setattr(sys, "argv", ["recuerdo", *words])
    said = run(*words)
    page = (tmp_path / "answer.html").read_text(encoding="utf-8")
    assert "Bob has the key." in page
    assert "recuerdo ask" in page
    assert "schema=" in page
    assert "s3cr3t" not in page + said


def test_a_damaged_memory_is_salvaged(run, encoder, tmp_path):
    with Memory("a.db", encoder=str(encoder)) as memory:
        for i in range(80):
            memory.remember(f"{'Ada leads it. ' * 9} Bob has {'the ' * i} key.")
        memory.correct(5, "Carl has the key.")
    before = told("a.db")
    shutil.copyfile("a.db", "well.db")
    data = bytearray(Path("a.db").read_bytes())
    at = data.index(b"Carl has")
    data[at : at + 4] = b"Bill"
    page = 8192 * (data.index(b"the " * 60) // 8192)
    data[page : page + 8192] = os.urandom(8192)
    Path("a.db").write_bytes(data)
    said = run("memories", "salvage", "a.db", "b.db")
    assert " rows were read" not in said
    assert " rows are lost: #" in said
    assert "#5: its text is not as it was remembered" in said
    assert Path("a.db").read_bytes() == data
    kept = told("b.db")
    assert len(kept["rows"]) > 0.8 * len(before["rows"])
    assert kept["facts"] == before["facts"]
    assert {one for one in kept["rows"] if one[0] != 5} < {*before["rows"]}
    assert json.loads(run("memories", "salvage", "a.db", "c.db", "--json"))["lost"]["doubtful"].keys() == {"5"}
    assert "nothing is lost" in run("memories", "salvage", "well.db", "d.db")
    with pytest.raises(InputError, match="a.db cannot be salvaged into itself: give another place"):
        salvage(Path("a.db"), "a.db")
    Embedded("e.db", width=3).close()
    with pytest.raises(InputError, match="another encoder made it"):
        salvage(Path("a.db"), "e.db")


@pytest.mark.parametrize("kind", [kind for kind in places.KINDS if kind != "file"])
def test_what_is_salvaged_may_go_anywhere(kind, tmp_path):
    first, there = filled(str(tmp_path / "a.db")), places.place(kind, tmp_path)
    moved, lost = salvage(tmp_path / "a.db", there)
    assert (moved.rows, lost.rows, lost.doubtful) == (17, (), {})
    assert told(there) == told(first)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["undo", "0"], "there is no memory memory.db: make one with `recuerdo remember FILE --memory memory.db`"),
        (["forget", "0", "--author", "Ada"], "say what to forget: numbers of rows, or --tag, --author, --since"),
        (["forget", "--tag", "x", "-m", "there.db"], "no row of there.db is what the filter says: see `recuerdo"),
        (["ask", "Who?", "-m", "mysql://ada:s3cr3t@db/x"], "no memory is at mysql://…"),
        (["memories", "ls", "-m", "postgresql://ada:s3cr3t@127.0.0.1:9/x"], "cannot be reached"),
        (
            ["memories", "move", "there.db", "qdrant+https://s3cr3t@c.example"],
            "the address of a cluster cannot be read",
        ),
        (["memories", "show", "3", "-m", "there.db"], "row 3 of there.db is not there"),
        (["memories", "import", "none.jsonl"], "there is no file none.jsonl"),
    ],
)
def test_errors(words, said, run, tmp_path):
    Embedded(tmp_path / "there.db", width=2).close()
    got = CliRunner().invoke(app, words)
    assert isinstance(got.exception, RecuerdoError), got.output
    assert said in str(got.exception)
    assert "s3cr3t" not in str(got.exception) + got.output
