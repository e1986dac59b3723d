"""One collection of a Qdrant cluster: points in and out, filters, and what goes wrong told in our words.

The only file that knows the client. In its in-process mode (tests, first steps) the engine has no payload indexes and
no search parameters; everything else is the same.
"""

import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from recuerdo.errors import InputError, StoreError

try:
    from qdrant_client import QdrantClient, models
    from qdrant_client.common.client_exceptions import QdrantException, ResourceExhaustedResponse
    from qdrant_client.http.exceptions import ResponseHandlingException, UnexpectedResponse
    from qdrant_client.models import Condition, Filter
except ImportError:
    raise StoreError("a memory in a cluster needs qdrant-client: pip install 'recuerdo[cluster]'") from None

OLDEST = (1, 16)  # older servers ignore the condition of a conditional write
PAGE = 4_000_000  # bytes of one page of points, about
MOST = 10_000  # points on one page
PART = (256, 8_000_000)  # points, and bytes, of one request that writes; the server takes 32 MB
MANY = 64  # questions in one request
NEAR = ("localhost", "127.0.0.1", "::1")  # this machine
WORDS = 300  # characters of what the engine says that are told


@dataclass
class Point:
    """A point: its number (a UUID), its payload, and its vectors by name, where they were asked for.

    `words` (index -> weight) is the sparse vector of its text; `score` what a search gave it.
    """

    id: str
    payload: dict[str, Any]
    vectors: dict[str, np.ndarray] = field(default_factory=dict)
    words: dict[int, float] = field(default_factory=dict)
    score: float = 0.0


def connect(url: str | None, api_key: str | None, timeout: int) -> QdrantClient:
    """A client of the cluster at an address. Raises InputError for what is no address."""
    parts = urlsplit(url or "")
    if not url or parts.scheme not in ("http", "https") or not parts.hostname:
        raise InputError("a cluster has an address such as https://cluster.example:6333")
    if parts.username or parts.password or parts.query:
        raise InputError("the address of a cluster holds no name, key or question: give the key as api_key")
    if api_key and parts.scheme == "http" and parts.hostname not in NEAR:
        raise InputError("a key is sent over https only: give an https address, or a client of your own")
    with warnings.catch_warnings():
        # It warns of a key over http also where nobody else can listen.
        warnings.filterwarnings("ignore", "Api key is used with an insecure connection")
        # Its own look at the version only warns; ours is in `Engine.fits`.
        return QdrantClient(url=url, api_key=api_key, timeout=timeout, check_compatibility=False)


# -------------------------------------------------------------------------------------------------------------- filters


def both(must: Iterable[Condition], but: Iterable[Condition] = ()) -> Filter:
    """All of these conditions, and none of those."""
    return Filter(must=list(must), must_not=list(but))


def either(*some: Condition) -> Condition:
    """One of these conditions at least."""
    return Filter(should=list(some))


def equals(name: str, value: str | int | bool) -> Condition:
    """A field is this value, or a list that has it."""
    return models.FieldCondition(key=name, match=models.MatchValue(value=value))


def among(name: str, values: Sequence[int]) -> Condition:
    """A field is one of these numbers."""
    return models.FieldCondition(key=name, match=models.MatchAny(any=list(values)))


def within(name: str, low: float | None = None, high: float | None = None) -> Condition:
    """low <= field < high."""
    return models.FieldCondition(key=name, range=models.Range(gte=low, lt=high))


def these(points: Iterable[str]) -> Condition:
    """The points of these numbers."""
    return models.HasIdCondition(has_id=list(points))


# --------------------------------------------------------------------------------------------------------------- engine


