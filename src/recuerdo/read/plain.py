"""The definition: every number of a read written out, N x N, as the papers write it.

Nothing here is fast. The contract suite holds every other path against this one, in float64.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from recuerdo.read.mask import Extent, as_biases, as_mask
from recuerdo.read.normalise import Normaliser
from recuerdo.read.score import Score

ALL = slice(None)


class Plain(NamedTuple):
    """mixed [b, h, q, e], log-mass [b, h, q], weights [b, h, q, k]."""

    mixed: Tensor
    lse: Tensor
    weights: Tensor


def plain_read(query: Tensor, key: Tensor, value: Tensor, *, mask, bias, score: Score, normalise: Normaliser) -> Plain:
    """Score, add, hide, normalise, mix: query [b, h, q, d], key [b, g, k, d], value [b, g, k, e]."""
    groups = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
    extent = Extent(query.shape[2], key.shape[2])
    scores = score.plain(query, key)
    for added in as_biases(bias):
        scores = scores + added.block(ALL, ALL, extent, query.device).to(scores.dtype)
    seen = as_mask(mask).block(ALL, ALL, extent, query.device)
    if seen is not None:
        scores = scores.masked_fill(~seen, -torch.inf)
    weights = normalise(scores)
    return Plain(weights @ value, log_mass(scores), weights)


def log_mass(scores: Tensor) -> Tensor:
    """log-sum-exp of the rows, -inf (with zero gradient) where nothing can be read."""
    if scores.shape[-1] == 0:
        return scores.new_full(scores.shape[:-1], -torch.inf)
    hidden = torch.isneginf(scores).all(-1)
    safe = scores.masked_fill(hidden[..., None], 0.0)
    return torch.logsumexp(safe, -1).masked_fill(hidden, -torch.inf)
