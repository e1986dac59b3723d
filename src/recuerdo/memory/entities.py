"""Gated entity slots (Henaff et al. 2017): every sentence changes the slots that it concerns.

    gate_j = sigmoid(s . (h_j + w_j))     new_j = prelu(U h_j + V w_j + W s)     h_j <- unit(h_j + gate_j * new_j)

A slot j has a key w_j, which entity it is for, and a content h_j, what is known of it. Dividing by the length is how a
slot forgets: the more it is told, the less is left of what was there.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from recuerdo.read import dot, read, sigmoid

SHORTEST = 1e-4  # below this length a content is not stretched to 1: its gradient would grow without end


class Write(nn.Module):
    """A write as a read: the sentence looks at the slots, and the weights of the look are the gates.

    It has no parameters; it is a module so that the gates have an address and can be bent.
    """

    def forward(self, told: Tensor, slots: Tensor, new: Tensor) -> Tensor:
        """Sentences [b, d], slots (content + key) and their new contents [b, n, d] -> gates [b, n]."""
        reading = read(told[:, None, None], slots[:, None], new[:, None], score=dot, normalise=sigmoid)
        return reading.weights[:, :][:, 0, 0]


class Entities(nn.Module):
    """Slots [b, n, d] that go through a story sentence by sentence."""

    def __init__(self, width: int, *, scale: float = 0.1):
        super().__init__()
        self.content = nn.Parameter(scale * torch.randn(width, width))  # U
        self.key = nn.Parameter(scale * torch.randn(width, width))  # V
        self.sentence = nn.Parameter(scale * torch.randn(width, width))  # W
        self.slope = nn.Parameter(torch.ones(1))  # of the PReLU: it starts as the identity
        self.write = Write()

    def forward(self, told: Tensor, keys: Tensor) -> Tensor:
        """The slots before, between and behind the sentences: told [b, s, d], keys [n, d] -> [b, s + 1, n, d].

        The contents start as the keys. A sentence of zeros opens every gate half: keep padding behind the sentences
        that are asked for.
        """
        b, s, _ = told.shape
        content = keys.expand(b, *keys.shape)
        of_key = keys @ self.key.mT
        of_sentence = told @ self.sentence.mT
        states = [content]
        for t in range(s):
            new = content @ self.content.mT + of_key + of_sentence[:, t, None]
            new = functional.prelu(new, self.slope)
            gate = self.write(told[:, t], content + keys, new)
            content = unit(content + gate[..., None] * new)
            states.append(content)
        return torch.stack(states, 1)


def unit(x: Tensor) -> Tensor:
    """Vectors of length 1. Next to nothing stays next to nothing, with finite gradients."""
    return x * (x.square().sum(-1, keepdim=True) + SHORTEST**2).rsqrt()
