"""Normalisers: from a row of scores to weights.

A normaliser takes complete rows of scores [..., q, k], in which hidden keys are -inf, and gives weights of the same
shape. A hidden key gets exactly 0; a row in which everything is hidden gets zeros, never NaN. `previous` is the row of
weights just before the first one, for the normalisers that walk through the rows (`sequential`).
"""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import entmax
import torch
from torch import Tensor

from recuerdo.errors import ReadError


@runtime_checkable
class Normaliser(Protocol):
    """What every normaliser offers."""

    @property
    def sequential(self) -> bool:
        """Whether a row needs the weights of the row before."""
        ...

    def __call__(self, scores: Tensor, previous: Tensor | None = None) -> Tensor:
        """Scores [..., q, k] -> weights [..., q, k]."""
        ...


def _hidden_rows(scores: Tensor) -> tuple[Tensor, Tensor]:
    """Scores in which rows without a visible key hold zeros, and which rows those are: [..., q, 1]."""
    hidden = torch.isneginf(scores).all(-1, keepdim=True)
    return scores.masked_fill(hidden, 0.0), hidden


@dataclass(frozen=True)
class Softmax:
    """`exp(s) / sum exp(s)`: the one normaliser with a log-mass, so the one whose reads can be merged."""

    sequential: bool = False

    def __call__(self, scores: Tensor, previous: Tensor | None = None) -> Tensor:
        safe, hidden = _hidden_rows(scores)
        return torch.softmax(safe, -1).masked_fill(hidden, 0.0)


@dataclass(frozen=True)
class Entmax:
    """alpha-entmax (Peters et al. 2019): 1 is softmax, 1.5 the usual middle, 2 is sparsemax. Exact zeros for alpha > 1.

    `alpha` may be a tensor that broadcasts to the rows [..., q, 1]; then it is learned, by bisection.
    """

    alpha: float | Tensor = 1.5
    sequential: bool = False

    def __call__(self, scores: Tensor, previous: Tensor | None = None) -> Tensor:
        safe, hidden = _hidden_rows(scores)
        # The library subtracts the row's largest score, and -inf stays -inf, but its backward multiplies by it.
        unseen = torch.isneginf(safe)
        low = safe.masked_fill(unseen, torch.inf).amin(-1, keepdim=True) - 1e4
        safe = torch.where(unseen, low.detach(), safe)
        if isinstance(self.alpha, Tensor):
            weights = entmax.entmax_bisect(safe, self.alpha, dim=-1, n_iter=60)  # pyright: ignore[reportArgumentType]
        elif self.alpha == 1.5:
            weights = entmax.entmax15(safe, dim=-1)
        elif self.alpha == 2.0:
            weights = entmax.sparsemax(safe, dim=-1)
        else:
            weights = entmax.entmax_bisect(safe, self.alpha, dim=-1, n_iter=60)
        return weights.masked_fill(hidden | unseen, 0.0)


@dataclass(frozen=True)
class Sigmoid:
    """`sigmoid(s + shift)` for every key by itself; the weights do not sum to one (Ramapuram et al. 2024)."""

    shift: float = 0.0
    sequential: bool = False

    def __call__(self, scores: Tensor, previous: Tensor | None = None) -> Tensor:
        return torch.sigmoid(scores + self.shift)  # sigmoid(-inf) is an exact 0


@dataclass(frozen=True)
class TopKSoftmax:
    """Softmax over the `k` largest scores of each row, 0 elsewhere. Of equal scores the earlier key wins."""

    k: int
    sequential: bool = False

    def __post_init__(self) -> None:
        if self.k < 1:
            raise ReadError(f"top-k softmax keeps at least one key, not {self.k}: pass k >= 1")

    def __call__(self, scores: Tensor, previous: Tensor | None = None) -> Tensor:
        if self.k >= scores.shape[-1]:
            return softmax(scores)
        kept = torch.sort(scores, dim=-1, descending=True, stable=True).indices[..., : self.k]
        chosen = torch.full_like(scores, -torch.inf).scatter(-1, kept, scores.gather(-1, kept))
        return softmax(chosen)


