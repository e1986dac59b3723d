"""What every conversion does: map a large file, write one safetensors file and the small JSON files beside it."""

import errno
import json
import mmap
from pathlib import Path
from typing import Any

import numpy as np


def mapped(path: Path) -> memoryview:
    """The bytes of a file, read from the disk only where they are used. Raises ValueError for an empty file."""
    with path.open("rb") as file:
        return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))


def save_weights(tensors: dict[str, np.ndarray], target: Path) -> None:
    """Write `tensors` as target/model.safetensors, as Transformers expects it. Raises OSError when that fails."""
    from safetensors import SafetensorError
    from safetensors.numpy import save_file

    path = target / "model.safetensors"
    try:
        save_file({name: np.ascontiguousarray(array) for name, array in tensors.items()}, path, {"format": "pt"})
        # The library makes the file readable for its owner alone, but a cache may be shared.
        path.chmod(target.stat().st_mode & 0o666)
    except SafetensorError as error:
        # The library folds the system's error into a text; a full disk must stay recognisable.
        full = "os error 28" in str(error) or "os error 112" in str(error)
        raise OSError(errno.ENOSPC if full else errno.EIO, str(error)) from error


def save_json(content: dict[str, Any], path: Path) -> None:
    """Write `content` as readable JSON."""
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
