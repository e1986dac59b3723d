"""The tasks of memory: show a sequence, then ask for it, or for some of it, in some order (Graves et al. 2014).

    copy          say it again                          size = vectors
    repeat-copy   say it again so often, then stop      size = vectors; so often: up to `repeats`
    associative   which item came after this one?       size = items of three vectors
    sort          the highest priorities in order       size = vectors
    n-gram        the next bit of a new random table    size = bits

Trained on sizes from `low` to `high`, checked at `high` and, as `beyond`, at sizes never seen.
"""

import math
import random
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recuerdo.data.sequences import Sequences, associative_recall, copy, n_gram, priority_sort, repeat_copy
from recuerdo.errors import InputError
from recuerdo.models.dnc import DNC
from recuerdo.models.lstm import LSTM
from recuerdo.models.ntm import NTM

MODELS = {"ntm": NTM, "dnc": DNC, "lstm": LSTM}
KINDS = {
    "copy": (1, 0),
    "repeat-copy": (2, 1),
    "associative": (2, 0),
    "sort": (2, 0),
    "n-gram": (0, 0),
}  # channels that the input and the answer have beside the bits
SPLITS = ("valid", "test")
SMALLEST = {"associative": 2, "n-gram": 7}


@dataclass(frozen=True)
class Recall:
    """One task: `kind`, and the sizes to train and check with. Raises InputError for what cannot be.

    `width` bits a vector; `batch` sequences, all of one size; `repeats` for repeat-copy, with `beyond_repeats` in the
    check of longer ones (0 = the same), and `beyond_slots` in their memory (0 = the same): no parameter depends on the
    number of slots. `growing`: for so many steps the largest size grows from `low` to `high`; in repeat-copy it is how
    often that grows, from 1 to `repeats`, for who can say a list once more can say it ten times. `checks`: batches of
    every check.
    """

    kind: str = "copy"
    width: int = 8
    low: int = 1
    high: int = 20
    beyond: int = 120
    batch: int = 16
    repeats: int = 1
    beyond_repeats: int = 0
    beyond_slots: int = 0
    growing: int = 0
    checks: int = 8

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise InputError(f"there is no recall of kind {self.kind!r}: choose {', '.join(KINDS)}")
        smallest = SMALLEST.get(self.kind, 1)
        if not smallest <= self.low <= self.high or self.beyond < smallest:
            raise InputError(
                f"sizes of {self.kind} go from {smallest} up, and low is at most high: "
                f"not low={self.low}, high={self.high}, beyond={self.beyond}"
            )
        if (
            min(self.batch, self.width, self.repeats, self.checks) < 1
            or min(self.growing, self.beyond_repeats, self.beyond_slots) < 0
        ):
            raise InputError("batch, width, repeats and checks are 1 or more; the other numbers 0 or more")
        if self.kind == "n-gram" and self.width != 1:
            raise InputError(f"n-gram is about one bit at a time: width is 1, not {self.width}")

    def model(self, name: str, **arguments) -> nn.Module:
        """The model of a name, as wide as the task asks. Raises InputError for a name that is not in MODELS."""
        if name not in MODELS:
            raise InputError(f"there is no model {name!r} for recall: choose {', '.join(MODELS)}")
        more_in, more_out = KINDS[self.kind]
        return MODELS[name](self.width + more_in, self.width + more_out, **arguments)

    def batches(self, *, seed: int, start: int = 0) -> Iterator[Sequences]:
        """Batches without end; which one comes at a step depends on the seed and the step alone."""
        step = start
        while True:
            draw = random.Random(f"{self.kind} {seed} {step}")
            grown = min(1.0, (step + 1) / self.growing) if self.growing else 1.0
            high, often = self.high, self.repeats
            if self.kind == "repeat-copy":
                often = 1 + round((often - 1) * grown)
            else:
                high = self.low + round((high - self.low) * grown)
            yield self.sequences(draw.randint(self.low, high), draw.randint(1, often), draw.getrandbits(62))
            step += 1

    def sequences(self, size: int, repeats: int, seed: int) -> Sequences:
        """One batch of a size; `repeats` is for repeat-copy only."""
        draw = torch.Generator().manual_seed(seed)
        if self.kind == "repeat-copy":
            return repeat_copy(draw, self.batch, self.width, size, repeats=repeats)
        make = {"copy": copy, "associative": associative_recall, "sort": priority_sort, "n-gram": n_gram}[self.kind]
        return make(draw, self.batch, self.width, size)

    def loss(self, model: nn.Module, batch: Sequences) -> dict[str, Tensor]:
        """Bit cross-entropy, mean over the bits of the answer."""
        logits = model(batch.inputs)[:, batch.asked]
        return {"bits": F.binary_cross_entropy_with_logits(logits, batch.targets[:, batch.asked])}

    @torch.no_grad()
    def check(self, model: nn.Module, split: str) -> dict[str, float]:
        """What is lost and the share of wrong bits, at the largest size trained with and beyond it, on sequences that
        are only in this split.

        `lost` is the cross-entropy in bits for each bit of the answer: it goes on falling, and so finds the best
        parameters, when `error` is long 0. For n-grams `excess` stands for both: the bits a sequence that are lost more
        than by the Bayes estimator.
        """
        if split not in SPLITS:
            raise InputError(f"there is no split {split!r} of recall: choose {' or '.join(SPLITS)}")
        trained = model.training
        memory = model if self.beyond_slots and isinstance(model, NTM | DNC) else None
        slots = 0 if memory is None else memory.slots
        model.eval()
        try:
            found = self._check(model, split, self.high, self.repeats)
            if memory is not None:
                memory.slots = self.beyond_slots
            beyond = self._check(model, split, self.beyond, self.beyond_repeats or self.repeats)
            found |= {f"{name}_beyond": value for name, value in beyond.items() if name != "lost"}
            return found
        finally:
            model.train(trained)
            if memory is not None:
                memory.slots = slots

    def _check(self, model: nn.Module, split: str, size: int, repeats: int) -> dict[str, float]:
        draw = random.Random(f"{self.kind} {split} {size} {repeats}")
        found = [self._found(model, self.sequences(size, repeats, draw.getrandbits(62))) for _ in range(self.checks)]
        return {name: sum(one[name] for one in found) / len(found) for name in found[0]}

    def _found(self, model: nn.Module, batch: Sequences) -> dict[str, float]:
        logits, targets = model(batch.inputs)[:, batch.asked], batch.targets[:, batch.asked]
        lost = float(F.binary_cross_entropy_with_logits(logits, targets)) / math.log(2)
        if self.kind == "n-gram":
            return {"excess": lost * targets[0].numel() - batch.best / math.log(2)}
        return {"lost": lost, "error": float(((logits > 0) != (targets > 0.5)).float().mean())}
