"""The store in a cluster: bounds of what was not looked at, filters, other people's collections, snapshots, the wire."""

import json
import math
import sys
import time
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("qdrant_client", reason="qdrant-client is not installed: recuerdo[cluster]")
sys.path.insert(0, str(Path(__file__).parent))
from clusters import D, E, Served, begun, client, elsewhere, opened, queries, rows, told
from qdrant_client import models

from recuerdo.errors import InputError, StoreError
from recuerdo.store import cluster_engine, cluster_state
from recuerdo.store.cluster import Cluster
from recuerdo.store.cluster_engine import Point
from recuerdo.store.cluster_words import Words
from recuerdo.store.embedded import Embedded
from recuerdo.store.record import DAY, Rows, Rules, Where

MANY = 1200
KEY = "s3cret-key-0123"


# ------------------------------------------------------------------------------------------- scans beyond what is whole


@pytest.fixture(scope="module")
def large():
    """A client with rows of which some are red, boosted, lowered or muted; and the truth of them."""
    on, times = client(), np.random.default_rng(1).uniform(0, 100 * DAY, MANY)
    given = rows(MANY, times=times, tags=[["red"] if i % 3 == 0 else [] for i in range(MANY)])
    with opened(on) as store:
        store.append(given)
        store.bias([5, 500], 4.0)
        store.bias([7], -3.0)
        store.bias([9, 10, 11], -math.inf)
    bias = np.zeros(MANY)
    bias[[5, 500]], bias[7], bias[[9, 10, 11]] = 4.0, -3.0, -np.inf
    return on, given.keys.astype(float), times, bias


@pytest.mark.parametrize("exact", [True, False])
@pytest.mark.parametrize("fading", [0.0, 0.05, -0.05])
@pytest.mark.parametrize("sharpness", [3.0, -2.0, 0.0])
def test_what_was_not_looked_at_is_bounded(large, sharpness, fading, exact):
    on, keys, times, bias = large
    rules = Rules(sharpness, fading=fading, now=200 * DAY)
    logits = sharpness * queries().astype(float) @ keys.T + bias - fading * (200 * DAY - times) / DAY
    with opened(on, whole=500, exact=exact) as store:
        found = store.scan(queries(), top=5, rules=rules)
        assert found.addressed == MANY - 3
        assert 5 <= found.looked < MANY - 3
        truth = np.logaddexp.reduce(logits, 1)
        assert (found.lse <= truth + 1e-6).all()
        rest = np.logaddexp(found.lse, found.unseen)
        assert (rest >= truth - 1e-9).all()
        share = np.exp(np.sort(logits, 1)[:, -5:] - truth[:, None]).sum(1)
        assert (found.covered <= share + 1e-9).all()
        for i in range(3):
            order = np.lexsort((np.arange(MANY), -logits[i]))[:5]
            assert found.ids[i].tolist() == order.tolist()
            np.testing.assert_allclose(found.logits[i], logits[i][order], atol=1e-6)
    if not exact:
        return
    with opened(on) as store:  # all are few enough
        whole = store.scan(queries(), top=5, rules=rules)
        assert whole.ids.tolist() == found.ids.tolist()
        assert (whole.unseen == -np.inf).all()
        np.testing.assert_allclose(whole.lse, truth, atol=1e-5)


def test_a_sharp_look_into_many_rows_covers_nearly_all(large):
    with opened(large[0], whole=500) as store:
        assert (store.scan(queries(), top=20, rules=Rules(20.0)).covered > 0.999).all()


def test_where_too_many_rows_have_a_bias_the_largest_one_bounds(large):
    on, keys, _, _ = large
    with Cluster(collection="boosted", width=D, client=client(), whole=20) as store:
        store.append(Rows(keys[:300]))
        store.bias(range(0, 300, 2), 2.0)
        logits = queries().astype(float) @ keys[:300].T + np.where(np.arange(300) % 2, 0.0, 2.0)
        found = store.scan(queries(), top=3)
        assert found.looked < 300
        truth = np.logaddexp.reduce(logits, 1)
        assert (np.logaddexp(found.lse, found.unseen) >= truth).all()
        assert (found.lse <= truth + 1e-6).all()


