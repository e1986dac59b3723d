"""Read digits: say all digits that lie on a canvas, from left to right, or their sum, by a few glimpses."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from recuerdo.data.digits import Canvas, Canvases, digits
from recuerdo.data.pictures import grey
from recuerdo.errors import InputError
from recuerdo.models.glimpses import COARSE, Glimpses, Reads
from recuerdo.nn.grid import covered
from recuerdo.nn.retina import Ground
from recuerdo.read import bending
from recuerdo.read import mute as muted
from recuerdo.tasks.glance import drawn_of, inside_of, light_on_dark
from recuerdo.tasks.glanced import Glanced
from recuerdo.tasks.marking import masked, regions

MODELS = {"glimpses": Glimpses}
SAYS = ("digits", "sum")
SPLITS = ("valid", "test")
HELD = 5000  # canvases that are judged
AT_ONCE = 250
LEAST = 1e-9  # of a probability whose logarithm is taken


@dataclass(frozen=True)
class ReadDigits:
    """The canvases and how they are learned from.

    `low` to `high` digits lie on a canvas of `side` pixels, judged are those with `high`. `says`: what is
    told, the "digits", one after the other and then "no more", or their "sum" alone. For a sum they are read one after
    the other as well: its probability is that of all digits that make it, so nobody tells which lie there (as in
    DeepProbLog: Manhaeve et al. 2018). `clutter`, `piece`, `turned`, `scaled`, `moved`,
    `batch`, `folder`: as in `recuerdo.tasks.glance`. `reward`: how much the loss of the places counts, whose reward is
    the probability of the right answer; `boxes`: how much it counts that a look's cells lie on the digit that is said
    (0: nobody tells where digits are).

    Raises InputError for what cannot be.
    """

    side: int = 100
    low: int = 1
    high: int = 2
    says: str = "digits"
    clutter: int = 0
    piece: int = 8
    turned: float = 0.0
    scaled: float = 0.0
    moved: float = 0.0
    batch: int = 64
    reward: float = 0.3
    boxes: float = 0.0
    folder: str = ""

    def __post_init__(self) -> None:
        self._canvas(changed=True)
        if self.says not in SAYS:
            raise InputError(f"nothing is said as {self.says!r}: choose {' or '.join(SAYS)}")
        if not 1 <= self.low <= self.high or self.batch < 1 or min(self.reward, self.boxes) < 0:
            raise InputError("low is 1 or more and high no less, batch is 1 or more, reward and boxes are 0 or more")
        if self.says == "sum" and self.boxes:
            raise InputError("a sum is of all digits: no box is the right one, leave boxes at 0")

    def model(self, name: str, **arguments) -> nn.Module:
        """The model of a name. Raises InputError for a name that is not in MODELS."""
        if name not in MODELS:
            raise InputError(f"there is no model {name!r} for digits: choose {', '.join(MODELS)}")
        return MODELS[name](10, self.high + (self.says == "digits"), **arguments)

    def batches(self, *, seed: int, start: int = 0) -> Iterator[Canvases]:
        """Canvases without end; which ones come at a step depends on the seed and the step alone."""
        known, canvas, step = digits("train", self.folder), self._canvas(changed=True), start
        while True:
            draw = drawn_of(seed, "digits", step)
            count = torch.randint(self.low, self.high + 1, (self.batch,), generator=draw)
            yield self._laid(known, canvas, count, draw)
            step += 1

    def loss(self, model: nn.Module, batch: Canvases) -> dict[str, Tensor]:
        """Cross-entropy of the answers up to "no more", or of the sum; REINFORCE for the places; how far the baseline
        is from the reward; and how little the looks of a digit read of its box."""
        reads: Reads = model(batch.pixels, drawn=True)
        logs, right, counts = self._answers(reads, batch.labels)
        logs = logs.gather(2, right[..., None])[..., 0]
        parts = {"answer": -logs[counts].mean()}
        judged = counts[..., None].expand_as(reads.baselines)
        reward = logs.detach().exp()[..., None].expand_as(judged)[judged]
        expected = reads.baselines[judged]
        parts["places"] = -self.reward * (reads.log_probs[judged] * (reward - expected.detach())).mean()
        parts["baseline"] = functional.mse_loss(expected, reward)
        if self.boxes:
            inside = self._inside(model, batch)  # [b, n, cells]
            on = (reads.weights[:, : self.high] * inside[:, :, None]).sum(-1).clamp_min(1e-6)
            parts["boxes"] = -self.boxes * on.log()[batch.labels >= 0].mean()
        return parts

    @torch.no_grad()
    def check(self, model: nn.Module, split: str) -> dict[str, float]:
        """In percent, one way to look that is not drawn: `error`, canvases of which not all was said right, and for
        digits how many of them are wrong, place by place, and how many sums of what was read are."""
        wrong, wrong_digits, wrong_sums, digits_, count, lost = 0, 0, 0, 0, 0, 0.0
        for some in self._held(split, model):
            reads: Reads = model(some.pixels)
            logs, right, counts = self._answers(reads, some.labels)
            said = logs.argmax(-1)
            off = (said != right) & counts
            wrong += int(off.any(1).sum())
            lost -= float(logs.gather(2, right[..., None])[..., 0][counts].mean()) * len(some)
            if self.says == "digits":
                there = some.labels >= 0
                wrong_digits += int(off[:, : self.high][there].sum())
                digits_ += int(there.sum())
                read_ = (said < 10).long().cumprod(1) * said  # up to "no more"
                wrong_sums += int((read_.sum(1) != some.labels.clamp_min(0).sum(1)).sum())
            count += len(some)
        found = {"error": 100 * wrong / count, "loss": lost / count}
        if digits_:
            found |= {"digits wrong": 100 * wrong_digits / digits_, "sums wrong": 100 * wrong_sums / count}
        return found

    @torch.no_grad()
    def evidence(self, model: nn.Module, split: str) -> dict[str, float]:
        """In percent: how often the last look at a digit has its middle in that digit's box, beside what the boxes
        cover of the canvas; and, with all but one digit's box muted, neither seen nor looked at, how often that digit
        is said first, and how often nothing after it (no look may go elsewhere, so it is mostly said again).

        Where only sums are told no digit has a turn: how often such a look is in any box, and how often the digits
        that were read, and never told, are those that lie there, in any order."""
        if self.says == "sum":
            return self._untold(model, split)
        on, followed, alone, all_ = 0, 0, 0, 0
        for some in self._held(split, model):
            there = some.labels >= 0
            inside = self._seen(model(some.pixels), some)
            on += int((inside.diagonal(0, 1, 2) & there).sum())
            all_ += int(there.sum())
            for nth in range(self.high):
                said = self._boxed(model, some, nth)
                first = (said[:, 0] == some.labels[:, nth]) & there[:, nth]
                followed += int(first.sum())
                alone += int((first & (said[:, 1] == 10)).sum())
        return {
            "last look on its digit": 100 * on / all_,
            "boxes of the canvas": self._boxes_of_all,
            "the boxed digit is read": 100 * followed / all_,
            "and nothing after it": 100 * alone / all_,
        }

    @torch.no_grad()
    def predict(self, model: Glimpses, image: str, *, only: Sequence[str] = (), mute: Sequence[str] = ()) -> Glanced:
        """What lies on a picture of any size, and the looks that told it.

        The model knows light digits on a dark ground: a picture whose edge is light is turned into its negative first.
        Marks are boxes "left, top, right, bottom" in shares of the picture: what is muted, or lies in none of those
        that `only` names, is black to the model and looked at by no glimpse. Raises InputError for a picture that
        cannot be read, and for boxes that hold nothing.
        """
        picture = light_on_dark(grey(image))
        told = masked(picture, only=only, muted=mute)[None].to(next(model.parameters()).device)
        rule, marks = regions(model.grid(told), only=only, muted=mute)
        with bending(model, rule):
            reads: Reads = model(told)
        each, no_more = reads.logits[0].softmax(-1), reads.logits.shape[-1] - 1
        last = each[:, -1].argmax(-1).tolist()
        answers = last.index(no_more) + 1 if no_more in last and self.says == "digits" else len(last)
        middle = Ground(told, 1).middle(reads.places[0, :answers].flatten(0, 1)).cpu()
        return Glanced(
            picture,
            tuple((int(down), int(across)) for down, across in middle),
            tuple(map(tuple, each[:answers].flatten(0, 1).tolist())),
            tuple(model.size * 2**scale for scale in range(model.scales)),
            each=model.looks,
            sums=tuple(sums(each[None, :, -1])[0].tolist()) if self.says == "sum" else (),
            coarse=COARSE,
            marks=tuple(marks),
        )

    # ------------------------------------------------------------------------------------------------ what is behind it

    def _boxed(self, model: Any, some: Canvases, nth: int) -> Tensor:
        """What is said when all but the box of each canvas' nth digit is muted: [b, answers]."""
        seen = inside_of(some.boxes[:, nth], self.side)
        out = ~self._inside(model, some)[:, nth]
        with bending(model, lambda _, reading: [muted(out)] if reading.shape[3] == out.shape[1] else ()):
            return model(some.pixels * seen).logits[:, :, -1].argmax(-1)

    def _inside(self, model: Any, some: Canvases) -> Tensor:
        """Which cells of the coarse look lie in the box of each digit: [b, n, cells] bool."""
        rows, columns = model.grid(some.pixels)
        found = []
        for top, left, bottom, right in (some.boxes.flatten(0, 1) / self.side).tolist():
            found.append((covered(top, bottom, rows)[:, None] & covered(left, right, columns)).flatten())
        return torch.stack(found).view(*some.labels.shape, -1).to(some.pixels.device)

    def _answers(self, reads: Reads, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The log-probabilities of answers [b, answers, classes], the right ones [b, answers], and which of them
        count: a digit or "no more" each, or the sum of all."""
        logits = reads.logits[:, :, -1]
        if self.says == "sum":
            total = labels.clamp_min(0).sum(1, keepdim=True)
            logs = sums(logits.softmax(-1)).clamp_min(LEAST).log()
            return logs[:, None], total, torch.ones_like(total, dtype=torch.bool)
        right = functional.pad(labels, (0, 1), value=-1)
        counts = torch.arange(right.shape[1], device=labels.device) <= (labels >= 0).sum(1, keepdim=True)
        return logits.log_softmax(-1), right.where(right >= 0, 10), counts

    def _seen(self, reads: Reads, some: Canvases) -> Tensor:
        """Whether the last look of each reading has its middle in the box of each digit: [b, high, high] bool."""
        middle = 0.5 * (reads.places[:, : self.high, -1, None] + 1) * (self.side - 1)
        boxes = some.boxes[:, None]
        return ((middle >= boxes[..., :2]) & (middle < boxes[..., 2:])).all(-1)

    @property
    def _boxes_of_all(self) -> float:
        return min(100.0, 100 * self.high * (28 / self.side) ** 2)

    def _untold(self, model: Any, split: str) -> dict[str, float]:
        on, right, count = 0, 0, 0
        for some in self._held(split, model):
            reads: Reads = model(some.pixels)
            read_ = reads.logits[:, :, -1].argmax(-1) % 10  # nothing makes a sum no larger, as 0 does
            on += int(self._seen(reads, some).any(2).sum())
            right += int((read_.sort(1).values == some.labels.sort(1).values).all(1).sum())
            count += len(some)
        return {
            "last look on a digit": 100 * on / (count * self.high),
            "boxes of the canvas": self._boxes_of_all,
            "the digits, never told, are right": 100 * right / count,
        }

    def _canvas(self, *, changed: bool = False) -> Canvas:
        change = (self.turned, self.scaled, self.moved) if changed else ()
        return Canvas(self.side, self.clutter, self.piece, *change)

    def _laid(self, known, canvas: Canvas, count: Tensor, draw: torch.Generator) -> Canvases:
        which = torch.randint(0, len(known), (len(count), self.high), generator=draw)
        labels = known.labels[which].where(torch.arange(self.high) < count[:, None], -1)
        return canvas.lay_several(known.pixels[which], labels, known.pixels, draw)

    def _held(self, split: str, model: nn.Module) -> Iterator[Canvases]:
        """Canvases with `high` digits of a split, always the same, where the model is."""
        if split not in SPLITS:
            raise InputError(f"there is no split {split!r} of the canvases: choose {' or '.join(SPLITS)}")
        known, device = digits(split, self.folder), next(model.parameters()).device
        for first in range(0, HELD, AT_ONCE):
            draw = drawn_of(0, f"{split} {self.side} {self.high} {self.clutter}", first)
            count = torch.full((AT_ONCE,), self.high)
            yield self._laid(known, self._canvas(), count, draw).to(device)


def sums(chances: Tensor) -> Tensor:
    """The probabilities of digits [b, n, 11], each read by itself, the last of them "nothing", which counts 0 -> those
    of their sum, [b, 9 n + 1]."""
    worth = torch.cat([chances[..., :1] + chances[..., 10:], chances[..., 1:10]], -1)
    first, *others = worth.unbind(1)
    for other in others:
        shifted = [functional.pad(first * other[:, n : n + 1], (n, 9 - n)) for n in range(10)]
        first = torch.stack(shifted).sum(0)
    return first
