"""What the tests of clusters share: rows, clients that fail, and a small server that speaks the REST of a cluster.

The server works over the engine that the client brings along, and is stricter than a real one: whatever is filtered or
ordered by needs an index, JSON has no NaN, writes wait and are ordered, and the key is asked for.
"""

import json
import threading
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
from pydantic import TypeAdapter
from qdrant_client import QdrantClient, models

from recuerdo.store import cluster_state
from recuerdo.store.cluster import Cluster
from recuerdo.store.embedded import Embedded
from recuerdo.store.record import Rows

D, E = 8, 3


def client():
    return QdrantClient(":memory:")


def opened(on, **more):
    return Cluster(collection="notes", client=on, **{"width": D, "value_width": E, **more})


def rows(n, seed=0, d=D, **more):
    draw = np.random.default_rng(seed)
    keys, values = draw.standard_normal((n, d)), draw.standard_normal((n, E))
    return Rows(keys, **{"texts": [f"text {i} of {seed}" for i in range(n)], "values": values, **more})


def queries(q=3, seed=9):
    return np.random.default_rng(seed).standard_normal((q, D)).astype(np.float32)


def told(store):
    """All that can be seen of a store."""
    ids = store.ids()
    found = store.scan(queries(1), top=100)
    heard = [one.id for one in store.get(ids) if one.bias > -np.inf]
    assert sorted(found.ids[0][found.ids[0] >= 0].tolist()) == heard
    return {
        "rows": [(r.id, r.version, r.text, r.tags, r.bias, r.key.tolist()) for r in store.get(ids)],
        "history": [[(r.version, r.text) for r in store.history(id)] for id in ids.tolist()],
        "hands": [(h.what, h.id, h.amount, h.reason) for h in store.hands()],
        "words": sorted(store.matches("text")[0].tolist()),
        "stats": replace(store.stats(), next=0),  # ids that were never given out for good are not used again
    }


def begun():
    on = client()
    with opened(on) as store:
        store.append(rows(3, tags=[["a"]] * 3))
        store.update(1, rows(1, seed=1), reason="first")
    return on


def intents(on):
    found = on.retrieve("notes-state", [cluster_state.STATE], with_payload=True)
    return json.loads(found[0].payload["told"])["intents"]


class Killed(BaseException):
    """The end of a process."""


class Faulty:
    """A client whose n-th call from now fails, before or after it was done, as do `more` calls after it."""

    def __init__(self, on):
        self.on, self.calls = on, 0
        self.fail(-1)

    def fail(self, at, *, done=False, more=10**9, error=Killed):
        self.calls, self.at, self.done, self.more, self.error = 0, at, done, more, error

    def __getattr__(self, verb):
        found = getattr(self.on, verb)
        if not callable(found) or verb == "close":
            return found

        def call(**given):
            self.calls += 1
            over = self.calls - self.at
            if self.at > 0 and 0 <= over <= self.more:
                if self.done and over == 0:
                    found(**given)
                raise self.error("the connection ended")
            return found(**given)

        return call


def elsewhere(folder):
    """Records and hands of another memory, to be adopted: rows 11 to 13, of which 12 has two versions."""
    with Embedded(folder / "from.db", width=D, value_width=E) as source:
        source.append(rows(14, seed=5))
        source.update(12, rows(1, seed=6), reason="was old")
        source.forget(range(11))
        records = [one for id in source.ids() for one in source.history(int(id))]
        return records, [hand for hand in source.hands() if hand.what != "forget"]


# ------------------------------------------------------------------------------------------------------------- the wire


class Wrong(Exception):
    """A request that the server refuses, with its code."""


