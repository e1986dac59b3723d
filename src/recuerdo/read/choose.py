"""`read`: the one operation, and the rule that picks how it is computed.

The rule knows sizes, types and what a path can do. It never knows whether somebody looks.
"""

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from recuerdo.errors import ReadError
from recuerdo.read.bend import bend
from recuerdo.read.blocks import matmul_read, tiled_read
from recuerdo.read.fused import fused_read, fused_refuses
from recuerdo.read.mask import Bias, Mask, as_biases, as_mask
from recuerdo.read.merge import Part
from recuerdo.read.normalise import Normaliser, softmax
from recuerdo.read.pairing import Pairing, check_shapes
from recuerdo.read.plain import plain_read
from recuerdo.read.score import Score, scaled_dot
from recuerdo.read.trace import Reading
from recuerdo.read.watch import hear, wishes

Path = Literal["auto", "plain", "matmul", "fused", "tiled"]

# Measured by `python benchmarks/read.py rule` (2 cores, torch 2.13): up to so many keys two explicit products beat the
# fused kernel. The kernel's bfloat16 is quick only where the processor multiplies tiles of it (AMX).
_TILES = torch.cpu.get_capabilities().get("amx_bf16", False)
SHORT_KEYS = {torch.float32: 16, torch.bfloat16: 32 if _TILES else 256, torch.float64: 16}
SHORT_PAIRS = 2**22  # and never more pairs at once than fit a few times into the cache


def choose_path(pairing: Pairing) -> Literal["matmul", "fused", "tiled"]:
    """The path for a read of this size, type and kind."""
    b, h, q, k = pairing.shape
    short = q > 1 and k <= SHORT_KEYS.get(pairing.query.dtype, 16)
    few = b * h * q * k * pairing.score.numbers_per_pair <= SHORT_PAIRS
    refusal = fused_refuses(pairing)
    if few and (short or (refusal is not None and k <= 512)):
        return "matmul"
    return "tiled" if refusal is not None else "fused"


def read(
    query: Float[Tensor, "b h q d"],
    key: Float[Tensor, "b g k c"],
    value: Float[Tensor, "b g k e"],
    *,
    mask: Mask | Tensor | None = None,
    bias: Bias | Tensor | tuple | None = None,
    score: Score = scaled_dot,
    normalise: Normaliser = softmax,
    path: Path = "auto",
) -> Reading:
    """Let queries read keys and values by attention (Bahdanau et al. 2014; Vaswani et al. 2017).

    Shapes: query [b, h, q, d], key [b, g, k, d], value [b, g, k, e]; g divides h, and each key head serves h / g query
    heads. With q != k the queries stand at the *end* of the keys (`recuerdo.read.mask`).

    `mask` says who may read whom: a boolean tensor that broadcasts to [b, h, q, k] (True = may read), `causal`,
    `lengths(n)`, `window(before, after)`, or several joined by `&`. `bias` is added to the scores: a tensor that
    broadcasts to [b, h, q, k], `Alibi`, `Relative`, or a tuple of them. A row with nothing to read gives zeros, weight
    0 and lse -inf.

    `path` is for tests and benchmarks, and for a model whose loss needs all weights of few queries ("matmul" keeps
    them): "plain" (the definition), "matmul", "fused" or "tiled"; all give the same.

    Raises ShapeError for tensors that do not fit, ReadError when a named path cannot do this read.
    """
    check_shapes(query, key, value)
    pairing = Pairing(*score.project(query, key), score, as_mask(mask), as_biases(bias), normalise)
    if path == "auto":
        path = choose_path(pairing)
    elif path == "fused" and (refusal := fused_refuses(pairing)) is not None:
        raise ReadError(f"the fused path cannot do this read: {refusal}; leave path out, or pass path='tiled'")
    kept = None
    if path == "fused":
        part = fused_read(pairing, value)
    elif path == "matmul":
        part, kept = matmul_read(pairing, value)
    elif path == "tiled":
        part = tiled_read(pairing, value)
    elif path == "plain":
        plain = plain_read(query, key, value, mask=mask, bias=bias, score=score, normalise=normalise)
        part, kept = Part(plain.mixed, plain.lse), lambda: plain.weights
    else:
        raise ReadError(f"there is no path {path!r}: pass 'auto', 'fused', 'matmul', 'tiled' or 'plain'")
    reading = Reading(part, pairing, value, path=path, kept=kept)
    return hear(bend(reading, wishes(reading), in_place=True))
