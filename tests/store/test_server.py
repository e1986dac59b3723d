"""The server store and its server: kills, outages, other writers, names that inject, passwords, bytes that are gone."""

import importlib
import math
import os
import signal
import socket
import sys
import threading
import time
import traceback
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from recuerdo.errors import InputError, StoreError
from recuerdo.store.embedded import Embedded
from recuerdo.store.record import Rows, Rules, Where

sys.path.insert(0, str(Path(__file__).parent))
import postgres

if postgres.missing():
    pytest.skip(postgres.missing(), allow_module_level=True)
import psycopg

from recuerdo.store.server import Server

D = 16


@pytest.fixture(scope="module", autouse=True)
def machine():
    yield postgres.server()
    postgres.stop()


@pytest.fixture
def schema():
    return postgres.name()


@pytest.fixture
def store(machine, schema):
    made = Server(machine.dsn, width=D, schema=schema)
    yield made
    made.close()


@pytest.fixture
def other(machine):
    """Somebody else at the same database."""
    if machine.process.poll() is not None:
        machine.start()
    with psycopg.connect(machine.dsn, autocommit=True) as db:
        yield db


def rows(n, seed=0, **more):
    draw = np.random.default_rng(seed)
    return Rows(draw.standard_normal((n, D)), [f"row {i} of {seed}" for i in range(n)], **more)


def finds(store, n, seed=0):
    """Whether the store has exactly these rows and finds each by its own key."""
    keys = rows(n, seed).keys
    found = store.scan(keys, top=1, rules=Rules(20.0))
    return (
        store.check() == [] and found.looked == n and [store.get(i)[0].text for i in found.ids] == rows(n, seed).texts
    )


def plain(logits):
    return np.logaddexp.reduce(logits, -1)


# ------------------------------------------------------------------------------------------------------------- opening


def test_a_memory_is_opened_as_what_it_is(machine, schema):
    for more in ({}, {"width": D, "read_only": True}):
        with pytest.raises(StoreError, match=f"there is no memory .*/{schema}: make one by remembering"):
            Server(machine.dsn, schema=schema, **more)
    with Server(machine.dsn, width=D, value_width=2, schema=schema) as store:
        assert (store.width, store.value_width) == (D, 2)
        store.append(rows(5, values=np.ones((5, 2))))
        assert store.stats().bytes > 10_000
    with pytest.raises(InputError, match=r"has keys and values of width \(16, 2\), not \(8, 0\): another encoder"):
        Server(machine.dsn, width=8, schema=schema)
    with pytest.raises(InputError, match="keys on a server are of width 1 to 16,000, not 20000"):
        Server(machine.dsn, width=20_000, schema=postgres.name())
    with Server(machine.dsn, schema=schema, read_only=True) as store:
        for write in (
            lambda: store.append(rows(1, values=np.ones((1, 2)))),
            lambda: store.forget([0]),
            lambda: store.snapshot(Path("nowhere.db")),
        ):
            with pytest.raises(StoreError, match="was opened to be read only: open it for writing"):
                write()
        assert finds(store, 5)
    with pytest.raises(StoreError, match="was closed: open it again"):
        store.ids()


def test_other_tables_and_other_versions_are_refused_and_left_alone(machine, other, schema, store):
    store.append(rows(2))
    other.execute(f"UPDATE {schema}.state SET schema = 99")
    with pytest.raises(StoreError, match=r"is of version 99, and this recuerdo knows 1: use the recuerdo that made it"):
        Server(machine.dsn, width=D, schema=schema)
    strange = postgres.name()
    other.execute(f"CREATE SCHEMA {strange}; CREATE TABLE {strange}.rows(letter text)")
    with pytest.raises(StoreError, match=f"{strange} is no memory of recuerdo: give the schema of one, or a new name"):
        Server(machine.dsn, width=D, schema=strange)
    assert other.execute(f"SELECT count(*) FROM pg_tables WHERE schemaname = '{strange}'").fetchone() == (1,)


