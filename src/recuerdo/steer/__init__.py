"""A person's marks: where to look and where not; kept as feedback. Loaded when first used, without torch.

The room and its verb share a name: `with recuerdo.steer(model, marks):` works, and so does `recuerdo.steer.boost`.
"""

import sys
from contextlib import AbstractContextManager
from importlib import import_module
from types import ModuleType
from typing import Any

_HOMES = {
    "Box": "recuerdo.steer.marks",
    "Mark": "recuerdo.steer.marks",
    "Quote": "recuerdo.steer.marks",
    "Scope": "recuerdo.steer.marks",
    "Slots": "recuerdo.steer.marks",
    "Span": "recuerdo.steer.marks",
    "Time": "recuerdo.steer.marks",
    "as_marks": "recuerdo.steer.marks",
    "boost": "recuerdo.steer.marks",
    "check_overlaps": "recuerdo.steer.marks",
    "damp": "recuerdo.steer.marks",
    "marks_as_data": "recuerdo.steer.marks",
    "mute": "recuerdo.steer.marks",
    "read_marks": "recuerdo.steer.marks",
    "share": "recuerdo.steer.marks",
    "spans_of": "recuerdo.steer.marks",
    "escape_markup": "recuerdo.steer.markup",
    "parse_markup": "recuerdo.steer.markup",
    "box_mask": "recuerdo.steer.cells",
    "patch_mask": "recuerdo.steer.cells",
    "time_mask": "recuerdo.steer.cells",
    "log_of": "recuerdo.steer.losses",
    "map_loss": "recuerdo.steer.losses",
    "mass_loss": "recuerdo.steer.losses",
    "right_reasons": "recuerdo.steer.losses",
    "Profile": "recuerdo.steer.profiles",
    "load_profile": "recuerdo.steer.profiles",
    "Feedback": "recuerdo.steer.journal",
    "Journal": "recuerdo.steer.journal",
    "journal_folder": "recuerdo.steer.journal",
}
__all__ = [*_HOMES, "steer"]  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    if name == "steer":
        return sys.modules[__name__]
    if name not in _HOMES:
        raise AttributeError(f"module 'recuerdo.steer' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


class _Callable(ModuleType):
    """Steer a model inside a block: see `recuerdo.workbench.steering.steer`, where models and marks meet.

    This room knows no models and may not import that one; the verb is looked up by name when it is called.
    """

    def __call__(self, model: Any, marks: Any, **where: Any) -> AbstractContextManager[Any]:
        return import_module("recuerdo.workbench").steer(model, marks, **where)


sys.modules[__name__].__class__ = _Callable
