"""MemN2N, the end-to-end memory network of Sukhbaatar et al. 2015: a question reads the sentences in k hops.

    keys_k   = A_k(sentence) + T^A_k(age)        u_0 = B(question)
    values_k = C_k(sentence) + T^C_k(age)        u_k = u_(k-1) + read(u_(k-1), keys_k, values_k)

A sentence is a sum of word vectors weighed by position (PE). Ages count from the question backwards, newest = 0; while
training, empty sentences are put in between at random, so that ages cannot be learned by heart (RN). `linear` takes the
softmax out of the hops, which is how training starts (LS).
"""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from recuerdo.errors import InputError
from recuerdo.memory.slots import Look, look_at
from recuerdo.nn.ages import Ages
from recuerdo.nn.sentences import Answers, Sentences, StoryBatch

Tying = Literal["adjacent", "layerwise"]


class MemN2N(nn.Module):
    """Answers questions from the newest `memory` sentences before them.

    `tying`: "adjacent" (the values of a hop are the keys of the next; the question is encoded like the first keys) or
    "layerwise" (all hops share keys and values, and a matrix maps the query from hop to hop). `noise`: at most this
    share of empty sentences while training. `answer_words`: see `recuerdo.nn.sentences.Answers`.

    The memory has `memory` slots, and the softmax of a hop goes over all of them, as in the authors' code: empty slots
    are zeros and take their share. Without them the error on bAbI-1k is several points higher.

    Raises InputError for no hops, an unknown tying, a memory below 1.
    """

    def __init__(
        self,
        vocabulary_size: int,
        answers: int,
        *,
        width: int = 50,
        hops: int = 3,
        tying: Tying = "adjacent",
        memory: int = 50,
        noise: float = 0.1,
        answer_words: Sequence[int] = (),
    ):
        super().__init__()
        if hops < 1:
            raise InputError(f"a memory network needs at least 1 hop, not {hops}")
        if tying not in ("adjacent", "layerwise"):
            raise InputError(f"there is no tying {tying!r}: choose adjacent or layerwise")
        self.linear, self.tying = False, tying
        # Tables of words: adjacent A_1 = B, C_1 = A_2, …, C_k; layer-wise A, C, B.
        sides = hops + 1 if tying == "adjacent" else 2
        tables = hops + 1 if tying == "adjacent" else 3
        self.encode = Sentences(vocabulary_size, width, tables=tables)
        self.ages = Ages(width, tables=sides, memory=memory, noise=noise)
        self.hops = nn.ModuleList(Look() for _ in range(hops))
        self.between = nn.Parameter(0.1 * torch.randn(width, width)) if tying == "layerwise" else None
        self.answers = Answers(answers, width, answer_words)

    def forward(self, stories: StoryBatch) -> Tensor:
        """Logits of the answers, [b, q, answers]."""
        b, q = stories.question.shape
        s = stories.sentence.shape[1]
        encoded = self.encode(stories.words)  # [u, tables, d]
        asked = encoded[:, 0 if self.between is None else 2].index_select(0, stories.question.reshape(-1))
        aged, seen = self.ages(stories.before.reshape(-1), s)
        rows = stories.sentence[:, None].expand(b, q, s).reshape(-1)
        flat = encoded[:, : aged.shape[2]].flatten(1)
        memory = flat.index_select(0, rows).view_as(aged) + aged  # [b * q, s, sides, d]
        sides = memory.unbind(2)
        normalise = look_at(seen, self.ages.memory, self.linear)
        for i, look in enumerate(self.hops):
            key, value = (sides[i], sides[i + 1]) if self.between is None else sides
            found = look(asked, key, value, seen=seen, normalise=normalise)
            asked = (asked if self.between is None else asked @ self.between.mT) + found
        # An answer that is a word has the vector of that word among the last values.
        last, width = aged.shape[2] - 1, self.encode.width
        return self.answers(asked, self.encode.words[:, last * width : (last + 1) * width]).view(b, q, -1)
