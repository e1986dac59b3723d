"""Where a word stands in a line, as a vector."""

import math

import torch
from torch import Tensor


def sinusoids(first: int, length: int, width: int, like: Tensor) -> Tensor:
    """The places `first`, `first` + 1, … of Vaswani et al. 2017: [length, width], without an end to how many there are.

    Sines and cosines alternate; wavelengths go from 2 pi to 10,000 times that.
    """
    place = torch.arange(first, first + length, device=like.device)[:, None]
    speed = torch.exp(torch.arange(0, width, 2, device=like.device) * -(math.log(1e4) / width))
    angle = place * speed
    return torch.stack([angle.sin(), angle.cos()], -1).flatten(1)[:, :width]
