"""Bend a read: change how much of it goes to marked keys, exactly, at the memory of the fused kernel.

Beside the read itself only the marked keys are read once more: mixed value o_S and log-mass lse_S. With m = exp(lse_S -
lse) the mass they have and w the mass they shall have,

    o' = (1 - w) / (1 - m) * o  +  (w - m (1 - w) / (1 - m)) * o_S

Where a row's other keys hold next to nothing and shall get much more, 1 - m has lost its digits: there the other keys
are read as well, and the two parts are put together without a division. `recuerdo.read.remix` says what w is.
"""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from recuerdo.errors import ReadError
from recuerdo.read.blocks import row_blocks
from recuerdo.read.fused import fused_read, fused_refuses
from recuerdo.read.merge import Part
from recuerdo.read.normalise import Linear
from recuerdo.read.pairing import ALL, Pairing, grouped_mix
from recuerdo.read.partial import Piece, joined_lse, joined_mixed, nothing, pieces_of, rows_of, without
from recuerdo.read.plain import log_mass
from recuerdo.read.remix import Bend, RegionBias, Regions, Share, log_factors, touched
from recuerdo.read.trace import Bent, Reading

LOST = 2.0  # where the rest of a row grows more than so many times it is read for itself: rounding grows as much
ROWS_AT_ONCE = 128
KEPT_AT_MOST = 2**24  # weights of other normalisers than softmax are kept: so many numbers, and no more


def bend(reading: Reading, bends: Bend | Sequence[Bend], *, in_place: bool = False) -> Reading:
    """The same read with other masses: Odds, Share and mute on marked keys (`recuerdo.read.remix` has the arithmetic).

    The result is a Reading like any other: `mixed`, exact `weights`, `mass`, summaries, gradients. Its `lse` is that
    of the read before, and `bent` tells the masses of every bend, before and after. Costs one small read of the marked
    keys; memory O(N). With `in_place` the mixed values of `reading` may be written over, which spares a copy. Of a
    linear read, whose weights are no shares of a whole, the masses tell nothing.

    Raises ShapeError for bends that do not fit the read, ReadError for bends that contradict each other, for a reading
    that is bent already, and for long reads whose normaliser is not softmax.
    """
    bends = (bends,) if isinstance(bends, Bend) else tuple(bends)
    if reading.bent is not None:
        raise ReadError("this reading is bent already: bend the read once, with all its bends together")
    if not bends:
        return reading
    regions = Regions.of_bends(bends, reading.shape)
    pairing, value = reading.pairing, reading.value
    if reading.lse is None:
        return _bend_kept(reading, regions)
    if reading.kept is None and fused_refuses(pairing) is None:
        mixed, masses, factors = _bend_fused(reading, regions, in_place)
    else:
        mixed, masses, factors = _bend_blocks(pairing, value, regions)
        mixed = torch.where(touched(masses, regions)[..., None], mixed, reading.mixed)  # not even other rounding
    bias = RegionBias(factors.movedim(0, -1), regions.of)
    bent = replace(pairing, biases=(*pairing.biases, bias))
    out = Reading(Part(mixed, reading.lse), bent, value, path=reading.path)
    out.bent = Bent(regions, masses.movedim(0, -1), factors.movedim(0, -1))
    return out


# ------------------------------------------------------------------------------------------------------------- fused


