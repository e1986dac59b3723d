"""Several things on one picture, read one after the other by glimpses until nothing is left (after DRAM: Ba, Mnih &
Kavukcuoglu 2015).

A coarse look at the whole picture says where something is; glimpses at full sharpness say what. Two recurrent networks
go on together: one puts together what was seen, one decides where to look.

    cells  = convolutions over the picture, 4 x 4 pixels averaged
    where  = read(state of the second, cells)        a place for each look: the middle of the cell that it takes
    first  = cell([what a glimpse there saw, where it was, mixed cells], first)
    second = cell([first, mixed cells], second)
    answer = classify(first)                         after every `looks` looks; the last class is "no more"

The paper draws a place from a Gaussian. Here it is a cell of the coarse look, drawn by the weights of a read in
training (REINFORCE with a baseline) and the likeliest otherwise: so where it looks is a read with an address,
`where@0`, `where@1`, …, that can be watched, and bent: a muted cell is looked at by no glimpse.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from recuerdo.errors import InputError, ShapeError
from recuerdo.nn.grid import whereabouts
from recuerdo.nn.retina import WHITE, Ground, retina
from recuerdo.read import Reading, read, scaled_dot

COARSE = 4  # pixels, down and across, that are averaged for the look at the whole picture
LEAST = 1e-9


@dataclass(frozen=True)
class Reads:
    """What glimpses led to, of each look [b, answers, looks, …]: the `logits` of the classes after it, of which the
    last of an answer count; its place, (down, across) from -1 to 1; the `weights` of the cells that it was taken from,
    how likely that was, `log_probs`, and which reward was expected, `baselines`."""

    logits: Tensor
    places: Tensor
    weights: Tensor
    log_probs: Tensor
    baselines: Tensor


class Where(nn.Module):
    """Rows [b, hidden] read the cells: a module by itself, so that the read has an address."""

    def __init__(self, hidden: int, width: int):
        super().__init__()
        self.query = nn.Linear(hidden, width)

    def forward(self, rows: Tensor, keys: Tensor, values: Tensor) -> Reading:
        """Keys and values [b, 1, cells, width]."""
        # Its weights are needed at every look, with gradients: the path that keeps them takes a quarter off a step.
        return read(self.query(rows)[:, None, None], keys, values, score=scaled_dot, path="matmul")


class Glimpses(nn.Module):
    """Pictures [b, height, width] -> Reads of `answers` answers, `classes` and one for "no more". Raises InputError for
    sizes that cannot be."""

    def __init__(
        self,
        classes: int,
        answers: int,
        *,
        looks: int = 2,
        size: int = 12,
        scales: int = 2,
        width: int = 64,
        hidden: int = 256,
    ):
        super().__init__()
        if min(classes, answers, looks, size, scales, width, hidden) < 1:
            raise InputError("classes, answers, looks, size, scales, width and hidden are 1 or more")
        self.answers, self.looks, self.size, self.scales = answers, looks, size, scales
        self.coarse = nn.Sequential(
            nn.Conv2d(1, width // 2, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(width // 2, width, 3, 2, 1),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1),
            nn.ReLU(),
        )
        self.at = nn.Linear(16, width)
        self.norm, self.key = nn.LayerNorm(width), nn.Linear(width, width)
        self.where = Where(hidden, width)
        side = -(-size // 2)
        self.what = nn.Sequential(
            nn.Conv2d(scales, 32, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(32, 64, 3, 2, 1),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(64 * side * side, hidden),
        )
        self.place = nn.Sequential(nn.Linear(2, hidden), nn.ReLU(), nn.Linear(hidden, hidden))
        self.first = nn.LSTMCell(hidden + width, hidden)
        self.second = nn.LSTMCell(hidden + width, hidden)
        self.begin = nn.Linear(width, hidden)
        self.baseline = nn.Linear(hidden, 1)
        self.classify = nn.Linear(hidden, classes + 1)

    def forward(self, pictures: Tensor, *, drawn: bool = False) -> Reads:
        """Pictures [b, height, width], uint8, or float from 0 to 255. Where to look is `drawn`, or the likeliest.
        Raises ShapeError for other shapes."""
        if pictures.dim() != 3 or not pictures.numel():
            raise ShapeError(f"pictures are [b, height, width], one pixel or more each, not {tuple(pictures.shape)}")
        ground = Ground(pictures, self.size * 2 ** (self.scales - 1))
        values, middles = self._cells(pictures)
        keys, values = self.key(values)[:, None], values[:, None]
        one = two = None
        row = torch.tanh(self.begin(values[:, 0].mean(1)))
        found: dict[str, list[Tensor]] = {name: [] for name in ("logits", "places", "weights", "logs", "expected")}
        for _ in range(self.answers * self.looks):
            found["expected"].append(self.baseline(row.detach())[:, 0].float())
            reading = self.where(row, keys, values)
            weights, mixed = reading.weights[:, :][:, 0, 0].float(), reading.mixed[:, 0, 0]
            at = torch.multinomial(weights.detach(), 1)[:, 0] if drawn else weights.argmax(-1)
            place = middles[at]
            square = retina(ground, place, self.size, self.scales).view(-1, self.scales, self.size, self.size)
            seen = torch.relu(self.what(square.to(row.dtype))) * torch.relu(self.place(place.to(row.dtype)))
            one = self.first(torch.cat([seen, mixed], -1), one)
            two = self.second(torch.cat([one[0], mixed], -1), two)
            row = two[0]
            found["places"].append(place)
            found["weights"].append(weights)
            found["logs"].append(weights.gather(1, at[:, None])[:, 0].clamp_min(LEAST).log())
            found["logits"].append(self.classify(one[0]).float())
        each = (torch.stack(some, 1).unflatten(1, (self.answers, self.looks)) for some in found.values())
        return Reads(*each)

    def grid(self, pictures: Tensor) -> tuple[int, int]:
        """Rows and columns of the cells of the coarse look."""
        down, across = ((side + 2 * COARSE - 1) // (2 * COARSE) for side in pictures.shape[1:])
        return down, across

    def _cells(self, pictures: Tensor) -> tuple[Tensor, Tensor]:
        """What each cell of the coarse look says, [b, cells, width], and the places of their middles, [cells, 2]."""
        height, width = pictures.shape[1:]
        edge = (0, -width % COARSE, 0, -height % COARSE)
        told = functional.avg_pool2d(functional.pad(pictures[:, None].float() / WHITE, edge), COARSE)
        cells = self.coarse(told).permute(0, 2, 3, 1)
        cells = self.norm(cells + self.at(whereabouts(*cells.shape[1:3], cells)))
        down, across = (2 * (torch.arange(n, device=cells.device) + 0.5) / n - 1 for n in cells.shape[1:3])
        return cells.flatten(1, 2), torch.cartesian_prod(down, across)
