"""Associative memory: the binary network of Hopfield (1982) and its continuous successor (Ramsauer et al. 2020).

One interface: `store` patterns, `recall` from a state that is a part of one, and the `energy` that falls on the way.
The successor's update *is* a read: the state is the query and the patterns are keys and values,

    state' = softmax(beta * state @ patterns^T) @ patterns

so `watch` and `bending` show and change which patterns a recall looks at.

Shapes: patterns [n, d], states [q, d], energies [q].
"""

import math
from typing import Protocol

import torch
from torch import Tensor, nn

from recuerdo.errors import ShapeError
from recuerdo.read import Product, Reading, read


class Associative(Protocol):
    """What both memories offer."""

    def store(self, patterns: Tensor) -> None:
        """Remember patterns [n, d] as well as those that are there."""
        ...

    def recall(self, state: Tensor, *, updates: int) -> Tensor:
        """From states [q, d] to what they remind of, [q, d], by at most so many updates."""
        ...

    def energy(self, state: Tensor) -> Tensor:
        """The energy of states, [q]; no update makes it larger."""
        ...


def _check(x: Tensor, width: int, what: str) -> None:
    if x.dim() != 2 or x.shape[1] != width:
        raise ShapeError(f"{what} of this memory are [n, {width}], not {tuple(x.shape)}")


class BinaryHopfield(nn.Module):
    """The network of Hopfield (1982): patterns of -1 and 1 in the couplings of `width` units.

    Holds about 0.138 patterns a unit; beyond that all of them are lost at once.
    """

    couplings: Tensor

    def __init__(self, width: int):
        super().__init__()
        self.width = width
        self.register_buffer("couplings", torch.zeros(width, width))

    def store(self, patterns: Tensor) -> None:
        """Hebb's rule: couple what fires together. Patterns [n, d] of -1 and 1. Raises ShapeError."""
        _check(patterns, self.width, "patterns")
        if not bool((patterns.abs() == 1).all()):
            raise ShapeError("patterns of a binary memory are -1 and 1: use ModernHopfield for other numbers")
        patterns = patterns.to(self.couplings.dtype)
        self.couplings += patterns.mT @ patterns / self.width
        self.couplings.fill_diagonal_(0)

    def forward(self, state: Tensor) -> Tensor:
        """One update of all units at once (Little's dynamics), [q, d]: quick, and able to swing between two states."""
        field = state @ self.couplings
        return torch.where(field == 0, state, field.sign())

    def recall(self, state: Tensor, *, updates: int = 60) -> Tensor:
        """Update all units at once until nothing changes any more. States [q, d] of -1 and 1."""
        _check(state, self.width, "states")
        for _ in range(updates):
            before, state = state, self(state)
            if torch.equal(before, state):
                break
        return state

    def settle(self, state: Tensor, *, sweeps: int = 10) -> Tensor:
        """Update one unit after the other, as in the paper: slow, and the energy never rises. States [q, d]."""
        _check(state, self.width, "states")
        state = state.clone()
        for _ in range(sweeps):
            before = state.clone()
            for unit in range(self.width):
                field = state @ self.couplings[:, unit]
                state[:, unit] = torch.where(field == 0, state[:, unit], field.sign())
            if torch.equal(before, state):
                break
        return state

    def energy(self, state: Tensor) -> Tensor:
        """`-1/2 s W s`, [q]."""
        _check(state, self.width, "states")
        return -0.5 * (state * (state @ self.couplings)).sum(-1)


class ModernHopfield(nn.Module):
    """The continuous network of Ramsauer et al. (2020): exponentially many patterns, found in one update.

    `beta` says how sharply it looks: high, it finds single patterns; low, it gives the mean of those that are alike, or
    of all.
    """

    patterns: Tensor

    def __init__(self, width: int, *, beta: float | None = None):
        """`beta` None is 1 / sqrt(width), as in attention."""
        super().__init__()
        self.width, self.beta = width, width**-0.5 if beta is None else beta
        self.register_buffer("patterns", torch.zeros(0, width))

    def store(self, patterns: Tensor) -> None:
        """Append patterns [n, d]. Raises ShapeError."""
        _check(patterns, self.width, "patterns")
        self.patterns = torch.cat([self.patterns, patterns.to(self.patterns.dtype)])

    def forward(self, state: Tensor) -> Reading:
        """One update as a Reading: states [q, d] are queries [1, 1, q, d], patterns keys and values."""
        rows = self.patterns[None, None]
        return read(state[None, None], rows, rows, score=Product(self.beta))

    def recall(self, state: Tensor, *, updates: int = 1) -> Tensor:
        """So many updates of states [q, d]; one is enough where patterns are well apart."""
        _check(state, self.width, "states")
        for _ in range(updates):
            state = self(state).mixed[0, 0]
        return state

    def energy(self, state: Tensor) -> Tensor:
        """`-lse(beta, patterns state) + 1/2 |state|^2 + 1/beta log n + 1/2 max |pattern|^2`, [q]; never below 0."""
        _check(state, self.width, "states")
        if not len(self.patterns):
            return 0.5 * state.square().sum(-1)
        mass = torch.logsumexp(self.beta * state @ self.patterns.mT, -1) / self.beta
        furthest = self.patterns.square().sum(-1).amax()
        return 0.5 * (state.square().sum(-1) + furthest) - mass + math.log(len(self.patterns)) / self.beta
