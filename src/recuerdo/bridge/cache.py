"""The folder where fetched models live, and the rules that keep every one in it whole.

    cache/models/<name>/              a whole model: what Transformers loads, source.json, licence/
    cache/models/.staging/<name>-…/   work in progress; becomes models/<name> in one rename, or is swept later
    cache/models/.locks/<name>.lock   held by the process that fetches

A folder counts as installed only when source.json is there and every file in it has the size that source.json states.
source.json is written last and the rename is one step, so a process killed at any moment leaves nothing that counts.
"""

import errno
import hashlib
import json
import os
import shutil
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from recuerdo.bridge import convert
from recuerdo.bridge.convert import Progress
from recuerdo.data.web import cache_folder
from recuerdo.errors import FetchError

LOCK_WAIT = 3600.0  # seconds that a second process waits for the first
STALE = 24 * 3600.0  # seconds after which anybody's work in progress is debris
FULL = tuple(getattr(errno, name) for name in ("ENOSPC", "EDQUOT") if hasattr(errno, name))


def models_folder() -> Path:
    """The part of the cache that holds models."""
    return cache_folder() / "models"


def file_sha256(path: Path) -> str:
    """The sha256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def whole(name: str) -> Path | None:
    """The installed folder of a model, None when there is none. Raises FetchError when it is damaged."""
    folder = models_folder() / name
    if not folder.is_dir():
        return None
    if what := damage(folder):
        raise FetchError(damaged(name, what))
    return folder


def damage(folder: Path) -> str | None:
    """What is wrong with an installed folder as far as sizes show; None when nothing is."""
    try:
        source = json.loads((folder / "source.json").read_text(encoding="utf-8"))
        for path, fact in source["files"].items():
            size = (folder / path).stat().st_size if (folder / path).is_file() else None
            if size != fact["size"]:
                return f"{path} is missing" if size is None else f"{path} has {size:,} bytes, not {fact['size']:,}"
        if source["conversion"] != convert.VERSIONS.get(source["converter"]):
            return "another version of recuerdo converted it"
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return "its source.json is missing or unreadable"
    return None


def changed(folder: Path) -> str | None:
    """The first file of an installed folder whose sha256 is not the one in source.json; None when all agree."""
    files = json.loads((folder / "source.json").read_text(encoding="utf-8"))["files"]
    return next((path for path, fact in files.items() if file_sha256(folder / path) != fact["sha256"]), None)


def damaged(name: str, what: str) -> str:
    """The words for a model that is there and not usable."""
    return f"{name} in the cache is damaged: {what}. Fetch it anew with `recuerdo models get {name} --again`."


@contextmanager
def workplace(name: str, *, need: int, report: Progress) -> Iterator[Path]:
    """A fresh folder to build the model `name` in, with nobody else at work on it; removed on the way out.

    `need` is about how many bytes the work takes, for the message. Raises FetchError for a disk that is full or may
    not be written.
    """
    staging = models_folder() / ".staging" / f"{name}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
    try:
        with _locked(name, report):
            _sweep(name)
            try:
                (staging / "model").mkdir(parents=True)
                yield staging
            finally:
                shutil.rmtree(staging, ignore_errors=True)
    except OSError as error:
        raise FetchError(_disk_words(name, need, error)) from error


def seal(folder: Path, facts: dict[str, Any]) -> None:
    """Write source.json (`facts`, version, date, size and sha256 of every file) and flush everything to the disk."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    sums = {f.relative_to(folder).as_posix(): {"size": f.stat().st_size, "sha256": file_sha256(f)} for f in files}
    written = {"written_by": f"recuerdo {_version()}", "written": datetime.now(UTC).isoformat(timespec="seconds")}
    text = json.dumps({**facts, **written, "files": sums}, indent=2, ensure_ascii=False)
    (folder / "source.json").write_text(text + "\n", encoding="utf-8")
    for path in [*folder.rglob("*"), folder]:
        _sync(path)


def publish(name: str, staging: Path) -> Path:
    """Put staging/model in its place in one rename, in the stead of what was there."""
    folder, old = models_folder() / name, staging / "old"
    if folder.exists():
        folder.rename(old)
    try:
        (staging / "model").rename(folder)
    except OSError:
        if old.exists():
            old.rename(folder)
        raise
    _sync(folder.parent)
    return folder


def _disk_words(name: str, need: int, error: OSError) -> str:
    folder = models_folder()
    if error.errno in FULL:
        return (
            f"The disk with {folder} is full: {name} needs about {need // 10**6:,} MB there. "
            "Make room, or set RECUERDO_CACHE to a folder on another disk."
        )
    why = error.strerror or error
    return f"The cache folder {folder} cannot be written ({why}). Set RECUERDO_CACHE to a folder that can."


@contextmanager
def _locked(name: str, report: Progress) -> Iterator[None]:
    """Hold the right to fetch this model; the system takes it back from a process that dies."""
    from filelock import FileLock, Timeout

    path = models_folder() / ".locks" / f"{name}.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        report(f"another process is fetching {name}; waiting for it", 0, 0)
        try:
            lock.acquire(timeout=LOCK_WAIT, poll_interval=0.1)
        except Timeout as error:
            raise FetchError(
                f"Another process has been fetching {name} for too long; end it, then try again."
            ) from error
    try:
        yield
    finally:
        lock.release()


def _sweep(name: str) -> None:
    """Remove what killed processes left: this model's, whose lock is ours, and anybody's when it is old."""
    staging = models_folder() / ".staging"
    for path in staging.iterdir() if staging.is_dir() else ():
        mine = path.name.rsplit("-", 2)[0] == name
        if mine or time.time() - path.stat().st_mtime > STALE:
            shutil.rmtree(path, ignore_errors=True)


def _sync(path: Path) -> None:
    if path.is_dir() and os.name == "nt":
        return  # Windows neither opens nor needs to flush a folder
    handle = os.open(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _version() -> str:
    try:
        return metadata.version("recuerdo")
    except metadata.PackageNotFoundError:
        return "(not installed)"
