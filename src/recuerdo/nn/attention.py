"""Attention with several heads (Vaswani et al. 2017), whose keys and values may be kept from one word to the next."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from recuerdo.errors import InputError
from recuerdo.nn.lean import Linear
from recuerdo.read import read, scaled_dot, softmax
from recuerdo.read.mask import Bias, Mask
from recuerdo.read.normalise import Normaliser
from recuerdo.read.score import Score
from recuerdo.read.watch import watched

SPARE = 16  # rows of room that are made at once


class KeyValue(NamedTuple):
    """What heads read: keys [b, h, k, d] and values [b, h, k, e]."""

    key: Tensor
    value: Tensor

    def take(self, rows: Tensor) -> "KeyValue":
        """Those of some rows of the batch, [n]."""
        return KeyValue(self.key.index_select(0, rows), self.value.index_select(0, rows))


class Kept:
    """Keys and values to which further ones are added, as a decoder goes on.

    Without gradients they are written into room that is there already; with gradients nothing is written over.
    """

    def __init__(self, room: Tensor | None = None, length: int = 0, spare: Tensor | None = None):
        """The first `length` of `room`, [b, k, 2, h, d], are kept; nothing yet without it. `spare`: room that nobody
        needs any more."""
        self.room, self.length, self.spare = room, length, spare

    def add(self, more: Tensor) -> Tensor:
        """Keep these [b, k, 2, h, d] too, and give all there are."""
        end, room = self.length + more.shape[1], self.room
        if torch.is_grad_enabled():
            room = more if room is None else torch.cat([room[:, : self.length], more], 1)
        else:
            if room is None or end > room.shape[1]:
                longer = more.new_empty(len(more), end + SPARE, *more.shape[2:])
                if room is not None:
                    longer[:, : self.length] = room[:, : self.length]
                room = longer
            room.narrow(1, self.length, more.shape[1]).copy_(more)  # `narrow`: brackets take twice as long
        self.room, self.length = room, end
        return room.narrow(1, 0, end)

    def take(self, rows: Tensor) -> "Kept":
        """Those of some rows of the batch, [n]; this is used up, for its room may be written over."""
        old, spare = self.room, self.spare
        if old is None or torch.is_grad_enabled():
            return Kept(None if old is None else old[rows], self.length)
        # New room costs more than to fill it. Who watches still looks into the old one.
        if spare is None or len(spare) < len(rows) or spare.shape[1:] != old.shape[1:] or watched():
            spare = old.new_empty(len(rows), *old.shape[1:])
        room, used = spare[: len(rows)], self.length * old[0, 0].numel()
        torch.index_select(old.flatten(1)[:, :used], 0, rows, out=room.flatten(1)[:, :used])
        return Kept(room, self.length, old)


class MultiHead(nn.Module):
    """Rows read what `keys` made of other rows, or of the same: `out(self(asked(rows), keys(others)))`, [b, q, width].
    Its read has the module as address.

    Raises InputError for heads that do not divide the width.
    """

    def __init__(self, width: int, heads: int, *, score: Score = scaled_dot, normalise: Normaliser = softmax):
        super().__init__()
        if heads < 1 or width % heads:
            raise InputError(f"{heads} heads do not divide a width of {width}")
        self.heads, self.score, self.normalise = heads, score, normalise
        self.query, self.pair, self.out = Linear(width, width), Linear(width, 2 * width), Linear(width, width)

    def asked(self, x: Tensor) -> Tensor:
        """Rows [b, q, width] -> their queries, [b, h, q, d]."""
        return self.query(x).view(*x.shape[:2], self.heads, -1).transpose(1, 2)

    def keys(self, x: Tensor, kept: Kept | None = None) -> KeyValue:
        """Rows [b, k, width] -> their keys and values, behind those that were `kept`; then they are kept, too."""
        return self.split(self.pair(x), kept)

    def split(self, both: Tensor, kept: Kept | None = None) -> KeyValue:
        """What `pair` made of rows, [b, k, 2 * width] -> as `keys`."""
        both = both.view(*both.shape[:2], 2, self.heads, -1)
        if kept is not None:
            both = kept.add(both)
        both = both.permute(2, 0, 3, 1, 4)
        if kept is None and not torch.is_grad_enabled():
            both = both.contiguous()  # they will be read word for word
        return KeyValue(*both.unbind())

    def forward(
        self, query: Tensor, there: KeyValue, mask: Mask | Tensor | None = None, bias: Bias | Tensor | None = None
    ) -> Tensor:
        """Queries [b, h, q, d] -> what they read, the heads side by side [b, q, width]: for `out`."""
        reading = read(query, *there, mask=mask, bias=bias, score=self.score, normalise=self.normalise)
        return reading.mixed.transpose(1, 2).flatten(2)
