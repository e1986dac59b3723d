"""What a memory costs: a softmax read over all rows against a plain product, and writes against raw SQLite.

python benchmarks/store.py            all of it (a million rows of 384; about ten minutes on two cores, 4 GB of disk)
python benchmarks/store.py --quick    100,000 rows, under 50 s
python benchmarks/store.py scan writes    only these sections of scan, batch, writes and commits
"""

import os
import shutil
import sqlite3
import tempfile
import time
from pathlib import Path

from measure import Report, arguments, interleaved, median, ratio

import numpy as np  # isort: skip  (after measure has set the wait policy)

from recuerdo.store.embedded import Embedded
from recuerdo.store.record import Rows, Rules

D, PART, TOP = 384, 10_000, 10
SHARP = Rules(20.0)


def vectors(n: int, seed: int) -> np.ndarray:
    """Unit vectors around 1,000 centres, as texts have them."""
    draw = np.random.default_rng(seed)
    centres = np.random.default_rng(0).standard_normal((1000, D), dtype=np.float32)
    rows = centres[draw.integers(0, 1000, n)] + 0.7 * draw.standard_normal((n, D), dtype=np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def filled(folder: Path, n: int) -> Embedded:
    """A store of n rows, made once for all sections."""
    there = (folder / "rows.db").exists()
    store = Embedded(folder / "rows.db", width=D)
    if not there:
        for first in range(0, n, PART):
            store.append(Rows(vectors(min(PART, n - first), first + 1)))
    return store


def plain(keys: np.ndarray, query: np.ndarray) -> np.ndarray:
    """The peer: one product and the best ten, no softmax."""
    logits = keys @ query
    best = np.argpartition(-logits, TOP)[:TOP]
    return best[np.argsort(-logits[best])]


def scan(report: Report, quick: bool, folder: Path) -> None:
    """A full softmax read (ids, weights, log-mass over all rows) against a plain product with top-k."""
    n, rounds = (100_000, 15) if quick else (1_000_000, 9)
    with filled(folder, n) as store:
        queries = iter(vectors(10_000, 7))
        keys = np.array(store.vectors()[1])
        times = interleaved(
            {
                "read": lambda: store.scan(next(queries)[None], top=TOP, rules=SHARP),
                "plain": lambda: plain(keys, next(queries)),
            },
            rounds,
        )
        how = f"{n:,} x {D}, CPU s, median of {rounds}"
        report.add("softmax read over all rows", 1e3 * median(times["read"]), "ms", how=how)
        report.add("plain product + top 10", 1e3 * median(times["plain"]), "ms", how=how)
        value = ratio(times, "read", "plain")
        against = "numpy, keys in memory"
        report.add("read against plain product", value, "x", target="<= 1.2", ok=value <= 1.2, against=against, how=how)
        query = next(queries)
        found = store.scan(query[None], top=TOP, rules=SHARP)
        logits = 20.0 * keys.astype(np.float64) @ query
        best = np.argsort(-logits, kind="stable")[:TOP]
        off = float(np.abs(found.weights[0] - np.exp(logits[best] - np.logaddexp.reduce(logits))).max())
        exact = found.ids[0].tolist() == best.tolist() and off <= 1e-6
        report.add(
            "its weights differ from float64 by", off, "", target="<= 1e-6", ok=exact, how=f"{n:,} rows, one query"
        )
        report.add(
            "softmax held by the ten best", float(found.covered[0]), "share", how="sharpness 20; `covered` says it"
        )


def batch(report: Report, quick: bool, folder: Path) -> None:
    """Thirty-two queries at once."""
    n, rounds = (100_000, 9) if quick else (1_000_000, 5)
    with filled(folder, n) as store:
        many = vectors(32, 9)
        times = interleaved(
            {
                "one": lambda: store.scan(many[:1], top=TOP, rules=SHARP),
                "32": lambda: store.scan(many, top=TOP, rules=SHARP),
            },
            rounds,
        )
        value = 32 * ratio(times, "one", "32")
        how = f"{n:,} x {D}, CPU s, median of {rounds}"
        report.add(
            "throughput of 32 queries at once", value, "x", target=">= 8", ok=value >= 8, against="one by one", how=how
        )


class Raw:
    """The peer: the same bytes into one table of SQLite (WAL, FULL), nothing else."""

    def __init__(self, path: Path):
        self.db = sqlite3.connect(path, isolation_level=None)
        for setting in ("journal_mode=WAL", "synchronous=FULL"):
            self.db.execute(f"PRAGMA {setting}")
        self.db.execute("CREATE TABLE rows(id INTEGER PRIMARY KEY, time REAL, text TEXT, key BLOB)")

    def append(self, keys: np.ndarray, texts: list[str]) -> None:
        now = time.time()
        self.db.execute("BEGIN IMMEDIATE")
        told = ((now, text, key.tobytes()) for key, text in zip(keys, texts, strict=True))
        self.db.executemany("INSERT INTO rows(time, text, key) VALUES(?, ?, ?)", told)
        self.db.execute("COMMIT")


def wall(variants: dict, rounds: int) -> dict[str, list[float]]:
    """Seconds by the clock of every variant, in turn: a write waits for the disk."""
    times: dict[str, list[float]] = {name: [] for name in variants}
    for turn in range(rounds + 1):
        for name, function in variants.items():
            start = time.perf_counter()
            function()
            if turn:
                times[name].append(time.perf_counter() - start)
    return times


def writes(report: Report, quick: bool, folder: Path) -> None:
    """Batches of a thousand rows with texts, and rows one by one, acknowledged on the disk."""
    texts = [
        f"This is what row {i} says, and it says it in a sentence of a usual length, as rows do." for i in range(1000)
    ]
    keys = vectors(1000, 3)
    for size, rounds in ((1000, 15 if quick else 40), (1, 200 if quick else 600)):
        raw, store = Raw(folder / f"raw{size}.db"), Embedded(folder / f"ours{size}.db", width=D)
        rows = Rows(keys[:size], texts[:size])
        times = wall({"ours": lambda: store.append(rows), "raw": lambda: raw.append(keys[:size], texts[:size])}, rounds)
        value = 1 / ratio(times, "ours", "raw")
        how = f"{size} rows a commit, seconds by the clock, median of {rounds}"
        report.add(f"rows a second, {size} a commit", size / median(times["ours"]), "rows/s", how=how)
        against = f"raw sqlite3 (WAL, FULL): {size / median(times['raw']):,.0f}"
        report.add(f"of raw, {size} a commit", value, "x", target=">= 0.7", ok=value >= 0.7, against=against, how=how)
        store.close()
        raw.db.close()


def commits(report: Report, quick: bool, folder: Path) -> None:
    """Six hundred single commits: files, and the time of a look afterwards."""
    with filled(folder, 100_000 if quick else 1_000_000) as store:
        query = vectors(1, 5)
        before = interleaved({"scan": lambda: store.scan(query, rules=SHARP)}, 5)["scan"]
        for row in vectors(600, 11):
            store.append(Rows(row[None]))
        after = interleaved({"scan": lambda: store.scan(query, rules=SHARP)}, 5)["scan"]
        value = median(after) / median(before)
        how = "600 commits of one row, CPU s of a scan, median of 5"
        report.add(
            "a look after 600 single commits", value, "x", target="<= 1.2", ok=value <= 1.2, against="before", how=how
        )
        files = len(list(folder.glob("rows.db*")))
        report.add("files of the memory", files, "files", how="database, log, shared memory, two columns")
        start = time.perf_counter()
    with Embedded(folder / "rows.db") as store:
        report.add(
            "opened again", 1e3 * (time.perf_counter() - start), "ms", how="closing it and opening it, by the clock"
        )
        size = store.stats()
        report.add(
            "on the disk", size.bytes / size.rows, "bytes/row", against=f"{4 * D} of a key", how="database and columns"
        )


SECTIONS = {"scan": scan, "batch": batch, "writes": writes, "commits": commits}


def main() -> None:
    given = arguments(__doc__ or "")
    report = Report(given.json)
    folder = Path(tempfile.mkdtemp(prefix="recuerdo-store-", dir=os.environ.get("TMPDIR")))
    try:
        for name, section in SECTIONS.items():
            if not given.sections or name in given.sections:
                section(report, given.quick, folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
