"""Improve the parameters of a model: one small, visible loop that yields what happens."""

from recuerdo.train.fit import Checked, Pace, Saved, Step, fit, rounds

__all__ = ["Checked", "Pace", "Saved", "Step", "fit", "rounds"]
