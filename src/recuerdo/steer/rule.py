"""From marks on the keys of a model to the bends of each of its reads."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor

from recuerdo.errors import MarkError
from recuerdo.read import Address, Bend, Odds, Reading, Share
from recuerdo.steer.marks import Mark
from recuerdo.steer.places import Scope


class Reads(Protocol):
    """What is to be known of a model: role and layer of a read by its path, how many layers, whose cache forgets."""

    @property
    def role(self) -> Callable[[str], str]: ...  # noqa: D102
    @property
    def layer(self) -> Callable[[str], int]: ...  # noqa: D102
    @property
    def window(self) -> Callable[[str], int | None]: ...  # noqa: D102
    @property
    def layers(self) -> int | None: ...  # noqa: D102
    @property
    def heads(self) -> int | None: ...  # noqa: D102


@dataclass(frozen=True, eq=False)
class Marked:
    """A mark and the keys that it is on: bool [n] or [b, n], counted from the first key; in reads of these roles.

    `strengths`: the factor on the odds of each (layer, head), in place of the mark's own amount. `paths`: which modules
    read these keys at all, where a model has several towers.
    """

    mark: Mark
    keys: Tensor
    roles: frozenset[str] = frozenset({"self", "cross", "encoder"})
    strengths: Mapping[tuple[int, int], float] | None = None
    paths: Callable[[str], bool] | None = None


@dataclass
class _Pass:
    """Where a sequence stands: tokens read so far, and the generation step (0 = the prompt)."""

    tokens: int = 0
    step: int = -1


class Rule:
    """`rule(address, reading)` gives the bends of a read; for `recuerdo.read.bending`.

    Positions are those of the tokens in the sequence, through caches that grow, are allocated beforehand or slide.
    A batch that is a multiple of the marks' batch repeats each example (beams). Raises MarkError for layers and heads
    that the model does not have. `bent[i]` counts the reads that mark i has bent.
    """

    def __init__(self, marked: Sequence[Marked], reads: Reads):
        self.marked, self._reads = tuple(marked), reads
        self.bent = [0] * len(self.marked)
        self._passes: dict[str, _Pass] = {}
        self._latest: _Pass | None = None  # of self-attention: what cross-attention goes by
        for one in self.marked:
            _check_scope(one.mark.scope, reads)

    def __call__(self, address: Address, reading: Reading) -> list[Bend]:
        """The bends of this read, in its own columns and rows."""
        role, layer = self._reads.role(address.path), self._reads.layer(address.path)
        at, first = self._follow(address, reading, role)
        q = reading.shape[2]
        bends: list[Bend] = []
        for number, one in enumerate(self.marked):
            scope = one.mark.scope
            if one.paths is not None and not one.paths(address.path):
                continue
            if role not in one.roles or scope.role not in (None, role) or not _within(at.step, scope.steps):
                continue
            heads = _heads(scope, layer, self._reads.layers, reading)
            if heads is False:
                continue
            keys = _columns(one.keys, reading, first)
            if not bool(keys.any()):
                continue
            rows = None
            if scope.queries is not None:
                position = torch.arange(at.tokens - q, at.tokens, device=keys.device)
                start, end = scope.queries
                rows = (position >= (start or 0)) & (position < (torch.inf if end is None else end))
                if not bool(rows.any()):
                    continue
            if one.strengths is not None:
                amounts = [one.strengths.get((layer, head), 1.0) for head in range(reading.shape[1])]
                bends.append(Odds(keys, torch.tensor(amounts, device=keys.device), heads, rows))
            else:
                bends.append(_bend(one.mark, keys, heads, rows))
            self.bent[number] += 1
        return bends

    def _follow(self, address: Address, reading: Reading, role: str) -> tuple[_Pass, int]:
        """Where the sequence stands after this read, and the position of the read's first key."""
        q, k = reading.shape[2:]
        if role == "cross":
            return self._latest or _Pass(q, address.step or 0), 0
        at = self._passes.setdefault(address.path, _Pass())
        window = self._reads.window(address.path)
        known, reach = at.tokens + q, _reach(reading)
        slides = window is not None and reach == k == q + window - 1  # it is full: nothing in it says what it forgot
        if q in (k, reach) or role == "encoder":  # a sequence begins, maybe in a cache that was allocated beforehand
            at.tokens, at.step = q, 0
        elif at.step >= 0 and (reach == known or (slides and known > k)):
            at.tokens, at.step = known, at.step + 1
        elif slides:
            raise MarkError(
                f"{address.path} goes on from a cache that keeps a window of the keys and was filled outside of the "
                "block, so nobody knows where the marked keys are: let the model read the whole text inside the block"
            )
        else:  # it goes on from a cache that was filled elsewhere
            at.tokens, at.step = reach, 0 if q > 1 else 1
        if role == "self":
            self._latest = at
        return at, max(at.tokens - k, 0) if window is not None else 0