class Served(ThreadingHTTPServer):
    """On a free port of this machine; `seen` are the queries of the requests."""

    daemon_threads, block_on_close = True, False

    def __init__(self, key=None, port=0, client=None):
        self.client, self.key, self.refuses = client or QdrantClient(":memory:"), key, 0
        self.indexes, self.seen, self.lock = {}, [], threading.Lock()
        super().__init__(("127.0.0.1", port), Handler)
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}"

    def stop(self):
        self.shutdown()
        self.server_close()

    def answer(self, verb, path, query, body):
        if path == "/":
            return {"title": "qdrant - vector search engine", "version": "1.20.0"}
        _, _, name, *rest = path.split("/")
        call = f"{verb} {'/'.join(rest)}"
        if call == "GET exists":
            return {"exists": self.client.collection_exists(name)}
        if call == "PUT ":
            asked = models.CreateCollection(**body)
            self.client.create_collection(
                name, vectors_config=asked.vectors, sparse_vectors_config=asked.sparse_vectors
            )
            self.indexes[name] = set()
            return True
        if not self.client.collection_exists(name):
            raise Wrong(404)
        if call == "GET ":
            return self.client.get_collection(name)
        if call == "PUT index":
            self.indexes[name].add(models.CreateFieldIndex(**body).field_name)
            return models.UpdateResult(operation_id=1, status="completed")
        if fields := set(_fields(body)) - self.indexes[name]:
            raise Wrong(400, f"no index for {fields}")
        if verb == "PUT" or rest[-1] in ("payload", "delete"):
            assert "wait=true" in query
            assert "ordering=strong" in query
        return self.points(name, call, body)

    def points(self, name, call, body):
        on = self.client
        if call == "PUT points":
            asked = models.PointsList(**body)
            return on.upsert(name, asked.points, update_filter=asked.update_filter)
        if call == "POST points/payload":
            asked = models.SetPayload(**body)
            return on.set_payload(name, asked.payload, asked.filter or asked.points)
        if call == "POST points/vectors/delete":
            asked = models.DeleteVectors(**body)
            return on.delete_vectors(name, asked.vector, asked.points)
        if call == "POST points/delete":
            return on.delete(name, TypeAdapter(models.PointsSelector).validate_python(body))
        if call == "POST points/scroll":
            asked = models.ScrollRequest(**body)
            found, after = on.scroll(
                name, asked.filter, asked.limit, asked.order_by, asked.offset, asked.with_payload, asked.with_vector
            )
            return {"points": [one.model_dump(mode="json") for one in found], "next_page_offset": after}
        if call == "POST points/count":
            return on.count(name, models.CountRequest(**body).filter)
        if call == "POST points":
            asked = models.PointRequest(**body)
            return on.retrieve(name, asked.ids, asked.with_payload, asked.with_vector)
        assert call == "POST points/query/batch", call
        asked = models.QueryRequestBatch(**body)
        for one in asked.searches:
            one.params = None
        return on.query_batch_points(name, asked.searches)


class Handler(BaseHTTPRequestHandler):
    """One request."""

    protocol_version = "HTTP/1.1"

    def answered(self):
        path, _, query = self.path.partition("?")
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        code, told = 200, {}
        with self.server.lock:
            self.server.seen.append(f"{self.command} {self.path}")
            try:
                if self.server.key and self.headers.get("api-key") != self.server.key:
                    raise Wrong(403)
                if self.server.refuses:
                    raise Wrong(self.server.refuses)
                given = json.loads(body, parse_constant=_no) if body else {}
                found = self.server.answer(self.command, path.rstrip("/") or "/", query, given)
                told = found if path == "/" else {"result": _plain(found), "status": "ok", "time": 0.0}
            except Wrong as error:
                code, told = error.args[0], {"status": {"error": f"refused {error.args[1:]}"}, "time": 0.0}
            except ValueError as error:
                code, told = 400, {"status": {"error": str(error)}, "time": 0.0}
        sent = json.dumps(told, allow_nan=False).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(sent)))
        self.end_headers()
        self.wfile.write(sent)

    do_GET = do_PUT = do_POST = do_PATCH = do_DELETE = answered

    def log_message(self, *_):
        """Say nothing."""


def _no(word):
    raise ValueError(f"JSON has no {word}")


def _plain(found):
    if isinstance(found, list):
        return [_plain(one) for one in found]
    return found.model_dump(mode="json") if hasattr(found, "model_dump") else found


def _fields(body):
    """What a request filters or orders by."""
    if isinstance(body, list):
        for one in body:
            yield from _fields(one)
    elif isinstance(body, dict):
        if body.get("order_by"):
            yield body["order_by"]["key"]
        if isinstance(body.get("key"), str) and ("match" in body or "range" in body):
            yield body["key"]
        for name, one in body.items():
            if name not in ("payload", "vector"):
                yield from _fields(one)
