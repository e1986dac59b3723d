"""Dropout whose masks are cheap on a CPU: one random number decides about eight values.

`torch.nn.Dropout` draws a number of 32 bits or more for each value, which in a small Transformer takes longer than its
products. Here each value has a byte of its own of a random number of 64 bits, so the rate is a multiple of 1/256, the
nearest; what stays is scaled by that very rate, and the mean of a value is what it was. Masks are fresh and independent
(Srivastava et al. 2014), and follow torch's seed.
"""

import torch
from torch import Tensor, nn

from recuerdo.errors import InputError

STEPS = 256
LOWEST = -(2**63)


class Dropout(nn.Module):
    """In training, each value is 0 with probability `rate`, and scaled up where it stays; otherwise the values as they
    are. Raises InputError for a rate that is not from 0 to below 1."""

    def __init__(self, rate: float):
        super().__init__()
        self.out_of_256 = round(rate * STEPS)
        if not (rate >= 0 and self.out_of_256 < STEPS):
            raise InputError(f"a dropout rate is from 0 to below 1, not {rate}")

    def forward(self, x: Tensor) -> Tensor:
        """Any shape -> the same."""
        if not self.training or not self.out_of_256:
            return x
        words = torch.empty(-(-x.numel() // 8), dtype=torch.int64, device=x.device).random_(LOWEST, None)
        stays = words.view(torch.uint8)[: x.numel()].view(x.shape) >= self.out_of_256
        return x * stays.to(x.dtype).mul_(STEPS / (STEPS - self.out_of_256))

    def extra_repr(self) -> str:
        """The rate."""
        return f"rate={self.out_of_256 / STEPS:.3f}"
