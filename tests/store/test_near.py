"""Approximate scans: what they find is exact, what they do not look at is bounded, and what is forgotten is gone."""

import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recuerdo.errors import InputError, StoreError
from recuerdo.memory.episodic import Episodic
from recuerdo.store import indexing
from recuerdo.store.cells import Cells, measured
from recuerdo.store.embedded import Embedded
from recuerdo.store.near import Near
from recuerdo.store.record import Rows, Rules, Where

D = 16
DAY = 86_400.0
HERE = Path(__file__).parent


def rows(n, seed=0, **more):
    """Unit keys around some centres, as texts have them."""
    draw = np.random.default_rng(seed)
    centres = np.random.default_rng(99).standard_normal((12, D))
    keys = centres[draw.integers(0, 12, n)] + 0.4 * draw.standard_normal((n, D))
    return Rows(keys / np.linalg.norm(keys, axis=1, keepdims=True), [f"row {i} of {seed}" for i in range(n)], **more)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "notes.db"


def made(path, n=2000, **more):
    """A memory with an index, and the same memory looked at exactly."""
    store = Embedded(path, width=D, approximate=Near())
    store.append(rows(n, **more))
    store.index()
    return store, Embedded(path, read_only=True)


def honest(near, exact, asked, rules, top=5):
    """Compare an approximate look with an exact one: nothing that it says may be wrong or too good. The recall."""
    found, true = (store.scan(asked, top=top, rules=rules) for store in (near, exact))
    assert found.addressed == true.addressed >= found.looked
    hits = 0
    for i in range(len(asked)):
        known = dict(zip(*(x[i].tolist() for x in (true.ids, true.logits)), strict=True))
        for id, logit in zip(found.ids[i].tolist(), found.logits[i].tolist(), strict=True):
            if id in known:
                hits += id >= 0
                assert logit == pytest.approx(known[id], abs=1e-5 if rules.fading else 1e-9)
            else:
                assert logit <= true.logits[i, -1] + 1e-5
    assert (found.lse <= true.lse + 1e-5).all()
    assert (np.logaddexp(found.lse, found.unseen) >= true.lse - 1e-5).all()
    base = np.where(np.isneginf(true.lse), 0.0, true.lse)  # a kill may come before the first row
    held = np.exp(found.logits - base[:, None]).sum(1)
    assert (found.covered <= held + 1e-5).all()
    return hits / max(1, (true.ids >= 0).sum()), found


# --------------------------------------------------------------------------------------------------- found and bounded


@pytest.mark.parametrize("sharpness", [-20.0, 0.0, 1.0, 20.0, 300.0])
@pytest.mark.parametrize("fading", [0.0, 0.3, -0.3])
def test_a_look_by_the_index_is_exact_where_it_looked_and_bounds_the_rest(path, sharpness, fading):
    times = (DAY * np.random.default_rng(1).uniform(0, 50, 2000)).tolist()
    store, exact = made(path, times=times)
    with store, exact:
        for change in (lambda: None, lambda: store.bias([3, 5, 1999], 6.0), lambda: store.bias([7, 8], -math.inf)):
            change()
            recall, found = honest(store, exact, rows(20, seed=5).keys, Rules(sharpness, fading, 60 * DAY))
            assert recall >= 0.9
        if sharpness == 20.0 and not fading:
            assert found.looked < found.addressed == 1998
            assert np.isfinite(found.unseen).all()


def test_the_bound_is_tighter_than_the_longest_key_allows(path):
    store, exact = made(path)
    with store, exact:
        _, found = honest(store, exact, rows(20, seed=5).keys, Rules(20.0))
        careful = np.log(found.addressed) + 20.0
        assert (found.unseen < careful - 3).all()


def test_as_many_are_found_as_are_asked_for(path):
    store = Embedded(path, width=D, approximate=Near(recall=0.1))
    store.append(rows(3000))
    store.index()
    store.bias(range(0, 3000, 2), -np.inf)
    for top in (1, 40, 400, 1400):
        found = store.scan(rows(5, seed=5).keys, top=top)
        assert (found.ids >= 0).all()
        assert found.ids.shape == (5, top)
    assert store.scan(rows(5, seed=5).keys, top=1).looked < 3000
    store.close()


