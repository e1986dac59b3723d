"""No way in, over all stores: any text comes out as it went in, any question is answered or refused in our own words."""

import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from recuerdo.errors import InputError, RecuerdoError
from recuerdo.store.record import Rows, Where

sys.path.insert(0, str(Path(__file__).parent))
import test_stores as stores
from test_stores import D, E, _no_server_stays, rows  # noqa: F401 (a fixture)

# What databases, their text search and their drivers understand as more than letters.
HOSTILE = [
    "'; DROP TABLE bodies; --", '" OR 1=1 --', "' OR ''='", "%s %(id)s {rows} {}", "\\", "\\'", "$1 ?1 :a @b", "$$ $a$",
    '"', "'", "NEAR(a b, 5)", "text:a AND NOT b", "a* ^b -c + (d", "a & b | !c <-> d:*", "{", "}", "[1,2]", "NULL", "\x00",
    "a\x00b", "\x1a\x7f\x85", "\u2028\u2029", "\u202ea\u202c", "\ufeffa", "\ufffe\uffff", "🙂" * 20, "ﬀİßſ", "e\u0301é",
    "\ud800", "a\udfffb", "\n\r\t", " ", "a" * 5000, "%", "_", "`id`", "$(id)", "../../x", "<script>", "\x1b[31m",
]  # fmt: skip
TEXTS = st.sampled_from(HOSTILE) | st.text(max_size=30) | st.lists(st.sampled_from(HOSTILE), max_size=3).map(" ".join)
NUMBERS = st.sampled_from([-(2**63) - 1, -(2**63), -1, 2**31, 2**53 + 1, 2**63 - 1, 2**63, 10**40])
SMALL = {"deadline": None, "suppress_health_check": [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]}


@pytest.fixture(params=stores.STORES, scope="module")
def store(request, tmp_path_factory):
    made = stores.STORES[request.param](tmp_path_factory.mktemp("hostile"))
    yield made
    made.close()


def ours(call):
    """What a call gives, or None where it was refused; anything but an error of ours goes on."""
    try:
        return call()
    except RecuerdoError as error:
        said = str(error)
    assert said.strip()
    assert "\n" not in said
    return None


def fuzzed(store, data):
    text, tag, author, reason = (data.draw(TEXTS) for _ in range(4))
    made = ours(lambda: Rows(rows(1).keys, [text], rows(1).values, [[tag]], [0.0], author))
    if made is not None:
        (id,) = store.append(made).tolist()
        held = store.get([id])[0]
        assert (held.text, held.tags, held.author) == (text, (tag,), author)
        assert id in store.ids(Where(tags=(tag,))).tolist()
        if author:
            assert id in store.ids(Where(tags=(tag,), author=author)).tolist()
        assert id in store.scan(rows(1).keys, top=10_000, where=Where(tags=(tag,))).ids[0].tolist()
    known = store.append(rows(1)).tolist()
    ours(lambda: store.bias(known, 1.0, author=author, reason=reason))
    hands = [(hand.author, hand.reason) for hand in store.hands(known[0])]
    assert hands in ([], [(author, reason)])
    assert ours(lambda: store.ids(Where(tags=(text,), author=reason))) is not None
    for where in (None, Where(tags=(tag,)), Where(author=author)):
        found = ours(lambda where=where: store.matches(text, where=where))
        if found is not None:
            assert (np.diff(found[1]) <= 0).all()
            assert set(found[0].tolist()) <= set(store.ids(where).tolist())
    name = data.draw(TEXTS)
    before = store.notes()
    ours(lambda: store.note(name, text))
    told = store.notes()
    assert told in (before, {**before, name: text}) or not text
    far = data.draw(NUMBERS)
    for refused in (lambda: store.get([far]), lambda: store.history(far), lambda: store.bias([far], 1.0),
                    lambda: store.forget([far]), lambda: store.update(far, rows(1))):  # fmt: skip
        with pytest.raises(InputError, match="is not there"):
            refused()
    assert store.ids(Where(ids=(far, known[0]))).tolist() == known
    assert store.hands(far) == []


@settings(max_examples=6, **SMALL)
@given(data=st.data())
def test_texts_are_texts_and_numbers_are_numbers(store, data):
    fuzzed(store, data)


@pytest.mark.slow
@settings(max_examples=400, **SMALL)
@given(data=st.data())
def test_many_texts_are_texts(store, data):
    fuzzed(store, data)


def test_every_hostile_text_is_one_row(store):
    good = [text for text in HOSTILE if ours(lambda text=text: Rows(rows(1).keys, [text])) is not None]
    assert len(good) == len(HOSTILE) - 2  # the two that are no Unicode
    many = rows(len(good), texts=good)
    ids = store.append(many)
    assert [one.text for one in store.get(ids)] == good
    assert store.matches(" ".join(good)) is not None
    assert store.update(int(ids[0]), rows(1, texts=["\x00 '"])) == 2
    assert [one.text for one in store.history(int(ids[0]))] == [good[0], "\x00 '"]
    store.forget(ids)
    assert not set(ids.tolist()) & set(store.ids().tolist())
    assert store.check() == []


def test_keys_that_are_none(store):
    before = store.ids().tolist()
    for keys in (
        np.full((1, D), np.nan), np.full((1, D), np.inf), np.full((1, D), 1e300), np.zeros((1, D + 1)), np.zeros(D),
        np.zeros((1, 0)), [["a"] * D], np.zeros((1, D), complex) + 1j, None, [[{}] * D],
    ):  # fmt: skip
        with pytest.raises(InputError):
            store.append(Rows(keys, values=np.zeros((1, E))))
    for wrong in ([True], ["0"], [None], [0.5], [[0]], [np.float64(0)]):
        with pytest.raises(InputError, match="ids are whole numbers"):
            store.get(wrong)
    for times in ([np.nan], [1e300], [-1e300], ["0"], [None]):
        with pytest.raises(InputError, match="a time is a number of seconds since 1970"):
            store.append(Rows(rows(1).keys, values=rows(1).values, times=times))
    for amount in (np.nan, np.inf, 1e30, -1e30):
        with pytest.raises(InputError, match="a bias is a number"):
            store.bias(before[:1], amount)
    assert store.ids().tolist() == before
