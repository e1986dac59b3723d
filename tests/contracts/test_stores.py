"""What every store promises, over all of them: rows in and out, the softmax of a scan, filters, hands, forgetting."""

import math
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recuerdo.errors import InputError
from recuerdo.store.contract import Store
from recuerdo.store.embedded import Embedded
from recuerdo.store.record import Rows, Rules, Where

sys.path.insert(0, str(Path(__file__).parents[1] / "store"))
import postgres

D, E = 8, 3


def embedded(folder):
    return Embedded(folder / "notes.db", width=D, value_width=E)


def server(folder):
    """In a schema of its own, on a server that the first who asks starts."""
    dsn = postgres.server().dsn
    from recuerdo.store.server import Server

    return Server(dsn, width=D, value_width=E, schema=postgres.name())


def cluster(folder):
    """In the memory of a client of its own: the engine that the client brings along for tests."""
    client = pytest.importorskip("qdrant_client", reason="qdrant-client is not installed: recuerdo[cluster]")
    from recuerdo.store.cluster import Cluster

    return Cluster(collection="notes", width=D, value_width=E, client=client.QdrantClient(":memory:"))


STORES = {"embedded": embedded, "server": server, "cluster": cluster}


@pytest.fixture(scope="session", autouse=True)
def _no_server_stays():
    yield
    postgres.stop()


@pytest.fixture(params=STORES)
def store(request, tmp_path):
    made = STORES[request.param](tmp_path)
    yield made
    made.close()


def rows(n, seed=0, **more):
    draw = np.random.default_rng(seed)
    given = {"texts": [f"text {i} of {seed}" for i in range(n)], "values": draw.standard_normal((n, E)), **more}
    return Rows(draw.standard_normal((n, D)), **given)


def asked(q=2, seed=9):
    return np.random.default_rng(seed).standard_normal((q, D)).astype(np.float32)


def plain(logits):
    """Weights and log-mass by the definition, in float64."""
    lse = np.logaddexp.reduce(logits, -1) if logits.shape[-1] else np.full(len(logits), -np.inf)
    return np.exp(logits - lse[:, None]), lse


def agree(found, ids, logits, top):
    """Whether a scan found what the definition says of rows `ids` [n] with logits [q, n]."""
    weights, lse = plain(logits)
    k = min(top, len(ids))
    for i in range(len(logits)):
        order = np.lexsort((ids, -logits[i]))[:k]
        assert found.ids[i, :k].tolist() == ids[order].tolist()
        np.testing.assert_allclose(found.weights[i, :k], weights[i][order], atol=1e-6)
    assert (found.ids[:, k:] == -1).all()
    assert (found.weights[:, k:] == 0).all()
    np.testing.assert_allclose(found.lse, lse, atol=1e-6)
    np.testing.assert_allclose(found.covered, found.weights.sum(1), atol=1e-12)
    assert found.looked == found.addressed == len(ids)


def test_it_signs_the_contract(store):
    signed: Store = store
    public = [name for name in vars(Store) if not name.startswith("_")]
    assert all(hasattr(signed, name) for name in public)
    assert signed.width == D


def test_rows_come_back_as_they_were(store):
    given = rows(3, tags=[["a", "b"], [], ["a"]], times=[1.5, 2.5, -3.0], author="Ada")
    ids = store.append(given)
    assert ids.dtype == np.int64
    assert len(set(ids.tolist())) == 3
    for i, found in enumerate(store.get(ids)):
        assert (found.id, found.version, found.text, found.author) == (ids[i], 1, given.texts[i], "Ada")
        assert found.tags == tuple(given.tags[i])
        assert found.time == given.times[i]
        assert found.bias == 0
        np.testing.assert_array_equal(found.key, given.keys[i])
        np.testing.assert_array_equal(found.value, given.values[i])
    assert [one.text for one in store.get(ids[::-1])] == list(given.texts[::-1])
    more = store.append(rows(2, seed=1))
    assert more.min() > ids.max()
    assert store.ids().tolist() == [*ids, *more]
    assert len(store.append(Rows(np.zeros((0, D))))) == 0
    assert store.stats().rows == 5


