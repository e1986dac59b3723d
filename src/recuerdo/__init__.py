"""recuerdo: attention and memory that people can look at, steer and keep.

The names below are loaded when first used: `import recuerdo` is quick and does not import torch.
"""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_HOMES = {
    "read": "recuerdo.read",
    "merge": "recuerdo.read",
    "Reading": "recuerdo.read",
    "Mask": "recuerdo.read",
    "causal": "recuerdo.read",
    "lengths": "recuerdo.read",
    "window": "recuerdo.read",
    "bend": "recuerdo.read",
    "attach": "recuerdo.bridge",
    "watch": "recuerdo.workbench",
    "load": "recuerdo.workbench",
    "look": "recuerdo.workbench",
    "Mark": "recuerdo.steer",
    "Profile": "recuerdo.steer",
    "steer": "recuerdo.steer",
    "ask_steered": "recuerdo.workbench",
    "learn_profile": "recuerdo.workbench",
    "teach": "recuerdo.workbench",
    "trust": "recuerdo.workbench",
    "Memory": "recuerdo.workbench",
    "RecuerdoError": "recuerdo.errors",
}
__all__ = [*_HOMES, "__version__"]  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'recuerdo' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