@pytest.mark.parametrize("exact", [True, False])
@pytest.mark.parametrize(("bias", "sharpness"), [(0.0, 2.0), (0.0, -2.0), (3.0, 2.0), (-1.0, -2.0)])
def test_a_bound_holds_where_it_is_met(bias, sharpness, exact):
    """All rows are as near as can be: less than the bound would be wrong, and more needless."""
    ask = queries(1)
    with Cluster(collection="met", width=D, client=client(), whole=20, exact=exact) as store:
        store.append(Rows(np.repeat(np.sign(sharpness) * ask, 200, 0)))
        if bias:
            store.bias(range(200), bias)
        found = store.scan(ask, top=3, rules=Rules(sharpness))
        truth = 2.0 * float(ask[0].astype(float) @ ask[0].astype(float)) + bias + math.log(200)
        assert found.looked < 200
        assert truth - 1e-9 <= np.logaddexp(found.lse, found.unseen)[0] <= truth + max(0.0, -bias) + 1e-4


@pytest.mark.parametrize("where", [Where(tags=("red",)), Where(since=20 * DAY, until=80 * DAY), Where(tags=("blue",))])
def test_filters_at_scale(large, where):
    on, keys, times, bias = large
    red = np.arange(MANY) % 3 == 0 if where.tags else np.ones(MANY, bool)
    there = red & (times >= where.since) & (times < where.until) & (where.tags != ("blue",))
    with opened(on, whole=200) as store:
        assert store.ids(where).tolist() == np.flatnonzero(there).tolist()
        heard = there & (bias > -np.inf)
        found = store.scan(queries(1), top=7, where=where)
        logits = np.where(heard, queries(1).astype(float) @ keys.T + bias, -np.inf)[0]
        wanted = [i for i in np.argsort(-logits)[:7].tolist() if heard[i]]
        assert found.ids[0][found.ids[0] >= 0].tolist() == wanted
        assert found.addressed == heard.sum()
        ids, vectors, values = store.vectors(where)
        assert vectors.shape == (there.sum(), D)
        assert values.shape == (there.sum(), E)
        np.testing.assert_array_equal(vectors, keys[ids].astype(np.float32))


def test_filters_that_nothing_passes(large):
    with opened(large[0], whole=200) as store:
        for where in (Where(ids=()), Where(ids=(-1, 10**30)), Where(since=math.nan), Where(author="")):
            assert store.ids(where).tolist() == []
            assert store.scan(queries(), where=where).addressed == 0
            assert len(store.vectors(where)[0]) == 0
            assert len(store.matches("text", where=where)[0]) == 0


# -------------------------------------------------------------------------------------------------- opening and checking


def test_a_memory_is_opened_as_what_it_is():
    on = client()
    for more in ({"width": 0, "value_width": 0}, {"read_only": True}):
        with pytest.raises(StoreError, match="there is no memory notes at a client: make one by remembering something"):
            opened(on, **more)
    assert on.get_collections().collections == []
    opened(on).close()
    with pytest.raises(InputError, match=r"has keys and values of width \(8, 3\), not \(4, 0\): another encoder"):
        opened(on, width=4, value_width=0)
    with opened(on, width=0, value_width=0, read_only=True) as store:
        assert (store.width, store.value_width) == (D, E)
        for write in (
            lambda: store.append(rows(1)),
            lambda: store.forget([0]),
            lambda: store.note("a", "b"),
            lambda: store.snapshot("copy.db"),
        ):
            with pytest.raises(StoreError, match="was opened to be read only: open it for writing"):
                write()
    with pytest.raises(StoreError, match="was closed: open it again"):
        store.ids()