@dataclass(frozen=True)
class Hard:
    """All weight on the best key, the first of equals; gradients as if it were softmax (straight-through)."""

    sequential: bool = False

    def __call__(self, scores: Tensor, previous: Tensor | None = None) -> Tensor:
        soft = softmax(scores)
        hit = torch.zeros_like(soft).scatter_(-1, scores.argmax(-1, keepdim=True), 1.0)
        hit = hit.masked_fill(torch.isneginf(scores), 0.0)
        return hit + (soft - soft.detach())


@dataclass(frozen=True)
class Monotonic:
    """Expected hard monotonic alignment (Raffel et al. 2017): each row starts where the row before stopped.

    With p = sigmoid(s), a row's weights are p_j times the chance to arrive at key j, summed over where the row before
    stopped. The first row starts at key 0. Computed with log-cumsum-exp, in float64: the paper's cumulative division
    overflows, and long sums of log(1 - p) lose float32's digits.
    """

    sequential: bool = True

    def __call__(self, scores: Tensor, previous: Tensor | None = None) -> Tensor:
        row_type = torch.float64
        if previous is None:
            previous = torch.zeros_like(scores[..., 0, :], dtype=row_type)
            previous[..., 0] = 1.0
        previous = previous.to(row_type)
        rows = []
        for row in scores.to(row_type).unbind(-2):
            previous = self._step(row, previous)
            rows.append(previous)
        return torch.stack(rows, -2).to(scores.dtype)

    @staticmethod
    def _step(row: Tensor, previous: Tensor) -> Tensor:
        visible = ~torch.isneginf(row)
        row = row.masked_fill(~visible, -1e4)  # p = 0: walked past for certain
        passed = torch.nn.functional.logsigmoid(-row).cumsum(-1)
        before = torch.cat([torch.zeros_like(passed[..., :1]), passed[..., :-1]], -1)
        start = previous.clamp_min(torch.finfo(previous.dtype).tiny).log()
        arrive = before + torch.logcumsumexp(start - before, -1)
        return (torch.nn.functional.logsigmoid(row) + arrive).exp().masked_fill(~visible, 0.0)


@dataclass(frozen=True)
class StickBreaking:
    """The nearest match first (Csordas et al. 2022; Tan et al. 2024): each key, from the last one backwards, takes
    `sigmoid(s)` of what the later keys have left. Weights sum to at most one; what nobody takes stays unread.

    "The latest that fits" is what this reads by itself, where softmax has to learn it from positions.
    """

    sequential: bool = False

    def __call__(self, scores: Tensor, previous: Tensor | None = None) -> Tensor:
        hidden = torch.isneginf(scores)
        safe = scores.masked_fill(hidden, 0.0)
        left = torch.nn.functional.logsigmoid(-safe).masked_fill(hidden, 0.0)  # log of what each key leaves
        later = left.flip(-1).cumsum(-1).flip(-1) - left
        return (torch.nn.functional.logsigmoid(safe) + later).exp().masked_fill(hidden, 0.0)


@dataclass(frozen=True)
class Linear:
    """No normaliser: the weights are the scores, below zero too (linear attention; MemN2N's linear start). They are no
    shares of a whole: odds multiply the weight itself, and a share cannot be asked for."""

    sequential: bool = False

    def __call__(self, scores: Tensor, previous: Tensor | None = None) -> Tensor:
        return scores.masked_fill(torch.isneginf(scores), 0.0)


softmax = Softmax()
sparsemax = Entmax(2.0)
entmax15 = Entmax(1.5)
sigmoid = Sigmoid()
hard = Hard()
linear = Linear()
monotonic = Monotonic()
stick_breaking = StickBreaking()
