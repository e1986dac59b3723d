"""Attention with several heads (Vaswani et al. 2017), whose keys and values may be kept from one word to the next."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from recuerdo.errors import InputError
from recuerdo.read import read, scaled_dot, softmax
from recuerdo.read.mask import Bias, Mask
from recuerdo.read.normalise import Normaliser
from recuerdo.read.score import Score


class KeyValue(NamedTuple):
    """What heads read: keys [b, h, k, d] and values [b, h, k, e]."""

    key: Tensor
    value: Tensor

    def and_then(self, more: "KeyValue") -> "KeyValue":
        """These, and more behind them."""
        return KeyValue(*(torch.cat(pair, 2) for pair in zip(self, more, strict=True)))

    def take(self, rows: Tensor) -> "KeyValue":
        """Those of some rows of the batch, [n]."""
        return KeyValue(self.key[rows], self.value[rows])


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

    def keys(self, x: Tensor) -> KeyValue:
        """Rows [b, k, width] -> their keys and values."""
        b, k, _ = x.shape
        return KeyValue(*self.pair(x).view(b, k, 2, self.heads, -1).permute(2, 0, 3, 1, 4))

    def forward(
        self, x: Tensor, there: KeyValue, mask: Mask | Tensor | None = None, bias: Bias | Tensor | None = None
    ) -> Tensor:
        """Rows [b, q, width] -> [b, q, width]."""
        b, q, _ = x.shape
        query = self.query(x).view(b, q, self.heads, -1).transpose(1, 2)
        reading = read(query, *there, mask=mask, bias=bias, score=self.score, normalise=self.normalise)
        return self.out(reading.mixed.transpose(1, 2).flatten(2))
