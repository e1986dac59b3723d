"""Bends: what a person asks of a read, and the arithmetic of masses that it comes to.

A softmax read splits into regions of keys, each with a log-mass and its own mixed value. A bend changes the masses
and nothing else: inside a region the weights keep their proportions. So a bent read is the same read with one more
bias per row and region, `RegionBias`, and everything that can be asked of a read can be asked of a bent one.

With m the mass of the marked keys in a row, and w what it becomes:

    Odds(f)    w = f m / (f m + 1 - m)     the odds w : 1 - w are f times what they were; a bias of log f
    Share(s)   w = s                       exactly, in every row that sees a marked key and another
    Share(0)   w = 0                       mute: as if the marked keys did not exist

Rows that see no marked key stay what they are. Where a row sees *only* marked keys, a share is 1 whatever was asked,
and mute has no right answer: such a row is left as it is.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from recuerdo.errors import ReadError, ShapeError
from recuerdo.read.mask import Extent, as_part

LARGEST_FACTOR = 1e6


@dataclass(frozen=True, eq=False)
class Bend:
    """One wish for one read: `keys` [k] or [b, k] bool, all bool; narrowed to `heads` [h], `rows` [q] or [b, q].

    Use Odds, Share or mute to make one.
    """

    keys: Tensor
    amount: float | Tensor
    heads: Tensor | None = None
    rows: Tensor | None = None

    def __post_init__(self) -> None:
        for name, tensor, dims in (
            ("keys", self.keys, (1, 2)),
            ("heads", self.heads, (1,)),
            ("rows", self.rows, (1, 2)),
        ):
            if tensor is not None and (tensor.dtype != torch.bool or tensor.dim() not in dims):
                shape = "[b, n] or [n]" if 2 in dims else "[n]"
                raise ShapeError(
                    f"the {name} of a bend are a bool tensor {shape}, not {tensor.dtype} {tuple(tensor.shape)}"
                )

    def active(self) -> Tensor:
        """Where it holds: bool, broadcasts to [b, h, q]."""
        here = torch.ones((1, 1, 1), dtype=torch.bool, device=self.keys.device)
        if self.heads is not None:
            here = here & self.heads[None, :, None]
        if self.rows is not None:
            here = here & (self.rows[None, None] if self.rows.dim() == 1 else self.rows[:, None])
        return here


@dataclass(frozen=True, eq=False)
class Odds(Bend):
    """Multiply the odds of the marked keys by `amount`: more than 1 boosts, less than 1 damps; [h] = one for each head.

    Differentiable in the amount.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        amounts = self.amount.detach().flatten().tolist() if isinstance(self.amount, Tensor) else [self.amount]
        if not all(math.isfinite(x) and 1 / LARGEST_FACTOR <= x <= LARGEST_FACTOR for x in amounts):
            raise ReadError(
                f"odds are multiplied by a factor from 1e-6 to 1e6, not {self.amount}: use mute to remove keys"
            )


@dataclass(frozen=True, eq=False)
class Share(Bend):
    """Give the marked keys together exactly the share `amount` of every row that can; [h] = one for each head."""

    def __post_init__(self) -> None:
        super().__post_init__()
        amounts = self.amount.detach().flatten().tolist() if isinstance(self.amount, Tensor) else [self.amount]
        if not all(0.0 <= x <= 1.0 for x in amounts):
            raise ReadError(f"a share is from 0 to 1, not {self.amount}")

    def of_rows(self) -> float | Tensor:
        """The amount, so that it broadcasts to [b, h, q]."""
        return self.amount[None, :, None] if isinstance(self.amount, Tensor) else self.amount


def mute(keys: Tensor, heads: Tensor | None = None, rows: Tensor | None = None) -> Share:
    """Take the marked keys out of the read, exactly."""
    return Share(keys, 0.0, heads, rows)


