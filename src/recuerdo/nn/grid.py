"""Pictures as a grid of cells that can be read: each says what lies around it, and where that is."""

import math
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from recuerdo.errors import ShapeError

STRIDE = 8  # pixels of a cell, down and across
WAVES = 4


class Convolved(nn.Module):
    """Pictures [b, 3, h, w], uint8 or from 0 to 255 -> cells [b, rows, columns, width], a cell for 8 x 8 pixels.

    Four convolutions; a cell knows the 31 x 31 pixels around it and nothing else, so that who may not read the cells
    of a region knows next to nothing of it.
    """

    def __init__(self, width: int):
        super().__init__()
        sizes = (3, width // 4, width // 2, width)
        self.down = nn.ModuleList(nn.Conv2d(a, b, 3, 2, 1) for a, b in pairwise(sizes))
        self.around = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, pictures: Tensor) -> Tensor:
        """Raises ShapeError for other shapes, and for pictures of less than 8 x 8 pixels."""
        if pictures.dim() != 4 or pictures.shape[1] != 3 or min(pictures.shape[2:]) < STRIDE:
            raise ShapeError(
                f"pictures are [b, 3, height, width], {STRIDE} pixels or more, not {tuple(pictures.shape)}"
            )
        x = pictures.to(self.around.weight.dtype) / 127.5 - 1
        x = x.contiguous(memory_format=torch.channels_last)
        for layer in self.down:
            x = functional.relu(layer(x))
        return functional.relu(self.around(x)).permute(0, 2, 3, 1)


def whereabouts(rows: int, columns: int, like: Tensor) -> Tensor:
    """Where each cell is, whatever their number: [rows, columns, 16], sines and cosines of 1/4 to 2 waves over the
    picture, down and across."""
    speed = 2.0 ** torch.arange(WAVES, device=like.device) * torch.pi / 2
    angles = [((torch.arange(n, device=like.device) + 0.5) / n)[:, None] * speed for n in (rows, columns)]
    down, across = (torch.cat([angle.sin(), angle.cos()], -1) for angle in angles)
    return torch.cat([down[:, None].expand(-1, columns, -1), across.expand(rows, -1, -1)], -1).to(like.dtype)


def within(box: tuple[float, float, float, float], rows: int, columns: int) -> Tensor:
    """The cells, row by row, of a box (left, top, right, bottom) in shares of the picture: bool [rows * columns]."""
    left, top, right, bottom = box
    return (covered(top, bottom, rows)[:, None] & covered(left, right, columns)).flatten()


def covered(first: float, last: float, count: int) -> Tensor:
    """Which of `count` equal parts of 0 to 1 have their centre in `first` to `last`; or the one that has most of it."""
    edges = torch.arange(count + 1, dtype=torch.float64)
    low, high = first * count, last * count
    centres = edges[:-1] + 0.5
    inside = (centres >= low) & (centres < high)
    if bool(inside.any()):
        return inside
    covered = edges[1:].clamp_max(high) - edges[:-1].clamp_min(low)
    if bool((covered > 0).any()):
        inside[covered.argmax()] = True
    else:  # thinner than the numbers can tell: the cell that it lies in
        inside[min(math.floor(low), count - 1)] = True
    return inside
