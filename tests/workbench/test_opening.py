"""Memories are opened by what a person types, and no secret of an address is ever said again."""

import sys
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recuerdo.errors import InputError, NoMemory, RecuerdoError, StoreError
from recuerdo.store.record import Rows
from recuerdo.workbench.opening import open_store, place_of

sys.path.insert(0, str(Path(__file__).parent))
import places

SECRET = "s3cr3t"


@pytest.mark.parametrize(
    ("typed", "name"),
    [
        ("notes.db", "notes.db"),
        (Path("a/notes.db"), "a/notes.db"),
        ("C:\\notes.db", "C:\\notes.db"),
        (f"postgresql://ada:{SECRET}@db:5432/base?schema=notes", "postgresql://db:5432/base?schema=notes"),
        (f"postgres://ada@/base?host=/run&password={SECRET}", "postgresql:///base?host=/run&schema=recuerdo"),
        (f"postgresql://ada:{SECRET}@[::1]/base", "postgresql://[::1]/base?schema=recuerdo"),
        (
            f"qdrant+https://{SECRET}@cluster.example/notes?shards=3&replicas=2",
            "qdrant+https://cluster.example:6333/notes",
        ),
        (f"qdrant+https://:{SECRET}@cluster.example:443/notes", "qdrant+https://cluster.example:443/notes"),
    ],
)
def test_a_place_has_a_name_without_secrets(typed, name):
    place = place_of(typed)
    assert place.name == name
    assert SECRET not in repr(place)


def test_what_a_server_is_told(monkeypatch):
    place = place_of(f"postgres://ada:{SECRET}@db/base?sslmode=require&schema=notes&password=a+b%26&approximate=yes")
    assert place.where == f"postgresql://ada:{SECRET}@db/base?sslmode=require&password=a+b%26"
    assert place.options == {"schema": "notes", "approximate": True}
    monkeypatch.setenv("QDRANT_API_KEY", SECRET)
    place = place_of("qdrant+http://localhost:1/notes?shards=3&replicas=2&approximate=1")
    assert place.options == {"collection": "notes", "api_key": SECRET, "shards": 3, "replicas": 2, "exact": False}
    assert place.where == "http://localhost:1"
    assert place_of("qdrant+https://k%40y@cluster.example/notes").options["api_key"] == "k@y"


@pytest.mark.parametrize("kind", places.KINDS)
def test_every_kind_is_made_opened_and_missed(kind, tmp_path):
    where = places.place(kind, tmp_path)
    with pytest.raises(NoMemory, match="there is no memory .*: make one with `recuerdo remember FILE --memory "):
        open_store(where)
    with open_store(where, width=3) as store:
        store.append(Rows(np.eye(3)))
    with open_store(where, read_only=True) as store:
        assert (store.width, len(store.ids())) == (3, 3)
        with pytest.raises(StoreError, match="was opened to be read only"):
            store.bias([0], 1.0)
    with pytest.raises(InputError, match="another encoder made it"):
        open_store(where, width=4)


@pytest.mark.parametrize(
    ("where", "words"),
    [
        ("mysql://db/base", r"no memory is at mysql://…: give a path, postgresql://"),
        ("https://cluster.example:6333/notes", r"no memory is at https://…: did you mean qdrant\+https://\?"),
        (f"postgresql://ada:{SECRET}/x@db/base", "the address of the memory cannot be read: write / "),
        (f"postgresql://ada:1/{SECRET}@db/base", "the address of the memory cannot be read"),
        (f"postgresql://ada:1?{SECRET}=1@db/base", "the address of the memory cannot be read"),
        (f"postgresql://ada:1#{SECRET}@db/base", "the address of the memory cannot be read"),
        (f"postgresql://ada@db/base?{SECRET}=1", "the address of the server cannot be read: write it as postgresql://"),
        (f"postgresql://ada:{SECRET}@127.0.0.1:9/base", "the server of 127.0.0.1/recuerdo cannot be reached"),
        (f"postgresql://ada:{SECRET}@db/base?schema=No", "a memory on a server has a name of 1 to 63 small letters"),
        (f"qdrant+https://{SECRET}@cluster.example", "the address of a cluster cannot be read: write it as qdrant"),
        (f"qdrant+https://{SECRET}@cluster.example/notes?shards=many", "the address of a cluster cannot be read"),
        (f"qdrant+https://{SECRET}@cluster.example/notes?key=1", "the address of a cluster cannot be read"),
        (f"qdrant+http://{SECRET}@cluster.example/notes", "a key is sent over https only"),
        (f"qdrant+http://{SECRET}@127.0.0.1:9/notes", "notes at 127.0.0.1:9"),
        (f"qdrant+https://{SECRET}@cluster.example/no!tes", "a collection is named by 1 to 100 letters"),
        ("no/such/folder/notes.db", "there is no memory no/such/folder/notes.db"),
    ],
)
def test_what_cannot_be_opened_is_told_without_its_secret(where, words):
    with pytest.raises(RecuerdoError, match=words) as told:
        open_store(where)
    error = told.value
    while error is not None:
        if isinstance(error, RecuerdoError):
            assert SECRET not in str(error)
        error = error.__cause__


@pytest.mark.parametrize(
    ("where", "package", "words"),
    [
        ("postgresql://db/base", "psycopg", r"needs psycopg: pip install 'recuerdo\[server\]'"),
        (
            "qdrant+https://cluster.example/notes",
            "qdrant_client",
            r"needs qdrant-client: pip install 'recuerdo\[cluster\]'",
        ),
    ],
)
def test_an_extra_that_is_missing_is_named(where, package, words, monkeypatch):
    for name in [name for name in sys.modules if name.startswith(("recuerdo.store.server", "recuerdo.store.cluster"))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(StoreError, match=words):
        open_store(where)


@given(st.text())
def test_any_text_is_a_place_or_refused_in_words(text):
    for scheme in ("postgresql", "qdrant+https"):
        with suppress(InputError):
            assert place_of(f"{scheme}://{text}").name.startswith(f"{scheme}://")
