"""Subwords: any text comes back, no text is unknown, and no text can say a mark."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recuerdo.data.subwords import BEGIN, END, LEAST, PAD, Subwords
from recuerdo.data.wording import Worded, owners
from recuerdo.errors import InputError

TOWN = ["the library closes at six .", "the bakery opens at six .", "who has the key of the library ?"] * 5


@pytest.fixture(scope="module", params=[False, True], ids=["written", "tokenised"])
def tokenised(request):
    return request.param


@pytest.fixture(scope="module")
def cut(tokenised):
    return Subwords.learn(TOWN, LEAST + 60, tokenised=tokenised)


@settings(max_examples=200, deadline=None)
@given(text=st.text(max_size=60))
def test_any_text_comes_back(cut, text):
    from unicodedata import normalize

    (ids,) = cut.encode([text])
    assert ids[-1] == END
    assert not {PAD, BEGIN, END} & set(ids[:-1])
    assert max(ids) < len(cut)
    # Blanks of the line are one blank each, and the form of letters is NFC.
    assert cut.decode(ids) == normalize("NFC", " ".join(text.split())).strip()


@settings(max_examples=100, deadline=None)
@given(words=st.lists(st.text(st.characters(blacklist_categories=("Z", "C")), min_size=1, max_size=6), max_size=6))
def test_each_piece_belongs_to_the_word_that_it_is_of(cut, words):
    line = " ".join(words)
    told = Worded.by_blanks(line)
    of = [its[0] if its else -1 for its in owners(cut.ends(told.text), told)]
    (ids,) = cut.encode([line])
    assert len(of) == len(ids)
    assert of[-1] == -1
    assert of[:-1] == sorted(of[:-1])
    assert set(of[:-1]) == set(range(len(told.spans)))
    for number, word in enumerate(told.words):
        if word.isascii():
            assert cut.decode([i for i, owner in zip(ids, of, strict=True) if owner == number]) == word


@settings(max_examples=100, deadline=None)
@given(text=st.text(max_size=40))
def test_strange_are_letters_that_no_text_had(cut, text):
    strange = cut.strange(text)
    assert strange <= set(text)
    assert not any(map(str.isascii, strange))


def test_strange_letters_by_name(cut):
    assert cut.strange("the key 😀 of the bakerй") == {"😀", "й"}
    assert Subwords.learn(["l’été a été"] * 20, LEAST + 20).strange("l’été à six") == {"à"}


@pytest.mark.parametrize("ask", [lambda cut, text: cut.encode([text]), lambda cut, text: cut.strange(text)])
def test_half_letters_are_no_text(cut, ask):
    with pytest.raises(InputError, match="the text is not UTF-8: convert it, such as with iconv"):
        ask(cut, b"caf\xe9".decode("utf-8", "surrogateescape"))


def test_marks_are_no_text(cut):
    (ids,) = cut.encode(["<s> </s> <pad>"])
    assert not {PAD, BEGIN, END} & set(ids[:-1])
    assert cut.decode(ids) == "<s> </s> <pad>"
    assert cut.decode([BEGIN, PAD, *ids, 7, 8]) == "<s> </s> <pad>"


def test_of_tokenised_text_a_piece_may_have_letters_and_punctuation():
    lines = ["the mayor &apos;s key", "l&apos; horloge de la place", "d&apos; un coup"] * 5
    apart, together = (Subwords.learn(lines, LEAST + 60, tokenised=tokenised) for tokenised in (False, True))
    assert len(together.encode(["l&apos; horloge"])[0]) == 3
    assert len(apart.encode(["l&apos; horloge"])[0]) > 4


def test_what_is_frequent_is_one_piece_and_the_same_lines_give_the_same(cut, tokenised):
    assert len(cut.encode(["the library"])[0]) == 3
    again = Subwords.learn(TOWN, LEAST + 60, tokenised=tokenised)
    assert again.told == cut.told
    assert Subwords(cut.told).encode(TOWN) == cut.encode(TOWN)
    assert len(cut) <= LEAST + 60


@pytest.mark.parametrize("told", ["", "{}", "[]", json.dumps({"model": {"vocab": {"a": 0}}}), "no json"])
def test_what_are_no_subwords(told):
    with pytest.raises(InputError, match="these are no subwords"):
        Subwords(told)


def test_fewer_pieces_than_bytes():
    with pytest.raises(InputError, match=f"subwords are {LEAST} pieces or more"):
        Subwords.learn(TOWN, 100)
