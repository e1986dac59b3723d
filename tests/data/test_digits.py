"""IDX files that are right, wrong and hostile; canvases whose digit is where they say, and nothing else is."""

import gzip
import os
import struct
from pathlib import Path

import pytest
import torch

from recuerdo.data.digits import Canvas, digits, idx
from recuerdo.errors import InputError

DATA = Path(os.environ.get("RECUERDO_DATA", Path(__file__).resolve().parents[3] / "shared/data"))


def packed(shape, body, kind=8):
    return bytes([0, 0, kind, len(shape)]) + struct.pack(f">{len(shape)}I", *shape) + bytes(body)


def test_idx_packed_or_not(tmp_path):
    told = packed((2, 3), range(6))
    for name, content in (("a", told), ("a.gz", gzip.compress(told))):
        (tmp_path / name).write_bytes(content)
        assert idx(tmp_path / name).tolist() == [[0, 1, 2], [3, 4, 5]]
    (tmp_path / "none").write_bytes(packed((0, 28, 28), []))
    assert idx(tmp_path / "none").shape == (0, 28, 28)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is no IDX file of bytes"),
        (b"\0\0\x08", "is no IDX file of bytes"),
        (packed((2, 3), range(6), kind=13), "is no IDX file of bytes"),
        (packed((2, 3), range(5)), "holds 5 numbers and promises 2 x 3"),
        (packed((2, 3), range(7)), "holds 7 numbers and promises 2 x 3"),
        (packed((2**32 - 1,) * 3, range(7)), "holds 7 numbers and promises 4294967295 x"),
        (packed((1,) * 3, [])[:9], "is no IDX file of bytes"),
        (gzip.compress(packed((2, 3), range(6)))[:-9], "cannot be read"),
        (b"\x1f\x8bnot packed", "cannot be read"),
    ],
)
def test_what_is_no_idx_is_one_line(tmp_path, content, words):
    (tmp_path / "x.gz").write_bytes(content)
    with pytest.raises(InputError, match=words):
        idx(tmp_path / "x.gz")


def test_files_that_are_not_there_or_do_not_fit(tmp_path, monkeypatch):
    with pytest.raises(InputError, match="cannot be read"):
        digits("train", str(tmp_path))
    monkeypatch.setenv("RECUERDO_DATA", str(tmp_path))
    with pytest.raises(InputError, match="fetch them with `recuerdo data get mnist`, or set RECUERDO_DATA"):
        digits("train")
    with pytest.raises(
        InputError, match="the pictures of fashion-mnist are not here: fetch them with `recuerdo data ge"
    ):
        digits("test", "fashion-mnist")
    clothes = tmp_path / "fashion-mnist"
    clothes.mkdir()
    (clothes / "t10k-images-idx3-ubyte.gz").write_bytes(packed((2, 28, 28), [7] * 2 * 784))
    (clothes / "t10k-labels-idx1-ubyte.gz").write_bytes(packed((2,), [3, 9]))
    assert digits("test", "fashion-mnist").labels.tolist() == [3, 9]
    with pytest.raises(InputError, match="there is no split 'exam' of the digits"):
        digits("exam")
    plain = tmp_path / "plain"
    plain.mkdir()
    for kind, told in (("images-idx3", packed((2, 28, 28), [7] * 2 * 784)), ("labels-idx1", packed((2,), [3, 54]))):
        (plain / f"t10k-{kind}-ubyte").write_bytes(told)
    with pytest.raises(InputError, match="the labels of t10k in .*plain go up to 54: digits are 0 to 9"):
        digits("test", str(plain))
    (tmp_path / "t10k-images-idx3-ubyte.gz").write_bytes(packed((2, 28, 28), [0] * 2 * 784))
    (tmp_path / "t10k-labels-idx1-ubyte.gz").write_bytes(packed((3,), [0] * 3))
    with pytest.raises(InputError, match="do not fit together"):
        digits("test", str(tmp_path))


def some(count, seed=0):
    """Blocks that are nowhere black, one grey for each."""
    return (torch.arange(count) % 200 + 20).to(torch.uint8)[:, None, None].expand(count, 28, 28).contiguous()


def test_a_digit_lies_in_its_box_and_pieces_lie_around():
    canvas, marks = Canvas(60, clutter=4), some(50)
    draw = torch.Generator().manual_seed(1)
    found = canvas.lay(marks, torch.arange(50), torch.full((5, 28, 28), 7, dtype=torch.uint8), draw)
    assert found.pixels.shape == (50, 60, 60)
    for picture, (top, left, bottom, right), mark in zip(found.pixels, found.boxes.tolist(), marks, strict=True):
        assert (bottom - top, right - left) == (28, 28)
        assert torch.equal(picture[top:bottom, left:right], mark)  # the lighter of both
        around = picture.clone()
        around[top:bottom, left:right] = 0
        assert set(around.unique().tolist()) <= {0, 7}
        assert (around == 7).sum() <= 4 * 64
    assert len({tuple(box) for box in found.boxes.tolist()}) > 40
    again = canvas.lay(marks, torch.arange(50), torch.full((5, 28, 28), 7, dtype=torch.uint8), draw.manual_seed(1))
    assert torch.equal(found.pixels, again.pixels)


def test_a_canvas_of_28_is_the_digit_itself():
    found = Canvas().lay(some(3), torch.arange(3), some(3), torch.Generator())
    assert torch.equal(found.pixels, some(3))
    assert found.boxes.tolist() == [[0, 0, 28, 28]] * 3


def test_changed_digits_keep_their_middle_and_change():
    marks = torch.zeros(40, 28, 28, dtype=torch.uint8)
    marks[:, 6:22, 10:18] = 255
    found = Canvas(turned=15, scaled=0.1, moved=2).lay(marks, torch.zeros(40), marks, torch.Generator().manual_seed(0))
    light = found.pixels.double().sum((1, 2))
    assert ((light / marks[0].double().sum() - 1).abs() < 0.35).all()
    across = (found.pixels.double().sum(1) * torch.arange(28)).sum(1) / light
    assert ((across - 13.5).abs() < 2.8).all()
    assert across.std() > 0.5
    assert len({picture.numpy().tobytes() for picture in found.pixels}) == 40


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"side": 27}, "a side of 28 to 4096 pixels, not 27"),
        ({"side": 5000}, "a side of 28 to 4096 pixels, not 5000"),
        ({"clutter": -1}, "clutter is 0 or more"),
        ({"piece": 29}, "a side of 1 to 28"),
        ({"scaled": 1.0}, "scaled is a share"),
    ],
)
def test_canvases_that_cannot_be(wrong, words):
    with pytest.raises(InputError, match=words):
        Canvas(**wrong)


def test_mnist():
    if not (DATA / "mnist").is_dir():
        pytest.skip(f"needs the data in {DATA}: set RECUERDO_DATA to the folder that holds mnist/")
    parts = {split: digits(split, str(DATA / "mnist")) for split in ("train", "valid", "test")}
    assert [len(part) for part in parts.values()] == [55_000, 5_000, 10_000]
    assert parts["test"].labels[:5].tolist() == [7, 2, 1, 0, 4]
    for part in parts.values():
        assert torch.bincount(part.labels, minlength=10).min() > len(part) * 0.08