class Engine:
    """One collection. Every method raises StoreError with the way out, and never a word of the key."""

    def __init__(self, client: QdrantClient, collection: str, name: str, *, secret: str | None, replicas: int = 1):
        """`name` is what people are told, `secret` what they never are."""
        self.client, self.collection, self.name = client, collection, name
        self._secret, self._replicas = secret, replicas
        options = getattr(client, "init_options", None) or {}
        self.local = options.get("location") == ":memory:" or options.get("path") is not None

    def fits(self) -> None:
        """Whether the cluster can write under a condition, without which two writers would overwrite each other."""
        told = self._tell(self.client.info).version
        if tuple(int(part) for part in told.split("-")[0].split(".")[:2]) < OLDEST:
            raise StoreError(f"{self.name} is of version {told}: a memory needs Qdrant 1.16 or a newer one")

    # ----------------------------------------------------------------------------------------------------- collections

    @property
    def exists(self) -> bool:
        """Whether the collection is there."""
        return bool(self._ask("collection_exists"))

    def create(self, widths: dict[str, int], indexes: dict[str, str], shards: int, *, words: bool) -> None:
        """Make it, with vectors of these widths, the first of which are searched; another may have made it just now."""
        vectors = {
            name: models.VectorParams(
                size=width,
                distance=models.Distance.DOT,
                # The others only lie there: no graph is built for them.
                hnsw_config=models.HnswConfigDiff(m=0) if i else None,
                on_disk=True if i else None,
            )
            for i, (name, width) in enumerate(widths.items())
        }
        sparse = {"words": models.SparseVectorParams(modifier=models.Modifier.IDF)} if words else None
        try:
            self._ask(
                "create_collection",
                vectors_config=vectors,
                sparse_vectors_config=sparse,
                shard_number=shards,
                replication_factor=self._replicas,
                write_consistency_factor=self._replicas // 2 + 1,
            )
        except StoreError:
            if not self.exists:
                raise
        if not self.local:  # in-process there are none, which the client warns of
            for name, kind in indexes.items():
                schema = models.PayloadSchemaType(kind)
                self._ask("create_payload_index", field_name=name, field_schema=schema, wait=True)

    def widths(self) -> dict[str, int]:
        """The widths of its vectors by name; 0 where they are not compared by dot products."""
        told = self._ask("get_collection").config.params.vectors
        found = told if isinstance(told, dict) else {}
        return {name: one.size if one.distance == models.Distance.DOT else 0 for name, one in found.items()}

    # ---------------------------------------------------------------------------------------------------------- writing

    def put(self, points: Sequence[Point], *, only: Condition | None = None) -> None:
        """Write points in one request; those that are there already only where they meet the condition."""
        held = [
            models.PointStruct(
                id=one.id,
                payload=one.payload,
                vector={name: vector.tolist() for name, vector in one.vectors.items()}
                | ({"words": _sparse(one.words)} if one.words else {}),  # type: ignore[arg-type]
            )
            for one in points
        ]
        self._write("upsert", points=held, **({} if only is None else {"update_filter": both([only])}))

    def flag(self, payload: dict[str, Any], which: Filter) -> None:
        """Set fields of all points that a filter lets through."""
        self._write("set_payload", payload=payload, points=which)

    def unword(self, points: Sequence[str]) -> None:
        """Take the words of points away, so that they count in no search for words any more."""
        self._write("delete_vectors", vectors=["words"], points=list(points))

    def delete(self, which: Filter) -> None:
        """Delete all points that a filter lets through."""
        self._write("delete", points_selector=models.FilterSelector(filter=which))

    # ---------------------------------------------------------------------------------------------------------- reading

    def one(self, id: str) -> Point | None:
        """A point by its number, as the cluster's majority has it."""
        found = self._ask("retrieve", ids=[id], with_payload=True, with_vectors=False, **self._agreed())
        return _point(found[0]) if found else None

    def keys(self, ids: Sequence[str], name: str, width: int) -> dict[str, np.ndarray]:
        """The vectors of points by their numbers; a point that is gone is left out."""
        found: dict[str, np.ndarray] = {}
        together = max(1, PAGE // (12 * width))
        for i in range(0, len(ids), together):
            some = list(ids[i : i + together])
            told = self._ask("retrieve", ids=some, with_payload=False, with_vectors=[name], **self._agreed())
            found |= {str(one.id): np.array(one.vector[name], np.float32) for one in told}
        return found

    def count(self, which: Filter) -> int:
        """How many points a filter lets through, exactly."""
        return int(self._ask("count", count_filter=which, exact=True).count)

    def pages(
        self,
        which: Filter,
        *,
        payload: bool | list[str] = True,
        vectors: Sequence[str] = (),
        width: int = 0,
        most: int = MOST,
    ) -> Iterator[list[Point]]:
        """All points that a filter lets through by their numbers, at most so many at a time.

        `width`: how many numbers their vectors have together, by which pages are kept small.
        """
        limit, after = min(most, max(1, PAGE // (12 * width + (256 if payload is not True else 1024)))), None
        while True:
            found, after = self._ask(
                "scroll",
                scroll_filter=which,
                limit=limit,
                offset=after,
                with_payload=payload,
                with_vectors=list(vectors) or False,
                **self._agreed(),
            )
            yield [_point(one) for one in found]
            if after is None:
                return

    def first(self, which: Filter, by: str, limit: int, *, falling: bool, payload: list[str], key: str) -> list[Point]:
        """The first points by a field."""
        direction = models.Direction.DESC if falling else models.Direction.ASC
        order = models.OrderBy(key=by, direction=direction)
        found, _ = self._ask(
            "scroll",
            scroll_filter=which,
            limit=limit,
            order_by=order,
            with_payload=payload,
            with_vectors=[key],
            **self._agreed(),
        )
        return [_point(one) for one in found]

    def nearest(
        self, queries: np.ndarray, which: Filter, limit: int, *, key: str, payload: list[str], exact: bool
    ) -> list[list[Point]]:
        """For each query [q, d] the points with the highest dot product, best first."""
        more: dict[str, Any] = {}
        if not self.local:  # in-process every search is exact
            ignore = models.QuantizationSearchParams(ignore=True)
            wide = None if exact else max(limit, 128)
            more["params"] = models.SearchParams(exact=exact, hnsw_ef=wide, quantization=ignore)
        asked = [
            models.QueryRequest(
                query=query, using=key, filter=which, limit=limit, with_payload=payload, with_vector=[key], **more
            )
            for query in queries.tolist()
        ]
        return self._search(asked)

    def by_words(self, words: dict[int, float], which: Filter, limit: int, *, payload: list[str]) -> list[Point]:
        """The points whose words weigh most for these words, best first."""
        using = {"using": "words", "with_payload": payload, "with_vector": False}
        return self._search([models.QueryRequest(query=_sparse(words), filter=which, limit=limit, **using)])[0]

    # ------------------------------------------------------------------------------------------------ what is behind it

    def _search(self, asked: list[models.QueryRequest]) -> list[list[Point]]:
        found: list[list[Point]] = []
        for i in range(0, len(asked), MANY):
            told = self._ask("query_batch_points", requests=asked[i : i + MANY], **self._agreed())
            found += [[_point(one) for one in answer.points] for answer in told]
        return found

    def _agreed(self) -> dict[str, Any]:
        return {"consistency": models.ReadConsistencyType.MAJORITY} if self._replicas > 1 else {}

    def _write(self, verb: str, **given: Any) -> None:
        told = self._ask(verb, wait=True, ordering=models.WriteOrdering.STRONG, **given)
        if told.status != models.UpdateStatus.COMPLETED:
            raise StoreError(f"{self.name} has not said that the write is done ({told.status.value}): try again")

    def _ask(self, verb: str, **given: Any) -> Any:
        return self._tell(getattr(self.client, verb), collection_name=self.collection, **given)

    def _tell(self, call: Any, **given: Any) -> Any:
        try:
            return call(**given)
        except Exception as error:
            if self._secret and self._secret in f"{error!r} {error}":
                raise StoreError(self._words(error)) from None
            raise StoreError(self._words(error)) from error

    def _words(self, error: Exception) -> str:
        code = error.status_code if isinstance(error, UnexpectedResponse) else None
        if code in (401, 403):
            return f"{self.name} refuses the key: give an api_key that may read and write"
        if code == 413:
            return f"{self.name} takes no row as large as this: cut its text, or raise the cluster's request limit"
        if code in (429, 503) or isinstance(error, ResourceExhaustedResponse):
            return f"{self.name} is too busy: wait, and try again"
        if isinstance(error, ResponseHandlingException | OSError):
            source = getattr(error, "source", error)
            return f"{self.name} cannot be reached ({type(source).__name__}): see that the cluster runs, and try again"
        told = str(error) or type(error).__name__
        if isinstance(error, UnexpectedResponse):
            told = f"{code}: {error.content.decode(errors='replace')}"
        if self._secret:
            told = told.replace(self._secret, "…")
        who = "the cluster says" if isinstance(error, UnexpectedResponse | QdrantException) else "the client says"
        return f"{self.name} could not be used ({who}: {' '.join(told.split())[:WORDS]})"


def parts(points: Iterable[Point]) -> Iterator[list[Point]]:
    """Points in parts that fit into one request."""
    part: list[Point] = []
    size = 0
    for one in points:
        bytes = 400 + 4 * len(one.payload.get("text", "")) + 12 * sum(len(vector) for vector in one.vectors.values())
        bytes += 24 * len(one.words)
        if part and (len(part) == PART[0] or size + bytes > PART[1]):
            yield part
            part, size = [], 0
        part.append(one)
        size += bytes
    if part:
        yield part


def _sparse(words: dict[int, float]) -> models.SparseVector:
    return models.SparseVector(indices=list(words), values=list(words.values()))


def _point(told: Any) -> Point:
    named = told.vector if isinstance(told.vector, dict) else {}
    vectors = {name: np.array(vector, np.float32) for name, vector in named.items() if isinstance(vector, list)}
    return Point(str(told.id), told.payload or {}, vectors, {}, getattr(told, "score", 0.0))
