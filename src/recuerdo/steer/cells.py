"""Places that a person drew, as the cells a model sees: pixels, patches of an image, frames of a sound.

A cell belongs to a place when its centre lies in it. A place too small or too thin to hold a centre takes the cell it
covers most of, on each axis, so that no mark is ever lost.
"""

import torch
from torch import Tensor

from recuerdo.errors import InputError, MarkError
from recuerdo.nn.grid import covered
from recuerdo.steer.places import Box, Time, number


def box_mask(box: Box, height: int, width: int) -> Tensor:
    """The pixels (or any cells) of an image `height` x `width` that lie in a box: bool [height, width].

    Raises InputError for an image without cells.
    """
    down = covered(box.top, box.bottom, _count(height, "the height"))
    across = covered(box.left, box.right, _count(width, "the width"))
    return down[:, None] & across


def patch_mask(box: Box, rows: int, columns: int, *, before: int = 0) -> Tensor:
    """The same for an image read as `rows` x `columns` patches, row by row: bool [before + rows * columns].

    `before` counts the keys in front of the patches, such as a class token and registers; they are never marked.
    Raises InputError for a grid without patches.
    """
    if before < 0:
        raise InputError(f"{before} keys before the patches: give 0 or more")
    patches = box_mask(box, rows, columns).flatten()
    return torch.cat([patches.new_zeros(before), patches])


def time_mask(start: float, end: float, frames: int, seconds_per_frame: float) -> Tensor:
    """The frames that lie between two seconds: bool [frames]; frame i lasts from i to i + 1 times `seconds_per_frame`.

    Raises MarkError for a time that holds nothing or begins after the last frame, InputError for frames that are none.
    """
    mark = Time(start, end)
    length = _count(frames, "the number of frames")
    step = number(seconds_per_frame, "the length of a frame")
    if step <= 0:
        raise InputError(f"a frame lasts {step:g} s: give the seconds of one frame, above 0")
    if mark.start >= length * step:
        raise MarkError(f"{mark} begin after the sound, which lasts {length * step:g} s")
    return covered(mark.start / step / length, mark.end / step / length, length)


def _count(value: int, what: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise InputError(f"{what} is {value}: give a whole number, 1 or more")
    return value
