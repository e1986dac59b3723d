"""The journal: what was acknowledged is there, whatever happens to the process, the disk or the file."""

import errno
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import recuerdo
from recuerdo.errors import JournalError, MarkError, RecuerdoError
from recuerdo.steer import Feedback, Journal, boost, damp, journal_folder, mute, share
from recuerdo.steer import journal as room
from recuerdo.steer.journal import TORN, as_text

TEXT = "The red key opens the gate.\nThe blue key opens the door."
posix = pytest.mark.skipif(os.name == "nt", reason="needs a POSIX system")


def said(number: int, **more) -> Feedback:
    """One feedback, another for each number; its text holds what could break lines."""
    text = f'{TEXT}\r\n\u2028\x85\0 „{number}“ {{"id":1}}{TORN.decode()}'
    return Feedback(marks=(boost("red key", 2 + number),), text=text, **more)


@pytest.fixture
def journal(tmp_path) -> Journal:
    return Journal(tmp_path / "home" / "feedback.jsonl")


def refused(do, *words: str) -> str:
    with pytest.raises(JournalError) as told:
        do()
    message = str(told.value)
    assert "\n" not in message
    for word in words:
        assert word in message, message
    return message


# ----------------------------------------------------------------------------------------------------------- feedback


def test_feedback_is_kept_whole(journal):
    full = Feedback(
        marks=(boost("red key", 4, layers=[-1]), mute((19, 22))),
        text=TEXT,
        question="What opens the gate?",
        answer="The red key.",
        model="smollm2",
        author="Ada",
        date="2026-11-30T14:05:00+00:00",
        reason="the colours are mixed up",
        before={"share": 0.1},
        after={"share": 0.3, "kl": 2},
    )
    other = Feedback(marks=(), text="", answer="no")
    assert [journal.add(full), journal.add(other)] == [full.id, other.id]
    assert list(journal) == Journal(journal.path).entries() == [full, other]
    assert len({full, other, next(iter(journal))}) == 2
    assert journal.path.read_bytes().count(b"\n") == 2
    assert Feedback.from_data(json.loads(json.dumps(full.to_data()))) == full


def test_an_id_is_made_of_what_is_said():
    """A change here makes the same feedback of yesterday another one."""
    assert Feedback(marks=(mute("red key"),), text=TEXT).id == "dbd7814611ff3f2d"
    assert said(1).id == said(1).id != said(2).id
    assert said(1, before={"a": 1, "b": 2}).id == said(1, before={"b": 2.0, "a": 1.0}).id


def test_feedback_is_dated_once():
    fresh = said(1).dated()
    assert abs(datetime.now(UTC) - datetime.fromisoformat(fresh.date)).total_seconds() < 60
    assert fresh.marks[0].date
    assert fresh.dated() == fresh


