"""`recuerdo marks`: what was kept is listed, shown, merged and exported; every wrong input gets one clear line."""

import json
import re

import pytest
from typer.testing import CliRunner

from recuerdo.cli.marks import app
from recuerdo.errors import JournalError, MarkError
from recuerdo.steer import Box, Feedback, Journal, boost, mute

TEXT = "The red key opens the gate. The blue key opens the door."
FIRST = Feedback(
    marks=(boost("red key", 4, author="Ada", reason="it is the one"), mute("blue")),
    text=TEXT,
    question="What opens the [bold]gate?",
    answer="The red key.",
    model="smollm2",
    author="Ada",
    date="2026-11-30T14:05:00+00:00",
    before={"share": 0.125},
    after={"share": 0.3},
)
SECOND = Feedback(marks=(mute(Box(0, 0, 0.5, 1)),) * 6, text="\x1b[2Jtwo\nlines", model="dinov2")


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A journal with two entries in the place where it is looked for."""
    monkeypatch.setenv("RECUERDO_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("COLUMNS", "160")
    journal = Journal()
    journal.add(FIRST)
    journal.add(SECOND)
    return journal


def run(*arguments: object):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def printed(*arguments: object) -> str:
    done = run(*arguments)
    assert done.exit_code == 0, done.output
    return done.stdout


def refused(*arguments: object) -> str:
    """The one line that the command line makes of an error raised on purpose."""
    done = run(*arguments)
    assert isinstance(done.exception, JournalError | MarkError), done.output
    assert done.stdout == ""
    assert "\n" not in str(done.exception)
    return str(done.exception)


def test_ls_lists_the_feedback(home):
    first, *rest = [re.sub(r" {2,}", " | ", line.strip()) for line in printed("ls").splitlines()]
    assert first == "id | date | author | model | question | marks"
    assert rest[0] == f"{FIRST.id} | 2026-11-30 | Ada | smollm2 | What opens the [bold]gate? | boost x4 'red key'"
    assert rest[1] == "mute 'blue'"
    assert rest[2] == f"{SECOND.id} | dinov2 | mute box 0, 0 to 0.5, 1"
    assert rest[-1] == "… 6 in all"


def test_ls_as_json_holds_all_but_the_documents(home):
    told = json.loads(printed("ls", "--json"))
    assert told["journal"] == str(home.path)
    assert (told["torn"], told["damaged"]) == (0, [])
    assert [row["id"] for row in told["feedback"]] == [FIRST.id, SECOND.id]
    row = FIRST.to_data()
    del row["text"]
    assert told["feedback"][0] == {**row, "characters": len(TEXT)}


def test_ls_of_nothing(tmp_path):
    none = tmp_path / "none.jsonl"
    assert printed("ls", "--journal", none) == f"no feedback is kept in {none} yet\n"
    assert json.loads(printed("ls", "--journal", none, "--json"))["feedback"] == []


def test_show_tells_one_feedback(home):
    told = printed("show", FIRST.id[:6])
    for line in (
        f"id            {FIRST.id}",
        "author        Ada",
        "question      What opens the [bold]gate?",
        "answer wanted The red key.",
        "before        share 0.125",
        "after         share 0.3",
        "mark          boost x4 'red key': Ada, it is the one",
        "mark          mute 'blue'",
        TEXT,
    ):
        assert line in told.splitlines()
    assert json.loads(printed("show", FIRST.id, "--json")) == FIRST.to_data()


def test_a_journal_from_elsewhere_commands_no_terminal(home):
    told = printed("show", SECOND.id)
    assert "\x1b" not in told
    assert told.endswith("�[2Jtwo\nlines\n")
    assert json.loads(printed("show", SECOND.id, "--json"))["text"] == SECOND.text


def test_merge_and_export_carry_feedback_elsewhere(home, tmp_path):
    file, ours = tmp_path / "sent.json", tmp_path / "ours.jsonl"
    assert printed("export", file) == f"wrote 2 to {file}\n"
    assert printed("merge", file, home.path, "--journal", ours) == "added 2, known already 0\n"
    assert printed("merge", file, "--journal", ours) == "added 0, known already 2\n"
    assert Journal(ours).entries() == [FIRST, SECOND]
    assert json.loads(printed("merge", file, "--journal", ours, "--json")) == {"added": 0, "known": 2, "torn": 0}
    assert json.loads(printed("export", ours.with_suffix(".json"), "--json"))["count"] == 2


def test_export_to_standard_output(home, tmp_path):
    file = tmp_path / "piped.jsonl"
    file.write_text(printed("export", "-"), encoding="utf-8")
    assert Journal(file).entries() == [FIRST, SECOND]
    assert [entry["id"] for entry in json.loads(printed("export", "-", "--json"))["feedback"]] == [FIRST.id, SECOND.id]


def test_what_is_set_aside_is_told_on_the_error_stream(home, tmp_path):
    whole = home.path.read_bytes()
    home.path.write_bytes(b"dam\x1baged\n" + whole + b'{"version":1,"id"')
    assert "line 1: it is damaged" in refused("ls")
    assert "(--skip-damaged)" in refused("export", tmp_path / "a.json")
    done = run("ls", "--skip-damaged")
    assert FIRST.id in done.stdout
    first, second = done.stderr.splitlines()
    assert first == f"recuerdo: 1 unfinished, never acknowledged, in {home.path} set aside"
    assert second.startswith(f"recuerdo: skipped {home.path}, line 1: it is damaged")
    assert json.loads(run("ls", "--skip-damaged", "--json").stdout)["torn"] == 1
    assert FIRST.id in printed("show", FIRST.id, "--skip-damaged")
    assert run("export", "-", "--skip-damaged").stdout.encode() == whole
    home.path.write_bytes(whole + b'{"version":1,"id"')
    theirs = tmp_path / "theirs.jsonl"
    assert printed("merge", home.path, "--journal", theirs) == "added 2, known already 0; 1 unfinished set aside\n"


def test_wrong_inputs_get_one_line(home, tmp_path):
    assert "holds no feedback 'zz': `recuerdo marks ls` lists the ids" in refused("show", "zz")
    assert "2 ids begin with ''" in refused("show", "")
    assert "there is no file" in refused("merge", tmp_path / "none.jsonl")
    assert "exported as .jsonl or .json, not .csv" in refused("export", tmp_path / "a.csv")
    assert "is the journal itself" in refused("export", home.path)
    assert "cannot be read: Is a directory" in refused("ls", "--journal", tmp_path)


@pytest.mark.parametrize("verb", ["ls", "show", "merge", "export"])
def test_help_has_examples(verb):
    told = re.sub(r"\x1b\[[\d;]*m", "", printed(verb, "--help"))
    assert f"recuerdo marks {verb}" in told
    assert "--json" in told
    assert "--journal" in told
