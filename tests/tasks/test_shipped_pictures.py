"""The trained models that look at pictures: what the README says of them holds on the pictures beside it."""

import random
from pathlib import Path

import torch

from recuerdo.data.pictures import colours
from recuerdo.data.scenes import claim, facts, scenes
from recuerdo.tasks.scened import judged
from recuerdo.workbench.running import open_run, predict

EXAMPLES = Path(__file__).parents[2] / "examples"


def test_the_example_is_a_scene_and_its_captions_are_true():
    made = scenes("test", 1, random.Random("c"))
    assert torch.equal(colours(EXAMPLES / "scene.png"), made.pixels[0])
    seen = predict("caption-scenes", image=str(EXAMPLES / "scene.png"), only=("0.34,0.34,0.67,0.67",))
    whole, boxed = (facts(claim(" ".join(words)), made.groups[0]) for words in (seen.before.words, seen.words))
    assert all(map(all, whole.values()))
    assert all(map(all, boxed.values()))
    told = claim(" ".join(seen.words))
    assert told.subject == next(group.what for group in made.groups[0] if group.part == (1, 1))


def test_captions_of_new_scenes_are_nearly_all_true():
    run, made = open_run("caption-scenes"), scenes("test", 100, random.Random("fresh"))
    assert judged(run.task.say(run.model, made.pixels), made.groups)["error"] <= 8


def test_a_cluttered_digit_is_found_and_looking_stops_when_it_is_sure():
    picture = str(EXAMPLES / "cluttered.png")
    seen = predict("glance-cluttered", image=picture)
    assert len(seen.places) == 8
    chances = seen.chances[-1]
    assert chances.index(max(chances)) == 3
    down, across = seen.places[1]  # the first that it chose
    assert 32 <= down <= 53
    assert 33 <= across <= 49
    assert len(predict("glance-cluttered", image=picture, sure=0.95).places) < 5


def test_digits_are_read_and_a_box_is_obeyed():
    picture = str(EXAMPLES / "two-digits.png")
    assert predict("read-pairs", image=picture).answer == "37"
    assert predict("read-pairs", image=picture, only=("0.5,0,1,1",)).answer == "7"
    assert predict("read-pairs", image=picture, mute=("0.5,0,1,1",)).answer == "3"
