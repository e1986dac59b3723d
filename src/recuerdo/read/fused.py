"""The fused path: torch's flash kernel on CPU, with the log-mass of every row, O(N) memory, all gradients.

The kernel gives (mixed, lse) at the price of scaled_dot_product_attention. Three things are added here, each with
stock kernels only: a causal mask for queries at the end of the keys (two reads, merged), a gradient for the log-mass,
and a gradient for a bias per key (it rides in one more feature; a mask that needs a gradient would make torch leave
the fused kernel silently for an N x N path).
"""

from typing import Any

import torch
from torch import Tensor

from recuerdo.errors import ReadError
from recuerdo.read.mask import Added
from recuerdo.read.merge import Part, merge
from recuerdo.read.pairing import ALL, Pairing, expand_heads

# Private names of torch: the version is pinned and tests/read/test_fused.py checks what they promise.
_forward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
_backward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward


def fused_refuses(pairing: Pairing) -> str | None:
    """Why the fused kernel cannot do this read, or None."""
    if pairing.query.device.type != "cpu":
        return f"it runs on cpu, and these tensors are on {pairing.query.device.type}"
    if pairing.scale is None:
        return f"the score {type(pairing.score).__name__} is not a product of query and key"
    if not pairing.is_softmax:
        return f"the normaliser {type(pairing.normalise).__name__} is not softmax"
    if pairing.mask.banded:
        return "it would visit every key that the window cuts off"
    for bias in pairing.biases:
        if not isinstance(bias, Added):
            return f"the bias {type(bias).__name__} would have to be written out N x N"
        if bias.values.requires_grad and torch.is_grad_enabled() and not bias.per_key:
            return "a bias with a gradient must be per key, [..., 1, k]"
        if bias.values.requires_grad and torch.is_grad_enabled() and bool(torch.isneginf(bias.values).any()):
            return "a bias with a gradient must be finite (-inf times 0 is not a number)"
    if 0 in pairing.shape:
        return "there is nothing to read"
    return None


def fused_read(pairing: Pairing, value: Tensor) -> Part:
    """(mixed [b, h, q, e], lse [b, h, q]) of a pairing that `fused_refuses` does not refuse."""
    query, key, scale = pairing.query, pairing.key, pairing.scale or 0.0
    added, learned = _biases(pairing)
    for bias in learned:
        query, key, value, scale = _bias_as_feature(query, key, value, bias, scale)
    mixed, lse = _positions(query, key, value, added, scale, pairing)
    if learned:
        mixed = mixed[..., : -len(learned)]
    empty = pairing.empty_rows()
    if empty is not None:
        lse = lse.masked_fill(empty, -torch.inf)
        mixed = mixed.masked_fill(empty[..., None], 0.0)
    return Part(mixed, lse)


def _biases(pairing: Pairing) -> tuple[Tensor | None, list[Tensor]]:
    """All that is known beforehand as one float mask, and the biases per key that need gradients."""
    if not pairing.biases and pairing.mask.structural:
        return None, []
    kind = pairing.query.dtype
    learned = [b.values for b in pairing.biases if isinstance(b, Added) and _needs_gradient(b.values)]
    added: Tensor | None = None
    for bias in pairing.biases:
        if isinstance(bias, Added) and not _needs_gradient(bias.values):
            values = bias.values.to(kind)
            added = values if added is None else added + values
    rest = pairing.mask.without_positions()
    if added is None and rest.per_key:
        return rest.once(kind, lambda allowed: _hiding(allowed, kind)), learned
    seen = rest.block(ALL, ALL, pairing.extent, pairing.query.device)
    if seen is not None:
        zeros = torch.zeros((), dtype=kind) if added is None else added
        added = torch.where(seen, zeros, -torch.inf)
    return added, learned


def _hiding(allowed: Tensor, kind: torch.dtype) -> Tensor:
    return torch.where(allowed, torch.zeros((), dtype=kind), -torch.inf)


def _needs_gradient(x: Tensor) -> bool:
    return x.requires_grad and torch.is_grad_enabled()


def _bias_as_feature(query: Tensor, key: Tensor, value: Tensor, bias: Tensor, scale: float):
    """Carry a bias per key in one more feature: its gradient is then an ordinary gradient of the key."""
    b, h, q, _ = query.shape
    n = key.shape[2]
    if bias.shape[1] not in (1, key.shape[1]):
        groups = h // key.shape[1]
        key, value = expand_heads(key, groups), expand_heads(value, groups)
    per_key = bias[..., 0, :].expand(b, key.shape[1], n)[..., None].to(key.dtype)
    query = torch.cat([query, query.new_full((b, h, q, 1), 1 / scale)], -1)
    value = torch.cat([value, value.new_zeros(*value.shape[:-1], 1)], -1)
    return query, torch.cat([key, per_key], -1), value, scale


