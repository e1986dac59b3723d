"""Composes one run: the only room that brings models, marks and evidence together."""

from importlib import import_module
from typing import Any

_HOMES = {
    "watch": "recuerdo.bridge",
    "load": "recuerdo.workbench.looking",
    "look": "recuerdo.workbench.looking",
    "steer": "recuerdo.workbench.steering",
    "ask_steered": "recuerdo.workbench.steering",
    "dose_curve": "recuerdo.workbench.steering",
    "learn_profile": "recuerdo.workbench.profiling",
    "teach": "recuerdo.workbench.teaching",
    "trust": "recuerdo.workbench.trusting",
    "Memory": "recuerdo.workbench.remembering",
}
__all__ = list(_HOMES)  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'recuerdo.workbench' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
