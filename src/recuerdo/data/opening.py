"""The bytes of a file that somebody named: a plain file of a limited size, and, where asked, of one folder only."""

import os
import stat
from pathlib import Path

from recuerdo.errors import InputError

LARGEST = 256 * 2**20  # bytes of a file
# A queue or a device must not hold up whoever opens it; what is no plain file is refused once it is open.
FLAGS = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOCTTY", 0) | getattr(os, "O_BINARY", 0)
NO_LINKS = getattr(os, "O_NOFOLLOW", 0)
STEPS = os.open in os.supports_dir_fd and NO_LINKS  # a path can be walked folder by folder, each as it is now


def taken(path: Path, folder: Path | None = None) -> bytes:
    """What is in the file at `path`; with a `folder` the path counts from there, and no link is followed.

    The file is opened once: what is checked is what is read. Raises InputError for what is not there, is no plain file,
    is too large, or lies outside of the folder.
    """
    try:
        opened = os.open(path, FLAGS) if folder is None else _below(folder, path)
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or str(error)
        raise InputError(f"there is no file {path} that can be opened ({why})") from None
    told = os.fstat(opened)
    if not stat.S_ISREG(told.st_mode):
        os.close(opened)
        raise InputError(f"{path} is no plain file")
    with os.fdopen(opened, "rb") as file:
        data = file.read(LARGEST + 1) if told.st_size <= LARGEST else b""
        if max(told.st_size, len(data)) > LARGEST:
            raise InputError(f"{path.name} has {told.st_size:,} bytes, and {LARGEST:,} are the most: split it")
        return data


def _below(folder: Path, path: Path) -> int:
    """The file opened at a path that counts from a folder, link by link refused."""
    if path.is_absolute() or path.drive or path.root or ".." in path.parts or not path.parts:
        raise InputError(f"{path} is not below the folder: name a file in it, counted from there")
    if not STEPS:
        whole = folder.joinpath(path)
        if not whole.resolve().is_relative_to(folder.resolve()):
            raise InputError(f"{path} leads out of the folder: name the file itself")
        return os.open(whole, FLAGS)
    here = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        for number, part in enumerate(path.parts, 1):
            last = number == len(path.parts)
            try:
                inside = os.open(part, (FLAGS if last else os.O_RDONLY | os.O_DIRECTORY) | NO_LINKS, dir_fd=here)
            except OSError:
                if stat.S_ISLNK(os.stat(part, dir_fd=here, follow_symlinks=False).st_mode):
                    raise InputError(f"{path} goes through a link: name the file itself") from None
                raise
            os.close(here)
            here = inside
        here, found = -1, here
        return found
    finally:
        if here >= 0:
            os.close(here)
