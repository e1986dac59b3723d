"""Words in other pieces than usual: the same text, the usual pieces where nothing is left out, and the chance that is asked for."""

import json
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recuerdo.data.fraying import WAYS, Frayed
from recuerdo.data.subwords import END, Subwords

LINES = ["the red cat sat on the red mat", "a cat and a dog", "der Hund läuft über die Straße", "  the   mat  "] * 5


@pytest.fixture(scope="module")
def cut():
    return Subwords.learn(LINES, 320)


def drawn(cut: Subwords, lines: list[str], dropped: float, seed: int = 0) -> list[list[int]]:
    return Frayed(cut, lines, dropped).drawn(np.random.default_rng(seed))


def test_without_dropping_the_pieces_are_the_usual_ones(cut):
    assert drawn(cut, LINES, 0.0) == cut.encode(LINES)
    assert drawn(cut, [], 0.1) == []
    assert drawn(cut, [""], 0.1) == [[END]]


@settings(deadline=None, max_examples=60)
@given(st.lists(st.text(max_size=30), max_size=4), st.floats(0, 0.99), st.integers(0, 99))
def test_any_text_comes_back_whatever_is_dropped(cut, lines, dropped, seed):
    assert drawn(cut, lines, 0.0) == cut.encode(lines)
    for line, pieces in zip(lines, drawn(cut, lines, dropped, seed), strict=True):
        assert cut.decode(pieces) == cut.decode(cut.encode([line])[0])
        assert pieces[-1] == END


def test_the_same_seed_gives_the_same_and_another_seed_another(cut):
    assert drawn(cut, LINES, 0.3, 1) == drawn(cut, LINES, 0.3, 1)
    assert drawn(cut, LINES, 0.3, 1) != drawn(cut, LINES, 0.3, 2)
    frayed, draw = Frayed(cut, LINES, 0.3), np.random.default_rng(0)
    assert frayed.drawn(draw) != frayed.drawn(draw)


def test_merges_are_left_out_as_often_as_is_asked(cut):
    """A word of two letters whose one merge is known: it comes apart with that chance."""
    merges = [pair for pair in json.loads(cut.told)["model"]["merges"] if len(pair[0]) == len(pair[1]) == 1]
    whole = 0
    for dropped in (0.1, 0.5):
        frayed = Frayed(cut, [], dropped)
        draws = [frayed._merged("".join(merges[0]), dropped, random.Random(i)) for i in range(4000)]
        whole = sum(len(pieces) == 1 for pieces in draws) / 4000
        assert abs(whole - (1 - dropped)) < 0.03
    ways = {tuple(pieces) for seed in range(200) for pieces in drawn(cut, ["Straße"], 0.3, seed)}
    assert 3 <= len(ways) <= WAYS
