"""What looking at pictures costs: glimpses on larger and larger pictures, and training against a loop over pictures.

python benchmarks/pictures.py                  all of it
python benchmarks/pictures.py --quick          fewer rounds, under 50 s
python benchmarks/pictures.py cost training    only these sections

One thread, CPU seconds, interleaved. Memory is the bytes that the operations of one forward pass allocate, the picture
itself apart. The peer of `cost` is a small convolutional network that ends in a mean over all places; that of `training`
cuts its glimpses picture by picture, as reference codes of the recurrent attention model do. `foreground` needs photos
(flickr8k_1000/ in RECUERDO_DATA); the boxes of its 50, the first half of the test split, were drawn by hand before any
map was seen.
"""

import csv
from pathlib import Path

from measure import Report, arguments, interleaved, median, ratio

import torch  # isort: skip  (after measure has set the wait policy)
from torch import Tensor, nn
from torch.nn import functional
from torch.profiler import ProfilerActivity, profile

from recuerdo.data.digits import Canvases
from recuerdo.models.glimpse import Glimpse
from recuerdo.nn.retina import Ground
from recuerdo.tasks.glance import Glance

SIDES = (100, 256, 1024, 4096)
READER = "glance-cluttered"
EDGES = ("left", "top", "right", "bottom")  # of boxes in foreground.csv, in shares of a photo


class Convolutions(nn.Module):
    """Three layers with strides, a mean over places, ten classes."""

    def __init__(self):
        super().__init__()
        sizes = ((1, 16), (16, 32), (32, 64))
        self.layers = nn.ModuleList(nn.Conv2d(a, b, 5, stride=2, padding=2) for a, b in sizes)
        self.classify = nn.Linear(64, 10)

    def forward(self, pictures: Tensor) -> Tensor:
        x = pictures[:, None].float() / 255
        for layer in self.layers:
            x = torch.relu(layer(x))
        return self.classify(x.mean((2, 3)))


@torch.no_grad()
def cost(report: Report, quick: bool) -> None:
    """One picture at a time, from 100 x 100 to 4096 x 4096 pixels."""
    torch.manual_seed(0)
    reader, peer = Glimpse(10, looks=8, size=12, scales=4).eval(), Convolutions().eval()
    rounds, again = (5, 10) if quick else (15, 40)
    pictures = {side: torch.randint(0, 256, (1, side, side), dtype=torch.uint8) for side in SIDES}
    times = interleaved(
        {f"{side}": lambda told=told: [reader(told) for _ in range(again)] for side, told in pictures.items()}, rounds
    )
    base, least = median(times["100"]), _memory(reader, pictures[100])
    for side in SIDES:
        spent, bytes_ = median(times[f"{side}"]) / again, _memory(reader, pictures[side])
        report.add(f"glimpses, {side} x {side}: time", 1000 * spent, "ms", how=f"CPU s, median of {rounds}")
        report.add(f"glimpses, {side} x {side}: memory", bytes_ / 2**20, "MiB")
        if side > SIDES[0]:
            for what, value in (("time", spent * again / base), ("memory", bytes_ / least)):
                report.add(
                    f"glimpses, {what} at {side} x {side}, against 100 x 100", value, "x", target="0.9 to 1.1",
                    ok=0.9 <= value <= 1.1, how=f"CPU s, median of {rounds}" if what == "time" else "",
                )  # fmt: skip
    sides = SIDES[:3] if quick else SIDES
    times = interleaved({f"{side}": lambda side=side: peer(pictures[side]) for side in sides}, 2 if quick else 3)
    for side in sides[1:]:
        value = ratio(times, f"{side}", "100")
        report.add(f"convolutions, time at {side} x {side}, against 100 x 100", value, "x", how="CPU s")


def _memory(model: nn.Module, pictures: Tensor) -> int:
    """The bytes that one pass allocates, whether or not they are given back meanwhile."""
    model(pictures)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        model(pictures)
    return sum(max(0, event.self_cpu_memory_usage) for event in seen.events())


class OneByOne(Ground):
    """The same squares, cut picture by picture from a padded copy of each."""

    def __init__(self, pictures: Tensor, wide: int):
        super().__init__(pictures, wide)
        self.pictures = pictures

    def cut(self, middle: Tensor) -> Tensor:
        found = []
        for picture, (down, across) in zip(self.pictures, middle.tolist(), strict=True):
            padded = functional.pad(picture, (self.wide,) * 4)
            top, left = (at - self.wide // 2 + self.wide for at in (down, across))
            found.append(padded[top : top + self.wide, left : left + self.wide])
        return torch.stack(found)


def training(report: Report, quick: bool) -> None:
    """A step of the recurrent attention model on 28 x 28 pixels, 128 pictures, 6 glimpses of 8 x 8, in bfloat16."""
    import recuerdo.models.glimpse as ours

    torch.manual_seed(0)
    task, whole = Glance(early=0.3), torch.tensor([0, 0, 28, 28]).expand(128, 4)
    batch = Canvases(torch.randint(0, 256, (128, 28, 28), dtype=torch.uint8), torch.randint(0, 10, (128,)), whole)

    def step_with(ground: type[Ground]):
        model = Glimpse(10)
        rule = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True, foreach=False)

        def step() -> None:
            before, ours.Ground = ours.Ground, ground
            try:
                with torch.autocast("cpu", torch.bfloat16):
                    loss = sum(task.loss(model, batch).values())
                loss.backward()
            finally:
                ours.Ground = before
            nn.utils.clip_grad_norm_(model.parameters(), 5.0)
            rule.step()
            rule.zero_grad()

        return step

    rounds, again = (5, 10) if quick else (11, 30)
    one, all_ = step_with(OneByOne), step_with(Ground)
    times = interleaved({"one by one": one, "ours": lambda: [all_() for _ in range(again)]}, rounds)
    spent, how = median(times["ours"]) / again, f"CPU s, median of {rounds}"
    report.add("training, 28 x 28", 128 / spent, "pictures/s", target=">= 10000", ok=128 / spent >= 10_000, how=how)
    report.add("training, against a loop over pictures", median(times["one by one"]) / spent, "x", how=how)
    middle, again = torch.randint(0, 28, (128, 2)), 20
    loop, grounds = OneByOne(batch.pixels, 8), Ground(batch.pixels, 8)
    cuts = {"loop": lambda: loop.cut(middle), "ours": lambda: [grounds.cut(middle) for _ in range(again)]}
    times = interleaved(cuts, 3 * rounds)
    value = again * median(times["loop"]) / median(times["ours"])
    report.add("cutting glimpses, against a loop over pictures", value, "x", target=">= 20", ok=value >= 20, how=how)


