"""Improve the parameters of a model: one small, visible loop that yields what happens."""

from recuerdo.train.checkpoint import load_checkpoint, save_checkpoint
from recuerdo.train.device import Part, World, world
from recuerdo.train.fit import Checked, Saved, Step, fit, rounds
from recuerdo.train.optimise import Pace, State, mixed

__all__ = [
    "Checked",
    "Pace",
    "Part",
    "Saved",
    "State",
    "Step",
    "World",
    "fit",
    "load_checkpoint",
    "mixed",
    "rounds",
    "save_checkpoint",
    "world",
]
