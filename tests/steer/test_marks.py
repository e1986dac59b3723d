"""Marks: what a person says is checked at once, kept to the letter, and found in the text or refused in clear words."""

import json
import math
import subprocess
import sys
import time
from dataclasses import replace
from datetime import UTC, datetime
from fractions import Fraction
from itertools import count
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import recuerdo
from recuerdo import steer
from recuerdo.errors import MarkError, RecuerdoError
from recuerdo.steer import (
    Box,
    Mark,
    Quote,
    Scope,
    Slots,
    Span,
    Time,
    as_marks,
    boost,
    check_overlaps,
    damp,
    marks_as_data,
    mute,
    read_marks,
    share,
    spans_of,
)
from recuerdo.steer.marks import MOST, MOST_FACTOR, MOST_SCOPES

TEXT = "The red key opens the gate. The blue key opens the red door; the gate stays shut."
NAN, INFINITE = math.nan, math.inf


def refused(make, *words: str) -> str:
    """A MarkError of one line that holds these words."""
    with pytest.raises(MarkError) as told:
        make()
    message = str(told.value)
    assert "\n" not in message
    for word in words:
        assert word in message
    return message


# ------------------------------------------------------------------------------------------- any mark, for hypothesis

words = st.text(st.characters(exclude_categories=["Cs"]), min_size=1).filter(str.strip)
maybe = st.text(st.characters(exclude_categories=["Cs"]))
fractions = st.floats(0, 1)
naturals = st.integers(0, 10**6)
layers = st.integers(-64, 64)


@st.composite
def ranges(draw):
    first, end = sorted(draw(st.lists(naturals, min_size=2, max_size=2, unique=True)))
    return draw(st.sampled_from([(first, end), (None, end), (first, None), (None, None), None]))


@st.composite
def scopes(draw):
    where = draw(
        st.one_of(
            st.just({}),
            st.fixed_dictionaries({"heads": st.lists(st.tuples(layers, naturals), min_size=1, max_size=5)}),
            st.fixed_dictionaries({}, optional={"layers": st.lists(layers, min_size=1, max_size=5), "head_set": words}),
        )
    )
    role = draw(st.sampled_from([None, "self", "cross", "encoder"]))
    return Scope(role=role, queries=draw(ranges()), steps=draw(ranges()), **where)


@st.composite
def boxes(draw):
    sides = st.lists(fractions, min_size=2, max_size=2, unique=True).map(sorted)
    (left, right), (top, bottom) = draw(sides), draw(sides)
    return Box(left, top, right, bottom)


places = st.one_of(
    st.builds(Quote, words, st.one_of(st.none(), st.integers(1, 99))),
    st.builds(Quote, words, every=st.booleans()),
    st.builds(lambda start, more, quote: Span(start, start + more, quote), naturals, st.integers(1, 99), maybe),
    boxes(),
    st.lists(st.floats(0, 1e6), min_size=2, max_size=2, unique=True).map(lambda ends: Time(*sorted(ends))),
    st.builds(Slots, st.lists(naturals, min_size=1, max_size=5)),
)
actions = st.one_of(
    st.tuples(st.just("boost"), st.floats(1, MOST_FACTOR, exclude_min=True)),
    st.tuples(st.just("damp"), st.floats(0, 1, exclude_min=True, exclude_max=True)),
    st.tuples(st.just("share"), fractions),
    st.tuples(st.just("mute"), st.none()),
)
dates = st.one_of(st.just(""), st.datetimes(timezones=st.just(UTC)).map(datetime.isoformat))


@st.composite
def marks(draw):
    action, amount = draw(actions)
    told = {"author": draw(maybe), "reason": draw(maybe), "date": draw(dates)}
    return Mark(draw(places), action, amount, scope=draw(scopes()), **told)


