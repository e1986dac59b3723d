"""Glancing: made-up digits are learned in seconds, what is shown is what was seen, and any picture ends in an answer or
one line."""

import json
import re
from itertools import islice

import numpy as np
import pytest
import torch
from PIL import Image

from recuerdo.errors import InputError
from recuerdo.nn.retina import Ground
from recuerdo.tasks.glance import Glance
from recuerdo.train.fit import fit
from recuerdo.train.optimise import Pace
from tests.tasks.idx import write_idx

SMALL = {"looks": 3, "size": 6, "scales": 2, "hidden": 64}


def stripes(count, seed):
    """Digit d is an upright bar, the further to the right the larger d is."""
    draw = np.random.default_rng(seed)
    labels = draw.integers(0, 10, count).astype(np.uint8)
    pixels = np.zeros((count, 28, 28), np.uint8)
    for picture, digit in zip(pixels, labels, strict=True):
        top, left = draw.integers(4, 8), 2 * int(digit) + 2
        picture[top : top + 16, left : left + 4] = draw.integers(180, 255)
    return pixels, labels


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    here = tmp_path_factory.mktemp("mnist")
    for name, count in (("train", 400), ("t10k", 80)):
        pixels, labels = stripes(count, count)
        write_idx(here, name, pixels, labels)
    return here


@pytest.fixture(scope="module")
def task(folder):
    return Glance(folder=str(folder), batch=32, early=0.3, rolls=3)


@pytest.fixture(scope="module")
def learned(task):
    torch.manual_seed(0)
    model = task.model("glimpse", **SMALL)
    batches = ([batch] for batch in task.batches(seed=0))
    for _ in fit(lambda batch: task.loss(model, batch), model.parameters(), batches, Pace(steps=400, lr=3e-3)):
        pass
    return model.eval()


def test_canvases_of_training_grow_from_the_digit_alone_and_those_of_the_test_do_not(folder):
    task = Glance(folder=str(folder), side=60, clutter=4, grows=8, batch=4)
    sides = [batch.pixels.shape[1] for batch in islice(task.batches(seed=0), 10)]
    assert sides == [28, 32, 36, 40, 44, 48, 52, 56, 60, 60]
    whole, (later,) = Glance(folder=str(folder), side=60, clutter=4, batch=4), islice(task.batches(seed=0, start=9), 1)
    assert torch.equal(later.pixels, next(whole.batches(seed=0, start=9)).pixels)
    assert next(task.canvases("valid")).pixels.shape[1:] == (60, 60)
    with pytest.raises(InputError, match="grows, reward, early and slope are 0 or more"):
        Glance(grows=-1)


def test_it_is_learned_and_judged(task, learned):
    for split in ("valid", "test"):
        found = task.check(learned, split)
        assert found["error"] < 25
        assert found == task.check(learned, split)  # always the same canvases, and the same draws
    assert {"error", "loss", "error of 3", "error after 1", "error after 2"} < set(found)
    assert 1 <= found["looks when sure"] <= 3
    right, of_all = 0, 0
    for some in task.canvases("test"):
        right += int((learned(some.pixels).logits[:, -1].argmax(-1) == some.labels).sum())
        of_all += len(some)
    assert found["error"] == pytest.approx(100 * (1 - right / of_all))


@torch.no_grad()
def test_looking_stops_when_it_is_sure(task, learned, tmp_path):
    some = next(task.canvases("test"))
    whole = learned(some.pixels[:1])
    first = float(whole.logits[0, 0].softmax(-1).max())
    assert learned(some.pixels[:1], sure=first - 1e-4).logits.shape[1] == 1
    stopped = learned(some.pixels, sure=0.9999)
    assert torch.equal(stopped.logits, learned(some.pixels).logits[:, : stopped.logits.shape[1]])
    Image.fromarray(some.pixels[0].numpy()).save(tmp_path / "a.png")
    assert len(task.predict(learned, str(tmp_path / "a.png"), sure=first - 1e-4).places) == 1
    assert len(task.predict(learned, str(tmp_path / "a.png")).places) == 3
    for sure in (0.0, 1.5):
        with pytest.raises(InputError, match="a model is sure with a probability above 0 and up to 1, not"):
            task.predict(learned, str(tmp_path / "a.png"), sure=sure)


def test_a_muted_part_is_black(task, learned, tmp_path):
    pixels = np.full((28, 28), 200, np.uint8)
    pixels[:, :14] = 0
    pixels[[0, -1]] = 0
    Image.fromarray(pixels).save(tmp_path / "a.png")
    Image.fromarray(np.zeros((28, 28), np.uint8)).save(tmp_path / "b.png")
    seen = task.predict(learned, str(tmp_path / "a.png"), only=("0,0,0.5,1",))
    assert seen.chances == task.predict(learned, str(tmp_path / "b.png")).chances
    assert seen.chances == task.predict(learned, str(tmp_path / "a.png"), mute=("0.5,0,1,1",)).chances
    assert seen.as_json()["marks"] == ["only: 0,0,0.5,1"]


def test_the_parts_of_the_loss(task, folder):
    torch.manual_seed(0)
    model, batch = task.model("glimpse", **SMALL), next(iter(task.batches(seed=0)))
    parts = task.loss(model, batch)
    assert set(parts) == {"digit", "early", "places", "baseline"}
    sum(parts.values()).backward()
    assert all(p.grad is not None and p.grad.any() for p in model.parameters())
    alone = Glance(folder=str(folder), batch=8)
    assert set(alone.loss(alone.model("glimpse", **{**SMALL, "looks": 1}), batch)) == {"digit"}


