"""Checkpoints: what is written is read, whole or not at all, and damage is told."""

import errno
import json
import os
import struct
from pathlib import Path

import pytest
import torch
from torch import nn

from recuerdo.errors import RunError
from recuerdo.train import Pace, State, checkpoint, fit
from recuerdo.train.checkpoint import load_checkpoint, load_model, model_tensors, replace_file, save_checkpoint


@pytest.fixture
def tensors():
    return {
        "model.a": torch.randn(3, 4),
        "model.half": torch.randn(5).bfloat16(),
        "optimiser.a.step": torch.tensor(7.0),
        "model.turned": torch.randn(3, 4).T,
        "model.which": torch.tensor([True, False]),
        "model.none": torch.zeros(0, 3),
    }


def test_what_is_written_is_read(tmp_path, tensors):
    numbers = {"number": 3, "least": None, "best": {"numbers": {"error": 1.5}}}
    path = save_checkpoint(tmp_path / "last.safetensors", tensors, numbers)
    found, told = load_checkpoint(path)
    assert told == numbers
    assert found.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert torch.equal(found[name], tensor)
        assert found[name].dtype == tensor.dtype
    assert [p.name for p in tmp_path.iterdir()] == ["last.safetensors"]


def test_it_is_a_plain_safetensors_file(tmp_path, tensors):
    """Another reader opens it; nothing in it is a pickle."""
    from safetensors.numpy import load_file

    tensors.pop("model.half")
    path = save_checkpoint(tmp_path / "x.safetensors", tensors, {})
    assert load_file(path)["model.a"].tolist() == tensors["model.a"].tolist()
    header = json.loads(path.read_bytes()[8 : 8 + struct.unpack("<Q", path.read_bytes()[:8])[0]])
    told = json.loads(header["__metadata__"]["recuerdo"])
    assert (told["format"], len(told["sha256"])) == (1, 64)
    assert torch.__version__ == told["torch"]


def test_tied_parameters_stay_equal(tmp_path):
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    model[1].weight = model[0].weight
    path = save_checkpoint(tmp_path / "x.safetensors", model_tensors(model), {})
    other = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    other[1].weight = other[0].weight
    load_model(other, load_checkpoint(path)[0], path)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), other.parameters(), strict=True))
    assert other[1].weight is other[0].weight


# ---------------------------------------------------------------------------------------------------------- damage


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty", "text", "header", "no json", "huge header"])
def test_damage_is_told(tmp_path, tensors, damage):
    path = save_checkpoint(tmp_path / "last.safetensors", tensors, {"number": 1})
    good = path.read_bytes()
    other = bytearray(good)
    other[-5] ^= 1
    bad = {
        "cut": good[:-9],
        "flipped": bytes(other),
        "empty": b"",
        "text": b"hello, this is no tensor",
        "header": good.replace(b"sha256", b"sha255"),
        "no json": good.replace(b'"recuerdo":"{', b'"recuerdo":"x'),
        "huge header": struct.pack("<Q", 2**62) + good[8:],
    }[damage]
    path.write_bytes(bad)
    with pytest.raises(RunError, match=r"last.safetensors is damaged .*delete it to train again from the start$"):
        load_checkpoint(path)
    (tmp_path / "best.safetensors").write_bytes(good)
    with pytest.raises(RunError, match="best.safetensors beside it is another one"):
        load_checkpoint(path)
    path.write_bytes(good)
    (tmp_path / "best.safetensors").write_bytes(bad)
    with pytest.raises(RunError, match=r"--last` asks last.safetensors; delete both to train again from the start$"):
        load_checkpoint(tmp_path / "best.safetensors")


def test_no_file_and_another_format(tmp_path, tensors, monkeypatch):
    with pytest.raises(RunError, match="there is no checkpoint .*last.safetensors: train first"):
        load_checkpoint(tmp_path / "last.safetensors")
    monkeypatch.setattr(checkpoint, "FORMAT", 2)
    path = save_checkpoint(tmp_path / "x.safetensors", tensors, {})
    monkeypatch.undo()
    with pytest.raises(RunError, match="has format 2, and this recuerdo reads 1: update recuerdo"):
        load_checkpoint(path)


