"""The two paths in plain torch: explicit products for short keys, and row blocks for everything else.

Row blocks hold complete rows, so any score and any normaliser works, at O(N) memory. With gradients each block is
computed again in the backward pass instead of being kept (Chen et al. 2016).
"""

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from recuerdo.read.merge import Part
from recuerdo.read.pairing import ALL, Pairing, grouped_mix
from recuerdo.read.plain import log_mass

NUMBERS_AT_ONCE = 2**21  # held while one block is worked on: 8 MB of float32, about a core's cache


def matmul_read(pairing: Pairing, value: Tensor) -> tuple[Part, Tensor]:
    """Two products and a normaliser over all pairs at once: (mixed, lse), and the weights, which come for free."""
    scores = pairing.scores()
    weights = pairing.normalise(scores)
    lse = _log_mass_of(scores, weights) if pairing.is_softmax else _none(scores)
    return Part(grouped_mix(weights.to(value.dtype), value), lse), weights


def _log_mass_of(scores: Tensor, weights: Tensor) -> Tensor:
    """log-sum-exp from softmax weights without a second exp: the best key has w = exp(s - lse)."""
    best = scores.amax(-1)
    hidden = torch.isneginf(best)
    return (best - weights.amax(-1).masked_fill(hidden, 1.0).log()).masked_fill(hidden, -torch.inf)


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