def test_batches_depend_on_seed_and_number_alone(task):
    def first(seed, start, count):
        told = task.batches(seed=seed, start=start)
        return [next(told) for _ in range(count)]

    whole = first(1, 0, 15)
    for i, batch in enumerate(first(1, 9, 6), 9):
        assert torch.equal(batch.pixels, whole[i].pixels)
    assert not torch.equal(whole[0].pixels, first(2, 0, 1)[0].pixels)
    each = -(-200 // 32)
    seen = torch.cat([batch.labels for batch in whole[:each]])
    assert len(seen) == 200  # each digit once a round; the other half of the file is for validation


def test_evidence_counts_looks_in_the_box(folder):
    task = Glance(folder=str(folder), side=60, clutter=2)
    torch.manual_seed(0)
    found = task.evidence(task.model("glimpse", **SMALL), "test")
    assert found["box of the canvas"] == pytest.approx(100 * 28**2 / 60**2)
    assert 0 <= found["first placed look on the digit"] <= found["some look on the digit"]
    assert 0 <= found["last look on the digit"] <= found["some look on the digit"] <= 100

    class Knows(torch.nn.Module):
        """Looks at a light pixel, of the digit or of the clutter."""

        def forward(self, pixels):
            at = pixels.flatten(1).float().argmax(1)
            place = torch.stack([at // 60, at % 60], 1) / 59 * 2 - 1
            # Says 3 where there is anything, nothing known where all is black.
            logits = torch.zeros(len(pixels), 2, 10)
            logits[:, :, 3] = pixels.flatten(1).sum(1, keepdim=True).clamp(max=1)
            return type("Looks", (), {"places": torch.stack([0 * place, place], 1), "logits": logits})

    clean = Glance(folder=str(folder), side=60)
    told = clean.evidence(Knows(), "test")
    assert told["last look on the digit"] == 100
    assert told["first placed look on the digit"] == 100
    assert told["error"] == told["error, all else muted"] > 80  # without clutter the rest is black already


def test_what_is_shown_is_what_was_seen(task, learned, folder, tmp_path):
    pixels, _ = stripes(1, 5)
    Image.fromarray(pixels[0]).save(tmp_path / "a.png")
    told = task.predict(learned, str(tmp_path / "a.png"))
    looks = learned(torch.from_numpy(pixels))
    assert told.answer == int(looks.logits[0, -1].argmax())
    torch.testing.assert_close(torch.tensor(told.chances), looks.logits[0].softmax(-1))
    ground = Ground(torch.from_numpy(pixels), 12)
    assert [list(place) for place in told.places] == [ground.middle(p).tolist()[0] for p in looks.places.unbind(1)]
    assert told.squares == (6, 12)
    data = told.as_json()
    assert json.loads(json.dumps(data)) == data
    assert data["looks"][0]["boxes"] == [[11, 11, 17, 17], [8, 8, 20, 20]]
    seen = torch.zeros(28, 28, dtype=torch.bool)
    for down, across in told.places:
        seen[max(0, down - 6) : down + 6, max(0, across - 6) : across + 6] = True
    assert data["looked_at"] == pytest.approx(float(seen.float().mean()))
    lines = told.text().splitlines()
    assert lines[0].startswith(f"{told.answer} (")
    assert len(lines) == 2 + 3
    page = told.html()
    assert page.count("data:image/png;base64,") == 1
    assert len(re.findall(r'<g class="look"', page)) == 3
    assert page.count("<rect") == 2 * 3 * 2


def test_any_size_and_ink_on_paper(task, learned, tmp_path):
    pixels, _ = stripes(1, 6)
    Image.fromarray(pixels[0]).save(tmp_path / "light.png")
    Image.fromarray(255 - pixels[0]).save(tmp_path / "dark.png")
    light, dark = (task.predict(learned, str(tmp_path / name)) for name in ("light.png", "dark.png"))
    assert torch.equal(light.picture, dark.picture)
    assert light.chances == dark.chances
    for size in ((1, 1), (1, 300), (700, 40)):
        Image.new("L", size, 0).save(tmp_path / "x.png")
        told = task.predict(learned, str(tmp_path / "x.png"))
        assert told.picture.shape == size[::-1]
        assert "looks" in told.text()
    with pytest.raises(InputError, match="there is no picture"):
        task.predict(learned, str(tmp_path / "none.png"))


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"side": 20}, "a side of 28 to 4096"),
        ({"batch": 0}, "batch and rolls are 1 or more"),
        ({"reward": -1.0}, "reward, early and slope are 0 or more"),
        ({"slope": -1.0}, "reward, early and slope are 0 or more"),
    ],
)
def test_what_cannot_be(wrong, words):
    with pytest.raises(InputError, match=words):
        Glance(**wrong)


def test_names_that_are_not_there(task, learned):
    with pytest.raises(InputError, match="there is no model 'cnn' for glances: choose glimpse"):
        task.model("cnn")
    with pytest.raises(InputError, match="there is no split 'exam' of the canvases"):
        task.check(learned, "exam")
