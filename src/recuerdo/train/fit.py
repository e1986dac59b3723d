"""The loop: `for event in fit(...)` improves parameters step by step and yields what happened. All of it is here."""

import math
import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from recuerdo.errors import InputError
from recuerdo.train.device import Part
from recuerdo.train.optimise import Pace, State

T = TypeVar("T")


@dataclass(frozen=True)
class Step:
    """A step was made: its loss, the parts of the loss by name, learning rate, and norm of the gradient before clip."""

    number: int
    steps: int
    loss: float
    parts: dict[str, float]
    rate: float
    norm: float


@dataclass(frozen=True)
class Checked:
    """What `check` measured after so many steps."""

    number: int
    numbers: dict[str, float]


@dataclass(frozen=True)
class Saved:
    """`save` wrote the parameters of so many steps here."""

    number: int
    path: Path


def rounds(items: Sequence[T], size: int, seed: int = 0) -> Iterator[list[T]]:
    """Batches without end: round after round over all items, each in another order. Raises InputError for no items."""
    if not items or size < 1:
        raise InputError("there is nothing to draw batches from: give at least one item, and a size of 1 or more")
    draw = random.Random(seed)
    order: list[T] = []
    while True:
        while len(order) < size:
            order += draw.sample(items, len(items))
        yield order[:size]
        order = order[size:]


def fit(
    loss: Callable[[T], Tensor | Mapping[str, Tensor]],
    parameters: Iterable[nn.Parameter],
    batches: Iterable[Sequence[T | Part[T]]],
    pace: Pace,
    *,
    every: int = 0,
    check: Callable[[], dict[str, float]] | None = None,
    save: Callable[[], Path] | None = None,
    state: State | None = None,
) -> Iterator[Step | Checked | Saved]:
    """Improve `parameters`, and yield a Step, Checked or Saved as it happens.

    `loss` gives a scalar for one item of a batch, or the parts that it is the sum of; a batch is a sequence of items,
    and its gradient the mean over them (a `Part` says what an item counts in it), one after the other, so that only
    one is in memory. `check` and `save` are called every so many steps (0 = only at the end); in `check` the
    parameters are their averages, where the pace has these.

    `state` goes on where another run stopped: it holds the steps made, and is moved by every step. Then `batches`
    begin with the one after them. Where it has a seed, torch's random numbers are set by it before each step;
    otherwise seeds are the caller's: `torch.manual_seed`, `rounds(seed=)`.

    Whoever leaves the loop, or presses Ctrl-C, has the parameters of the last whole step, and no gradients.

    Raises InputError for no parameters, batches that end too early, and a loss or gradient that is not finite: before
    the step is made, so the parameters are still good. Also for parameters that a step made infinite: before they are
    checked or saved.
    """
    learned = list(parameters)
    if not learned:
        raise InputError("there is nothing to train: no parameters were given")
    state = state or State({str(i): p for i, p in enumerate(learned)}, pace)
    source = iter(batches)
    try:
        while True:
            # First what the last step owes: a run that was stopped in between goes on with its check.
            if state.owes(every):
                if check is not None:
                    with state.averaged():
                        numbers = check()
                    state.note(numbers)
                    yield Checked(state.number, numbers)
                state.settled = state.number
                if save is not None:
                    yield Saved(state.number, save())
            if state.done:
                return
            number = state.number + 1
            batch = next(source, None)
            if not batch:
                raise InputError(f"the batches ended after {number - 1} of {pace.steps} steps: give more, or `rounds`")
            state.begin(number)
            parts = _backward(loss, batch, state)
            norm = float(nn.utils.clip_grad_norm_(learned, pace.clip))
            if not math.isfinite(norm):
                raise InputError(f"the gradient of step {number} is {norm}: lower the learning rate")
            state.step()
            state.clear()
            if not state.finite():
                raise InputError(f"step {number} made parameters infinite: lower the learning rate")
            yield Step(number, pace.steps, sum(parts.values()), parts, pace.rate(number), norm)
    finally:
        state.clear()


def _backward(
    loss: Callable[[T], Tensor | Mapping[str, Tensor]], batch: Sequence[Any], state: State
) -> dict[str, float]:
    """The mean loss of a batch, part by part; its gradient is added up in the parameters."""
    parts: dict[str, float] = {}
    for given in batch:
        item, weight = (given.item, given.weight) if isinstance(given, Part) else (given, 1 / len(batch))
        if not weight:
            continue
        with _precision(state):
            told = loss(item)
            found = {"loss": told} if isinstance(told, Tensor) else dict(told)
            total = torch.stack(list(found.values())).sum() * weight
        for name, value in found.items():
            parts[name] = parts.get(name, 0.0) + value.item() * weight
        if state.world.size == 1:
            _refuse(parts, state)
        total.backward()
    parts = state.world.total(parts)
    _refuse(parts, state)  # of all processes: all of them stop
    state.world.add(state.parameters.values())
    return parts


def _refuse(parts: Mapping[str, float], state: State) -> None:
    if not math.isfinite(loss := sum(parts.values())):
        raise InputError(f"the loss of step {state.number + 1} is {loss}: lower the learning rate, or look at the data")


def _precision(state: State) -> Any:
    """Products in bfloat16 where the pace says so; parameters, gradients and sums stay float32."""
    return torch.autocast(state.world.device.type, torch.bfloat16, enabled=state.pace.precision == "bfloat16")
