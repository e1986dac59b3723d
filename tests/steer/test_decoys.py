"""A network that decoys fooled learns from 100 marked boxes to leave them alone (a short one; benchmarks/decoys.py in full)."""

import gzip
import os
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from recuerdo.steer.cells import box_mask
from recuerdo.steer.losses import right_reasons
from recuerdo.steer.marks import Box

pytestmark = pytest.mark.data
DATA = Path(os.environ.get("RECUERDO_DATA", Path(__file__).resolve().parents[3] / "shared/data")) / "mnist"
CORNERS = [Box(x, y, x + 1 / 7, y + 1 / 7) for x in (0, 6 / 7) for y in (0, 6 / 7)]


def images(part: str, count: int):
    """The first pixels [n, 28, 28], 0 to 1, and labels [n] of MNIST."""

    def read(what, header, size):
        file = DATA / f"{part}-{what}-ubyte.gz"
        if not file.is_file():
            pytest.skip(f"needs MNIST in {DATA}: set RECUERDO_DATA to the folder that holds mnist/")
        with gzip.open(file) as opened:
            return torch.frombuffer(bytearray(opened.read(header + count * size)[header:]), dtype=torch.uint8)

    return read("images-idx3", 16, 784).view(-1, 28, 28) / 255, read("labels-idx1", 8, 1).long()


def with_decoys(pixels, shades):
    """A swatch in a random corner, 255 - 25 x shade; and where it is, bool [n, 28, 28]."""
    where = torch.stack([box_mask(box, 28, 28) for box in CORNERS])[torch.randint(4, shades.shape)]
    return torch.where(where, ((255 - 25 * shades) / 255)[:, None, None], pixels), where


def trained(pixels, labels, shown=None, wrong=None):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(784, 50), nn.ReLU(), nn.Linear(50, 30), nn.ReLU(), nn.Linear(30, 10))
    optimiser = torch.optim.Adam(model.parameters(), lr=4e-3)
    for _ in range(4):
        for index in torch.randperm(len(labels))[: len(labels) // 128 * 128].view(-1, 128):
            loss = cross_entropy(model(pixels[index]), labels[index])
            if shown is not None:
                loss = loss + 10 * right_reasons(model(shown).log_softmax(-1), shown, wrong)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    return model


def test_a_hundred_marks_undo_what_decoys_taught():
    torch.manual_seed(0)
    clean, labels = images("train", 9_600)
    test, answers = images("t10k", 4_000)
    fooling, where = with_decoys(clean, labels)
    assert bool(where[:100].any(0)[[0, 0, -1, -1], [0, -1, 0, -1]].all()), "the marks must hold every corner"
    randomised, _ = with_decoys(test, torch.randint(10, answers.shape))

    def right(model, pixels):
        return (model(pixels).argmax(-1) == answers).float().mean()

    reached = right(trained(clean, labels), test)
    fooled = right(trained(fooling, labels), randomised)
    taught = right(trained(fooling, labels, fooling[:100].requires_grad_(), where[:100]), randomised)
    assert reached > 0.85
    assert fooled < 0.8 * reached
    assert taught >= 0.95 * reached
