"""The embedded store and its files: other processes, caches that are torn, kills, full disks, bytes that are gone."""

import multiprocessing
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from recuerdo.errors import InputError, StoreError
from recuerdo.store import column as columns
from recuerdo.store.embedded import Embedded
from recuerdo.store.record import Rows, Rules
from recuerdo.store.session import Session

D = 16
HERE = Path(__file__).parent


def rows(n, seed=0, **more):
    draw = np.random.default_rng(seed)
    return Rows(draw.standard_normal((n, D)), [f"row {i} of {seed}" for i in range(n)], **more)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "notes.db"


def made(path, n=5):
    with Embedded(path, width=D) as store:
        store.append(rows(n))
    return path


def finds(store, n, seed=0):
    """Whether the store has exactly these rows and finds each by its own key."""
    keys = rows(n, seed).keys
    found = store.scan(keys, top=1, rules=Rules(20.0))
    return (
        store.check() == [] and found.looked == n and [store.get(i)[0].text for i in found.ids] == rows(n, seed).texts
    )


# ------------------------------------------------------------------------------------------------------------- opening


def test_a_memory_is_opened_as_what_it_is(path):
    with pytest.raises(StoreError, match="there is no memory .*notes.db: make one"):
        Embedded(path)
    with pytest.raises(StoreError, match="there is no memory"):
        Embedded(path, width=D, read_only=True)
    assert not path.exists()
    made(path)
    with pytest.raises(InputError, match=r"has keys and values of width \(16, 0\), not \(8, 0\): another encoder"):
        Embedded(path, width=8)
    with Embedded(path) as store:
        assert (store.width, store.value_width) == (D, 0)
        assert store.stats().bytes >= path.stat().st_size
    with Embedded(path, read_only=True) as store:
        for write in (lambda: store.append(rows(1)), lambda: store.forget([0]), store.rebuild):
            with pytest.raises(StoreError, match="was opened to be read only"):
                write()
        assert finds(store, 5)


def test_files_that_are_no_memory_are_refused_and_left_alone(path):
    path.write_bytes(b"a letter to my aunt, longer than a header of a database would be\n" * 20)
    before = path.read_bytes()
    for write in (True, False):
        with pytest.raises(StoreError, match="is damaged"):
            Embedded(path, width=D, read_only=not write)
    assert path.read_bytes() == before
    path.unlink()
    with sqlite3.connect(path) as other:
        other.execute("CREATE TABLE mine(x)")
    other.close()
    before = path.read_bytes()
    for write in (True, False):
        with pytest.raises(StoreError, match="is no memory of recuerdo"):
            Embedded(path, width=D, read_only=not write)
    assert path.read_bytes() == before


def test_a_memory_of_a_later_version_is_not_guessed_at(path):
    made(path)
    with sqlite3.connect(path) as db:
        db.execute("UPDATE state SET schema = 99")
    db.close()
    with pytest.raises(StoreError, match="is of version 99, and this recuerdo knows 1: use the recuerdo that made it"):
        Embedded(path)


def test_a_folder_that_is_not_there_is_said(tmp_path):
    with pytest.raises(StoreError, match="cannot be written or opened"):
        Embedded(tmp_path / "nowhere/notes.db", width=D)


# -------------------------------------------------------------------------------------------------------------- caches