def _bend_fused(reading: Reading, regions: Regions, in_place: bool) -> tuple[Tensor, Tensor, Tensor]:
    """(mixed [b, h, q, e], log-masses and log-factors [r + 1, b, h, q])."""
    pairing, value, lse, mixed = reading.pairing, reading.value, reading.part.lse, reading.mixed
    parts = [pieces_of(pairing, value, regions.keys(i)) for i in range(regions.count)]
    nothing_read = torch.isneginf(lse)
    own = torch.stack([joined_lse(pairing, pieces) for pieces in parts])
    marked = own - lse.masked_fill(nothing_read, 0.0)
    before = marked.exp()
    shares = before.sum(0)
    lost = _lost(marked.detach(), shares.detach(), regions)
    if lost is None:
        masses = torch.cat([marked, _rest(shares, nothing_read)[None]])
        factors = log_factors(masses, regions)
        scale = factors[-1].exp()
        base, kept = mixed, scale
    else:
        other = _read_rest(pairing, value, regions.of < regions.count, lost.any(0).any(0))
        rest = torch.where(lost, other.lse - lse, _rest(shares.masked_fill(lost, 0.5), nothing_read))
        masses = torch.cat([marked, rest[None]])
        # The masses of these rows shall sum to one to the last digit.
        total = torch.logsumexp(masses.masked_fill(nothing_read, 0.0), 0)
        masses = torch.where(lost & ~nothing_read, masses - total, masses)
        factors = log_factors(masses, regions)
        base, kept = torch.where(lost[..., None], other.mixed, mixed), factors[-1].exp()
        scale = torch.where(lost, (masses[-1] + factors[-1]).exp(), kept)
        kept = kept.masked_fill(lost, 0.0)
    by = scale[..., None].to(base.dtype)
    out = base.mul_(by) if (in_place or base is not mixed) and not base.requires_grad else base * by
    share = (masses[:-1] + factors[:-1]).exp() - before * kept
    for i, pieces in enumerate(parts):
        out = _plus(out, share[i], pieces)
    return out, masses, factors


def _rest(shares: Tensor, nothing_read: Tensor) -> Tensor:
    """The log-mass of what is not marked, `1 - shares`."""
    return torch.log1p(-shares.clamp_max(1 - torch.finfo(shares.dtype).eps)).masked_fill(nothing_read, -torch.inf)


def _lost(marked: Tensor, shares: Tensor, regions: Regions) -> Tensor | None:
    """Rows whose rest shall grow so much that `1 - m` has too few digits, [b, h, q] bool; None when there are none."""
    if bool(shares.amax() <= 1 - 1 / LOST):  # the rest never grows more than 1 / (1 - m) times
        return None
    masses = torch.cat([marked, _rest(shares, torch.zeros_like(shares, dtype=torch.bool))[None]])
    lost = log_factors(masses, regions)[-1].exp() > LOST
    return lost if bool(lost.any()) else None


def _plus(out: Tensor, share: Tensor, pieces: list[Piece]) -> Tensor:
    """out + share * mixed of the pieces; `out` is our own, so without gradients it is written over."""
    if not pieces:
        return out
    if out.requires_grad or pieces[0][1].mixed.requires_grad:
        return torch.addcmul(out, joined_mixed(pieces), share[..., None].to(out.dtype))
    for rows, part in pieces:
        out[:, :, rows].addcmul_(part.mixed, share[:, :, rows, None].to(out.dtype))
    return out


def _read_rest(pairing: Pairing, value: Tensor, keys: Tensor, rows: Tensor) -> Part:
    """The read without these keys, for blocks that hold any of `rows` [q] bool; elsewhere zeros."""
    pairing = without(pairing, keys)
    q = pairing.shape[2]
    blocks = [slice(a, min(a + ROWS_AT_ONCE, q)) for a in range(0, q, ROWS_AT_ONCE)]
    asked = [bool(rows[block].any()) for block in blocks]
    if 3 * sum(asked) > len(asked):
        return fused_read(pairing, value)
    parts = [
        rows_of(pairing, value, block) if some else nothing(pairing, value, block.stop - block.start)
        for block, some in zip(blocks, asked, strict=True)
    ]
    return Part(torch.cat([p.mixed for p in parts], 2), torch.cat([p.lse for p in parts], 2))


# ------------------------------------------------------------------------------------------------- any score, by blocks


