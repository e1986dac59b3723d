"""No way in by questions, texts and names: what is far too much or no text at all is refused; what is odd is kept as it is."""

import json
import os
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from recuerdo.cli.app import app, main
from recuerdo.errors import InputError, RecuerdoError
from recuerdo.store.embedded import Embedded
from recuerdo.workbench.desk import Desk
from recuerdo.workbench.remembering import Memory

sys.path.insert(0, str(Path(__file__).parent))
import words

TOWN = "The harvest festival is held in September. Ada leads it.\n\nThe library closes at six. Bob has the key."
HOSTILE = "</p><script>alert(1)</script> '; DROP TABLE bodies; -- \x1b[31m\x00 \u202e"


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    return words.encoder(tmp_path_factory.mktemp("encoder") / "words", f"{TOWN} Who ?")


@pytest.fixture(scope="module")
def memory(tmp_path_factory, encoder):
    with Memory(tmp_path_factory.mktemp("memory") / "notes.db", encoder=str(encoder)) as made:
        made.remember(TOWN, source="town.txt")
        yield made


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"top": 0}, "episodes are 1 to 1000 and hops 1 to 16, not 0 and 1"),
        ({"top": 10**12}, "episodes are 1 to 1000"),
        ({"hops": 10**9}, "hops 1 to 16, not 5 and 1000000000"),
        ({"words": float("nan")}, "the weight of shared words is 0 to 1000, not nan"),
        ({"words": float("inf")}, "the weight of shared words is 0 to 1000, not inf"),
        ({"question": "a" * 20_000}, "a question of 20,000 characters is too long: 10,000 are the most"),
        ({"question": "Who \ud800?"}, "a text is no Unicode"),
    ],
)
def test_questions_that_cannot_be(memory, given, told):
    with pytest.raises(InputError, match=told):
        memory.ask(**{"question": "Who?", **given})


def test_texts_that_cannot_be(memory):
    before = memory.store.ids().tolist()
    for wrong in (
        lambda: memory.remember("a \udc80 b"),
        lambda: memory.correct(0, "a \udc80 b"),
        lambda: memory.remember("a", author="\x1b[31m"),
        lambda: memory.remember("a", tags=["\x00"]),
        lambda: memory.pin([0], reason="\ud800"),
        lambda: memory.boost([0], 1e30),
        lambda: memory.remember("a", when=1e300),
    ):
        with pytest.raises(InputError):
            wrong()
    assert memory.store.ids().tolist() == before
    memory.boost([0], 1_000_000)
    assert memory.ask("Who?").hops[0][0].weight == 1
    memory.boost([0], 0)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.text(max_size=60), tags=st.lists(st.text(max_size=5), max_size=2), source=st.text(max_size=30))
def test_any_text_may_be_kept_and_asked(memory, text, tags, source):
    desk = Desk(memory, author="Ada")
    for name, said in (
        ("remember", {"text": text, "tags": tags, "source": source}),
        ("ask", {"question": text, "tags": tags}),
        ("ls", {"tags": tags}),
        ("pin", {"ids": [0], "reason": text}),
        ("history", {"id": 0}),
    ):
        try:
            told = desk.call(name, **said)
        except RecuerdoError:
            continue
        json.dumps(told.data)
        if name == "remember" and told.data["ids"]:
            assert desk.call("show", ids=told.data["ids"]).data["rows"][0]["tags"] == tags


def test_a_page_is_written_by_ask(tmp_path, monkeypatch, encoder):
    monkeypatch.chdir(tmp_path)
    run = CliRunner().invoke
    assert run(app, ["remember", "-", "--encoder", str(encoder)], input=f"{HOSTILE} Bob has the key.").exit_code == 0
    told = run(app, ["ask", "Who?", "--html", "a.html"])
    assert told.exit_code == 0, told.output
    page = (tmp_path / "a.html").read_text(encoding="utf-8")
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert "<script" not in page
    assert "recuerdo" in page
    for name in ("a.txt", "none/a.html"):
        told = run(app, ["ask", "Who?", "--html", name])
        assert "cannot be written: name a .html file in a folder that is there" in str(told.exception)


@pytest.mark.skipif(os.name == "nt", reason="names are no bytes there")
def test_files_may_be_called_anything(tmp_path, monkeypatch, capfd, encoder):
    folder = tmp_path / "docs"
    folder.mkdir()
    for name in (b"bad\xff.txt", b"line\nfeed \x1b[31m.txt", "\u202etxt.exe.md".encode()):
        with open(os.fsencode(folder) + b"/" + name, "w") as file:
            file.write("Bob has the key.")
    (folder / "zero \x1b[31m\n.txt").write_bytes(b"\0")
    monkeypatch.chdir(tmp_path)
    for verb in (
        ["remember", "docs", "--encoder", str(encoder)],
        ["remember", "docs"],
        ["ask", "Who?"],
        ["memories", "ls"],
    ):
        monkeypatch.setattr(sys, "argv", ["recuerdo", *verb])
        with pytest.raises(SystemExit):
            main()
        out, err = capfd.readouterr()
        assert "\x1b" not in out + err
        assert "\u202e" not in out + err
        assert "Traceback" not in err
        assert err.count("\n") == (verb[0] == "remember"), err
        if verb[0] == "remember":
            assert out.count("\n") == 3, out
    with Embedded(tmp_path / "memory.db", read_only=True) as store:
        assert len(store.ids()) == 3
