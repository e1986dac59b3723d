"""Composes one run: the only room that brings models, marks and evidence together."""

from typing import Any

__all__ = ["load", "look", "watch"]  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    if name == "watch":
        from recuerdo.bridge import watch

        return watch
    if name in ("load", "look"):
        from recuerdo.workbench import looking

        return getattr(looking, name)
    raise AttributeError(f"module 'recuerdo.workbench' has no attribute {name!r}")
