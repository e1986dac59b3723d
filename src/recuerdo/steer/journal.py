"""The feedback journal: marks that people made, kept to be listed, shared and trained on.

    folder/feedback.jsonl        one feedback a line, {"version": 1, "id": …}; lines are only ever added
    folder/feedback.jsonl.lock   held by the process that adds

`add` returns when the line is on the disk. A process killed while it writes leaves a torn last line, which was
acknowledged to nobody: readers set it aside, and the next `add` closes it with TORN, so that nothing is glued to it.
"""

import errno
import hashlib
import json
import os
import re
import sys
import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from recuerdo.errors import JournalError, MarkError
from recuerdo.steer.marks import Mark, as_marks, build, check_overlaps, check_version, plain, spans_of
from recuerdo.steer.places import day, now, number, short, words

__all__ = ["VERSION", "Feedback", "Journal", "journal_folder"]

VERSION = 1
MOST_NUMBERS = 100  # in `before` and in `after`
LOCK_WAIT = 60.0  # seconds that a second process waits for the first
TORN = b" #torn"  # closes a line that was cut off; no whole line ends so
FULL = tuple(getattr(errno, name) for name in ("ENOSPC", "EDQUOT", "EFBIG") if hasattr(errno, name))
LINE = re.compile(rb'^\{"version":1,"id":"([0-9a-f]{16})".*$', re.MULTILINE)
SKIP = "skip_damaged=True (--skip-damaged)"


def journal_folder() -> Path:
    """Where kept things live: RECUERDO_HOME, else the platform's own folder for data."""
    if chosen := os.environ.get("RECUERDO_HOME"):
        return Path(os.path.expanduser(chosen)).absolute()
    if chosen := os.environ.get("XDG_DATA_HOME"):
        return Path(chosen) / "recuerdo"
    if os.name == "nt":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local") / "recuerdo" / "data"
    return Path.home() / ("Library/Application Support" if sys.platform == "darwin" else ".local/share") / "recuerdo"