def foreground(report: Report, quick: bool) -> None:
    """Whether the patch that DINOv2 read most is on who or what the photo is of: people, animals, drawn by hand."""
    from recuerdo.bridge.run import load
    from recuerdo.data.sources import data_folder
    from recuerdo.workbench.gazing import look_at

    here = data_folder("flickr8k_1000")
    if here is None:
        report.add("foreground", float("nan"), "", how="needs flickr8k_1000/ in RECUERDO_DATA")
        return
    boxes: dict[str, list[tuple[float, ...]]] = {}
    with Path(__file__).with_name("foreground.csv").open(encoding="utf-8") as file:
        for row in csv.DictReader(file):
            boxes.setdefault(row["picture"], []).append(tuple(float(row[edge]) for edge in EDGES))
    photos = list(boxes)[: 10 if quick else None]
    loaded = load("dinov2")
    hits: dict[str, int] = {"the middle": 0}
    for name in photos:
        seen = look_at(loaded, here / "images" / name)
        places = {"the middle": (0.5, 0.5)}
        for one in seen.maps:
            row, column = divmod(int(one.shares.argmax()), seen.grid[1])
            places[one.name] = (column + 0.5) / seen.grid[1], (row + 0.5) / seen.grid[0]
        for which, (x, y) in places.items():
            inside = any(left <= x < right and top <= y < bottom for left, top, right, bottom in boxes[name])
            hits[which] = hits.get(which, 0) + inside
    for which, count in hits.items():
        report.add(f"pointing at the foreground, {which}", 100 * count / len(photos), "%", how=f"{len(photos)} photos")
    covered = [min(1.0, sum((c - a) * (d - b) for a, b, c, d in boxes[name])) for name in photos]
    report.add("what the boxes cover", 100 * sum(covered) / len(covered), "% of a photo", how="overlaps counted twice")


@torch.no_grad()
def looked(report: Report, quick: bool) -> None:
    """How right the reader of the package is after each glimpse, and how much of the canvas it had taken in by then."""
    from recuerdo.data.sources import data_folder
    from recuerdo.workbench.running import open_run

    if data_folder("mnist") is None:
        report.add("looked", float("nan"), "", how="needs mnist/ in RECUERDO_DATA")
        return
    opened = open_run(READER)
    model, task, most = opened.model.eval(), opened.task, 1000 if quick else 10_000
    side, size, scales = task.side, model.size, model.scales
    wrong = torch.zeros(model.looks, dtype=torch.float64)
    sharp, any_ = torch.zeros_like(wrong), torch.zeros_like(wrong)
    count, at = 0, torch.arange(side)
    for some in task.canvases("test"):
        looks = model(some.pixels)
        wrong += (looks.logits.argmax(-1) != some.labels[:, None]).double().sum(0)
        middle = Ground(some.pixels, 1).middle(looks.places)[..., None]  # [b, looks, 2, 1]
        for wide, found in ((size, sharp), (size * 2 ** (scales - 1), any_)):
            along = (at >= middle - wide // 2) & (at < middle - wide // 2 + wide)  # [b, looks, 2, side]
            taken = along[:, :, 0, :, None] & along[:, :, 1, None, :]
            found += taken.cummax(1).values.double().mean((2, 3)).sum(0)
        count += len(some)
        if count >= most:
            break
    for look in range(model.looks):
        named = f"after {look + 1} of {model.looks} glimpses"
        report.add(f"{named}: error", 100 * float(wrong[look]) / count, "%", how=f"{count} test canvases, {READER}")
        report.add(f"{named}: numbers taken in", 100 * (look + 1) * scales * size**2 / side**2, "% of the pixels")
        report.add(f"{named}: pixels seen sharply", 100 * float(sharp[look]) / count, "%")
        report.add(f"{named}: pixels seen at all", 100 * float(any_[look]) / count, "%")


SECTIONS = {"cost": cost, "foreground": foreground, "looked": looked, "training": training}

if __name__ == "__main__":
    options = arguments(__doc__)
    torch.set_num_threads(1)
    for section in options.sections or SECTIONS:
        SECTIONS[section](Report(options.json), options.quick)
