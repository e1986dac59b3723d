"""Hugging Face models get addresses here; the catalogue of small real models. Loaded when first used."""

from importlib import import_module
from typing import Any

_HOMES = {
    "attach": "recuerdo.bridge.attention",
    "is_foreign": "recuerdo.bridge.attention",
    "watch": "recuerdo.bridge.attention",
    "load": "recuerdo.bridge.run",
    "remember_in": "recuerdo.bridge.remembering",
}
__all__ = list(_HOMES)  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'recuerdo.bridge' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