@pytest.mark.parametrize("top", [1, 4, 40])
@pytest.mark.parametrize("sharpness", [1.0, 20.0, 0.0, -2.0])
def test_a_scan_is_the_softmax_over_all_rows(store, top, sharpness):
    given = rows(23)
    ids = store.append(given)
    found = store.scan(asked(3), top=top, rules=Rules(sharpness))
    agree(found, ids, sharpness * asked(3).astype(float) @ given.keys.T.astype(float), top)


def test_an_empty_store_and_an_empty_filter_find_nothing(store):
    for where in (None, Where(tags=("none",)), Where(ids=())):
        found = store.scan(asked(), top=2, where=where)
        assert (found.ids == -1).all()
        assert found.lse.tolist() == [-math.inf] * 2
        assert found.covered.tolist() == [0.0, 0.0]
        store.append(rows(2))


def test_age_and_bias_are_added_to_the_logits(store):
    day = 86_400.0
    given = rows(6, times=[day * i for i in range(6)])
    ids = store.append(given)
    store.bias(ids[:2], 3.0, author="Ada", reason="it matters")
    store.bias(ids[2:3], -math.inf)
    found = store.scan(asked(), top=6, rules=Rules(2.0, fading=0.5, now=10 * day))
    logits = 2.0 * asked().astype(float) @ given.keys.T.astype(float)
    logits += np.array([3.0, 3.0, -np.inf, 0, 0, 0]) - 0.5 * (10 - np.arange(6))
    alive = np.array([0, 1, 3, 4, 5])
    agree(found, ids[alive], logits[:, alive], 6)
    assert [one.bias for one in store.get(ids)] == [3.0, 3.0, -math.inf, 0, 0, 0]
    store.bias(ids, 0.0)
    agree(store.scan(asked()), ids, asked().astype(float) @ given.keys.T.astype(float), 10)


def test_filters(store):
    first = store.append(rows(3, tags=[["red"], ["red", "blue"], []], times=[1.0, 2.0, 3.0], author="Ada"))
    second = store.append(rows(2, seed=1, tags=[["blue"], ["red"]], times=[4.0, 5.0]))
    told = {
        Where(): [*first, *second],
        Where(tags=("red",)): [first[0], first[1], second[1]],
        Where(tags=("red", "blue")): [first[1]],
        Where(author="Ada"): list(first),
        Where(author="Ada", tags=("red",), since=2.0): [first[1]],
        Where(since=2.0, until=4.0): [first[1], first[2]],
        Where(ids=(int(second[0]), int(first[2]), 999)): [first[2], second[0]],
        Where(tags=("' OR 1=1 --",)): [],
    }
    for where, wanted in told.items():
        assert store.ids(where).tolist() == wanted
        found = store.scan(asked(), top=9, where=where)
        assert sorted(found.ids[0][found.ids[0] >= 0].tolist()) == sorted(wanted)
        assert found.addressed == len(wanted)


def test_a_corrected_row_keeps_its_id_and_its_history(store):
    ids = store.append(rows(3, tags=[["old"]] * 3))
    store.bias([ids[1]], 1.5)
    new = rows(1, seed=5, tags=[["new"]], author="Ada")
    assert store.update(int(ids[1]), new, reason="it was wrong") == 2
    now = store.get([ids[1]])[0]
    assert (now.id, now.version, now.text, now.author, now.bias) == (ids[1], 2, new.texts[0], "Ada", 1.5)
    assert [one.version for one in store.history(int(ids[1]))] == [1, 2]
    assert store.history(int(ids[1]))[0].text == "text 1 of 0"
    assert [one.bias for one in store.history(int(ids[1]))] == [0.0, 1.5]  # older versions are never read
    assert store.ids(Where(tags=("new",))).tolist() == [ids[1]]
    assert store.ids(Where(tags=("old",))).tolist() == [ids[0], ids[2]]
    keys = np.stack([rows(3).keys[0], new.keys[0], rows(3).keys[2]]).astype(float)
    agree(store.scan(asked()), ids, asked().astype(float) @ keys.T + [0, 1.5, 0], 10)
    assert store.update(int(ids[1]), rows(1, seed=6)) == 3
    later = store.append(rows(1, seed=7))
    assert store.ids().tolist() == [*ids, *later]
    assert store.stats().versions == 2


