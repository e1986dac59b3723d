"""A memory behind the Model Context Protocol: the SDK's own client over a real process, and what the tools refuse."""

import os
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import anyio
import pytest

pytest.importorskip("mcp", reason="mcp is not installed: recuerdo[mcp]")
from mcp import Client
from mcp.client.stdio import StdioServerParameters, stdio_client
from typer.testing import CliRunner

import recuerdo
from recuerdo.cli.app import app
from recuerdo.cli.mcp import served
from recuerdo.errors import InputError
from recuerdo.workbench.desk import Desk
from recuerdo.workbench.remembering import Memory

sys.path.insert(0, str(Path(__file__).parents[1] / "workbench"))
import words

TOWN = "The harvest festival is held in September. Ada leads it.\n\nThe library closes at six. Bob has the key."
READING = {"ask", "show", "history", "ls", "stats"}
WRITING = {"remember", "correct", "pin", "boost", "mute", "forget"}


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    return words.encoder(tmp_path_factory.mktemp("encoder") / "words", f"{TOWN} Who has it? Carl eight")


@pytest.fixture
def folder(tmp_path):
    """A folder with a file, and what lies outside of it."""
    inside = tmp_path / "inside"
    (inside / "sub").mkdir(parents=True)
    (inside / "sub/town.txt").write_text(TOWN, encoding="utf-8")
    (tmp_path / "secret.txt").write_text("The secret is nine.", encoding="utf-8")
    (inside / "link.txt").symlink_to("../secret.txt")
    (inside / "near.txt").symlink_to("sub/town.txt")
    (inside / "out").symlink_to("..")
    os.mkfifo(inside / "queue.txt")
    return inside


def told(result):
    """The words of a result, and whether it is an error."""
    return result.content[0].text, result.is_error


async def session(client, folder):
    tools = {tool.name: tool for tool in (await client.list_tools()).tools}
    assert set(tools) == READING | WRITING | {"remember_file"}
    assert {name for name, tool in tools.items() if tool.annotations.read_only_hint} == READING
    assert {name for name, tool in tools.items() if tool.annotations.destructive_hint} == {"forget"}
    assert all(0 < len(tool.description) < 300 for tool in tools.values())
    assert tools["forget"].input_schema["required"] == ["ids", "confirm"]
    use = client.call_tool

    kept = await use("remember_file", {"path": "sub/town.txt", "tags": ["town"]})
    assert kept.structured_content == {"ids": [0, 1], "known": 0, "same": {}}
    assert told(await use("remember_file", {"path": "./sub//town.txt"}))[0] == "0 passages kept; 2 were there"
    for path, why in (
        ("../secret.txt", "is not below the folder"),
        ("sub/../../secret.txt", "is not below the folder"),
        (str(folder / "sub/town.txt"), "is not below the folder"),
        ("/dev/zero.txt", "is not below the folder"),
        ("", "is of a kind that cannot be read"),
        (".txt", "is of a kind that cannot be read"),
        ("link.txt", "goes through a link: name the file itself"),
        ("near.txt", "goes through a link: name the file itself"),
        ("out/secret.txt", "goes through a link: name the file itself"),
        ("queue.txt", "queue.txt is no plain file"),
        ("no.txt", "there is no file no.txt that can be opened"),
        ("no\0.txt", "that can be opened"),
        ("x" * 5000 + ".txt", "that can be opened"),
    ):
        words_, failed = told(await use("remember_file", {"path": path}))
        assert failed, path
        assert why in words_, words_

    asked = await use("ask", {"question": "Who has the key?", "top": 1})
    best = asked.structured_content["hops"][0][0]
    assert (best["id"], best["sentence"], best["source"], best["author"]) == (
        1,
        "Bob has the key.",
        "sub/town.txt",
        "mcp",
    )
    assert "#1  sub/town.txt  mcp\nThe library closes at six. ▸Bob has the key.◂\n" in told(asked)[0]
    assert told(asked)[0].endswith("2 of 2 rows were looked at")
    assert (await use("ask", {"question": "Who?", "tags": ["none"]})).structured_content["addressed"] == 0

    said = await use("remember", {"text": "Carl leads it.", "source": "talk"})
    assert told(said)[0] == "1 passages kept (#2)"
    page = await use("ls", {"most": 2})
    assert [row["id"] for row in page.structured_content["rows"]] == [0, 1]
    assert (page.structured_content["total"], page.structured_content["next"]) == (3, 1)
    page = await use("ls", {"after": 1, "most": 2})
    assert ([row["id"] for row in page.structured_content["rows"]], page.structured_content["next"]) == ([2], None)
    assert (
        told(await use("correct", {"id": 1, "text": "Carl has the key.", "reason": "moved"}))[0]
        == "#1 is version 2 now"
    )
    history = (await use("history", {"id": 1})).structured_content
    assert [one["text"] for one in history["versions"]][1] == "Carl has the key."
    assert [(hand["what"], hand["author"], hand["reason"]) for hand in history["hands"]] == [
        ("correct", "mcp", "moved")
    ]
    assert told(await use("pin", {"ids": [0, 2]}))[0] == "#0, #2 pinned"
    assert told(await use("mute", {"ids": [0]}))[0] == "#0 muted"
    shown = await use("show", {"ids": [0]})
    assert shown.structured_content["rows"][0]["bias"] is None
    assert "bias -inf" in told(shown)[0]
    assert told(await use("boost", {"ids": [0], "by": 0}))[0] == "#0 boosted by 0"

    for confirm in ([], ["Carl has the key.", "x"]):
        assert "repeat how each row begins" in told(await use("forget", {"ids": [1], "confirm": confirm}))[0]
    for wrong in ("", "Carl", "The library closes at six."):
        words_, failed = told(await use("forget", {"ids": [1], "confirm": [wrong]}))
        assert failed
        assert words_.startswith("#1 is not confirmed, and nothing was erased: look at it with `show`")
    gone = await use("forget", {"ids": [1], "confirm": ["Carl has the  key."], "reason": "asked to"})
    assert (gone.structured_content["rows"], gone.structured_content["versions"]) == (1, 2)
    assert (await use("stats", {})).structured_content["rows"] == 2

    for name, given, why in (
        ("ask", {"question": " "}, "a question has at least one word"),
        ("ask", {}, "question"),
        ("show", {"ids": [1]}, "was forgotten"),
        ("show", {"ids": list(range(101))}, "101 rows are too many at once: 100 are the most"),
        ("ls", {"most": 0}, "a page has 1 to 100 rows, not 0"),
        ("boost", {"ids": [0], "by": "nan"}, "a bias is a number or -inf, not nan"),
        ("remember", {"text": "a", "tags": ["from:here"]}, "are the memory's own"),
    ):
        words_, failed = told(await use(name, given))
        assert failed, name
        assert why in words_


