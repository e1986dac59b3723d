"""Attention with several heads (Vaswani et al. 2017), whose keys and values may be kept from one word to the next."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from recuerdo.errors import InputError
from recuerdo.read import read, scaled_dot, softmax
from recuerdo.read.mask import Bias, Mask
from recuerdo.read.normalise import Normaliser
from recuerdo.read.score import Score

SPARE = 16  # rows of room that are made at once


class KeyValue(NamedTuple):
    """What heads read: keys [b, h, k, d] and values [b, h, k, e]."""

    key: Tensor
    value: Tensor

    def take(self, rows: Tensor) -> "KeyValue":
        """Those of some rows of the batch, [n]."""
        return KeyValue(self.key[rows], self.value[rows])


class Kept:
    """Keys and values to which further ones are added, as a decoder goes on.

    Without gradients they are written into room that is there already; with gradients nothing is written over.
    """

    def __init__(self, room: Tensor | None = None, length: int = 0):
        """The first `length` of `room`, [2, b, h, k, d], are kept; nothing yet without it."""
        self.room, self.length = room, length

    def add(self, more: Tensor) -> Tensor:
        """Keep these [2, b, h, k, d] too, and give all there are."""
        end, room = self.length + more.shape[3], self.room
        if room is None or torch.is_grad_enabled():
            room = more if room is None else torch.cat([room[..., : self.length, :], more], 3)
        else:
            if end > room.shape[3]:
                longer = more.new_empty(*more.shape[:3], end + SPARE, more.shape[4])
                longer[..., : self.length, :] = room[..., : self.length, :]
                room = longer
            room[..., self.length : end, :] = more
        self.room, self.length = room, end
        return room[..., :end, :]

    def take(self, rows: Tensor) -> "Kept":
        """Those of some rows of the batch, [n]; they go on by themselves."""
        return Kept(None if self.room is None else self.room[:, rows], self.length)


class MultiHead(nn.Module):
    """Rows [b, q, width] read what `keys` made of other rows, or of the same. Its read has the module as address.

    Raises InputError for heads that do not divide the width.
    """

    def __init__(self, width: int, heads: int, *, score: Score = scaled_dot, normalise: Normaliser = softmax):
        super().__init__()
        if heads < 1 or width % heads:
            raise InputError(f"{heads} heads do not divide a width of {width}")
        self.heads, self.score, self.normalise = heads, score, normalise
        self.query, self.pair, self.out = nn.Linear(width, width), nn.Linear(width, 2 * width), nn.Linear(width, width)

    def keys(self, x: Tensor, kept: Kept | None = None) -> KeyValue:
        """Rows [b, k, width] -> their keys and values, behind those that were `kept`; then they are kept, too."""
        both = self.pair(x).view(*x.shape[:2], 2, self.heads, -1).permute(2, 0, 3, 1, 4)
        if kept is not None:
            both = kept.add(both)
        elif not torch.is_grad_enabled():
            both = both.contiguous()  # they will be read word for word
        return KeyValue(*both.unbind())

    def forward(
        self, x: Tensor, there: KeyValue, mask: Mask | Tensor | None = None, bias: Bias | Tensor | None = None
    ) -> Tensor:
        """Rows [b, q, width] -> [b, q, width]."""
        b, q, _ = x.shape
        query = self.query(x).view(b, q, self.heads, -1).transpose(1, 2)
        reading = read(query, *there, mask=mask, bias=bias, score=self.score, normalise=self.normalise)
        return self.out(reading.mixed.transpose(1, 2).flatten(2))
