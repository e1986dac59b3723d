"""Composed scenes: what is drawn is what is said, and only true sentences are borne out."""

import random
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from recuerdo.data.scenes import (
    COLOURS,
    COUNTS,
    PART,
    RELATIONS,
    SHAPES,
    SIDE,
    SPLITS,
    Claim,
    Group,
    Named,
    claim,
    combinations,
    describe,
    facts,
    scenes,
    spoken_of,
)
from recuerdo.errors import InputError


def holds(sentence, groups):
    return all(all(each) for each in facts(claim(sentence), groups).values())


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**9), split=st.sampled_from(SPLITS))
def test_what_is_said_of_a_scene_is_borne_out(seed, split):
    draw = random.Random(seed)
    for groups in scenes(split, 4, draw).groups:
        sentence = describe(groups, draw)
        assert holds(sentence, groups), sentence
        assert 1 <= len(spoken_of(sentence)) <= 2


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**9))
def test_one_wrong_fact_is_found(seed):
    """Each fact of a claim, made false by itself, is the one that is not borne out."""
    draw = random.Random(seed)
    (groups,) = scenes("test", 1, draw).groups
    told = claim(describe(groups, draw))
    there = {(one.what.colour, one.what.shape) for one in groups}
    other = next((c, s) for c in COLOURS for s in SHAPES if (c, s) not in there)
    subject = told.subject
    wrong = facts(replace(told, subject=Named(subject.count, *other)), groups)
    assert wrong["object"][0] is False
    wrong = facts(replace(told, subject=replace(subject, count=subject.count % 4 + 1)), groups)
    assert wrong["count"][0] is False
    assert all(wrong["object"])
    if told.relation:
        opposite = {"left": "right", "right": "left", "above": "below", "below": "above"}[told.relation]
        assert facts(replace(told, relation=opposite), groups)["relation"] == [False]
        assert facts(replace(told, object=told.subject), groups)["relation"] == [False]
    else:
        moved = (told.place[0], (told.place[1] + 1) % 3)
        assert facts(replace(told, place=moved), groups)["place"] == [False]


@pytest.mark.parametrize(
    ("sentence", "wanted"),
    [
        ("a red circle in the middle", Claim(Named(1, "red", "circle"), place=(1, 1))),
        ("there are two violet boxes at the top", Claim(Named(2, "purple", "square"), place=(0, 1))),
        ("at the bottom there is an orange hoop", Claim(Named(1, "orange", "ring"), place=(2, 1))),
        (
            "we see three blue stars to the left of a pink cross",
            Claim(Named(3, "blue", "star"), None, "left", Named(1, "pink", "cross")),
        ),
        (
            "over a pair of plus signs there is a red disc",
            None,  # plus signs of no colour
        ),
        (
            "over a pair of white plus signs there is a red disc",
            Claim(Named(1, "red", "circle"), None, "above", Named(2, "white", "cross")),
        ),
        ("a red circles in the middle", None),
        ("there is two red circles in the middle", None),
        ("a red circle", None),
        ("a red circle left of", None),
        ("", None),
        ("nothing at all", None),
    ],
)
def test_sentences_are_read_by_the_grammar(sentence, wanted):
    assert claim(sentence) == wanted
    if wanted is None:
        assert facts(claim(sentence), []) == {"sentence": [False]}


def test_words_stand_where_they_are_told():
    sentence = "there are a pair of white plus signs below an orange box"
    named = [(sentence[a:b], what) for (a, b), what in spoken_of(sentence)]
    assert named == [
        ("a pair of white plus signs", Named(2, "white", "cross")),
        ("an orange box", Named(1, "orange", "square")),
    ]


def test_no_combination_is_in_two_splits_and_new_pairs_are_new():
    parts = {split: set(combinations(split)) for split in SPLITS}
    assert [len(parts[split]) for split in SPLITS] == [136, 8, 16, 32]
    assert len(set.union(*parts.values())) == len(COLOURS) * len(SHAPES) * len(COUNTS)
    pairs = {split: {(one.colour, one.shape) for one in some} for split, some in parts.items()}
    assert pairs["valid"] | pairs["test"] <= pairs["train"]
    assert not pairs["new"] & pairs["train"]
    assert {colour for colour, _ in pairs["new"]} == set(COLOURS)
    assert {shape for _, shape in pairs["new"]} == set(SHAPES)
    draw = random.Random(3)
    for split in SPLITS:
        for groups in scenes(split, 60, draw).groups:
            own = [one.what in parts[split] for one in groups]
            assert any(own)
            assert all(a or one.what in parts["train"] for a, one in zip(own, groups, strict=True))
            assert len({(one.what.colour, one.what.shape) for one in groups}) == len(groups)
    with pytest.raises(InputError, match="there is no split 'dev' of the scenes: choose train, valid, test, new"):
        combinations("dev")


def test_things_lie_in_their_boxes_in_their_colours_and_in_their_number():
    made = scenes("train", 200, random.Random(5))
    assert made.pixels.shape == (200, 3, SIDE, SIDE)
    for pixels, groups in zip(made.pixels.float(), made.groups, strict=True):
        outside = torch.ones(SIDE, SIDE, dtype=torch.bool)
        for group in groups:
            top, left, bottom, right = group.box
            assert PART * group.part[0] <= top < bottom <= PART * (group.part[0] + 1) + 1
            assert PART * group.part[1] <= left < right <= PART * (group.part[1] + 1) + 1
            inside = pixels[:, max(top, 0) : bottom, max(left, 0) : right]
            hue = torch.tensor(COLOURS[group.what.colour]).float()
            near = (inside - hue[:, None, None]).abs().amax(0) < 40
            assert near.sum() > 10 * (group.what.count if group.what.count > 1 else 1)
            outside[max(top, 0) : bottom, max(left, 0) : right] = False
        assert pixels[:, outside].max() < 120  # the ground is dark, whatever its noise


def test_the_same_draw_makes_the_same_scene():
    one, two = (scenes("valid", 5, random.Random("x")) for _ in range(2))
    assert torch.equal(one.pixels, two.pixels)
    assert one.groups == two.groups
    assert not torch.equal(one.pixels, scenes("valid", 5, random.Random("y")).pixels)


def test_both_ways_to_say_where_something_lies():
    a, b = (Group(Named(1, c, "circle"), part, (0, 0, 1, 1)) for c, part in (("red", (0, 0)), ("blue", (2, 2))))
    for words in ("left of", "above", "over", "to the left of"):
        assert holds(f"a red circle {words} a blue circle", [a, b])
    for words in ("right of", "below", "under"):
        assert not holds(f"a red circle {words} a blue circle", [a, b])
    assert set(RELATIONS) == {"left", "right", "above", "below"}
    assert set(COUNTS) == {1, 2, 3, 4}
