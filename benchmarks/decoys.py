"""Right for the right reasons: a model that was fooled by decoys learns from at most 100 marks to leave them alone.

python benchmarks/decoys.py            all of it (minutes on one core)
python benchmarks/decoys.py --quick    some seconds
python benchmarks/decoys.py pixels     one section: pixels (the network of the paper), attention (a small reader of patches)

Decoy-MNIST (Ross et al. 2017, arXiv 1703.03717): every training image carries a grey swatch of 4 x 4 pixels in a corner
drawn at random, of shade 255 - 25 x its label. In the test images the shade is that of a random label. A person marked
the swatch with a box in at most 100 of the 60,000 training images. Nothing else about decoys is known to the training:
no other image is changed, and what has to be chosen is chosen on marks that were held out. Test images are for the
figures alone.
"""

import gzip
import os
import struct
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from measure import ROOT, Report, arguments

import torch  # isort: skip
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, kl_div

from recuerdo.read import read
from recuerdo.steer.cells import box_mask, patch_mask
from recuerdo.steer.losses import mass_loss, right_reasons
from recuerdo.steer.marks import Box

SIDE, SWATCH, GRID = 28, 4, 7
NEAR, FAR = SWATCH / SIDE, 1 - SWATCH / SIDE
CORNERS = (Box(0, 0, NEAR, NEAR), Box(FAR, 0, 1, NEAR), Box(0, FAR, NEAR, 1), Box(FAR, FAR, 1, 1))
PIXELS = torch.stack([box_mask(box, SIDE, SIDE) for box in CORNERS])
PATCHES = torch.stack([patch_mask(box, GRID, GRID) for box in CORNERS])
FOLDER = Path(os.environ.get("RECUERDO_DATA", ROOT.parent / "shared/data")) / "mnist"

Penalty = Callable[[nn.Module], Tensor]


# ------------------------------------------------------------------------------------------------------------- the data


def idx(name: str) -> Tensor:
    """A file of MNIST as a tensor of bytes."""
    with gzip.open(FOLDER / name) as file:
        data = file.read()
    shape = struct.unpack(f">{data[3]}I", data[4 : 4 + 4 * data[3]])
    return torch.frombuffer(bytearray(data[4 + 4 * data[3] :]), dtype=torch.uint8).reshape(shape)


class Images(NamedTuple):
    """Pixels 0 to 1 [n, 28, 28], labels [n], and the corner of the decoy [n]."""

    pixels: Tensor
    labels: Tensor
    corners: Tensor

    def some(self, index: Tensor | slice) -> "Images":
        return Images(*(x[index] for x in self))


def plain(part: str, count: int | None = None) -> Images:
    pixels, labels = (idx(f"{part}-{what}-ubyte.gz")[:count] for what in ("images-idx3", "labels-idx1"))
    return Images(pixels / 255, labels.long(), torch.full((len(labels),), -1))


def with_decoys(images: Images, shades: Tensor, draw: torch.Generator) -> Images:
    """A swatch in a random corner of every image, 255 - 25 x its number of `shades`."""
    corners = torch.randint(len(CORNERS), (len(shades),), generator=draw)
    grey = (255 - 25 * shades) / 255
    return images._replace(pixels=torch.where(PIXELS[corners], grey[:, None, None], images.pixels), corners=corners)


class World(NamedTuple):
    """All images of one seed; `marked` are the training images that a person looked at."""

    clean: Images
    train: Images
    marked: Images
    test: Images
    randomised: Images

    @classmethod
    def of(cls, seed: int, clean: Images, test: Images, marks: int) -> "World":
        draw = torch.Generator().manual_seed(1000 + seed)
        train = with_decoys(clean, clean.labels, draw)
        randomised = with_decoys(test, torch.randint(10, test.labels.shape, generator=draw), draw)
        return cls(
            clean, train, train.some(torch.randperm(len(train.labels), generator=draw)[:marks]), test, randomised
        )


# ------------------------------------------------------------------------------------------------------------ the models


class Network(nn.Sequential):
    """The network of the paper: 784-50-30-10, ReLU."""

    def __init__(self) -> None:
        super().__init__(
            nn.Flatten(), nn.Linear(SIDE * SIDE, 50), nn.ReLU(), nn.Linear(50, 30), nn.ReLU(), nn.Linear(30, 10)
        )


