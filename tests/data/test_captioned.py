"""Folders of captioned pictures, in every form that data sets have."""

import json

import pytest
import torch

from recuerdo.data.captioned import Captioned, Pictures, captioned, split_of
from recuerdo.errors import InputError

FORMS = {
    "flickr8k.csv": 'image,caption\na.jpg,A dog , running .\nb.jpg,"Two ""big"" cats, asleep"\na.jpg,A dog .\n',
    "quoted.csv": '"image","caption"\n"a.jpg","A dog , running ."\n\n"b.jpg","Two ""big""\ncats, asleep"\n"a.jpg","A dog ."',
    "flickr8k.token": 'a.jpg#0\tA dog , running .\nb.jpg#0\tTwo "big" cats, asleep\na.jpg#1\tA dog .\n',
    "flickr30k.csv": "image_name| comment_number| comment\na.jpg| 0| A dog , running .\n"
    'b.jpg| 0| Two "big" cats, asleep\na.jpg| 1| A dog .\n',
    "coco.json": json.dumps(
        {
            "images": [{"id": 7, "file_name": "a.jpg"}, {"id": 2, "file_name": "b.jpg"}],
            "annotations": [
                {"image_id": 7, "caption": "A dog , running ."},
                {"image_id": 2, "caption": 'Two "big" cats, asleep'},
                {"image_id": 7, "caption": "A dog ."},
            ],
        }
    ),
}


@pytest.fixture
def folder(tmp_path):
    for name in ("a.jpg", "b.jpg"):
        (tmp_path / name).touch()
    return tmp_path


@pytest.mark.parametrize("form", FORMS)
def test_every_form_tells_the_same(form, folder):
    (folder / form).write_text(FORMS[form], encoding="utf-8")
    assert captioned(str(folder / form), str(folder)) == (
        Captioned(folder / "a.jpg", ("A dog , running .", "A dog .")),
        Captioned(folder / "b.jpg", ('Two "big" cats, asleep',)),
    )


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "there is no picture with a caption in"),
        ("image,caption\n", "there is no picture with a caption in"),
        ("image,caption\na.jpg\n", "row 1 of .* has no picture and caption"),
        ("image_name| comment_number| comment\na.jpg| 0| x\nb.jpg| 1\n", "row 2 of .* has no picture and caption"),
        ("a.jpg A dog", "row 1 of .* has no picture and caption"),
        ("image,caption\nc.jpg,A cow\n", r"1 of the 1 pictures of .* are not there, such as .*c\.jpg"),
        (
            'image,caption\na.jpg,"A dog\nb.jpg,A cat\n',
            r"is no CSV near line 3 \(unexpected end of data\): a caption that",
        ),
        ('image,caption\na.jpg,"A dog\nb.jpg,"A cat\n', "is no CSV near line 3 .*and those inside are doubled"),
        (f"image,caption\na.jpg,{'x' * 200_000}\n", r"is no CSV near line 2 \(field larger than"),
        ("{", "is no captions file of COCO"),
        ('{"images": [], "annotations": [{"image_id": 1, "caption": "x"}]}', "is no captions file of COCO"),
    ],
)
def test_other_files_are_told_in_one_line(text, words, folder):
    (folder / "x.csv").write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match=words):
        captioned(str(folder / "x.csv"), str(folder))


def test_splits_part_the_pictures_and_stay_where_others_come(tmp_path):
    told = [Captioned(tmp_path / f"{i}.jpg", ("x",)) for i in range(100)]
    parts = {name: {one.path.name for one in split_of(told, name)} for name in ("train", "valid", "test")}
    assert [len(parts[name]) for name in ("train", "valid", "test")] == [80, 10, 10]
    assert len(set.union(*parts.values())) == 100
    assert parts["test"] == {one.path.name for one in split_of(told[::-1], "test")}
    with pytest.raises(InputError, match="there is no split 'dev' of the pictures: choose train, valid, test"):
        split_of(told, "dev")
    with pytest.raises(InputError, match="2 pictures leave none for valid: give 10 or more"):
        split_of(told[:2], "valid")


def test_a_batch_counts_its_pieces_and_parts():
    batch = Pictures(torch.zeros(3, 1), torch.tensor([[5, 6, 7, 2], [8, 2, 0, 0], [9, 2, 0, 0]]))
    assert len(batch) == 8
    assert batch.told.tolist() == [[1, 5, 6, 7], [1, 8, 0, 0], [1, 9, 0, 0]]
    parts = batch.split(2)
    assert [part.target.shape for part in parts] == [(2, 4), (1, 2)]
    assert sum(map(len, parts)) == len(batch)
    assert torch.equal(batch.to(torch.device("cpu")).target, batch.target)