@settings(deadline=None, max_examples=200)
@given(st.lists(marks(), max_size=4))
def test_every_mark_survives_json(said):
    written = json.dumps(marks_as_data(said), allow_nan=False)
    assert as_marks(json.loads(written)) == tuple(said) == read_marks(written)
    for mark in said:
        assert Mark.from_data(json.loads(json.dumps(mark.to_data()))) == mark
        assert hash(mark) == hash(Mark.from_data(mark.to_data()))
        assert "\n" not in str(mark)


def test_the_data_of_a_mark_are_short_and_stay_as_they_are():
    """A change here makes the files of yesterday unreadable."""
    mark = boost("the gate", 4, layers=range(10, 12), heads=None, steps=(1, None), author="Ada", date="2026-11-30")
    data = {
        "where": {"kind": "quote", "quote": "the gate"},
        "action": "boost",
        "amount": 4.0,
        "scope": {"layers": [10, 11], "steps": [1, None]},
        "author": "Ada",
        "date": "2026-11-30",
    }
    assert mark.to_data() == data
    assert marks_as_data(mark) == {"version": 1, "marks": [data]}
    kinds = [Span(1, 3), Box(0, 0, 1, 0.5), Time(0, 1.5), Slots([3, 1, 3]), Quote("a", 2), Quote("a", every=True)]
    assert [mute(where).to_data()["where"] for where in kinds] == [
        {"kind": "span", "start": 1, "end": 3},
        {"kind": "box", "left": 0.0, "top": 0.0, "right": 1.0, "bottom": 0.5},
        {"kind": "time", "start": 0.0, "end": 1.5},
        {"kind": "slots", "slots": [1, 3]},
        {"kind": "quote", "quote": "a", "occurrence": 2},
        {"kind": "quote", "quote": "a", "every": True},
    ]


def test_marks_are_written_as_people_say_them():
    assert boost("key", 4) == Mark(Quote("key"), "boost", 4.0)
    assert damp((3, 9), 0.25) == Mark(Span(3, 9), "damp", 0.25)
    assert share(Box(0, 0, 1, 1), 0.3, role="cross").scope == Scope(role="cross")
    assert mute("key", heads=[(3, 1), (-1, 0)], reason="noise").scope.heads == ((-1, 0), (3, 1))
    assert Mark.from_data({"where": "key", "action": "boost", "amount": 2}) == boost("key", 2)
    assert boost("key", np.float32(2.5), layers=np.arange(2)) == boost("key", Fraction(5, 2), layers=(0, 1))
    assert math.copysign(1, share("key", -0.0).amount) == 1
    assert Scope(queries=(None, None)) == Scope()


def test_marks_are_told_in_a_few_words():
    assert str(boost("the  red\nkey", 4)) == "boost x4 'the red key'"
    assert str(share(Quote("a", 2), 0.3, layers=[-1], steps=(1, None))) == (
        "share 0.3 no. 2 of 'a' (layers -1, steps 1 to the end)"
    )
    assert str(mute(Quote("w" * 99, every=True), role="self", heads=[(0, 1)], queries=(2, 5))) == (
        f"mute every '{'w' * 39}…' (self, heads 0:1, queries 2 to 5)"
    )
    assert [str(mute(w).where) for w in (Span(1, 3), Span(1, 3, "he"), Box(0, 0, 1, 0.5), Time(0, 1.5), Slots([3]))] == [
        "characters 1 to 3", "'he'", "box 0, 0 to 1, 0.5", "0 to 1.5 s", "slots 3",
    ]  # fmt: skip
    assert str(damp("a", 0.5, head_set="x\x1b[2J")) == r"damp x0.5 'a' (head set 'x\x1b[2J')"


def test_a_mark_is_dated_once():
    mark = mute("key").dated()
    assert abs(datetime.now(UTC) - datetime.fromisoformat(mark.date)).total_seconds() < 60
    assert mark.dated() is mark
    assert replace(mark, date="") == mute("key")


