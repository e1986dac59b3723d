"""A memory in a file that others can read, and back; into memories that have rows already; and damaged or hostile files."""

import json
import math
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recuerdo.errors import InputError, StoreError
from recuerdo.store.embedded import Embedded
from recuerdo.workbench import carrying, exported
from recuerdo.workbench.carrying import export_file, import_file
from recuerdo.workbench.opening import open_store
from recuerdo.workbench.remembering import Memory

sys.path.insert(0, str(Path(__file__).parent))
import places
from places import TOWN, D, E, filled, keep, rows, told

FORMATS = ("jsonl", "parquet")
EVERYWHERE = pytest.mark.parametrize(
    ("kind", "file"), [*((kind, "jsonl") for kind in places.KINDS), ("file", "parquet")], indirect=["file"]
)


@pytest.fixture(params=FORMATS)
def file(request, tmp_path):
    if request.param == "parquet":
        pytest.importorskip("pyarrow", reason="pyarrow is not installed: recuerdo[parquet]")
    return tmp_path / f"notes.{request.param}"


# --------------------------------------------------------------------------------------------------------- there and back


@EVERYWHERE
def test_an_export_with_vectors_is_the_memory_to_the_last_bit(kind, file, tmp_path):
    first, second = filled(places.place(kind, tmp_path)), places.place(kind, tmp_path, "new")
    before = told(first)
    assert export_file(first, file, vectors=True).rows == 17
    done = import_file(file, second)
    assert (done.rows, done.versions, done.known, done.hands, done.numbers, done.encoded) == (17, 20, 0, 9, {}, False)
    assert told(second) == told(first) == before
    again = import_file(file, second)
    assert (again.rows, again.versions, again.known, again.hands) == (0, 0, 17, 0)
    assert told(second) == before
    assert not list(tmp_path.glob("*.part"))


@settings(max_examples=8, deadline=None)
@given(contents=st.lists(places.CONTENTS, max_size=5), numbers=places.VECTORS)
@pytest.mark.parametrize("ending", FORMATS)
def test_whatever_is_kept_comes_back(ending, tmp_path_factory, contents, numbers):
    pytest.importorskip("pyarrow")
    folder = tmp_path_factory.mktemp("any")
    first, file, back = keep(str(folder / "a.db"), contents, numbers), folder / f"x.{ending}", folder / "back.db"
    export_file(first, file, vectors=True)
    import_file(file, back)
    assert told(back) == told(first)


def test_keys_are_made_anew_where_the_file_has_none(encoder, file, tmp_path):
    with Memory(tmp_path / "a.db", encoder=str(encoder)) as memory:
        memory.remember(TOWN, tags=["town"], author="Ada", when=5.0)
        memory.correct(1, "Carl has the key.", author="Bob", reason="new times")
        memory.mute([0], reason="autumn")
    before = told(tmp_path / "a.db")
    export_file(tmp_path / "a.db", file)
    if file.suffix == ".jsonl":
        assert '"key"' not in file.read_text(encoding="utf-8")
    done = import_file(file, tmp_path / "b.db")
    assert (done.rows, done.versions, done.encoded) == (2, 3, True)
    after = told(tmp_path / "b.db")
    assert after["hands"] == before["hands"]
    assert after["facts"] == before["facts"]
    assert [one[:8] for one in after["rows"]] == [one[:8] for one in before["rows"]]
    with Memory(tmp_path / "b.db") as memory:
        assert memory.ask("Who has the key?").hops[0][0].record.text == "Carl has the key."
        assert memory.undo(1).what == "correct"
        assert memory.ask("Who has the key?").hops[0][0].sentence == "Bob has the key."


def test_keys_of_another_encoder_are_not_taken(encoder, tmp_path):
    filled(str(tmp_path / "a.db"))
    export_file(tmp_path / "a.db", tmp_path / "a.jsonl", vectors=True)
    with pytest.raises(InputError, match="a.jsonl and of .*b.db have values of other widths: export with vectors, and"):
        import_file(tmp_path / "a.jsonl", tmp_path / "b.db", encoder=str(encoder))
    export_file(tmp_path / "a.db", tmp_path / "a.jsonl")
    assert import_file(tmp_path / "a.jsonl", tmp_path / "c.db", encoder=str(encoder)).encoded
    with open_store(tmp_path / "c.db") as store:
        assert store.width == 32
        assert np.linalg.norm(store.get([3])[0].key) == pytest.approx(1, abs=1e-5)


