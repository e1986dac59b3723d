"""The reader: sentences and questions read the sentences before them, again and again, with the same weights. Our own.

It is put together from what solved bAbI before it, each part a value of `read`:

- one block, repeated `steps` times (Universal Transformer, Dehghani et al. 2019), over sentences instead of words;
- heads that take the *nearest* match (stick-breaking: Csordas et al. 2022, Tan et al. 2024), which is "the last thing
  that was said of it", beside softmax heads;
- keys that start equal to queries, so that like finds like from the first step on;
- a story is read once for all its questions: a sentence reads the sentences before it, a question those before it;
- the answer is said word by word, in the words of the stories;
- before all that, a question may recall: a memory network without softmax (Sukhbaatar et al. 2015 start like it) over
  plain sums of word vectors. It is weak, but every way through it has a gradient from the first step on, and what it
  finds shows the block which ways are worth finding (task 16 is never found without it).
"""

import math
from itertools import pairwise

import torch
from torch import Tensor, nn

from recuerdo.errors import InputError
from recuerdo.nn.sentences import Sentences, StoryBatch
from recuerdo.read import Mask, allow, dot, linear, read, softmax, stick_breaking


class SentenceEncoder(nn.Module):
    """Words [u, w] -> sentence vectors [u, d]: a block of self-attention, then `pools` learned queries look at it."""

    def __init__(self, vocabulary_size: int, width: int, *, heads: int, pools: int, longest: int, dropout: float):
        super().__init__()
        self.heads, self.pools = heads, pools
        self.word = nn.Embedding(vocabulary_size, width, padding_idx=0)
        self.place = nn.Parameter(torch.randn(longest, width) * 0.3)
        # A word is there as itself, and bound to its place by factors that change slowly from place to place: "north of
        # the kitchen" differs from "the kitchen is north of", and a word more in front changes little.
        speed, start = torch.rand(width) * 0.5, torch.rand(width) * 2 * math.pi
        self.bound = nn.Parameter(torch.cos(torch.arange(longest)[:, None] * speed + start))
        self.norm_read, self.norm_think, self.norm_pool = nn.LayerNorm(width), nn.LayerNorm(width), nn.LayerNorm(width)
        self.project = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.think = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))
        self.pool_score, self.pool_value = nn.Linear(width, pools), nn.Linear(width, width)
        self.pool_out = nn.Linear(width, width)
        self.drop = nn.Dropout(dropout)

    def forward(self, words: Tensor) -> Tensor:
        """[u, w] word numbers, 0 = padding -> [u, d]."""
        u, w = words.shape
        there = words > 0
        x = self.drop(self.word(words) * (1 + self.bound[:w]) + self.place[:w])
        query, key, value = self.project(self.norm_read(x)).view(u, w, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        mixed = read(query, key, value, mask=allow(there[:, None, None])).mixed
        x = x + self.drop(self.out(mixed.transpose(1, 2).flatten(2)))
        x = x + self.drop(self.think(self.norm_think(x)))
        x = self.norm_pool(x)
        score = self.pool_score(x).masked_fill(~there[..., None], -torch.inf)
        weights = softmax(score.transpose(1, 2))  # a row of padding only pools zeros
        pooled = torch.einsum("upw,uwpe->upe", weights, self.pool_value(x).view(u, w, self.pools, -1))
        return self.pool_out(pooled.flatten(1))


class Heads(nn.Module):
    """Some heads of a step that read with one normaliser: rows [b, r, d] read sentences [b, s, d]."""

    def __init__(self, width: int, heads: int, size: int, *, nearest: bool):
        super().__init__()
        self.heads, self.size = heads, size
        self.normalise = stick_breaking if nearest else softmax
        self.query, self.pair = nn.Linear(width, heads * size), nn.Linear(width, 2 * heads * size)
        self.out = nn.Linear(heads * size, width)
        # Keys start as queries do, so that from the first step on like finds like ("Mary" the sentences on Mary): the
        # matching need not be found by chance first. The factor makes a perfect match worth about 5.
        with torch.no_grad():
            self.query.weight.mul_(2.0)
            self.pair.weight[: heads * size] = self.query.weight
        # Nearest heads start by taking little, so that at first every sentence is looked at.
        self.shift = nn.Parameter(torch.full((heads, 1, 1), -2.0)) if nearest else None

    def forward(self, rows: Tensor, sentences: Tensor, mask: Mask) -> Tensor:
        """rows [b, r, d], sentences [b, s, d] -> [b, r, d]."""
        b, r, _ = rows.shape
        query = self.query(rows).view(b, r, self.heads, -1).transpose(1, 2)
        key, value = self.pair(sentences).view(b, -1, 2, self.heads, self.size).permute(2, 0, 3, 1, 4)
        mixed = read(query, key, value, mask=mask, bias=self.shift, normalise=self.normalise).mixed
        return self.out(mixed.transpose(1, 2).flatten(2))


class LinearHop(nn.Module):
    """A read without a normaliser. It has no parameters: it is a module so that the read has an address."""

    def forward(self, asked: Tensor, key: Tensor, value: Tensor, mask: Mask) -> Tensor:
        """asked [b, 1, q, d], key and value [b, 1, s, d] -> [b, 1, q, d]; the scores are dot products."""
        return read(asked, key, value, mask=mask, score=dot, normalise=linear).mixed


class Recall(nn.Module):
    """What each question recalls of its story in `hops` linear reads: `u += sum of (u . key) value`, normed at the end.

    The values of a hop are the keys of the next, and the question is encoded like the first keys.
    """

    def __init__(self, vocabulary_size: int, width: int, *, hops: int, size: int, longest: int):
        super().__init__()
        self.encode = Sentences(vocabulary_size, size, tables=hops + 1, longest=longest, scale=0.2)
        self.hops = nn.ModuleList(LinearHop() for _ in range(hops))
        self.norm, self.out = nn.LayerNorm(size), nn.Linear(size, width, bias=False)

    def forward(self, stories: StoryBatch, mask: Mask) -> Tensor:
        """[b, q, width]; `mask` says which sentences a question sees."""
        encoded = self.encode(stories.words)
        asked = encoded[stories.question][:, None, :, 0]
        sides = encoded[stories.sentence].permute(2, 0, 1, 3)[:, :, None]
        for hop, (key, value) in zip(self.hops, pairwise(sides), strict=True):
            asked = asked + hop(asked, key, value, mask)
        return self.out(self.norm(asked[:, 0]))


class Reader(nn.Module):
    """Answers questions about stories, word by word.

    `steps`: how often the block is applied; `nearest` and `heads`: how many heads take the nearest match, and how many
    are softmax; `size`: width of a head; `recall`: how many linear hops a question makes before (0 = none). Raises
    InputError for no steps or no heads.
    """

    def __init__(  # noqa: PLR0913 (the sizes of one architecture)
        self,
        vocabulary_size: int,
        answers: int,
        *,
        width: int = 128,
        steps: int = 6,
        nearest: int = 4,
        heads: int = 4,
        size: int = 16,
        think: int = 2,
        parts: int = 3,
        longest: int = 16,
        dropout: float = 0.0,
        recall: int = 0,
    ):
        super().__init__()
        if steps < 1 or nearest + heads < 1:
            raise InputError(f"a reader needs at least 1 step and 1 head, not {steps} and {nearest + heads}")
        self.parts = parts
        self.encode = SentenceEncoder(vocabulary_size, width, heads=4, pools=8, longest=longest, dropout=dropout)
        self.asked = nn.Parameter(torch.randn(width) * 0.1)
        self.step = nn.Parameter(torch.randn(steps, width) * 0.1)
        self.norm_read, self.norm_think, self.norm_say = nn.LayerNorm(width), nn.LayerNorm(width), nn.LayerNorm(width)
        kinds = {"nearest": (nearest, True), "softmax": (heads, False)}
        self.look = nn.ModuleDict({name: Heads(width, n, size, nearest=near) for name, (n, near) in kinds.items() if n})
        self.think = nn.Sequential(nn.Linear(width, think * width), nn.GELU(), nn.Linear(think * width, width))
        self.say = nn.Linear(width, parts * width)
        self.bias = nn.Parameter(torch.zeros(parts, vocabulary_size))
        self.drop = nn.Dropout(dropout)
        self.recall = Recall(vocabulary_size, width, hops=recall, size=width // 2, longest=longest) if recall else None

    def forward(self, stories: StoryBatch) -> Tensor:
        """A batch of stories -> logits of the answer's words [b, q, parts, vocabulary]; word 0 = no further word."""
        vectors = self.encode(stories.words)
        b, s = stories.sentence.shape
        number = torch.arange(s, device=vectors.device)
        earlier, before = (number < number[:, None]).expand(b, s, s), number < stories.before[..., None]
        asked = vectors[stories.question] + self.asked
        if self.recall is not None:
            asked = asked + self.recall(stories, allow(before[:, None]))
        x = torch.cat([vectors[stories.sentence], asked], 1)
        mask = allow(torch.cat([earlier, before], 1)[:, None])
        for step in self.step:
            y = self.norm_read(x + step)
            for look in self.look.values():
                x = x + self.drop(look(y, y[:, :s], mask))
            x = x + self.drop(self.think(self.norm_think(x)))
        said = self.say(self.norm_say(x[:, s:])).unflatten(-1, (self.parts, -1))
        words = self.encode.word.weight
        return said @ words.T * words.shape[1] ** -0.5 + self.bias
