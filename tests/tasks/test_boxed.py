"""A person's boxes on photos: they train where words look, they judge it, and a wrong table is told by its row."""

import random

import numpy as np
import pytest
import torch
from PIL import Image

from recuerdo.errors import InputError
from recuerdo.tasks.boxed import boxes_of, spans
from recuerdo.tasks.caption import Caption
from recuerdo.train.device import Part
from recuerdo.train.fit import fit
from recuerdo.train.optimise import Pace

HUES = {"red": (220, 40, 40), "green": (40, 200, 60), "blue": (50, 80, 230)}
CORNER = "0.5,0.5,1,1"
HEAD = "image,word,left,top,right,bottom"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Pictures of one colour, of which a person says that "really" is seen in the lower right corner."""
    here, rows, boxes = tmp_path_factory.mktemp("hues"), ["image,caption"], [HEAD]
    for number in range(40):
        hue = random.Random(number).choice(sorted(HUES))
        picture = np.full((32, 32, 3), 0, np.uint8)
        picture[:, :] = HUES[hue]
        Image.fromarray(picture).save(here / f"{number}.png")
        rows.append(f"{number}.png,it is really {hue} .")
        if number % 3:
            boxes.append(f"{number}.png,Really,{CORNER}")
    (here / "captions.csv").write_text("\n".join(rows), encoding="utf-8")
    (here / "boxes.csv").write_text("\n".join(boxes), encoding="utf-8")
    return here


def made(folder, **more):
    told = {"captions": str(folder / "captions.csv"), "folder": str(folder), "side": 32, "pieces": 300, "batch": 8}
    return Caption(data="files", **told, marks=str(folder / "boxes.csv"), **more)


def test_boxes_train_where_a_word_looks(folder):
    found = {}
    for weight in (0.0, 1.0):
        task = made(folder, boxes=weight)
        torch.manual_seed(0)
        model = task.model("captioner", width=16, hidden=24, dropout=0.0)
        batches = ([Part(batch, 1.0)] for batch in task.batches(seed=0))
        for _ in fit(lambda b, t=task, m=model: t.loss(m, b), model.parameters(), batches, Pace(150, lr=0.004)):
            pass
        found[weight] = task.evidence(model.eval(), "test")
    assert found[1.0]["words in their box"] > 90 > found[0.0]["words in their box"]
    assert found[1.0]["box of the picture"] == pytest.approx(25, abs=1)
    assert found[1.0]["words"] >= 2


def test_pieces_of_a_marked_word_are_told_where_to_look_and_no_others(folder):
    batch, task = next(made(folder, boxes=1.0).batches(seed=1)), made(folder)
    assert batch.boxes.shape == (*batch.target.shape, 16)
    corner = torch.zeros(4, 4, dtype=torch.bool)
    corner[2:, 2:] = True
    some = 0
    for pieces, rows in zip(batch.target.tolist(), batch.boxes, strict=True):
        marked = [piece for piece, row in zip(pieces, rows, strict=True) if row.any()]
        assert all(torch.equal(row, corner.flatten()) for row in rows if row.any())
        assert task._cut.decode(marked).strip() in ("", "really")
        some += bool(marked)
    assert 0 < some < 8
    assert next(made(folder).batches(seed=1)).boxes is None


def test_a_batch_without_a_box_costs_nothing_for_looks(folder):
    task = made(folder, boxes=1.0)
    batch = next(task.batches(seed=1))
    model = task.model("captioner", width=16, hidden=24)
    parts = model.loss(batch.pictures, batch.told, batch.target, boxes=torch.zeros_like(batch.boxes))
    assert float(parts["boxes"].detach()) == 0


def test_words_are_found_whatever_their_case_and_marks():
    left, right = (0.0, 0.0, 0.5, 1.0), (0.5, 0.0, 1.0, 1.0)
    marked = [(("black", "dog"), left), (("dog",), right), (("cat",), right)]
    assert spans(["A", "black", "Dog,", "a", "dog"], marked) == {1: [left], 2: [left, right], 4: [right]}
    assert spans([], marked) == {}


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ("", "is no table of boxes: its first line is image,word,left,top,right,bottom"),
        ("image,caption\na,b", "is no table of boxes"),
        (HEAD, "has no box below its head"),
        (f"{HEAD}\n1.png,dog,0,0,1", "row 2 of .* is no image, word and box: write image,word"),
        (f"{HEAD}\n1.png,,0,0,1,1", "row 2 of .* is no image, word and box"),
        (f"{HEAD}\n1.png,dog,0,0,1,1\n1.png,dog,0,0,0,1", "row 3 of .*: '0,0,0,1' is no box of a picture"),
        (f"{HEAD}\n1.png,dog,0,0,nan,1", "row 2 of .*: '0,0,nan,1' is no box of a picture"),
    ],
)
def test_another_table_is_told(tmp_path, rows, words):
    (tmp_path / "b.csv").write_text(rows, encoding="utf-8")
    with pytest.raises(InputError, match=words):
        boxes_of(str(tmp_path / "b.csv"))


def test_what_cannot_be_marked(folder, tmp_path):
    with pytest.raises(InputError, match="marks are boxes on photos: where things lie on scenes is known"):
        Caption(marks="boxes.csv")
    (tmp_path / "b.csv").write_text(f"{HEAD}\nstrange.png,dog,{CORNER}\n", encoding="utf-8")
    told = {"captions": str(folder / "captions.csv"), "folder": str(folder), "side": 32, "pieces": 300}
    task = Caption(data="files", **told, marks=str(tmp_path / "b.csv"), boxes=1.0)
    with pytest.raises(InputError, match="has boxes on pictures without a caption, such as strange.png"):
        next(task.batches(seed=0))
    (tmp_path / "c.csv").write_text(f"{HEAD}\n0.png,zebra,{CORNER}\n", encoding="utf-8")
    task = Caption(data="files", **told, marks=str(tmp_path / "c.csv"))
    with pytest.raises(InputError, match="no word that was said on these pictures has a box: mark words as they are"):
        task.evidence(task.model("captioner", width=16, hidden=24).eval(), "valid")
