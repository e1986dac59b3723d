"""A person's marks: where to look and where not; kept as feedback. Loaded when first used, without torch."""

from importlib import import_module
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
    "Feedback": "recuerdo.steer.journal",
    "Journal": "recuerdo.steer.journal",
    "journal_folder": "recuerdo.steer.journal",
}
__all__ = list(_HOMES)  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'recuerdo.steer' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
