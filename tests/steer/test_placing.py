"""Marks on words become marks on tokens: blanks, parts of words, a document inside a prompt, and what cannot be placed."""

import re
import time

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from recuerdo.errors import MarkError
from recuerdo.steer import Box, Slots, Span, boost, mute, share
from recuerdo.steer.marks import MOST, Quote
from recuerdo.steer.placing import on_prompt, on_slots, on_tokens, runs

TEXT = "The lamp is red. The door is green."
# As a byte-level tokenizer cuts it: the blank belongs to the word behind it.
OFFSETS = [(m.start(), m.end()) for m in re.finditer(r" ?\w+|\.", TEXT)]
PIECES = [TEXT[a:b] for a, b in OFFSETS]
LETTERS = [(i, i + 1) for i in range(len(TEXT))]


def pieces(mark, text: str = TEXT, offsets=OFFSETS, **options) -> list[str]:
    """The tokens that a mark is on, as text."""
    (keys,) = on_tokens([mark], text, offsets, **options)
    assert keys.shape == (len(offsets),)
    assert keys.dtype == torch.bool
    return [text[a:b] for (a, b), marked in zip(offsets, keys.tolist(), strict=True) if marked]


@pytest.mark.parametrize(
    ("where", "found"),
    [
        ("lamp", [" lamp"]),
        (" lamp", [" lamp"]),
        ("lamp ", [" lamp"]),  # the blank behind belongs to the next token, which nobody marked
        ("lamp is", [" lamp", " is"]),
        ("am", [" lamp"]),  # a part of a word is the word
        ("p is r", [" lamp", " is", " red"]),
        ("red.", [" red", "."]),
        ("red. ", [" red", "."]),
        (". T", [".", " The"]),
        (Quote("The", occurrence=1), ["The"]),
        (Quote("The", occurrence=2), [" The"]),
        (Quote("is", every=True), [" is", " is"]),
        (Span(0, 1), ["The"]),
        (Span(4, 5), [" lamp"]),
        (Span(len(TEXT) - 1, len(TEXT)), ["."]),
        (Span(0, len(TEXT)), PIECES),
    ],
)
def test_a_token_is_marked_when_a_visible_letter_of_it_is(where, found):
    assert pieces(mute(where)) == found


@pytest.mark.parametrize("where", [Span(3, 4), Span(16, 17)])
def test_a_mark_on_blanks_alone_is_refused(where):
    with pytest.raises(MarkError) as caught:
        on_tokens([mute(where)], TEXT, OFFSETS)
    assert str(caught.value) == (f"the mark mute {where} holds no token of the text: mark at least one letter of it")


def test_words_that_no_token_stands_for_are_refused():
    """A tokenizer that was cut off at the end of its length."""
    with pytest.raises(MarkError, match="'green' holds no token of the text"):
        on_tokens([boost("green", 2)], TEXT, OFFSETS[:5])


def test_special_tokens_and_blank_tokens_are_never_marked():
    """Their offsets are empty, or hold nothing that can be seen."""
    offsets = [(0, 0), *OFFSETS[:4], (16, 17), (0, 0), (len(TEXT), len(TEXT))]
    (keys,) = on_tokens([mute(Span(0, len(TEXT)))], TEXT, offsets)
    assert keys.tolist() == [False, True, True, True, True, False, False, False]


def test_every_piece_of_a_letter_is_marked():
    """Byte-level tokens of one letter share its characters."""
    text, offsets = "a 😀 b", [(0, 1), (1, 3), (2, 3), (2, 3), (3, 5)]
    (keys,) = on_tokens([mute("😀")], text, offsets)
    assert keys.tolist() == [False, True, True, True, False]


def test_several_marks_each_get_their_own_tokens():
    keys = on_tokens([boost("red", 2), mute("door"), share(Quote("is", every=True), 0.2)], TEXT, OFFSETS)
    assert [[PIECES[i] for i in k.nonzero()[:, 0].tolist()] for k in keys] == [[" red"], [" door"], [" is", " is"]]


def test_marks_count_their_characters_in_the_document():
    """A chat template stands around the text, and may have stripped the blanks around it."""
    before, behind = "<|user|>\nThe door is what? ", "\n\nWhich door?<|end|>"
    prompt, place = before + TEXT + behind, (len(before), len(before) + len(TEXT))
    offsets = [(m.start(), m.end()) for m in re.finditer(r" ?\w+|[^\w ]", prompt)]
    (keys,) = on_tokens([mute("door")], prompt, offsets, document=place)  # "door" stands three times in the prompt
    (at,) = keys.nonzero()[:, 0].tolist()
    assert prompt[slice(*offsets[at])] == " door"
    assert offsets[at][0] == len(before) + TEXT.index(" door")
    (first,) = on_tokens([mute(Span(0, 3, "The"))], prompt, offsets, document=place)
    assert offsets[int(first.nonzero())][0] == len(before) - 1  # its token begins with the blank before the document