def test_a_memory_that_was_made_anew_is_not_taken_for_the_old_one(machine, other, schema, store):
    store.append(rows(3))
    other.execute(f"DROP SCHEMA {schema} CASCADE")
    with pytest.raises(StoreError, match="could not be used .relation .* does not exist"):
        store.append(rows(1))
    Server(machine.dsn, width=D, schema=schema).close()
    other.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()")
    with pytest.raises(StoreError, match="was made anew by somebody else: open it again"):
        store.append(rows(1))


def test_what_a_server_lacks_is_told(machine, other, schema, monkeypatch):
    other.execute(f"CREATE DATABASE bare_{schema}")
    other.execute(f"CREATE DATABASE latin_{schema} TEMPLATE template0 ENCODING 'LATIN1' LOCALE 'C'")
    other.execute(f"DROP ROLE IF EXISTS {postgres.LOCKED}")
    other.execute(f"CREATE ROLE {postgres.LOCKED} LOGIN PASSWORD 'open'")
    other.execute(f"GRANT ALL ON DATABASE bare_{schema} TO {postgres.LOCKED}")
    at = f"host={machine.folder} dbname"
    with pytest.raises(
        StoreError, match=r"has no pgvector \(permission denied .* have its administrator run CREATE EXT"
    ):
        Server(f"{at}=bare_{schema} user={postgres.LOCKED} password=open", width=D)
    with pytest.raises(StoreError, match="the database of .* is not in UTF8: make one that is"):
        Server(f"{at}=latin_{schema} user=postgres", width=D)
    Server(f"{at}=bare_{schema} user=postgres", width=D).close()
    with psycopg.connect(f"{at}=bare_{schema} user=postgres") as db:
        db.execute("DELETE FROM recuerdo.state")
    with pytest.raises(StoreError, match="the memory .* has no state: it was not made by recuerdo, or is damaged"):
        Server(f"{at}=bare_{schema} user=postgres")
    with psycopg.connect(f"{at}=bare_{schema} user=postgres") as db:
        db.execute("DROP EXTENSION vector CASCADE")
    with pytest.raises(StoreError, match="has no pgvector any more: run CREATE EXTENSION vector on it"):
        Server(f"{at}=bare_{schema} user=postgres")
    other.execute(f"DROP DATABASE bare_{schema}")
    monkeypatch.setitem(sys.modules, "psycopg", None)
    monkeypatch.delitem(sys.modules, "recuerdo.store.server")
    with pytest.raises(StoreError, match=r"a memory on a server needs psycopg: pip install 'recuerdo\[server\]'"):
        importlib.import_module("recuerdo.store.server")


def test_two_memories_do_not_see_each_other(machine, store):
    with Server(machine.dsn, width=3, schema=postgres.name()) as second:
        second.append(Rows(np.eye(3)))
        store.append(rows(2))
        assert second.ids().tolist() == [0, 1, 2]
        assert store.ids().tolist() == [0, 1]


# ----------------------------------------------------------------------------------------------- what people hand over


@pytest.mark.parametrize(
    "name", ["", "A", "a b", 'a"; DROP SCHEMA public; --', "pg_x", "information_schema", "1a", "ä", "a" * 64, "a\0"]
)
def test_names_of_no_memory_are_refused(machine, name):
    with pytest.raises(InputError, match="a memory on a server has a name of 1 to 63 small letters, digits and _"):
        Server(machine.dsn, width=D, schema=name)


