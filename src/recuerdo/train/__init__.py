"""Improve the parameters of a model: one small, visible loop that yields what happens. Loaded when first used."""

from importlib import import_module
from typing import Any

_HOMES = {
    "Checked": "recuerdo.train.fit",
    "Pace": "recuerdo.train.fit",
    "Saved": "recuerdo.train.fit",
    "Step": "recuerdo.train.fit",
    "fit": "recuerdo.train.fit",
    "rounds": "recuerdo.train.fit",
}
__all__ = list(_HOMES)  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'recuerdo.train' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
