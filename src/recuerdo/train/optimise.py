"""How fast and by which rule (`Pace`), and what a run carries from one step to the next (`State`)."""

import hashlib
import math
import signal
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from recuerdo.errors import InputError, RunError
from recuerdo.train.device import World

SHAPES = ("cosine", "constant", "halve")
OPTIMISERS = ("adamw", "adam", "sgd", "rmsprop", "muon")
PRECISIONS = ("float32", "bfloat16")
LONG = 8  # a matrix that is more times as long as wide is no matrix between layers


@dataclass(frozen=True)
class Pace:
    """How long, how fast and by which rule parameters are improved.

    `steps`, the highest rate `lr`, `warmup` (share of the steps in which the rate rises to it), `shape` (after that
    cosine, down to a tenth, or constant, or halve: half of it after every `halve_every` steps), `clip` (norm of the
    gradient at most), `decay` of weights, `optimiser` (adamw, adam, sgd, rmsprop with momentum 0.9, as the NTM was
    trained, or muon: Jordan et al. 2024, for the matrices between layers, with adamw for all else), `average` (decay of
    a running mean of the parameters, which is then what is checked and kept as best; 0 = none), `precision` of the
    forward pass, and `patience` (stop after so many checks in a row that did not lower the first number; 0 = never).
    Raises InputError.
    """

    steps: int
    lr: float = 1e-3
    warmup: float = 0.1
    shape: str = "cosine"
    clip: float = 1.0
    decay: float = 0.0
    optimiser: str = "adamw"
    halve_every: int = 0
    average: float = 0.0
    precision: str = "float32"
    patience: int = 0

    def __post_init__(self) -> None:
        if self.steps < 1 or not 0 < self.lr < 1e3 or not 0 <= self.warmup <= 1 or not self.clip > 0 or self.decay < 0:
            raise InputError(f"{self} is no pace: at least 1 step, lr and clip above 0, warmup a share of the steps")
        if not 0 <= self.average < 1 or self.patience < 0 or self.halve_every < 0:
            raise InputError(f"{self} is no pace: average is below 1, patience and halve_every are 0 or more")
        for what, value, there in (
            ("shape", self.shape, SHAPES),
            ("optimiser", self.optimiser, OPTIMISERS),
            ("precision", self.precision, PRECISIONS),
        ):
            if value not in there:
                raise InputError(f"there is no {what} {value!r}: choose {' or '.join(there)}")
        if (self.shape == "halve") != bool(self.halve_every):
            raise InputError("the shape halve and halve_every belong together: give both, or neither")

    def rate(self, step: int) -> float:
        """The learning rate of a step, the first being 1."""
        rising = max(1, round(self.warmup * self.steps))
        if self.shape == "halve":
            return self.lr * min(1.0, step / rising) * 0.5 ** ((step - 1) // self.halve_every)
        if step <= rising or self.shape == "constant":
            return self.lr * min(1.0, step / rising)
        done = (step - rising) / max(1, self.steps - rising)
        return self.lr * (0.1 + 0.45 * (1 + math.cos(math.pi * done)))

    def rules(
        self, parameters: Iterable[nn.Parameter], tables: Iterable[nn.Parameter] = ()
    ) -> tuple[torch.optim.Optimizer, ...]:
        """The optimisers of these parameters, each parameter in one of them; each step sets their rate.

        For muon a matrix is between layers when it is none of the `tables` of vectors, and neither side is more than
        `LONG` times the other: the last layer before a few classes is longer. Its steps are as large as those of adamw
        (Liu et al. 2025).
        """
        learned = list(parameters)
        told: dict[str, Any] = {"lr": self.lr, "weight_decay": self.decay}
        if self.optimiser == "muon":
            apart = set(tables)
            between = {
                p: None for p in learned if p.dim() == 2 and p not in apart and max(p.shape) <= LONG * min(p.shape)
            }
            others = [p for p in learned if p not in between]
            muon = [torch.optim.Muon([*between], adjust_lr_fn="match_rms_adamw", **told)] if between else []
            return (*muon, *([self._fused(torch.optim.AdamW, others, told)] if others else []))
        if self.optimiser == "rmsprop":
            return (torch.optim.RMSprop(learned, alpha=0.9, eps=1e-5, momentum=0.9, foreach=False, **told),)
        kind = {"adam": torch.optim.Adam, "sgd": torch.optim.SGD}.get(self.optimiser, torch.optim.AdamW)
        return (self._fused(kind, learned, told),)

    @staticmethod
    def _fused(kind: Any, learned: Sequence[nn.Parameter], told: Mapping[str, Any]) -> torch.optim.Optimizer:
        # One kernel a parameter, not one for each product: four times as fast for the small models of this field.
        fused = all(p.device.type in ("cpu", "cuda") and p.dtype in (torch.float32, torch.float64) for p in learned)
        return kind(learned, fused=fused, foreach=False, **told)


class State:
    """What a run carries from step to step: with the parameters (given by name), all that it needs to go on.

    `number` steps were made. Random numbers need not be carried: where a `seed` is given, each step sets them anew
    from it, so a run that goes on draws what one that was never stopped draws. `least` is the lowest first number
    that a check gave, `waited` how many checks have passed since, `improved` whether these very parameters lowered it,
    and `settled` the step that was last checked and saved. `tables`: those parameters that are tables of vectors.
    """

    def __init__(
        self,
        parameters: Mapping[str, nn.Parameter],
        pace: Pace,
        *,
        seed: int | str | None = None,
        world: World | None = None,
        tables: Iterable[nn.Parameter] = (),
    ) -> None:
        self.parameters = dict(parameters)
        self.pace = pace
        self.seed = seed
        self.world = world or World()
        self.number = 0
        self.least = math.inf
        self.waited = 0
        self.settled = 0
        self.improved = False
        self.optimisers = pace.rules(self.parameters.values(), tables)
        self.average = {name: p.detach().clone() for name, p in self.parameters.items()} if pace.average else {}

    def begin(self, number: int) -> None:
        """Set torch's random numbers for this step; each process of a world draws its own."""
        if self.seed is None:
            return
        seed = mixed(self.seed, number, self.world.rank)
        # torch.manual_seed asks every backend, which takes longer than a step of a small model.
        torch.default_generator.manual_seed(seed) if self.world.device.type == "cpu" else torch.manual_seed(seed)

    def step(self) -> None:
        """Make a step along the gradients, and move the average; Ctrl-C comes before or after it."""
        with whole():
            for optimiser in self.optimisers:
                for group in optimiser.param_groups:
                    group["lr"] = self.pace.rate(self.number + 1)
                optimiser.step()
            self.number += 1
            self.improved = False
            # A young average would remember the parameters that nobody learned: it starts as a plain mean.
            keep = min(self.pace.average, (1 + self.number) / (10 + self.number))
            for name, mean in self.average.items():
                mean.lerp_(self.parameters[name].detach(), 1 - keep)

    def clear(self) -> None:
        """Drop all gradients."""
        for optimiser in self.optimisers:
            optimiser.zero_grad()

    def note(self, numbers: Mapping[str, float]) -> None:
        """Compare the first of some numbers with the least so far."""
        self.settled = self.number
        first = next(iter(numbers.values()), math.nan)
        self.improved = first < self.least
        self.least = min(self.least, first) if math.isfinite(first) else self.least
        self.waited = 0 if self.improved else self.waited + 1

    def owes(self, every: int) -> bool:
        """Whether the last step is to be checked and saved (every so many steps, 0 = only the last), and was not."""
        due = self.number == self.pace.steps or (every > 0 and self.number % every == 0)
        return due and self.number > self.settled

    @property
    def done(self) -> bool:
        """Whether all steps are made, or patience is at its end."""
        return self.number >= self.pace.steps or 0 < self.pace.patience <= self.waited

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Inside the block the parameters are their averages, where the pace has these."""
        swapped = False
        try:
            with whole():
                self._swap()
                swapped = True
            yield
        finally:
            if swapped:
                with whole():
                    self._swap()

    @torch.no_grad()
    def _swap(self) -> None:
        for name, mean in self.average.items():
            now = self.parameters[name].detach().clone()
            self.parameters[name].copy_(mean)
            mean.copy_(now)

    def finite(self) -> bool:
        """Whether every parameter is a number."""
        norms = [p.detach().norm() for p in self.parameters.values()]
        return bool(torch.stack([norm.float() for norm in norms]).isfinite().all())

    def tensors(self) -> dict[str, Tensor]:
        """All tensors but the parameters themselves: `optimiser.NAME.WHAT` and `average.NAME`."""
        found = {
            f"optimiser.{name}.{what}": value
            for name, p in self.parameters.items()
            for optimiser in self.optimisers
            for what, value in optimiser.state.get(p, {}).items()
            if isinstance(value, Tensor)
        }
        return found | {f"average.{name}": mean for name, mean in self.average.items()}

    def numbers(self) -> dict[str, Any]:
        """The rest, as plain data."""
        return {
            "number": self.number,
            "least": self.least if math.isfinite(self.least) else None,
            "waited": self.waited,
            "settled": self.settled,
        }

    def load(self, tensors: Mapping[str, Tensor], numbers: Mapping[str, Any]) -> None:
        """Go on from here. Raises RunError when this is the state of other parameters or of another rule."""
        own: dict[nn.Parameter, dict[str, Tensor]] = {}
        for name, p in self.parameters.items():
            head = f"optimiser.{name}."
            found = {key.removeprefix(head): t for key, t in tensors.items() if key.startswith(head)}
            own |= {p: found} if found else {}
        averages = {name: tensors.get(f"average.{name}") for name in self.average}
        known = sum(map(len, own.values())) + len(averages)
        told = sum(key.startswith(("optimiser.", "average.")) for key in tensors)
        if known != told or any(mean is None for mean in averages.values()):
            raise RunError("this state is of other parameters or of another optimiser: train with the recipe it is of")
        for optimiser in self.optimisers:
            learned = [p for group in optimiser.param_groups for p in group["params"]]
            state = {i: own[p] for i, p in enumerate(learned) if p in own}
            optimiser.load_state_dict({"state": state, "param_groups": optimiser.state_dict()["param_groups"]})
        for name, mean in averages.items():
            self.average[name].copy_(mean)  # type: ignore[arg-type]
        least = numbers["least"]
        self.number, self.waited, self.settled = (int(numbers[name]) for name in ("number", "waited", "settled"))
        self.least = math.inf if least is None else float(least)


def mixed(*parts: int | str) -> int:
    """One seed from several numbers: others for each of them, the same on every machine."""
    told = hashlib.blake2b(repr(parts).encode(), digest_size=8).digest()
    return int.from_bytes(told, "little") >> 1


@contextmanager
def whole() -> Iterator[None]:
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
