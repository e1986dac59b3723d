"""Recurrent entity network (Henaff et al. 2017): slots that follow a story, each for an entity of its own.

    s_t = sum of f_i * word_i        the slots take in s_1, s_2, … (`recuerdo.memory.entities`)
    u = read(question, slots, slots)          answer: R prelu(question + H u)

A story is read once. Each of its questions is answered from the slots as they were when it was asked.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from recuerdo.errors import InputError
from recuerdo.memory.entities import Entities
from recuerdo.memory.slots import Look
from recuerdo.nn.sentences import Answers, Sentences, StoryBatch, all_ones


class EntNet(nn.Module):
    """Answers questions from `slots` entity slots.

    The keys of the slots are free, or tied to words: `entities` gives the numbers of the words, and there is a slot for
    each. In the paper an answer has a vector of its own; with `answer_words` (see `recuerdo.nn.sentences.Answers`) it
    has that of its word. Raises InputError for no slots.
    """

    entities: Tensor

    def __init__(
        self,
        vocabulary_size: int,
        answers: int,
        *,
        width: int = 100,
        slots: int = 20,
        entities: Sequence[int] = (),
        longest: int = 12,
        answer_words: Sequence[int] = (),
    ):
        super().__init__()
        if not entities and slots < 1:
            raise InputError(f"an entity network needs at least 1 slot, not {slots}")
        self.linear = False
        self.encode = Sentences(vocabulary_size, width, longest=longest, weights=all_ones, learned=True)
        self.ask = nn.Parameter(torch.ones(longest, width))  # questions have position weights of their own
        self.keys = None if entities else nn.Parameter(0.1 * torch.randn(slots, width))
        self.register_buffer("entities", torch.tensor(list(entities), dtype=torch.int64), persistent=False)
        self.memory = Entities(width)
        self.recall = Look()
        self.found = nn.Parameter(0.1 * torch.randn(width, width))  # H
        self.slope = nn.Parameter(torch.ones(1))
        self.answers = Answers(answers, width, answer_words)  # R

    def forward(self, stories: StoryBatch) -> Tensor:
        """Logits of the answers, [b, q, answers]."""
        b, q = stories.question.shape
        told = functional.embedding(stories.sentence, self.encode(stories.words)[:, 0])  # [b, s, d]
        keys = self.encode.words.index_select(0, self.entities) if self.keys is None else self.keys
        states = self.memory(told, keys).flatten(0, 1)  # [b * (s + 1), n, d]
        first = torch.arange(b, device=stories.before.device)[:, None] * (told.shape[1] + 1)
        slots = states.index_select(0, (first + stories.before).reshape(-1))  # [b * q, n, d]
        asked = self.encode.with_places(stories.words[stories.question.reshape(-1)], self.ask)[:, 0]
        found = self.recall(asked, slots, slots)
        found = functional.prelu(asked + found @ self.found.mT, self.slope)
        return self.answers(found, self.encode.words).view(b, q, -1)