def test_words_that_are_commands_stay_words(store, other, schema):
    evil = "'); DROP SCHEMA public CASCADE; -- {rows} %s %(x)s {0} \\ \" "
    name = evil.strip()
    told = Rows(np.eye(D)[:2], [evil + "\0\n", "{}"], tags=[[name, "a,b", "{c}", "NULL"], []], author=name)
    ids = store.append(told)
    store.bias(ids, 1.0, author=evil + "\0", reason=evil + "\0")
    store.note(evil, evil + "\0")
    found = store.get(ids)[0]
    assert (found.text, found.tags, found.author) == (evil + "\0\n", (name, "a,b", "{c}", "NULL"), name)
    assert (store.hands()[0].author, store.hands()[0].reason) == (evil + "\0", evil + "\0")
    assert store.notes() == {evil: evil + "\0"}
    assert store.ids(Where(tags=(name, "NULL"), author=name)).tolist() == [0]
    for nobody in (Where(tags=("a\0",)), Where(author="\ud800"), Where(ids=(-1, 2**70)), Where(author="' OR true --")):
        assert store.ids(nobody).tolist() == []
        assert store.scan(np.ones((1, D)), where=nobody).addressed == 0
    assert store.matches(evil)[0].tolist() == [0]
    with pytest.raises(InputError, match="a reason is no Unicode"):
        store.bias(ids, 0.0, reason="\ud800")
    assert store.get(ids)[0].bias == 1.0
    assert other.execute("SELECT count(*) FROM pg_namespace WHERE nspname = 'public'").fetchone() == (1,)


def test_a_password_is_in_no_message(machine, other):
    secret = "hush-7391"
    other.execute(f"DROP ROLE IF EXISTS {postgres.LOCKED}")
    other.execute(f"CREATE ROLE {postgres.LOCKED} LOGIN PASSWORD 'another'")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        for dsn in (
            f"postgresql://me:{secret}@127.0.0.1:{port}/db",
            f"host={machine.folder} user={postgres.LOCKED} password={secret} dbname=postgres",
            f"host=127.0.0.1 port={port} passwrd={secret}",
            f"postgresql://me:{secret}@127.0.0.1:x{secret}/db?{secret}",
        ):
            with pytest.raises(StoreError, match="cannot be reached|cannot be read: write it as postgresql") as told:
                Server(dsn, width=D)
            assert secret not in "".join(traceback.format_exception(told.value))
    with pytest.raises(StoreError, match="cannot be written or opened .permission denied"):
        Server(
            f"host={machine.folder} user={postgres.LOCKED} password=another dbname=postgres", width=D, schema="other"
        )


# ---------------------------------------------------------------------------------------------------------------- scans


@pytest.mark.parametrize("sharpness", [0.02, 1.0, 30.0, -30.0])
def test_many_rows_far_from_zero_and_in_many_runs(store, sharpness):
    draw = np.random.default_rng(0)
    keys = draw.standard_normal((9000, D)).astype(np.float32) + 20  # logits to 1e5: exp() has to be shifted
    keys[5000:5100] = keys[0]  # ties: the lower ids are first
    store.append(Rows(keys, times=np.arange(9000.0)))
    asked = np.concatenate([keys[:3], draw.standard_normal((40, D)).astype(np.float32)])
    found = store.scan(asked, top=7, rules=Rules(sharpness, fading=0.5, now=1e5))
    logits = sharpness * asked.astype(float) @ keys.T.astype(float) - 0.5 * (1e5 - np.arange(9000)) / 86_400
    wanted = np.stack([np.lexsort((np.arange(9000), -row))[:7] for row in logits])
    lse = plain(logits)
    assert found.ids.tolist() == wanted.tolist()
    weights = np.exp(np.take_along_axis(logits, wanted, 1) - lse[:, None])
    np.testing.assert_allclose(found.weights, weights, atol=1e-6)
    assert found.addressed == 9000
    assert store.scan(asked[:0]).ids.shape == (0, 10)


