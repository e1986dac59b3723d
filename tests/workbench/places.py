"""What tests of whole memories share: places of the three kinds as people type them, and memories that have all there is.

The kinds are a file, a schema of a real PostgreSQL, and the REST of a cluster over the engine that its client brings.
"""

import math
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parents[1] / "store"))
import postgres

from recuerdo.store.record import Record, Rows
from recuerdo.workbench.moving import _told, held
from recuerdo.workbench.opening import open_store

KINDS = ("file", "server", "cluster")
D, E = 6, 2
TOWN = "The harvest festival is held in September. Ada leads it.\n\nThe library closes at six. Bob has the key."
_served = []


def place(kind, folder, name="notes"):
    """An address where nothing is yet."""
    if kind == "file":
        return str(folder / f"{name}.db")
    if kind == "server":
        return f"postgresql://postgres@/postgres?host={postgres.server().folder}&schema={postgres.name()}"
    pytest.importorskip("qdrant_client", reason="qdrant-client is not installed: recuerdo[cluster]")
    import clusters

    _served.append(clusters.Served())
    return f"qdrant+{_served[-1].url}/{name}"


def stop():
    """End what was started."""
    postgres.stop()
    while _served:
        _served.pop().stop()


def rows(n, seed=0, **more):
    draw = np.random.default_rng(seed)
    given = {"texts": [f"text {i} of {seed}" for i in range(n)], "values": draw.standard_normal((n, E)), **more}
    return Rows(draw.standard_normal((n, D)), **given)


def filled(where, n=20):
    """Rows with all that rows may have: versions, biases, undone things, holes where rows were forgotten."""
    with open_store(where, width=D, value_width=E) as store:
        store.append(rows(n, tags=[["a", "ü"]] * n, times=[i - 0.1 for i in range(n)], author="Ada"))
        store.update(3, rows(1, seed=1, author="Bob"), reason="was old")
        store.update(3, rows(1, seed=2))
        store.undo(3, author="Ada", reason="was right")
        store.bias([4, 5], -math.inf, author="Ada", reason="never")
        store.bias([6], 1 / 3)
        store.forget([0, 7, n - 1], reason="asked to")
        store.note("encoder", "mine")
    return where


def told(where):
    """All that can be seen of a memory, to the last bit."""
    with open_store(where, read_only=True) as store:
        ids = store.ids().tolist()
        versions = [_told(one) for one in held(store, ids)]
        return {"ids": ids, "rows": versions, "hands": store.hands(), "facts": store.notes(), "wrong": store.check()}


TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
TAGS = st.text(st.characters(categories=["L", "N", "P", "S"]), min_size=1, max_size=9)
FLOATS = st.floats(width=32, allow_nan=False, allow_infinity=False, min_value=-1e6, max_value=1e6)
TIMES = st.floats(min_value=-6e10, max_value=2.5e11)  # the years 68 to 9892
CONTENTS = st.tuples(
    st.lists(st.tuples(TEXTS, st.lists(TAGS, max_size=3, unique=True), TAGS | st.just(""), TIMES), min_size=1, max_size=3),
    st.sampled_from([0.0, -math.inf, 4.0, 0.1]),
    st.integers(1, 5),  # how far the next row is
)  # fmt: skip
VECTORS = st.lists(FLOATS, min_size=D + E, max_size=D + E)


def keep(where, contents, numbers):
    """A memory of drawn contents."""
    vectors = np.array(numbers, np.float32)
    with open_store(where, width=D, value_width=E) as store:
        id = 0
        for versions, bias, gap in contents:
            told = [
                Record(id, i, vectors[:D], vectors[D:], text, tuple(tags), author, when, when / 3, 0.0)
                for i, (text, tags, author, when) in enumerate(versions, 1)
            ]
            store.adopt([*told[:-1], replace(told[-1], bias=bias)])
            id += gap
    return where
