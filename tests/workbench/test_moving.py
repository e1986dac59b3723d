"""A memory moved to any store and back is the same to the last bit; a move that is killed goes on where it was."""

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import recuerdo
from recuerdo.errors import InputError, StoreError
from recuerdo.store.embedded import Embedded
from recuerdo.store.record import Record, Where
from recuerdo.workbench import moving
from recuerdo.workbench.moving import MOVING, Moved, move
from recuerdo.workbench.opening import open_store
from recuerdo.workbench.remembering import Memory

sys.path.insert(0, str(Path(__file__).parent))
import places
from places import D, E, filled, keep, rows, told

ELSEWHERE = [kind for kind in places.KINDS if kind != "file"]


@pytest.mark.parametrize("kind", places.KINDS)
def test_there_and_back_is_the_same(kind, tmp_path):
    first, there, back = filled(str(tmp_path / "a.db")), places.place(kind, tmp_path), str(tmp_path / "back.db")
    before = told(first)
    assert move(first, there) == Moved(17, 20, 9)
    assert told(there) == told(first) == before
    assert move(there, back).rows == 17
    assert told(back) == before
    assert move(first, back).rows == 17  # nothing to be done, and compared all the same
    with open_store(there) as store:
        assert store.append(rows(1))[0] > 19  # the last row was forgotten, and its number is not given again
        assert store.check() == []
    with pytest.raises(InputError, match="holds other rows already: give a new place, or export and import the rows"):
        move(first, there)


@settings(max_examples=5, deadline=None)
@given(contents=st.lists(places.CONTENTS, max_size=6), numbers=places.VECTORS)
@pytest.mark.parametrize("kind", ELSEWHERE)
def test_whatever_is_kept_comes_back(kind, tmp_path_factory, contents, numbers):
    folder = tmp_path_factory.mktemp("any")
    first, there, back = keep(str(folder / "a.db"), contents, numbers), places.place(kind, folder), folder / "back.db"
    before = told(first)
    move(first, there)
    move(there, back)
    assert told(back) == before


@pytest.mark.parametrize("kind", places.KINDS)
def test_a_bias_keeps_all_its_digits(kind, tmp_path):
    where, back = places.place(kind, tmp_path), tmp_path / "back.db"
    with open_store(where, width=D, value_width=E) as store:
        store.append(rows(2))
        store.bias([1], 1 / 3)
        store.update(1, rows(1, seed=1))
    move(where, back)
    with open_store(back) as store:
        assert [one.bias for one in store.get([0, 1])] == [0.0, 1 / 3]


@pytest.mark.parametrize("kind", places.KINDS)
def test_rows_come_behind_rows_with_many_versions(kind, tmp_path, monkeypatch):
    monkeypatch.setattr(moving, "TOGETHER", 2)
    first, there = str(tmp_path / "a.db"), places.place(kind, tmp_path)
    with Embedded(first, width=D, value_width=E) as store:
        store.append(rows(9, tags=[["a"]] * 9))
        for id in (0, 0, 1, 4, 4, 4, 8):
            store.update(id, rows(1, seed=id + 10))
            store.bias([id], 1.0)
    move(first, there)
    assert told(there) == told(first)
    with open_store(there) as store:
        found = store.scan(rows(1).keys, top=20).ids[0]
        assert sorted(found[found >= 0].tolist()) == list(range(9))
        assert store.update(5, rows(1, seed=3)) == 2
        assert store.append(rows(1, seed=5))[0] > 8
        assert store.forget([1, 2]).versions == 3
        assert store.ids(Where(tags=("a",))).tolist() == [3, 6, 7]
        assert store.check() == []


def test_rows_far_apart_are_moved(tmp_path):
    first = str(tmp_path / "a.db")
    with Embedded(first, width=D, value_width=E) as store:
        one = rows(1)
        for id in (10, 30_000, 30_001, 60_000):
            store.adopt([Record(id, 1, one.keys[0], one.values[0], "far", (), "", 1.0, 2.0)])
    assert move(first, tmp_path / "b.db").rows == 4
    assert told(first) == told(tmp_path / "b.db")


@pytest.mark.parametrize("kind", places.KINDS)
def test_a_move_that_was_stopped_is_gone_on_with(kind, tmp_path, monkeypatch):
    monkeypatch.setattr(moving, "TOGETHER", 3)
    first, there = filled(str(tmp_path / "a.db")), places.place(kind, tmp_path)
    calls = []

    def stop(what, done, total):
        calls.append((what, done, total))
        if len(calls) in (2, 4):
            raise KeyboardInterrupt

    for attempt in range(2):
        with pytest.raises(KeyboardInterrupt):
            move(first, there, step=stop)
        with open_store(there) as store:
            assert store.notes()[MOVING] == first
        with pytest.raises(InputError, match="is half of a move from .*a.db: finish that one, or give another place"):
            move(filled(str(tmp_path / f"other{attempt}.db")), there)
    assert calls == [(w, 3 * (i % 2 + 1), n) for w, i, n in [("moving rows", 0, 17), ("moving rows", 1, 17), ("moving rows", 2, 11), ("moving rows", 3, 11)]]  # fmt: skip
    assert move(first, there, step=stop).rows == 17
    assert told(there) == told(first)


