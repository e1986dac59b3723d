"""From the words of a sentence to one vector: a sum of word vectors, each weighed by its position."""

from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

from recuerdo.errors import InputError


class StoryBatch(Protocol):
    """What a model needs to know of a batch of stories (`recuerdo.data.stories.Stories`)."""

    @property
    def words(self) -> Tensor:
        """Word ids of the distinct sentences and questions, [u, w]."""
        ...

    @property
    def sentence(self) -> Tensor:
        """Which row of `words` each sentence is, [b, s]; 0 = there is none."""
        ...

    @property
    def question(self) -> Tensor:
        """Which row of `words` each question is, [b, q]."""
        ...

    @property
    def before(self) -> Tensor:
        """How many sentences stand before each question, [b, q]."""
        ...


def position_weights(longest: int, width: int) -> Tensor:
    """Position encoding of Sukhbaatar et al. 2015, as in their code: [longest, width], 1 in the middle, 0 to 2 outside.

    The first half of a vector fades from the first word to the last, the second half the other way round, so that a sum
    of words still knows their order. Twice the figure of the paper's text, which only changes the scale.
    """
    word = torch.arange(1, longest + 1)[:, None] - (longest + 1) / 2
    place = torch.arange(1, width + 1) - (width + 1) / 2
    return 1 + 4 * word * place / (longest * width)


def all_ones(longest: int, width: int) -> Tensor:
    """A bag of words: every position counts the same, [longest, width]."""
    return torch.ones(longest, width)


class Sentences(nn.Module):
    """Sums of weighed word vectors, for `tables` tables of words at once: words [u, w] -> [u, tables, width].

    `weights` gives the weights of the positions; with `learned` they are where learning starts (the multiplicative mask
    of Henaff et al. 2017). Words behind the position `longest` are weighed like the one there. Word 0 is padding and
    counts nothing; the vectors of all others start as N(0, scale).
    """

    def __init__(
        self,
        vocabulary_size: int,
        width: int,
        *,
        tables: int = 1,
        longest: int = 12,
        weights: Callable[[int, int], Tensor] = position_weights,
        learned: bool = False,
        scale: float = 0.1,
    ):
        super().__init__()
        self.tables, self.width = tables, width
        self.words = nn.Parameter(scale * torch.randn(vocabulary_size, tables * width))
        with torch.no_grad():
            self.words[0] = 0.0
        placed = weights(longest, width).repeat(1, tables)
        if learned:
            self.places = nn.Parameter(placed)
        else:
            self.register_buffer("places", placed, persistent=False)

    def forward(self, words: Tensor) -> Tensor:
        """Words [u, w] -> [u, tables, width]."""
        return self.with_places(words, self.places)

    def with_places(self, words: Tensor, places: Tensor) -> Tensor:
        """The same with other weights of the positions, [longest, tables * width]."""
        at = torch.arange(words.shape[1], device=words.device).clamp(max=len(places) - 1)
        vectors = functional.embedding(words, self.words, padding_idx=0)  # [u, w, tables * width]: distinct ones only
        return (vectors * places[at]).sum(1).view(-1, self.tables, self.width)


class Answers(nn.Module):
    """Scores of whole answers: a vector each, compared with what was found.

    `answer_words` may give the word that an answer is, by number; 0 = it is none ("n,w"). Such an answer has its word's
    vector, so that a model which read a word can say it (Sukhbaatar et al. 2015: W = C_k). Raises InputError when there
    are not as many words as answers.
    """

    words: Tensor

    def __init__(self, answers: int, width: int, answer_words: Sequence[int] = (), *, scale: float = 0.1):
        super().__init__()
        if answer_words and len(answer_words) != answers:
            raise InputError(f"{len(answer_words)} answer_words for {answers} answers: give each its word, or 0")
        self.own = nn.Parameter(scale * torch.randn(answers, width))
        self.tied = any(answer_words)
        self.register_buffer("words", torch.tensor(list(answer_words) or [0] * answers), persistent=False)

    def forward(self, found: Tensor, vectors: Tensor) -> Tensor:
        """Logits [n, answers] of what was found, [n, d]; `vectors` [v, d] are those of the words."""
        return found @ self.vectors(vectors).mT

    def vectors(self, vectors: Tensor) -> Tensor:
        """The vectors of the answers, [answers, d]."""
        if not self.tied:
            return self.own
        return torch.where(self.words[:, None] > 0, vectors.index_select(0, self.words), self.own)
