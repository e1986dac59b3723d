"""Age: how far before the question a sentence stands. What a memory of sentences knows of time."""

import math

import torch
from torch import Tensor, nn

from recuerdo.errors import InputError


class Ages(nn.Module):
    """A vector for each age, and which sentences a question sees at all: the newest `memory` before it.

    Ages count back from the question, newest = 0. While training, empty sentences are put in between at random (random
    noise, Sukhbaatar et al. 2015), at most the share `noise`, so that ages are not learned by heart.

    Raises InputError for a memory below 1 and a share outside 0 to 1.
    """

    def __init__(self, width: int, *, tables: int = 1, memory: int = 50, noise: float = 0.1, scale: float = 0.1):
        super().__init__()
        if memory < 1 or not 0 <= noise < 1:
            raise InputError(f"memory={memory}, noise={noise}: at least 1 sentence, and noise from 0 to below 1")
        self.memory, self.noise = memory, noise
        self.vectors = nn.Parameter(scale * torch.randn(memory, tables, width))

    def forward(self, before: Tensor, sentences: int) -> tuple[Tensor, Tensor]:
        """`before` [n]: how many sentences stand before each question -> vectors [n, s, tables, width], seen [n, s]."""
        back = before[:, None] - 1 - torch.arange(sentences, device=before.device)
        seen = (back >= 0) & (back < self.memory)
        age = self.shifted(back.clamp(0, self.memory - 1), before)
        vectors = self.vectors.flatten(1).index_select(0, age.reshape(-1))
        return vectors.view(*age.shape, *self.vectors.shape[1:]), seen

    def shifted(self, back: Tensor, before: Tensor) -> Tensor:
        """How far back each sentence is, [n, s] -> its age: the same, and while training shifted by empty sentences.

        Of the n sentences that are seen and m empty ones, m drawn from 0 to n * noise (rounded up), in random order,
        the sentences keep their own order.
        """
        if not self.training or not self.noise:
            return back
        count = before.clamp(max=self.memory)
        most = math.ceil(self.memory * self.noise)
        empty = (torch.rand(len(count), device=count.device) * (torch.ceil(count * self.noise) + 1)).long()
        place = torch.arange(self.memory + most, device=count.device)
        draw = torch.rand(len(count), len(place), device=count.device)
        draw = draw.masked_fill(place >= (count + empty)[:, None], 2.0)  # behind the last sentence there is nothing
        drawn = draw.sort(1).indices  # the first `empty` of a row are the places of empty sentences
        taken = (place >= empty[:, None]) & (place < (count + empty)[:, None])
        kept = drawn.masked_fill(~taken, len(place)).sort(1).values  # rising: the ages, newest sentence first
        return kept.gather(1, back).clamp(max=self.memory - 1)
