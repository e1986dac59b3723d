"""The recurrent attention model (Mnih et al. 2014): a picture is read by a few glimpses, each of which says where the
next one is.

A glimpse is `scales` squares around one place, each twice as wide as the one before and averaged down to `size` x
`size` numbers: sharp in the middle, coarse around it. Nothing else of the picture is touched, so that what a look costs
does not depend on how large the picture is.

    seen  = relu(W [what(pixels), where(place)])      what is there, and where that is
    state = relu(V [seen, state])
    next place ~ Normal(tanh(locate(state)), std)

What is there is found by a dense layer, as in the paper, or by convolutions, which know a stroke wherever it lies:
"convolved" over all scales at once, "apart" over each by itself, as a cell of one is not where that of another is.

Places are hard choices, learned by REINFORCE with a baseline (Williams 1992); everything else by gradients. With a
`slope` they are also learned by the slope of the picture at each glimpse: a draw is its mean and noise, so what the
pixels there would become a little further on is a gradient of the mean. The glimpses are the same whole pixels.

Places are (down, across), from -1 at the middle of the first pixel to 1 at that of the last. `moves` "anywhere" says
the next one itself, as in the paper; "onward" says how far it is from this one, at most to the edge of what the widest
square showed: what was seen beside the middle is where it was seen, wherever that is on the picture. The state learns
to name the picture and is not bent towards places. "scouted" is onward, and a scout looks at the same glimpse with eyes
of its own, which learn nothing but where to go next (apart for what and where, as in Ba et al. 2015). With "sought"
the scout attends over the cells of the glimpse, of all scales at once, and the next place is in the middle of what it
reads: what is worth a look is known wherever it lies, once it is known somewhere.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from recuerdo.errors import InputError, ShapeError
from recuerdo.nn.retina import Ground, retina


@dataclass(frozen=True)
class Looks:
    """What `looks` glimpses led to: `logits` [b, looks, classes] after each, `places` [b, looks, 2]; of each place but
    the first, `log_probs` and `baselines` [b, looks - 1]: how likely the draw was, up to a constant, and which reward
    was expected."""

    logits: Tensor
    places: Tensor
    log_probs: Tensor
    baselines: Tensor


def _dense(scales: int, size: int) -> nn.Module:
    return nn.Sequential(nn.Linear(scales * size * size, 128), nn.ReLU())


def _convolved(scales: int, size: int) -> nn.Module:
    return _convolutions(scales, size, channels=16, groups=1)


def _apart(scales: int, size: int) -> nn.Module:
    return _convolutions(scales, size, channels=8 * scales, groups=scales)


def _convolutions(scales: int, size: int, *, channels: int, groups: int) -> nn.Module:
    half = -(-size // 2)
    return nn.Sequential(
        nn.Unflatten(1, (scales, size, size)),
        nn.Conv2d(scales, channels, 3, padding=1, groups=groups),
        nn.ReLU(),
        nn.Conv2d(channels, 2 * channels, 3, 2, 1, groups=groups),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(2 * channels * half * half, 128),
        nn.ReLU(),
    )


WHATS = {"dense": _dense, "convolved": _convolved, "apart": _apart}
MOVES = ("anywhere", "onward", "scouted", "sought")
BESIDE = 0.25  # of the widest square's half: so far from the middle of what was read a sought place may be


class Scout(nn.Module):
    """Attention over the cells of a glimpse: how far down and across the middle of what it reads is from the middle of
    the glimpse, [b, 2], from -1 to 1 at the edges of the widest square. The state says which scales count."""

    def __init__(self, scales: int, size: int, hidden: int):
        super().__init__()
        self.scores = nn.Sequential(
            nn.Unflatten(1, (scales, size, size)),
            nn.Conv2d(scales, 8 * scales, 3, padding=1, groups=scales),
            nn.ReLU(),
            nn.Conv2d(8 * scales, 16 * scales, 3, padding=1, groups=scales),
            nn.ReLU(),
            nn.Conv2d(16 * scales, scales, 1, groups=scales),
        )
        self.trust = nn.Linear(hidden, scales)
        along = (torch.arange(size) + 0.5) * 2 / size - 1
        cells = torch.stack(torch.meshgrid(along, along, indexing="ij"), -1)
        widths = 2.0 ** (torch.arange(scales) - scales + 1)
        self.register_buffer("cells", (widths[:, None, None, None] * cells).flatten(0, 2), persistent=False)

    def forward(self, square: Tensor, state: Tensor) -> Tensor:
        """Glimpses [b, scales * size * size] and states [b, hidden] -> [b, 2]."""
        scores = self.scores(square) + self.trust(state)[:, :, None, None]
        return scores.flatten(1).float().softmax(-1) @ self.cells


class Glimpse(nn.Module):
    """Pictures [b, height, width] -> Looks. Raises InputError for sizes that cannot be."""

    def __init__(
        self,
        classes: int,
        *,
        looks: int = 6,
        size: int = 8,
        scales: int = 1,
        hidden: int = 256,
        std: float = 0.11,
        what: str = "dense",
        moves: str = "anywhere",
    ):
        super().__init__()
        if what not in WHATS:
            raise InputError(f"there is nothing that sees {what!r}: choose {', '.join(WHATS)}")
        if moves not in MOVES:
            raise InputError(f"there are no moves {moves!r}: choose {', '.join(MOVES)}")
        if min(classes, looks, size, scales, hidden) < 1 or not std > 0:
            raise InputError("classes, looks, size, scales and hidden are 1 or more, and std is above 0")
        self.looks, self.size, self.scales, self.std = looks, size, scales, std
        self.onward = moves != "anywhere"
        self.what, self.where = WHATS[what](scales, size), nn.Sequential(nn.Linear(2, 128), nn.ReLU())
        self.glimpse = nn.Linear(256, 256)
        self.core = nn.Linear(256 + hidden, hidden)
        eyes = {"scouted": lambda: WHATS[what](scales, size), "sought": lambda: Scout(scales, size, hidden)}
        self.scout = eyes[moves]() if moves in eyes else None
        self.locate = nn.Sequential(nn.Linear(hidden + 128 * (moves == "scouted"), 128), nn.ReLU(), nn.Linear(128, 2))
        self.baseline = nn.Linear(hidden, 1)
        self.classify = nn.Linear(hidden, classes)

    def forward(self, pictures: Tensor, *, drawn: bool = False, slope: float = 0.0, sure: float = 1.0) -> Looks:
        """Pictures [b, height, width], uint8, or float from 0 to 255. The first look is at the middle; the next ones
        are `drawn`, or the likeliest. Drawn places have so much of the gradient that the `slope` of the picture gives.
        When a class of each picture has a probability above `sure`, there are no more looks. Raises ShapeError for
        other shapes."""
        if pictures.dim() != 3 or not pictures.numel():
            raise ShapeError(f"pictures are [b, height, width], one pixel or more each, not {tuple(pictures.shape)}")
        sloped = drawn and slope > 0 and torch.is_grad_enabled()
        b, ground = len(pictures), Ground(pictures, (self.size + 2 * sloped) * 2 ** (self.scales - 1))
        place = pictures.new_zeros(b, 2, dtype=self.core.weight.dtype)
        # A move goes as far as the edge of what the widest square showed.
        sides = torch.tensor(pictures.shape[1:], device=place.device)
        reach = self.size * 2 ** (self.scales - 1) / (sides - 1).clamp_min(1)
        state = place.new_zeros(b, self.core.out_features)
        states, places, means, moves = [], [place], [], []
        for look in range(self.looks):
            square = retina(ground, place, self.size, self.scales).to(state.dtype)
            seen = torch.relu(self.glimpse(torch.cat([self.what(square), self.where(place)], -1)))
            state = torch.relu(self.core(torch.cat([seen, state], -1)))
            states.append(state)
            if look + 1 == self.looks or (sure < 1 and self._sure(state) > sure):
                break
            # What a place is worth is told by reward and slope; the state is not bent towards it.
            mean = self._ahead(square.detach(), state.detach())
            if self.onward:
                mean = place.detach().float() + reach * mean
            move = (mean + self.std * torch.randn_like(mean)).detach() if drawn else mean.detach()
            means.append(mean)
            moves.append(move)
            place = move.clamp(-1, 1).to(state.dtype)
            if sloped:
                place = place + slope * (mean - mean.detach()).to(place.dtype)
            places.append(place)
        all_ = torch.stack(states, 1)
        logits, baselines = self.classify(all_).float(), self.baseline(all_[:, :-1].detach())[..., 0].float()
        if not means:
            return Looks(logits, torch.stack(places, 1), baselines, baselines)
        off = torch.stack(moves, 1) - torch.stack(means, 1)
        return Looks(logits, torch.stack(places, 1), -off.square().sum(-1) / (2 * self.std**2), baselines)

    def _ahead(self, square: Tensor, state: Tensor) -> Tensor:
        """Where to go next by what was seen and what is known: a place, or how far it is of what can be reached."""
        if isinstance(self.scout, Scout):
            return self.scout(square, state) + BESIDE * torch.tanh(self.locate(state)).float()
        known = state if self.scout is None else torch.cat([state, self.scout(square)], -1)
        return torch.tanh(self.locate(known)).float()

    @torch.no_grad()
    def _sure(self, state: Tensor) -> float:
        """The probability of the likeliest class, of the picture where that is least."""
        return float(self.classify(state).float().softmax(-1).amax(-1).min())
