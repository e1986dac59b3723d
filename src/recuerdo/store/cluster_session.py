"""An open memory in a cluster: the connection, its two collections, and how one reads and writes."""

import re
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from recuerdo.errors import InputError, NoMemory, StoreError
from recuerdo.store import cluster_points as points
from recuerdo.store.cluster_engine import Engine, Point, among, both, connect, equals
from recuerdo.store.cluster_state import Busy, Ledger, State, chunks
from recuerdo.store.cluster_words import Words
from recuerdo.store.record import Where
from recuerdo.store.refused import FORGOTTEN

NAMES = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,99}")


class Session:
    """One process at one memory. Threads take turns."""

    def __init__(
        self,
        url: str | None,
        collection: str,
        client: Any,
        *,
        api_key: str | None,
        replicas: int,
        read_only: bool,
        wait: float,
        timeout: int,
    ):
        """Connects to the cluster; see `Cluster`."""
        if not NAMES.fullmatch(collection) or collection.endswith("-state"):
            raise InputError(
                f"a collection is named by 1 to 100 letters, digits, - and _, and not …-state: {collection[:40]!r}"
            )
        if (url is None) == (client is None):
            raise InputError("a memory in a cluster has an address or a client, one of them")
        self._own, self._client = client is None, client or connect(url, api_key, timeout)
        parts = urlsplit(url or "")
        place = f"{parts.hostname}:{parts.port}" if parts.port else parts.hostname or "a client"
        self.name, self.read_only = f"{collection} at {place}", read_only
        self.rows = Engine(self._client, collection, self.name, secret=api_key, replicas=replicas)
        self.states = Engine(self._client, f"{collection}-state", self.name, secret=api_key, replicas=replicas)
        self.ledger = Ledger(self.states, self.rows, wait=wait)
        self.lock, self.words, self._closed = threading.RLock(), Words(), False
        self.width = self.value_width = 0
        self.keys: dict[str, np.ndarray] = {}  # of points that were looked at

    @property
    def widths(self) -> dict[str, int]:
        """The widths of the vectors of a row by name."""
        return {"key": self.width} | ({"value": self.value_width} if self.value_width else {})

    def open(self, width: int, value_width: int, shards: int) -> None:
        """Look what is there, make it where there is nothing, and finish what a writer who died left behind."""
        try:
            self.rows.fits()
            state = self._opened(width, value_width, shards)
            mine, asked = (state.width, state.value_width), (width, value_width)
            if width and mine != asked:
                raise InputError(
                    f"{self.name} has keys and values of width {mine}, not {asked}: another encoder made it"
                )
            self.width, self.value_width = mine
            if self.rows.widths() != self.widths:
                raise StoreError(f"the rows of {self.name} are not as its state says: restore it from a backup")
            if not self.read_only:
                self.ledger.finish_all()
        except BaseException:
            self.close()
            raise

    def _opened(self, width: int, value_width: int, shards: int) -> State:
        there, rows = self.states.exists, self.rows.exists
        state = self.ledger.found() if there else None
        if state is not None:
            if not rows:
                raise StoreError(f"the rows of {self.name} are gone: restore them from a backup")
            return state
        if (rows and not there) or (there and self.states.count(both([]))):
            raise StoreError(f"{self.name} is no memory of recuerdo: give the name of one, or a new one")
        if self.read_only or not width:
            raise NoMemory(f"there is no memory {self.name}: make one by remembering something")
        # The state comes first and last: what is half made is known as ours, and made to its end by whoever comes next.
        self.states.create({}, points.STATE_INDEXES, 1, words=False)
        widths = {"key": width} | ({"value": value_width} if value_width else {})
        self.rows.create(widths, points.INDEXES, shards, words=True)
        self.ledger.create(State(width, value_width))
        return self.ledger.read()

    @contextmanager
    def reading(self) -> Iterator[State]:
        """What is so now; one process reads it at a time."""
        with self.lock:
            self._check_open()
            try:
                yield self.ledger.read()
            except KeyError as error:
                raise StoreError(
                    f"a point of {self.name} has no {error}: others wrote there, see what check says"
                ) from None

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Whether one may write; one thread at a time."""
        if self.read_only:
            raise StoreError(f"{self.name} was opened to be read only: open it for writing")
        with self.lock:
            self._check_open()
            yield

    def _check_open(self) -> None:
        if self._closed:
            raise StoreError(f"{self.name} was closed: open it again")

    def there(self, state: State, ids: Sequence[int]) -> dict[int, Point]:
        """The present versions of rows, without vectors. Raises InputError for a row that is not there."""
        if (busy := state.busy(ids)) is not None:
            raise Busy(busy)
        found: dict[int, Point] = {}
        for some in chunks(list(dict.fromkeys(ids))):
            which, fields = points.live(state, Where(ids=tuple(some))), ["id", "version", "bias"]
            found |= {int(one.payload["id"]): one for page in self.rows.pages(which, payload=fields) for one in page}
        self.check_there(state, ids, found)
        return found

    def check_there(self, state: State, ids: Sequence[int], found: Iterable[int]) -> None:
        """Raises InputError for a row that was not found: it was forgotten, or was never there."""
        gone = [id for id in ids if id not in found]
        if gone:
            was = any(gone[0] in one.ids for one in state.intents if one.what == "forget")
            if not was and 0 <= gone[0] < state.next:
                hand = [equals("kind", "hand"), equals("what", "forget"), among("id", [gone[0]])]
                was = bool(self.states.count(both(hand)))
            raise InputError(f"row {gone[0]} of {self.name} {FORGOTTEN if was else 'is not there'}")

    def close(self) -> None:
        """Let go of the connection, where it was opened here."""
        with self.lock:
            self.words.close()
            self._closed = True
            if self._own:
                with suppress(Exception):  # a cluster that is gone is let go of all the same
                    self._client.close()
