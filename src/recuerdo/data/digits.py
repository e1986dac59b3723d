"""Digits written by hand, and larger canvases on which they lie among pieces of others.

MNIST and what has its form (four IDX files). The canvases are those of Mnih et al. 2014: a digit anywhere on a black
ground (translated), with square pieces of other digits strewn over it (cluttered). They are made as they are asked for,
without end, from a seed.
"""

import gzip
import struct
import zlib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from recuerdo.data.sources import data_folder, data_sets
from recuerdo.errors import InputError

FILES = {"train": "train", "valid": "train", "test": "t10k"}
HELD = 5000  # of the training digits, the last ones, are for validation
BYTES = 0x08  # the IDX type of numbers from 0 to 255
SIDE = 28
INK = 20  # pixels that a digit's ink is wide and high, at most
MOST = 4096


@dataclass(frozen=True)
class Digits:
    """`pixels` [n, 28, 28] uint8, white (255) on black, and the digit of each, `labels` [n]."""

    pixels: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class Canvases:
    """`pixels` [b, side, side] uint8; `labels` [b]; `boxes` [b, 4]: where the digit lies (top, left, bottom, right; the
    last two are behind it). Of several digits on a canvas labels are [b, n], -1 where there is none, and boxes [b, n,
    4]."""

    pixels: Tensor
    labels: Tensor
    boxes: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def split(self, n: int) -> list["Canvases"]:
        """The batch as at most n batches."""
        parts = (self.pixels.chunk(n), self.labels.chunk(n), self.boxes.chunk(n))
        return [Canvases(*part) for part in zip(*parts, strict=True)]

    def to(self, device: torch.device) -> "Canvases":
        """The same on a device."""
        return Canvases(self.pixels.to(device), self.labels.to(device), self.boxes.to(device))