def _bend_blocks(pairing: Pairing, value: Tensor, regions: Regions) -> tuple[Tensor, Tensor, Tensor]:
    """The same for every score and bias under softmax, row block after row block."""
    out = []
    for rows, cols in row_blocks(pairing):
        arguments = (pairing, value, regions, rows, cols)
        if torch.is_grad_enabled():
            out.append(checkpoint(_bend_block, *arguments, use_reentrant=False, preserve_rng_state=False))
        else:
            out.append(_bend_block(*arguments))
    mixed, masses, factors = (torch.cat(parts, at) for at, parts in zip((2, 3, 3), zip(*out, strict=True), strict=True))
    return mixed, masses, factors


def _bend_block(pairing: Pairing, value: Tensor, regions: Regions, rows: slice, cols: slice):
    scores = pairing.scores(rows, cols)
    lse = log_mass(scores)
    of = regions.of[:, cols][:, None, None]
    parts = [log_mass(scores.masked_fill(of != i, -torch.inf)) for i in range(regions.count + 1)]
    masses = torch.stack(parts) - lse.masked_fill(torch.isneginf(lse), 0.0)
    some = tuple(replace(x, rows=None if x.rows is None else x.rows[..., rows]) for x in regions.bends)
    factors = log_factors(masses, replace(regions, bends=some))
    bias = RegionBias(factors.movedim(0, -1), regions.of[:, cols]).block(ALL, ALL, pairing.extent, scores.device)
    weights = pairing.normalise(scores + bias)
    return grouped_mix(weights.to(value.dtype), value[:, :, cols]), masses, factors


def _bend_kept(reading: Reading, regions: Regions) -> Reading:
    """Other normalisers: the weights of every region are scaled; the row keeps its sum. All weights are kept."""
    b, h, q, k = reading.shape
    if b * h * q * k > KEPT_AT_MOST:
        name = type(reading.pairing.normalise).__name__
        raise ReadError(
            f"bending a read under {name} keeps all its weights, and {b} x {h} x {q} x {k} are too many: "
            "use softmax, or shorter reads"
        )
    weights = reading.weights[:, :]
    of = regions.of[:, None, None]
    if isinstance(reading.pairing.normalise, Linear):
        masses = _next_to_nothing(weights, of, regions)
    else:
        shares = torch.stack([weights.masked_fill(of != i, 0.0).sum(-1) for i in range(regions.count + 1)])
        total = shares.sum(0)
        nothing = shares <= 0
        masses = torch.where(
            nothing, -torch.inf, shares.masked_fill(nothing, 1.0).log() - total.masked_fill(total <= 0, 1.0).log()
        )
    factors = log_factors(masses, regions)
    bias = RegionBias(factors.movedim(0, -1), regions.of).block(ALL, ALL, reading.pairing.extent, weights.device)
    weights = weights * bias.exp()
    value = reading.value
    part = Part(grouped_mix(weights.to(value.dtype), value), weights.new_full(weights.shape[:-1], torch.nan))
    out = Reading(part, reading.pairing, value, path=reading.path, kept=lambda: weights)
    out.bent = Bent(regions, masses.movedim(0, -1), factors.movedim(0, -1))
    return out


def _next_to_nothing(weights: Tensor, of: Tensor, regions: Regions) -> Tensor:
    """Log-masses for weights that are no shares, [count + 1, b, h, q]: what is marked holds so little beside the rest
    that the rest stays as it is, and odds multiply the marked weights alone."""
    if any(isinstance(bend, Share) and torch.as_tensor(bend.amount).any() for bend in regions.bends):
        raise ReadError("the weights of a linear read are no shares of a whole: multiply their odds, or mute keys")
    held = torch.stack([(of == i).any(-1).expand(weights.shape[:-1]) for i in range(regions.count)])
    marked = torch.where(held, weights.new_tensor(-200.0), weights.new_tensor(-torch.inf))
    return torch.cat([marked, weights.new_zeros(1, *weights.shape[:-1])])