def test_the_room_is_quick_to_enter():
    """Listing marks needs neither torch nor numpy."""
    code = (
        "import sys, recuerdo.steer as s; [getattr(s, n) for n in ('Journal', 'boost', 'parse_markup')]; "
        "print([m for m in ('torch', 'numpy', 'transformers') if m in sys.modules])"
    )
    source = str(Path(recuerdo.__file__).parents[1])
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env={"PYTHONPATH": source})
    assert done.stdout == "[]\n", done.stderr


def test_the_room_names_what_it_has():
    assert all(getattr(steer, name) for name in ("Mark", "Scope", "as_marks", "escape_markup", "journal_folder"))
    with pytest.raises(AttributeError, match="has no attribute 'bost'"):
        steer.bost  # noqa: B018


# ----------------------------------------------------------------------------------------------------------- hostile

HOSTILE = {
    "boost that weakens": (lambda: boost("a", 0.5), "above 1, not 0.5", "use damp"),
    "boost by nothing": (lambda: boost("a", 1), "above 1, not 1"),
    "boost of minus": (lambda: boost("a", -2), "above 1, not -2"),
    "boost of all": (lambda: boost("a", 1e7), "above 1,000,000", "use share 1"),
    "boost of NaN": (lambda: boost("a", NAN), "the amount of boost is nan: give a finite number"),
    "boost of infinity": (lambda: boost("a", INFINITE), "is inf: give a finite number"),
    "boost beyond floats": (lambda: boost("a", 10**400), "is inf: give a finite number"),
    "boost of True": (lambda: boost("a", True), "is a number, not bool"),
    "boost of text": (lambda: boost("a", "4"), "is a number, not str"),
    "boost of numpy's True": (lambda: boost("a", np.True_), "is a number, not bool"),
    "boost of nothing": (lambda: boost("a", None), "boost needs an amount: a factor on the odds"),
    "share of nothing": (lambda: Mark(Quote("a"), "share"), "share needs an amount: a share, 0 to 1"),
    "damp that strengthens": (lambda: damp("a", 2), "between 0 and 1, not 2", "use boost"),
    "damp to nothing": (lambda: damp("a", 0), "between 0 and 1, not 0", "to remove use mute"),
    "share above all": (lambda: share("a", 1.5), "between 0 and 1, not 1.5", "use boost or damp"),
    "share below none": (lambda: share("a", -0.1), "between 0 and 1, not -0.1"),
    "mute by much": (lambda: Mark(Quote("a"), "mute", 2), "mute takes no amount", "use damp"),
    "unknown action": (lambda: Mark(Quote("a"), "bost", 2), "no such action: did you mean boost?"),
    "action that is none": (lambda: Mark(Quote("a"), [], 2), "no such action: there is boost, damp, share, mute"),
    "unknown field": (lambda: boost("a", 2, layer=[1]), "boost takes no 'layer': did you mean layers?"),
    "place that is none": (lambda: boost(3, 2), "a mark is on words", "not on int"),
    "place of three": (lambda: boost((1, 2, 3), 2), "not on tuple"),
    "scope that is none": (lambda: Mark(Quote("a"), "mute", None, scope={}), "the scope is a Scope, not dict"),
    "author that is none": (lambda: mute("a", author=None), "the author is text, not nothing"),
    "half a letter": (lambda: mute("a", reason="\ud800"), "the reason holds half a character"),
    "date of another kind": (lambda: mute("a", date="yesterday"), "the date 'yesterday' is not ISO 8601", "2026-"),
    "empty quote": (lambda: mute(" \n"), "the quote is empty"),
    "quote of bytes": (lambda: mute(Quote(b"a")), "the quote is text, not bytes"),
    "occurrence 0": (lambda: Quote("a", 0), "counts from 1", "every=True"),
    "occurrence -1": (lambda: Quote("a", -1), "the occurrence is -1: it counts from 0"),
    "occurrence True": (lambda: Quote("a", True), "the occurrence is a whole number, not bool"),
    "every and one": (lambda: Quote("a", 1, every=True), "choose one of them"),
    "every of 1": (lambda: Quote("a", every=1), "every is true or false, not int"),
    "span of nothing": (lambda: mute((5, 5)), "characters 5 to 5 hold nothing"),
    "span backwards": (lambda: mute((9, 5)), "characters 9 to 5 hold nothing"),
    "span before the text": (lambda: mute((-1, 5)), "the start is -1: it counts from 0"),
    "span of halves": (lambda: mute((0.0, 5)), "the start is a whole number, not float"),
    "span beyond numbers": (lambda: mute((0, 10**5000)), "the end is too large"),
    "span with a wrong quote": (lambda: Span(0, 1, 3), "the quote is text, not int"),
    "box outside": (lambda: Box(0, 0, 1.5, 1), "the right of the box is 1.5", "fraction"),
    "box of nothing": (lambda: Box(0.5, 0, 0.5, 1), "box 0.5, 0 to 0.5, 1 holds nothing"),
    "box of NaN": (lambda: Box(0, NAN, 1, 1), "the top of the box is nan"),
    "time backwards": (lambda: Time(2, 1), "2 to 1 s hold nothing"),
    "time before the sound": (lambda: Time(-1, 1), "-1 to 1 s hold nothing: the start is 0 or later"),
    "no slots": (lambda: Slots([]), "slots are an empty list"),
    "slot of minus": (lambda: Slots([-1]), "a slot is -1: it counts from 0"),
    "slots without end": (lambda: Slots(count()), f"slots are more than {MOST:,}"),
    "slots of text": (lambda: Slots("12"), "slots are a list, not str"),
    "unknown role": (lambda: Scope(role="selv"), "no such role: it is self, cross or encoder"),
    "role of a list": (lambda: Scope(role=[]), "no such role"),
    "one layer": (lambda: Scope(layers=3), "layers are a list, not int"),
    "layer True": (lambda: Scope(layers=[True]), "a layer is a whole number, not bool"),
    "heads alone": (lambda: Scope(heads=[3]), "heads are pairs (layer, head)"),
    "heads and layers": (lambda: Scope(heads=[(1, 2)], layers=[1]), "heads already name their layers"),
    "heads and a set": (lambda: Scope(heads=[(1, 2)], head_set="a"), "heads already name their layers"),
    "head of minus": (lambda: Scope(heads=[(1, -2)]), "a head is -2: it counts from 0"),
    "queries of one": (lambda: Scope(queries=(3,)), "queries are a pair (first, end)"),
    "queries backwards": (lambda: Scope(queries=(5, 2)), "queries 5 to 2 hold nothing"),
    "steps of none": (lambda: Scope(steps=(None, 0)), "steps 0 to 0 hold nothing"),
    "steps of minus": (lambda: Scope(steps=(-3, None)), "a side of steps is -3"),
    "head set without a name": (lambda: Scope(head_set=" "), "the head set has no name"),
}  # fmt: skip


@pytest.mark.parametrize("case", HOSTILE)
def test_a_wrong_mark_gets_a_clear_word(case):
    make, *told = HOSTILE[case]
    refused(make, *told)


GOOD = {"where": {"kind": "span", "start": 0, "end": 3}, "action": "mute"}
WRONG_DATA = {
    "unknown field": ({**GOOD, "acton": 1}, "a mark has no 'acton': did you mean action?"),
    "unknown far field": ({**GOOD, "zzz": 1}, "has no 'zzz': there is where, action, amount"),
    "a field of an endless name": ({**GOOD, "x" * 10**6: 1}, "a mark has no 'xxxx"),
    "no action": ({"where": "a"}, "a mark has no 'action', which it needs"),
    "no kind": ({**GOOD, "where": {"start": 0}}, "where has no such kind: there is quote, span"),
    "unknown kind": ({**GOOD, "where": {"kind": "spam"}}, "where has no such kind: did you mean span?"),
    "kind of a list": ({**GOOD, "where": {"kind": []}}, "where has no such kind"),
    "unknown field of where": ({**GOOD, "where": {**GOOD["where"], "stat": 0}}, "a span has no 'stat'", "start"),
    "no end": ({**GOOD, "where": {"kind": "span", "start": 0}}, "a span has no 'end', which it needs"),
    "where of a list": ({**GOOD, "where": [0, 3]}, "where, if not an object, is text, not list"),
    "scope of text": ({**GOOD, "scope": "all"}, "the scope is an object with role, layers", "not str"),
    "unknown field of scope": ({**GOOD, "scope": {"layer": [1]}}, "the scope has no 'layer': did you mean layers?"),
    "amount of text": ({**GOOD, "action": "boost", "amount": "2"}, "the amount of boost is a number, not str"),
    "true": ({**GOOD, "where": {"kind": "span", "start": True, "end": 3}}, "the start is a whole number, not bool"),
    "newer": ({**GOOD, "version": 2}, "a newer recuerdo (version 2) wrote the mark: update recuerdo"),
    "no version": ({**GOOD, "version": "1"}, "the version of the mark is no version: it is 1"),
    "no object": (3, "a mark is an object with where, action", "not int"),
}


@pytest.mark.parametrize("case", WRONG_DATA)
def test_wrong_data_get_a_clear_word(case):
    data, *told = WRONG_DATA[case]
    refused(lambda: Mark.from_data(data), *told)
    refused(lambda: as_marks([GOOD, data]), "mark 2 of 2: ", *told)


def test_lists_of_marks_are_taken_in_every_form():
    mark = Mark.from_data(GOOD)
    for form in (mark, [mark], (mark,), iter([mark]), GOOD, [GOOD], {"version": 1, "marks": [GOOD]}, {"marks": [mark]}):
        assert as_marks(form) == (mark,)
    assert as_marks([]) == ()
    refused(lambda: as_marks("key"), "marks are a list of marks, not str", "boost('words', 4)")
    refused(lambda: as_marks(3), "not int")
    refused(lambda: as_marks({"marks": 3}), "not int")
    refused(lambda: as_marks({"marks": [], "vers": 1}), "marks as data have no 'vers': did you mean version?")
    refused(lambda: as_marks({"marks": [], "version": 7}), "a newer recuerdo (version 7) wrote the marks: update")


def test_a_million_marks_are_refused_at_once():
    began = time.process_time()
    refused(lambda: as_marks([GOOD] * 10**6), "1,000,000 marks: at most 10,000 at once")
    refused(lambda: as_marks(GOOD for _ in count()), "too many marks: at most 10,000 at once")
    assert time.process_time() - began < 1
    assert len(as_marks([GOOD] * MOST)) == MOST


def test_marks_are_read_from_files_and_text(tmp_path):
    said = [boost("key", 2), mute((1, 3))]
    file = tmp_path / "marks.json"
    file.write_text("\ufeff" + json.dumps(marks_as_data(said)), encoding="utf-8")
    assert read_marks(file) == read_marks(str(file)) == tuple(said)
    assert read_marks(f"  {json.dumps([said[0].to_data()])}") == (said[0],)
    refused(lambda: read_marks(tmp_path / "none.json"), "marks cannot be read from", "No such file")
    refused(lambda: read_marks(""), "marks cannot be read from")
    refused(lambda: read_marks("a\0b"), "marks cannot be read from 'a\\x00b'")
    refused(lambda: read_marks('[{"where": '), "the marks are not JSON (Expecting value")
    refused(lambda: read_marks("[" * 10**6), "are not JSON")
    refused(lambda: read_marks('[{"where": "a", "action": "boost", "amount": 1e999}]'), "mark 1 of 1", "is inf")
    refused(lambda: read_marks('[{"where": "a", "action": "boost", "amount": NaN}]'), "mark 1 of 1", "is nan")
    file.write_bytes(b"\xff\xfe")
    refused(lambda: read_marks(file), "is not UTF-8 text")


# -------------------------------------------------------------------------------------------------------- in the text


def test_marks_find_their_characters():
    said = [
        mute("blue"),
        mute(Quote("the gate", 2)),
        mute(Quote("key", every=True)),
        mute((4, 7)),
        mute(Span(4, 7, "red")),
    ]
    found = spans_of(said, TEXT)
    assert found == [[(32, 36)], [(61, 69)], [(8, 11), (37, 40)], [(4, 7)], [(4, 7)]]
    assert [[TEXT[a:b] for a, b in spans] for spans in found[1:3]] == [["the gate"], ["key", "key"]]
    assert spans_of(mute("."), "a.b") == [[(1, 2)]]  # a quote is no pattern
    assert spans_of([mute(Box(0, 0, 1, 1)), mute(Slots([1])), mute(Time(0, 1))], TEXT) == [[], [], []]


IN_TEXT = {
    "ambiguous": (mute("key"), "'key' stands 2 times", "occurrence", "quote more"),
    "no such occurrence": (mute(Quote("key", 3)), "'key' stands 2 times", "no occurrence 3"),
    "not there": (mute("green key"), "'green key' is not in the text: copy the words"),
    "other case": (mute("the RED door"), "did you mean 'the red door', at character 47?"),
    "other spaces": (mute("opens \n the gate"), "did you mean 'opens the gate', at character 12?"),
    "every one of none": (mute(Quote("green", every=True)), "'green' is not in the text"),
    "out of range": (mute((70, 90)), f"ends at character 90, and the text has {len(TEXT)}", "another text"),
    "another text": (mute(Span(4, 7, "key")), "characters 4 to 7 are 'red' here, not 'key'", "made on another text"),
    "another length": (mute(Span(4, 7, "red key")), "made on another text"),
}


@pytest.mark.parametrize("case", IN_TEXT)
def test_a_mark_that_does_not_fit_its_text_is_refused(case):
    mark, *told = IN_TEXT[case]
    refused(lambda: spans_of(mark, TEXT), *told)


def test_a_copied_quote_is_found_in_spite_of_its_typography():
    refused(
        lambda: spans_of(mute('"don\'t" - now'), "He said “don’t” — now."),
        "did you mean '“don’t” — now', at character 8?",
    )
    long = "word " * 60
    refused(lambda: spans_of(mute(long + "end"), long + "and"), "only its beginning is, at character 0")


@settings(deadline=None, max_examples=100)
@given(st.text("ab \n", max_size=30), st.text("ab ", min_size=1, max_size=4).filter(str.strip))
def test_what_is_found_is_what_was_quoted(text, quote):
    if quote not in text:
        refused(lambda: spans_of(mute(quote), text), "is not in the text")
        return
    (every,) = spans_of(mute(Quote(quote, every=True)), text)
    assert len(every) == text.count(quote)
    assert all(text[start:end] == quote for start, end in every)
    assert [spans_of(mute(Quote(quote, i)), text)[0][0] for i in range(1, len(every) + 1)] == every
    if len(every) == 1:
        assert spans_of(mute(quote), text) == [every]


# ----------------------------------------------------------------------------------------------------------- overlaps


def checked(*said: Mark) -> None:
    check_overlaps(said, spans_of(said, TEXT))


def test_marks_on_one_another_are_refused_where_their_reads_meet():
    told = refused(lambda: checked(boost("red key opens", 2), mute("blue"), damp((8, 14), 0.5)), "lie on one another")
    assert "boost x2 'red key opens', and damp x0.5 characters 8 to 14" in told
    refused(lambda: checked(mute("blue"), mute("blue")), "mute 'blue', and mute 'blue'")
    refused(lambda: checked(mute("blue", role="self"), boost("blue key", 2, layers=[3])), "lie on one another")
    checked(mute("blue", role="self"), boost("blue key", 2, role="cross"))
    checked(mute((0, 4)), boost((4, 8), 2))  # side by side
    checked(boost((0, 80), 2, layers=[0]), *(mute((i, i + 1), layers=[1]) for i in range(50)), mute((3, 9), layers=[2]))
    refused(
        lambda: checked(boost((0, 80), 2), mute((1, 2), layers=[1]), mute((60, 61), role="self")), "and mute charac"
    )
    one = mute("blue")
    check_overlaps([one], [[(0, 3), (2, 5)]])  # two tokens of one mark may share a letter


MEETS = [
    ({}, {"layers": [1]}, True),
    ({"role": "self"}, {"role": "cross"}, False),
    ({"role": "self"}, {"layers": [1]}, True),
    ({"layers": [1, 2]}, {"layers": [2, 3]}, True),
    ({"layers": [1, 2]}, {"layers": [3]}, False),
    ({"layers": [-1]}, {"layers": [-2]}, False),
    ({"layers": [-1]}, {"layers": [5]}, True),  # only a model knows
    ({"heads": [(1, 2)]}, {"heads": [(1, 3)]}, False),
    ({"heads": [(1, 2)]}, {"heads": [(1, 2), (4, 4)]}, True),
    ({"heads": [(-1, 2)]}, {"heads": [(5, 2)]}, True),
    ({"heads": [(-1, 2)]}, {"heads": [(5, 3)]}, False),
    ({"heads": [(1, 2)]}, {"layers": [1]}, True),
    ({"heads": [(1, 2)]}, {"layers": [2]}, False),
    ({"heads": [(1, 2)]}, {"head_set": "copy"}, True),
    ({"head_set": "copy"}, {"head_set": "names"}, True),
    ({"queries": (0, 5)}, {"queries": (5, None)}, False),
    ({"queries": (0, 5)}, {"queries": (4, None)}, True),
    ({"queries": (3, None)}, {"queries": (None, 3)}, False),
    ({"steps": (0, 1)}, {"steps": (1, 9)}, False),
    ({"steps": (0, 1)}, {"queries": (1, 9)}, True),
]


@pytest.mark.parametrize(("mine", "others", "met"), MEETS)
def test_scopes_meet_where_one_read_can_be_in_both(mine, others, met):
    assert Scope(**mine).meets(Scope(**others)) == Scope(**others).meets(Scope(**mine)) == met


@settings(deadline=None, max_examples=200)
@given(st.lists(st.tuples(st.integers(0, 30), st.integers(1, 6), st.integers(0, 2)), max_size=8))
def test_overlaps_are_found_as_by_comparing_all_with_all(said):
    listed = [mute((start, start + size), layers=[layer]) for start, size, layer in said]
    spans = [[(start, start + size)] for start, size, _ in said]
    lie = any(a[0] < b[0] + b[1] and b[0] < a[0] + a[1] and a[2] == b[2] for i, a in enumerate(said) for b in said[:i])
    if lie:
        refused(lambda: check_overlaps(listed, spans), "lie on one another")
    else:
        check_overlaps(listed, spans)


def test_many_marks_are_compared_quickly():
    said = [mute((2 * i, 2 * i + 1)) for i in range(MOST - 1)]
    whole = boost((0, 2 * MOST), 2, layers=[0])
    began = time.process_time()
    check_overlaps(said, spans_of(said, "w" * 2 * MOST))
    apart = [replace(mark, scope=Scope(layers=[1])) for mark in said]
    check_overlaps([whole, *apart], spans_of([whole, *apart], "w" * 2 * MOST))
    assert time.process_time() - began < 2
    heads = [mute((0, 5), heads=[(i, 0)]) for i in range(MOST_SCOPES + 2)]
    refused(lambda: check_overlaps(heads, [[(0, 5)]] * len(heads)), "more than 1,024 scopes lie on one place", "in one")


def test_errors_of_marks_are_ours():
    assert issubclass(MarkError, RecuerdoError)
    assert issubclass(MarkError, ValueError)