@dataclass(frozen=True)
class Canvas:
    """How digits are laid out: on a square of `side` pixels, with so many pieces of `piece` x `piece` pixels of other
    digits (`clutter`). A side of 28 is the digit itself.

    `turned` (degrees), `scaled` (a share) and `moved` (pixels): by so much, at most, a digit is turned, made larger or
    smaller, and moved before it is laid down; for training only. Raises InputError for what cannot be.
    """

    side: int = SIDE
    clutter: int = 0
    piece: int = 8
    turned: float = 0.0
    scaled: float = 0.0
    moved: float = 0.0

    def __post_init__(self) -> None:
        if not SIDE <= self.side <= MOST:
            raise InputError(f"a canvas has a side of {SIDE} to {MOST} pixels, not {self.side}")
        if self.clutter < 0 or not 1 <= self.piece <= SIDE or not 0 <= self.scaled < 1:
            raise InputError(
                f"clutter is 0 or more, a piece has a side of 1 to {SIDE}, and scaled is a share: "
                f"not clutter={self.clutter}, piece={self.piece}, scaled={self.scaled}"
            )

    def lay(self, digits: Tensor, labels: Tensor, others: Tensor, draw: torch.Generator) -> Canvases:
        """Digits [b, 28, 28] each on a canvas of its own, among pieces of `others` [n, 28, 28]."""
        b = len(digits)
        if self.turned or self.scaled or self.moved:
            digits = self._changed(digits, draw)
        if self.side == SIDE and not self.clutter:
            whole = torch.tensor([0, 0, SIDE, SIDE]).expand(b, 4)
            return Canvases(digits, labels, whole)
        pixels = self._strewn(b, others, draw)
        top, left = (_below(self.side - SIDE + 1, b, draw) for _ in range(2))
        _paste(pixels, digits, top, left)
        return Canvases(pixels, labels, torch.stack([top, left, top + SIDE, left + SIDE], 1))

    def lay_several(self, digits: Tensor, labels: Tensor, others: Tensor, draw: torch.Generator) -> Canvases:
        """Digits [b, n, 28, 28] together on a canvas for each row, apart from each other, from left to right as their
        `labels` [b, n] say; a label of -1 is no digit. Boxes are [b, n, 4]. Raises InputError where there is no room.
        """
        b, n = labels.shape
        if self.turned or self.scaled or self.moved:
            digits = self._changed(digits.flatten(0, 1), draw).view_as(digits)
        if n > 1 and 2 * n > ((self.side - SIDE) // INK + 1) ** 2:
            raise InputError(f"{n} digits have no room on {self.side} x {self.side} pixels: give a side of {SIDE * n}")
        pixels = self._strewn(b, others, draw)
        there = labels >= 0
        corners = _apart(there, self.side - SIDE + 1, draw)
        for nth in range(n):
            _paste(pixels, digits[:, nth] * there[:, nth, None, None], corners[:, nth, 0], corners[:, nth, 1])
        return Canvases(pixels, labels, torch.cat([corners, corners + SIDE], 2))

    def _strewn(self, b: int, others: Tensor, draw: torch.Generator) -> Tensor:
        """Canvases with nothing but clutter."""
        pixels = torch.zeros(b, self.side, self.side, dtype=torch.uint8)
        for _ in range(self.clutter):
            which, top, left = (_below(high, b, draw) for high in (len(others), *2 * (SIDE - self.piece + 1,)))
            piece = others[which[:, None, None], *_square(top, left, self.piece)]
            _paste(pixels, piece, *(_below(self.side - self.piece + 1, b, draw) for _ in range(2)))
        return pixels

    def _changed(self, digits: Tensor, draw: torch.Generator) -> Tensor:
        """Each digit turned, scaled and moved a little, by bilinear interpolation."""
        some = 2 * torch.rand(4, len(digits), generator=draw) - 1
        angle, size = some[0] * self.turned * torch.pi / 180, 1 + some[1] * self.scaled
        across, down = some[2:] * self.moved * 2 / SIDE
        cos, sin = angle.cos() / size, angle.sin() / size
        way = torch.stack([torch.stack([cos, -sin, across], 1), torch.stack([sin, cos, down], 1)], 1)
        at = functional.affine_grid(way, [len(digits), 1, SIDE, SIDE], align_corners=False)
        changed = functional.grid_sample(digits[:, None].float(), at, align_corners=False)
        return changed[:, 0].round_().clamp_(0, 255).to(torch.uint8)


def _below(high: int, count: int, draw: torch.Generator) -> Tensor:
    return torch.randint(0, high, (count,), generator=draw)


def _apart(there: Tensor, room: int, draw: torch.Generator) -> Tensor:
    """Upper left corners [b, n, 2] of digits that are `there` [b, n], from left to right, no two nearer than a digit's
    ink is wide in both directions."""
    rows = []
    for some in there.tolist():
        count = sum(some)
        corners: list[tuple[int, int]] = []
        while len(corners) < count:
            corners = []
            for down, across in torch.randint(0, room, (64, 2), generator=draw).tolist():
                if all(max(abs(down - y), abs(across - x)) >= INK for y, x in corners):
                    corners.append((down, across))
                if len(corners) == count:
                    break
        corners.sort(key=lambda corner: corner[1])
        rows.append(corners + [(0, 0)] * (len(some) - count))
    return torch.tensor(rows).view(*there.shape, 2)


def _square(top: Tensor, left: Tensor, side: int) -> tuple[Tensor, Tensor]:
    """Rows [b, side, 1] and columns [b, 1, side] of squares."""
    along = torch.arange(side)
    return (top[:, None] + along)[:, :, None], (left[:, None] + along)[:, None]


def _paste(canvas: Tensor, piece: Tensor, top: Tensor, left: Tensor) -> None:
    """The lighter of what is there and of the piece [b, side, side]."""
    at = (torch.arange(len(canvas))[:, None, None], *_square(top, left, piece.shape[1]))
    canvas[at] = torch.maximum(canvas[at], piece)


def digits(split: str, folder: str = "") -> Digits:
    """MNIST's digits of "train" (55,000), "valid" (5,000 of its training files) or "test" (10,000).

    `folder`: where the four files are, or the name of a data set, such as "fashion-mnist", whose pieces of clothing
    stand for digits then; "" = mnist/ in the data folder. Raises InputError for an unknown split, and for files that
    are not there or are no IDX files of digits.
    """
    if split not in FILES:
        raise InputError(f"there is no split {split!r} of the digits: choose {', '.join(FILES)}")
    name = folder or "mnist"
    here = data_folder(name) if name in data_sets() or not folder else Path(name)
    if here is None:
        raise InputError(
            f"the pictures of {name} are not here: fetch them with `recuerdo data get {name}`, or set RECUERDO_DATA to "
            f"the folder with {name}/"
        )
    return _digits(split, str(here))


@lru_cache(4)
def _digits(split: str, folder: str) -> Digits:
    name = FILES[split]
    pixels, labels = (
        idx(_file(Path(folder) / f"{name}-{kind}")) for kind in ("images-idx3-ubyte", "labels-idx1-ubyte")
    )
    labels = labels.long()
    if pixels.dim() != 3 or pixels.shape[1:] != (SIDE, SIDE) or labels.shape != pixels.shape[:1] or not len(labels):
        raise InputError(
            f"the digits in {folder} do not fit together: {name} has pictures {tuple(pixels.shape)} and labels "
            f"{tuple(labels.shape)}, not n x {SIDE} x {SIDE} and n"
        )
    if int(labels.max()) > 9:
        raise InputError(f"the labels of {name} in {folder} go up to {int(labels.max())}: digits are 0 to 9")
    held = min(HELD, len(labels) // 2)
    part = {"train": slice(0, len(labels) - held), "valid": slice(len(labels) - held, None)}.get(split, slice(None))
    return Digits(pixels[part], labels[part])


def _file(path: Path) -> Path:
    """The file, packed or not."""
    return path if path.exists() else path.with_name(f"{path.name}.gz")


def idx(path: Path) -> Tensor:
    """The numbers of an IDX file of bytes, packed by gzip or not (LeCun's format: 2 zeros, type, number of axes, their
    sizes as 4 bytes each, then the numbers). Raises InputError with the path and what is wrong."""
    try:
        told = path.read_bytes()
        told = gzip.decompress(told) if told[:2] == b"\x1f\x8b" else told
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{path} cannot be read ({error}): fetch it with `recuerdo data get mnist`") from None
    axes = told[3] if len(told) > 3 else 0
    if len(told) < 4 + 4 * axes or told[:2] != b"\0\0" or told[2] != BYTES or not axes:
        raise InputError(f"{path} is no IDX file of bytes: fetch it with `recuerdo data get mnist`")
    shape = struct.unpack(f">{axes}I", told[4 : 4 + 4 * axes])
    body = told[4 + 4 * axes :]
    count = 1
    for size in shape:
        count *= size
    if len(body) != count:
        raise InputError(f"{path} holds {len(body)} numbers and promises {' x '.join(map(str, shape))}: fetch it again")
    return torch.frombuffer(bytearray(body), dtype=torch.uint8).view(shape) if body else torch.zeros(shape).byte()
