"""Summaries of a read at O(N) memory.

Most pictures of attention are attention again, by the same kernel with another value: the mass on a region (value =
the region), the entropy (value = the keys), what every key receives (queries and keys swapped, minus the log-mass as
bias; described before in awslabs/keys_values#77). What needs whole rows, such as the strongest keys, is one pass over
row blocks.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import wraps
from itertools import product
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from recuerdo.errors import ReadError, ShapeError
from recuerdo.read.blocks import row_blocks, tiled_read
from recuerdo.read.fused import fused_read, fused_refuses
from recuerdo.read.mask import Added
from recuerdo.read.pairing import ALL, Pairing, expand_heads, grouped_mix
from recuerdo.read.partial import joined_lse, pieces_of
from recuerdo.read.score import Product

if TYPE_CHECKING:
    from recuerdo.read.trace import Reading

PASS_ROWS = 128  # rows at once in the pass of `summarise`: fewer make thin products, more leave the cache
GROUP = 8  # keys in a group: the strongest keys are found by ranking groups by their best


class Top(NamedTuple):
    """The strongest keys of each query, strongest first: both [b, h, q, k]. Weight 0 has index -1."""

    weights: Tensor
    indices: Tensor


@dataclass(frozen=True, eq=False)
class Summary:
    """`entropy` [b, h, q], `received` [b, h, k], `top` and `overview` [b, h, rows, columns] (see Reading)."""

    entropy: Tensor
    received: Tensor
    top: Top
    overview: Tensor


def _on_its_device(function: Callable[..., Any]) -> Callable[..., Any]:
    """New tensors of the function lie where the reading's do."""

    @wraps(function)
    def there(reading: "Reading", *args: Any, **kwargs: Any) -> Any:
        device = reading.value.device
        if device.type == "cpu":
            return function(reading, *args, **kwargs)
        with torch.device(device):
            return function(reading, *args, **kwargs)

    return there


# ------------------------------------------------------------------------------------------------- exact rectangles


def weights(reading: "Reading", rows: slice, cols: slice) -> Tensor:
    """The exact weights of a rectangle, [b, h, n, m]."""
    kept = reading.kept
    if kept is not None:
        return kept[:, :, rows, cols]
    pairing = reading.pairing
    if reading.lse is not None:
        lse = reading.lse[:, :, rows]
        lse = lse.masked_fill(torch.isneginf(lse), 0.0)  # an empty row: its scores are -inf, its weights 0
        return (pairing.scores(rows, cols) - lse[..., None]).exp()
    if not pairing.normalise.sequential:
        return pairing.normalise(pairing.scores(rows, ALL))[..., cols]
    from_the_start = pairing.normalise(pairing.scores(slice(0, rows.stop), ALL))
    return from_the_start[..., rows, cols]


@_on_its_device
def diagonal(reading: "Reading") -> Tensor:
    """See Reading.diagonal: small tiles along it."""
    b, h, q, _ = reading.shape
    out = torch.zeros(b, h, q, dtype=reading.pairing.working_type)
    offset = reading.pairing.extent.offset
    for start in range(max(0, -offset), q, 64):
        rows = slice(start, min(start + 64, q))
        tile = weights(reading, rows, slice(start + offset, rows.stop + offset))
        out[..., rows] = tile.diagonal(dim1=-2, dim2=-1)
    return out


def _in_working_type(pairing: Pairing) -> Pairing:
    return pairing.with_tensors(pairing.query.to(pairing.working_type), pairing.key.to(pairing.working_type))


