"""The store in a cluster when things end in the middle: writers that die at any call, outages, other writers."""

import sys
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest

pytest.importorskip("qdrant_client", reason="qdrant-client is not installed: recuerdo[cluster]")
sys.path.insert(0, str(Path(__file__).parent))
from clusters import Faulty, Killed, begun, client, elsewhere, intents, opened, queries, rows, told

from recuerdo.errors import InputError, StoreError
from recuerdo.store import cluster_state

CHANGES = {
    "append": lambda store: store.append(rows(4, seed=2)),
    "update": lambda store: store.update(1, rows(1, seed=3), reason="wrong"),
    "bias": lambda store: store.bias([0, 2], 1.5, reason="pinned"),
    "undo": lambda store: store.undo(1, author="Ada", reason="right"),
    "forget": lambda store: store.forget([0, 1], reason="asked"),
    "adopt": lambda store: store.adopt(*HELD),
}
HELD = ([], [])


@pytest.fixture(scope="module", autouse=True)
def _held(tmp_path_factory):
    HELD[0][:], HELD[1][:] = elsewhere(tmp_path_factory.mktemp("held"))


@pytest.mark.parametrize("done", [False, True])
@pytest.mark.parametrize("what", CHANGES)
def test_a_writer_that_is_killed_leaves_all_or_nothing(what, done, monkeypatch):
    monkeypatch.setattr("recuerdo.store.cluster_engine.PART", (3, 8_000_000))  # several requests for few rows
    with opened(begun()) as store:
        before = told(store)
        CHANGES[what](store)
        after = told(store)
    seen = set()
    for at in range(1, 100):
        faulty = Faulty(begun())
        store = opened(faulty)
        faulty.fail(at, done=done)
        try:
            CHANGES[what](store)
            acknowledged = True
        except Killed:
            acknowledged = False
        finished = faulty.calls < at
        with opened(faulty.on, read_only=True) as reader:
            assert told(reader) in (before, after)
        with opened(faulty.on) as other:
            now = told(other)
            assert now in ((after,) if acknowledged else (before, after))
            seen.add(now == after)
            assert other.check() == []
            high = max([one[0] for one in now["rows"]])
            assert other.append(rows(2, seed=8)).min() > high
            other.update(2, rows(1, seed=9))
            other.forget([2])
            assert other.check() == []
        if finished:
            break
    assert seen == {True, False}
    assert acknowledged


@pytest.mark.parametrize("done", [False, True])
@pytest.mark.parametrize("more", [0, 10**9])
@pytest.mark.parametrize("what", CHANGES)
def test_an_outage_is_said_and_afterwards_all_works_again(what, more, done, monkeypatch):
    monkeypatch.setattr("recuerdo.store.cluster_engine.PART", (3, 8_000_000))
    with opened(begun()) as store:
        before = told(store)
        CHANGES[what](store)
        after = told(store)
    for at in range(1, 100):
        faulty = Faulty(begun())
        with opened(faulty) as store:
            faulty.fail(at, done=done, more=more, error=ConnectionError)
            try:
                CHANGES[what](store)
                acknowledged = True
            except StoreError as error:
                acknowledged, words = False, str(error)
            assert acknowledged or "notes at a client cannot be reached (ConnectionError): see that" in words
            finished = faulty.calls < at
            if more and not finished:
                for call in (store.ids, store.stats, lambda: store.scan(queries()), lambda: store.append(rows(1))):
                    with pytest.raises(StoreError, match="cannot be reached"):
                        call()
            faulty.fail(-1)
            store.note("encoder", "one")  # the next write brings to an end what was begun
            now = told(store)
            assert now in ((after,) if acknowledged else (before, after))
            assert store.check() == []
        if finished:
            break
    assert acknowledged


def test_a_memory_that_was_made_in_part_is_made_to_its_end():
    for at in range(1, 100):
        faulty = Faulty(client())
        faulty.fail(at, done=at % 2 == 0)
        try:
            opened(faulty).close()
        except Killed:
            with opened(faulty.on) as store:
                assert store.append(rows(2)).tolist() == [0, 1]
                assert store.check() == []
        else:
            break
    assert at > 5