class Reader(nn.Module):
    """64 learned queries read the 49 patches of an image by attention, in 8 heads; a small network answers from that."""

    def __init__(self, heads: int = 8, queries: int = 8, width: int = 8):
        super().__init__()
        self.heads, self.width = heads, width
        self.patch = nn.Linear(SWATCH * SWATCH, 32)
        self.place = nn.Parameter(torch.randn(GRID * GRID, 32))
        self.key_value = nn.Linear(32, 2 * heads * width)
        self.query = nn.Parameter(2 * torch.randn(1, heads, queries, width))
        self.answer = nn.Sequential(nn.Linear(heads * queries * width, 64), nn.ReLU(), nn.Linear(64, 10))
        self.reading = None

    def forward(self, pixels: Tensor) -> Tensor:
        patches = pixels.view(-1, GRID, SWATCH, GRID, SWATCH).transpose(2, 3).reshape(-1, GRID * GRID, SWATCH**2)
        parts = self.key_value((self.patch(patches) + self.place).relu())
        key, value = parts.view(len(pixels), GRID * GRID, 2, self.heads, self.width).permute(2, 0, 3, 1, 4)
        self.reading = read(self.query.expand(len(pixels), -1, -1, -1), key, value)
        return self.answer(self.reading.mixed.flatten(1))


# ----------------------------------------------------------------------------------------------------- what marks teach


def reasons(marked: Images) -> Penalty:
    """The input-gradient penalty of the paper, on the marked images alone."""
    wrong = PIXELS[marked.corners]

    def penalty(model: nn.Module) -> Tensor:
        pixels = marked.pixels.clone().requires_grad_()
        return right_reasons(model(pixels).log_softmax(-1), pixels, wrong)

    return penalty


def repainted(marked: Images) -> Penalty:
    """Another use of the same marks: whatever shade the box is painted in, the answer shall stay."""
    wrong = PIXELS[marked.corners]

    def penalty(model: nn.Module) -> Tensor:
        shades = torch.rand(len(wrong), 1, 1)
        answers = model(torch.cat([marked.pixels, torch.where(wrong, shades, marked.pixels)])).log_softmax(-1)
        before, after = answers.chunk(2)
        return kl_div(after, before, log_target=True, reduction="batchmean")

    return penalty


def looks_elsewhere(marked: Images) -> Penalty:
    """The loss on attention: no query reads the marked patch."""
    keys = PATCHES[marked.corners]

    def penalty(model: nn.Module) -> Tensor:
        model(marked.pixels)
        return mass_loss(model.reading.log_mass(keys), 0.0)  # type: ignore[union-attr,operator]

    return penalty


class Kind(NamedTuple):
    """A model and its training, the same for clean, fooled and marked ones."""

    model: Callable[[], nn.Module]
    epochs: int
    batch: int
    rate: float
    rises: bool  # the rate goes up and down again


NETWORK = Kind(Network, epochs=8, batch=256, rate=1e-3, rises=False)
READER = Kind(Reader, epochs=2, batch=128, rate=1e-2, rises=True)


def trained(kind: Kind, images: Images, seed: int, penalty: Penalty | None = None, strength: float = 0.0) -> nn.Module:
    torch.manual_seed(seed)
    model, steps = kind.model(), len(images.labels) // kind.batch
    optimiser = torch.optim.Adam(model.parameters(), lr=kind.rate, fused=True)
    if kind.rises:
        rate = torch.optim.lr_scheduler.OneCycleLR(optimiser, kind.rate, total_steps=kind.epochs * steps)
    else:
        rate = torch.optim.lr_scheduler.ConstantLR(optimiser, factor=1.0)
    for _ in range(kind.epochs):
        for index in torch.randperm(len(images.labels))[: steps * kind.batch].view(steps, kind.batch):
            loss = cross_entropy(model(images.pixels[index]), images.labels[index])
            if penalty is not None:
                loss = loss + strength * penalty(model)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            rate.step()
    return model


@torch.no_grad()
def accuracy(model: nn.Module, images: Images) -> float:
    """Per cent."""
    return 100 * (model(images.pixels).argmax(-1) == images.labels).float().mean().item()


# ------------------------------------------------------------------------------------------- how strong: chosen on marks


@torch.no_grad()
def flips(model: nn.Module, marked: Images) -> float:
    """How often, in per cent, the answer changes when the marked box is painted in the shade of another label."""
    before, wrong = model(marked.pixels).argmax(-1), PIXELS[marked.corners]
    painted = [torch.where(wrong, torch.tensor((255 - 25 * y) / 255), marked.pixels) for y in range(10)]
    return 100 * torch.stack([model(pixels).argmax(-1) != before for pixels in painted]).float().mean().item()


def strength_of(
    kind: Kind, world: World, make: Callable[[Images], Penalty], grid: tuple[float, ...], held: int
) -> float:
    """The strength that serves best where it can be known: right answers on 5,000 training images held out, as they are,
    less the flips on `held` marked images held out. An answer that is right and does not flip is right under any shade.
    """
    fit, rest = world.train.some(slice(5000, None)), world.train.some(slice(0, 5000))
    shown, kept = world.marked.some(slice(held, None)), world.marked.some(slice(0, held))
    scores = {}
    for strength in grid:
        model = trained(kind, fit, 0, make(shown), strength)
        scores[strength] = accuracy(model, rest) - flips(model, kept)
        print(
            f"decoys: {make.__name__}, strength {strength:g}: {scores[strength]:.1f} on held-out marks", file=sys.stderr
        )
    return max(scores, key=scores.__getitem__)