def test_what_was_done_by_hand_is_kept(store):
    ids = store.append(rows(3))
    store.bias(ids[:2], 2.0, author="Ada", reason="pinned")
    store.update(int(ids[1]), rows(1, seed=4, author="Bob"), reason="it was wrong")
    store.forget([ids[0]], author="Ada", reason="asked to")
    told = [(hand.what, hand.id, hand.amount, hand.author, hand.reason) for hand in store.hands()]
    assert told == [
        ("bias", ids[0], 2.0, "Ada", ""),  # the reason may have told what was forgotten
        ("bias", ids[1], 2.0, "Ada", "pinned"),
        ("correct", ids[1], None, "Bob", "it was wrong"),
        ("forget", ids[0], None, "Ada", "asked to"),
    ]
    assert [hand.what for hand in store.hands(int(ids[1]))] == ["bias", "correct"]
    assert all(abs(hand.time - time.time()) < 60 for hand in store.hands())


def test_what_a_hand_did_is_undone_as_in_an_editor(store):
    ids = store.append(rows(3, tags=[["old"]] * 3, times=[1.0, 2.0, 3.0], author="Ada"))
    id = int(ids[1])

    def now():
        one = store.get([id])[0]
        return one.text, one.author, one.tags, one.time, one.bias

    states = [now()]
    for change in (
        lambda: store.bias([id], 2.0, author="Bob", reason="pinned"),
        lambda: store.update(id, rows(1, seed=4, tags=[["new"]], author="Bob"), reason="it was wrong"),
        lambda: store.bias([id], -math.inf),
        lambda: store.update(id, rows(1, seed=5)),
    ):
        change()
        states.append(now())
    undone = store.undo(id, author="Eve", reason="it was right")
    assert (undone.what, undone.author) == ("correct", "")
    assert now() == states[3]
    store.update(id, rows(1, seed=6))  # from here on, seed 5 is behind what was undone and comes no more
    for wanted, what in ((3, "correct"), (2, "bias"), (1, "correct"), (0, "bias")):
        assert store.undo(id).what == what
        assert now() == states[wanted]
    with pytest.raises(InputError, match=f"nothing that a hand did to row {id} of .* is left to be undone"):
        store.undo(id)
    np.testing.assert_array_equal(store.get([id])[0].key, rows(3).keys[1])
    agree(store.scan(asked()), ids, asked().astype(float) @ rows(3).keys.T.astype(float), 10)
    assert store.ids(Where(tags=("old",))).tolist() == ids.tolist()
    assert store.matches("text 1 0", top=1)[0].tolist() == [id]
    hand = store.hands(id)[4]
    assert (hand.what, hand.amount, hand.author, hand.reason) == ("undo", None, "Eve", "it was right")
    assert [hand.amount for hand in store.hands(id) if hand.what == "undo"] == [None, None, 2.0, None, 0.0]
    assert [one.version for one in store.history(id)] == list(range(1, 8))
    assert store.check() == []
    store.forget([ids[0]])
    with pytest.raises(InputError, match=f"row {ids[0]} .* was forgotten, and an erase cannot be undone"):
        store.undo(int(ids[0]))
    with pytest.raises(InputError, match="row 99 .* is not there"):
        store.undo(99)


