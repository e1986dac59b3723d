"""Read a part: some keys alone, all keys but some, or some rows. Each is a fused read of less.

Parts of the keys merge (`recuerdo.read.merge`), and the log-mass of a part against that of the whole is its share.
"""

from dataclasses import replace

import torch
from torch import Tensor

from recuerdo.read.fused import fused_read
from recuerdo.read.mask import Added, Mask
from recuerdo.read.merge import Part
from recuerdo.read.pairing import ALL, Pairing

NUMBERS_AT_ONCE = 2**22  # of a mask that has to be written out, for some rows at a time


Piece = tuple[slice, Part]


def pieces_of(pairing: Pairing, value: Tensor, keys: Tensor) -> list[Piece]:
    """The read of some keys alone, `keys` [k] or [b or 1, k] bool, piece by piece of the rows; other rows see nothing.

    A piece is (rows, (mixed [b, h, n, e], lse [b, h, n])). Costs as much as a read of so many keys. For pairings that
    the fused path can do.
    """
    keys = keys if keys.dim() == 2 else keys[None]
    q, offset, causal = pairing.shape[2], pairing.extent.offset, pairing.mask.causal
    columns = keys.any(0).nonzero()[:, 0]
    if causal:
        columns = columns[columns < offset + q]  # later keys are seen by nobody
    if not len(columns):
        return []
    first, last = int(columns[0]), int(columns[-1])
    index = slice(first, last + 1) if last - first + 1 == len(columns) else columns
    member = None if bool(keys[:, columns].all()) else keys[:, None, None, columns]
    start = min(max(first - offset, 0), q) if causal else 0
    free = min(max(last - offset, start), q) if causal else 0  # from here on every column is in the past
    pieces = []
    step = max(1, NUMBERS_AT_ONCE // (max(_masks(pairing), 1) * len(columns)))
    for a in range(start, free, step):
        rows = slice(a, min(a + step, free))
        pieces.append((rows, _some(pairing, value, rows, index, member, positions=True)))
    step = step if _masks(pairing) else q
    for a in range(free, q, step):
        rows = slice(a, min(a + step, q))
        pieces.append((rows, _some(pairing, value, rows, index, member, positions=False)))
    return pieces


def joined_lse(pairing: Pairing, pieces: list[Piece]) -> Tensor:
    """The log-mass of every row, [b, h, q]; -inf where the row sees none of the keys."""
    b, h, q, _ = pairing.shape
    start = pieces[0][0].start if pieces else q
    before = torch.full((b, h, start), -torch.inf, dtype=pairing.working_type, device=pairing.query.device)
    return torch.cat([before, *(part.lse for _, part in pieces)], 2)


def joined_mixed(pieces: list[Piece]) -> Tensor:
    """The mixed value of every row, [b, h, q, e]; zeros where the row sees none of the keys."""
    part = pieces[0][1].mixed
    before = part.new_zeros(*part.shape[:2], pieces[0][0].start, part.shape[-1])
    return torch.cat([before, *(piece.mixed for _, piece in pieces)], 2)


def _masks(pairing: Pairing) -> int:
    """How many numbers of masks and biases every pair of a row and a column has; 0 = none differ by row."""
    tensors = [bias.values for bias in pairing.biases if isinstance(bias, Added)]
    tensors += [] if pairing.mask.allowed is None else [pairing.mask.allowed]
    return max([t.shape[0] * t.shape[1] for t in tensors if t.shape[-2] > 1], default=0)


def _some(
    pairing: Pairing, value: Tensor, rows: slice, index: slice | Tensor, member: Tensor | None, *, positions: bool
) -> Part:
    """A fused read of some rows and columns; with `positions` the causal mask is written out for them."""
    span = index if isinstance(index, slice) else slice(int(index[0]), int(index[-1]) + 1)
    inside = ALL if isinstance(index, slice) else index - span.start
    extent, device = pairing.extent, pairing.query.device
    seen = replace(pairing.mask, causal=False).block(rows, span, extent, device)
    if seen is not None:
        seen = seen[(None,) * (4 - seen.dim())]
        seen = seen if seen.shape[-1] == 1 else seen[..., inside]
    if positions:  # of these columns only: the span between them may be wide
        i, j = extent.positions(rows, span, device)
        reached = (j[inside] <= i)[None, None]
        seen = reached if seen is None else seen & reached
    if member is not None:
        seen = member if seen is None else seen & member
    biases = [bias.block(rows, span, extent, device) for bias in pairing.biases]
    some = replace(
        pairing,
        query=pairing.query[:, :, rows],
        key=pairing.key[:, :, index],
        mask=Mask(allowed=seen),
        biases=tuple(Added(x if x.shape[-1] == 1 else x[..., inside]) for x in biases),
    )
    return fused_read(some, value[:, :, index])


def without(pairing: Pairing, keys: Tensor) -> Pairing:
    """The pairing in which these keys [b or 1, k] are hidden."""
    return replace(pairing, mask=pairing.mask & Mask(allowed=~keys[:, None, None]))


def rows_of(pairing: Pairing, value: Tensor, rows: slice) -> Part:
    """A fused read of some rows: the last positions of the keys that they can reach."""
    cols = pairing.mask.columns(rows, pairing.extent)
    if cols.stop == 0:
        return nothing(pairing, value, rows.stop - rows.start)
    extent, device = pairing.extent, pairing.query.device
    seen = pairing.mask.without_positions().block(rows, cols, extent, device)
    some = replace(
        pairing,
        query=pairing.query[:, :, rows],
        key=pairing.key[:, :, cols],
        mask=Mask(causal=pairing.mask.causal, allowed=seen),
        biases=tuple(Added(bias.block(rows, cols, extent, device)) for bias in pairing.biases),
    )
    return fused_read(some, value[:, :, cols])


def nothing(pairing: Pairing, value: Tensor, rows: int) -> Part:
    """What so many rows read where there is nothing to read."""
    b, h = pairing.shape[:2]
    lse = torch.full((b, h, rows), -torch.inf, dtype=pairing.working_type, device=pairing.query.device)
    return Part(value.new_zeros(b, h, rows, value.shape[-1]), lse)