@pytest.mark.parametrize("read_only", [False, True])
@pytest.mark.parametrize(
    "harm", ["gone", "empty", "short", "header", "other", "older", "newer", "unsynced and another boot"]
)
def test_a_cache_that_is_not_of_the_database_is_made_again(path, harm, read_only, monkeypatch):
    made(path)
    cache = path.with_name("notes.db-keys")
    old = cache.read_bytes()
    with Embedded(path) as store:
        store.append(Rows(rows(6).keys[5:], rows(6).texts[5:]))
    new = cache.read_bytes()
    if harm == "gone":
        cache.unlink()
    elif harm == "older":
        cache.write_bytes(old)
    elif harm == "newer":  # the database is put back from a copy, and goes on otherwise
        with Embedded(path) as store:
            store.snapshot(path.with_name("copy.db"))
            store.append(rows(3, seed=4))
        os.replace(path.with_name("copy.db"), path)
    elif harm == "other":
        with Embedded(path.with_name("other.db"), width=D) as store:
            store.append(rows(6, seed=3))
        os.replace(path.with_name("other.db-keys"), cache)
    elif harm.startswith("unsynced"):
        with open(cache, "r+b") as file:  # what was synced when the first five were there
            file.seek(columns.HEADER + 5 * 4 * D)
            file.write(bytes(4 * D))
        synced = columns._Head.read(fd := os.open(cache, os.O_RDWR))
        synced.synced = 5
        os.pwrite(fd, synced.packed(), 0)
        os.close(fd)
        monkeypatch.setattr(columns, "boot_number", lambda: bytes(range(16)))
    else:
        cache.write_bytes({"empty": b"", "short": new[:-70], "header": bytes(100) + new[100:]}[harm])
    with Embedded(path, read_only=read_only) as store:
        assert finds(store, 6)
        assert store.check() == []
    if not read_only:
        with Embedded(path, read_only=True) as store:
            assert finds(store, 6)


def test_a_cache_that_was_changed_in_the_middle_is_noticed_and_can_be_made_again(path):
    made(path)
    with open(path.with_name("notes.db-keys"), "r+b") as file:
        file.seek(columns.HEADER + 2 * 4 * D)
        file.write(rows(1, seed=9).keys.tobytes())
    with Embedded(path) as store:
        with pytest.raises(
            StoreError, match="notes.db-keys is not what .*notes.db says: run `recuerdo memories rebuild --memory"
        ):
            store.scan(rows(1, seed=9).keys, top=1)
        assert store.check() == [f"{path}-keys differs from the database in 1 parts of 4096 rows"]
        store.rebuild()
        assert finds(store, 5)


def test_a_reader_sees_what_is_written_and_made_again_meanwhile(path):
    with Embedded(path, width=D) as store, Embedded(path.with_name("x.db"), width=D):
        with Embedded(path, read_only=True) as reader:
            assert reader.ids().tolist() == []
            store.append(rows(5))
            assert finds(reader, 5)
            store.rebuild()
            store.append(Rows(rows(6).keys[5:], rows(6).texts[5:]))
            assert finds(reader, 6)
            store.bias([0], -np.inf)
            assert reader.scan(rows(6).keys).looked == 5
            store.forget([0])
            assert reader.ids().tolist() == [1, 2, 3, 4, 5]
        with Embedded(path) as second:  # another writer, in turns
            second.append(rows(1, seed=7))
            second.rebuild()
            store.append(rows(1, seed=8))
            assert second.ids().tolist() == store.ids().tolist() == [1, 2, 3, 4, 5, 6, 7]
            assert second.check() == store.check() == []


def test_ids_that_are_too_far_apart_are_not_adopted(path):
    with Embedded(path, width=D) as store:
        store.append(rows(2))
        one = store.get([0])[0]
        for id in (10**9, 5_000_000):
            with pytest.raises(InputError, match="are too far apart to be kept: append the rows as new ones"):
                store.adopt([replace(one, id=id)])
        store.adopt([replace(one, id=50_000)])
        assert store.ids().tolist() == [0, 1, 50_000]
        assert store.append(rows(1, seed=3)).tolist() == [50_001]
        assert store.check() == []


# --------------------------------------------------------------------------------------------------------- other writers


def test_a_second_writer_waits_and_is_then_told(path):
    made(path)
    with Embedded(path, wait=0.2) as store, sqlite3.connect(path, isolation_level=None) as other:
        other.execute("BEGIN IMMEDIATE")
        since = time.monotonic()
        with pytest.raises(StoreError, match="another process writes into .*notes.db: wait for it"):
            store.append(rows(1))
        assert time.monotonic() - since > 0.15
        assert finds(store, 5)  # it may be read meanwhile
        other.execute("COMMIT")
        store.append(rows(1, seed=2))
        assert store.stats().rows == 6
    other.close()