def apart(main, *given):
    """In a thread of its own: another test's browser may have left its loop in this one."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(anyio.run, main, *given).result()


def test_an_assistant_uses_a_memory(tmp_path, folder, encoder):
    """One process, from its start to its end; whatever it writes beside the protocol would end the session."""
    path = tmp_path / "notes.db"
    source = str(Path(recuerdo.__file__).parents[1])
    arguments = ["-m", "recuerdo", "mcp", "--memory", path, "--folder", folder, "--encoder", encoder]
    start = StdioServerParameters(
        command=sys.executable, args=list(map(str, arguments)), env={"PYTHONPATH": source, "OMP_NUM_THREADS": "1"}
    )

    async def main():
        with (tmp_path / "errors").open("w") as errors:
            async with Client(stdio_client(start, errlog=errors)) as client:
                await session(client, folder)

    apart(main)
    assert (tmp_path / "errors").read_text() == ""
    assert not any(
        b"Carl has" in file.read_bytes() or b"Bob has" in file.read_bytes() for file in tmp_path.glob("notes*")
    )


def test_what_may_only_read_is_offered_no_more(tmp_path, encoder):
    async def names(desk):
        async with Client(served(desk)) as client:
            return {tool.name for tool in (await client.list_tools()).tools}

    with Memory(tmp_path / "notes.db", encoder=str(encoder)) as memory:
        assert apart(names, Desk(memory)) == READING | WRITING
    with Memory(tmp_path / "notes.db", read_only=True) as memory:
        assert apart(names, Desk(memory, folder=tmp_path, read_only=True)) == READING


def test_what_the_server_cannot_start_with(tmp_path, monkeypatch):
    run = CliRunner().invoke
    told = run(app, ["mcp", "--memory", str(tmp_path / "none.db"), "--read-only"])
    assert "there is no memory" in str(told.exception)
    made = str(words.encoder(tmp_path / "words", TOWN))
    with (
        Memory(tmp_path / "notes.db", encoder=made) as memory,
        pytest.raises(InputError, match="there is no folder .*none: make it first"),
    ):
        Desk(memory, folder=tmp_path / "none")
    monkeypatch.setitem(sys.modules, "mcp.server", None)
    told = run(app, ["mcp", "--memory", str(tmp_path / "notes.db")])
    assert str(told.exception) == "the server needs mcp: pip install 'recuerdo[mcp]'"
