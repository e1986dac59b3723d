"""How the NTM (Graves et al. 2014) and the DNC (Graves et al. 2016) find a place in their memory: pure functions.

Shapes: memory [b, n, w] of n slots; keys and masks [b, h, w]; weights [b, h, n], or [b, n] for the one write; whatever
is one number per head is [b, h]. None of them makes a [b, h, n, w] tensor, and all of them have finite gradients on
zeros: floors of 1e-6 stand where a zero row or a zero key would divide.
"""

from functools import reduce

import torch
from torch import Tensor
from torch.nn import functional as F

FLOOR = 1e-6


def strength(raw: Tensor) -> Tensor:
    """`1 + softplus`: key strengths and powers. Below 1 they would blur, and the blur feeds on itself."""
    return 1 + F.softplus(raw)


def cosine(memory: Tensor, key: Tensor, mask: Tensor | None = None, squares: Tensor | None = None) -> Tensor:
    """Cosine of every key with every row, both masked (Csordas & Schmidhuber 2019): [b, h, n].

    A key with a mask looks at the part of a row that it knows, and ignores the part that it asks for. Two products:
    `(k m^2) M^T` over `sqrt(m^2 (M^2)^T) |k m|`. `squares` is `memory ** 2`, for who has it already.
    """
    squares = memory.square() if squares is None else squares
    if mask is None:
        rows = squares.sum(-1)[:, None]
    else:
        rows, key = mask.square() @ squares.mT, key * mask
    key = key / (key.norm(dim=-1, keepdim=True) + FLOOR)
    product = (key if mask is None else key * mask) @ memory.mT
    return product * (rows + FLOOR).rsqrt()


def content(
    memory: Tensor, key: Tensor, sharpness: Tensor, mask: Tensor | None = None, squares: Tensor | None = None
) -> Tensor:
    """Weights by likeness, softmax of `sharpness * cosine`: [b, h, n]."""
    return torch.softmax(cosine(memory, key, mask, squares) * sharpness[..., None], -1)


# ---------------------------------------------------------------------------------------------------------------- NTM


def gate(found: Tensor, previous: Tensor, share: Tensor) -> Tensor:
    """`share` of what was found, the rest of where the head was before: [b, h, n]; share [b, h] within 0 and 1."""
    return torch.lerp(previous, found, share[..., None])


def shift(weights: Tensor, kernel: Tensor) -> Tensor:
    """Move weights around the ring of slots: kernel [b, h, s], s odd; its middle stays, one further is the next slot.

    w'(i) = sum over j of kernel(j) w(i - j), j from -(s // 2) to s // 2.
    """
    reach = kernel.shape[-1] // 2
    ring = torch.cat([weights[..., weights.shape[-1] - reach :], weights, weights[..., :reach]], -1)
    return (ring.unfold(-1, kernel.shape[-1], 1) @ kernel.flip(-1)[..., None])[..., 0]


def sharpen(weights: Tensor, power: Tensor) -> Tensor:
    """`w ^ power`, scaled to sum to one: [b, h, n]; power [b, h] of 1 or more. As a softmax, so no power vanishes."""
    return torch.softmax(power[..., None] * weights.clamp_min(FLOOR**2).log(), -1)


# ---------------------------------------------------------------------------------------------------------------- DNC


def retention(reads: Tensor, free: Tensor) -> Tensor:
    """How much of every slot survives what was read and let go: `prod over heads of (1 - free * read)`, [b, n]."""
    return reduce(torch.mul, (1 - free[..., None] * reads).unbind(1))


def used(usage: Tensor, written: Tensor, retained: Tensor) -> Tensor:
    """Usage after the last write and the last reads, [b, n]. Gradients come by what was let go, not by the write."""
    written = written.detach()
    return (usage + written - usage * written) * retained


def allocation(usage: Tensor) -> Tensor:
    """Weights for writing to the least used slot, and the less the more used they are: [b, n], sum at most 1.

    One sort. The product over the slots before is a sum of logarithms: its gradient is a sum again, where that of
    `cumprod` must look out for zeros.
    """
    ordered, index = (usage * (1 - FLOOR) + FLOOR).sort(-1)
    logs = ordered.log()
    free = (1 - ordered) * (logs.cumsum(-1) - logs).exp()
    return torch.zeros_like(free).scatter(-1, index, free)


def sharpen_order(weights: Tensor, power: Tensor) -> Tensor:
    """Sharpen what was found by following the order of writing, [b, h, n], which may be next to nothing.

    The sum is one, and nothing where there was less than a thousandth: scaling that up would scale its gradient too.
    """
    total = weights.sum(-1, keepdim=True)
    return sharpen(weights, power) * (total / (total + 1e-3))


def overwrite(memory: Tensor, weights: Tensor, erase: Tensor, value: Tensor, retained: Tensor | None = None) -> Tensor:
    """Erase and write at `weights` [b, n]: erase and value [b, w] -> the memory after, [b, n, w].

    With `retained` [b, n] the content of slots that were let go goes too (de-allocation, Csordas & Schmidhuber 2019):
    `M * (psi - psi w e^T) + w v^T`, one factor for both.
    """
    if retained is None:
        keep = 1 - weights[..., None] * erase[:, None]
    else:
        keep = retained[..., None] - (retained * weights)[..., None] * erase[:, None]
    return torch.baddbmm(memory * keep, weights[..., None], value[:, None])