def test_what_a_dead_writer_left_is_given_up_after_a_while(monkeypatch):
    faulty = Faulty(begun())
    store = opened(faulty)
    for at in range(1, 100):  # until the state knows of it
        faulty.fail(at, done=True)
        with pytest.raises(Killed):
            store.append(rows(4, seed=2))
        if intents(faulty.on):
            break
    with opened(faulty.on, read_only=True) as other:
        before = told(other)
        monkeypatch.setattr(cluster_state, "STALE", -1.0)
        monkeypatch.setattr("recuerdo.store.cluster_upkeep.STALE", -1.0)
        assert "an unfinished append is 0 seconds old: open the memory for writing" in other.check()
    with opened(faulty.on) as other:
        assert other.append(rows(1, seed=4)).tolist() == [7]
        assert [one["phase"] for one in intents(faulty.on)] == ["void"]
        assert len(told(other)["rows"]) == len(before["rows"]) + 1
        assert other.check() == []
        monkeypatch.setattr(cluster_state, "OVER", -1.0)
        other.note("any", "thing")
        assert intents(faulty.on) == []


@pytest.mark.parametrize("done", [False, True])
def test_what_a_dead_writer_was_adopting_may_be_adopted_at_once(done, monkeypatch):
    """As by a move that was killed and goes on: the same rows under the same ids, and no trace of the first try."""
    with opened(begun()) as store:
        store.adopt(*HELD)
        after = told(store)
    for at in range(1, 100):
        faulty = Faulty(begun())
        store = opened(faulty)
        faulty.fail(at, done=done)
        with suppress(Killed):
            store.adopt(*HELD)
        finished = faulty.calls < at
        with opened(faulty.on) as other:
            if len(other.ids()) == 3:
                other.adopt(*HELD)
            with pytest.raises(InputError, match="row 11 .* is there already, or was"):
                other.adopt(*HELD)
            for what in ("STALE", "OVER"):
                with monkeypatch.context() as patch:
                    patch.setattr(cluster_state, what, -1.0)
                    other.note("any", "")
                assert told(other) == after
                assert other.check() == []
            assert intents(faulty.on) == []
        if finished:
            break
    assert at > 5


def test_of_two_who_adopt_the_same_the_second_wins(monkeypatch):
    on = begun()
    with opened(on) as slow, opened(on) as other:
        put = slow._rows.put

        def late(points, **more):
            other.adopt(*HELD)
            put(points, **more)

        monkeypatch.setattr(slow._rows, "put", late)
        with pytest.raises(StoreError, match="took too long, and was undone"):
            slow.adopt(*HELD)
        assert other.ids().tolist() == [0, 1, 2, 11, 12, 13]
        assert [one.version for one in other.history(12)] == [1, 2]
        assert other.check() == []
        other.forget([11])
        with pytest.raises(InputError, match="row 11 .* is there already, or was"):
            slow.adopt(HELD[0][:1])


def test_what_was_changed_meanwhile_is_not_undone(monkeypatch):
    on = begun()
    with opened(on) as store, opened(on) as other:
        history = store.history

        def slow(id):
            found = history(id)
            other.bias([id], 2.0)
            return found

        hands = store.hands
        monkeypatch.setattr(store, "hands", lambda id: slow(id) and hands(id)[:1])
        with pytest.raises(StoreError, match="another process is changing row 1 of .*: wait for it, and try again"):
            store.undo(1)
        assert [hand.what for hand in hands(1)] == ["correct", "bias"]


