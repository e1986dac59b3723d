"""Summaries of a read at O(N) memory.

Most pictures of attention are attention again, by the same kernel with another value: the mass on a region (value =
the region), the entropy (value = the keys), what every key receives (queries and keys swapped, minus the log-mass as
bias; described before in awslabs/keys_values#77). What needs whole rows, such as the strongest keys, is one pass over
row blocks.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from recuerdo.errors import ReadError, ShapeError
from recuerdo.read.blocks import row_blocks, tiled_read
from recuerdo.read.fused import fused_read, fused_refuses
from recuerdo.read.mask import Added
from recuerdo.read.pairing import ALL, Pairing, expand_heads, grouped_mix
from recuerdo.read.score import Product

if TYPE_CHECKING:
    from recuerdo.read.trace import Reading

PASS_ROWS = 128  # rows at once in the pass of `summarise`: fewer make thin products, more leave the cache
GROUP = 32  # top-k first ranks groups of so many keys by their best


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


def diagonal(reading: "Reading") -> Tensor:
    """See Reading.diagonal: small tiles along it."""
    b, h, q, k = reading.shape
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
    swapped = Pairing(key, query, pairing.scale, Product(), pairing.mask, (Added(-lse[:, :, None]),), pairing.normalise)
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
    """Weights [m, n, c] of some of the flattened heads, rows and columns, and their logarithms where at hand."""

    heads: slice
    rows: slice
    cols: slice
    weights: Tensor
    logs: Tensor | None


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
    """Softmax of products: minus the log-mass rides in one more feature, and the two buffers are used again."""
    pairing, (b, h, q, k) = _in_working_type(reading.pairing), reading.shape
    lse = reading.lse.to(pairing.query.dtype)  # type: ignore[union-attr]
    query = torch.cat([pairing.query * scale, -lse.masked_fill(torch.isneginf(lse), 0.0)[..., None]], -1).flatten(0, 1)
    key = torch.cat([pairing.key, pairing.key.new_ones(*pairing.key.shape[:-1], 1)], -1).flatten(0, 1)
    logs, out = query.new_empty(PASS_ROWS, k), query.new_empty(PASS_ROWS, k)
    for head in range(b * h):
        columns = key[head // pairing.groups].t()
        for start in range(0, q, PASS_ROWS):
            rows = slice(start, min(start + PASS_ROWS, q))
            cols, n = pairing.mask.columns(rows, pairing.extent), rows.stop - start
            if cols.stop <= 0:
                continue
            log = logs[:n].flatten()[: n * cols.stop].view(n, cols.stop)
            torch.mm(query[head, rows], columns[:, : cols.stop], out=log)
            seen = pairing.mask.block(rows, slice(max(cols.stop - n, 0), cols.stop), pairing.extent, query.device)
            if seen is not None:  # a large finite number, since 0 * -inf is not a number
                log[:, max(cols.stop - n, 0) :].masked_fill_(~seen, -1e4)
            part = out[:n].flatten()[: n * cols.stop].view(n, cols.stop)
            torch.exp(log, out=part)
            yield _Tile(slice(head, head + 1), rows, cols, part[None], log[None])


@torch.no_grad()
def summarise(reading: "Reading", *, top: int = 8, bins: int = 64) -> Summary:
    """Entropy, received mass, the `top` strongest keys and a `bins` x `bins` overview in one pass (see Reading)."""
    b, h, q, k = reading.shape
    if top < 0 or bins < 0:
        raise ReadError(f"top and bins count things: {top} and {bins} must be 0 or more")
    kind, flat = reading.pairing.working_type, b * h
    top, rows_in, cols_in = min(top, k), min(bins, q), min(bins, k)
    got = torch.zeros(flat, k, dtype=kind)
    width = torch.zeros(flat, q, dtype=kind)
    best, where = torch.zeros(flat, q, top, dtype=kind), torch.full((flat, q, top), -1, dtype=torch.int64)
    view = torch.zeros(flat, rows_in, cols_in, dtype=kind)
    row_bin = torch.arange(q) * max(rows_in, 1) // max(q, 1)
    col_bin = torch.arange(k) * cols_in // max(k, 1)
    for tile in _tiles(reading):
        heads, rows, cols = tile.heads, tile.rows, tile.cols
        first, last = int(row_bin[rows.start]), int(row_bin[rows.stop - 1])
        member = torch.nn.functional.one_hot(row_bin[rows] - first, last - first + 1).to(kind).t()
        by_bin = member @ tile.weights.to(kind)  # a thin product gives both the received mass and the overview
        got[heads, cols] += by_bin.sum(-2)
        if bins:
            view[heads, first : last + 1].index_add_(-1, col_bin[cols], by_bin)
        if tile.logs is None:
            width[heads, rows] = torch.special.entr(tile.weights).sum(-1)
        else:
            width[heads, rows] = torch.linalg.vecdot(tile.weights, tile.logs).neg_()
        if top:
            _keep_largest(tile, top, best, where)
    if bins:
        view /= torch.bincount(row_bin, minlength=rows_in)[:, None]
    shape = (b, h)
    return Summary(
        entropy=width.unflatten(0, shape),
        received=got.unflatten(0, shape),
        top=Top(best.unflatten(0, shape), where.unflatten(0, shape)),
        overview=view.unflatten(0, shape),
    )


def _keep_largest(tile: _Tile, top: int, best: Tensor, where: Tensor) -> None:
    """Write the `top` largest weights of each row of a tile and their columns into the tables."""
    seen, n = tile.weights, tile.weights.shape[-1]
    whole = n // GROUP * GROUP
    if whole // GROUP > 2 * top:
        groups = seen[..., :whole].unflatten(-1, (-1, GROUP)).amax(-1).topk(top, -1).indices
        at = (groups[..., None] * GROUP + torch.arange(GROUP)).flatten(-2)
        rest = torch.arange(whole, n).expand(*at.shape[:-1], n - whole)
        at = torch.cat([at, rest], -1)
        found = seen.gather(-1, at).topk(top, -1)
        values, columns = found.values, at.gather(-1, found.indices)
    else:
        values, columns = seen.topk(min(top, n), -1)
    columns = (columns + tile.cols.start).masked_fill(values == 0, -1)
    best[tile.heads, tile.rows, : values.shape[-1]] = values.to(best.dtype)
    where[tile.heads, tile.rows, : values.shape[-1]] = columns
