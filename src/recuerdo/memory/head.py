"""Heads: where a network looks in its memory and where it writes, as reads with an address.

The weights of an NTM or DNC head are a mixture (content, the head's last place, the order of writing), so they are no
softmax of a query and keys. But they are the softmax of their own logarithms: with scores log w, softmax gives w back.
So a head's weights make an ordinary Reading: watched, asked for masses, and bent as any other. Weights that do not
sum to one are divided by their sum inside the Reading, and multiplied by it again outside.

Making a Reading costs two operations on [b, h, n]. It is made whether somebody watches or not; what the head gives is
the same to the last bit either way, and changes only where somebody bends it. Then the bent weights are also what the
memory goes on with: what is written, freed and followed later.
"""

from dataclasses import dataclass

from torch import Tensor, nn

from recuerdo.read.bend import bend
from recuerdo.read.mask import as_mask
from recuerdo.read.merge import Part
from recuerdo.read.normalise import softmax
from recuerdo.read.pairing import Pairing
from recuerdo.read.score import Pairs
from recuerdo.read.trace import Reading
from recuerdo.read.watch import hear, wishes

TINY = 1e-30  # added before the logarithm: the gradient of a weight that is exactly 0 stays right, p / (0 + TINY)


@dataclass(frozen=True, eq=False)
class Given:
    """The score of weights that are known: `log w`, whatever query and key are. `weights` [b, h, q, k], not below 0."""

    weights: Tensor
    numbers_per_pair: int = 1

    def project(self, query: Tensor, key: Tensor) -> Pairs:
        """Queries and keys as they are: no product of them is the score."""
        return Pairs(query, key, None)

    def block(self, query: Tensor, key: Tensor, rows: slice, cols: slice) -> Tensor:
        """The logarithms of a rectangle of the weights, [b, h, n, m]."""
        return (self.weights[:, :, rows, cols].clamp_min(0) + TINY).log()

    def plain(self, query: Tensor, key: Tensor) -> Tensor:
        """The logarithms of all weights, [b, h, q, k]."""
        return self.block(query, key, slice(None), slice(None))


def given(weights: Tensor, memory: Tensor, mixed: Tensor | None = None) -> Reading:
    """The Reading of one query with known weights: weights [b, h, n], memory [b, n, w] -> Reading [b, h, 1, n].

    `mixed` is `weights @ memory` where the caller has it; else it is worked out when somebody asks. The Reading's own
    weights sum to one. Nobody hears of it yet.
    """
    rows = memory[:, None]
    score = Given(weights[:, :, None])
    query = memory.new_zeros(1).expand(*weights.shape[:2], 1, memory.shape[-1])
    total = weights.sum(-1, keepdim=True)
    pairing = Pairing(query, rows, None, score, as_mask(None), (), softmax)
    mean = query if mixed is None else (mixed / total.clamp_min(TINY))[:, :, None]
    reading = Reading(Part(mean, total.log()), pairing, rows, path="given")
    if mixed is None:
        reading.let_go_of_mixed()
    return reading


class ReadHead(nn.Module):
    """Read a memory with known weights. A module of its own, so that the read has its path as address."""

    def forward(self, weights: Tensor, memory: Tensor) -> tuple[Tensor, Tensor]:
        """Weights [b, h, n], memory [b, n, w] -> the weights to go on with, and what was read, [b, h, w]."""
        mixed = weights @ memory
        reading = given(weights, memory, mixed)
        reading = hear(bend(reading, wishes(reading)))
        if reading.bent is None:
            return weights, mixed
        total = weights.sum(-1, keepdim=True)
        return reading.weights[:, :][:, :, 0] * total, reading.mixed[:, :, 0] * total


class WriteHead(nn.Module):
    """Choose where to write. Heard as a read too: of what the memory held there before it was written over."""

    def forward(self, weights: Tensor, memory: Tensor) -> Tensor:
        """Weights [b, h, n], memory [b, n, w] -> the weights to write with."""
        reading = given(weights, memory)
        reading = hear(bend(reading, wishes(reading)))
        return weights if reading.bent is None else reading.weights[:, :][:, :, 0] * weights.sum(-1, keepdim=True)
