"""The texts of html, pdf and docx files, read in a process of its own, with limits of time and memory.

Such files come from anywhere, and some are made to harm: they unpack to gigabytes, or keep a parser busy for ever. Here
only a child process suffers from it: it gets the bytes, gives texts, and may neither open other files nor a connection.

    python -P -m recuerdo.data.parsing .pdf LIMITS < file > texts       (a line of JSON for each part)
"""

import json
import os
import sys
import zipfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from io import BytesIO
from typing import Any


@dataclass(frozen=True)
class Limits:
    """What a file may cost: seconds, bytes of memory, bytes that a packed file unpacks to, characters of text."""

    seconds: int = 600
    memory: int = 2 * 2**30
    unpacked: int = 512 * 2**20
    text: int = 64 * 2**20


class RefusedError(Exception):
    """A file that is not read; the message goes on with what is said of it."""


def parsed(kind: str, data: bytes, limits: Limits) -> Iterator[tuple[str, str]]:
    """Part and text of what a file of this kind holds. Raises RefusedError for what is too large or locked."""
    left = limits.text
    for part, text in PARSERS[kind](data, limits):
        left -= len(text)
        if left < 0:
            raise RefusedError(f"holds more than {limits.text:,} characters of text: split it")
        yield part, text.encode(errors="replace").decode()  # half a letter, as some fonts of a PDF have, is none


def _html(data: bytes, limits: Limits) -> Iterator[tuple[str, str]]:
    from bs4 import BeautifulSoup

    page = BeautifulSoup(data, "html.parser")
    for hidden in page(["script", "style", "template", "noscript", "head"]):
        hidden.decompose()
    for block in page(["p", "div", "li", "br", "tr", "h1", "h2", "h3", "h4", "h5", "h6", "section", "article", "pre"]):
        block.append("\n\n")
    yield "", "\n\n".join(" ".join(part.split()) for part in page.get_text().split("\n\n") if part.strip())


def _pdf(data: bytes, limits: Limits) -> Iterator[tuple[str, str]]:
    from pypdf import PdfReader

    reader = PdfReader(BytesIO(data))
    if reader.is_encrypted and not reader.decrypt(""):
        raise RefusedError("is locked by a password: save a copy without one")
    for number, page in enumerate(reader.pages, 1):
        yield f"page {number}", page.extract_text()


def _docx(data: bytes, limits: Limits) -> Iterator[tuple[str, str]]:
    with zipfile.ZipFile(BytesIO(data)) as packed:
        # What the list of contents says binds: no more than that is unpacked of any of them.
        if (size := sum(one.file_size for one in packed.infolist())) > limits.unpacked:
            raise RefusedError(f"unpacks to {size:,} bytes, and {limits.unpacked:,} are the most")
    from docx import Document as load
    from docx.table import Table

    parts: list[str] = []
    for block in load(BytesIO(data)).iter_inner_content():
        if isinstance(block, Table):
            parts += [" | ".join(cell.text.strip() for cell in row.cells) for row in block.rows]
        else:
            parts.append(block.text)
    yield "", "\n\n".join(part for part in parts if part.strip())


PARSERS: dict[str, Callable[[bytes, Limits], Iterator[tuple[str, str]]]] = {
    ".html": _html,
    ".htm": _html,
    ".pdf": _pdf,
    ".docx": _docx,
}


# ----------------------------------------------------------------------------------------------------- the child itself


def limited(limits: Limits) -> None:
    """This process gets no more time and memory, and writes no files. Where the system cannot see to it, what is left
    is the clock of the parent."""
    try:
        import resource
    except ImportError:
        return
    for what, most in (
        (resource.RLIMIT_CPU, limits.seconds),
        (resource.RLIMIT_AS, limits.memory),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
    ):
        with suppress(ValueError, OSError):  # lower already, or not known to this system
            resource.setrlimit(what, (most, most))


def sealed() -> None:
    """From now on this process opens no connection, starts no program, and reads nothing but its own modules."""
    own = tuple({path for path in (*sys.path, sys.base_prefix, sys.prefix) if path})

    def watched(event: str, given: tuple[Any, ...]) -> None:
        if event.startswith("socket.") and event != "socket.gethostname":
            raise PermissionError("a document wants a connection")
        if event in ("subprocess.Popen", "os.system", "os.exec", "os.fork", "os.forkpty", "os.posix_spawn"):
            raise PermissionError("a document wants to start a program")
        if event == "open" and not isinstance(given[0], int):
            inside = os.path.abspath(os.fsdecode(given[0])).startswith(own)
            if not inside or given[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC):
                raise PermissionError("a document wants another file")

    sys.addaudithook(watched)


def _told(kind: str, data: bytes, limits: Limits) -> Iterator[dict[str, str]]:
    try:
        for part, text in parsed(kind, data, limits):
            yield {"part": part, "text": text}
    except ImportError as error:
        yield {"missing": str(error.name)}
    except RefusedError as error:
        yield {"refused": str(error)}
    except MemoryError:
        raise
    except Exception as error:  # noqa: BLE001 (a parser fails on a damaged file in whatever way it likes)
        yield {"damaged": (str(error).strip() or type(error).__name__).splitlines()[0][:200]}


def main() -> None:
    """Read a file from standard input, and write what is in it, line by line."""
    kind, limits = sys.argv[1], Limits(**json.loads(sys.argv[2]))
    limited(limits)
    sealed()
    data = sys.stdin.buffer.read()
    for told in _told(kind, data, limits):
        sys.stdout.write(json.dumps(told) + "\n")


def arguments(kind: str, limits: Limits) -> list[str]:
    """How this process is started."""
    return [sys.executable, "-P", "-B", "-m", __name__, kind, json.dumps(asdict(limits))]


if __name__ == "__main__":
    main()