def mix(reading: "Reading", value: Tensor) -> Tensor:
    """The same read with other values [b, g or h, k, e] -> [b, h, q, e], in the working type."""
    kept = reading.kept
    if kept is not None:
        return grouped_mix(kept, value.to(kept.dtype))
    pairing = _in_working_type(reading.pairing)
    value = value.to(pairing.query.dtype)
    if value.shape[1] != pairing.key.shape[1]:
        pairing = pairing.with_tensors(pairing.query, expand_heads(pairing.key, pairing.groups))
    path = tiled_read if fused_refuses(pairing) is not None else fused_read
    width = max(pairing.query.shape[-1], 16)  # the kernel's cost grows with the wider side
    return torch.cat([path(pairing, part).mixed for part in value.split(width, -1)], -1)


def mass(reading: "Reading", regions: Tensor) -> Tensor:
    """See Reading.mass."""
    b, _, _, k = reading.shape
    if regions.dim() == 1:
        regions = regions[:, None]
    if regions.dim() not in (2, 4) or regions.shape[-2] != k:
        raise ShapeError(f"regions are [k, r] or [b, 1, k, r] with k = {k} keys, not {tuple(regions.shape)}")
    heads = reading.pairing.key.shape[1]
    return mix(reading, regions.to(reading.pairing.working_type).expand(b, heads, k, regions.shape[-1]))


def log_mass(reading: "Reading", keys: Tensor) -> Tensor:
    """See Reading.log_mass."""
    b, _, _, k = reading.shape
    if (
        keys.dtype != torch.bool
        or keys.shape[-1] != k
        or keys.dim() not in (1, 2)
        or keys.shape[:-1] not in ((), (1,), (b,))
    ):
        raise ShapeError(
            f"keys are marked by a bool tensor [k] or [b, k] with k = {k}, not {keys.dtype} {tuple(keys.shape)}"
        )
    if reading.lse is not None and reading.kept is None and fused_refuses(reading.pairing) is None:
        lse = reading.lse.masked_fill(torch.isneginf(reading.lse), 0.0)
        return joined_lse(reading.pairing, pieces_of(reading.pairing, reading.value, keys)) - lse
    share = mass(
        reading, keys.to(reading.pairing.working_type).reshape(-1, 1, k, 1) if keys.dim() == 2 else keys[:, None]
    )[..., 0]
    unseen = share <= 0
    return share.masked_fill(unseen, 1.0).log().masked_fill(unseen, -torch.inf)


def entropy(reading: "Reading") -> Tensor:
    """See Reading.entropy: lse minus the mean score, which is the query times the mixed keys."""
    pairing = reading.pairing
    simple = all(
        isinstance(b, Added) and b.per_key and not bool(torch.isneginf(b.values).any()) for b in pairing.biases
    )
    if reading.lse is None or pairing.scale is None or not simple or reading.kept is not None:
        return summarise(reading, top=0, bins=0).entropy
    keys = mix(reading, pairing.key)
    mean_score = pairing.scale * (pairing.query.to(keys.dtype) * keys).sum(-1)
    b, _, _, k = reading.shape
    for bias in pairing.biases:
        per_key = bias.block(ALL, ALL, pairing.extent, keys.device)[..., 0, :]
        mean_score = mean_score + mix(reading, per_key.expand(b, reading.shape[1], k)[..., None])[..., 0]
    nothing = torch.isneginf(reading.lse)
    return (reading.lse - mean_score).masked_fill(nothing, 0.0)


@_on_its_device
def received(reading: "Reading", rows: Tensor | None = None) -> Tensor:
    """See Reading.received: the log-mass of the swapped read, whose bias is minus the log-mass of the rows."""
    pairing = reading.pairing
    square_causal = pairing.mask.causal and pairing.extent.offset == 0
    plain_mask = pairing.mask.structural and not pairing.mask.banded and (square_causal or not pairing.mask.causal)
    if (
        reading.lse is None
        or pairing.biases
        or not plain_mask
        or reading.kept is not None
        or rows is not None
        or fused_refuses(pairing) is not None
    ):
        return _received_by_rows(reading, rows)
    query, key, lse = pairing.query, expand_heads(pairing.key, pairing.groups), reading.lse
    query, key = query.to(pairing.working_type), key.to(pairing.working_type)
    if square_causal:  # "queries from j on" is an ordinary causal read of the reversed sequence
        query, key, lse = query.flip(2), key.flip(2), lse.flip(2)
    bias = -lse[:, :, None].contiguous()  # as the kernel gives it, every key would be a step apart: twice the time
    swapped = Pairing(key, query, pairing.scale, Product(), pairing.mask, (Added(bias),), pairing.normalise)
    log_mass = fused_read(swapped, query).lse
    return (log_mass.flip(2) if square_causal else log_mass).exp()