def test_all_vectors_at_once(store):
    given = rows(4, tags=[["a"], [], ["a"], []])
    ids = store.append(given)
    store.forget([ids[2]])
    store.update(int(ids[0]), rows(1, seed=3))
    known = {int(ids[0]): (rows(1, seed=3), 0), int(ids[1]): (given, 1), int(ids[3]): (given, 3)}
    there, keys, values = store.vectors()
    assert sorted(there.tolist()) == sorted(known)
    for id, key, value in zip(there.tolist(), keys, values, strict=True):
        source, i = known[id]
        np.testing.assert_array_equal(key, source.keys[i])
        np.testing.assert_array_equal(value, source.values[i])
    assert len(store.vectors(Where(tags=("a",)))[0]) == 0


def test_a_store_adopts_what_another_holds(store, tmp_path):
    with Embedded(tmp_path / "from.db", width=D, value_width=E) as source:
        ids = source.append(rows(5, tags=[["a"]] * 5, author="Ada", times=[1.0, 2.0, 3.0, 4.0, 5.0]))
        source.update(int(ids[1]), rows(1, seed=3))
        source.update(int(ids[1]), rows(1, seed=4))
        source.bias(ids[2:4], 1.5, author="Ada", reason="pinned")
        source.forget([ids[0]])
        held = [one for id in source.ids() for one in source.history(int(id))]
        hands = [hand for hand in source.hands() if hand.what != "forget"]
        store.adopt(held, hands)
        assert store.ids().tolist() == source.ids().tolist()
        assert store.hands() == hands
        for id in source.ids().tolist():
            for mine, theirs in zip(store.history(id), source.history(id), strict=True):
                for name in ("id", "version", "text", "tags", "author", "time", "written"):
                    assert getattr(mine, name) == getattr(theirs, name), name
                np.testing.assert_array_equal(mine.key, theirs.key)
                np.testing.assert_array_equal(mine.value, theirs.value)
            assert store.get([id])[0].bias == source.get([id])[0].bias
        mine, theirs = (one.scan(asked(), rules=Rules(3.0)) for one in (store, source))
        assert mine.ids.tolist() == theirs.ids.tolist()
        np.testing.assert_allclose(mine.weights, theirs.weights, atol=1e-9)
        assert store.append(rows(1, seed=9))[0] > ids.max()
        with pytest.raises(InputError, match="row 1 .* is there already"):
            store.adopt(held)
        with pytest.raises(InputError, match="row 0 .* is not there"):
            store.get([0])
        store.update(1, rows(1, seed=8))
        assert [(one.version, one.text) for one in store.history(1)] == [
            (version, f"text {row} of {seed}") for version, row, seed in ((1, 1, 0), (2, 0, 3), (3, 0, 4), (4, 0, 8))
        ]
        assert store.undo(1).what == "correct"
        assert store.get([1])[0].text == "text 0 of 4"
    assert store.check() == []
    for wrong in ([held[2]], [held[-1], held[-1]]):
        with pytest.raises(InputError, match="the versions of row . are 1, 2, … one after the other"):
            store.adopt(wrong)
    with pytest.raises(InputError, match="row 99 has no finite key of width 8"):
        store.adopt([replace(held[-1], id=99, key=np.zeros(3, np.float32))])


def test_words_find_texts(store):
    texts = ["The cat sat on the mat.", "A dog chased the cat!", "Über allen Gipfeln", "nothing of the kind", ""]
    ids = store.append(rows(5, texts=texts, tags=[["a"], [], [], [], []]))
    found, scores = store.matches("Which cats sit?")
    assert found.tolist() == [ids[0], ids[1]] or found.tolist() == [ids[1], ids[0]]
    assert (scores > 0).all()
    assert (np.diff(scores) <= 0).all()
    assert store.matches("cat sat mat")[0][0] == ids[0]
    assert store.matches("uber")[0].tolist() == [ids[2]]
    assert store.matches("cat", top=1)[0].shape == (1,)
    assert store.matches("cat", where=Where(tags=("a",)))[0].tolist() == [ids[0]]
    for nothing in ("", "zebra", '" OR * NEAR(', "NOT", "text:", "a" * 5000, "' ; DROP TABLE bodies"):
        assert store.matches(nothing)[0].tolist() in ([], [ids[1]])
    store.update(int(ids[0]), rows(1, texts=["A zebra."]))
    assert store.matches("zebra")[0].tolist() == [ids[0]]
    assert store.matches("mat")[0].tolist() == []
    store.forget([ids[1]])
    assert store.matches("cat dog")[0].tolist() == []
    more = store.append(rows(1, seed=2, texts=["The dog again"]))
    assert store.matches("dog")[0].tolist() == more.tolist()