def test_an_approximate_scan_says_what_it_did_not_look_at(machine, schema, store, other):
    draw = np.random.default_rng(0)
    keys = draw.standard_normal((3000, D)).astype(np.float32)
    store.append(Rows(keys, tags=[["even"] if i % 2 == 0 else [] for i in range(3000)], times=np.arange(3000.0)))
    store.bias([17], 9.0)
    with pytest.raises(StoreError, match="has no index for approximate scans: open it once for writing"):
        Server(machine.dsn, schema=schema, approximate=True, read_only=True)
    bias = np.zeros(3000)
    bias[17] = 9.0
    with Server(machine.dsn, schema=schema, approximate=True) as near:
        other.execute(f"ANALYZE {schema}.rows")
        asked = draw.standard_normal((20, D)).astype(np.float32)
        for where, some in ((None, np.arange(3000)), (Where(tags=("even",)), np.arange(0, 3000, 2))):
            for rules in (Rules(2.0, fading=3.0, now=9e4), Rules(-1.0), Rules(0.0)):
                found = near.scan(asked, top=5, rules=rules, where=where)
                logits = rules.sharpness * asked.astype(float) @ keys.T.astype(float) + bias
                if rules.fading:
                    logits -= 3.0 * (9e4 - np.arange(3000)) / 86_400
                lse = plain(logits[:, some])
                assert found.looked < found.addressed == len(some)
                assert (np.logaddexp(found.lse, found.unseen) >= lse - 1e-9).all()
                assert (found.lse <= lse + 1e-9).all()
                exact = np.take_along_axis(logits, found.ids, 1)
                np.testing.assert_allclose(found.logits, exact, atol=1e-9)
        best = store.scan(asked, top=5, rules=Rules(2.0)).ids
        got = near.scan(asked, top=5, rules=Rules(2.0)).ids
        assert np.mean([len(set(a) & set(b)) / 5 for a, b in zip(best, got, strict=True)]) > 0.95
        assert np.isneginf(near.scan(asked, where=Where(ids=(1, 2))).unseen).all()
    with pytest.raises(InputError, match="too wide for pgvector's index .2,000 are the most.: leave approximate away"):
        Server(machine.dsn, schema=postgres.name(), width=2001, approximate=True)


def test_wide_keys_and_long_texts(machine):
    keys = np.random.default_rng(0).standard_normal((30, 5000)).astype(np.float32)
    with Server(machine.dsn, width=5000, schema=postgres.name()) as store:
        store.append(Rows(keys, ["long " * 300_000, *["x" * 9000] * 29]))
        assert store.scan(keys[:4], top=1, rules=Rules(0.01)).ids[:, 0].tolist() == [0, 1, 2, 3]
        assert store.get([0])[0].text == "long " * 300_000
        assert store.matches("long")[0].tolist() == [0]
        np.testing.assert_array_equal(store.vectors()[1], keys)


# --------------------------------------------------------------------------------------------------------- other writers


def test_a_second_writer_waits_and_is_then_told(machine, schema, store, other):
    store.append(rows(5))
    with Server(machine.dsn, schema=schema, wait=0.2) as second:
        with other.transaction():
            other.execute(f"SELECT * FROM {schema}.state FOR UPDATE")
            since = time.monotonic()
            with pytest.raises(StoreError, match=f"another process writes into .*/{schema}: wait for it, and try"):
                second.append(rows(1))
            assert 0.15 < time.monotonic() - since < 3
            assert finds(second, 5)  # it may be read meanwhile
        second.append(rows(1, seed=2))
        assert second.stats().rows == 6


