"""Reading several digits: made-up ones are learned in seconds, boxes are obeyed, and any picture ends in an answer."""

import json
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from recuerdo.data.digits import INK, Canvas
from recuerdo.data.pictures import png
from recuerdo.errors import InputError
from recuerdo.tasks import read_digits
from recuerdo.tasks.read_digits import ReadDigits, sums
from recuerdo.train.fit import fit
from recuerdo.train.optimise import Pace
from tests.tasks.idx import write_idx

SMALL = {"looks": 1, "size": 14, "scales": 2, "width": 16, "hidden": 64}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Digits that are squares with a pattern of their own, as files of MNIST."""
    here, draw = tmp_path_factory.mktemp("mnist"), np.random.default_rng(4)
    patterns = np.kron(draw.integers(0, 2, (10, 4, 4)), np.ones((5, 5), int))
    patterns[:, [0, -1]] = patterns[:, :, [0, -1]] = 1
    for name, count in (("train", 400), ("t10k", 80)):
        labels = draw.integers(0, 10, count).astype(np.uint8)
        pixels = np.zeros((count, 28, 28), np.uint8)
        pixels[:, 4:24, 4:24] = 220 * patterns[labels]
        write_idx(here, name, pixels, labels)
    return here


@pytest.fixture(scope="module", autouse=True)
def few():
    before = read_digits.HELD, read_digits.AT_ONCE
    read_digits.HELD, read_digits.AT_ONCE = 200, 100
    yield
    read_digits.HELD, read_digits.AT_ONCE = before


@pytest.fixture(scope="module")
def task(folder):
    return ReadDigits(folder=str(folder), side=76, batch=32, boxes=0.2)


@pytest.fixture(scope="module")
def learned(task):
    torch.manual_seed(0)
    model = task.model("glimpses", **SMALL)
    batches = ([batch] for batch in task.batches(seed=0))
    for _ in fit(lambda batch: task.loss(model, batch), model.parameters(), batches, Pace(steps=350, lr=4e-3)):
        pass
    return model.eval()


def test_it_is_learned_and_judged(task, learned):
    found = task.check(learned, "valid")
    assert found["digits wrong"] < 80  # 90 is chance
    assert found == task.check(learned, "valid")  # always the same canvases
    assert 0 < found["sums wrong"] <= found["error"]
    told = task.evidence(learned, "test")
    assert told["last look on its digit"] > 80 > told["boxes of the canvas"]
    assert 0 <= told["the boxed digit is read"] <= 100


def test_the_parts_of_the_loss(task, folder):
    torch.manual_seed(0)
    model, batch = task.model("glimpses", **SMALL), next(task.batches(seed=0))
    assert set(task.loss(model, batch)) == {"answer", "places", "baseline", "boxes"}
    plain = ReadDigits(folder=str(folder), side=76, batch=8)
    assert set(plain.loss(model, next(plain.batches(seed=0)))) == {"answer", "places", "baseline"}
    torch.manual_seed(0)
    alone = {name: float(part.detach()) for name, part in plain.loss(model, batch).items()}
    torch.manual_seed(0)
    with torch.no_grad():
        reads = model(batch.pixels, drawn=True)
    right = torch.cat([batch.labels, batch.labels.new_full((32, 1), -1)], 1)
    right = right.where(right >= 0, 10)
    logs = reads.logits[:, :, -1].log_softmax(-1)
    some = [logs[i, j, right[i, j]] for i in range(32) for j in range(int((batch.labels[i] >= 0).sum()) + 1)]
    assert alone["answer"] == pytest.approx(-float(torch.stack(some).mean()), abs=1e-5)


@settings(deadline=None, max_examples=20)
@given(st.integers(1, 3), st.integers(0, 2**32 - 1))
def test_the_sums_are_those_of_all_digits_that_make_them(n, seed):
    chances = (4 * torch.randn(2, n, 11, generator=torch.Generator().manual_seed(seed))).softmax(-1)
    wanted = torch.zeros(2, 9 * n + 1)
    for told in product(range(11), repeat=n):
        wanted[:, sum(digit % 10 for digit in told)] += torch.stack(
            [chances[:, i, digit] for i, digit in enumerate(told)]
        ).prod(0)
    torch.testing.assert_close(sums(chances), wanted)


def test_a_sum_is_told_without_its_digits(folder, tmp_path):
    """What is told of a canvas is a number: the loss is that of all digits that make it, and what was read is shown."""
    task = ReadDigits(folder=str(folder), side=76, batch=8, says="sum")
    torch.manual_seed(0)
    model = task.model("glimpses", **SMALL)
    batch = next(task.batches(seed=1))
    reads = model(batch.pixels)
    assert reads.logits.shape[:2] == (8, 2)
    logs, right, counts = task._answers(reads, batch.labels)
    assert logs.shape == (8, 1, 19)
    assert torch.equal(right[:, 0], batch.labels.clamp_min(0).sum(1))
    assert counts.all()
    with torch.no_grad():
        torch.manual_seed(5)
        alone = task.loss(model, batch)
        torch.manual_seed(5)
        drawn = sums(model(batch.pixels, drawn=True).logits[:, :, -1].softmax(-1))
    assert float(alone["answer"]) == pytest.approx(-float(drawn[range(8), right[:, 0]].log().mean()), abs=1e-5)
    model.eval()
    assert set(task.check(model, "valid")) == {"error", "loss"}
    told = task.evidence(model, "valid")
    assert list(told) == ["last look on a digit", "boxes of the canvas", "the digits, never told, are right"]
    assert all(0 <= value <= 100 for value in told.values())
    path = tmp_path / "two.png"
    path.write_bytes(png(batch.pixels[0]))
    shown = task.predict(model, str(path))
    assert shown.answer == max(range(19), key=shown.sums.__getitem__)
    assert shown.chance == max(shown.sums)
    assert sum(shown.sums) == pytest.approx(1)
    assert len(shown.places) == 2 * model.looks
    assert shown.text().splitlines()[0].split(" (")[0].split("= ")[-1] == str(shown.answer)
    assert shown.as_json()["answer"] == shown.answer
    sure = [[0.0] * 11 for _ in range(2)]
    sure[0][7] = sure[1][5] = 1.0
    seven = replace(shown, chances=tuple(map(tuple, sure)), sums=tuple(sums(torch.tensor([sure]))[0].tolist()))
    assert seven.text().startswith("7 + 5 = 12 (100.0 %), after 2 sharp looks")
    alone = replace(seven, sums=tuple([0.0] * 13 + [1.0]))  # likelier than what the likeliest digits make
    assert alone.text().startswith("13 (100.0 %)")


def test_digits_lie_apart_in_their_boxes_from_left_to_right(task, folder):
    for side, high in ((76, 2), (130, 5)):
        some = ReadDigits(folder=str(folder), side=side, batch=40, high=high)
        batch = next(some.batches(seed=5))
        assert batch.labels.shape == (40, high)
        assert batch.boxes.shape == (40, high, 4)
        counts = (batch.labels >= 0).sum(1)
        assert set(counts.tolist()) == set(range(1, high + 1))
        for pixels, labels, boxes, count in zip(batch.pixels, batch.labels, batch.boxes, counts.tolist(), strict=True):
            assert (labels[:count] >= 0).all()
            assert (labels[count:] == -1).all()
            outside, corners = pixels.clone(), boxes[:count, :2].tolist()
            for top, left, bottom, right in boxes[:count].tolist():
                assert pixels[top:bottom, left:right].max() > 100
                outside[top:bottom, left:right] = 0
            assert outside.max() == 0
            assert corners == sorted(corners, key=lambda corner: corner[1])
            for i in range(count):
                for j in range(i):
                    assert max(abs(a - b) for a, b in zip(corners[i], corners[j], strict=True)) >= INK


def test_a_batch_depends_on_seed_and_step_and_parts(task):
    one, two = task.batches(seed=3), task.batches(seed=3, start=1)
    next(one)
    batch = next(one)
    assert torch.equal(batch.pixels, next(two).pixels)
    assert [len(part) for part in batch.split(3)] == [11, 11, 10]


def test_no_room_is_told(folder):
    with pytest.raises(InputError, match="9 digits have no room on 60 x 60 pixels: give a side of 252"):
        next(ReadDigits(folder=str(folder), side=60, high=9).batches(seed=0))
    assert Canvas(48).lay_several(
        torch.zeros(3, 2, 28, 28).byte(), torch.zeros(3, 2).long(), torch.zeros(1, 28, 28).byte(),
        torch.Generator().manual_seed(0),
    ).boxes.shape == (3, 2, 4)  # fmt: skip


def test_a_picture_is_read_and_a_box_obeyed(task, learned, tmp_path):
    batch = next(task._held("test", learned))
    scores = learned(batch.pixels).logits[:, :, -1].argmax(-1)
    row = int((scores[:, 2] == 10).float().argmax())
    Image.fromarray(batch.pixels[row].numpy()).save(tmp_path / "a.png")
    seen = task.predict(learned, str(tmp_path / "a.png"))
    told = [one for one in scores[row].tolist() if one < 10]
    assert seen.answer == "".join(map(str, told))
    assert len(seen.places) == len(told) + 1
    assert json.loads(json.dumps(seen.as_json()))["answer"] == seen.answer
    assert "no more" in seen.text()
    assert "4 x 4 pixels as one" in seen.html()  # the page does not claim that nothing else was seen
    assert "Nothing else was." not in seen.html()
    assert seen.html().count("<figure>") >= len(seen.places)
    top, left, bottom, right = (batch.boxes[row, 0].float() / 76).tolist()
    boxed = task.predict(learned, str(tmp_path / "a.png"), only=(f"{left},{top},{right},{bottom}",))
    assert boxed.marks == (f"only: {left},{top},{right},{bottom}",)
    for down, across in boxed.places:
        assert 76 * top - 6 <= down <= 76 * bottom + 6
        assert 76 * left - 6 <= across <= 76 * right + 6
    Image.fromarray(255 - batch.pixels[row].numpy()).save(tmp_path / "b.png")
    assert task.predict(learned, str(tmp_path / "b.png")).answer == seen.answer  # dark on light
    with pytest.raises(InputError, match="all of the picture is muted: leave a part to be read"):
        task.predict(learned, str(tmp_path / "a.png"), mute=("0,0,1,1",))


def test_an_empty_canvas_ends_in_an_answer(task, learned, tmp_path):
    Image.fromarray(np.zeros((40, 300), np.uint8)).save(tmp_path / "c.png")
    seen = task.predict(learned, str(tmp_path / "c.png"))
    assert isinstance(seen.answer, str)
    assert seen.text()


@pytest.mark.parametrize(
    ("told", "words"),
    [
        ({"says": "roman"}, "nothing is said as 'roman': choose digits or sum"),
        ({"low": 3}, "low is 1 or more and high no less, batch is 1 or more, reward and boxes are 0 or more"),
        ({"says": "sum", "boxes": 0.1}, "a sum is of all digits: no box is the right one, leave boxes at 0"),
        ({"side": 20}, "a canvas has a side of 28 to 4096 pixels, not 20"),
    ],
)
def test_what_cannot_be_is_told(told, words):
    with pytest.raises(InputError, match=words):
        ReadDigits(**told)


def test_no_other_model_and_no_other_split(task, learned):
    with pytest.raises(InputError, match="there is no model 'eye' for digits: choose glimpses"):
        task.model("eye")
    with pytest.raises(InputError, match="there is no split 'dev' of the canvases: choose valid or test"):
        task.check(learned, "dev")