def test_keys_of_any_length_and_of_one_kind(path):
    draw = np.random.default_rng(0)
    for i, keys in enumerate(
        (draw.lognormal(0, 1.5, (1500, 1)) * rows(1500).keys, np.ones((1500, D)), np.zeros((9, D)))
    ):
        store = Embedded(path.with_name(f"{i}.db"), width=D, approximate=Near(recall=0.9))
        with store, Embedded(store.path, read_only=True) as exact:
            store.append(Rows(keys))
            store.index()
            for asked in (rows(5, seed=5).keys, np.zeros((1, D))):
                honest(store, exact, asked, Rules(3.0))


def test_cells_reach_as_far_as_they_say():
    draw = np.random.default_rng(3)
    for scale in (0.01, 1.0):
        for n in (1, 2, 7, 60):
            keys = (draw.standard_normal(D) + scale * draw.standard_normal((n, D))).astype(np.float32)
            mean, (radius, low, high, longest, scatter, spread, first, last) = measured(keys, np.arange(n))
            off = keys.astype(float) - mean
            along = keys.astype(float) @ mean / np.linalg.norm(mean)
            assert radius >= np.linalg.norm(off, axis=1).max() >= spread - 1e-6
            assert low <= along.min() <= along.max() <= high
            assert longest >= np.linalg.norm(keys, axis=1).max()
            assert scatter >= np.linalg.eigvalsh(off.T @ off / n)[-1] - 1e-12
            assert (first, last) == (0, n - 1)