def write_some(path, seed):
    with Embedded(path, wait=60) as store:
        for i in range(20):
            store.append(rows(3, seed=100 * seed + i))


def test_two_processes_write_at_once_and_nothing_is_lost(path):
    made(path, 0)
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=write_some, args=(path, seed)) for seed in (1, 2)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
        assert writer.exitcode == 0
    with Embedded(path) as store:
        wanted = {text for seed in (1, 2) for i in range(20) for text in rows(3, seed=100 * seed + i).texts}
        assert {one.text for one in store.get(store.ids())} == wanted
        assert store.check() == []


# ----------------------------------------------------------------------------------------------------------------- harm


def test_a_full_disk_is_told_and_changes_nothing(path, monkeypatch):
    made(path)
    with Embedded(path) as store:
        put = columns.Column.put

        def full(self, place, given):
            put(self, place, given[:1])
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(columns.Column, "put", full)
        with pytest.raises(StoreError, match="the disk of .*notes.db is full; nothing was changed: make room"):
            store.append(rows(4, seed=2))
        monkeypatch.undo()
        assert finds(store, 5)
        store._db.execute("PRAGMA max_page_count = 20")
        with pytest.raises(StoreError, match="the disk of .*notes.db is full; nothing was changed"):
            store.append(rows(2000, seed=3))
        assert finds(store, 5)
        store._db.execute("PRAGMA max_page_count = 1000000")
        assert store.append(rows(1, seed=2)).tolist() == [5]
        assert store.check() == []


@pytest.fixture
def locked():
    """A folder that can be made one that may only be read, also for root, who becomes nobody meanwhile."""
    folder = Path(tempfile.mkdtemp())
    files, before = folder / "inside", os.geteuid()
    files.mkdir()

    def lock():
        for file in (*files.iterdir(), files):
            file.chmod(0o555 if file.is_dir() else 0o444)
        folder.chmod(0o755)
        if before == 0:
            os.seteuid(65534)
        return files

    yield files, lock
    os.seteuid(before)
    files.chmod(0o755)
    shutil.rmtree(folder)


def test_a_disk_that_cannot_be_written(locked):
    files, lock = locked
    path = made(files / "notes.db")
    assert not os.access(lock(), os.W_OK, effective_ids=True)
    with Embedded(path, read_only=True) as store:
        assert finds(store, 5)
    with pytest.raises(StoreError, match="cannot be written"):
        Embedded(path).append(rows(1))


def test_a_database_that_is_damaged_is_told(path):
    made(path, 3000)
    data = bytearray(path.read_bytes())
    data[8192 : 8192 + 4096 * 20] = os.urandom(4096 * 20)
    path.write_bytes(data)
    path.with_name("notes.db-keys").unlink()
    with pytest.raises(StoreError, match="is damaged|another process"), Embedded(path) as store:
        store.get(store.ids())


