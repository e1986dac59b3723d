"""Worlds of facts: every question is answered by its facts, and what a split has no other has."""

import pytest

from recuerdo.data.chains import PARTS, RELATIONS, SPLITS, chains_of, world
from recuerdo.errors import InputError


@pytest.mark.parametrize("split", SPLITS)
def test_the_facts_of_a_question_answer_it(split):
    for number in range(20):
        told = world(split, 0, number)
        assert len(set(told.facts)) == 44
        assert len({q.text for q in told.questions}) == 12
        for asked in told.questions:
            facts = [told.facts[at] for at in asked.facts]
            first = _named(asked.text)
            assert first
            assert first in facts[0].lower()
            if len(facts) == 2:  # one name leads from the one to the other, and the question does not say it
                shared = {name for name in map(_named, _halves(facts[0])) if name and name in facts[1].lower()}
                assert shared - {first}
                assert first not in facts[1].lower()


def _parts():
    return [
        f"{a}{' ' if kind != 'town' else ''}{b}".lower() for kind, (one, two) in PARTS.items() for a in one for b in two
    ]


NAMES = sorted(_parts(), key=len, reverse=True)


def _named(text):
    return next((name for name in NAMES if name in text.lower()), "")


def _halves(text):
    text = text.lower()
    name = _named(text)
    return [text, text.replace(name, "…")]


def test_worlds_depend_on_their_number_alone_and_splits_share_no_name():
    assert world("train", 0, 5) == world("train", 0, 5)
    assert world("train", 0, 5) != world("train", 0, 6)
    seen = {split: {_named(q.text) for n in range(60) for q in world(split, 0, n).questions} for split in SPLITS}
    assert not seen["train"] & seen["test"]
    assert not seen["train"] & seen["valid"]
    assert not seen["valid"] & seen["test"]


def test_splits_share_no_chain():
    every = [chain for split in SPLITS for chain in chains_of(split)]
    assert len(every) == len(set(every)) > 25
    assert all(RELATIONS[first].end == RELATIONS[second].start for first, second in every)


def test_what_cannot_be():
    with pytest.raises(InputError, match="there is no split 'other' of chains: choose train, valid, test"):
        world("other", 0, 0)
    with pytest.raises(InputError, match=r"a world has from 24 \(two a question\) to \d+ facts, not 900"):
        world("test", 0, 0, facts=900)