def _received_by_rows(reading: "Reading", rows: Tensor | None) -> Tensor:
    b, h, q, k = reading.shape
    if rows is not None and (rows.dim() > 3 or rows.shape[-1] != q):
        raise ShapeError(f"row weights are [q] or [b, h, q] with q = {q} queries, not {tuple(rows.shape)}")
    kept = reading.kept
    if kept is not None:
        seen = kept if rows is None else kept * rows.to(kept.dtype).expand(b, h, q)[..., None]
        return seen.sum(2)
    if rows is None:
        return summarise(reading, top=0, bins=0).received
    with torch.no_grad():
        total = torch.zeros(b, h, k, dtype=reading.pairing.working_type)
        by_row = rows.to(total.dtype).expand(b, h, q)
        for part, cols in row_blocks(reading.pairing):
            if bool(by_row[..., part].any()):
                total[..., cols] += (by_row[..., None, part] @ weights(reading, part, cols))[..., 0, :]
    return total


# ---------------------------------------------------------------------------------------- one pass over row blocks


class _Tile(NamedTuple):
    """Weights [m, n, c] of some of the flattened heads, or [n, c] of one; their logarithms, free to be overwritten."""

    heads: slice | int
    rows: slice
    cols: slice
    weights: Tensor
    logs: Tensor | None  # None where they are not at hand


def _tiles(reading: "Reading") -> Iterator[_Tile]:
    pairing = reading.pairing
    only_causal = pairing.mask.structural and not pairing.mask.banded
    if (
        reading.lse is not None
        and pairing.scale is not None
        and not pairing.biases
        and only_causal
        and reading.kept is None
    ):
        yield from _product_tiles(reading, pairing.scale)
        return
    heads, previous = slice(0, reading.shape[0] * reading.shape[1]), None
    for rows, cols in row_blocks(pairing):
        if reading.lse is None and reading.kept is None and pairing.normalise.sequential:
            block = pairing.normalise(pairing.scores(rows, cols), previous)
            previous = block[..., -1, :]
        else:
            block = weights(reading, rows, cols)
        start, stop, _ = cols.indices(reading.shape[3])
        yield _Tile(heads, rows, slice(start, stop), block.flatten(0, 1), None)