def test_collections_of_others_are_refused_and_left_alone():
    on = client()
    mine = models.VectorParams(size=D, distance=models.Distance.COSINE)
    on.create_collection("notes", vectors_config=mine)
    with pytest.raises(StoreError, match="notes at a client is no memory of recuerdo: give the name of one"):
        opened(on)
    on.create_collection("notes-state", vectors_config=mine)
    point = models.PointStruct(id=1, vector=[1.0] * D)
    on.upsert("notes-state", [point])
    with pytest.raises(StoreError, match="is no memory of recuerdo"):
        opened(on)
    on.delete_collection("notes-state")
    on.create_collection("notes-state", vectors_config={})
    with pytest.raises(StoreError, match="the rows of notes at a client are not as its state says"):
        opened(on)
    assert on.count("notes").count == 0


def test_a_memory_of_a_later_version_is_not_guessed_at():
    on = begun()
    on.set_payload("notes-state", {"schema": 99}, [cluster_state.STATE])
    with pytest.raises(StoreError, match="is of version 99, and this recuerdo knows 1: use the recuerdo that made it"):
        opened(on)
    on.set_payload("notes-state", {"schema": 1, "told": "{"}, [cluster_state.STATE])
    with pytest.raises(StoreError, match="the state of notes at a client is damaged .*: restore it from a backup"):
        opened(on)
    on.delete("notes-state", [cluster_state.STATE])
    with pytest.raises(StoreError, match="is no memory of recuerdo"):  # the rows are somebody's
        opened(on)


def test_what_goes_while_it_is_open_is_said():
    on = begun()
    with opened(on) as store:
        on.delete("notes-state", [cluster_state.STATE])
        with pytest.raises(StoreError, match="the state of notes at a client is gone: restore it from a backup"):
            store.ids()
    on = begun()
    on.delete_collection("notes")
    with pytest.raises(StoreError, match="the rows of notes at a client are gone: restore them"):
        opened(on)


def test_an_old_server_is_refused(monkeypatch):
    on = client()
    monkeypatch.setattr(on, "info", lambda: models.VersionInfo(title="", version="1.15.5"))
    with pytest.raises(StoreError, match=r"is of version 1.15.5: a memory needs Qdrant 1.16 or a newer one"):
        opened(on)


@pytest.mark.parametrize(
    "name", ["", "a/b", "a b", "../notes", "a" * 101, "x-state", "notes\n", "nötes", "?wait=false"]
)
def test_names_that_would_be_something_else_are_refused(name):
    with pytest.raises(InputError, match="a collection is named by 1 to 100 letters, digits, - and _"):
        Cluster(collection=name, width=D, client=client())


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({}, "has an address or a client, one of them"),
        ({"url": "http://cluster.example:1", "client": 3}, "has an address or a client, one of them"),
        ({"url": "cluster.example:6333"}, "has an address such as https://cluster.example:6333"),
        ({"url": "ftp://cluster.example"}, "has an address such as"),
        ({"url": f"https://me:{KEY}@cluster.example"}, "the address of a cluster holds no name, key or question"),
        ({"url": f"https://cluster.example?api_key={KEY}"}, "the address of a cluster holds no name, key or question"),
        ({"client": 3, "width": -1}, "widths are 0 or more"),
        ({"client": 3, "whole": 0}, "shards, replicas, whole and timeout are 1 or more"),
    ],
)
def test_what_cannot_be_opened(given, words):
    with pytest.raises(InputError, match=words) as error:
        Cluster(collection="notes", **given)
    assert KEY not in str(error.value)


