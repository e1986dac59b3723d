"""The two paths in plain torch: explicit products for short keys, and row blocks for everything else.

Row blocks hold complete rows, so any score and any normaliser works, at O(N) memory. With gradients each block is
computed again in the backward pass instead of being kept (Chen et al. 2016).
"""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from recuerdo.read.merge import Part
from recuerdo.read.pairing import ALL, Pairing, grouped_mix
from recuerdo.read.plain import log_mass

NUMBERS_AT_ONCE = 2**21  # held while one block is worked on: 8 MB of float32, about a core's cache


def matmul_read(pairing: Pairing, value: Tensor) -> tuple[Part, Callable[[], Tensor]]:
    """Two products and a normaliser over all pairs at once: (mixed, lse), and the weights, which come for free.

    Half-width products stay in their own type, as in any model's eager attention; the normaliser works in float32.
    """
    scores = pairing.scores(own_type=True)
    if pairing.is_softmax and scores.numel():
        # One maximum for all rows instead of one each: reductions over short rows cost more than the exp. A row so far
        # below it that its sum underflows (or that is empty) sends all of them the careful way.
        top = scores.detach().amax()
        if bool(top.isfinite()):
            mass = (scores - top).exp() if scores.requires_grad else scores.sub_(top).exp_()
            total = mass.sum(-1)
            if bool(total.amin() > 1e-25):
                mixed = grouped_mix(mass.to(value.dtype), value) / total[..., None].to(value.dtype)
                return Part(mixed, total.log() + top), lambda: mass / total[..., None]
            scores = scores if scores.requires_grad else pairing.scores(own_type=True)  # used up: make them again
    weights = pairing.normalise(scores)
    lse = log_mass(scores) if pairing.is_softmax else _none(scores)
    return Part(grouped_mix(weights.to(value.dtype), value), lse), lambda: weights


def _none(scores: Tensor) -> Tensor:
    return scores.new_full(scores.shape[:-1], torch.nan)


def row_blocks(pairing: Pairing) -> Iterator[tuple[slice, slice]]:
    """Row blocks that fit the cache, each with the columns its rows can reach."""
    b, h, q, k = pairing.shape
    per_row = max(1, b * h * k * pairing.score.numbers_per_pair)
    step = max(1, min(q, 128, NUMBERS_AT_ONCE // per_row))
    for start in range(0, q, step):
        rows = slice(start, min(start + step, q))
        yield rows, ALL if pairing.normalise.sequential else pairing.mask.columns(rows, pairing.extent)


def tiled_read(pairing: Pairing, value: Tensor) -> Part:
    """Row block after row block: (mixed [b, h, q, e], lse [b, h, q])."""
    gradients = torch.is_grad_enabled()
    mixed, lse, previous = [], [], None
    for rows, cols in row_blocks(pairing):
        arguments = (pairing, value, rows, cols, previous)
        if gradients:
            part, last = checkpoint(_block, *arguments, use_reentrant=False, preserve_rng_state=False)
        else:
            part, last = _block(*arguments)
        previous = last if pairing.normalise.sequential else None
        mixed.append(part.mixed)
        lse.append(part.lse)
    return Part(torch.cat(mixed, 2), torch.cat(lse, 2))


def _block(pairing: Pairing, value: Tensor, rows: slice, cols: slice, previous: Tensor | None) -> tuple[Part, Tensor]:
    scores = pairing.scores(rows, cols)
    weights = pairing.normalise(scores, previous)
    lse = log_mass(scores) if pairing.is_softmax else _none(scores)
    return Part(grouped_mix(weights.to(value.dtype), value[:, :, cols]), lse), weights[..., -1, :]
