"""The temporal link of the DNC: what was written after what, so that a head can go on from where it is.

The paper's link is a matrix of n x n (`Dense`, kept as the plain reference). `History` keeps the past writes instead:
W and P, [b, t, n], hold each write's weights and the precedence it followed, both faded by what was written later.
Going forward and backward is then attention over past writes,

    forward = (r P^T) W        backward = (r W^T) P        without the diagonal

at O(t n) a step instead of O(n^2). It is the same for writes to one slot, however strong. For soft writes the paper's
link fades by 1 - w_i - w_j where this one fades by (1 - w_i)(1 - w_j), which never turns negative.

A link is a value that is passed in: `link.start(...)` gives the empty state of a sequence, to which writes are told
and which heads follow. Weights of heads are [b, h, n], a write and a precedence [b, n].
"""

from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass
from typing import Protocol, Self

import torch
from torch import Tensor

from recuerdo.errors import InputError


class Links(Protocol):
    """What was written after what, in one sequence."""

    def write(self, weights: Tensor, precedence: Tensor) -> None:
        """A write of `weights` [b, n] followed one that is described by `precedence` [b, n]."""
        ...

    def follow(self, reads: Tensor) -> tuple[Tensor, Tensor]:
        """From reads [b, h, n] to what was written next, and to what was written before: each [b, h, n]."""
        ...

    def take(self, rows: Tensor) -> Self:
        """The links of some sequences of the batch, [n], each as often as it is named; they go on by themselves."""
        ...

    def beside(self, others: Sequence[Self]) -> Self:
        """These sequences and others, as far as each has come, as one batch."""
        ...


class Link(Protocol):
    """A kind of link."""

    def start(self, empty: Tensor) -> Links:
        """A sequence in which nothing is written yet; `empty` is zeros [b, n]."""
        ...


def precede(precedence: Tensor, weights: Tensor) -> Tensor:
    """The precedence after a write, [b, n]: how much each slot is the one written last."""
    return (1 - weights.sum(-1, keepdim=True)) * precedence + weights


# -------------------------------------------------------------------------------------------------------------- dense


@dataclass(frozen=True)
class Dense:
    """The link matrix of Graves et al. 2016, n x n: the definition."""

    def start(self, empty: Tensor) -> "DenseLinks":
        """See Link."""
        return DenseLinks(empty)


class DenseLinks:
    """`matrix` [b, n, n]: how much slot i was written right after slot j."""

    def __init__(self, empty: Tensor):
        slots = empty.shape[-1]
        self.matrix = empty[..., None] * empty[:, None]
        self._apart = 1 - torch.eye(slots, dtype=empty.dtype, device=empty.device)

    def write(self, weights: Tensor, precedence: Tensor) -> None:
        """See Links."""
        fade = 1 - weights[..., None] - weights[:, None]
        self.matrix = (self.matrix * fade + weights[..., None] * precedence[:, None]) * self._apart

    def follow(self, reads: Tensor) -> tuple[Tensor, Tensor]:
        """See Links."""
        return reads @ self.matrix.mT, reads @ self.matrix

    def take(self, rows: Tensor) -> "DenseLinks":
        """See Links."""
        return self._with(self.matrix[rows])

    def beside(self, others: "Sequence[DenseLinks]") -> "DenseLinks":
        """See Links."""
        return self._with(torch.cat([self.matrix, *(other.matrix for other in others)]))

    def _with(self, matrix: Tensor) -> "DenseLinks":
        new = copy(self)
        new.matrix = matrix
        return new


# ------------------------------------------------------------------------------------------------------------ history


@dataclass(frozen=True)
class History:
    """Attention over past writes; `keep` = only so many of the last ones (None = all of the sequence)."""

    keep: int | None = None

    def __post_init__(self) -> None:
        if self.keep is not None and self.keep < 1:
            raise InputError(f"a link keeps the last 1 or more writes, not {self.keep}: pass None to keep all")

    def start(self, empty: Tensor) -> "HistoryLinks":
        """See Link."""
        return HistoryLinks(empty, self.keep)


class HistoryLinks:
    """`past` [b, 2, t, n]: the past writes, and what each of them followed, as far as neither is written over."""

    def __init__(self, empty: Tensor, keep: int | None):
        self.past = empty.new_zeros(empty.shape[0], 2, 0, empty.shape[-1])
        self._itself = empty  # the diagonal of the link that W and P stand for, so that it can be taken off
        self._keep = keep

    def write(self, weights: Tensor, precedence: Tensor) -> None:
        """See Links."""
        fade, new = 1 - weights, torch.stack([weights, precedence], 1)
        past = self.past
        if self._keep is not None and past.shape[2] == self._keep:
            past, oldest = past[:, :, 1:], past[:, :, 0]
            self._itself = self._itself - oldest[:, 0] * oldest[:, 1]
        self.past = torch.cat([past * fade[:, None, None], new[:, :, None]], 2)
        self._itself = self._itself * fade.square() + weights * precedence

    def follow(self, reads: Tensor) -> tuple[Tensor, Tensor]:
        """See Links."""
        at = reads[:, None] @ self.past.mT  # [b, 2, h, t]: how much a head is at a past write, and at what it followed
        forward, backward = (at.flip(1) @ self.past).unbind(1)
        itself = self._itself[:, None] * reads
        return forward - itself, backward - itself

    def take(self, rows: Tensor) -> "HistoryLinks":
        """See Links."""
        return self._with(self.past[rows], self._itself[rows])

    def beside(self, others: "Sequence[HistoryLinks]") -> "HistoryLinks":
        """See Links. What has come less far begins with writes to nowhere."""
        links = [self, *others]
        longest = max(each.past.shape[2] for each in links)
        past = [torch.nn.functional.pad(each.past, (0, 0, longest - each.past.shape[2], 0)) for each in links]
        return self._with(torch.cat(past), torch.cat([each._itself for each in links]))

    def _with(self, past: Tensor, itself: Tensor) -> "HistoryLinks":
        new = copy(self)
        new.past, new._itself = past, itself
        return new


def link_named(name: str) -> Link | None:
    """The link of a name: "history", "history-16" (the last 16 writes), "dense", or "none". Raises InputError."""
    kind, _, keep = name.partition("-")
    if kind == "history" and (not keep or keep.isdigit()):
        return History(int(keep) if keep else None)
    if name in ("dense", "none"):
        return Dense() if name == "dense" else None
    raise InputError(f"there is no link {name!r}: choose history, history-16 (the last 16 writes), dense or none")


# ------------------------------------------------------------------------------------------------------------- origin


def origin(reads: Tensor, writes: Tensor) -> Tensor:
    """Which step's writing every read meets: reads [b, h, t, n], writes [b, t, n] -> [b, h, t, t].

    A read at step i meets the write of step j <= i by `sum over slots of r_i w_j prod (1 - w_u)` over the writes u
    between them: the r W^T of the history link. With one sentence a step it says which sentences a slot came from.
    """
    rows, past = [], writes.new_zeros(writes.shape[0], 0, writes.shape[-1])
    for step in range(writes.shape[1]):
        now = writes[:, step]
        past = torch.cat([past * (1 - now)[:, None], now[:, None]], 1)
        met = reads[:, :, step] @ past.mT
        rows.append(torch.nn.functional.pad(met, (0, writes.shape[1] - 1 - step)))
    return torch.stack(rows, 2)