def test_writers_take_turns_and_nothing_is_lost(machine, schema, store):
    def write(seed):
        with Server(machine.dsn, schema=schema, wait=60) as mine:
            for i in range(15):
                mine.append(rows(3, seed=100 * seed + i))

    # Also one store in two threads.
    writers = [threading.Thread(target=write, args=(seed,)) for seed in (1, 2)]
    writers += [threading.Thread(target=lambda i=i: store.append(rows(3, seed=900 + i))) for i in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    seeds = [100 * seed + i for seed in (1, 2) for i in range(15)] + [900 + i for i in range(4)]
    assert store.ids().tolist() == list(range(3 * len(seeds)))
    assert {one.text for one in store.get(store.ids())} == {text for seed in seeds for text in rows(3, seed).texts}
    assert store.check() == []


def test_memories_that_are_made_at_once_are_one(machine, schema):
    made = []
    makers = [
        threading.Thread(target=lambda: made.append(Server(machine.dsn, width=D, schema=schema))) for _ in range(4)
    ]
    for maker in makers:
        maker.start()
    for maker in makers:
        maker.join()
    assert [int(store.append(rows(1, seed=i))[0]) for i, store in enumerate(made)] == [0, 1, 2, 3]
    for store in made:
        store.close()


# ----------------------------------------------------------------------------------------------------------------- harm


def cut(other, schema, how):
    """Cut every connection but this one."""
    other.execute(
        f"SELECT {how}(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND backend_type = %s",
        ("client backend",),
    )


def test_a_connection_that_was_cut_comes_back(store, other, schema):
    store.append(rows(5))
    for _ in range(3):
        cut(other, schema, "pg_terminate_backend")
        assert finds(store, 5)
    cut(other, schema, "pg_terminate_backend")
    assert store.append(rows(1, seed=1)).tolist() == [5]


def test_a_write_that_was_cut_in_the_middle_changed_nothing(store, other, schema):
    store.append(rows(5))
    told = pytest.raises(StoreError, match="the connection to .* was cut .* nothing was changed: try again when")
    with told, store._session.writing() as state:
        state.next += 1
        cut(other, schema, "pg_terminate_backend")
        store._session.run("DELETE FROM {rows}")
    assert finds(store, 5)
    with pytest.raises(KeyboardInterrupt), store._session.writing():
        store._session.run("DELETE FROM {rows}")
        raise KeyboardInterrupt
    assert finds(store, 5)
    assert store.append(rows(1, seed=1)).tolist() == [5]


def test_a_write_whose_end_nobody_knows_says_so(store, other, schema):
    commit = store._session._commit

    def cut_first():
        cut(other, schema, "pg_terminate_backend")
        commit()

    store._session._commit = cut_first
    with pytest.raises(StoreError, match="whether it was is not known: look before you write it again"):
        store.append(rows(1))
    store._session._commit = commit
    store.append(rows(5))
    assert finds(store, 5)


@pytest.mark.parametrize("trial", range(2))
def test_a_server_that_is_killed_in_the_middle_of_writes_keeps_what_it_said_it_kept(machine, schema, store, trial):
    killed_and_checked(machine, schema, store, 0.01 + 0.3 * trial)


@pytest.mark.slow
@pytest.mark.parametrize("trial", range(60))
def test_a_server_that_is_killed_sixty_times(machine, schema, store, trial):
    killed_and_checked(machine, schema, store, float(np.random.default_rng(trial).uniform(0, 0.5)))


def killed_and_checked(machine, schema, store, seconds):
    kept, told = [], []
    store.append(rows(400, seed=5))

    def write():
        with Server(machine.dsn, schema=schema) as mine:
            for i in range(10_000):
                given = rows(20, seed=1000 + i)
                try:
                    kept.append((mine.append(given).tolist(), given))
                except StoreError as error:
                    told.append((str(error), given))
                    return

    def read():
        with Server(machine.dsn, schema=schema) as mine:
            asked = rows(400, seed=5).keys
            while True:
                try:
                    found = mine.scan(asked, top=1, rules=Rules(50.0), where=Where(ids=tuple(range(400))))
                except StoreError as error:
                    told.append((str(error), None))
                    return
                assert found.ids[:, 0].tolist() == list(range(400))

    threads = [threading.Thread(target=write), threading.Thread(target=read)]
    for thread in threads:
        thread.start()
    while len(kept) < 20:
        time.sleep(0.01)
    time.sleep(seconds)
    machine.kill()
    for thread in threads:
        thread.join()
    assert len(told) == 2
    for words, _ in told:
        assert "was cut" in words or "cannot be reached" in words
    with pytest.raises(StoreError, match=f"the server of .*/{schema} cannot be reached .* nothing was changed: is it"):
        store.ids()
    machine.start()
    there = {one.id: one for one in store.get(store.ids())}
    for ids, given in kept:
        for id, key, text in zip(ids, given.keys, given.texts, strict=True):
            assert there[id].text == text
            np.testing.assert_array_equal(there[id].key, key)
    extra = len(there) - 400 - sum(len(ids) for ids, _ in kept)
    unsure = any("is not known" in words for words, _ in told)
    assert extra == 0 or (unsure and extra == 20)
    assert store.check() == []
    assert store.append(rows(1))[0] > max(there)


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("53100", "the disk of .* is full; nothing was changed: make room and try again"),
        ("XX001", "is damaged .no.: restore it from a snapshot"),
        ("40P01", "another process writes into .*: wait for it, and try again"),
        ("25006", "cannot be written or opened .no.; nothing was changed: look at the rights of its user"),
    ],
)
def test_what_the_server_says_is_told_and_changes_nothing(store, other, schema, code, words):
    store.append(rows(5))
    how = f"BEGIN RAISE EXCEPTION 'no' USING ERRCODE = '{code}'; END"
    other.execute(f"CREATE FUNCTION {schema}.no() RETURNS trigger LANGUAGE plpgsql AS $$ {how} $$")
    other.execute(f"CREATE TRIGGER no BEFORE INSERT ON {schema}.texts FOR EACH ROW EXECUTE FUNCTION {schema}.no()")
    for write in (lambda: store.append(rows(50, seed=1)), lambda: store.update(0, rows(1, seed=1))):
        with pytest.raises(StoreError, match=words):
            write()
    assert finds(store, 5)
    other.execute(f"DROP TRIGGER no ON {schema}.texts")
    assert store.append(rows(1, seed=1)).tolist() == [5]
    assert store.check() == []