@pytest.mark.parametrize("lead", ["", " ", "\n\t "])
@pytest.mark.parametrize("tail", ["", " \n"])
def test_a_prompt_may_have_lost_the_blanks_around_the_text(lead, tail):
    """Marks count in the text that was given; the blanks at its ends never reached the model."""
    given, prompt = lead + TEXT + tail, f"<user>{TEXT} door<end>"
    offsets = [(m.start(), m.end()) for m in re.finditer(r"(?:>| )?\w+|[^\w ]", prompt)]
    at = given.index("door")
    marks = [
        mute(Span(at, at + 4, "door")),
        mute(Quote("is", occurrence=2)),
        mute(Span(0, len(lead) + 3)),
        mute("green"),
    ]
    keys = on_prompt(marks, given, prompt, offsets, (6, 6 + len(TEXT)))
    found = [[prompt[slice(*offsets[i])] for i in some.nonzero()[:, 0].tolist()] for some in keys]
    assert found == [[" door"], [" is"], [">The"], [" green"]]  # a token may begin in the template
    assert offsets[int(keys[0].nonzero())][0] == 6 + TEXT.index(" door")


def test_words_outside_of_the_document_cannot_be_marked():
    prompt = "Listen! " + TEXT
    offsets = [(m.start(), m.end()) for m in re.finditer(r" ?\w+|[^\w ]", prompt)]
    with pytest.raises(MarkError, match="^'Listen' is not in the text: "):
        on_tokens([mute("Listen")], prompt, offsets, document=(8, len(prompt)))
    with pytest.raises(MarkError) as caught:
        on_tokens([mute(Span(30, 40))], prompt, offsets, document=(8, len(prompt)))
    assert str(caught.value) == "the mark ends at character 40, and the text has 35: it was made on another text"


def test_a_mark_of_another_text_is_refused():
    with pytest.raises(MarkError) as caught:
        on_tokens([mute(Span(4, 8, "door"))], TEXT, OFFSETS)
    assert str(caught.value) == "characters 4 to 8 are 'lamp' here, not 'door': the mark was made on another text"


@pytest.mark.parametrize(
    ("first", "second"),
    [(mute("lamp"), boost("lamp is", 2)), (mute(Span(4, 6)), boost(Span(6, 8), 2)), (mute("The lamp is"), mute("am"))],
)
def test_marks_that_meet_on_a_token_are_refused(first, second):
    """Also where they share no character: one key has one wish."""
    with pytest.raises(MarkError) as caught:
        on_tokens([first, second], TEXT, OFFSETS)
    assert str(caught.value) == (
        f"two marks lie on one another: {first}, and {second}. Keep one of them, or give them scopes that do not meet"
    )


def test_marks_on_one_token_whose_scopes_do_not_meet_are_fine():
    keys = on_tokens([mute("lamp", layers=[0]), boost("lamp", 2, layers=[1])], TEXT, OFFSETS)
    assert torch.equal(*keys)


def test_marks_on_anything_else_get_no_token():
    assert pieces(mute(Slots((1, 2)))) == []
    assert pieces(mute(Box(0, 0, 1, 1))) == []


def test_ten_thousand_marks_are_placed_in_time():
    text = "ab " * MOST
    marks = [mute(Span(3 * i, 3 * i + 2)) for i in range(0, MOST, 20)]
    start = time.monotonic()
    keys = on_tokens(marks, text, [(3 * i, 3 * i + 2) for i in range(MOST)])
    assert time.monotonic() - start < 20
    assert [int(k.nonzero()) for k in keys] == list(range(0, MOST, 20))


@given(st.lists(st.booleans(), max_size=40))
def test_runs_are_where_it_is_true(marked):
    found = runs(torch.tensor(marked, dtype=torch.bool))
    again = torch.zeros(len(marked), dtype=torch.bool)
    for start, end in found:
        assert start < end
        again[start:end] = True
    assert again.tolist() == marked
    assert all(a[1] < b[0] for a, b in zip(found, found[1:], strict=False))


@given(st.sets(st.integers(0, len(TEXT) - 1), min_size=1, max_size=5))
def test_placing_is_its_definition(starts):
    """Each mark on one letter: the tokens are those whose visible characters hold it."""
    for at in starts:
        if not TEXT[at].isspace():
            want = [i for i, (a, b) in enumerate(OFFSETS) if a <= at < b]
            (keys,) = on_tokens([mute(Span(at, at + 1))], TEXT, OFFSETS)
            assert keys.nonzero()[:, 0].tolist() == want


def test_slots_are_keys():
    assert on_slots(Slots((3, 1))).tolist() == [False, True, False, True]
