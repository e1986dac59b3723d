"""Words by rule become sentences as people write them, and each word is found again."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recuerdo.data.subwords import LEAST, Subwords
from recuerdo.data.wording import Worded, as_written, owners, plainly

WORDS = st.lists(
    st.sampled_from(
        [
            "de",
            "le",
            "les",
            "à",
            "que",
            "il",
            "si",
            "ami",
            "faire",
            "tour",
            "'s",
            ",",
            ".",
            "(",
            "Ce",
            "été",
            "é",
            "x-1",
        ]
    ),
    min_size=1,
    max_size=12,
)


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ("le établissement de une ferme", "L'établissement d'une ferme"),
        ("revenons à le projet de les hommes", "Revenons au projet des hommes"),
        ("à le aide de le ami", "À l'aide de l'ami"),
        ("il est temps de le faire", "Il est temps de le faire"),
        ("la fin de le premier jour", "La fin du premier jour"),
        ("que il vienne , si il veut", "Qu'il vienne, s'il veut"),
        ("le huit à la hausse", "Le huit à la hausse"),
        ("aujourd' hui , ( oui ) !", "Aujourd'hui, (oui) !"),
        ("Ce est cela", "C'est cela"),
    ],
)
def test_french_as_it_is_written(words, text):
    told = as_written(words.split(), french=True)
    assert told.text == text
    assert len(told.spans) == len(words.split())


def test_words_that_are_written_as_one_stand_at_one_place():
    told = as_written(["vers", "le", "fin", "de", "le", "mois"], french=True)
    assert told.words == ["Vers", "le", "fin", "du", "du", "mois"]


def test_english_and_what_a_tokeniser_leaves():
    assert (
        as_written(["oh", ",", "Canada", "'s", "(", "old", ")", "oak", "!"], french=False).text
        == "Oh, Canada's (old) oak!"
    )
    told = as_written(["le", "homme", "dit", ":", '"'], french=True, tokenised=True)
    assert told.text == "l&apos; homme dit : &quot;"
    assert told.words == ["l&apos;", "homme", "dit", ":", "&quot;"]
    assert as_written([], french=True) == Worded("", ())


@given(WORDS, st.booleans(), st.booleans())
def test_every_word_is_found_again(words, french, tokenised):
    told = as_written(words, french=french, tokenised=tokenised)
    assert len(told.spans) == len(words)
    assert all(0 <= a < b <= len(told.text) for a, b in told.spans)
    assert list(told.spans) == sorted(told.spans)
    covered = {place for a, b in told.spans for place in range(a, b)}
    assert all(letter == " " for place, letter in enumerate(told.text) if place not in covered)


@given(st.text(max_size=30))
def test_words_by_blanks(text):
    told = Worded.by_blanks(text)
    assert told.words == text.split()
    assert told.text == " ".join(text.split())


def test_marks_of_the_printer_are_replaced_where_they_are_strange():
    text = "“L’été…” – dit-il"
    assert plainly(text, set(text)) == '"L\'été..." - dit-il'
    assert plainly(text, {"’"}) == "“L'été…” – dit-il"
    assert plainly(text, set()) == text


@given(WORDS)
def test_every_piece_has_an_owner(words):
    cut, told = Subwords.learn(["de le tour"], LEAST), as_written(words, french=True)
    of = owners(cut.ends(told.text), told)
    assert of[-1] == []
    assert all(of[:-1])
    assert {word for some in of for word in some} == set(range(len(words)))