def test_check_finds_what_is_wrong():
    on = begun()
    with opened(on) as store:
        row = models.Filter(must=[models.FieldCondition(key="id", match=models.MatchValue(value=1))])
        on.set_payload("notes", {"current": False}, row)
        assert "the present version of row 1 is not its last" in store.check()
        on.set_payload("notes", {"version": 2, "muted": True}, row)
        assert "row 1 has the versions [2, 2]" in store.check()
        assert "the bias of row 1, version 2 is 0.0, and its flags say otherwise" in store.check()
    on = begun()
    with opened(on) as store:
        record = store.get([2])[0]
        payload = {"id": 77, "version": 1, "current": True, "bias": "0.0"}
        store._rows.put([Point("77777777-0000-0000-0000-000000000000", payload, {"key": record.key})])
        assert store.check() == ["1 points are beyond what the state knows"]
        assert store.ids().tolist() == [0, 1, 2]
        store._states.put([cluster_state.hand_point(99, "bias", 1, 1.0, "", "", 0.0)])
        assert "something done by hand is beyond what the state knows" in store.check()
        on.update_vectors("notes", [models.PointVectors(id=on.scroll("notes")[0][0].id, vector={"key": [9.0] * D})])
        assert "row 0, version 1 has a longer key or a larger bias than the state knows" in store.check()


def test_points_that_lack_something_are_said(monkeypatch):
    on = begun()
    with opened(on) as store:
        on.delete_vectors("notes", ["value"], [on.scroll("notes")[0][0].id])
        with pytest.raises(StoreError, match="a point of notes at a client has no 'value': others wrote there"):
            store.vectors()
        assert "row 0, version 1 has not the vectors of the memory" in store.check()
        monkeypatch.setattr(store._rows, "count", lambda which: 0)
        assert "the engine counts 0 versions, and gives 4" in store.check()


def test_without_the_client_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "qdrant_client", None)
    alone = spec_from_file_location("alone", cluster_engine.__file__)
    with pytest.raises(StoreError, match=r"needs qdrant-client: pip install 'recuerdo\[cluster\]'"):
        alone.loader.exec_module(module_from_spec(alone))


def test_words_that_are_no_unicode_are_refused(tmp_path):
    with opened(begun()) as store:
        for change in (
            lambda: store.bias([0], 1.0, reason="\ud800"),
            lambda: store.update(0, rows(1), reason="\ud800"),
            lambda: store.forget([0], author="\ud800"),
            lambda: store.note("a", "\ud800"),
        ):
            with pytest.raises(InputError, match="authors, reasons and facts are Unicode"):
                change()
        held, _ = elsewhere(tmp_path)
        with pytest.raises(InputError, match="times are finite numbers, and a bias is a number or -inf"):
            store.adopt([type(one)(**{**vars(one), "time": math.nan}) for one in held])
        with pytest.raises(
            InputError, match="a cluster keeps ids up to 9007199254740992, not 9007199254740992: append"
        ):
            store.adopt([type(held[0])(**{**vars(held[0]), "id": 2**53})])


def test_tags_texts_and_facts_are_only_ever_data():
    strange = ["' OR 1=1 --", '"}], "must_not": []', "tags[]", "$where", "🦉", "*", "null"]
    with opened(client()) as store:
        ids = store.append(rows(len(strange), tags=[[tag] for tag in strange], texts=[f"{tag}\x00" for tag in strange]))
        for id, tag in zip(ids.tolist(), strange, strict=True):
            assert store.ids(Where(tags=(tag,))).tolist() == [id]
            assert store.get([id])[0].text == f"{tag}\x00"
            assert store.ids(Where(author=tag)).tolist() == []
            store.note(tag, tag)
        assert store.notes() == {tag: tag for tag in sorted(strange)}


# ------------------------------------------------------------------------------------------------- snapshots, forgetting


def test_a_snapshot_is_the_same_memory(tmp_path):
    with opened(begun()) as store:
        store.bias([0], -math.inf, author="Ada", reason="noise")
        store.append(rows(2, seed=4, tags=[["b"], []], times=[1.5, -2.5], author="Ada"))
        store.forget([2])
        store.note("encoder", "one")
        path = store.snapshot(tmp_path / "copy.db")
        assert [file.name for file in tmp_path.iterdir()] == ["copy.db"]
        with Embedded(path) as copy:
            assert copy.check() == []
            assert copy.hands() == store.hands()
            assert copy.notes() == store.notes()
            for id in store.ids().tolist():
                for one, other in zip(copy.history(id), store.history(id), strict=True):
                    for name in ("id", "version", "text", "tags", "author", "time", "written"):
                        assert getattr(one, name) == getattr(other, name)
                    np.testing.assert_array_equal(one.key, other.key)
            assert [one.bias for one in copy.get(copy.ids())] == [one.bias for one in store.get(store.ids())]
            np.testing.assert_allclose(copy.scan(queries()).lse, store.scan(queries()).lse, atol=1e-5)
        with pytest.raises(StoreError, match=r"could not be (written|used)|cannot be written or opened"):
            store.snapshot(tmp_path / "nowhere" / "copy.db")


