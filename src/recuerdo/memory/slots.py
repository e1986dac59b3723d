"""Slots: a memory of keys and values, each question with its own, looked at once per hop."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from recuerdo.read import dot, linear, read, softmax
from recuerdo.read.normalise import Normaliser


@dataclass(frozen=True, eq=False)
class Beside:
    """Softmax beside `empty` further slots, whose keys and values are zero: `exp(s) / (sum exp(s) + empty)`.

    A memory of fixed size is looked at as a whole, also where nothing was written: the weights sum to less than one,
    and what scores below zero is drowned. `empty` is a number, or a tensor that broadcasts to the rows, [..., q, 1].
    """

    empty: float | Tensor
    sequential: bool = False

    def __call__(self, scores: Tensor, previous: Tensor | None = None) -> Tensor:
        """Scores [..., q, k] -> weights [..., q, k]; all 0 where everything is hidden."""
        empty = torch.as_tensor(self.empty, dtype=scores.dtype, device=scores.device)
        top = scores.detach().amax(-1, keepdim=True)
        # The empty slots score 0. Without them a row may lie far below, and without anything at -inf.
        top = torch.where(empty > 0, top.clamp(min=0), top.masked_fill(torch.isneginf(top), 0.0))
        mass = (scores - top).exp()
        total = mass.sum(-1, keepdim=True) + empty * (-top).clamp(max=0).exp()
        return mass / total.clamp_min(torch.finfo(scores.dtype).tiny)


class Look(nn.Module):
    """One look at the slots. It has no parameters: it is a module so that the look has an address, `hops.0`."""

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        *,
        seen: Tensor | None = None,
        normalise: Normaliser = softmax,
    ) -> Tensor:
        """What was read, [n, d]: query [n, d], key and value [n, s, d], `seen` [n, s] bool (None = all).

        The scores are dot products. Who watches hears a Reading of shape [n, 1, 1, s].
        """
        mask = None if seen is None else seen[:, None, None]
        reading = read(query[:, None, None], key[:, None], value[:, None], mask=mask, score=dot, normalise=normalise)
        return reading.mixed[:, 0, 0]


def look_at(seen: Tensor, slots: int, straight: bool) -> Normaliser:
    """The normaliser of a memory of `slots` slots of which `seen` [n, s] are filled; `straight` = linear start."""
    if straight:
        return linear
    return Beside((slots - seen.sum(-1)).clamp(min=0)[:, None, None, None])