def test_one_process_of_the_server_is_killed_while_it_answers(machine, store, other):
    store.append(rows(5))
    pid = store._session.one("SELECT pg_backend_pid()")[0]
    killer = threading.Timer(0.2, os.kill, (pid, signal.SIGKILL))
    killer.start()
    with pytest.raises(StoreError, match="the connection to .* was cut"), store._session.reading():
        store._session.run("SELECT pg_sleep(5)")
    killer.join()
    time.sleep(0.05)  # until the server itself has noticed it
    assert finds(store, 5)  # the server starts anew by itself; whoever asks meanwhile waits


# --------------------------------------------------------------------------------------------------------------- erased


def holding(machine, other, *marks):
    """The files of the server, but for its write-ahead log, in which one of the byte strings stands."""
    other.execute("CHECKPOINT")
    found = []
    for file in machine.data.rglob("*"):
        if file.is_file() and "pg_wal" not in file.parts:
            data = file.read_bytes()
            found += [file for mark in marks if mark in data]
    return found


def secret(store, n=300):
    given = [rows(n, seed=i, tags=[["plain"]] * n) for i in range(2)]
    store.append(given[0])
    key = np.random.default_rng(77).standard_normal((1, D)).astype(np.float32)
    told = Rows(key, ["SECRET-7391 " * 9], tags=[["HUSH-TAG"]], author="HUSH-AUTHOR")
    id = int(store.append(told)[0])
    store.bias([id], 1.0, reason="HUSH-REASON")
    store.update(id, Rows(key[:, ::-1], ["LATER-7391 secretword"], tags=[["HUSH-TAG"]]), reason="HUSH-REASON")
    store.append(given[1])
    # As a short text is kept uncompressed, its bytes can be looked for.
    return id, [key.tobytes(), key[:, ::-1].tobytes(), b"SECRET-7391", b"LATER-7391", b"HUSH-", b"secretword"]


