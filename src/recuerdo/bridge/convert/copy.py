"""A source that already is a model folder: its files are moved as they are."""

import shutil
from collections.abc import Callable
from pathlib import Path


def convert(source: Path, target: Path, progress: Callable[[str, int, int], None]) -> None:
    """Move every file of `source` to the same place under `target`."""
    files = sorted(path for path in source.rglob("*") if path.is_file())
    for done, path in enumerate(files):
        progress(f"{path.name}", done, len(files))
        to = target / path.relative_to(source)
        to.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(path, to)