@dataclass(frozen=True)
class Feedback:
    """What a person said about one text: the marks, the wanted answer, or both.

    `text`: the document that the marks are on. `answer`: the wanted one; None = only the marks are meant. `model`: who
    was steered. `before`, `after`: a few numbers by name, without and with the marks. Raises MarkError.
    """

    marks: tuple[Mark, ...]
    text: str
    question: str | None = None
    answer: str | None = None
    model: str = ""
    author: str = ""
    date: str = ""
    reason: str = ""
    before: dict[str, float] | None = None
    after: dict[str, float] | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "marks", as_marks(self.marks))
        words(self.text, "the text")
        for name in ("question", "answer"):
            if getattr(self, name) is not None:
                words(getattr(self, name), f"the {name}")
        if not self.marks and self.answer is None:
            raise MarkError("feedback without marks and without a wanted answer says nothing: give one of them")
        for name in ("model", "author", "reason"):
            words(getattr(self, name), f"the {name}")
        day(self.date)
        for name in ("before", "after"):
            object.__setattr__(self, name, _numbers(getattr(self, name), name))

    @property
    def id(self) -> str:
        """The first 16 digits of the sha256 of all that it says: the same feedback has the same id everywhere."""
        whole = json.dumps(self._said(), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        return hashlib.sha256(whole.encode()).hexdigest()[:16]

    def __hash__(self) -> int:
        return hash(self.id)

    def dated(self) -> "Feedback":
        """The same feedback with this second as its date, and its marks' date, where they have none."""
        return replace(self, date=self.date or now(), marks=tuple(mark.dated() for mark in self.marks))

    def to_data(self) -> dict[str, Any]:
        """As JSON-able data, with version and id; what is at its default is left out."""
        said = self._said()
        return {"version": said.pop("version"), "id": self.id, **said}

    def _said(self) -> dict[str, Any]:
        return {"version": VERSION, **plain(self), "marks": [mark.to_data() for mark in self.marks]}

    @classmethod
    def from_data(cls, data: Any) -> "Feedback":
        """The feedback of `to_data`. Raises MarkError for any other shape, and when it was changed after its id."""
        said = dict(data) if isinstance(data, Mapping) else data
        name = None
        if isinstance(said, dict):
            check_version(said.pop("version", VERSION), "the feedback")
            name = said.pop("id", None)
            if "marks" in said and not isinstance(said["marks"], list):
                raise MarkError(f"the marks of a feedback are a list, not {type(said['marks']).__name__}")
        feedback = build(cls, said, "a feedback")
        if name is not None and name != feedback.id:
            raise MarkError("its id does not fit what it says: it was changed after it was kept")
        return feedback


def _numbers(given: Any, name: str) -> dict[str, float] | None:
    if given is None:
        return None
    if not isinstance(given, Mapping) or len(given) > MOST_NUMBERS:
        raise MarkError(f"{name} holds at most {MOST_NUMBERS} numbers by name, such as {{'share': 0.3}}")
    return {words(key, f"a name in {name}"): number(value, f"{name} {short(key)!r}") for key, value in given.items()}


# ---------------------------------------------------------------------------------------------------------- the file


class Journal:
    """The feedback in one file, `feedback.jsonl` of `journal_folder()` unless another `path` is given.

    Iterating gives the entries in the order in which they were kept, each once. After reading, `torn` counts the lines
    that a killed process had left unfinished, and `damaged` says what was skipped when asked to.
    """

    def __init__(self, path: str | Path | None = None) -> None:
        self.path = journal_folder() / "feedback.jsonl" if path is None else Path(path).expanduser()
        self.torn = 0
        self.damaged: list[str] = []
        self._settled = False  # whether this process has made the file's name durable

    def __iter__(self) -> Iterator[Feedback]:
        return iter(self.entries())

    def entries(self, *, skip_damaged: bool = False) -> list[Feedback]:
        """All that is kept; a file that is not there yet holds nothing.

        Raises JournalError with the number of the first line that is damaged, or written by a newer version.
        """
        try:
            data = self.path.read_bytes()
        except FileNotFoundError:
            data = b""
        except OSError as error:
            raise JournalError(f"the journal {self.path} cannot be read: {error.strerror or error}") from None
        return self._entries(data, skip_damaged)

    def _entries(self, data: bytes, skip_damaged: bool) -> list[Feedback]:
        self.torn, self.damaged = 0, []
        kept: dict[str, Feedback] = {}
        lines = data.split(b"\n")
        for i, line in enumerate(lines, 1):
            if not line.strip():
                continue
            found = _object(line)
            if line.endswith(TORN) or (found is None and i == len(lines)):
                self.torn += 1
                continue
            try:
                feedback = Feedback.from_data(_whole(found))
            except MarkError as error:
                why = f"{self.path}, line {i}: {error}"
                if not skip_damaged:
                    mend = "" if "a newer recuerdo" in str(error) else "Mend or delete that line; "
                    raise JournalError(f"{why}. {mend}{SKIP} reads the others") from None
                self.damaged.append(why)
                continue
            kept.setdefault(feedback.id, feedback)
        return list(kept.values())

    def find(self, prefix: str, *, skip_damaged: bool = False) -> Feedback:
        """The entry whose id begins so. Raises JournalError when there is none or more than one."""
        found = [entry for entry in self.entries(skip_damaged=skip_damaged) if entry.id.startswith(prefix.lower())]
        if not found:
            raise JournalError(f"{self.path} holds no feedback {short(prefix)!r}: `recuerdo marks ls` lists the ids")
        if len(found) > 1:
            ids = ", ".join(entry.id for entry in found[:4]) + (", …" if len(found) > 4 else "")
            raise JournalError(f"{len(found)} ids begin with {short(prefix)!r} ({ids}): give more of it")
        return found[0]

    def add(self, feedback: Feedback) -> str:
        """Keep a feedback and return its id once it is on the disk; what is there already is kept once.

        Raises MarkError when its marks do not fit its text or lie on one another, JournalError when it is not kept.
        """
        check_overlaps(feedback.marks, spans_of(feedback.marks, feedback.text))
        self._keep([feedback])
        return feedback.id

    def merge(self, others: Iterable[str | Path]) -> dict[str, int]:
        """Keep what other journals and exports hold. Done twice, or again after a kill, it adds what is missing.

        Returns how many were `added`, how many were `known`, and how many unfinished lines (`torn`) the others hold.
        Raises JournalError for a file that is not there or not whole, before anything is written.
        """
        wanted: dict[str, Feedback] = {}
        torn = 0
        for path in map(Path, [others] if isinstance(others, str | Path) else others):
            other = Journal(path)
            if not path.is_file():
                raise JournalError(f"there is no file {path} to merge: check the path")
            entries = _exported(path) if path.suffix.lower() == ".json" else other.entries()
            wanted.update((entry.id, entry) for entry in entries if entry.id not in wanted)
            torn += other.torn
        added = self._keep(wanted.values())
        return {"added": added, "known": len(wanted) - added, "torn": torn}

    def export(self, path: str | Path, *, skip_damaged: bool = False) -> int:
        """Write all entries to a new .jsonl or .json file, whole or not at all; returns how many."""
        path = Path(path)
        entries = self.entries(skip_damaged=skip_damaged)
        text = as_text(entries, path.suffix.lower())
        if path.exists() and self.path.exists() and path.samefile(self.path):
            raise JournalError(f"{path} is the journal itself: export to another file")
        new = path.with_name(f".{path.name}.{os.getpid()}-{uuid.uuid4().hex[:8]}")
        try:
            with new.open("wb") as file:
                file.write(text.encode())
                file.flush()
                os.fsync(file.fileno())
            new.replace(path)
        except OSError as error:
            raise JournalError(f"{path} cannot be written: {error.strerror or error}") from None
        finally:
            with suppress(OSError):
                new.unlink(missing_ok=True)
        return len(entries)

    def _keep(self, wanted: Iterable[Feedback]) -> int:
        """Add what is not there, in one write, and return how many that were when they are on the disk."""
        with self._held() as handle:
            data = self.path.read_bytes()
            there = {match[1].decode(): match[0] for match in LINE.finditer(data)}
            new = [entry for entry in wanted if not _is_whole(there.get(entry.id), entry)]
            self._write(handle, data, b"".join(_line(entry) for entry in new))
        return len(new)

    def _write(self, handle: int, data: bytes, lines: bytes) -> None:
        """Append, or leave the file as it was. Also waits when nothing is new: what is there may not be on the disk."""
        last = data.rpartition(b"\n")[2]
        if lines and last:
            lines = (b"\n" if _object(last) is not None else TORN + b"\n") + lines
        rest = memoryview(lines)
        try:
            while rest:
                rest = rest[os.write(handle, rest) :]
            os.fsync(handle)
            if not (self._settled and data):
                _sync_folder(self.path.parent)
                self._settled = True
        except OSError:
            with suppress(OSError):
                os.ftruncate(handle, len(data))
                os.fsync(handle)
            raise

    @contextmanager
    def _held(self) -> Iterator[int]:
        """The file, open to append, with nobody else adding to it."""
        from filelock import FileLock, Timeout

        try:
            _make_folder(self.path.parent)
            with FileLock(f"{self.path}.lock", timeout=LOCK_WAIT, poll_interval=0.01):
                binary = getattr(os, "O_BINARY", 0)
                handle = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT | binary, 0o666)
                try:
                    yield handle
                finally:
                    os.close(handle)
        except Timeout:
            raise JournalError(
                f"another process has been writing {self.path} for too long: end it, try again"
            ) from None
        except (OSError, NotImplementedError) as error:  # a file system may know no locks
            raise JournalError(_disk_words(self.path, error)) from error