# ------------------------------------------------------------------------------------------------------- into what is there


@EVERYWHERE
def test_rows_whose_numbers_are_taken_get_the_next_ones(kind, file, tmp_path, monkeypatch):
    first, there = str(tmp_path / "a.db"), places.place(kind, tmp_path)
    with Embedded(first, width=D, value_width=E) as store:
        store.append(rows(6, tags=[[], ["mine", "same-as:0"], ["same-as:5"], [], [], []]))
        store.update(2, rows(1, seed=1))
        store.bias([1], 2.0, reason="pinned")
        store.forget([5])
    with open_store(there, width=D, value_width=E) as store:
        ids = store.append(rows(3, seed=7)).tolist()
        assert store.stats().next == 3
    export_file(first, file, vectors=True)
    monkeypatch.setattr(carrying, "TOGETHER", 2)
    steps = []

    def stop(what, done, total):
        steps.append(done)
        if len(steps) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        import_file(file, there, step=stop)
    done = import_file(file, there, step=stop)
    numbers = done.numbers
    assert (done.rows, done.known, done.hands) == (1, 4, 2)
    assert list(numbers.items())[:4] == [(0, 3), (1, 4), (2, 5), (3, 6)]
    assert numbers[4] > 6
    with open_store(there) as store:
        assert store.ids().tolist() == [*ids, *numbers.values()]
        own = [[tag for tag in one.tags if not tag.startswith("came-as:")] for one in store.get([3, 4, 5])]
        assert own == [[], ["mine", "same-as:3"], []]
        assert [one.text for one in store.history(5)] == ["text 2 of 0", "text 0 of 1"]
        assert store.get([4])[0].bias == 2.0
        assert [(hand.what, hand.id) for hand in store.hands()] == [("correct", 5), ("bias", 4)]
        store.undo(4)
        store.update(5, rows(1, seed=9, tags=[store.get([5])[0].tags]))
    before = told(there)
    again = import_file(file, there)
    assert (again.rows, again.known, again.numbers, again.hands) == (0, 5, numbers, 0)
    assert told(there) == before  # what was changed since stays as it is


def test_a_row_that_is_there_stays_as_it_is_there(file, tmp_path):
    first, there = filled(str(tmp_path / "a.db")), tmp_path / "b.db"
    export_file(first, file, vectors=True)
    import_file(file, there)
    with Embedded(there) as store:
        store.forget([1])
        store.bias([2], 3.0)
        store.undo(3)
    before = told(there)
    done = import_file(file, there)  # what was forgotten there comes back, for the file has it; under a new number
    assert (done.rows, done.known, done.hands) == (1, 16, 0)
    assert set(done.numbers) == {1}
    with Embedded(there) as store:
        store.forget([done.numbers[1]])
    after = told(there)
    assert after["rows"] == before["rows"]
    assert after["hands"][:-1] == before["hands"]


# --------------------------------------------------------------------------------------------------------- what cannot be