@settings(max_examples=12, deadline=None)
@given(data=st.data())
def test_any_sequence_of_changes_leaves_the_index_honest(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("any") / "notes.db"
    store, exact = made(path, 400)
    with store, exact:
        for step in range(data.draw(st.integers(1, 8))):
            what = data.draw(st.sampled_from(["append", "update", "bias", "forget", "index", "reopen", "rebuild"]))
            there = store.ids().tolist()
            some = data.draw(st.lists(st.sampled_from(there), min_size=1, max_size=5, unique=True))
            if what == "append":
                store.append(rows(data.draw(st.integers(1, 30)), seed=step + 10))
            elif what == "update":
                store.update(some[0], rows(1, seed=step + 50))
            elif what == "bias":
                store.bias(some, data.draw(st.sampled_from([0.0, 4.0, -2.0, -math.inf])))
            elif what == "forget":
                store.forget(some)
            elif what == "index":
                store.index(cells=data.draw(st.sampled_from([0, 1, 5, 400])))
            elif what == "rebuild":
                store.rebuild()
            else:
                store.close()
                store = Embedded(path, approximate=Near())
            honest(store, exact, rows(3, seed=step).keys, Rules(20.0))
        assert store.check() == []
        store.close()


def test_a_filtered_look_is_exact_and_says_so(path):
    store, exact = made(path, tags=[["a"] if i % 3 else ["b"] for i in range(2000)])
    with store, exact:
        for where in (Where(tags=("b",)), Where(ids=(3, 4)), Where(ids=())):
            found, true = (one.scan(rows(3, seed=5).keys, rules=Rules(20.0), where=where) for one in (store, exact))
            assert found.ids.tolist() == true.ids.tolist()
            assert found.looked == found.addressed == true.addressed == len(store.ids(where))
            np.testing.assert_allclose(found.lse, true.lse, atol=1e-6)


def test_without_an_index_all_is_read_and_small_or_odd_values_are_told(path):
    with Embedded(path, width=D, approximate=Near()) as store:
        store.append(rows(50))
        assert store.scan(rows(1).keys).looked == 50
        assert store.index().rows == 50
        for wrong in (0.0, 1.5, -1):
            with pytest.raises(InputError, match="recall is a share above 0 and at most 1"):
                Near(recall=wrong)
    with (
        Embedded(path, read_only=True) as store,
        pytest.raises(StoreError, match="open it for writing to make its index"),
    ):
        store.index()
    with Embedded(path.with_name("empty.db"), width=D, approximate=Near()) as store:
        assert store.index().rows == 0
        assert store.scan(rows(1).keys).looked == 0
        store.append(rows(4))
        assert store.scan(rows(1).keys).looked == 4


def test_episodes_of_an_approximate_store_never_cover_more_than_they_do(path):
    store, exact = made(path)
    with store, exact:
        query = __import__("torch").from_numpy(rows(4, seed=6).keys)
        added = [{int(id): 2.0 for id in range(0, 2000, 40)}]
        near, true = (Episodic(one, sharpness=20.0, whole=10)(query, top=5, added=added)[0] for one in (store, exact))
        shares = [dict(zip(*x, strict=True)) for x in zip(true.ids.tolist(), true.weights.tolist(), strict=True)]
        assert (near.covered <= true.covered + 1e-5).all()
        assert near.looked < near.addressed
        for ids, known in zip(near.ids.tolist(), shares, strict=True):
            assert len(set(ids) & set(known)) >= 4


# ------------------------------------------------------------------------------------------------------------ the file


@pytest.mark.parametrize("harm", ["gone", "empty", "short", "header", "table", "other", "older", "copy put back"])
@pytest.mark.parametrize("read_only", [False, True])
def test_an_index_that_is_not_of_the_database_is_not_used(path, harm, read_only):
    store, exact = made(path)
    exact.close()
    file = path.with_name("notes.db-cells")
    old = file.read_bytes()
    store.snapshot(path.with_name("copy.db"))
    if harm in ("older", "copy put back"):
        store.forget([5, 6])
        if harm == "older":
            store.index()
    store.close()
    now = file.read_bytes()
    if harm == "gone":
        file.unlink()
    elif harm == "other":
        made(path.with_name("other.db"))[0].close()
        os.replace(path.with_name("other.db-cells"), file)
    elif harm == "copy put back":
        os.replace(path.with_name("copy.db"), path)
    else:
        torn = {"empty": b"", "short": now[:-400], "header": bytes(60) + now[60:], "older": old}
        torn["table"] = now[:5000] + bytes(40) + now[5040:]
        file.write_bytes(torn[harm])
    with Embedded(path, read_only=read_only, approximate=Near()) as store:
        found = store.scan(rows(2000).keys[:4], top=1, rules=Rules(20.0))
        assert found.looked == found.addressed
        assert found.ids[:, 0].tolist() == [0, 1, 2, 3]
        assert (found.covered <= 1).all()
        assert store.check() == []


def test_rows_of_the_index_that_were_changed_are_noticed(path):
    store, exact = made(path)
    exact.close()
    cells = indexing.opened(store._index)
    asked = rows(2000).keys[7:8]
    with open(cells.path, "r+b") as file:
        data = file.read()
        file.seek(data.index(asked.tobytes()))
        file.write((asked * 1.5).tobytes())
    with store:
        with pytest.raises(
            StoreError, match="notes.db-cells is not what .*notes.db says: run `recuerdo memories index"
        ):
            store.scan(asked, rules=Rules(20.0))
        assert "notes.db-cells differs from the database in 1 parts" in store.check()[0]
        store.index()
        assert store.scan(asked, top=1, rules=Rules(20.0)).ids.tolist() == [[7]]
        assert store.check() == []


def test_a_reader_takes_a_new_index_and_goes_on_with_what_others_change(path):
    store, exact = made(path)
    with store, exact, Embedded(path, read_only=True, approximate=Near()) as reader:
        asked = rows(5, seed=8).keys
        for change in (
            lambda: store.append(rows(100, seed=2)),
            lambda: store.update(4, rows(1, seed=3)),
            lambda: store.forget([9, 2050]),
            store.index,
            lambda: store.bias([11], 3.0),
            lambda: store.forget([11]),
            store.rebuild,
        ):
            change()
            for one in (store, reader):
                honest(one, exact, asked, Rules(20.0))
        assert reader.scan(asked, rules=Rules(20.0)).looked < 2000


def test_keys_that_are_held_in_memory_are_those_of_the_file(path):
    with Embedded(path, width=D, held=True) as store, Embedded(path, read_only=True) as exact:
        for change in (
            lambda: store.append(rows(30)),
            lambda: store.update(4, rows(1, seed=3)),
            lambda: store.forget([9]),
            lambda: store.append(rows(50, seed=4)),
            store.rebuild,
        ):
            change()
            with Embedded(path, read_only=True, held=True) as other:
                for one in (store, other):
                    found, true = (x.scan(rows(4, seed=5).keys, rules=Rules(5.0)) for x in (one, exact))
                    assert found.ids.tolist() == true.ids.tolist()
                    np.testing.assert_array_equal(found.logits, true.logits)
        assert not store._index.keys()[9].any()


# -------------------------------------------------------------------------------------------------------------- erased


def holding(folder, *marks):
    return sorted(f.name for f in folder.rglob("*") if f.is_file() and any(mark in f.read_bytes() for mark in marks))


def test_what_was_forgotten_is_in_no_byte_of_the_index_though_others_read(path):
    key = np.random.default_rng(77).standard_normal((1, D)).astype(np.float32) * 40  # a cell of its own: its mean
    with Embedded(path, width=D, approximate=Near()) as store:
        store.append(rows(500))
        id = int(store.append(Rows(key, ["SECRET"]))[0])
        store.append(rows(500, seed=1))
        store.index(cells=60)
        assert "notes.db-cells" in holding(path.parent, key.tobytes())
        with Embedded(path, read_only=True, approximate=Near()) as reader:
            assert reader.scan(key, top=1).ids.tolist() == [[id]]
            receipt = store.forget([id])
            assert not receipt.owed
            assert str(path) + "-cells" in receipt.searched
            assert holding(path.parent, key.tobytes(), b"SECRET") == []
            assert reader.scan(key, top=1).ids.tolist() != [[id]]
        assert store.check() == []
        assert store.scan(rows(1).keys, rules=Rules(20.0)).looked < 1000  # the index is still used


def test_a_forget_that_was_cut_off_in_the_index_is_finished_by_the_next_who_opens(path, monkeypatch):
    key = np.random.default_rng(77).standard_normal((1, D)).astype(np.float32)
    store, exact = made(path)
    exact.close()
    id = int(store.append(Rows(key))[0])
    store.index()
    path.with_name("notes.db-cells.part").write_bytes(key.tobytes())  # of a process that was killed
    path.with_name("notes.db-keys.part").write_bytes(key.tobytes())

    def cut(self, places, times, token):
        first = os.path.getsize(self.path) - 4 * D * len(self.rows)
        with open(self.path, "r+b") as file:  # some rows are gone, the table is half written
            file.seek(first)
            file.write(bytes(4 * D * 9))
            file.seek(4096 + 100)
            file.write(bytes(50))
        raise KeyboardInterrupt

    monkeypatch.setattr(Cells, "wipe", cut)
    with pytest.raises(KeyboardInterrupt):
        store.forget([id])
    monkeypatch.undo()
    store._db.close()
    assert holding(path.parent, key.tobytes())
    with Embedded(path, read_only=True, approximate=Near()) as reader:
        assert reader.scan(rows(1).keys).looked == 2000
    with Embedded(path, approximate=Near()) as store:
        assert holding(path.parent, key.tobytes()) == []
        assert store.check() == []
        store.index()
        assert store.scan(rows(1).keys, rules=Rules(20.0)).looked < 2000


# -------------------------------------------------------------------------------------------------------------- killed


@pytest.mark.parametrize("trial", range(2))
def test_kill_9_while_an_index_is_made(tmp_path, trial):
    killed(tmp_path, trial)


@pytest.mark.slow
@pytest.mark.parametrize("trial", range(100))
def test_kill_9_while_an_index_is_made_a_hundred_times(tmp_path, trial):
    killed(tmp_path, trial + 10)


def killed(folder, trial):
    """A process makes the index and forgets, over and over, and is killed: nothing is wrong, nothing forgotten stays."""
    child = subprocess.Popen([sys.executable, str(HERE / "indexer.py"), str(folder)])
    told = folder / "forgotten"
    while not told.exists():
        assert child.poll() is None
        time.sleep(0.01)
    time.sleep(float(np.random.default_rng(trial).uniform(0, 1.0)))
    child.send_signal(signal.SIGKILL)
    child.wait()
    path = folder / "notes.db"
    with Embedded(path, approximate=Near()) as store, Embedded(path, read_only=True) as exact:
        gone = [int(line) for line in told.read_text().splitlines()]
        keys = rows(3000).keys
        assert not set(gone) & set(store.ids().tolist())
        assert holding(folder, *(keys[id].tobytes() for id in gone)) == []
        honest(store, exact, rows(5, seed=8).keys, Rules(20.0))
        assert store.check() == []
        store.index()
        honest(store, exact, rows(5, seed=8).keys, Rules(20.0))