def test_facts_are_kept_beside_the_rows(store):
    assert store.notes() == {}
    store.note("encoder", "one")
    store.note("encoder", "two")
    store.note("other", "'; x")
    assert store.notes() == {"encoder": "two", "other": "'; x"}
    store.note("other", "")
    assert store.notes() == {"encoder": "two"}


def test_what_is_forgotten_is_nowhere(store):
    ids = store.append(rows(4, tags=[["x"]] * 4))
    store.update(int(ids[2]), rows(1, seed=3, tags=[["x"]]))
    receipt = store.forget([ids[2], ids[0], ids[2]], author="Ada", reason="asked to")
    assert (receipt.rows, receipt.versions) == (2, 3)
    # What a server or a cluster does with its own log is out of reach, and the receipt says so; nothing else may be owed.
    engines = {"Server": ("the write-ahead log of the server",), "Cluster": ("the engine of ",)}
    out_of_reach = engines.get(type(store).__name__, ())
    assert not [words for words in receipt.owed if not words.startswith(out_of_reach)]
    assert store.ids().tolist() == [ids[1], ids[3]]
    assert store.ids(Where(tags=("x",))).tolist() == [ids[1], ids[3]]
    agree(store.scan(asked()), ids[[1, 3]], asked().astype(float) @ rows(4).keys[[1, 3]].T.astype(float), 10)
    for ask in (lambda: store.get([ids[0]]), lambda: store.history(int(ids[2])), lambda: store.forget([ids[2]])):
        with pytest.raises(InputError, match=f"row {ids[0]} .* was forgotten|row {ids[2]} .* was forgotten"):
            ask()
    assert store.append(rows(1, seed=8))[0] > ids.max()
    assert store.stats().versions == 0
    assert store.forget([]).rows == 0


def test_what_cannot_be_leaves_the_store_as_it_was(store):
    ids = store.append(rows(2))
    for wrong, words in (
        (lambda: store.append(Rows(np.zeros((1, D + 1)))), "keeps keys and values of width"),
        (lambda: store.append(Rows(np.zeros((1, D)))), "keeps keys and values of width"),
        (lambda: store.get([7]), "row 7 .* is not there"),
        (lambda: store.get([-1]), "row -1 .* is not there"),
        (lambda: store.get([1.5]), "ids are whole numbers"),
        (lambda: store.update(int(ids[0]), rows(2)), "one row takes the place of another, not 2"),
        (lambda: store.bias([ids[0], 7], 1.0), "row 7 .* is not there"),
        (lambda: store.bias(ids, math.nan), "a bias is a number or -inf, not nan"),
        (lambda: store.bias(ids, math.inf), "a bias is a number or -inf, not inf"),
        (lambda: store.forget([ids[0], 7]), "row 7 .* is not there"),
        (lambda: store.scan(np.zeros((1, D + 1))), "queries are of width 9"),
        (lambda: store.scan(asked(), top=0), "top is 1 or more"),
        (lambda: store.scan(asked() * np.nan), "queries are finite"),
        (lambda: store.scan(1e30 * asked(), rules=Rules(1e30)), "overflow"),
    ):
        with pytest.raises(InputError, match=words):
            wrong()
    assert store.ids().tolist() == ids.tolist()
    assert [one.bias for one in store.get(ids)] == [0.0, 0.0]
    assert store.check() == []


