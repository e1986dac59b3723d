"""Makes the index of a memory and forgets rows, over and over, until it is killed: `python indexer.py FOLDER`."""

import sys
from pathlib import Path

import numpy as np

from recuerdo.store.embedded import Embedded
from recuerdo.store.record import Rows

folder, D = Path(sys.argv[1]), 16
draw = np.random.default_rng(0)
centres = np.random.default_rng(99).standard_normal((12, D))
keys = centres[draw.integers(0, 12, 3000)] + 0.4 * draw.standard_normal((3000, D))
with Embedded(folder / "notes.db", width=D) as store, open(folder / "forgotten", "a", encoding="utf-8") as told:
    store.append(Rows(keys / np.linalg.norm(keys, axis=1, keepdims=True)))
    for id in range(3000):
        store.index()
        store.forget([id])
        told.write(f"{id}\n")
        told.flush()