def test_what_is_forgotten_while_a_snapshot_is_made_is_not_in_it(tmp_path, monkeypatch):
    on = begun()
    with opened(on) as store, opened(on) as other:
        from recuerdo.store import cluster_upkeep

        write = cluster_upkeep.write_copy

        def slow(*given):
            other.forget([0])
            write(*given)

        monkeypatch.setattr(cluster_upkeep, "write_copy", slow)
        path = store.snapshot(tmp_path / "copy.db")
        with Embedded(path, read_only=True) as copy:
            assert copy.ids().tolist() == [1, 2]
        assert b"text 0 of 0" not in path.read_bytes()


def test_a_snapshot_elsewhere_is_owed(tmp_path, monkeypatch):
    with opened(begun()) as store:
        monkeypatch.setattr("platform.node", lambda: "other.example")
        path = store.snapshot(tmp_path / "copy.db")
        monkeypatch.undo()
        owed = store.forget([0]).owed
        assert owed[0].startswith(
            "the engine of notes at a client has deleted the points; their bytes stay in its segments"
        )
        assert owed[1] == f"a snapshot on the machine other.example, {path}: forget the rows there too"


def test_what_is_forgotten_is_in_no_point_of_the_engine():
    on = begun()
    with opened(on) as store:
        store.bias([1], 1.0, reason="because of text 1 of 0")
        store.forget([1])
    kept = [one.payload for name in ("notes", "notes-state") for one in on.scroll(name, limit=1000)[0]]
    assert "text 1 of 0" not in json.dumps(kept)
    assert "text 0 of 1" not in json.dumps(kept)


# ------------------------------------------------------------------------------------------------------------ the words


def test_words_are_cut_and_stemmed_as_in_the_embedded_store(tmp_path):
    texts = ["Running runners ran", "Über den Wolken", "x" * 300, "", "a cat, a cat, a cat", "The cats' house — 42"]
    with opened(client()) as store, Embedded(tmp_path / "a.db", width=D, value_width=E) as other:
        for one in (store, other):
            one.append(rows(len(texts), texts=texts))
        for asked in ("run", "uber", "cat", "house 42", "nothing", "", "NEAR(cat house)", "wolken cats"):
            mine, theirs = store.matches(asked), other.matches(asked)
            assert sorted(mine[0].tolist()) == sorted(theirs[0].tolist())
            assert (mine[1] > 0).all()
        assert store.matches("cat", top=0)[0].tolist() == []
    found = Words().of(["cat cat dog", "cat"])
    assert len(found[0]) == 2
    assert max(found[0].values()) < 2.2


def test_an_error_tells_no_key(monkeypatch):
    on = begun()
    with opened(on, api_key=KEY) as store:
        monkeypatch.setattr(on, "count", lambda **_: (_ for _ in ()).throw(ValueError(f"bad header api-key: {KEY}")))
        with pytest.raises(StoreError, match="could not be used .the client says: bad header api-key: …") as error:
            store.stats()
        assert error.value.__cause__ is None
        assert KEY not in str(error.value)
        assert KEY not in repr(vars(error.value))


def test_a_write_that_is_only_promised_is_no_write(monkeypatch):
    on = begun()
    with opened(on) as store:
        before = told(store)
        upsert = on.upsert

        def later(**given):
            if given["collection_name"] == "notes":
                return models.UpdateResult(operation_id=1, status="acknowledged")
            return upsert(**given)

        monkeypatch.setattr(on, "upsert", later)
        with pytest.raises(StoreError, match="has not said that the write is done .acknowledged.: try again"):
            store.append(rows(2))
        assert told(store) == before