def test_an_export_that_was_stopped_leaves_nothing(file, tmp_path):
    first = filled(str(tmp_path / "a.db"))
    file.write_text("what was there")

    def stop(*_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        export_file(first, file, step=stop)
    assert file.read_text() == "what was there"
    assert not list(tmp_path.glob("*.part"))
    with pytest.raises(InputError, match="x.csv would be of a kind that is not known: give a name that ends in .jsonl"):
        export_file(first, tmp_path / "x.csv")
    with pytest.raises(StoreError, match="cannot be written .*: look at its folder and its disk"):
        export_file(first, tmp_path / "no" / f"x{file.suffix}")


HEAD = {"recuerdo memory": 1, "width": D, "value_width": E, "vectors": False, "rows": 1, "facts": {}}
ROW = {"id": 0, "version": 1, "text": "a", "tags": [], "author": "", "time": 1.0, "written": 2.0, "bias": 0.0}
HAND = {"what": "bias", "id": 0, "amount": "-inf", "author": "", "reason": "", "time": 1.0}


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ([{"text": "a"}], "is no export of a memory: keep its texts with `recuerdo remember "),
        ([], "is no export of a memory"),
        ([HEAD | {"recuerdo memory": 2}], "is of version 2, and this recuerdo knows 1: use a newer one"),
        ([HEAD | {"width": "x"}], "the first line of .* is damaged: export the memory again"),
        ([HEAD, "{"], "line 2 of .* is not JSON: export the memory again"),
        ([HEAD, ["x"]], r"line 2 of .* is no row of a memory \(not an object\): export the memory again"),
        ([HEAD, ROW | {"id": -1}], "id is a whole number"),
        ([HEAD, ROW | {"id": True}], "id is a whole number"),
        ([HEAD, ROW | {"time": "x"}], "time is a finite number"),
        ([HEAD, ROW | {"time": math.inf}], "time is a finite number"),
        ([HEAD, ROW | {"written": "-inf"}], "written is a finite number"),
        ([HEAD, ROW | {"bias": math.inf}], "bias is a finite number"),
        ([HEAD, ROW | {"text": 1}], "text is a text"),
        ([HEAD, ROW | {"text": "\ud800"}], "surrogates not allowed"),
        ([HEAD, ROW | {"tags": "x"}], "tags are a list of texts"),
        ([HEAD, ROW | {"tags": ["a\nb"]}], "a tag or an author is 1 to 200 characters"),
        ([HEAD, ROW | {"author": " "}], "a tag or an author is 1 to 200 characters"),
        ([HEAD, ROW | {"version": 2}], "the versions of row 0 are 1, 2"),
        ([HEAD, HAND | {"what": "eat"}], "what hands do is correct, bias, undo or forget"),
        ([HEAD, HAND, ROW], "line 3 of .* is out of order: rows by rising ids, then what hands did"),
        ([HEAD, ROW | {"id": 1}, ROW], "line 3 of .* is out of order"),
        ([HEAD | {"vectors": True}, ROW], r"is no row of a memory \('key'\)"),
        ([HEAD | {"vectors": True}, ROW | {"key": "AAAA"}], "buffer size|key has 6 finite numbers"),
        ([HEAD | {"vectors": True}, ROW | {"key": [math.nan] * D, "value": [0] * E}], "key has 6 finite numbers"),
    ],
)
def test_files_that_cannot_be_imported(lines, words, tmp_path, encoder):
    file = tmp_path / "x.jsonl"
    file.write_text("".join((one if isinstance(one, str) else json.dumps(one)) + "\n" for one in lines))
    with pytest.raises(InputError, match=words):
        import_file(file, tmp_path / "b.db", encoder="" if lines[:1] == [HEAD | {"vectors": True}] else str(encoder))


def test_parquet_that_is_none_or_damaged(tmp_path, monkeypatch):
    arrow = pytest.importorskip("pyarrow")
    first, file = filled(str(tmp_path / "a.db"), 3000), tmp_path / "x.parquet"
    file.write_bytes(b"PAR1 no")
    with pytest.raises(InputError, match="x.parquet is no Parquet, or is damaged: export the memory again"):
        import_file(file, tmp_path / "b.db")
    arrow.parquet.write_table(arrow.table({"text": ["a"]}), file)
    with pytest.raises(InputError, match="is no export of a memory"):
        import_file(file, tmp_path / "b.db")
    export_file(first, file, vectors=True)
    data = bytearray(file.read_bytes())
    data[2000:90_000] = bytes(88_000)
    file.write_bytes(data)
    with pytest.raises(InputError, match="x.parquet is damaged: export the memory again"):
        import_file(file, tmp_path / "b.db")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(InputError, match=r"Parquet needs pyarrow: pip install 'recuerdo\[parquet\]', or give a .jsonl"):
        export_file(first, file)
    with pytest.raises(
        InputError, match="there is no file .*none.jsonl: give one that `recuerdo memories export` wrote"
    ):
        exported.read(tmp_path / "none.jsonl")
