"""Key-value memory network (Miller et al. 2016): sentences are found by one encoding and read by another.

    q_1 = A(question)      keys = A(sentence) + age      values = V(sentence) + age
    o_j = read(q_j, keys, values)      q_(j+1) = R_j (q_j + o_j)      answer: q_(k+1) against the answers

Keys and questions share their word vectors, weighed by position, so that what was asked finds what was said. Values
have their own vectors, and learn which positions of a sentence are worth telling (in the paper the middle of a window).
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from recuerdo.errors import InputError
from recuerdo.memory.slots import Look, look_at
from recuerdo.nn.ages import Ages
from recuerdo.nn.sentences import Answers, Sentences, StoryBatch, all_ones


class KeyValue(nn.Module):
    """Answers questions from the newest `memory` sentences before them, in `hops` looks.

    `answer_words`: see `recuerdo.nn.sentences.Answers`. Raises InputError for no hops and a memory below 1.
    """

    def __init__(
        self,
        vocabulary_size: int,
        answers: int,
        *,
        width: int = 50,
        hops: int = 3,
        memory: int = 50,
        noise: float = 0.1,
        longest: int = 12,
        answer_words: Sequence[int] = (),
    ):
        super().__init__()
        if hops < 1:
            raise InputError(f"a memory network needs at least 1 hop, not {hops}")
        self.linear = False
        self.keys = Sentences(vocabulary_size, width, longest=longest)
        self.values = Sentences(vocabulary_size, width, longest=longest, weights=all_ones, learned=True)
        self.ages = Ages(width, tables=2, memory=memory, noise=noise)
        self.hops = nn.ModuleList(Look() for _ in range(hops))
        # Near the identity, so that the first steps keep what was asked.
        self.turns = nn.Parameter(torch.eye(width).repeat(hops, 1, 1) + 0.1 * torch.randn(hops, width, width))
        self.answers = Answers(answers, width, answer_words)

    def forward(self, stories: StoryBatch) -> Tensor:
        """Logits of the answers, [b, q, answers]."""
        b, q = stories.question.shape
        s = stories.sentence.shape[1]
        keys = self.keys(stories.words)  # [u, 1, d]
        asked = keys[:, 0].index_select(0, stories.question.reshape(-1))
        aged, seen = self.ages(stories.before.reshape(-1), s)
        rows = stories.sentence[:, None].expand(b, q, s).reshape(-1)
        both = torch.cat([keys, self.values(stories.words)], 1).flatten(1)
        key, value = (both.index_select(0, rows).view_as(aged) + aged).unbind(2)  # each [b * q, s, d]
        normalise = look_at(seen, self.ages.memory, self.linear)
        for look, turn in zip(self.hops, self.turns, strict=True):
            asked = (asked + look(asked, key, value, seen=seen, normalise=normalise)) @ turn.mT
        return self.answers(asked, self.values.words).view(b, q, -1)
