"""Files that people keep, as texts: txt, md, html, pdf, docx, csv, jsonl. Nothing in them is run, fetched or trusted.

The parsers are maintained libraries (`pip install 'recuerdo[documents]'`), which work in a process of their own
(`recuerdo.data.parsing`).
"""

import csv
import json
import math
import os
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from io import StringIO
from pathlib import Path
from typing import Any

from recuerdo.data.opening import taken
from recuerdo.data.parsing import Limits, arguments
from recuerdo.errors import InputError

LIMITS = Limits()
MOST_CELLS = 1000  # columns of a table
SNIFFED = 4_000  # characters by which a table tells how it is separated
DEEPEST = 64  # folders inside of each other


@dataclass(frozen=True)
class Document:
    """A text, and what the file says of it: `part` is a page, row or line of the file; `time` in seconds since 1970."""

    text: str
    part: str = ""
    author: str = ""
    time: float | None = None
    tags: tuple[str, ...] = ()


def documents(path: Path, folder: Path | None = None) -> Iterator[Document]:
    """The texts of a file; parts without a word are left out. With a `folder` the path counts from there and cannot
    leave it.

    Raises InputError for a file that is not there, too large, damaged, of another kind, or whose parser is missing.
    """
    kind = READERS.get(path.suffix.lower())
    if kind is None:
        raise InputError(f"{path.name} is of a kind that cannot be read: give {', '.join(READERS)}")
    data = taken(path, folder)
    try:
        for document in kind(path, data):
            if document.text.strip():
                yield document
    except InputError:
        raise
    except Exception as error:  # noqa: BLE001 (a parser fails on a damaged file in whatever way it likes)
        raise _damaged(path, (str(error).strip() or type(error).__name__).splitlines()[0][:200]) from None


def files_below(folder: Path) -> list[Path]:
    """The files in a folder that can be read, in order; nothing that a link leads to outside of it, and nothing that is
    deeper than a person would put it."""
    inside, found, waiting = folder.resolve(), [], [(folder, 0)]
    while waiting:
        here, deep = waiting.pop()
        try:
            entries = list(os.scandir(here))
        except OSError:
            continue  # what may not be opened is not there
        for entry in entries:
            path = here / entry.name
            try:
                if entry.is_dir(follow_symlinks=False):
                    waiting += [(path, deep + 1)] if deep < DEEPEST else []
                elif entry.is_file() and path.suffix.lower() in READERS and path.resolve().is_relative_to(inside):
                    found.append(path)
            except (OSError, RuntimeError):  # a link to itself
                continue
    return sorted(found)


def _damaged(path: Path, why: str) -> InputError:
    return InputError(f"{path.name} cannot be read ({why}): it is damaged, or not what its name says")


def _plain(path: Path, data: bytes) -> Iterator[Document]:
    yield Document(_decoded(path, data))


def _decoded(path: Path, data: bytes) -> str:
    if b"\0" in data:
        raise InputError(f"{path.name} is no text: it has zero bytes")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path.name} is not UTF-8 (byte {error.start}): save it as UTF-8") from None


def _parsed(path: Path, data: bytes) -> Iterator[Document]:
    """What a parser finds, who works in a process of its own."""
    source = str(Path(__file__).parents[2])
    known = os.pathsep.join(filter(None, (source, os.environ.get("PYTHONPATH"))))
    command = arguments(path.suffix.lower(), LIMITS)
    try:
        done = subprocess.run(
            command, input=data, capture_output=True, timeout=LIMITS.seconds, env=os.environ | {"PYTHONPATH": known}
        )
    except subprocess.TimeoutExpired:
        done = subprocess.CompletedProcess(command, 1, b"", b"the time is over")
    for line in done.stdout.splitlines():
        told = json.loads(line)
        if "missing" in told:
            raise InputError(f"{path.name} needs {told['missing']}: pip install 'recuerdo[documents]'")
        if "refused" in told:
            raise InputError(f"{path.name} is not read, because it {told['refused']}")
        if "damaged" in told:
            raise _damaged(path, told["damaged"])
        yield Document(told["text"], told["part"])
    if done.returncode:
        why = (done.stderr.decode(errors="replace").strip().splitlines() or [f"signal {-done.returncode}"])[-1][:200]
        most = f"{LIMITS.seconds} s and {LIMITS.memory:,} bytes of memory"
        raise InputError(f"{path.name} cannot be read within {most} ({why}): split it")


def _csv(path: Path, data: bytes) -> Iterator[Document]:
    text = _decoded(path, data)
    try:
        dialect: Any = csv.Sniffer().sniff(text[:SNIFFED], ",;\t|")
    except csv.Error:
        dialect = csv.excel
    rows = csv.reader(StringIO(text, newline=""), dialect=dialect)
    names = next((row for row in rows if row), [])
    if len(names) > MOST_CELLS:
        raise InputError(f"{path.name} has {len(names)} columns, and {MOST_CELLS} are the most")
    for number, row in enumerate((row for row in rows if row), 2):
        told = "; ".join(f"{name}: {value}" for name, value in zip(names, row, strict=False) if value.strip())
        yield Document(told, f"row {number}")


def _jsonl(path: Path, data: bytes) -> Iterator[Document]:
    for number, line in enumerate(_decoded(path, data).split("\n"), 1):
        if not line.strip():
            continue
        told = json.loads(line)
        if isinstance(told, str):
            told = {"text": told}
        if not isinstance(told, dict) or not isinstance(told.get("text"), str):
            raise InputError(f'line {number} of {path.name} has no text: write {{"text": "…"}} on each line')
        tags = told.get("tags", [])
        if not isinstance(tags, list) or not all(isinstance(tag, str) for tag in tags):
            raise InputError(f"tags in line {number} of {path.name} are a list of texts")
        yield Document(
            told["text"],
            f"line {number}",
            str(told.get("author") or ""),
            _time(told.get("time"), path, number),
            tuple(tags),
        )


def _time(told: Any, path: Path, number: int) -> float | None:
    """Seconds since 1970, of a number or a date as ISO 8601 writes it."""
    try:
        if told is None:
            return None
        time = datetime.fromisoformat(told).timestamp() if isinstance(told, str) else float(told)
    except (TypeError, ValueError, OverflowError):
        time = math.nan
    if not math.isfinite(time):
        raise InputError(f"the time in line {number} of {path.name} is no date: write 2026-01-31 or seconds since 1970")
    return time


READERS: dict[str, Callable[[Path, bytes], Iterator[Document]]] = {
    ".txt": _plain,
    ".md": _plain,
    ".html": _parsed,
    ".htm": _parsed,
    ".pdf": _parsed,
    ".docx": _parsed,
    ".csv": _csv,
    ".jsonl": _jsonl,
}
