"""Losses from marks: what a person said about where to look, as numbers to train on.

    mass_loss       "look here": the share of every query's weight on the marked keys
    map_loss        "look like this": a whole human map over the keys
    right_reasons   "this is no reason": gradients of the answer with respect to inputs marked as irrelevant

The first two judge attention, the third any differentiable model. All are plain torch: add them, times a weight, to the
loss of the task. Rows that can say nothing about a mark are left out; none of them makes a NaN.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from recuerdo.errors import AddressError, InputError, ShapeError

ABOVE = 0.01  # a logarithm of a share further above 0 than rounding can bring it is no such thing
NEAR_ONE = 32  # times the rounding of the type: closer to a share of 1 the rest cannot be told from nothing


def mass_loss(
    log_mass: Tensor,
    target: float = 1.0,
    rows: Tensor | None = None,
    *,
    heads: int | Sequence[int] | None = None,
    log_rest: Tensor | None = None,
) -> Tensor:
    """How far the mass on marked keys is from a target: KL((target, 1 - target) || (mass, 1 - mass)), a scalar.

    `log_mass` [b, h, q] is the log of the share of each query's weight on the marked keys, as `reading.log_mass(keys)`
    gives it. Target 1, "look here", makes the loss -log mass; target 0, "look elsewhere", -log(1 - mass). The mean over
    the rows that see a marked key; the others (-inf) are left out, and where none sees one the loss is 0.

    `rows` chooses or weighs queries: [q], [b, q] or [b, h, q], bool or not negative. `heads` chooses heads by number.
    A target below 1 says nothing about rows that see marked keys only. They are known by a share of 1 up to rounding,
    or exactly when `log_rest` [b, h, q], `reading.log_mass(~keys)`, is given; it also keeps all digits, and the
    gradient, of rows that look almost nowhere else.

    Raises ShapeError for tensors that do not fit, AddressError for a head that is not there, InputError for a target
    outside 0 to 1, weights of rows below 0, and numbers that are no logarithm of a share.
    """
    if not 0.0 <= target <= 1.0:
        raise InputError(f"the target is {target}: give a share, 0 to 1")
    _check_axes(log_mass, "log_mass", "[b, h, q]")
    _check_logarithm(log_mass, "log_mass", "pass reading.log_mass(keys), not reading.mass")
    chosen = _heads(heads, log_mass.shape[1])
    mass = _at_least_single(log_mass)[:, chosen]
    counts = _row_weights(rows, log_mass)[:, chosen]
    seen = ~torch.isneginf(mass)
    loss = torch.zeros_like(mass)
    if target < 1:
        rest = _rest(mass) if log_rest is None else _rest_as_given(log_rest, log_mass)[:, chosen]
        seen = seen & ~torch.isneginf(rest)
        loss = loss + _cross(1 - target, rest.masked_fill(~seen, 0.0))
    if target > 0:
        loss = loss + _cross(target, mass.masked_fill(~seen, 0.0))
    return _mean(loss, seen, counts)


def map_loss(
    log_weights: Tensor,
    human: Tensor,
    rows: Tensor | None = None,
    *,
    heads: int | Sequence[int] | None = None,
) -> Tensor:
    """How far attention is from a human map: KL(map || weights), the mean over rows, a scalar, in nats.

    `log_weights` [b, h, q, k] are the logs of the weights, or scores before the softmax: rows are normalised here
    (`log_of` takes logs of weights that may be 0). `human` holds numbers of any scale, 0 or more: [k], one map for all;
    [b, k], one for each example; or four axes of which each may be 1. What it puts on keys that a query cannot read
    (-inf) is taken out, then each row is normalised. Rows with nothing left are left out; where none is left the loss
    is 0. `rows` and `heads` choose as in `mass_loss`.

    Written-out weights take q x k numbers: choose the rows before, as in `log_of(reading.weights[-8:, :])`. Mass on
    a region, at O(N) memory, is `mass_loss`.

    Raises ShapeError for tensors that do not fit, AddressError for a head that is not there, InputError for a map with
    numbers that are negative or not finite.
    """
    _check_axes(log_weights, "log_weights", "[b, h, q, k]")
    chosen = _heads(heads, log_weights.shape[1])
    counts = _row_weights(rows, log_weights[..., 0])[:, chosen]
    wanted = _human(human, log_weights)[:, chosen if human.dim() == 4 and human.shape[1] > 1 else slice(None)]
    logs = _at_least_single(log_weights)[:, chosen]
    visible = ~torch.isneginf(logs)
    wanted = wanted.to(logs.dtype) * visible
    total = wanted.sum(-1, keepdim=True)
    seen = (total > 0)[..., 0]
    wanted = wanted / total.masked_fill(total <= 0, 1.0)
    logs = logs.masked_fill(~visible.any(-1, keepdim=True), 0.0).log_softmax(-1)
    loss = (torch.xlogy(wanted, wanted) - wanted * logs.masked_fill(~visible, 0.0)).sum(-1)
    return _mean(loss, seen, counts)


def log_of(weights: Tensor) -> Tensor:
    """The logs of weights of any shape; -inf at 0, with gradient 0 there (the gradient of a plain log would be NaN)."""
    unseen = weights <= 0
    return weights.masked_fill(unseen, 1.0).log().masked_fill(unseen, -torch.inf)


def right_reasons(log_probabilities: Tensor, inputs: Tensor, wrong: Tensor) -> Tensor:
    """A penalty on answers for reasons that were marked as wrong (Ross et al. 2017, arXiv 1703.03717), a scalar.

    The squared gradient of the summed log-probabilities with respect to the inputs, summed over the marked ones; the
    mean over the examples with a mark (the paper sums; a mean does not change with the size of a batch).

    `inputs` [b, ...] are what the model read, with a gradient: pixels, features, or the embeddings of words.
    `log_probabilities` [b, ..., classes] are computed from them; where a model answers at many places, pass the ones
    meant. `wrong` has the axes of inputs, of which each may be 1, and may leave out the last ones ([b, t] for
    embeddings [b, t, d]): bool, or 0 and more as weights. With no mark at all the penalty is 0.

    It is differentiated once more when the loss goes back, so the model must have second derivatives. A fused attention
    kernel has none: read with path="tiled" or "matmul", and load a Hugging Face model with attn_implementation="eager".

    Raises ShapeError for a mask that does not fit, InputError for inputs without a gradient, answers that do not depend
    on them, a model without second derivatives, weights below 0 and numbers that are no log-probabilities.
    """
    if not inputs.is_floating_point():
        kind = str(inputs.dtype).removeprefix("torch.")
        raise InputError(
            f"inputs are {kind}, which have no gradient: pass pixels as floats, or the embeddings of words"
        )
    if not inputs.requires_grad:
        raise InputError("inputs take no gradient: call inputs.requires_grad_() before the model reads them")
    if inputs.dim() < 2:
        raise ShapeError(f"inputs are [b, ...], examples first, not {tuple(inputs.shape)}")
    marks = _wrong(wrong, inputs)
    _check_logarithm(log_probabilities, "log_probabilities", "pass logits.log_softmax(-1)")
    if log_probabilities.requires_grad:
        (slope,) = torch.autograd.grad(log_probabilities.sum(), inputs, create_graph=True, allow_unused=True)
    else:
        slope = None
    if slope is None:
        raise InputError("log_probabilities do not depend on inputs: compute them from these very inputs")
    _check_twice(slope)
    per_example = (slope.square() * marks).flatten(1).sum(1)
    marked = (marks > 0).expand(inputs.shape).flatten(1).any(1)
    return per_example.sum() / marked.sum().clamp_min(1)


# ---------------------------------------------------------------------------------------------------------------- parts


def _cross(share: float, logs: Tensor) -> Tensor:
    """share * log(share / exp(logs)), a summand of KL, for a share above 0."""
    return share * (torch.log(torch.tensor(share, dtype=torch.float64)).item() - logs)


def _rest(mass: Tensor) -> Tensor:
    """log(1 - exp(mass)); -inf where the share is 1 up to rounding."""
    whole = mass >= -NEAR_ONE * torch.finfo(mass.dtype).eps
    return torch.log(-torch.expm1(mass.masked_fill(whole, -1.0))).masked_fill(whole, -torch.inf)


def _rest_as_given(log_rest: Tensor, log_mass: Tensor) -> Tensor:
    if log_rest.shape != log_mass.shape:
        raise ShapeError(f"log_rest has the shape of log_mass, {tuple(log_mass.shape)}, not {tuple(log_rest.shape)}")
    _check_logarithm(log_rest, "log_rest", "pass reading.log_mass(~keys)")
    return _at_least_single(log_rest)


def _mean(loss: Tensor, seen: Tensor, counts: Tensor) -> Tensor:
    counts = counts.to(loss.dtype) * seen
    total = counts.sum()
    return (counts * loss).sum() / total.masked_fill(total == 0, 1.0)


def _at_least_single(x: Tensor) -> Tensor:
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def _check_axes(x: Tensor, name: str, axes: str) -> None:
    if x.dim() != axes.count(",") + 1:
        raise ShapeError(f"{name} is {axes}, not {tuple(x.shape)}")


def _check_logarithm(x: Tensor, name: str, way_out: str) -> None:
    if bool((x > ABOVE).any()):
        raise InputError(f"{name} holds {x.max().item():.3g}, and the logarithm of a share is at most 0: {way_out}")


def _check_weights(x: Tensor, what: str) -> None:
    if x.dtype != torch.bool and not bool(((x >= 0) & (x < torch.inf)).all()):
        raise InputError(f"{what} holds numbers that are negative or not finite: give 0 or more")


def _check_twice(slope: Tensor) -> None:
    """Torch would say so too, but only when the loss goes back, and without the way out."""
    todo, known = [slope.grad_fn], set()
    while todo:
        node = todo.pop()
        if node is None or node in known:
            continue
        known.add(node)
        if node.name() == "torch::autograd::NotImplemented":
            raise InputError(
                "the model has a part without a second derivative, such as fused attention: load a Hugging Face model "
                'with attn_implementation="eager", and read with path="tiled"'
            )
        todo.extend(before for before, _ in node.next_functions)


def _heads(heads: int | Sequence[int] | None, count: int) -> list[int]:
    wanted = range(count) if heads is None else [heads] if isinstance(heads, int) else heads
    for head in wanted:
        if not -count <= head < count:
            raise AddressError(f"there is no head {head}: this read has {count}")
    return [head % count for head in wanted]


def _row_weights(rows: Tensor | None, like: Tensor) -> Tensor:
    """What each row counts, [b, h, q]."""
    b, h, q = like.shape
    if rows is None:
        return torch.ones((), dtype=torch.bool, device=like.device).expand(b, h, q)
    axes = rows[:, None] if rows.dim() == 2 else rows
    if axes.dim() not in (1, 3) or not _fits(axes.shape, like.shape) or axes.shape[-1] != q:
        raise ShapeError(f"rows are [q], [b, q] or [b, h, q] of a read {(b, h, q)}, not {tuple(rows.shape)}")
    _check_weights(rows, "rows")
    return axes.expand(b, h, q)


def _human(human: Tensor, like: Tensor) -> Tensor:
    """The map with four axes."""
    axes = human[:, None, None] if human.dim() == 2 else human.reshape(1, 1, 1, -1) if human.dim() == 1 else human
    if axes.dim() != 4 or not _fits(axes.shape, like.shape) or axes.shape[-1] != like.shape[-1]:
        told = f"[k], [b, k] or four axes that fit weights {tuple(like.shape)}"
        raise ShapeError(f"a human map is {told}, not {tuple(human.shape)}")
    _check_weights(human, "the human map")
    return axes


def _wrong(wrong: Tensor, inputs: Tensor) -> Tensor:
    """The mask with as many axes as the inputs, as numbers."""
    axes = wrong.reshape(wrong.shape + (1,) * (inputs.dim() - wrong.dim()))
    if axes.dim() != inputs.dim() or not _fits(axes.shape, inputs.shape):
        raise ShapeError(
            f"wrong has the first axes of inputs {tuple(inputs.shape)}, each full or 1, not {tuple(wrong.shape)}"
        )
    _check_weights(wrong, "wrong")
    return axes.to(inputs.dtype)


def _fits(shape: torch.Size, like: torch.Size) -> bool:
    """Each axis is 1 or that of `like`, from the last on."""
    return all(a in (1, b) for a, b in zip(reversed(shape), reversed(like), strict=False))