WRONG = {
    "nothing said": ({"marks": [], "text": "a"}, "says nothing"),
    "no text": ({"marks": []}, "a feedback has no 'text', which it needs"),
    "text of a number": ({"marks": [], "text": 3}, "the text is text, not int"),
    "answer of a number": ({"marks": [], "text": "", "answer": 3}, "the answer is text, not int"),
    "model of none": ({"marks": [], "text": "", "answer": "", "model": None}, "the model is text, not nothing"),
    "wrong date": ({"marks": [], "text": "", "answer": "", "date": "now"}, "is not ISO 8601"),
    "wrong mark": ({"marks": [{}], "text": ""}, "mark 1 of 1: a mark has no 'where'"),
    "marks of text": ({"marks": "a", "text": ""}, "the marks of a feedback are a list, not str"),
    "marks in marks": ({"marks": {"marks": []}, "text": ""}, "the marks of a feedback are a list, not dict"),
    "unknown field": ({"marks": [], "text": "", "anser": ""}, "a feedback has no 'anser': did you mean answer?"),
    "wrong figures": ({"marks": [], "text": "", "answer": "", "before": [1]}, "before holds at most 100 numbers by name"),
    "too many": ({"marks": [], "text": "", "answer": "", "after": dict.fromkeys(map(str, range(101)), 1)}, "at most 100"),
    "NaN": ({"marks": [], "text": "", "answer": "", "after": {"kl": float("nan")}}, "after 'kl' is nan"),
    "a wrong name": ({"marks": [], "text": "", "answer": "", "after": {3: 1}}, "a name in after is text, not int"),
    "newer": ({"version": 2}, "a newer recuerdo (version 2) wrote the feedback: update recuerdo"),
    "no version": ({"version": 0}, "the version of the feedback is no version"),
    "changed": ({"marks": [], "text": "", "answer": "", "id": "0" * 16}, "changed after it was kept"),
    "no object": ([], "a feedback is an object with marks, text", "not list"),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_wrong_feedback_gets_a_clear_word(case):
    data, *words = WRONG[case]
    with pytest.raises(MarkError) as told:
        Feedback.from_data(data)
    assert all(word in str(told.value) for word in words), told.value


def test_marks_that_do_not_fit_are_not_kept(journal):
    with pytest.raises(MarkError, match="is not in the text"):
        journal.add(Feedback(marks=(mute("green"),), text=TEXT))
    with pytest.raises(MarkError, match="lie on one another"):
        journal.add(Feedback(marks=(mute("red key"), share("red", 0.3)), text=TEXT))
    assert not journal.path.exists()


def test_the_journal_lives_where_it_is_told(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setenv("RECUERDO_HOME", str(tmp_path / "home"))
    assert journal_folder() == tmp_path / "home"
    assert Journal().path == tmp_path / "home" / "feedback.jsonl"
    monkeypatch.delenv("RECUERDO_HOME")
    assert journal_folder() == tmp_path / "data" / "recuerdo"
    monkeypatch.delenv("XDG_DATA_HOME")
    for system, last in (("linux", ".local/share/recuerdo"), ("darwin", "Library/Application Support/recuerdo")):
        monkeypatch.setattr(sys, "platform", system)
        assert journal_folder() == Path.home() / last


# ------------------------------------------------------------------------------------------------------------ durable


def test_it_is_on_the_disk_before_it_is_acknowledged(journal, monkeypatch):
    done = []
    write, sync = os.write, os.fsync
    monkeypatch.setattr(os, "write", lambda handle, data: done.append("write") or write(handle, data))
    names = {}

    def synced(handle):
        done.append(names.get(os.fstat(handle).st_ino, "file"))
        sync(handle)

    monkeypatch.setattr(os, "fsync", synced)
    journal.path.parent.mkdir()
    names[journal.path.parent.stat().st_ino] = "folder"
    journal.add(said(1))
    assert [step for step in done if step != "write"] == ["file", "folder"]
    assert done.index("write") < done.index("file")
    done.clear()
    journal.add(said(1))  # known already, but perhaps not yet on the disk when its writer was killed
    assert done[-1:] == ["file"]
    done.clear()
    Journal(journal.path).add(said(2))  # nor may the name of the file be
    assert done[-2:] == ["file", "folder"]


def test_a_new_folder_is_on_the_disk_too(tmp_path, monkeypatch):
    synced = []
    real = room._sync_folder
    monkeypatch.setattr(room, "_sync_folder", lambda folder: synced.append(folder) or real(folder))
    Journal(tmp_path / "a" / "b" / "feedback.jsonl").add(said(1))
    assert synced == [tmp_path, tmp_path / "a", tmp_path / "a" / "b"]


def test_the_same_is_kept_once(journal):
    assert journal.add(said(1)) == journal.add(said(1)) == Journal(journal.path).add(said(1))
    journal.add(said(2))
    assert journal.add(said(1)) == said(1).id
    assert journal.path.read_bytes().count(b"\n") == 2
    with journal.path.open("ab") as file:  # as `cat theirs >> ours` would
        file.write(journal.path.read_bytes())
    assert journal.entries() == [said(1), said(2)]


def test_a_line_cut_off_anywhere_costs_nothing_else(journal, tmp_path):
    """As a kill or a power cut may leave it: at every byte of the last line."""
    journal.add(said(1))
    start = journal.path.stat().st_size
    journal.add(said(2))
    whole = journal.path.read_bytes()
    for cut in range(start, len(whole) + 1):
        torn = Journal(tmp_path / "torn.jsonl")
        torn.path.write_bytes(whole[:cut])
        there = [said(1)] if cut < len(whole) - 1 else [said(1), said(2)]  # only the end of the line is missing
        assert torn.entries() == there
        assert torn.torn == (start < cut < len(whole) - 1)
        if cut % 16 in (0, 1) or cut >= len(whole) - 2:
            assert torn.add(said(3)) == said(3).id
            assert torn.entries() == [*there, said(3)]
            assert torn.torn == (start < cut < len(whole) - 1)
            assert torn.path.read_bytes().startswith(whole[:cut])  # nothing is taken away
            assert torn.add(said(2)) == said(2).id  # what was cut off can be said again
            assert set(torn) == {said(1), said(2), said(3)}


def test_a_power_cut_may_leave_zeros(journal):
    journal.add(said(1))
    with journal.path.open("ab") as file:
        file.write(b"\0" * 4096)
    assert journal.entries() == [said(1)]
    journal.add(said(2))
    assert journal.entries() == [said(1), said(2)]
    assert journal.torn == 1


ADDING = """
import sys
from recuerdo.steer import Feedback, Journal, boost
journal, who, most = Journal(sys.argv[1]), sys.argv[2], int(sys.argv[3])
for i in range(most):
    name = journal.add(Feedback((boost("key", 4),), text="key " + who + str(i) * 50))
    sys.stdout.write(name + "\\n")
    sys.stdout.flush()
"""


def adding(path: Path, who: str, most: int) -> subprocess.Popen:
    environment = os.environ | {"PYTHONPATH": str(Path(recuerdo.__file__).parents[1])}
    command = [sys.executable, "-c", ADDING, str(path), who, str(most)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)


@posix
def test_a_kill_loses_nothing_that_was_acknowledged(journal):
    acknowledged = []
    chance = random.Random(0)
    for turn in range(5):
        process = adding(journal.path, f"turn {turn} ", 10**6)
        acknowledged.append(process.stdout.readline().strip())
        time.sleep(chance.uniform(0, 0.15))
        process.send_signal(signal.SIGKILL)
        acknowledged += process.stdout.read().split()
        process.stdout.close()
        assert process.wait() == -signal.SIGKILL
        kept = {entry.id for entry in journal.entries()}
        assert {name for name in acknowledged if len(name) == 16} <= kept
    assert len(acknowledged) > 10
    journal.add(said(1))
    assert journal.entries()[-1] == said(1)


def test_two_processes_lose_nothing(journal):
    both = [adding(journal.path, who, 40) for who in ("a", "b")]
    acknowledged = [process.communicate(timeout=60)[0].split() for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert [len(names) for names in acknowledged] == [40, 40]
    assert {entry.id for entry in journal.entries()} == {*acknowledged[0], *acknowledged[1]}
    assert journal.torn == 0


def test_threads_lose_nothing(journal):
    threads = [threading.Thread(target=lambda i=i: journal.add(said(i))) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(journal) == {said(i) for i in range(8)}


# ---------------------------------------------------------------------------------------------------------- full disk


@contextmanager
def files_of_at_most(size: int):
    """The system lets no file of this process grow further."""
    import resource

    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@posix
def test_a_full_disk_keeps_what_was_there(journal):
    """The system itself refuses to let the file grow."""
    journal.add(said(1))
    before = journal.path.read_bytes()
    with files_of_at_most(len(before) + 50):
        refused(lambda: journal.add(said(2)), str(journal.path), "is full: the feedback was not kept", "RECUERDO_HOME")
    assert journal.path.read_bytes() == before  # and not the first 50 bytes of a line
    assert journal.add(said(2)) == said(2).id
    assert journal.entries() == [said(1), said(2)]
    assert journal.torn == 0


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_disk_that_fills_up_within_a_line(journal, monkeypatch, number):
    journal.add(said(1))
    before = journal.path.read_bytes()
    write = os.write
    calls = []

    def filling(handle, data):
        calls.append(len(data))
        if len(calls) > 1:
            raise OSError(number, os.strerror(number))
        return write(handle, bytes(data)[:20])

    with monkeypatch.context() as patched:
        patched.setattr(room.os, "write", filling)
        refused(lambda: journal.add(said(2)), "is full")
    assert len(calls) == 2
    assert journal.path.read_bytes() == before


def test_a_line_written_in_pieces_is_one_line(journal, monkeypatch):
    write = os.write
    with monkeypatch.context() as patched:
        patched.setattr(room.os, "write", lambda handle, data: write(handle, bytes(data)[:7]))
        journal.add(said(1))
    assert journal.entries() == [said(1)]


def test_a_disk_that_cannot_flush_acknowledges_nothing(journal, monkeypatch):
    journal.add(said(1))

    def failing(handle):
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patched:
        patched.setattr(room.os, "fsync", failing)
        refused(lambda: journal.add(said(2)), "cannot be written (Input/output error): nothing was kept")
    assert journal.entries() == [said(1)]


def test_a_place_that_cannot_be_written_is_told(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    refused(lambda: Journal(tmp_path / "file" / "feedback.jsonl").add(said(1)), "cannot be written", "RECUERDO_HOME")
    refused(lambda: Journal(tmp_path).add(said(1)), "cannot be written (Is a directory)")
    refused(lambda: Journal(tmp_path).entries(), f"the journal {tmp_path} cannot be read: Is a directory")


def test_a_process_that_holds_the_journal_for_ever(journal, monkeypatch):
    from filelock import FileLock

    journal.add(said(1))
    monkeypatch.setattr(room, "LOCK_WAIT", 0.05)
    with FileLock(f"{journal.path}.lock"):
        refused(lambda: journal.add(said(2)), "another process has been writing", "end it")
    assert journal.entries() == [said(1)]


# ------------------------------------------------------------------------------------------------------------ damaged


def spoiled(journal: Journal, line: bytes) -> None:
    """Three entries with a spoiled line after the first."""
    for i in (1, 2):
        journal.add(said(i))
    first, second, _ = journal.path.read_bytes().split(b"\n")
    journal.path.write_bytes(b"\n".join([first, line, second, b""]))


SPOILED = {
    b"not json": "it is damaged, no JSON object",
    b"[1, 2]": "it is damaged, no JSON object",
    b"\xff\xfe\0": "it is damaged, no JSON object",
    b"[" * 100_000: "it is damaged, no JSON object",
    b'{"version":1}': "a feedback has no 'marks', which it needs",
    b'{"version":1,"marks":[],"text":"a","answer":"b","id":"0000000000000000"}': "changed after it was kept",
    b'{"version":2,"thoughts":[]}': "a newer recuerdo (version 2) wrote the feedback: update recuerdo",
}


@pytest.mark.parametrize("line", SPOILED, ids=lambda line: line[:20].decode(errors="replace"))
def test_a_damaged_line_is_told_and_can_be_skipped(journal, line):
    spoiled(journal, line)
    told = refused(
        journal.entries, f"{journal.path}, line 2: ", SPOILED[line], "skip_damaged=True (--skip-damaged) reads"
    )
    assert ("Mend or delete that line" in told) == ("newer" not in told)
    assert journal.entries(skip_damaged=True) == [said(1), said(2)]
    assert len(journal.damaged) == 1
    assert SPOILED[line] in journal.damaged[0]
    assert journal.add(said(3)) == said(3).id  # adding goes on
    assert journal.entries(skip_damaged=True) == [said(1), said(2), said(3)]


def test_a_spoiled_copy_does_not_stand_for_the_entry(journal):
    """The id alone is not enough to call a feedback known."""
    journal.add(said(1))
    spoiled = journal.path.read_bytes().replace(b"opens", b"shuts", 1)
    journal.path.write_bytes(spoiled)
    journal.add(said(1))
    assert journal.entries(skip_damaged=True) == [said(1)]


def test_what_an_editor_leaves_is_read(journal):
    journal.add(said(1))
    journal.add(said(2))
    lines = journal.path.read_bytes().split(b"\n")
    journal.path.write_bytes(b"\xef\xbb\xbf" + b"\r\n\r\n".join(lines[:2]))
    assert journal.entries() == [said(1), said(2)]
    assert journal.torn == 0


def test_a_journal_that_is_not_there_is_empty(journal):
    assert journal.entries() == []
    assert not journal.path.parent.exists()  # reading makes nothing


def test_an_entry_is_found_by_the_beginning_of_its_id(journal):
    names = [journal.add(said(i)) for i in range(20)]
    assert journal.find(names[3]) == journal.find(names[3].upper()) == said(3)
    refused(lambda: journal.find("xyz"), f"{journal.path} holds no feedback 'xyz'", "recuerdo marks ls")
    refused(lambda: journal.find(""), "20 ids begin with ''", f"({names[0]}, ", ", …)", "give more of it")


# ----------------------------------------------------------------------------------------------- merge and export


def filled(path: Path, *numbers: int) -> Journal:
    journal = Journal(path)
    for i in numbers:
        journal.add(said(i))
    return journal


def test_merging_is_the_union_however_often(journal, tmp_path):
    filled(journal.path, 1, 2)
    one, two = filled(tmp_path / "one.jsonl", 2, 3), filled(tmp_path / "two.jsonl", 3, 4)
    with two.path.open("ab") as file:
        file.write(b'{"version":1,"id":"')
    assert journal.merge([one.path, str(two.path)]) == {"added": 2, "known": 1, "torn": 1}
    assert journal.entries() == [said(i) for i in (1, 2, 3, 4)]
    once = journal.path.read_bytes()
    assert journal.merge([one.path, two.path, journal.path]) == {"added": 0, "known": 4, "torn": 1}
    assert journal.merge(one.path) == {"added": 0, "known": 2, "torn": 0}
    assert journal.path.read_bytes() == once


@settings(deadline=None, max_examples=20)
@given(st.lists(st.lists(st.integers(0, 5), max_size=4), min_size=1, max_size=3))
def test_merging_in_any_order_holds_the_same(tmp_path_factory, groups):
    folder = tmp_path_factory.mktemp("merge")
    paths = []
    for i, group in enumerate(groups):
        paths.append(folder / f"{i}.jsonl")
        paths[-1].write_text(as_text([said(n) for n in group], ".jsonl"), encoding="utf-8")
    forth, back = Journal(folder / "forth" / "f.jsonl"), Journal(folder / "back" / "f.jsonl")
    forth.merge(paths)
    for path in reversed(paths):
        back.merge([path])
    assert set(forth) == set(back) == {said(n) for group in groups for n in group}


def test_merging_what_is_not_whole_changes_nothing(journal, tmp_path):
    filled(journal.path, 1)
    before = journal.path.read_bytes()
    good, bad = filled(tmp_path / "good.jsonl", 2), tmp_path / "bad.jsonl"
    bad.write_text("damaged\n")
    refused(lambda: journal.merge([good.path, bad]), f"{bad}, line 1: it is damaged")
    refused(lambda: journal.merge([good.path, tmp_path / "none.jsonl"]), "there is no file", "check the path")
    for text, words in (
        ("[]", "no JSON object"),
        ("{}", "no list named feedback"),
        ('{"version":3}', "newer recuerdo"),
    ):
        (tmp_path / "bad.json").write_text(text)
        refused(lambda: journal.merge([good.path, tmp_path / "bad.json"]), "bad.json is no export of feedback", words)
    assert journal.path.read_bytes() == before


def test_an_export_that_may_not_be_read_is_told(journal, tmp_path, monkeypatch):
    (tmp_path / "a.json").write_text("{}")

    def failing(path):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "read_bytes", failing)
    refused(lambda: journal.merge([tmp_path / "a.json"]), "a.json cannot be read: Permission denied")


@posix
def test_merging_into_a_full_disk_changes_nothing(journal, tmp_path):
    filled(journal.path, 1)
    other = filled(tmp_path / "other.jsonl", 2, 3, 4)
    before = journal.path.read_bytes()
    with files_of_at_most(2 * len(before) + 50):
        refused(lambda: journal.merge([other.path]), "is full")
    assert journal.path.read_bytes() == before


@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".JSON"])
def test_what_is_exported_can_be_merged_elsewhere(journal, tmp_path, suffix):
    filled(journal.path, 1, 2)
    file = tmp_path / f"export{suffix}"
    file.write_text("an older export")
    assert journal.export(file) == 2
    elsewhere = Journal(tmp_path / "elsewhere.jsonl")
    assert elsewhere.merge([file]) == {"added": 2, "known": 0, "torn": 0}
    assert elsewhere.entries() == [said(1), said(2)]
    assert sorted(p.name for p in tmp_path.iterdir() if p.name.startswith(".")) == []


def test_an_export_is_whole_or_not_there(journal, tmp_path, monkeypatch):
    filled(journal.path, 1)
    refused(lambda: journal.export(tmp_path / "a.txt"), "exported as .jsonl or .json, not .txt: name it so")
    refused(lambda: journal.export(tmp_path / "a"), "not without a suffix")
    refused(lambda: journal.export(journal.path), "is the journal itself: export to another file")
    refused(lambda: journal.export(tmp_path / "none" / "a.json"), "a.json cannot be written: No such file")
    file = tmp_path / "a.json"
    file.write_text("older")

    def failing(handle):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(room.os, "fsync", failing)
    refused(lambda: journal.export(file), "No space left on device")
    assert file.read_text() == "older"
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []


def test_a_damaged_journal_is_exported_when_asked_to(journal, tmp_path):
    spoiled(journal, b"damaged")
    refused(lambda: journal.export(tmp_path / "a.json"), "line 2: it is damaged")
    assert journal.export(tmp_path / "a.json", skip_damaged=True) == 2


def test_errors_of_the_journal_are_ours():
    assert issubclass(JournalError, RecuerdoError)
    assert not issubclass(JournalError, ValueError)
    assert damp("a", 0.5) is not None