def test_what_is_not_finite_is_not_written(tmp_path, tensors):
    path = save_checkpoint(tmp_path / "x.safetensors", tensors, {"number": 1})
    tensors["model.a"][0, 0] = float("nan")
    with pytest.raises(
        RunError, match=r"model\.a is not finite, so .* was not written: what was saved before is still"
    ):
        save_checkpoint(path, tensors, {"number": 2})
    assert load_checkpoint(path)[1] == {"number": 1}


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (nn.Linear(3, 2, bias=False), "holds bias: it is of another model, so use the recipe beside it"),
        (nn.Sequential(nn.Linear(3, 2)), "does not hold 0.bias: it is of another model"),
        (nn.Linear(4, 2), r"weight of .* has another shape (\[2, 3\] there, \[2, 4\] in the model)"),
    ],
)
def test_another_model_is_refused(tmp_path, model, words):
    path = save_checkpoint(tmp_path / "x.safetensors", model_tensors(nn.Linear(3, 2)), {})
    before = {name: t.clone() for name, t in model.state_dict().items()}
    with pytest.raises(RunError, match=words.replace("(", r"\(").replace(")", r"\)")):
        load_model(model, load_checkpoint(path)[0], path)
    assert all(torch.equal(t, before[name]) for name, t in model.state_dict().items())


# ------------------------------------------------------------------------------------------------------------ the disk


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.ENOSPC, "the disk with .* is full: make room and go on; what was saved before is still there"),
        (errno.EDQUOT, "is full: make room"),
        (errno.EACCES, "cannot be written .Permission denied.: name another folder with --out"),
    ],
)
@pytest.mark.parametrize("where", ["write", "fsync", "replace"])
def test_a_disk_that_fails_leaves_what_was_there(tmp_path, tensors, monkeypatch, number, words, where):
    path = save_checkpoint(tmp_path / "last.safetensors", tensors, {"number": 1})

    def fails(*_, **__):
        raise OSError(number, os.strerror(number))

    place = {"write": "pathlib.Path.open", "fsync": "os.fsync", "replace": "pathlib.Path.replace"}[where]
    monkeypatch.setattr(place, fails)
    with pytest.raises(RunError, match=words):
        save_checkpoint(path, tensors, {"number": 2})
    monkeypatch.undo()
    assert [p.name for p in tmp_path.iterdir()] == ["last.safetensors"]
    assert load_checkpoint(path)[1] == {"number": 1}


def test_a_really_full_disk(tmp_path):
    """/dev/full takes nothing: the words are those of the system's own error."""
    if not os.path.exists("/dev/full"):
        pytest.skip("no /dev/full here")
    (tmp_path / "last.safetensors.part").symlink_to("/dev/full")
    with pytest.raises(RunError, match="is full: make room"):
        replace_file(tmp_path / "last.safetensors", b"x" * 100)
    assert not list(tmp_path.iterdir())


# ------------------------------------------------------------------------------------------------------- old checkpoints


def test_a_checkpoint_of_format_1_is_read_forever():
    """Written once and kept: two steps of AdamW with an average."""
    path = Path(__file__).with_name("fixtures") / "format-1.safetensors"
    tensors, numbers = load_checkpoint(path)
    assert numbers["best"] == {"number": 2, "numbers": {"error": 1.5}}
    model = nn.Linear(2, 2)
    load_model(model, tensors, path)
    state = State(dict(model.named_parameters()), Pace(4, average=0.5), seed=1)
    state.load(tensors, numbers)
    assert state.number == 2
    batches = ([torch.ones(2)] for _ in range(9))
    events = list(fit(lambda x: model(x).square().sum(), model.parameters(), batches, state.pace, state=state))
    assert [event.number for event in events] == [3, 4]
    before = tensors["model.weight"].sum(1) + tensors["model.bias"]
    assert events[0].loss == pytest.approx(before.square().sum().item(), rel=1e-5)