def _check_scope(scope: Scope, reads: Reads) -> None:
    layers = [*(scope.layers or ()), *(layer for layer, _ in scope.heads or ())]
    wrong = [n for n in layers if reads.layers is not None and not -reads.layers <= n < reads.layers]
    if wrong:
        raise MarkError(f"there is no layer {wrong[0]}: this model has layers 0 to {(reads.layers or 0) - 1}")
    heads = [head for _, head in scope.heads or () if reads.heads is not None and not 0 <= head < reads.heads]
    if heads:
        raise MarkError(f"there is no head {heads[0]}: this model has heads 0 to {(reads.heads or 0) - 1}")
    if scope.head_set is not None:
        raise MarkError(f"the head set {scope.head_set!r} was not looked up: pass the profile that holds it")


def _reach(reading: Reading) -> int:
    """How many keys exist for the last query: a cache that was allocated beforehand hides the others by its mask."""
    allowed = reading.pairing.mask.allowed
    if allowed is None or allowed.shape[-1] == 1:
        return reading.shape[3]
    seen = allowed[..., -1, :].flatten(0, -2).any(0).nonzero()
    return int(seen[-1]) + 1 if len(seen) else reading.shape[3]


def _within(step: int, steps: tuple[int | None, int | None] | None) -> bool:
    return steps is None or ((steps[0] or 0) <= step and (steps[1] is None or step < steps[1]))


def _heads(scope: Scope, layer: int, layers: int | None, reading: Reading) -> Tensor | Literal[False] | None:
    """Which heads [h] of this layer the scope holds: None = all, False = none."""

    def here(number: int) -> bool:
        return layer == (number + layers if number < 0 and layers is not None else number)

    if scope.layers is not None and not any(here(number) for number in scope.layers):
        return False
    if scope.heads is None:
        return None
    chosen = [head for number, head in scope.heads if here(number) and head < reading.shape[1]]
    if not chosen:
        return False
    heads = torch.zeros(reading.shape[1], dtype=torch.bool, device=reading.value.device)
    heads[chosen] = True
    return heads


def _columns(keys: Tensor, reading: Reading, first: int) -> Tensor:
    """The marked keys as columns of the read, [k] or [b, k]; its column 0 is key `first`."""
    b, k = reading.shape[0], reading.shape[3]
    keys = keys[..., first : first + k].to(reading.value.device)
    keys = torch.nn.functional.pad(keys, (0, k - keys.shape[-1]))
    if keys.dim() == 2 and keys.shape[0] not in (1, b):
        if b % keys.shape[0]:
            raise MarkError(f"the marks are on {keys.shape[0]} examples, and the model reads {b}")
        keys = keys.repeat_interleave(b // keys.shape[0], 0)
    return keys


def _bend(mark: Mark, keys: Tensor, heads: Tensor | None, rows: Tensor | None) -> Bend:
    if mark.action in ("share", "mute"):
        return Share(keys, mark.amount or 0.0, heads, rows)
    return Odds(keys, mark.amount or 1.0, heads, rows)
