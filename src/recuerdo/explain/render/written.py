"""Write a look to a file of the kind that its name says."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from recuerdo.errors import InputError
from recuerdo.explain import KINDS
from recuerdo.explain.render.picture import saved


def written(
    path: Path,
    *,
    page: Callable[[], str],
    data: Callable[[], Mapping[str, Any]],
    arrays: Callable[[], Mapping[str, Any]],
    drawn: Callable[[], Any],
) -> None:
    """A .html (`page`), .json (`data`), .npz (`arrays`), .svg or .png (`drawn`, a figure) file; only what is needed is
    made. Raises InputError for another kind, for a file that cannot be written, and for pictures without matplotlib."""
    kind = path.suffix.lower()
    try:
        if kind == ".html":
            path.write_text(page(), encoding="utf-8")
        elif kind == ".json":
            path.write_text(json.dumps(data(), ensure_ascii=False), encoding="utf-8")
        elif kind == ".npz":
            with path.open("wb") as file:
                np.savez_compressed(file, **arrays())
        elif kind in KINDS:
            with saved(path) as save:
                save(drawn())
        else:
            raise InputError(f"{path} has no kind that can be written: name it {', '.join(KINDS[:-1])} or {KINDS[-1]}")
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error.strerror}") from error
