"""A reader of stories that thinks as long as a question needs: Universal Transformer (Dehghani et al. 2019).

One block is applied again and again with the same weights, here to sentences instead of words: a sentence reads the
sentences before it, a question those before it. Heads are softmax; of time they know the age of what they read.

Each question stops by itself, by adaptive computation time (Graves 2016). After step n it says with which probability
p_n it stops; it does when these add up to one, or at the last step, and p_N is what was left for it. It is answered
from the mean of its states under p. Its ponder cost, N and what was left, is a part of the loss. Sentences do not stop:
all questions of a story read the same ones.

    x_n = x_(n-1) + read(norm(x_(n-1) + step_n)),  then  x_n = x_n + think(norm(x_n))
    p_n = sigmoid(stop . norm(x_n))                          answer: W sum of p_n norm(x_n)
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from recuerdo.errors import InputError
from recuerdo.nn.sentences import Sentences, StoryBatch, all_ones
from recuerdo.read import Alibi, Mask, allow, read
from recuerdo.read.mask import Extent

NEARLY = 0.01  # the probabilities of stopping need not add up to one by more than this, so that one step can do
EAGER = -1.1  # where stopping starts, about a quarter: four steps


@dataclass(frozen=True, eq=False)
class Aged:
    """A bias for each head and age: `table` [h, ages], `before` [b, q] how many keys there are before each query.

    The newest of these has age 0; what is older than the table gets its last entry.
    """

    table: Tensor
    before: Tensor

    def block(self, rows: slice, cols: slice, extent: Extent, device: torch.device) -> Tensor:
        """The bias of a rectangle, [b, h, n, m]."""
        number = torch.arange(*cols.indices(extent.keys), device=device)
        age = (self.before[:, rows, None] - 1 - number).clamp(0, self.table.shape[1] - 1)
        return self.table.index_select(1, age.flatten()).view(-1, *age.shape).transpose(0, 1)


class Look(nn.Module):
    """The heads of the block: rows [b, r, d] read sentences [b, s, d]."""

    def __init__(self, width: int, heads: int, ages: int):
        super().__init__()
        self.heads = heads
        self.query, self.pair = nn.Linear(width, width), nn.Linear(width, 2 * width)
        self.out = nn.Linear(width, width)
        # Heads start as in ALiBi (Press et al. 2022): some look at the newest first, some at all.
        self.ages = nn.Parameter(-Alibi.for_heads(heads).slopes[:, None] * torch.arange(ages))

    def forward(self, rows: Tensor, sentences: Tensor, mask: Mask, before: Tensor) -> Tensor:
        """Rows [b, r, d] that stand behind `before` [b, r] of the sentences [b, s, d] -> [b, r, d]."""
        b, r, _ = rows.shape
        query = self.query(rows).view(b, r, self.heads, -1).transpose(1, 2)
        key, value = self.pair(sentences).view(b, sentences.shape[1], 2, self.heads, -1).permute(2, 0, 3, 1, 4)
        mixed = read(query, key, value, mask=mask, bias=Aged(self.ages, before)).mixed
        return self.out(mixed.transpose(1, 2).flatten(2))


class Halting:
    """Which questions are still at it, and what was said so far (Graves 2016). `found` [b, q, d]: the mean of states.

    `steps` [b, q]: how many steps each has made; `rest` [b, q]: what was left for the last of them.
    """

    def __init__(self, there: Tensor, like: Tensor):
        self.going = there
        self.left = torch.ones_like(like[..., 0])
        self.steps, self.rest = torch.zeros_like(self.left), torch.zeros_like(self.left)
        self.found = torch.zeros_like(like)

    def step(self, states: Tensor, stop: Tensor, last: bool) -> None:
        """After a step: states [b, q, d], and the probability to stop [b, q]. All stop at the `last`."""
        stops = self.going & ((self.left - stop <= NEARLY) | last)
        share = torch.where(stops, self.left, stop) * self.going
        self.found = self.found + share[..., None] * states
        self.rest = torch.where(stops, self.left, self.rest)
        self.steps = self.steps + self.going
        self.left, self.going = self.left - share, self.going & ~stops


class Universal(nn.Module):
    """Answers questions about stories in at most `steps` steps, each question in as many as it needs.

    `cost` is what a step costs, in units of the loss (the time penalty of Graves 2016); `ages`: how many ages have a
    bias of their own. After a forward pass `ponder` is the mean number of steps a question took, and in training
    `extra` holds the part that is to be added to the loss.

    Watched, its steps are `look@0`, `look@1`, …: all rows, the sentences and then the questions, over the sentences. A
    question that has stopped reads nothing any more.

    Raises InputError for no steps, a cost below 0, and heads that do not divide the width.
    """

    def __init__(
        self,
        vocabulary_size: int,
        answers: int,
        *,
        width: int = 128,
        steps: int = 8,
        heads: int = 8,
        ages: int = 128,
        cost: float = 0.01,
        dropout: float = 0.0,
    ):
        super().__init__()
        if steps < 1 or cost < 0:
            raise InputError(f"a universal reader makes at least 1 step at a cost of 0 or more, not {steps} at {cost}")
        if heads < 1 or width % heads:
            raise InputError(f"{heads} heads do not divide a width of {width}")
        self.cost, self.ponder, self.extra = cost, 0.0, dict[str, Tensor]()
        # As in the paper: words, times learned weights of their positions, are added up (Henaff et al. 2017).
        self.encode = Sentences(vocabulary_size, width, longest=16, weights=all_ones, learned=True, scale=0.4)
        with torch.no_grad():  # alike at first, positions would leave a sentence without its order
            self.encode.places.add_(0.3 * torch.randn_like(self.encode.places))
        self.asked = nn.Parameter(torch.randn(width) * 0.1)
        self.step = nn.Parameter(torch.randn(steps, width) * 0.1)
        self.norm_read, self.norm_think, self.norm_say = nn.LayerNorm(width), nn.LayerNorm(width), nn.LayerNorm(width)
        self.look = Look(width, heads, ages)
        self.think = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))
        self.stop = nn.Linear(width, 1)
        nn.init.constant_(self.stop.bias, EAGER)
        self.say = nn.Linear(width, answers)
        self.drop = nn.Dropout(dropout)

    def forward(self, stories: StoryBatch) -> Tensor:
        """A batch of stories -> logits of the answers, [b, q, answers]."""
        b, s = stories.sentence.shape
        vectors = self.encode(stories.words)[:, 0]
        told, asked = (functional.embedding(rows, vectors) for rows in (stories.sentence, stories.question))
        x = self.drop(torch.cat([told, asked + self.asked], 1))
        number, there = torch.arange(s, device=x.device), stories.question > 0
        before = torch.cat([number.expand(b, s), stories.before], 1)  # [b, s + q]
        earlier = number < before[..., None]
        reads = torch.ones_like(stories.sentence, dtype=torch.bool)
        halting = Halting(there, x[:, s:])
        for n, step in enumerate(self.step, 1):
            mask = allow((earlier & torch.cat([reads, halting.going], 1)[..., None])[:, None])
            y = self.norm_read(x + step)
            x = x + self.drop(self.look(y, y[:, :s], mask, before))
            x = x + self.drop(self.think(self.norm_think(x)))
            states = self.norm_say(x[:, s:])
            halting.step(states, self.stop(states)[..., 0].sigmoid(), n == len(self.step))
            if not halting.going.any():
                break
        self._count(halting, there)
        return self.say(halting.found)

    def _count(self, halting: Halting, there: Tensor) -> None:
        """Tell how long it took, and what that costs."""
        asked = there.sum().clamp(min=1)
        self.ponder = float(halting.steps.sum() / asked)
        costs = (halting.steps + halting.rest).sum() / asked  # only what was left has a gradient
        self.extra = {"ponder": self.cost * costs} if self.training else {}