def test_two_stores_together_find_what_one_would(tmp_path, store):
    given = rows(9)
    whole = store.append(given)
    parts = []
    for i, some in enumerate((slice(0, 4), slice(4, 9))):
        part = Embedded(tmp_path / f"part{i}.db", width=D, value_width=E)
        part.append(Rows(given.keys[some], values=given.values[some]))
        parts.append(part.scan(asked(), top=4, rules=Rules(3.0)))
        part.close()
    shifted = parts[1].ids + np.where(parts[1].ids >= 0, 4, 0)
    both = parts[0].merge(type(parts[1])(**{**vars(parts[1]), "ids": shifted}))
    one = store.scan(asked(), top=4, rules=Rules(3.0))
    assert both.ids.tolist() == (one.ids - whole[0]).tolist()
    np.testing.assert_allclose(both.weights, one.weights, atol=1e-9)
    np.testing.assert_allclose(both.lse, one.lse, atol=1e-9)
    assert (both.looked, both.addressed) == (9, 9)


def test_a_snapshot_is_a_store_and_forgetting_reaches_it(store, tmp_path):
    ids = store.append(rows(3))
    path = store.snapshot(tmp_path / "copy.db")
    store.append(rows(1, seed=2))
    with Embedded(path, read_only=True) as copy:
        assert copy.ids().tolist() == ids.tolist()
        agree(copy.scan(asked()), ids, asked().astype(float) @ rows(3).keys.T.astype(float), 10)
    with pytest.raises(InputError, match="is there already"):
        store.snapshot(path)
    assert str(path) in store.forget([ids[1]]).searched
    with Embedded(path, read_only=True) as copy:
        assert copy.ids().tolist() == [ids[0], ids[2]]
    assert b"text 1 of 0" not in path.read_bytes()


@settings(max_examples=25, deadline=None)
@given(data=st.data())
@pytest.mark.parametrize("name", STORES)
def test_any_sequence_of_changes(name, tmp_path_factory, data):
    store = STORES[name](tmp_path_factory.mktemp("any"))
    truth = {}  # id -> (key, bias, version, text)
    before = {}  # id -> the same before each change that is not undone
    try:
        for step in range(data.draw(st.integers(1, 12))):
            kinds = ["append", "update", "bias", "undo", "forget", "reopen"]
            what = data.draw(st.sampled_from(kinds if truth else ["append"]))
            some = sorted(truth) and data.draw(st.lists(st.sampled_from(sorted(truth)), min_size=1, unique=True))
            if what == "append":
                given = rows(data.draw(st.integers(1, 4)), seed=step)
                for id, key, text in zip(store.append(given).tolist(), given.keys, given.texts, strict=True):
                    truth[id] = (key, 0.0, 1, text)
                    before[id] = []
            elif what == "update":
                given = rows(1, seed=step)
                store.update(some[0], given)
                before[some[0]].append(truth[some[0]])
                truth[some[0]] = (given.keys[0], truth[some[0]][1], truth[some[0]][2] + 1, given.texts[0])
            elif what == "bias":
                amount = data.draw(st.sampled_from([0.0, 2.5, -1.0, -math.inf]))
                store.bias(some, amount)
                for id in some:
                    before[id].append(truth[id])
                truth |= {id: (truth[id][0], amount, *truth[id][2:]) for id in some}
            elif what == "undo" and before[some[0]]:
                key, bias, _, text = before[some[0]].pop()
                version = truth[some[0]][2] + (store.undo(some[0]).what == "correct")
                truth[some[0]] = (key, bias, version, text)
            elif what == "forget":
                store.forget(some)
                for id in some:
                    del truth[id]
            elif name == "embedded":
                store.close()
                store = Embedded(store.path)
        ids = np.array(sorted(truth), np.int64)
        assert store.ids().tolist() == ids.tolist()
        assert [(r.bias, r.version, r.text) for r in store.get(ids)] == [truth[id][1:] for id in ids.tolist()]
        heard = np.array([id for id in ids.tolist() if truth[id][1] > -math.inf], np.int64)
        if len(heard):
            keys = np.stack([truth[id][0] for id in heard.tolist()]).astype(float)
            agree(
                store.scan(asked()), heard, asked().astype(float) @ keys.T + [truth[id][1] for id in heard.tolist()], 10
            )
        assert store.check() == []
    finally:
        store.close()