def test_an_exception_inside_a_write_leaves_nothing_half_done(path, monkeypatch):
    made(path)
    with Embedded(path) as store:
        monkeypatch.setattr(columns.Column, "mark", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            store.append(rows(2, seed=1))
        monkeypatch.undo()
        assert finds(store, 5)
        store.append(rows(2, seed=2))
        assert store.check() == []


# --------------------------------------------------------------------------------------------------------------- erased


def holding(folder, *marks):
    """The files under a folder in which one of the byte strings stands."""
    return sorted(f.name for f in folder.rglob("*") if f.is_file() and any(mark in f.read_bytes() for mark in marks))


def secret(store, n=300):
    """A store with a row that is easy to find again on the disk: its id, and the bytes to look for."""
    given = [rows(n, seed=i, tags=[["plain"]] * n) for i in range(2)]
    store.append(given[0])
    key = np.random.default_rng(77).standard_normal((1, D)).astype(np.float32)
    id = int(store.append(Rows(key, ["SECRET-7391 " * 900], tags=[["HUSH-TAG"]], author="HUSH-AUTHOR"))[0])
    store.update(id, Rows(key[:, ::-1], ["LATER-7391"], tags=[["HUSH-TAG"]]), reason="HUSH-REASON")
    store.append(given[1])
    marks = [key.tobytes(), key[:, ::-1].tobytes(), b"SECRET-7391", b"LATER-7391", b"HUSH-"]
    return id, marks


def test_what_was_forgotten_is_in_no_byte_of_the_folder_though_others_read(path):
    with Embedded(path, width=D) as store:
        id, marks = secret(store)
        store.snapshot(path.with_name("copy.db"))
        assert holding(path.parent, *marks)
        with Embedded(path, read_only=True) as reader:
            assert reader.get([id])[0].text == "LATER-7391"
            receipt = store.forget([id])
            assert not receipt.owed
            assert holding(path.parent, *marks) == []
            assert finds_all_but(reader, id)
        assert store.check() == []
    assert holding(path.parent, *marks) == []


def test_words_of_what_was_forgotten_are_not_in_the_index(path):
    with Embedded(path, width=D) as store:
        store.append(Rows(rows(200).keys, [f"common words {i} zanzibar{i:03d}" for i in range(200)]))
        assert store.matches("zanzibar077")[0].tolist() == [77]
        with Embedded(path, read_only=True) as reader:
            store.append(Rows(rows(1).keys, ["later quetzalcoatl"]))
            assert reader.matches("quetzalcoatl")[0].tolist() == [200]  # not indexed yet
            assert store.matches("quetzalcoatl")[0].tolist() == [200]
        store.forget([77, 200])
        assert store.matches("zanzibar077 quetzalcoatl")[0].tolist() == []
        assert holding(path.parent, b"quetzal", b"zanzibar077") == []
        assert store.matches("zanzibar078")[0].tolist() == [78]


def finds_all_but(store, id):
    found = store.scan(rows(300).keys[:20], top=3)
    return id not in found.ids and store.ids().tolist() == list(range(id)) + list(range(id + 2, 602))


def test_a_reader_in_the_middle_keeps_the_bytes_and_the_receipt_says_so(path):
    with Embedded(path, width=D, wait=0.2) as store:
        id, marks = secret(store)
        with sqlite3.connect(path, isolation_level=None) as other:
            other.execute("BEGIN")
            other.execute("SELECT count(*) FROM bodies").fetchone()
            assert "is in use by a reader" in store.forget([id]).owed[0]
            other.execute("COMMIT")
        other.close()
    with Embedded(path):
        assert holding(path.parent, *marks) == []


def test_a_forget_that_was_cut_off_is_finished_by_the_next_who_opens(path, monkeypatch):
    with Embedded(path, width=D) as store:
        id, marks = secret(store)
        monkeypatch.setattr(Session, "finish_wiping", lambda self: [])
        store.forget([id])
        monkeypatch.undo()
        assert holding(path.parent, *marks)
        store._db.close()
        store._db = sqlite3.connect(":memory:")  # as after a kill: nothing is tidied
    with Embedded(path):
        assert holding(path.parent, *marks) == []


# --------------------------------------------------------------------------------------------------------------- killed


def acknowledged(folder):
    file = folder / "acknowledged"
    return [line for line in file.read_text().splitlines() if line.endswith(".")] if file.exists() else []


@pytest.mark.parametrize("trial", range(3))
def test_kill_9_loses_nothing_that_was_acknowledged(tmp_path, trial):
    killed_and_checked(tmp_path, 0.8 + 0.3 * trial)


@pytest.mark.slow
@pytest.mark.parametrize("trial", range(200))
def test_kill_9_two_hundred_times(tmp_path, trial):
    killed_and_checked(tmp_path, float(np.random.default_rng(trial).uniform(0.3, 1.5)))


def killed_and_checked(folder, seconds):
    child = subprocess.Popen([sys.executable, str(HERE / "writer.py"), str(folder)])
    while not acknowledged(folder):
        assert child.poll() is None
        time.sleep(0.01)
    time.sleep(seconds)
    child.send_signal(signal.SIGKILL)
    child.wait()
    checked = subprocess.run(
        [sys.executable, str(HERE / "writer.py"), str(folder), "check"], capture_output=True, text=True
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr
