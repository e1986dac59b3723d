"""Markup: what people write as marks becomes marks, and ordinary text stays as it is, to the letter."""

import time

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from recuerdo.errors import MarkError
from recuerdo.steer import escape_markup, parse_markup, spans_of
from recuerdo.steer.marks import MOST
from recuerdo.steer.markup import EMPHASIS

ORDINARY = [
    "(see page 3)", "2 * 3 * 4", "f(x)", "time (10:30)", "* bullet\n* another", "**bold** and ***more***", "",
    "(John 3:16)", "(3:2)", "(10:30:2)", "(note: 5)", "(note :5)", "(host:8080)", "(tel:555)", "(x:-1)", "(agent:007)",
    "(x:1e3)", "(x:1.)", "(x:nan)", "(:2)", "(: 2)", "( x:2)", "f(x:2)", "a_(x:2)", "[mail](to:2)", ":-) :(", "(x:2",
    "x:2)", "(a\n\nb:2)", "(a\n  \nb:2)", "(a (b) c:1.5)", "2*3*4", "a*b*c*", "*a*b*c*", "5* hotel, 4* hotel",
    "*.txt, *.md", "*.txt,*.md", "f(*args, **kwargs)", "char *p; int *q;", "a *= 3; b *= 2", "/* code */", "/*code*/",
    "*a\nb*", "* a *", "*a *", "* a*", "the star * alone", "C:\\dir\\file", "\\\\server", "\\n", "ends in \\", "*", "**",
]  # fmt: skip
MARKED = {
    "(red key:1.3)": ("red key", [(0, 7, "boost", 1.3)]),
    "(red key:0.2)": ("red key", [(0, 7, "damp", 0.2)]),
    "(red key:.5)": ("red key", [(0, 7, "damp", 0.5)]),
    "(red key:0)": ("red key", [(0, 7, "mute", None)]),
    "(red key:0.0)": ("red key", [(0, 7, "mute", None)]),
    "(red key:99.9)": ("red key", [(0, 7, "boost", 99.9)]),
    "(red key:1)": ("red key", []),
    "(red key:1.00)": ("red key", []),
    "*red key*": ("red key", [(0, 7, "boost", EMPHASIS)]),
    "The *red* key, (the blue:2) one.": ("The red key, the blue one.", [(4, 7, "boost", 4), (13, 21, "boost", 2)]),
    "(a:2)(b:3)": ("ab", [(0, 1, "boost", 2), (1, 2, "boost", 3)]),
    "((b:2))": ("(b)", [(1, 2, "boost", 2)]),
    "(see (b:2) there)": ("(see b there)", [(5, 6, "boost", 2)]),
    "(a\nb:2)": ("a\nb", [(0, 3, "boost", 2)]),
    "(at 10:30 sharp:2)": ("at 10:30 sharp", [(0, 14, "boost", 2)]),
    "*page 3*, *Stop!*": ("page 3, Stop!", [(0, 6, "boost", 4), (8, 13, "boost", 4)]),
    '"*a*" (*b*) *c*.': ('"a" (b) c.', [(1, 2, "boost", 4), (5, 6, "boost", 4), (8, 9, "boost", 4)]),
    "*see (b:2)*": ("see (b:2)", [(0, 9, "boost", 4)]),  # marks do not nest
    "(*b*:2)": ("*b*", [(0, 3, "boost", 2)]),
    "我喜欢(猫:1.5)和*狗*吧": ("我喜欢猫和狗吧", [(3, 4, "boost", 1.5), (5, 6, "boost", 4)]),
    "été (été:2)": ("été été", [(4, 7, "boost", 2)]),
    r"\(red:2)": ("(red:2)", []),
    r"(red\:2)": ("(red:2)", []),
    r"(red:2\)": ("(red:2)", []),
    r"\*red\* \: \(": ("*red* : (", []),
    r"(a\) b\*:2)": ("a) b*", [(0, 5, "boost", 2)]),
    r"*a\*b*": ("a*b", [(0, 3, "boost", 4)]),
    r"\\(red:2)": (r"\(red:2)", []),
}


@pytest.mark.parametrize("text", ORDINARY)
def test_ordinary_text_survives(text):
    assert parse_markup(text) == (text, [])


@pytest.mark.parametrize("text", MARKED)
def test_markup_becomes_marks(text):
    plain, wanted = MARKED[text]
    found, marks = parse_markup(text)
    assert found == plain
    assert [(m.where.start, m.where.end, m.action, m.amount) for m in marks] == wanted
    assert spans_of(marks, plain) == [[(start, end)] for start, end, *_ in wanted]  # each keeps its quote
    assert all(m.where.quote == plain[m.where.start : m.where.end] for m in marks)


@settings(deadline=None, max_examples=200)
@given(st.text(st.characters(exclude_characters="()*\\")))
def test_text_without_signs_is_unchanged(text):
    assert parse_markup(text) == (text, [])


signs = st.text(st.sampled_from("()*:\\ab1. \n"))


@settings(deadline=None, max_examples=500)
@given(st.one_of(signs, st.text()))
@example("\\")
@example("\\\\(a:2)")
@example("\\:\\)")
def test_what_is_escaped_comes_back(text):
    assert parse_markup(escape_markup(text)) == (text, [])


@settings(deadline=None, max_examples=300)
@given(signs, signs, st.integers(2, 99))
def test_escaped_words_can_be_marked(before, words, factor):
    """Any words that begin and end as words do can stand inside a mark."""
    words = f"w{words.replace(chr(10), ' ')}w"
    plain, marks = parse_markup(f"{escape_markup(before)} ({escape_markup(words)}:{factor})")
    assert plain == f"{before} {words}"
    assert [(m.where.quote, m.amount) for m in marks] == [(words, factor)]


@settings(deadline=None, max_examples=500)
@given(st.text(st.sampled_from("()*:\\a2. \n")))
def test_whatever_is_written_the_marks_fit_the_text(text):
    plain, marks = parse_markup(text)
    assert len(plain) <= len(text)
    spans = [span for (span,) in spans_of(marks, plain)]
    assert all(a[1] <= b[0] for a, b in zip(spans, spans[1:], strict=False))


@pytest.mark.parametrize("unit", ["(", "*a ", "(a", "(a)", r"\(", "(a:", "*a", "\\", "a:", "*\n", "((a:2"])
def test_long_texts_take_linear_time(unit):
    began = time.process_time()
    parse_markup("(" + unit * 50_000 + ")")
    assert time.process_time() - began < 2


def test_too_many_marks_are_refused():
    assert len(parse_markup("(a:2)" * MOST)[1]) == MOST
    with pytest.raises(MarkError, match="^the text holds more than 10,000 marks: at most 10,000 at once$"):
        parse_markup("(a:2)" * (MOST + 1))
