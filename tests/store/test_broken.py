"""What can still be read of a damaged file: pages without SQLite, rows by their shape, the log; nothing is invented."""

import os
import shutil
import sqlite3

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recuerdo.errors import StoreError
from recuerdo.store.broken import Broken
from recuerdo.store.embedded import Embedded
from recuerdo.store.pages import Pages
from recuerdo.store.record import Rows

D = 24


def rows(n, seed=0, **more):
    draw = np.random.default_rng(seed)
    texts = [f"<<text {i} of {seed}>>" * (400 if i % 17 == 5 else 3) for i in range(n)]  # some on several pages
    return Rows(draw.standard_normal((n, D)), **{"texts": texts, "tags": [["a", f"t{i}"] for i in range(n)], **more})


def made(path, n=400):
    with Embedded(path, width=D) as store:
        store.append(rows(n, times=[float(i) for i in range(n)], author="Ada"))
        for id in range(3, n, 40):
            store.update(id, rows(1, seed=id), reason="was old")
        store.bias([5, 6], -np.inf, author="Bob")
        store.bias([7], 0.3)
        store.forget([8, 9])
        store.note("encoder", "mine")
    return path


def told(store):
    return [
        [(one.version, one.text, one.tags, one.author, one.time, one.written, one.bias, one.key.tobytes()) for one in store.history(id)]
        for id in store.ids().tolist()
    ]  # fmt: skip


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return made(tmp_path_factory.mktemp("whole") / "notes.db")


def copied(whole, folder):
    for file in whole.parent.iterdir():
        if file.is_file() and not file.name.endswith("-shm"):
            shutil.copyfile(file, folder / file.name)
    return folder / whole.name


def test_a_file_that_is_well_is_read_as_sqlite_reads_it(whole, tmp_path):
    before = {file.name: (file.read_bytes(), file.stat().st_mtime_ns) for file in whole.parent.iterdir()}
    with Broken(whole) as broken:
        found, lost = told(broken), broken.lost
        hands, facts, ids, width = broken.hands(), broken.notes(), broken.ids().tolist(), broken.width
    assert before == {file.name: (file.read_bytes(), file.stat().st_mtime_ns) for file in whole.parent.iterdir()}
    with Embedded(copied(whole, tmp_path)) as store:
        assert found == told(store)
        assert (hands, facts, ids, width) == (store.hands(), store.notes(), store.ids().tolist(), D)
    assert (lost.rows, lost.versions, lost.doubtful, lost.frames) == ((), 0, {}, 0)


@pytest.mark.parametrize("size", [512, 1024, 65_536])
def test_pages_of_every_size_are_read(size, tmp_path):
    db = sqlite3.connect(tmp_path / "x.db")
    db.execute(f"PRAGMA page_size = {size}")
    db.execute("CREATE TABLE t(a INTEGER PRIMARY KEY, b, c, d, e)")
    draw = np.random.default_rng(size)
    given = [(i - 50, int(draw.integers(-(2**62), 2**62)) >> int(draw.integers(63)), float(draw.standard_normal()), "ü" * int(draw.integers(0, 3000)), draw.bytes(int(draw.integers(0, 200_000 if i == 7 else 900)))) for i in range(100)]  # fmt: skip
    db.executemany("INSERT INTO t VALUES(?, ?, ?, ?, ?)", [*given, (99, None, 0, 1, 2)])
    db.commit()
    db.close()
    pages = Pages(tmp_path / "x.db")
    found = [(rowid, *values[1:]) for n in range(2, pages.count + 1) for _, rowid, values in pages.rows(n)]
    assert sorted(found, key=lambda row: row[0]) == [*given, (99, None, 0, 1, 2)]
    pages.close()


def test_what_is_only_in_the_log_is_read_too(tmp_path):
    with Embedded(tmp_path / "notes.db", width=D) as store:
        store.append(rows(50))
        store.bias([3], 1.0)
        store.append(rows(50, seed=1))
        store._db.execute("BEGIN")
        store._db.execute("UPDATE bodies SET text = 'never committed'")
        folder = tmp_path / "killed"
        folder.mkdir()
        path = copied(tmp_path / "notes.db", folder)
        store._db.execute("ROLLBACK")
        assert (folder / "notes.db-wal").stat().st_size > 50_000
        with Broken(path) as broken:
            assert told(broken) == told(store)
        log = bytearray((folder / "notes.db-wal").read_bytes())
        log[32 + 24 + 100] ^= 1
        (folder / "notes.db-wal").write_bytes(log)
        with Broken(path) as broken:
            assert broken.lost.frames == 1
            assert len(broken.ids()) >= 50


