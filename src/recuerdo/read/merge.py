"""The algebra of softmax reads: a read is a pair (mixed value, log-mass), and such pairs merge exactly.

`merge` is associative and commutative, so blocks, pages, shards and memories may be read apart and put together in
any order, with the result of one read over all of it.
"""

from typing import NamedTuple

import torch
from torch import Tensor


class Part(NamedTuple):
    """A softmax read of some keys: `mixed` [..., q, e], and `lse` [..., q], the log of the summed exp(score)."""

    mixed: Tensor
    lse: Tensor


def merge(*parts: Part | tuple[Tensor, Tensor]) -> Part:
    """One read over all the keys that the parts read. Rows that read nothing (lse -inf) weigh nothing.

    Differentiable in the mixed values and in the log-masses.
    """
    lse = torch.stack([part[1] for part in parts])
    top = lse.detach().amax(0)
    top = top.masked_fill(torch.isneginf(top), 0.0)
    mass = (lse - top).exp()
    total = mass.sum(0)
    nothing = total == 0
    total = total.masked_fill(nothing, 1.0)
    share = (mass / total)[..., None]
    values = torch.stack([part[0] for part in parts])
    mixed = (share.to(values.dtype) * values).sum(0)
    return Part(mixed, (top + total.log()).masked_fill(nothing, -torch.inf))