def _positions(query: Tensor, key: Tensor, value: Tensor, added: Tensor | None, scale: float, pairing: Pairing) -> Part:
    """Split a causal read with q != k into kernel calls that know the causal mask, and merge them."""
    q, k = query.shape[2], key.shape[2]
    if not pairing.mask.causal or (q == 1 and k >= 1):
        return _call(query, key, value, added, False, scale)
    if q == k:
        return _call(query, key, value, added, True, scale)

    def cut(rows: slice, cols: slice) -> Tensor | None:
        if added is None:
            return None
        part = added if added.shape[-2] == 1 else added[..., rows, :]
        return part if part.shape[-1] == 1 else part[..., cols]

    if q < k:
        past, now = slice(0, k - q), slice(k - q, k)
        before = _call(query, key[:, :, past], value[:, :, past], cut(ALL, past), False, scale)
        own = _call(query, key[:, :, now], value[:, :, now], cut(ALL, now), True, scale)
        return merge(_no_mass_where_hidden(before, cut(ALL, past)), _no_mass_where_hidden(own, cut(ALL, now), True))
    rows = slice(q - k, q)
    own = _call(query[:, :, rows], key, value, cut(rows, ALL), True, scale)
    pad = (0, 0, q - k, 0)
    return Part(torch.nn.functional.pad(own.mixed, pad), torch.nn.functional.pad(own.lse, pad[2:], value=-torch.inf))


def _no_mass_where_hidden(part: Part, added: Tensor | None, causal: bool = False) -> Part:
    """The kernel says lse 0 for a row that is hidden from a part entirely; before a merge it must be -inf."""
    if added is None:
        return part
    hidden = torch.isneginf(added)
    if causal and hidden.shape[-2] == 1:  # a row is hidden if every key up to its own is
        hidden = hidden.expand(*hidden.shape[:-1], part.lse.shape[-1])
        return Part(part.mixed, part.lse.masked_fill(hidden.cummin(-1).values[..., 0, :], -torch.inf))
    if causal:
        hidden = hidden | torch.ones_like(hidden).triu(1)
    return Part(part.mixed, part.lse.masked_fill(hidden.all(-1), -torch.inf))


def _call(query: Tensor, key: Tensor, value: Tensor, added: Tensor | None, causal: bool, scale: float) -> Part:
    """One kernel call. It wants equal widths: the narrower side is padded with zeros."""
    width, own = value.shape[-1], query.shape[-1]
    if width < own:
        value = torch.nn.functional.pad(value, (0, own - width))
    elif width > own:
        query, key = (torch.nn.functional.pad(x, (0, width - own)) for x in (query, key))
    if added is not None:
        added = added.detach()
        if added.stride(-1) > 1:  # the kernel reads a strided mask at twice the price of the whole call
            added = added.contiguous()
    if torch.is_grad_enabled() and (query.requires_grad or key.requires_grad or value.requires_grad):
        mixed, lse = _FusedRead.apply(query, key, value, added, causal, scale)
    else:
        mixed, lse = _forward(query, key, value, 0.0, causal, attn_mask=added, scale=scale)
    return Part(mixed if width == own else mixed[..., :width], lse)


class _FusedRead(torch.autograd.Function):
    """The kernel with a gradient for its log-mass too.

    The kernel's backward computes p * (dp - delta) with delta = sum(grad_out * out). A gradient g of the log-mass asks
    for p * (dp - delta + g). The kernel uses `out` for delta only, so out - g * grad_out / |grad_out|^2 makes just that
    of it; where a row has no grad_out to carry g, one more column with value 0, grad_out 1 and out -g does.
    """

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, added: Tensor | None, causal: bool, scale: float):
        mixed, lse = _forward(query, key, value, 0.0, causal, attn_mask=added, scale=scale)
        ctx.save_for_backward(query, key, value, mixed, lse, *([] if added is None else [added]))
        ctx.causal, ctx.scale = causal, scale
        ctx.set_materialize_grads(False)
        return mixed, lse

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None):
        grad_mixed, grad_lse = grads
        if grad_mixed is None and grad_lse is None:
            return (None,) * 6
        if torch.is_grad_enabled():
            raise ReadError(
                "the fused kernel has no second derivative: pass path='tiled' (or path='matmul') to read, "
                "or leave out create_graph=True"
            )
        query, key, value, mixed, lse, *added = ctx.saved_tensors
        if grad_mixed is None:
            grad_mixed = torch.zeros_like(mixed)
        width, kind = query.shape[-1], query.dtype
        # The kernel's backward in half width is up to ten times slower than in float32 (`benchmarks/read.py backward`).
        if kind in (torch.bfloat16, torch.float16):
            query, key, value, mixed, grad_mixed = (x.float() for x in (query, key, value, mixed, grad_mixed))
            added = [x.float() for x in added]
        if grad_lse is not None:
            shift = grad_lse.to(mixed.dtype)
            size = grad_mixed.square().sum(-1)
            if mixed.dtype in (torch.float32, torch.float64) and bool(size.amin() > 1e-24):
                mixed = torch.addcmul(mixed, grad_mixed, (shift / size)[..., None], value=-1)
            else:  # 8 more columns instead of 1 keep the rows aligned for the kernel's vector loads
                query, key, value, mixed, grad_mixed = (
                    torch.nn.functional.pad(x, (0, 8)) for x in (query, key, value, mixed, grad_mixed)
                )
                mixed[..., width] = -shift
                grad_mixed[..., width] = 1.0
        mask = added[0] if added else None
        dq, dk, dv = _backward(
            grad_mixed, query, key, value, mixed, lse, 0.0, ctx.causal, attn_mask=mask, scale=ctx.scale
        )
        dq, dk, dv = (x[..., :width].to(kind) for x in (dq, dk, dv))
        return dq, dk, dv, None, None, None
