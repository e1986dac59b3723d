"""The loop: `for event in fit(...)` improves parameters step by step and yields what happened. All of it is here."""

import math
import random
import signal
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn

from recuerdo.errors import InputError

T = TypeVar("T")
SHAPES = ("cosine", "constant")


@dataclass(frozen=True)
class Pace:
    """How long and how fast: `steps`, the highest rate `lr`, `warmup` (share of the steps in which the rate rises to
    it), `shape` (after that cosine, down to a tenth, or constant), `clip` (norm of the gradient at most) and `decay`
    of weights. Raises InputError."""

    steps: int
    lr: float = 1e-3
    warmup: float = 0.1
    shape: str = "cosine"
    clip: float = 1.0
    decay: float = 0.0

    def __post_init__(self) -> None:
        if self.steps < 1 or not 0 < self.lr < 1e3 or not 0 <= self.warmup <= 1 or not self.clip > 0 or self.decay < 0:
            raise InputError(f"{self} is no pace: at least 1 step, lr and clip above 0, warmup a share of the steps")
        if self.shape not in SHAPES:
            raise InputError(f"there is no shape {self.shape!r}: choose {' or '.join(SHAPES)}")

    def rate(self, step: int) -> float:
        """The learning rate of a step, the first being 1."""
        rising = max(1, round(self.warmup * self.steps))
        if step <= rising or self.shape == "constant":
            return self.lr * min(1.0, step / rising)
        done = (step - rising) / max(1, self.steps - rising)
        return self.lr * (0.1 + 0.45 * (1 + math.cos(math.pi * done)))


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
    batches: Iterable[Sequence[T]],
    pace: Pace,
    *,
    every: int = 0,
    check: Callable[[], dict[str, float]] | None = None,
    save: Callable[[], Path] | None = None,
) -> Iterator[Step | Checked | Saved]:
    """Improve `parameters` with AdamW, and yield a Step, Checked or Saved as it happens.

    `loss` gives a scalar for one item of a batch, or the parts that it is the sum of; a batch is a sequence of items,
    and its gradient the mean over them, one after the other, so that only one is in memory. `check` and `save` are
    called every so many steps (0 = only at the end). Seeds are the caller's: `torch.manual_seed`, `rounds(seed=)`.

    Whoever leaves the loop, or presses Ctrl-C, has the parameters of the last whole step, and no gradients.

    Raises InputError for no parameters, batches that end too early, and a loss that is not finite: before the step
    is made, so the parameters are still good.
    """
    learned = list(parameters)
    if not learned:
        raise InputError("there is nothing to train: no parameters were given")
    optimiser = torch.optim.AdamW(learned, lr=pace.lr, weight_decay=pace.decay, foreach=False)
    source = iter(batches)
    try:
        for number in range(1, pace.steps + 1):
            batch = next(source, None)
            if not batch:
                raise InputError(f"the batches ended after {number - 1} of {pace.steps} steps: give more, or `rounds`")
            parts = _backward(loss, batch, number)
            norm = float(nn.utils.clip_grad_norm_(learned, pace.clip))
            if not math.isfinite(norm):
                raise InputError(f"the gradient of step {number} is {norm}: lower the learning rate")
            with _whole():
                for group in optimiser.param_groups:
                    group["lr"] = pace.rate(number)
                optimiser.step()
            optimiser.zero_grad()
            yield Step(number, pace.steps, sum(parts.values()), parts, pace.rate(number), norm)
            if number == pace.steps or (every and number % every == 0):
                if check is not None:
                    yield Checked(number, check())
                if save is not None:
                    yield Saved(number, save())
    finally:
        optimiser.zero_grad()


def _backward(loss: Callable[[T], Tensor | Mapping[str, Tensor]], batch: Sequence[T], number: int) -> dict[str, float]:
    """The mean loss of a batch, part by part; its gradient is added up in the parameters."""
    parts: dict[str, float] = {}
    for item in batch:
        told = loss(item)
        found = {"loss": told} if isinstance(told, Tensor) else dict(told)
        total = torch.stack(list(found.values())).sum() / len(batch)
        if not bool(total.isfinite()):
            raise InputError(
                f"the loss of step {number} is {total.item()}: lower the learning rate, or look at the data"
            )
        total.backward()
        for name, value in found.items():
            parts[name] = parts.get(name, 0.0) + value.item() / len(batch)
    return parts


@contextmanager
def _whole() -> Iterator[None]:
    """Ctrl-C waits until the block is through: half of the parameters of a step are no parameters."""
    if threading.current_thread() is not threading.main_thread():
        yield  # signals come to the main thread only
        return
    came: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, frame: came.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler if before is None else before)
    if came:
        signal.raise_signal(signal.SIGINT)
