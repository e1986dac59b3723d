"""Files that people keep, as texts: txt, md, html, pdf, docx, csv, jsonl. Nothing in them is run, fetched or trusted.

The parsers are maintained libraries, imported when a file of their kind comes (`pip install 'recuerdo[documents]'`).
"""

import csv
import json
import math
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from recuerdo.errors import InputError

LARGEST = 256 * 2**20  # bytes of a file
UNPACKED = 512 * 2**20  # bytes of what is packed in one
MOST_CELLS = 1000  # columns of a table


@dataclass(frozen=True)
class Document:
    """A text, and what the file says of it: `part` is a page, row or line of the file; `time` in seconds since 1970."""

    text: str
    part: str = ""
    author: str = ""
    time: float | None = None
    tags: tuple[str, ...] = ()


def documents(path: Path) -> Iterator[Document]:
    """The texts of a file; parts without a word are left out.

    Raises InputError for a file that is not there, too large, damaged, of another kind, or whose parser is missing.
    """
    if not path.is_file():
        raise InputError(f"there is no file {path}")
    kind = READERS.get(path.suffix.lower())
    if kind is None:
        raise InputError(f"{path.name} is of a kind that cannot be read: give {', '.join(READERS)}")
    if (size := path.stat().st_size) > LARGEST:
        raise InputError(f"{path.name} has {size:,} bytes, and {LARGEST:,} are the most: split it")
    try:
        for document in kind(path):
            if document.text.strip():
                yield document
    except ImportError as error:
        raise InputError(f"{path.name} needs {error.name}: pip install 'recuerdo[documents]'") from None
    except InputError:
        raise
    except Exception as error:  # noqa: BLE001 (a parser fails on a damaged file in whatever way it likes)
        why = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
        raise InputError(f"{path.name} cannot be read ({why}): it is damaged, or not what its name says") from None


def _plain(path: Path) -> Iterator[Document]:
    yield Document(_decoded(path))


def _decoded(path: Path) -> str:
    data = path.read_bytes()
    if b"\0" in data[:4096]:
        raise InputError(f"{path.name} is no text: it has zero bytes")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path.name} is not UTF-8 (byte {error.start}): save it as UTF-8") from None


def _html(path: Path) -> Iterator[Document]:
    from bs4 import BeautifulSoup

    page = BeautifulSoup(path.read_bytes(), "html.parser")
    for hidden in page(["script", "style", "template", "noscript", "head"]):
        hidden.decompose()
    for block in page(["p", "div", "li", "br", "tr", "h1", "h2", "h3", "h4", "h5", "h6", "section", "article", "pre"]):
        block.append("\n\n")
    yield Document("\n\n".join(" ".join(part.split()) for part in page.get_text().split("\n\n") if part.strip()))


def _pdf(path: Path) -> Iterator[Document]:
    from pypdf import PdfReader

    reader = PdfReader(path)
    if reader.is_encrypted and not reader.decrypt(""):
        raise InputError(f"{path.name} is locked by a password: save a copy without one")
    for number, page in enumerate(reader.pages, 1):
        yield Document(page.extract_text(), f"page {number}")


def _docx(path: Path) -> Iterator[Document]:
    with zipfile.ZipFile(path) as packed:
        if (size := sum(one.file_size for one in packed.infolist())) > UNPACKED:
            raise InputError(f"{path.name} unpacks to {size:,} bytes, and {UNPACKED:,} are the most")
    from docx import Document as load
    from docx.table import Table

    parts: list[str] = []
    for block in load(str(path)).iter_inner_content():
        if isinstance(block, Table):
            parts += [" | ".join(cell.text.strip() for cell in row.cells) for row in block.rows]
        else:
            parts.append(block.text)
    yield Document("\n\n".join(part for part in parts if part.strip()))


def _csv(path: Path) -> Iterator[Document]:
    lines = _decoded(path).splitlines(keepends=True)
    try:
        dialect: Any = csv.Sniffer().sniff("".join(lines[:20]), ",;\t|")
    except csv.Error:
        dialect = csv.excel
    for number, row in enumerate(csv.DictReader(lines, dialect=dialect), 2):
        told = {str(name): value for name, value in row.items() if name is not None and isinstance(value, str)}
        if len(told) > MOST_CELLS:
            raise InputError(f"{path.name} has {len(told)} columns, and {MOST_CELLS} are the most")
        yield Document("; ".join(f"{name}: {value}" for name, value in told.items() if value.strip()), f"row {number}")


def _jsonl(path: Path) -> Iterator[Document]:
    for number, line in enumerate(_decoded(path).splitlines(), 1):
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


READERS: dict[str, Callable[[Path], Iterator[Document]]] = {
    ".txt": _plain,
    ".md": _plain,
    ".html": _html,
    ".htm": _html,
    ".pdf": _pdf,
    ".docx": _docx,
    ".csv": _csv,
    ".jsonl": _jsonl,
}
