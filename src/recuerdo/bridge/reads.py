"""What the reads of a model are, by the paths of its modules: role, layer, heads, window."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import nn

from recuerdo.bridge.attention import is_foreign

MEMORY = "memory"  # what the memory inside a language model is called among its parts
CROSS = ("encoder_attn", "EncDecAttention", "crossattention", "cross_attn", "cross")


@dataclass(frozen=True)
class Reads:
    """Role (self, cross, encoder, memory) and layer of a read by its path; how many layers and heads; who has a window.

    `layers` and `heads` are None where the model does not say.
    """

    role: Callable[[str], str]
    layer: Callable[[str], int]
    window: Callable[[str], int | None]
    layers: int | None = None
    heads: int | None = None


def is_cross(path: str) -> bool:
    """Whether a module of this path reads another sequence than its own."""
    return any(name in path for name in CROSS)


def layer_of(path: str) -> int:
    """The first number in the path: `model.layers.3.self_attn` is in layer 3, a path without numbers in layer 0."""
    found = re.search(r"(?:^|\.)(\d+)(?:\.|$)", path)
    return int(found[1]) if found else 0


def reads_of(model: nn.Module) -> Reads:
    """The reads of a Hugging Face model or an own one."""
    config: Any = getattr(model, "config", None) if is_foreign(model) else None
    pair = bool(getattr(config, "is_encoder_decoder", False))

    def role(path: str) -> str:
        if path == MEMORY:
            return MEMORY
        if is_cross(path):
            return "cross"
        return "encoder" if pair and re.search(r"(?:^|\.)encoder\.", path) else "self"

    windows = {name: _window(module) for name, module in model.named_modules()} if config is not None else {}
    text = config.get_text_config() if config is not None and hasattr(config, "get_text_config") else config
    return Reads(
        role,
        layer_of,
        windows.get,
        getattr(text, "num_hidden_layers", None),
        getattr(text, "num_attention_heads", None),
    )


def _window(module: nn.Module) -> int | None:
    """How many keys the cache of this module keeps, with the newest; None = all of them."""
    if "attention" not in type(module).__name__.lower():
        return None
    if hasattr(module, "sliding_window"):
        return module.sliding_window  # type: ignore[return-value]
    return getattr(getattr(module, "config", None), "sliding_window", None)
