"""Rows of a memory as plain data: what `--json` prints and what programs get."""

import math
from typing import Any

from recuerdo.store.record import Record
from recuerdo.workbench.tags import own, source_of


def plain(record: Record) -> dict[str, Any]:
    """A row without its vectors, and without the tags that the memory makes for itself."""
    told = {name: value for name, value in vars(record).items() if name not in ("key", "value")}
    return finite(told | {"tags": own(record.tags), "source": source_of(record.tags)})


def finite(told: Any) -> Any:
    """Plain data without infinities, which JSON does not know: a muted row has the bias null."""
    if isinstance(told, dict):
        return {name: finite(value) for name, value in told.items()}
    if isinstance(told, (list, tuple)):
        return [finite(one) for one in told]
    return None if isinstance(told, float) and not math.isfinite(told) else told
