"""Hugging Face models call our read: `with attach(model):`, scoped and reversible.

Transformers lets attention functions be registered by name; a model looks its function up by name at every call. So
nothing of the model is replaced: inside the block its configurations name our function, afterwards the old one again.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from recuerdo.errors import ModelError, ReadError
from recuerdo.read import Mask, Product, Reading, Seen, SoftCapped, allow, causal, read
from recuerdo.read import watch as watch_reads

if TYPE_CHECKING:
    from transformers import PreTrainedModel

NAME = "recuerdo"


def _attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None = None,
    **told: Any,
) -> tuple[Tensor, Tensor | None]:
    """Transformers' attention signature over our read. query [b, h, q, d], key and value [b, g, k, d]."""
    if told.get("dropout"):
        raise ReadError("our read has no attention dropout: call model.eval(), or set attention_dropout to 0")
    if told.get("s_aux") is not None:
        raise ModelError(f"{type(module).__name__} adds a learned sink to every row: such models are not readable yet")
    q, k = query.shape[2], key.shape[2]
    is_causal = told.get("is_causal")
    if is_causal is None:
        is_causal = getattr(module, "is_causal", False)
    mask: Mask | None = None
    bias = told.get("position_bias")
    if attention_mask is None and is_causal and q > 1:
        if k > q:  # an empty static cache before its first step: the keys behind the queries do not exist yet
            key, value = key[:, :, :q], value[:, :, :q]
            bias = bias if bias is None else bias[..., :q]
        mask = causal
    elif attention_mask is not None and attention_mask.dtype == torch.bool:
        mask = allow(attention_mask)
    elif attention_mask is not None:
        bias = attention_mask if bias is None else (bias, attention_mask)
    scale, cap = told.get("scaling"), told.get("softcap")
    score = Product(scale) if cap is None else SoftCapped(cap, scale)
    reading = read(query, key, value, mask=mask, bias=bias, score=score)
    weights = reading.weights[:, :].to(query.dtype) if told.get("output_attentions") else None
    return reading.mixed.transpose(1, 2).contiguous(), weights


def _register() -> None:
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import sdpa_mask

    AttentionInterface.register(NAME, _attention)
    AttentionMaskInterface.register(NAME, sdpa_mask)  # without one of this name a model builds no mask at all


def _configurations(model: "PreTrainedModel") -> list[Any]:
    """Every configuration that a part of the model looks its attention up in, each once."""
    from transformers import PreTrainedConfig

    found: dict[int, Any] = {}
    open_: list[Any] = [m.config for m in model.modules() if isinstance(getattr(m, "config", None), PreTrainedConfig)]
    while open_:
        config = open_.pop()
        if id(config) not in found:
            found[id(config)] = config
            open_ += [c for name in config.sub_configs if (c := getattr(config, name, None)) is not None]
    return list(found.values())


def is_foreign(model: object) -> bool:
    """Whether this is a Hugging Face model (without importing transformers to find out)."""
    return any(base.__module__.startswith("transformers.") for base in type(model).__mro__)


@contextmanager
def attach(model: "PreTrainedModel") -> Iterator["PreTrainedModel"]:
    """Let every attention of a Hugging Face model be a `recuerdo.read` inside the block.

    Outputs stay those of the model's own attention within rounding. Leaving the block, also by an exception, restores
    the model exactly. Raises ModelError for anything that is not a Transformers model.
    """
    if not is_foreign(model):
        raise ModelError(
            f"{type(model).__name__} is not a Transformers model: own models call recuerdo.read and need no attaching"
        )
    _register()
    configurations = _configurations(model)
    before = [config._attn_implementation_internal for config in configurations]
    for config in configurations:
        config._attn_implementation_internal = NAME
    try:
        yield model
    finally:
        for config, name in zip(configurations, before, strict=True):
            config._attn_implementation_internal = name


@contextmanager
def watch(model: nn.Module, *, each: Callable[[str, Reading], None] | None = None) -> Iterator[Seen]:
    """Observe every read of a model, own or Hugging Face's, inside the block; `each(path, reading)` as they come.

    Addresses are module paths (`model.layers.3.self_attn`); each step of `generate()` is a step of its address.
    Raises NothingHeard for a model whose attention does not go through Transformers' interface (BLOOM).
    """
    if not is_foreign(model):
        with watch_reads(model, each=each) as seen:
            yield seen
        return
    with attach(model), watch_reads(model, each=each, append_only=True) as seen:  # type: ignore[arg-type]
        yield seen