PAGE = 8192


@settings(max_examples=10, deadline=None)
@given(harm=st.lists(st.tuples(st.integers(0, 2**40), st.binary(min_size=1, max_size=300)), min_size=1, max_size=12))
def test_random_bytes_harm_no_row_but_those_on_their_pages(whole, harm):
    untouched_and_said(whole, harm)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(300))
def test_random_bytes_three_hundred_times(whole, seed):
    draw = np.random.default_rng(seed)
    many = int(draw.integers(1, 40))
    untouched_and_said(
        whole, [(int(draw.integers(2**40)), draw.bytes(int(draw.integers(1, 6000)))) for _ in range(many)]
    )


def untouched_and_said(whole, harm):
    """Rows of whose pages no byte was changed are there as they were; all others are there, or said to be lost."""
    folder = whole.parent / "harmed"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    path = copied(whole, folder)
    data, size = bytearray(path.read_bytes()), path.stat().st_size
    with Broken(whole) as before:
        spots = {id: [spot for _, spot in told] for id, told in before._told.items()}
        was = dict(zip(before.ids().tolist(), told(before), strict=True))
        spread = {id for id, told in was.items() if any(len(one[1]) > 2000 for one in told)}  # on several pages
    touched = set()
    for at, some in harm:
        at %= size
        data[at : at + len(some)] = some[: size - at]
        touched |= {*range(at // PAGE + 1, (at + len(some) - 1) // PAGE + 2)}
    path.write_bytes(data)
    try:
        broken = Broken(path)
    except StoreError:
        assert touched >= {page for some in spots.values() for page, _ in some}
        return
    with broken:
        now, lost = dict(zip(broken.ids().tolist(), told(broken), strict=True)), broken.lost
        for id, some in spots.items():
            if not touched & {page for page, _ in some} and id not in spread:
                mine = [one[:6] + one[7:] for one in now[id]]
                assert mine == [one[:6] + one[7:] for one in was[id]], id
            assert id in now or id in lost.rows or not lost.counted
        # Nothing is invented but by a byte that makes one number into another.
        assert len({*now} - {*was}) <= len(touched)


@pytest.mark.parametrize("what", ["first page", "head", "cut", "cache", "key"])
def test_what_becomes_of_which_harm(what, whole, tmp_path):
    path = copied(whole, tmp_path)
    data, keys = bytearray(path.read_bytes()), path.with_name("notes.db-keys")
    with Broken(path) as broken:
        was, spots = told(broken), broken._told
    page, at = spots[50][0][1]
    if what in ("first page", "head"):
        n = PAGE if what == "first page" else 100
        data[:n] = os.urandom(n)
    elif what == "cut":
        data = data[: (page - 1) * PAGE]
    elif what == "key":
        spot = data.index(np.float32(rows(400).keys[50]).tobytes())
        data[spot : spot + 4] = b"\x7f\xff\xff\xff"[::-1]
    elif what == "cache":
        keys.unlink()
    path.write_bytes(data)
    with Broken(path) as broken:
        now, lost = told(broken), broken.lost
    if what in ("first page", "head", "cache"):
        assert now == was
    elif what == "cut":
        assert 50 in lost.rows
        assert len(now) + len(lost.rows) >= len(was)
    else:
        assert now == was  # by the cache
        assert lost.doubtful == {50: "its key is that of the cache beside the memory"}


def test_what_is_no_memory_is_said(tmp_path):
    for name, content in {"empty": b"", "noise": os.urandom(50_000), "zeros": bytes(50_000)}.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(StoreError, match=f"{name} has no row that could be read: take a snapshot or a backup"):
            Broken(tmp_path / name)
    with pytest.raises(StoreError, match="none cannot be read .*: look at its name and its rights"):
        Broken(tmp_path / "none")