def _product_tiles(reading: "Reading", scale: float) -> Iterator[_Tile]:
    """Softmax of products, head by head: minus the log-mass rides in one more feature; two buffers serve all tiles."""
    pairing, (b, h, q, k) = reading.pairing, reading.shape
    kind, mask, extent, device = pairing.working_type, pairing.mask, pairing.extent, pairing.query.device
    lse = reading.lse.to(kind)  # type: ignore[union-attr]
    shift = -lse.masked_fill(torch.isneginf(lse), 0.0)[..., None]
    logs, out = (torch.empty(PASS_ROWS * k, dtype=kind, device=device) for _ in range(2))
    for number, (example, head) in enumerate(product(range(b), range(h))):
        key = pairing.key[example, head // pairing.groups].to(kind)
        columns = torch.cat([key, key.new_ones(k, 1)], -1).t().contiguous()
        query = torch.cat([pairing.query[example, head].to(kind) * scale, shift[example, head]], -1)
        for start in range(0, q, PASS_ROWS):
            rows = slice(start, min(start + PASS_ROWS, q))
            cols = mask.columns(rows, extent)
            n, c = rows.stop - rows.start, cols.stop
            if c == 0:
                continue
            log, part = logs[: n * c].view(n, c), out[: n * c].view(n, c)
            torch.mm(query[rows], columns[:, :c], out=log)
            near = slice(max(c - n, 0), c)  # the keys that some of these rows may read and others not
            seen = mask.block(rows, near, extent, device)
            if seen is not None:  # a large finite number, since 0 * -inf is not a number
                log[:, near].masked_fill_(~seen, -1e4)
            torch.exp(log, out=part)
            yield _Tile(number, rows, cols, part, log)


@_on_its_device
@torch.no_grad()
def summarise(reading: "Reading", *, top: int = 8, bins: int = 64) -> Summary:
    """Entropy, received mass, the `top` strongest keys and a `bins` x `bins` overview in one pass (see Reading)."""
    b, h, q, k = reading.shape
    if top < 0 or bins < 0:
        raise ReadError(f"top and bins count things: {top} and {bins} must be 0 or more")
    kind, flat, top = reading.pairing.working_type, b * h, min(top, k)
    entropy = torch.zeros(flat, q, dtype=kind)
    best, where = torch.zeros(flat, q, top, dtype=kind), torch.full((flat, q, top), -1)
    parts = max(min(bins, q), 1)
    row_parts, col_parts = _membership(q, parts, kind), _membership(k, min(bins, k), kind)
    by_part = torch.zeros(flat, parts, k, dtype=kind)  # what every key receives from each part of the queries
    for heads, rows, cols, seen, logs in _tiles(reading):
        entropy[heads, rows] = torch.special.entr(seen).sum(-1) if logs is None else -logs.mul_(seen).sum(-1)
        some = slice(rows.start * parts // q, (rows.stop - 1) * parts // q + 1)
        by_part[heads, some, cols] += row_parts[some, rows] @ seen.to(kind)
        if top:
            values, columns = _largest(seen, min(top, seen.shape[-1]))
            best[heads, rows, : values.shape[-1]] = values.to(kind)
            where[heads, rows, : values.shape[-1]] = columns + cols.start
    where.masked_fill_(best == 0, -1)
    overview = by_part @ col_parts.mT / row_parts.sum(-1, keepdim=True)
    shape = (b, h)
    return Summary(
        entropy=entropy.unflatten(0, shape),
        received=by_part.sum(-2).unflatten(0, shape),
        top=Top(best.unflatten(0, shape), where.unflatten(0, shape)),
        overview=overview[:, : min(bins, q)].unflatten(0, shape),
    )


def _membership(length: int, parts: int, kind: torch.dtype) -> Tensor:
    """[parts, length]: 1 where position i lies in part floor(i * parts / length), else 0."""
    return (torch.arange(length) * parts // max(length, 1) == torch.arange(parts)[:, None]).to(kind)


def _largest(x: Tensor, top: int) -> tuple[Tensor, Tensor]:
    """The `top` largest numbers along the last axis and their places, as torch.topk, but quicker for long rows.

    The largest numbers lie in the groups with the largest maxima. A group takes every stride-th number, so the maxima
    come from whole vectors; they are ranked in the same way.
    """
    stride = x.shape[-1] // GROUP
    if stride <= 4 * top:
        values, places = x.topk(top, -1)
        return values, places
    whole = stride * GROUP
    _, groups = _largest(x[..., :whole].unflatten(-1, (GROUP, stride)).amax(-2), top)
    places = (groups[..., None, :] + torch.arange(0, whole, stride)[:, None]).flatten(-2)
    if whole < x.shape[-1]:
        rest = torch.arange(whole, x.shape[-1]).expand(*places.shape[:-1], -1)
        places = torch.cat([places, rest], -1)
    values, found = x.gather(-1, places).topk(top, -1)
    return values, places.gather(-1, found)