@dataclass(frozen=True, eq=False)
class Regions:
    """The keys of a read by the bends that hold them: `of` [b or 1, k], the last region (`count`) = no bend, the rest.

    Bends that act on different rows or heads may hold the same keys: then a region is what the same bends hold, and
    `held` [count, r] says by which.
    """

    bends: tuple[Bend, ...]
    of: Tensor
    held: Tensor

    @classmethod
    def of_bends(cls, bends: "tuple[Bend, ...]", shape: tuple[int, int, int, int]) -> "Regions":
        """Raises ShapeError for bends that do not fit a read [b, h, q, k], ReadError for those that contradict."""
        for bend in bends:
            _check_fits(bend, shape)
        keys = [bend.keys if bend.keys.dim() == 2 else bend.keys[None] for bend in bends]
        keys = [x.expand(max(len(y) for y in keys), -1) for x in keys]
        _check_shares(bends, keys)
        of, count = (
            torch.full(keys[0].shape, len(bends), device=keys[0].device),
            torch.zeros_like(keys[0], dtype=torch.long),
        )
        for number, x in enumerate(keys):
            of, count = torch.where(x, number, of), count + x
        if not bool((count > 1).any()):
            return cls(bends, of, torch.eye(len(bends), dtype=torch.bool, device=of.device))
        _check_overlaps(bends, keys)
        held, of = torch.unique(torch.stack(keys).flatten(1), dim=1, return_inverse=True)
        nobody = (~held.any(0)).nonzero()[:, 0]  # sorted, so it is the first, if there
        of = (of - len(nobody)) % (held.shape[1] + 1 - len(nobody)) if len(nobody) else of
        return cls(bends, of.view(keys[0].shape), held[:, len(nobody) :].mT)

    @property
    def count(self) -> int:
        """How many regions some bend holds."""
        return self.held.shape[0]

    def keys(self, number: int) -> Tensor:
        """The keys of one region, [b or 1, k] bool."""
        return self.of == number

    def of_bend(self, log_mass: Tensor, number: int) -> Tensor:
        """The log-mass of all keys of one bend, from that of the regions [count (+ 1), ...]."""
        own = self.held[:, number].nonzero()[:, 0].tolist()
        if len(own) == 1:
            return log_mass[own[0]]
        parts = log_mass[own] if own else torch.full_like(log_mass[:1], -torch.inf)
        unseen = torch.isneginf(parts).all(0)
        return torch.logsumexp(parts.masked_fill(unseen, 0.0), 0).masked_fill(unseen, -torch.inf)


def _check_fits(bend: Bend, shape: tuple[int, int, int, int]) -> None:
    b, h, q, k = shape
    fits = [bend.keys.shape[-1] == k, bend.keys.dim() == 1 or bend.keys.shape[0] in (1, b)]
    if isinstance(bend.amount, Tensor):
        fits.append(bend.amount.shape == (h,))
    if bend.heads is not None:
        fits.append(bend.heads.shape[0] == h)
    if bend.rows is not None:
        fits += [bend.rows.shape[-1] == q, bend.rows.dim() == 1 or bend.rows.shape[0] in (1, b)]
    if not all(fits):
        told = {n: tuple(t.shape) for n, t in vars(bend).items() if isinstance(t, Tensor)}
        raise ShapeError(f"a bend {told} does not fit a read of shape {shape} [b, h, q, k]")


def _check_shares(bends: tuple[Bend, ...], keys: list[Tensor]) -> None:
    shares = sum(
        (bend.active() & held.any(-1)[:, None, None]) * bend.of_rows()
        for bend, held in zip(bends, keys, strict=True)
        if isinstance(bend, Share)
    )
    if isinstance(shares, Tensor) and float(shares.max()) > 1 + 1e-6:
        raise ReadError(f"the shares that are asked for sum to {float(shares.max()):.3g}: at most 1 can be given")