# ------------------------------------------------------------------------------------------------------------- sections


class Figures:
    """Accuracies over seeds, reported as mean and deviation."""

    def __init__(self, report: Report, name: str):
        self.report, self.name = report, name
        self.found: dict[str, list[float]] = {}
        self.told: dict[str, str] = {}

    def add(self, what: str, value: float, told: str) -> None:
        self.found.setdefault(what, []).append(value)
        self.told[what] = told

    def mean(self, what: str) -> float:
        return float(torch.tensor(self.found[what]).mean())

    def tell(self) -> None:
        clean = self.mean("clean")
        for what, values in self.found.items():
            deviation = torch.tensor(values).std(correction=min(1, len(values) - 1)).item()
            how = f"{self.told[what]}; {len(values)} seed{'s' if len(values) > 1 else ''}, sd {deviation:.2f}"
            self.report.add(f"{self.name}: {what}", self.mean(what), "%", how=how)
        share = self.mean("unmarked") / clean
        self.report.add(f"{self.name}: unmarked", share, "x clean", target="< 0.95", ok=share < 0.95,
                        against="clean model, clean test", how="decoys that fool nobody would prove nothing")  # fmt: skip
        for what in self.found:
            if "marks" in what:
                share = self.mean(what) / clean
                judged = "100 marks" in what and "repainted" not in what
                target = {"target": ">= 0.95", "ok": share >= 0.95} if judged else {}
                self.report.add(f"{self.name}: {what}", share, "x clean", **target,
                                against="clean model, clean test", how=self.told[what])  # fmt: skip


def baselines(figures: Figures, kind: Kind, world: World, seed: int) -> None:
    clean, fooled = trained(kind, world.clean, seed), trained(kind, world.train, seed)
    figures.add("clean", accuracy(clean, world.test), "no decoys in training or test")
    figures.add("clean, randomised", accuracy(clean, world.randomised), "no decoys in training")
    figures.add("unmarked", accuracy(fooled, world.randomised), "trained with decoys, test decoys randomised")


def pixels(report: Report, quick: bool) -> None:
    """The paper's network; input gradients on the marked boxes."""
    clean, test = plain("train", 20_000 if quick else None), plain("t10k")
    seeds, sizes = (range(1), (100,)) if quick else (range(5), (10, 30, 100))
    strengths = {reasons: 10.0}
    if not quick:
        chosen_on = World.of(99, clean, test, 100)
        strengths[reasons] = strength_of(NETWORK, chosen_on, reasons, (0.1, 1.0, 10.0, 100.0), held=20)
        strengths[repainted] = strength_of(NETWORK, chosen_on, repainted, (10.0, 100.0, 1000.0), held=20)
    figures = Figures(report, "Decoy-MNIST, network")
    for seed in seeds:
        world = World.of(seed, clean, test, 100)
        baselines(figures, NETWORK, world, seed)
        for make, strength in strengths.items():
            for size in sizes if make is reasons else (100,):
                model = trained(NETWORK, world.train, seed, make(world.marked.some(slice(size))), strength)
                told = f"{'input gradients' if make is reasons else 'same answer asked'}, strength {strength:g}"
                figures.add(f"{size} marks{', repainted' if make is repainted else ''}", accuracy(model, world.randomised), told)  # fmt: skip
    figures.tell()


def attention(report: Report, quick: bool) -> None:
    """A small model that reads patches; the mass of its attention on the marked ones."""
    if quick:
        return
    clean, test = plain("train"), plain("t10k")
    strength = strength_of(READER, World.of(99, clean, test, 100), looks_elsewhere, (1.0, 10.0, 100.0), held=20)
    figures = Figures(report, "Decoy-MNIST, reader of patches")
    for seed in range(5):
        world = World.of(seed, clean, test, 100)
        baselines(figures, READER, world, seed)
        model = trained(READER, world.train, seed, looks_elsewhere(world.marked), strength)
        figures.add("100 marks", accuracy(model, world.randomised), f"mass loss, target 0, strength {strength:g}")
    figures.tell()


SECTIONS = {"pixels": pixels, "attention": attention}


def decoys(report: Report, quick: bool, sections: list[str] | None = None) -> None:
    """All sections; on one thread, as the models are small."""
    if not FOLDER.is_dir():
        print("decoys: needs the data folder; set RECUERDO_DATA to where mnist/ lies", file=sys.stderr)
        return
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    for section in sections or SECTIONS:
        SECTIONS[section](report, quick)
    torch.set_num_threads(threads)


if __name__ == "__main__":
    options = arguments(__doc__)
    decoys(Report(options.json), options.quick, options.sections)
