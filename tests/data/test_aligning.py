"""Words that go together are found from pairs alone, whatever their order, and nothing is made of nothing."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recuerdo.data.aligning import align, by_hand, dictionary, grown, words_of
from recuerdo.errors import InputError

WORDS = {"red": "rot", "blue": "blau", "house": "haus", "tree": "baum", "sees": "sieht", "old": "alt", "dog": "hund"}


def test_a_made_up_language_is_aligned():
    """The first two words change places in the target, and every target has a word that goes with nothing."""
    draw, pairs, wanted = random.Random(0), [], []
    for _ in range(600):
        words = draw.sample(list(WORDS), draw.randint(2, 6))
        order = [1, 0, *range(2, len(words))]
        pairs.append((words, [*(WORDS[words[i]] for i in order), "doch"]))
        wanted.append({(i, j) for j, i in enumerate(order)})
    found = align(pairs)
    right = sum(len(a & b) for a, b in zip(found, wanted, strict=True))
    assert right / sum(map(len, wanted)) > 0.97
    assert right / sum(map(len, found)) > 0.9


def test_growing_takes_neighbours_of_words_that_have_none():
    both = {(0, 0), (2, 3)}
    assert grown(both, both) == both
    assert grown(both | {(1, 1)}, both) == both | {(1, 1)}
    assert grown(both | {(5, 9)}, both) == both  # nobody's neighbour
    assert grown(both | {(1, 3)}, both) == both  # a word that has a link
    assert grown({(0, 0)}, {(1, 1)}) == set()


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(*[st.lists(st.sampled_from("abcd"), max_size=5)] * 2), max_size=8))
def test_any_pairs_have_links_that_are_there(pairs):
    found = align(pairs, rounds=2)
    assert len(found) == len(pairs)
    for (source, target), links in zip(pairs, found, strict=True):
        assert all(0 <= i < len(source) and 0 <= j < len(target) for i, j in links)


@pytest.mark.parametrize(
    ("text", "words"),
    [("L'accord, signé.", ["L", "'", "accord", ",", "signé", "."]), ("", []), (" a  b", ["a", "b"])],
)
def test_words_of_a_line(text, words):
    assert words_of(text).words == words


def test_a_dictionary_has_the_last_word(tmp_path):
    path = tmp_path / "words.tsv"
    path.write_text("Hund\tdog\n\nHündin\tdog\nbaum\ttree\n", encoding="utf-8")
    known = dictionary(path)
    assert known == {"dog": {"hund", "hündin"}, "tree": {"baum"}}
    source, target = ["der", "baum", "hund", "sieht", "hund"], ["the", "tree", "dog", "dog", "sees"]
    links = {(0, 0), (0, 1), (4, 2), (3, 2), (3, 4)}
    told = by_hand(source, target, links, known)
    assert told == {(0, 0), (1, 1), (4, 2), (2, 3), (3, 4)}  # linked before: kept; else the nearest to the diagonal
    assert by_hand(source, target, links, {}) == links
    assert by_hand(["x"], ["dog"], {(0, 0)}, known) == {(0, 0)}
    for wrong in ("hund dog", "hund\t", "a\tb\tc"):
        path.write_text(f"baum\ttree\n{wrong}\n", encoding="utf-8")
        with pytest.raises(InputError, match="line 2, is no word of the source, a tab and a word of the target"):
            dictionary(path)