def test_a_thousand_rows_are_kept_in_parts():
    with opened(client()) as store:
        start = time.perf_counter()
        ids = store.append(rows(1000))
        assert len(store.get(ids)) == 1000
        assert time.perf_counter() - start < 10


# ------------------------------------------------------------------------------------------------------------- the wire


@pytest.fixture
def served():
    server = Served(KEY)
    yield server
    server.stop()


def test_by_wire_it_is_the_same(served):
    """Also in requests that a strict server takes: with an index for each field, and no NaN or infinity."""
    stores = [opened(client(), whole=20), Cluster(served.url, collection="notes", width=D, value_width=E, api_key=KEY)]
    held = []
    for store in stores:
        with store:
            store.whole = 20
            store.append(rows(60, times=[DAY * i for i in range(60)], tags=[["a"], []] * 30, author="Ada"))
            store.bias([3, 4], -math.inf, reason="noise")
            store.bias([5], 2.0)
            store.update(6, rows(1, seed=2), reason="wrong")
            store.forget([7, 8])
            where = Where(tags=("a",), author="Ada", since=DAY, until=50 * DAY, ids=tuple(range(40)))
            held.append([told(store), store.ids(where).tolist(), store.check(), store.vectors(where)[1].tolist()])
            for rules in (Rules(2.0), Rules(-1.0, fading=0.1, now=70 * DAY), Rules(0.0)):
                found = store.scan(queries(), top=4, rules=rules, where=where)
                held[-1] += [found.ids.tolist(), np.round(found.logits, 6).tolist(), found.looked, found.addressed]
    assert held[0] == held[1]
    asked = " ".join(served.seen)
    for call in ("PUT /collections/notes/index", "POST /collections/notes/points/query/batch", "points/scroll"):
        assert call in asked


def test_replicas_are_read_as_most_of_them_say(served):
    with Cluster(served.url, collection="notes", width=D, api_key=KEY, replicas=3, shards=2) as store:
        store.append(Rows(rows(2).keys))
        store.scan(queries())
    reads = [
        call for call in served.seen if "scroll" in call or call.startswith("POST /collections/notes-state/points?")
    ]
    assert reads
    assert all("consistency=majority" in call for call in reads)


def test_a_cluster_that_is_gone_is_said_and_found_again(served):
    with Cluster(served.url, collection="notes", width=D, api_key=KEY, timeout=5) as store:
        store.append(Rows(rows(2).keys))
        served.stop()
        for call in (store.ids, lambda: store.append(Rows(rows(1).keys)), lambda: store.forget([0])):
            with pytest.raises(StoreError, match=r"notes at 127.0.0.1:\d+ cannot be reached \(\w+\)") as error:
                call()
            assert KEY not in f"{error.value} {error.value.__cause__!r} {vars(error.value)}"
        again = Served(KEY, served.server_port, served.client)
        again.indexes = served.indexes
        try:
            assert store.ids().tolist() == [0, 1]
            assert store.append(Rows(rows(1).keys)).tolist() == [2]
            assert store.check() == []
            for code, words in (
                (503, "is too busy: wait, and try again"),
                (413, "takes no row as large as this: cut its text, or raise the cluster's request limit"),
                (500, "could not be used .the cluster says: 500: "),
            ):
                again.refuses = code
                with pytest.raises(StoreError, match=words):
                    store.stats()
        finally:
            again.stop()


def test_a_wrong_key_is_said_and_not_repeated(served):
    for key in ("wr0ng-key", None):
        with pytest.raises(StoreError, match="refuses the key: give an api_key that may read and write") as error:
            Cluster(served.url, collection="notes", width=D, api_key=key)
        assert str(key) not in str(error.value)
    with pytest.raises(InputError, match="a key is sent over https only: give an https address, or a client"):
        Cluster("http://cluster.example:6333", collection="notes", api_key=KEY)