def as_text(entries: Iterable[Feedback], kind: str) -> str:
    """Entries as the text of a file, `kind` being .jsonl or .json. Raises JournalError for another kind."""
    if kind == ".jsonl":
        return "".join(_line(entry).decode() for entry in entries)
    if kind == ".json":
        data = {"version": VERSION, "feedback": [entry.to_data() for entry in entries]}
        return json.dumps(data, ensure_ascii=False, indent=2) + "\n"
    raise JournalError(f"feedback is exported as .jsonl or .json, not {short(kind) or 'without a suffix'}: name it so")


def _line(entry: Feedback) -> bytes:
    return json.dumps(entry.to_data(), separators=(",", ":"), ensure_ascii=False).encode() + b"\n"


def _object(line: bytes) -> dict[str, Any] | None:
    """The JSON object of a line; None when there is none, as in a line that was cut off."""
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _whole(found: dict[str, Any] | None) -> dict[str, Any]:
    if found is None:
        raise MarkError("it is damaged, no JSON object")
    return found


def _is_whole(line: bytes | None, entry: Feedback) -> bool:
    """Whether a line that has the id of an entry also says what it says."""
    try:
        return line is not None and Feedback.from_data(_whole(_object(line))) == entry
    except MarkError:
        return False


def _exported(path: Path) -> list[Feedback]:
    try:
        found = _whole(_object(path.read_bytes()))
        check_version(found.get("version", VERSION), "the feedback")
        if not isinstance(entries := found.get("feedback"), list):
            raise MarkError("it holds no list named feedback")
        return [Feedback.from_data(entry) for entry in entries]
    except MarkError as error:
        raise JournalError(f"{path} is no export of feedback: {error}") from None
    except OSError as error:
        raise JournalError(f"{path} cannot be read: {error.strerror or error}") from None


def _disk_words(path: Path, error: Exception) -> str:
    if getattr(error, "errno", None) in FULL:
        return (
            f"The disk with {path} is full: the feedback was not kept. Make room, or set RECUERDO_HOME to a folder on "
            "another disk."
        )
    why = getattr(error, "strerror", None) or error
    return f"The journal {path} cannot be written ({why}): nothing was kept. Set RECUERDO_HOME to a folder that can."


def _make_folder(folder: Path) -> None:
    """Make a folder and those above it, each of their names on the disk."""
    if not folder.is_dir():
        _make_folder(folder.parent)
        folder.mkdir(exist_ok=True)
        _sync_folder(folder.parent)


def _sync_folder(folder: Path) -> None:
    if os.name == "nt":
        return  # Windows neither opens nor needs to flush a folder
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
