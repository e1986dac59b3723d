"""Glance: say which digit is on a canvas after a few glimpses, and show where they were."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from recuerdo.data.digits import SIDE, Canvas, Canvases, Digits, digits
from recuerdo.data.pictures import grey
from recuerdo.errors import InputError
from recuerdo.models.glimpse import Glimpse, Looks
from recuerdo.nn.retina import Ground
from recuerdo.tasks.glanced import Glanced
from recuerdo.tasks.marking import masked

MODELS = {"glimpse": Glimpse}
CLASSES, CPU = 10, torch.device("cpu")
SPLITS = ("valid", "test")
AT_ONCE = 500  # canvases that are judged together
SURE = 0.99  # a class that is likelier ends the looking


@dataclass(frozen=True)
class Glance:
    """The canvases and how they are learned from.

    `side`, `clutter`, `piece`, `turned`, `scaled`, `moved`: see `recuerdo.data.digits.Canvas`; the last three change
    training digits only. `grows`: over so many first steps the canvases of training grow from the digit alone to
    `side`, and their clutter with them, so that there is something to be seen from the first step on. `batch` canvases,
    new ones each time. `reward`: how much the loss of the places counts, whose reward is the probability of the right
    digit after the last look; `early`: how much it counts that the digit is right after each look already; `slope`: how
    much places are told of the slope of the picture at each glimpse, so that they are learned by gradients as well (0 =
    by reward alone, as in the paper). `rolls`: so many drawn ways to look are averaged in the check, beside one that is
    not drawn. `folder`: where the digits are, "" = mnist/ in the data folder.

    Raises InputError for what cannot be.
    """

    side: int = 28
    clutter: int = 0
    piece: int = 8
    turned: float = 0.0
    scaled: float = 0.0
    moved: float = 0.0
    grows: int = 0
    batch: int = 128
    reward: float = 0.3
    early: float = 0.0
    slope: float = 0.0
    rolls: int = 10
    folder: str = ""

    def __post_init__(self) -> None:
        self._learned_from(self.grows)
        if min(self.batch, self.rolls) < 1 or min(self.grows, self.reward, self.early, self.slope) < 0:
            raise InputError("batch and rolls are 1 or more, grows, reward, early and slope are 0 or more")

    def model(self, name: str, **arguments) -> nn.Module:
        """The model of a name. Raises InputError for a name that is not in MODELS."""
        if name not in MODELS:
            raise InputError(f"there is no model {name!r} for glances: choose {', '.join(MODELS)}")
        return MODELS[name](CLASSES, **arguments)

    def batches(self, *, seed: int, start: int = 0) -> Iterator[Canvases]:
        """Canvases without end; which ones come at a step depends on the seed and the step alone."""
        known = digits("train", self.folder)
        each = -(-len(known) // self.batch)  # batches of a round over all digits
        step, order, turn = start, torch.empty(0, dtype=torch.long), -1
        while True:
            if step // each != turn:
                turn = step // each
                order = torch.randperm(len(known), generator=drawn_of(seed, "round", turn))
            rows = order[step % each * self.batch :][: self.batch]
            canvas = self._learned_from(step)
            yield canvas.lay(known.pixels[rows], known.labels[rows], known.pixels, drawn_of(seed, "step", step))
            step += 1

    def loss(self, model: nn.Module, batch: Canvases) -> dict[str, Tensor]:
        """Cross-entropy of the digit after the last look, and after the earlier ones; REINFORCE for the places; and how
        far the baseline is from the reward."""
        looks: Looks = model(batch.pixels, drawn=True, slope=self.slope)
        logs = looks.logits.log_softmax(-1).gather(2, batch.labels[:, None, None].expand(-1, looks.logits.shape[1], 1))
        right = logs[:, :, 0]
        parts = {"digit": -right[:, -1].mean()}
        if self.early and right.shape[1] > 1:
            parts["early"] = -self.early * right[:, :-1].mean()
        if looks.baselines.shape[1]:
            reward = right[:, -1:].detach().exp().expand_as(looks.baselines)
            gain = reward - looks.baselines.detach()
            parts["places"] = -self.reward * (looks.log_probs * gain).mean()
            parts["baseline"] = functional.mse_loss(looks.baselines, reward)
        return parts

    @torch.no_grad()
    def check(self, model: nn.Module, split: str) -> dict[str, float]:
        """In percent: `error` of one way to look, that is not drawn; in the test also `error of N`, of the mean of N
        drawn ways, which cost N times the looks, the error after each look but the last, and the error and the mean
        number of looks when looking stops as soon as a class is likelier than 99 %. And the cross-entropy of one way.
        """
        wrong, wrong_of_all, lost, count, after = 0, 0, 0.0, 0, list[Tensor]()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            for some in self.canvases(split, _home(model)):
                looks = model(some.pixels).logits
                logits = looks[:, -1]
                sure = looks.softmax(-1).amax(-1)
                after.append(torch.stack([(looks.argmax(-1) != some.labels[:, None]).double(), sure]).cpu())
                wrong += int((logits.argmax(-1) != some.labels).sum())
                lost += float(functional.cross_entropy(logits, some.labels, reduction="sum"))
                count += len(some)
                if split == "test":
                    ways = [model(some.pixels, drawn=True).logits[:, -1].softmax(-1) for _ in range(self.rolls)]
                    wrong_of_all += int((torch.stack(ways).mean(0).argmax(-1) != some.labels).sum())
        found = {"error": 100 * wrong / count, "loss": lost / count}
        if split == "test":
            off, sure = torch.cat(after, 1)
            found[f"error of {self.rolls}"] = 100 * wrong_of_all / count
            found |= {f"error after {i + 1}": 100 * float(off[:, i].mean()) for i in range(off.shape[1] - 1)}
            stops = torch.cat([sure[:, :-1] > SURE, torch.ones(count, 1, dtype=torch.bool)], 1).float().argmax(1)
            found["error when sure"] = 100 * float(off[torch.arange(count), stops].mean())
            found["looks when sure"] = float(stops.float().mean()) + 1
        return found

    @torch.no_grad()
    def evidence(self, model: nn.Module, split: str) -> dict[str, float]:
        """In percent, of one way to look: how often the middle of the first glimpse that the model placed (the second:
        the first is always in the middle) is in the digit's box, the last glimpse's, and any of those it placed. What
        the box covers of the canvas stands beside: a look at random would be there about as often. And the error when
        a person mutes all but the digit's box, beside the error without."""
        sums = torch.zeros(6, dtype=torch.float64)
        for some in self.canvases(split, _home(model)):
            looks: Looks = model(some.pixels)
            middle = 0.5 * (looks.places + 1) * (self.side - 1)
            low, high = some.boxes[:, None, :2], some.boxes[:, None, 2:]
            inside = ((middle >= low) & (middle < high)).all(-1)
            box = (some.boxes[:, 2:] - some.boxes[:, :2]).prod(-1) / self.side**2
            alone = model(some.pixels * inside_of(some.boxes, self.side)).logits
            wrong, muted = (told[:, -1].argmax(-1) != some.labels for told in (looks.logits, alone))
            placed = inside[:, 1:]
            each = (placed[:, :1].any(-1), inside[:, -1], placed.any(-1), box, wrong, muted)
            sums += torch.stack([one.double().sum() for one in each]).cpu()
        first, last, some_look, covered, wrong, muted = (100 * sums / len(digits(split, self.folder))).tolist()
        return {
            "first placed look on the digit": first,
            "last look on the digit": last,
            "some look on the digit": some_look,
            "box of the canvas": covered,
            "error": wrong,
            "error, all else muted": muted,
        }

    @torch.no_grad()
    def predict(
        self, model: Glimpse, image: str, *, only: Sequence[str] = (), mute: Sequence[str] = (), sure: float = 1.0
    ) -> Glanced:
        """What is on a picture of any size, and the looks that told it; no more looks than are needed to be `sure`.

        The model knows light digits on a dark ground: a picture whose edge is light is turned into its negative first.
        Marks are boxes "left, top, right, bottom" in shares of the picture: what is muted, or lies in none of those
        that `only` names, is black to the model. Raises InputError for a picture that cannot be read, for boxes that
        hold nothing, and for a probability that is none.
        """
        if not 0 < sure <= 1:
            raise InputError(f"a model is sure with a probability above 0 and up to 1, not {sure}: give 0.95")
        picture = light_on_dark(grey(image))
        told = masked(picture, only=only, muted=mute)
        marks = [*(f"only: {one}" for one in only), *(f"mute: {one}" for one in mute)]
        looks: Looks = model(told[None].to(next(model.parameters()).device), sure=sure)
        middle = Ground(picture[None], 1).middle(looks.places[0].cpu())
        return Glanced(
            picture,
            tuple((int(down), int(across)) for down, across in middle),
            tuple(map(tuple, looks.logits[0].softmax(-1).tolist())),
            tuple(model.size * 2**scale for scale in range(model.scales)),
            marks=tuple(marks),
        )

    def canvases(self, split: str, device: torch.device = CPU) -> Iterator[Canvases]:
        """All digits of a split, each on one canvas, always the same; clutter is of digits of the same split. Raises
        InputError for another split."""
        if split not in SPLITS:
            raise InputError(f"there is no split {split!r} of the canvases: choose {' or '.join(SPLITS)}")
        known: Digits = digits(split, self.folder)
        for first in range(0, len(known), AT_ONCE):
            part = slice(first, first + AT_ONCE)
            draw = drawn_of(0, f"{split} {self.side} {self.clutter}", first)
            yield self._canvas().lay(known.pixels[part], known.labels[part], known.pixels, draw).to(device)

    # ------------------------------------------------------------------------------------------------ what is behind it

    def _canvas(self) -> Canvas:
        return Canvas(self.side, self.clutter, self.piece)

    def _learned_from(self, step: int) -> Canvas:
        """Canvases of training as they are at a step."""
        grown = min(1.0, step / self.grows) if self.grows else 1.0
        side, clutter = SIDE + round(grown * (self.side - SIDE)), round(grown * self.clutter)
        return Canvas(side, clutter, self.piece, self.turned, self.scaled, self.moved)


def _home(model: nn.Module) -> torch.device:
    """Where a model is; one without parameters is anywhere."""
    return next((p.device for p in model.parameters()), CPU)


def inside_of(boxes: Tensor, side: int) -> Tensor:
    """The pixels of boxes [b, 4] on canvases of `side` pixels: bool [b, side, side]."""
    along = torch.arange(side, device=boxes.device)
    down, across = ((along >= boxes[:, i, None]) & (along < boxes[:, i + 2, None]) for i in (0, 1))
    return down[:, :, None] & across[:, None]


def light_on_dark(picture: Tensor) -> Tensor:
    """A picture [height, width] as it is, or its negative where its edge is light."""
    edge = torch.cat([picture[[0, -1]].flatten(), picture[:, [0, -1]].flatten()])
    return 255 - picture if edge.float().median() > 127 else picture


def drawn_of(seed: int, what: str, number: int) -> torch.Generator:
    """Random numbers of their own for each seed, purpose and number."""
    told = hashlib.blake2b(f"{seed} {what} {number}".encode(), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(told, "little") >> 1)