def _check_overlaps(bends: tuple[Bend, ...], keys: list[Tensor]) -> None:
    for number, bend in enumerate(bends):
        for other in range(number):
            both = keys[number] & keys[other]
            if bool(both.any()) and bool((bend.active() & bends[other].active() & both.any(-1)[:, None, None]).any()):
                raise ReadError(f"key {int(both.any(0).nonzero()[0])} is held by two bends: a key can be in one only")


def touched(log_mass: Tensor, regions: Regions) -> Tensor:
    """Rows that a bend can change, [b, h, q] bool; `log_mass` as for `log_factors`."""
    found = torch.zeros_like(log_mass[0], dtype=torch.bool)
    for number, bend in enumerate(regions.bends):
        found |= bend.active() & ~torch.isneginf(regions.of_bend(log_mass[:-1], number))
    return found


def log_factors(log_mass: Tensor, regions: Regions) -> Tensor:
    """By how much (log) the weights of each region change: [count + 1, b, h, q] -> the same shape.

    `log_mass` holds the log-mass of every region, the rest last; -inf = nothing of it is visible. The masses of a row
    sum to one. Differentiable in the masses.
    """
    visible = ~torch.isneginf(log_mass)
    safe = log_mass.masked_fill(~visible, 0.0)
    shape = log_mass.shape[1:]
    factor = torch.zeros_like(log_mass)  # log-factors of odds, and of shares
    given = log_mass.new_zeros(shape)  # shares together
    fixed = torch.zeros_like(visible)
    for number, bend in enumerate(regions.bends):
        here, amount = bend.active().expand(shape), bend.amount
        own = regions.held[:, number].nonzero()[:, 0].tolist()
        if isinstance(bend, Share):
            mass = regions.of_bend(log_mass[:-1], number)
            seen = here & ~torch.isneginf(mass)
            share = bend.of_rows()
            share = share.to(factor.dtype) if isinstance(share, Tensor) else share
            given = given + seen.to(given.dtype) * share
            log_share = share.log() if isinstance(share, Tensor) else math.log(share) if share else -math.inf
            asked = log_share - mass.masked_fill(~seen, 0.0)
            for i in own:
                fixed[i] |= here & visible[i]
                factor[i] = torch.where(here & visible[i], asked, factor[i])
            continue
        log = amount.to(factor.dtype).log()[None, :, None] if isinstance(amount, Tensor) else math.log(amount)
        for i in own:
            factor[i] = factor[i] + here.to(factor.dtype) * log
    # What is not given away as a fixed share is divided as before, by mass times factor.
    free = visible & ~fixed
    has_free = free.any(0)
    pool = (safe + factor).masked_fill(~free, -torch.inf)
    total = torch.logsumexp(pool.masked_fill(~has_free, 0.0), 0)
    given = given.clamp_max(1.0)
    asked = factor
    if not bool(has_free.all()):  # rows that see marked keys only: the shares are made to sum to one
        asked = factor - given.clamp_min(1e-30).log().masked_fill(has_free, 0.0)
    out = torch.where(fixed, asked, factor + (torch.log1p(-given) - total))
    moved = visible & (has_free | (given > 0))
    if any(bend.heads is not None or bend.rows is not None for bend in regions.bends):
        moved &= touched(log_mass, regions)  # rows that no bend touches stay what they are, to the last bit
    return torch.where(moved, out, 0.0)


@dataclass(frozen=True, eq=False)
class RegionBias:
    """A bias for every row and region: `values` [b, h, q, r + 1], the region of every key `of` [b or 1, k]."""

    values: Tensor
    of: Tensor

    def block(self, rows: slice, cols: slice, extent: Extent, device: torch.device) -> Tensor:
        """[b, h, n, m]."""
        values, of = as_part(self.values, -2, rows), self.of[:, cols]
        b, h, n, _ = values.shape
        index = of[:, None, None].expand(b, h, n, of.shape[-1])
        return values.gather(-1, index) if of.shape[-1] else values.new_zeros(b, h, n, 0)
