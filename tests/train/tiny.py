"""A task that takes no time: say which of five classes a vector is near. Tests in subprocesses import it by path."""

import itertools
import os
import signal
from dataclasses import dataclass

import torch
from torch import nn


@dataclass(frozen=True, eq=False)
class Points:
    points: torch.Tensor
    classes: torch.Tensor

    def __len__(self):
        return len(self.classes)

    def split(self, n):
        sizes = [len(part) for part in torch.arange(len(self)).tensor_split(n)]
        pairs = zip(self.points.split(sizes), self.classes.split(sizes), strict=True)
        return [Points(*pair) for pair in pairs if len(pair[0])]

    def to(self, device):
        return Points(self.points.to(device), self.classes.to(device))


class Net(nn.Module):
    def __init__(self, width_in: int, classes: int, *, width: int = 8, dropout: float = 0.0, noise: float = 0.0):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(width_in, width), nn.Tanh(), nn.Dropout(dropout), nn.Linear(width, classes)
        )
        self.register_buffer("seen", torch.zeros(()))
        self.linear = False
        self.noise = noise

    def forward(self, points):
        if self.training:
            self.seen += 1
            points = points + self.noise * torch.randn_like(points)
        return self.layers[0::3](points) if self.linear else self.layers(points)


MODELS = {"net": Net}


@dataclass(frozen=True)
class Tiny:
    size: int = 16
    classes: int = 5
    fail_at: int = 0  # the loss of this batch is not a number
    die_at: int = 0  # the process is killed in this batch

    def model(self, name, **arguments):
        return MODELS[name](6, self.classes, **arguments)

    def _draw(self, seed, size):
        draw = torch.Generator().manual_seed(seed)
        centres = torch.randn(self.classes, 6, generator=torch.Generator().manual_seed(0))
        classes = torch.randint(0, self.classes, (size,), generator=draw)
        return Points(centres[classes] + 0.3 * torch.randn(size, 6, generator=draw), classes)

    def batches(self, *, seed, start=0):
        for number in itertools.count(start):
            if self.die_at and number == self.die_at:
                os.kill(os.getpid(), signal.SIGKILL)
            batch = self._draw(1000 * seed + number + 10, self.size + number % 3)
            yield Points(batch.points * float("nan"), batch.classes) if number + 1 == self.fail_at else batch

    def loss(self, model, batch):
        return {"class": nn.functional.cross_entropy(model(batch.points), batch.classes)}

    def check(self, model, split):
        held = self._draw({"valid": 1, "test": 2}[split], 200)
        logits = model(held.points)
        wrong = 100 * (logits.argmax(-1) != held.classes).float().mean().item()
        return {"loss": nn.functional.cross_entropy(logits, held.classes).item(), "error": wrong}

    def evidence(self, model, split):
        return {"hit": 100.0 if split == "test" else 50.0}

    def predict(self, model, *, question, story="", boost=(), mute=()):
        return Answer(f"{question} {story.strip()} {len(boost)} {len(mute)}")

    def by_length(self, model, split):
        return [
            {"from": 1, "to": 5, "pairs": self.classes, "BLEU": 50.5},
            {"from": 6, "to": 0, "pairs": 1, "BLEU": 9.5},
        ]

    def draw(self, model, text, *, count, choose):
        return [(f"{text} {choose.temperature} {choose.seed}", -1.5)] * count

    def stream(self, model, text):
        yield from text.upper()

    def say_lines(self, model, texts):
        return (text.upper() for text in texts)


@dataclass(frozen=True)
class Answer:
    said: str

    def text(self):
        return self.said

    def as_json(self):
        return {"answer": self.said}

    def html(self):
        return f"<p>{self.said}</p>"


class Bare:
    """No dataclass, so no task."""
