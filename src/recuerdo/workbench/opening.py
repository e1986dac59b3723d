"""One way to open a memory by what a person types.

    notes.db                                           a file: `Embedded`
    postgresql://ada@host:5432/base?schema=notes       a schema on a server: `Server`; without it, recuerdo
    qdrant+https://host:6333/notes                     a collection in a cluster: `Cluster`

`approximate=yes` looks at few rows; a cluster is made with `shards=3&replicas=2`; whatever else a server's address says
is for libpq. A password stands in the address, or where libpq looks for it (PGPASSWORD, ~/.pgpass); the key of a
cluster before the @, or in QDRANT_API_KEY. Nothing that we say repeats them. Nothing here needs torch.
"""

import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit, urlunsplit

from recuerdo.errors import InputError, NoMemory
from recuerdo.store.contract import Store
from recuerdo.store.near import Near

SERVER, CLUSTER = ("postgresql", "postgres"), ("qdrant+http", "qdrant+https")
KINDS = "a path, postgresql://host/base?schema=notes, or qdrant+https://host:6333/notes"
KEY = "QDRANT_API_KEY"
YES = ("yes", "true", "1")


@dataclass(frozen=True)
class Place:
    """Where a memory is: `name` is what people are told, without secrets; `store` opens it, with these options."""

    name: str
    store: str
    where: str = field(repr=False)
    options: dict[str, Any] = field(repr=False)

    @property
    def path(self) -> Path | None:
        """The file of an embedded memory; None = it is elsewhere."""
        return Path(self.where) if self.store == "embedded" else None


def place_of(where: str | Path) -> Place:
    """What a person typed, understood. Raises InputError for what is none of the kinds, without repeating it."""
    scheme = re.match(r"([A-Za-z][A-Za-z0-9+.-]*)://", str(where))
    if scheme is None:
        return Place(str(where), "embedded", str(where), {})
    kind = scheme[1].lower()
    if kind not in (*SERVER, *CLUSTER):
        hint = f"did you mean qdrant+{kind}://?" if kind in ("http", "https") else f"give {KINDS}"
        raise InputError(f"no memory is at {kind}://…: {hint}")
    return _server(str(where)) if kind in SERVER else _cluster(str(where), kind)


def open_store(
    where: str | Path,
    *,
    width: int = 0,
    value_width: int = 0,
    read_only: bool = False,
    approximate: Near | None = None,
) -> Store:
    """The store at a place; made, with keys of `width`, where there is none and a width is given. `approximate`: scans
    go by an index, a server's and a cluster's own there.

    Raises NoMemory where there is none and no width is given, InputError for what is no place, and StoreError for what
    cannot be opened or reached, or needs an extra that is not installed.
    """
    place = place_of(where)
    given = {"width": width, "value_width": value_width, "read_only": read_only, **place.options}
    if approximate is not None:
        given |= {"server": {"approximate": True}, "cluster": {"exact": False}}.get(place.store, {})
    try:
        if place.store == "server":
            from recuerdo.store.server import Server

            return Server(place.where, **given)
        if place.store == "cluster":
            from recuerdo.store.cluster import Cluster

            return Cluster(place.where, **given)
        from recuerdo.store.embedded import Embedded

        return Embedded(place.where, **given, approximate=approximate)
    except NoMemory:
        name = f"'{place.name}'" if place.path is None else place.name
        fix = f"make one with `recuerdo remember FILE --memory {name}`"
        raise NoMemory(f"there is no memory {place.name}: {fix}") from None


def _server(where: str) -> Place:
    parts = _split(where)
    given = [part.partition("=") for part in parts.query.split("&") if part]
    options = {name: unquote(value) for name, _, value in given}
    rest = "&".join("".join(part) for part in given if part[0] not in ("schema", "approximate"))
    schema = options.get("schema", "recuerdo")
    host = parts.hostname or options.get("host", "")
    port = f":{parts.port}" if parts.port else ""
    name = f"postgresql://{f'[{host}]' if ':' in host else host}{port}{parts.path}?schema={schema}"
    if host.startswith("/"):  # the folder of a socket
        name = f"postgresql://{port}{parts.path}?host={host}&schema={schema}"
    dsn = urlunsplit(("postgresql", parts.netloc, parts.path, rest, ""))
    return Place(name, "server", dsn, {"schema": schema, "approximate": options.get("approximate") in YES})


def _cluster(where: str, kind: str) -> Place:
    parts = _split(where)
    given = dict(parse_qsl(parts.query, keep_blank_values=True))
    collection = parts.path.strip("/")
    known = {"shards", "replicas", "approximate"}
    numbers = {name: given[name] for name in ("shards", "replicas") if name in given}
    if not parts.hostname or not collection or given.keys() - known or not all(map(str.isdecimal, numbers.values())):
        raise InputError(
            f"the address of a cluster cannot be read: write it as {kind}://host:6333/collection, where shards=, "
            "replicas= and approximate= may follow a ?"
        )
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    # The client would take 6333 for granted where no port is said.
    at = f"{host}:{parts.port or 6333}"
    secret = unquote(parts.password or parts.username or "") or os.environ.get(KEY) or None
    options: dict[str, Any] = {name: int(value) for name, value in numbers.items()}
    options |= {"collection": collection, "api_key": secret, "exact": given.get("approximate") not in YES}
    return Place(f"{kind}://{at}/{collection}", "cluster", f"{kind.removeprefix('qdrant+')}://{at}", options)


def _split(where: str) -> SplitResult:
    """An address in its parts; one that a password has torn apart is refused, for its parts would tell of it."""
    try:
        parts = urlsplit(where)
        _ = parts.port
    except ValueError:
        parts = None
    if parts is None or parts.fragment or "@" in parts.path or "@" in parts.query:
        raise InputError(
            "the address of the memory cannot be read: write / ? # @ and : of a name or a password as %2F %3F %23 %40 "
            "and %3A"
        )
    return parts