def test_a_writer_that_was_given_up_hears_of_it(monkeypatch):
    on = begun()
    faulty = Faulty(on)
    with opened(faulty) as slow, opened(on) as other:
        put = slow._rows.put

        def late(points, **more):
            monkeypatch.setattr(cluster_state, "STALE", -1.0)
            other.note("any", "thing")
            monkeypatch.setattr(cluster_state, "STALE", 120.0)
            put(points, **more)

        monkeypatch.setattr(slow._rows, "put", late)
        before = told(other)
        with pytest.raises(StoreError, match="took too long, and was undone: try again with fewer rows"):
            slow.append(rows(2, seed=2))
        assert told(other) == before
        assert other.check() == []


class Meanwhile(Faulty):
    """A client that lets somebody else do something before its n-th call."""

    def meanwhile(self, at, what):
        self.calls, self.at, self.what = 0, at, what

    def __getattr__(self, verb):
        found = getattr(self.on, verb)
        if not callable(found):
            return found

        def call(**given):
            self.calls += 1
            if self.calls == self.at:
                self.what()
            return found(**given)

        return call


def tried(change):
    """Whether it was done; if not, for a reason that a second writer may hear."""
    try:
        change()
    except (InputError, StoreError) as error:
        words = str(error)
    else:
        return True
    assert any(some in words for some in ("is changing row", "was forgotten", "many processes write"))
    return False


@pytest.mark.parametrize("theirs", ["append", "update", "bias", "forget"])
@pytest.mark.parametrize("mine", ["append", "update", "bias", "forget"])
def test_two_writers_do_not_lose_each_others_work(mine, theirs):
    for at in range(1, 100):
        on = begun()
        between = Meanwhile(on)
        with opened(between, wait=0.0) as one, opened(on, wait=0.0) as two:
            did = []
            between.meanwhile(at, partial(tried, lambda did=did, two=two: did.append(CHANGES[theirs](two))))
            mine_done = tried(lambda one=one: CHANGES[mine](one))
            theirs_done = bool(did)
            finished, between.at = between.calls < at, -1
            now = told(two)
            kept = [one[2] for one in now["rows"]]
            if "forget" not in (mine, theirs):
                done = [what for what, was in ((mine, mine_done), (theirs, theirs_done)) if was]
                assert len(kept) == 3 + 4 * done.count("append")
                assert now["rows"][1][1] == 2 + done.count("update")
                assert now["rows"][0][4] == 1.5 * ("bias" in done)
            assert len({row[0] for row in now["rows"]}) == len(kept)
            assert one.check() == []
        if finished:
            break


def test_a_writer_that_is_never_first_gives_up(monkeypatch):
    with opened(begun(), wait=0.0) as store:
        before = told(store)
        monkeypatch.setattr(store._ledger, "_swap", lambda old, new: None)
        for change in CHANGES.values():
            with pytest.raises(StoreError, match="many processes write into notes at a client: wait for them"):
                change(store)
        assert told(store) == before


def test_a_row_that_another_changes_is_waited_for():
    faulty = Faulty(begun())
    store = opened(faulty)
    for at in range(1, 100):
        faulty.fail(at)
        with pytest.raises(Killed):
            store.update(1, rows(1, seed=3))
        if intents(faulty.on):
            break
    with opened(faulty.on, wait=0.0) as other:
        for change in (lambda: other.bias([1], 1.0), lambda: other.forget([1]), lambda: other.update(1, rows(1))):
            with pytest.raises(StoreError, match="another process is changing row 1 of notes .*: wait for it"):
                change()
        other.bias([0], 1.0)


def test_a_forget_that_cannot_be_ended_says_so_and_is_ended_later():
    faulty = Faulty(begun())
    with opened(faulty) as store:
        count = faulty.calls
        faulty.fail(6, more=10**9, error=ConnectionError)
        receipt = store.forget([1])
        assert any(
            words.startswith("the rows are out of sight, and deleted with the next write") for words in receipt.owed
        )
        faulty.fail(-1)
        assert store.ids().tolist() == [0, 2]
        with pytest.raises(InputError, match="row 1 .* was forgotten"):
            store.get([1])
        assert faulty.on.count("notes").count == 4
        store.note("any", "thing")
        assert faulty.on.count("notes").count == 2
        assert store.check() == []
        assert count
