"""Captioning: made-up pictures are learned in seconds, marks are obeyed, scenes are judged fact by fact."""

import json
import random
import re

import numpy as np
import pytest
import torch
from PIL import Image

from recuerdo.data.captioned import Pictures
from recuerdo.data.scenes import SIDE, Group, Named, describe, scenes, spoken_of
from recuerdo.errors import InputError
from recuerdo.tasks.caption import Caption
from recuerdo.tasks.captioned import Seen
from recuerdo.tasks.marking import box, regions
from recuerdo.tasks.scened import follows, held, judged, pointed, share
from recuerdo.train.fit import fit
from recuerdo.train.optimise import Pace

HUES = {"red": (220, 40, 40), "green": (40, 200, 60), "blue": (50, 80, 230), "black": (0, 0, 0)}
SMALL = {"width": 32, "hidden": 48, "dropout": 0.0}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Pictures whose left and right half have a colour each, and captions that say them in this order."""
    here, rows = tmp_path_factory.mktemp("halves"), ["image,caption"]
    for number in range(120):
        left, right = random.Random(number).choices(sorted(HUES), k=2)
        picture = np.zeros((32, 32, 3), np.uint8)
        picture[:, :16], picture[:, 16:] = HUES[left], HUES[right]
        Image.fromarray(picture).save(here / f"{number}.png")
        rows += [f"{number}.png,{left} then {right} .", f"{number}.png,{left.title()} then {right}"]
    (here / "captions.csv").write_text("\n".join(rows), encoding="utf-8")
    return here


@pytest.fixture(scope="module")
def task(folder):
    told = {"captions": str(folder / "captions.csv"), "folder": str(folder), "side": 32, "pieces": 300}
    return Caption(data="files", batch=16, **told)


@pytest.fixture(scope="module")
def model(task):
    torch.manual_seed(0)
    made = task.model("captioner", **SMALL)
    for _ in fit(lambda b: task.loss(made, b), made.parameters(), ([b] for b in parts(task)), Pace(400, lr=0.003)):
        pass
    return made.eval()


def parts(task):
    from recuerdo.train.device import Part

    for batch in task.batches(seed=0):
        yield Part(batch, 1.0)


@pytest.fixture(scope="module")
def picture(folder, tmp_path_factory):
    """Green and blue, of another size than the others."""
    here = tmp_path_factory.mktemp("one") / "x.png"
    pixels = np.zeros((50, 90, 3), np.uint8)
    pixels[:, :45], pixels[:, 45:] = HUES["green"], HUES["blue"]
    Image.fromarray(pixels).save(here)
    return str(here)


def test_pictures_of_ones_own_are_learned_and_judged(task, model):
    found = task.check(model, "valid")
    assert found["BLEU-1"] > 90
    assert found["CIDEr"] > 200
    assert found["error"] == 100 - found["CIDEr"]
    told = task.check(model, "test")
    assert {"BLEU-4", "METEOR", "ROUGE-L", "nearest picture's CIDEr"} <= set(told)
    with pytest.raises(InputError, match="there is no split 'dev'"):
        task.check(model, "dev")
    with pytest.raises(InputError, match="nobody drew boxes on these photos: marks names a file of them"):
        task.evidence(model, "test")


def test_a_caption_shows_where_its_words_came_from(task, model, picture):
    seen = task.predict(model, picture)
    assert " ".join(seen.words) == "green then blue"
    assert seen.grid == (4, 4)
    assert seen.picture.shape == (3, 50, 90)
    weights = torch.tensor(seen.weights)
    assert weights.shape == (3, 16)
    assert torch.allclose(weights.sum(-1), torch.ones(3), atol=1e-4)
    assert "without the marks" not in seen.text()
    assert seen.text().startswith("green then blue\n")
    assert json.loads(json.dumps(seen.as_json()))["caption"] == "green then blue"
    page = seen.html()
    assert page.count('<span tabindex="0">') == 3
    assert "data:image/png;base64," in page
    told = json.loads(re.search(r'id="maps">(.*?)</script>', page)[1])
    assert np.allclose(told["weights"], weights.numpy(), atol=1e-5)


def test_marks_are_obeyed(task, model, picture):
    seen = task.predict(model, picture, only=("0.5,0,1,1",))
    assert "green" not in seen.words
    assert "blue" in seen.words
    assert seen.before is not None
    assert " ".join(seen.before.words) == "green then blue"
    assert seen.marks == ("only: 0.5,0,1,1",)
    assert torch.tensor(seen.weights).view(-1, 4, 4)[:, :, :2].abs().max() == 0
    assert "without the marks: green then blue" in seen.text()
    assert '<div class="mark only" style="left: 50%; top: 0%; width: 50%; height: 100%"></div>' in seen.html()
    muted = task.predict(model, picture, mute=("0,0,0.5,1",))
    assert muted.words == seen.words
    more = task.predict(model, picture, boost=("0,0,0.5,1",))
    assert (
        torch.tensor(more.weights).view(-1, 4, 4)[0, :, :2].sum()
        > torch.tensor(more.before.weights).view(-1, 4, 4)[0, :, :2].sum() - 1e-4
    )


@pytest.mark.parametrize("text", ["", "0,0,1", "0,0,0,1", "0,0,2,1", "a,b,c,d", "0.5,0,0.4,1"])
def test_what_is_no_box_is_told(text):
    with pytest.raises(InputError, match=re.escape(f"{text!r} is no box of a picture: write left,top,right,bottom")):
        box(text)


def test_a_picture_of_which_all_is_muted_is_refused(task, model, picture):
    with pytest.raises(InputError, match="all of the picture is muted: leave a part to be read"):
        task.predict(model, picture, mute=("0,0,1,1",))
    with pytest.raises(InputError, match="there is no picture"):
        task.predict(model, picture + "x")
    without = task.model("captioner", **SMALL, attention="none").eval()
    assert task.predict(without, picture).weights == ((),) * 0
    with pytest.raises(InputError, match="this captioner has no attention: marks cannot reach it"):
        task.predict(without, picture, only=("0,0,1,1",))


def test_batches_depend_on_seed_and_step_alone(task):
    for some in (task, Caption(batch=4)):
        here, again = some.batches(seed=3), some.batches(seed=3, start=2)
        (_, _, one), two = (next(here) for _ in range(3)), next(again)
        assert torch.equal(one.pictures, two.pictures)
        assert torch.equal(one.target, two.target)
        other = next(some.batches(seed=4, start=2))
        assert not torch.equal(one.pictures, other.pictures)


def test_a_trained_model_is_opened_without_its_data(task, model, picture):
    alone = Caption(data="files", side=32, **task.carries())
    other = alone.model("captioner", **SMALL)
    other.load_state_dict(model.state_dict())
    assert alone.predict(other.eval(), picture).words == task.predict(model, picture).words


def test_cells_of_another_model_are_put_in_from_outside(task, folder):
    calls = []

    def see(pictures, cells):
        calls.append(len(pictures))
        return torch.stack(
            [one[:, 8:9, ::5][:, :, :cells].expand(3, cells, cells).permute(1, 2, 0) for one in pictures]
        )

    told = {"captions": str(folder / "captions.csv"), "folder": str(folder), "sees": "eyes", "cells": 4, "pieces": 270}
    seeing = Caption(data="files", batch=8, **told)
    with pytest.raises(InputError, match="eyes looks at pictures for this task, and was not put into it"):
        seeing.model("captioner")
    seeing.see = see
    made = seeing.model("captioner", **SMALL)
    batch = next(seeing.batches(seed=0))
    assert batch.pictures.shape == (8, 4, 4, 3)
    assert sum(calls) == 97
    assert torch.isfinite(seeing.loss(made, batch)["piece"])
    assert seeing.carries()["features"] == 3


# --------------------------------------------------------------------------------------------------------------- scenes


def test_scenes_are_judged_fact_by_fact():
    made = held("test")
    assert len(made.groups) == 1000
    true = [describe(groups, random.Random(i)) for i, groups in enumerate(made.groups)]
    found = judged(true, made.groups)
    assert found.pop("error") == 0
    assert found.pop("sentences") > 800
    assert set(found) == {"counts", "objects", "places", "relations"}
    assert set(found.values()) == {100.0}
    wrong = [true[1], *true[1:-1], "nothing"]
    found = judged(wrong, made.groups)
    assert found["error"] == pytest.approx(0.2)
    assert found["objects"] < 100
    with pytest.raises(InputError, match="there is no split 'train' of the scenes to judge: choose valid or test"):
        held("train")


def test_the_pointing_game_is_about_the_thing_that_is_named():
    one = Group(Named(1, "red", "circle"), (0, 0), (2, 2, 20, 20))
    other = Group(Named(2, "blue", "star"), (2, 2), (50, 50, 70, 70))

    def seen(*cells):
        words = ("a", "red", "circle", "left", "of", "two", "blue", "stars")
        rows = [[0.0] * 81 for _ in words]
        for row, (down, across) in zip(rows, cells, strict=True):
            row[9 * down + across] = 1.0
        return Seen(torch.zeros(3, SIDE, SIDE).byte(), (9, 9), words, tuple(map(tuple, rows)))

    a, b = (1, 1), (7, 7)
    right = pointed([seen(a, a, a, a, a, b, b, b)], [[one, other]])
    assert right["words on their thing"] == 100
    assert right["box of the picture"] == pytest.approx(100 * (18 * 18 + 20 * 20) / 2 / SIDE**2)
    assert pointed([seen(b, b, b, a, a, b, b, a)], [[one, other]])["words on their thing"] == pytest.approx(100 / 3)
    assert pointed([seen(*[b] * 8)], [[other]])["words on their thing"] == 100  # what is not there has no box


def test_a_caption_follows_a_box_when_it_is_about_that_group_alone():
    group = Group(Named(2, "blue", "star"), (0, 0), (0, 0, 24, 24))
    assert follows("two blue stars at the top left", group)
    assert not follows("two blue stars left of a red circle", group)
    assert not follows("a blue star at the top left", group)
    assert not follows("", group)
    assert share((18, 36, 72, 73)) == "0.5000,0.2500,1.0000,1.0000"


def test_a_scene_is_captioned_and_its_evidence_reckoned(monkeypatch):
    made = scenes("valid", 6, random.Random(1))
    for place in ("recuerdo.tasks.caption.held",):
        monkeypatch.setattr(place, lambda split: made)
    task = Caption(batch=4)
    torch.manual_seed(0)
    model = task.model("captioner", width=16, hidden=16).eval()
    found = task.check(model, "valid")
    assert found["error"] == 100.0
    assert found["sentences"] <= 6
    told = task.evidence(model, "valid")
    assert set(told) == {
        "words on their thing",
        "box of the picture",
        "captions that follow the box",
        "and are true",
    }
    assert set(task.carries()) == {"subwords"}
    with pytest.raises(InputError, match="this captioner has no attention: there is nothing to compare"):
        task.evidence(task.model("captioner", width=16, hidden=16, attention="none"), "valid")


def test_a_long_caption_keeps_its_beginning_and_its_end(task):
    short = Caption(batch=8, boxes=0.5, said=6)
    batch, whole = next(short.batches(seed=2)), next(Caption(batch=8, boxes=0.5).batches(seed=2))
    assert batch.target.shape[1] == 6
    for some, all_, boxes, every in zip(batch.target, whole.target, batch.boxes, whole.boxes, strict=True):
        assert torch.equal(some[:5], all_[:5])
        assert some[5] == 2
        assert torch.equal(boxes[:5], every[:5])
        assert not boxes[5].any()


def test_boxes_say_where_the_words_for_a_thing_should_look():
    task = Caption(batch=8, boxes=0.5)
    batch, plain = next(task.batches(seed=2)), next(Caption(batch=8).batches(seed=2))
    assert torch.equal(batch.pictures, plain.pictures)
    assert torch.equal(batch.target, plain.target)
    draw = random.Random("2 0")
    made = scenes("train", 8, draw)
    for i, groups in enumerate(made.groups):
        line = describe(groups, draw)
        named = spoken_of(line)
        pieces = [task._cut.decode([piece]) for piece in batch.target[i].tolist()]
        marked = [piece for piece, where in zip(pieces, batch.boxes[i], strict=True) if where.any()]
        wanted = "".join(line[a:b] for (a, b), _ in named).replace(" ", "")
        assert "".join(marked).replace(" ", "") == wanted
        first = batch.boxes[i][batch.boxes[i].any(-1)][0].view(9, 9)
        top, left, bottom, right = next(one.box for one in groups if one.what == named[0][1])
        down, across = first.nonzero().unbind(1)
        assert 8 * down.min() + 4 >= top
        assert 8 * down.max() + 4 < bottom
        assert 8 * across.min() + 4 >= left
        assert 8 * across.max() + 4 < right
    torch.manual_seed(0)
    model = task.model("captioner", width=16, hidden=16, dropout=0.0)
    parts = task.loss(model, batch)
    weights = model.eval().alignments(batch.pictures, batch.target)["saying"]
    share = (weights * batch.boxes).sum(-1)[batch.boxes.any(-1)]
    assert float(parts["boxes"].detach()) == pytest.approx(-0.5 * float(share.log().mean()), abs=1e-4)
    halves = batch.split(2)
    assert [half.boxes.shape[:2] == half.target.shape for half in halves] == [True, True]


def test_marks_can_train():
    """Where all but a group's box is muted the sentence is about that group, and nothing of the loss depends on what
    lies outside."""
    task = Caption(batch=16, marked=0.5, boxes=0.1)
    batch = next(task.batches(seed=4))
    marked = batch.out.any(-1)
    assert 3 <= marked.sum() <= 13
    assert torch.equal(batch.boxes[marked].any(1), ~batch.out[marked])  # its words are told to look where they may
    torch.manual_seed(0)
    model = task.model("captioner", width=16, hidden=16, dropout=0.0)
    only = Pictures(*(part[marked] for part in (batch.pictures, batch.target, batch.boxes, batch.out)))
    pixels = only.pictures.float().requires_grad_()
    parts = task.loss(model, Pictures(pixels, only.target, only.boxes, only.out))
    (slope,) = torch.autograd.grad(sum(parts.values()), pixels)
    assert slope.abs().sum() > 0
    for rows, out in zip(slope.abs().sum(1), only.out.view(-1, 9, 9), strict=True):
        down, across = (~out).nonzero().unbind(1)
        reach = rows.clone()  # a cell sees 11 pixels beyond its 8 x 8 to the right and below, 12 to the left and above
        reach[
            max(0, 8 * down.min() - 16) : 8 * down.max() + 24, max(0, 8 * across.min() - 16) : 8 * across.max() + 24
        ] = 0
        assert reach.max() < 1e-9 * slope.max() + 1e-12
    plain = next(Caption(batch=16).batches(seed=4))
    assert plain.out is None
    without = task.model("captioner", width=16, hidden=16, attention="none")
    assert sum(Caption(batch=16).loss(without, plain).values()).requires_grad
    with pytest.raises(
        InputError, match="this captioner has no attention, so nothing can be muted: set data.marked = 0"
    ):
        task.loss(without, batch)
    assert [part.out.shape[0] for part in batch.split(2)] == [8, 8]


def test_a_rule_leaves_other_reads_alone():
    rule, told = regions((2, 2), only=["0,0,0.5,1"], muted=["0,0,0.5,0.5"])

    class Reading:
        shape = (1, 1, 1, 7)

    assert told == ["only: 0,0,0.5,1", "mute: 0,0,0.5,0.5"]
    assert rule(None, Reading()) == ()


@pytest.mark.parametrize(
    ("told", "words"),
    [
        ({"data": "coco"}, "there is no source of captions 'coco': choose scenes, flickr8k, files"),
        ({"batch": 0}, "batch, said, beam and cells are 1 or more, side 8 or more, smoothing from 0 to below 1"),
        ({"data": "files"}, "pictures of your own are named"),
        ({"boxes": -0.1}, "boxes is 0 or more, and 0 for photos on which nobody drew: marks names the file of boxes"),
        ({"marked": 1.5}, "marked is a share of scenes, 0 to 1, and 0 for photos"),
        ({"data": "flickr8k", "marked": 0.5}, "marked is a share of scenes, 0 to 1, and 0 for photos"),
        (
            {"data": "flickr8k", "boxes": 0.1},
            "boxes is 0 or more, and 0 for photos on which nobody drew: marks names the file of boxes",
        ),
        ({"side": 64}, "scenes are read from their 72 x 72 pixels: leave side and sees away"),
        ({"sees": "dinov2"}, "scenes are read from their 72 x 72 pixels: leave side and sees away"),
    ],
)
def test_what_cannot_be_is_told(told, words):
    with pytest.raises(InputError, match=words):
        Caption(**told)


def test_no_other_model_and_no_photos(monkeypatch, tmp_path):
    with pytest.raises(InputError, match="there is no model 'painter' for captions: choose captioner"):
        Caption().model("painter")
    monkeypatch.setenv("RECUERDO_DATA", str(tmp_path))
    with pytest.raises(InputError, match="the photos of Flickr8k are needed and not here: set RECUERDO_DATA"):
        next(Caption(data="flickr8k").batches(seed=0))
