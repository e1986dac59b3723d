"""Models that say pieces over one table of vectors, and the loss of what they say without the table of all logits.

`n` states and `v` pieces make n x v logits, which are by far the largest tensor of a small model. In the loss they are
made, judged and left a few rows at a time, and their gradient with them, while they are in the processor's cache.
"""

from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from recuerdo.nn.lean import product

PAD = 0


class Speaking(nn.Module, ABC):
    """A model that hears a source and what was told of a target, and says what comes next.

    One table of vectors is what both sides read and what is said (Press & Wolf 2017). Piece 0 is padding.
    """

    def __init__(self, vocabulary_size: int, width: int):
        super().__init__()
        self.piece = nn.Embedding(vocabulary_size, width, padding_idx=PAD)
        nn.init.normal_(self.piece.weight, 0, width**-0.5)

    def forward(self, source: Tensor, told: Tensor) -> Tensor:
        """Source [b, s], told [b, t] -> logits of the piece after each that is no padding, [n, v], row after row."""
        return self.say(self.hear(source, told))

    @abstractmethod
    def hear(self, source: Tensor, told: Tensor) -> Tensor:
        """The states of which `say` makes logits, [n, width]."""

    @property
    def table(self) -> Tensor:
        """The vectors of all pieces, [v, width], of which states make logits."""
        return self.piece.weight

    def say(self, states: Tensor) -> Tensor:
        """States [n, width] -> logits [n, v]."""
        return product(states, self.table)


ROWS = 128  # at once


class _Loss(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, states: Tensor, table: Tensor, wanted: Tensor, smoothing: float) -> Tensor:
        n, v = len(states), len(table)
        total = states.new_zeros((), dtype=torch.float64)
        learns = any(ctx.needs_input_grad[:2])
        to_states, to_table = (torch.zeros_like(x) if learns else None for x in (states, table))
        kind = states.device.type
        precision = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else table.dtype
        short = table.to(precision)
        for first in range(0, n, ROWS):
            some, right = states[first : first + ROWS].to(precision), wanted[first : first + ROWS, None]
            logits = (some @ short.T).to(table.dtype)
            slope = logits.softmax(-1)
            # The mass of a row from its likeliest piece: one exponential a logit, not two.
            total += (logits.amax(-1) - slope.amax(-1).log()).sum(dtype=torch.float64)
            total -= (1 - smoothing) * logits.gather(1, right).sum(dtype=torch.float64)
            if to_states is None or to_table is None:
                continue
            slope = slope.scatter_add_(1, right, torch.full_like(right, smoothing - 1, dtype=slope.dtype)).to(precision)
            to_states[first : first + ROWS] = slope @ short
            to_table += slope.T @ some
        if smoothing:  # all pieces alike: what the mean of their vectors says
            mean, sum_ = table.mean(0), states.to(table.dtype).sum(0)
            total -= smoothing * (mean @ sum_)
            if to_states is not None and to_table is not None:
                to_states -= smoothing * mean
                to_table -= smoothing / v * sum_
        ctx.save_for_backward(*(None if x is None else x.div_(n) for x in (to_states, to_table)))
        return (total / n).to(table.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        to_states, to_table = ctx.saved_tensors
        (grad,) = grads
        return grad * to_states, grad * to_table, None, None


def loss_of_saying(states: Tensor, table: Tensor, wanted: Tensor, *, smoothing: float = 0.0) -> Tensor:
    """Cross-entropy of `wanted` [n] under the logits `states @ table.T`, the mean over n; states [n, w], table [v, w].

    With `smoothing` s the wanted piece counts 1 - s and all of them s / v (Szegedy et al. 2016), as in
    `torch.nn.functional.cross_entropy`, to whose values and gradients this one is equal; it has no second derivative.
    """
    return _Loss.apply(states, table, wanted, smoothing)  # pyright: ignore[reportReturnType]
