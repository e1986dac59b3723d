"""The pointer-generator (See, Liu & Manning 2017): a summariser that may say a piece itself or copy one that it reads.

    s_t = cell(piece, s_(t-1))
    a_t, c_t = read(s_t)        score s W k + u (a_1 + .. + a_(t-1)): with coverage it knows what was read so far
    p = sigmoid(w . [c_t, s_t, piece])
    P(piece) = p softmax(logits) + (1 - p) (sum of a_t over where the piece stands in the source)

Two things differ from the paper, so that a summary is learned at once and not step by step: the score
is Luong's general one and not additive, and the cell does not hear what was read.

Coverage costs min(a_t, what was read so far) summed over the source: who reads a place twice pays. As in the paper it
is to be switched on when the model can read already: `coverage` is an attribute that a phase of training may set.

Watched, its read is `align`: of all rows at once, or of one in each step of decoding.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from recuerdo.nn.dropout import Dropout
from recuerdo.nn.recurrent import BothWays
from recuerdo.nn.saying import PAD
from recuerdo.read import Bilinear, Reading, allow, read, watch

LEAST = 1e-9  # of a probability whose logarithm is taken: both ways of saying a piece may come to nothing


@dataclass
class Told:
    """A decoder in the middle of some summaries."""

    source: Tensor  # [b, s]: its pieces, which may be copied
    states: Tensor  # [b, s, 2 * hidden]
    keys: Tensor  # [b, s, hidden]
    there: Tensor  # [b, s] bool
    state: tuple[Tensor, Tensor]  # of the cell, each [1, b, hidden]
    seen: Tensor  # [b, s]: the weights of all reads so far

    def ways(self, count: int) -> "Told":
        """Each summary in so many ways, from now on a row each."""
        return self.take(torch.arange(len(self.there), device=self.there.device).repeat_interleave(count))

    def take(self, rows: Tensor) -> "Told":
        """Some of the summaries, [n], each as often as it is named."""
        of = (self.source[rows], self.states[rows], self.keys[rows], self.there[rows])
        return Told(*of, (self.state[0][:, rows], self.state[1][:, rows]), self.seen[rows])

    def reorder(self, rows: Tensor) -> "Told":
        """The same, where each row goes on as another of the same source: that stays where it is."""
        state = (self.state[0][:, rows], self.state[1][:, rows])
        return Told(self.source, self.states, self.keys, self.there, state, self.seen[rows])


@dataclass(frozen=True)
class Ways:
    """How each piece is said: states [b, t, width] that say one, the share [b, t] that is generated and not copied,
    the weights [b, t, s] with which pieces are copied, and what was read before each, [b, t, s]."""

    said: Tensor
    generated: Tensor
    weights: Tensor
    before: Tensor


class Align(nn.Module):
    """Rows [b, t, hidden] read the source: a module by itself, so that the read has an address."""

    def __init__(self, hidden: int):
        super().__init__()
        self.score = Bilinear(hidden)
        self.again = nn.Parameter(torch.zeros(()))  # what having been read adds to a score

    def forward(self, rows: Tensor, said: Told, before: Tensor | None) -> Reading:
        """`before` [b, t, s]: for each row the reads before it, summed; None without coverage."""
        bias = None if before is None else self.again * before[:, None]
        mask = allow(said.there[:, None, None])
        query, key, value = rows[:, None], said.keys[:, None], said.states[:, None]
        return read(query, key, value, mask=mask, bias=bias, score=self.score)

    def reads_before(self, rows: Tensor, said: Told) -> Tensor:
        """For each of rows that follow each other [b, t, hidden] the reads before it, summed, [b, t, s].

        Each depends on all before it, but on nothing as large as the values: so this goes step by step, and the read
        itself is one.
        """
        scores = self.score.plain(rows[:, None], said.keys[:, None])[:, 0]
        scores = scores.masked_fill(~said.there[:, None], -torch.inf)
        seen, found = said.seen, []
        for row in scores.unbind(1):
            found.append(seen)
            seen = seen + (row + self.again * seen).softmax(-1)
        return torch.stack(found, 1)


class PointerGenerator(nn.Module):
    """Pieces of a source [b, s] and what was told of a summary [b, t] -> what comes next; 0 is padding."""

    def __init__(
        self,
        vocabulary_size: int,
        *,
        width: int = 128,
        hidden: int = 256,
        dropout: float = 0.3,
        coverage: bool = True,
    ):
        super().__init__()
        self.coverage = coverage
        self.piece = nn.Embedding(vocabulary_size, width, padding_idx=PAD)
        nn.init.normal_(self.piece.weight, 0, width**-0.5)
        self.encoder = BothWays(nn.LSTM, width, hidden)
        self.first = nn.Linear(2 * hidden, 2 * hidden)
        self.key = nn.Linear(2 * hidden, hidden, bias=False)
        self.align = Align(hidden)
        self.cell = nn.LSTM(width, hidden, batch_first=True)
        self.out = nn.Linear(width + 3 * hidden, width)
        self.share = nn.Linear(width + 3 * hidden, 1)
        self.drop = Dropout(dropout)

    @property
    def table(self) -> Tensor:
        """The vectors of all pieces, [v, width]."""
        return self.piece.weight

    def loss(self, source: Tensor, told: Tensor, target: Tensor, *, smoothing: float = 0.0) -> dict[str, Tensor]:
        """Of each piece of the target [b, t] given those `told` before it: minus the logarithm of its probability,
        smoothed over all pieces as generated, and what is read twice; means over pieces that are no padding."""
        ways, there = self._ways(told, self.begin(source)), target != PAD
        logs = functional.linear(ways.said[there], self.table).float().log_softmax(-1)
        made = logs.gather(1, target[there][:, None])[:, 0].exp()
        generated, copied = ways.generated[there], self._standing(ways, source, target).sum(-1)[there]
        right = generated * made + (1 - generated) * copied
        piece = -(1 - smoothing) * right.clamp_min(LEAST).log().mean() - smoothing * logs.mean()
        if not self.coverage:
            return {"piece": piece}
        return {"piece": piece, "twice": torch.minimum(ways.weights, ways.before).sum(-1)[there].mean()}

    def begin(self, source: Tensor) -> Told:
        """Sources [b, s] of which nothing is said yet."""
        there = source != PAD
        states, thought = self.encoder(self.drop(self.piece(source)), there)
        states = self.drop(states)
        one, two = torch.tanh(self.first(thought)).chunk(2, -1)
        state = (one[None].contiguous(), two[None].contiguous())
        return Told(source, states, self.key(states), there, state, states.new_zeros(source.shape))

    def step(self, pieces: Tensor, said: Told) -> Tensor:
        """Hear the last pieces [b]; `said` moves on, and what may come next is given as log-probabilities [b, v]."""
        ways = self._ways(pieces[:, None], said)
        made = functional.linear(ways.said[:, 0], self.table).float().softmax(-1) * ways.generated
        copied = ways.weights[:, 0] * (1 - ways.generated)
        return made.scatter_add(1, said.source, copied.to(made.dtype)).clamp_min(LEAST).log()

    @torch.no_grad()
    def alignments(self, source: Tensor, target: Tensor) -> dict[str, Tensor]:
        """What each piece of a given target [b, t] read of the source [b, s] when it was said, as [b, t, s]."""
        with watch(self) as seen:
            self._ways(_before(target), self.begin(source))
        return {"saying": seen["align"].weights[:, :][:, 0]}

    @torch.no_grad()
    def copying(self, source: Tensor, target: Tensor) -> Tensor:
        """The share [b, t, s] of each piece's probability that was copied from each place of the source, of a given
        target [b, t]: exact, and 0 where another piece stands. What is left of a row was generated."""
        ways = self._ways(_before(target), self.begin(source))
        made = functional.linear(ways.said, self.table).float().softmax(-1).gather(2, target[..., None])
        copied = (1 - ways.generated)[..., None] * self._standing(ways, source, target)
        return copied / (ways.generated[..., None] * made + copied.sum(-1, keepdim=True)).clamp_min(LEAST)

    def _ways(self, told: Tensor, said: Told) -> Ways:
        """Pieces that follow each other [b, t]; `said` moves on behind them."""
        words = self.drop(self.piece(told))
        states, said.state = self.cell(words, said.state)
        before = self.align.reads_before(states, said) if self.coverage else None
        reading = self.align(states, said, before)
        weights = reading.weights[:, :][:, 0]
        before = (said.seen[:, None] + weights.cumsum(1) - weights) if before is None else before
        said.seen = before[:, -1] + weights[:, -1]
        all_ = torch.cat([words, states, reading.mixed[:, 0]], -1)
        generated = torch.sigmoid(self.share(all_).float())[..., 0]
        return Ways(self.drop(torch.tanh(self.out(all_))), generated, weights, before)

    @staticmethod
    def _standing(ways: Ways, source: Tensor, target: Tensor) -> Tensor:
        """The weights [b, t, s] of those places where a piece of the target stands in the source."""
        return ways.weights * (source[:, None] == target[..., None])


def _before(target: Tensor) -> Tensor:
    """What stands before each piece: begin, then all but the last."""
    return functional.pad(target[:, :-1], (1, 0), value=1)