@pytest.mark.parametrize(
    ("when", "change", "words"),
    [
        ("moving rows", lambda store: store.append(rows(1)), "which has other rows now"),
        ("moving rows", lambda store: store.forget([5]), "which has other rows now"),
        ("comparing rows", lambda store: store.note("x", "y"), "what hands did or the facts differ"),
        ("comparing rows", lambda store: store.bias([3], 1.0), "row 3 differs|what hands did"),
        ("moving rows", lambda store: store.update(5, rows(1, seed=8)), "row 5 differs"),
    ],
)
def test_a_source_that_was_written_to_meanwhile_is_told(when, change, words, tmp_path):
    first, there, done = filled(str(tmp_path / "a.db")), tmp_path / "b.db", []

    def meddle(what, *_):
        if what == when and not done:
            done.append(what)
            with Embedded(first) as store:
                change(store)

    with pytest.raises(StoreError, match=f"({words}).* erase the new one, and move again"):
        move(first, there, step=meddle)
    with Embedded(there) as half:
        assert half.notes()[MOVING] == first


def test_half_a_move_is_no_memory(tmp_path):
    first, half = filled(str(tmp_path / "a.db")), tmp_path / "half.db"
    with Embedded(half, width=D) as store:
        store.note(MOVING, "a.db")
    with pytest.raises(InputError, match="half.db is half of a move from a.db: finish that one first"):
        move(half, tmp_path / "b.db")
    with pytest.raises(
        InputError, match="half.db is half of a move: finish it with `recuerdo memories move a.db .*half"
    ):
        Memory(half)
    assert told(first)["wrong"] == []


def test_what_cannot_be_moved(tmp_path):
    first = filled(str(tmp_path / "a.db"))
    with pytest.raises(InputError, match="a.db cannot be moved to itself: give another place"):
        move(first, tmp_path / "x" / ".." / "a.db")
    with pytest.raises(StoreError, match="there is no memory .*none.db"):
        move(tmp_path / "none.db", tmp_path / "b.db")
    assert not (tmp_path / "b.db").exists()
    Embedded(tmp_path / "wide.db", width=D + 1).close()
    with pytest.raises(InputError, match="another encoder made it"):
        move(first, tmp_path / "wide.db")


MOVER = """
import sys
from recuerdo.workbench import moving
moving.TOGETHER = int(sys.argv[3])
told = moving.move(sys.argv[1], sys.argv[2], step=lambda *said: print(*said, flush=True))
print(told, flush=True)
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "n", "together"), [("file", 20_000, 128), ("server", 20_000, 128), ("cluster", 1200, 8)]
)
def test_kill_9_in_mid_move_forty_times(kind, n, together, tmp_path):
    """A move is killed again and again until it comes to its end; nothing is lost, nothing is there twice."""
    first, there, log = str(tmp_path / "a.db"), places.place(kind, tmp_path), tmp_path / "said"
    with Embedded(first, width=D, value_width=E) as store:
        store.append(rows(n, tags=[["a"]] * n))
        for id in range(0, n, 197):
            store.update(id, rows(1, seed=id))
            store.bias([id + 1], 1.0)
        store.forget(range(5, n, 101))
    before, kills, draw, cut = told(first), 0, np.random.default_rng(0), Counter()
    env = os.environ | {"PYTHONPATH": str(Path(recuerdo.__file__).parents[1])}
    while kills < 40:
        most, so_far = int(draw.integers(0, 7)), 0
        command = [sys.executable, "-c", MOVER, first, there, str(together)]
        with open(log, "w") as err, subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=err) as child:
            for line in child.stdout:
                so_far += 1
                if so_far > most:
                    break
            else:
                raise AssertionError(log.read_text())
            time.sleep(float(draw.uniform(0, 0.03)))
            child.send_signal(signal.SIGKILL)
        kills, cut[b" ".join(line.split()[:2]).decode()] = kills + 1, cut[b" ".join(line.split()[:2]).decode()] + 1
    end = move(first, there)
    print(f"{kind}: {kills} kills ({dict(cut)}), then {end}")
    assert told(there) == told(first) == before
