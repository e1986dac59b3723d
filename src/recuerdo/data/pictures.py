"""Pictures from files, whatever they hold, as plain pixels; and pixels as PNG.

Pillow decodes. A file is measured before it is decoded, so that a small one that promises a huge picture costs nothing.
Of an animation the first frame counts; a camera's orientation is obeyed; what is transparent shows white.
"""

import io
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from recuerdo.errors import InputError

MOST = 100_000_000  # pixels that are decoded
DEEP = ("I;16", "I;16B", "I;16L", "I;16N", "I", "F")  # modes of more than 8 bits
TOO_MANY = f"more than {MOST // 10**6} million pixels: make it smaller first"


def colours(path: str | Path) -> Tensor:
    """Red, green and blue, [3, height, width] uint8. Raises InputError for what cannot be read, and why."""
    return torch.from_numpy(_opened(Path(path), "RGB")).permute(2, 0, 1)


def grey(path: str | Path) -> Tensor:
    """Lightness (ITU-R 601), [height, width] uint8. Raises InputError for what cannot be read, and why."""
    return torch.from_numpy(_opened(Path(path), "L"))


def resized(picture: Tensor, height: int, width: int) -> Tensor:
    """A picture [3, h, w] uint8 stretched to another size, without the jags of skipped pixels."""
    if picture.shape[1:] == (height, width):
        return picture
    told = functional.interpolate(picture[None].float(), (height, width), mode="bilinear", antialias=True)
    return told[0].round().clamp(0, 255).to(torch.uint8)


def png(pixels: Tensor) -> bytes:
    """A PNG file of [height, width] or [3, height, width] uint8."""
    image = _pillow()
    told = pixels.cpu().contiguous().numpy()
    out = io.BytesIO()
    image.fromarray(told if told.ndim == 2 else np.ascontiguousarray(told.transpose(1, 2, 0))).save(out, "PNG")
    return out.getvalue()


def _pillow() -> Any:
    try:
        from PIL import Image
    except ImportError:
        raise InputError("pictures need Pillow: pip install 'recuerdo[pictures]'") from None
    return Image


def _opened(path: Path, mode: str) -> np.ndarray:
    """A picture of 8 bits, upright, without transparency, in a mode of Pillow's."""
    image = _pillow()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of Pillow's own limit, which is higher, and of odd metadata
            with image.open(path) as told:
                wide, high = told.size
                if wide * high > MOST:
                    raise InputError(f"{path} has {wide} x {high}, {TOO_MANY}")
                told.load()
                return np.array(_flat(_upright(_shallow(told))).convert(mode))
    except InputError:
        raise
    except image.DecompressionBombError:
        raise InputError(f"{path} has far {TOO_MANY}") from None
    except FileNotFoundError:
        raise InputError(f"there is no picture {path}") from None
    except Exception as error:  # noqa: BLE001  decoders of many formats raise many kinds
        raise InputError(f"{path} is no picture that can be read ({_line(error)}): give a whole PNG or JPEG") from None


def _shallow(told: Any) -> Any:
    """With 8 bits: 16 bits are divided by 257, other wide numbers are spread from the least to the most."""
    if told.mode not in DEEP:
        return told
    numbers = np.asarray(told).astype(np.float64)
    if told.mode.startswith("I;16") or (told.mode == "I" and numbers.min() >= 0 and 255 < numbers.max() < 2**16):
        numbers = numbers / 257
    elif told.mode == "F" or numbers.min() < 0 or numbers.max() > 255:
        numbers = np.nan_to_num(numbers, nan=0.0, posinf=0.0, neginf=0.0)
        low, high = numbers.min(), numbers.max()
        numbers = (numbers - low) * (255 / (high - low) if high > low else 0.0)
    shallow = _pillow().fromarray(numbers.round().clip(0, 255).astype(np.uint8))
    shallow.info = dict(told.info)
    return shallow


def _upright(told: Any) -> Any:
    from PIL import ImageOps

    try:
        return ImageOps.exif_transpose(told) or told
    except Exception:  # noqa: BLE001  metadata that cannot be read says nothing about the picture
        return told


def _flat(told: Any) -> Any:
    if not told.has_transparency_data:
        return told
    with_alpha = told.convert("RGBA")
    ground = _pillow().new("RGBA", with_alpha.size, "white")
    ground.alpha_composite(with_alpha)
    return ground.convert("RGB")


def _line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