def test_what_was_forgotten_is_in_no_file_but_the_log(machine, schema, store, other, tmp_path):
    id, marks = secret(store)
    path = store.snapshot(tmp_path / "copy.db")
    other.execute(f"ANALYZE {schema}.rows, {schema}.texts, {schema}.hands")
    assert holding(machine, other, *marks)
    receipt = store.forget([id])
    assert [words for words in receipt.owed if "write-ahead log" not in words] == []
    assert "out of reach" in receipt.owed[0]
    assert holding(machine, other, *marks) == []
    assert not any(mark in file.read_bytes() for mark in marks for file in tmp_path.iterdir())
    assert str(path) in receipt.searched
    assert f"{store.name}.texts" in receipt.searched
    assert store.ids().tolist() == [*range(id), *range(id + 1, 601)]
    path.unlink()
    assert store.forget([0]).rows == 1  # a copy that is no more is no trouble


def test_what_could_not_be_erased_is_owed(machine, schema, store, other, monkeypatch):
    ids = store.append(rows(5))
    with Server(machine.dsn, schema=schema, wait=0.05) as second, psycopg.connect(machine.dsn) as reader:
        reader.execute(f"SELECT count(*) FROM {schema}.texts")
        assert "texts is in use by a reader: what was forgotten is in it until that" in second.forget(ids[:1]).owed[0]
    other.execute(f"DROP ROLE IF EXISTS {postgres.LOCKED}")
    other.execute(f"CREATE ROLE {postgres.LOCKED} LOGIN PASSWORD 'open'")
    other.execute(f"GRANT USAGE ON SCHEMA {schema} TO {postgres.LOCKED}")
    other.execute(f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA {schema} TO {postgres.LOCKED}")
    dsn = f"host={machine.folder} dbname=postgres user={postgres.LOCKED} password=open"
    with Server(dsn, schema=schema) as guest:
        assert "texts may not be swept: VACUUM it as its owner" in guest.forget(ids[1:2]).owed[0]
    other.execute(f"DROP OWNED BY {postgres.LOCKED}")

    def broken():
        raise StoreError("gone")

    monkeypatch.setattr(store._session, "alone", broken)
    assert "still hold what was forgotten, until the memory is opened again (gone)" in store.forget(ids[2:3]).owed[0]
    monkeypatch.undo()
    assert store.ids().tolist() == [3, 4]
    copy = store.snapshot(Path(machine.folder) / "copy.db")
    copy.write_bytes(b"no memory any more, but a letter to my aunt" * 99)
    assert any("is damaged" in words for words in store.forget(ids[3:4]).owed)
    copy.unlink()


def test_snapshots_elsewhere_are_told_and_other_memories_in_their_place_are_left_alone(store, tmp_path, monkeypatch):
    ids = store.append(rows(5))
    path = store.snapshot(tmp_path / "copy.db")
    path.unlink()
    with Embedded(path, width=D) as another:
        another.append(rows(5, seed=2))
    assert len(store.forget(ids[:1]).owed) == 1
    monkeypatch.setattr(socket, "gethostname", lambda: "elsewhere")
    assert f"the snapshot {path} was made on " in store.forget(ids[1:2]).owed[0]
    with Embedded(path) as another:
        assert another.ids().tolist() == [0, 1, 2, 3, 4]
    path.unlink()
    assert "forget there what was forgotten here" in store.forget(ids[2:3]).owed[0]


def test_a_table_that_is_too_dear_to_be_written_anew_is_told(machine, schema, store, monkeypatch):
    ids = store.append(rows(3))
    monkeypatch.setattr("recuerdo.store.server_upkeep.REWRITTEN", 0)
    owed = store.forget(ids[:1]).owed
    assert any(
        "rows is too dear to be written anew: its pages keep bytes until a VACUUM FULL" in words for words in owed
    )
    monkeypatch.undo()
    with Server(machine.dsn, schema=schema, approximate=True) as near:
        assert [words for words in near.forget(ids[1:2]).owed if "rows is too dear" in words]
        assert near.ids().tolist() == [2]


def test_a_reader_in_the_middle_keeps_the_bytes_and_the_next_who_opens_erases_them(machine, schema, store, other):
    id, marks = secret(store)
    with psycopg.connect(machine.dsn) as reader:
        reader.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        reader.execute("SELECT 1")
        assert "is in use by a reader: what was forgotten is in it until" in store.forget([id]).owed[0]
        assert holding(machine, other, *marks)
    Server(machine.dsn, schema=schema).close()
    assert holding(machine, other, *marks) == []


# --------------------------------------------------------------------------------------------------------------- moving


def test_a_memory_moves_to_a_file_and_back(machine, store, tmp_path):
    ids = store.append(rows(30, tags=[["a", "b"]] * 30, author="Ada", times=np.arange(30.0)))
    store.update(3, rows(1, seed=3))
    store.update(3, rows(1, seed=4), reason="again")
    store.bias(ids[4:6], -math.inf, author="Ada", reason="wrong")
    store.bias([7], 2.5)
    store.forget(ids[10:29])
    store.note("encoder", "one")
    (tmp_path / "copy.db.part").write_bytes(b"what was left by one that was cut off")
    with Embedded(store.snapshot(tmp_path / "copy.db")) as copy:
        with Server(machine.dsn, width=D, schema=postgres.name()) as back:
            back.adopt([one for id in copy.ids() for one in copy.history(int(id))], copy.hands())
            assert back.append(rows(1))[0] == 30
            back.forget([30])
            for one in (copy, back):
                assert one.ids().tolist() == store.ids().tolist()
                assert one.hands()[: len(store.hands())] == store.hands()
                for id in store.ids().tolist():
                    for mine, theirs in zip(store.history(id), one.history(id), strict=True):
                        for name in ("id", "version", "text", "tags", "author", "time", "written"):
                            assert getattr(mine, name) == getattr(theirs, name), name
                        np.testing.assert_array_equal(mine.key, theirs.key)
                    assert store.get([id])[0].bias == one.get([id])[0].bias
                mine, theirs = (some.scan(rows(4, seed=8).keys, rules=Rules(3.0)) for some in (store, one))
                assert mine.ids.tolist() == theirs.ids.tolist()
                np.testing.assert_allclose(mine.weights, theirs.weights, atol=1e-6)
                assert one.check() == []
                found = one.matches("row of 3 4")[0].tolist()
                assert found == store.matches("row of 3 4")[0].tolist()
        assert copy.notes() == {"encoder": "one"}
    assert sorted(file.name for file in tmp_path.iterdir()) == [
        "copy.db",
        "copy.db-keys",
        "copy.db-times",
    ]
    for place in (tmp_path / "copy.db" / "in a file", tmp_path / "nowhere" / "copy.db"):
        with pytest.raises(StoreError, match="cannot be written or opened|could not be written .*: give another place"):
            store.snapshot(place)


def test_ids_that_are_too_far_apart_are_refused(store):
    store.append(rows(1))
    one = store.get([0])[0]
    with pytest.raises(InputError, match="ids from 1 to 9999999 are too far apart to be kept: append the rows as new"):
        store.adopt([replace(one, id=1), replace(one, id=9_999_999)])


def test_check_tells_what_does_not_fit(store, other, schema):
    store.append(rows(4))
    other.execute(f"DELETE FROM {schema}.texts WHERE id = 1; UPDATE {schema}.rows SET version = 7 WHERE id = 2")
    told = store.check()
    assert any("versions without a text" in words for words in told)
    assert any("1 rows whose versions do not follow each other" in words for words in told)
    with pytest.raises(StoreError, match="is damaged .row 1 has no text.: restore it from a snapshot"):
        store.get([1])
