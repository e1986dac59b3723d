"""A recurrent network that reads a line and another that says it anew, with attention between them, or without.

The encoder goes through the source both ways. Where the decoder has attention, it reads the encoder's states anew for
each piece; the score is a value: "additive" (Bahdanau et al. 2014), "general" or "dot" (Luong et al. 2015), "location"
(Chorowski et al. 2015). With "none" all it ever knows of the source is one vector (Sutskever et al. 2014; Cho et al.
2014): what was before attention.

    feeding (Bahdanau):    c = read(s_(t-1)),  s_t = cell([piece, c], s_(t-1))
    not feeding (Luong):   s_t = cell(piece, s_(t-1)),  c = read(s_t)              all steps at once in training
    both:                  said = tanh(W [piece, s_t, c])

Watched, its reads are those of `align`: `align@0`, `align@1`, … where it feeds, and one of all rows where it does not.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from recuerdo.errors import InputError
from recuerdo.nn.dropout import Dropout
from recuerdo.nn.recurrent import Align, BothWays
from recuerdo.nn.saying import PAD, Speaking
from recuerdo.read import Additive, Bilinear, LocationAware, dot, watch
from recuerdo.read.score import Score

ATTENTIONS: dict[str, Callable[[int], Score]] = {
    "additive": lambda hidden: Additive(hidden, hidden, ready=True),
    "general": Bilinear,
    "dot": lambda hidden: dot,
    "location": lambda hidden: LocationAware(hidden, hidden, ready=True),
}
CELLS = {"gru": nn.GRU, "lstm": nn.LSTM}


@dataclass
class Told:
    """A decoder in the middle of some sentences."""

    states: Tensor  # [b, s, 2 * hidden]: what the encoder says of the source
    keys: Tensor  # [b, s, hidden]
    there: Tensor  # [b, s] bool: which pieces of the source are no padding
    thought: Tensor  # [b, 2 * hidden]: the source as one vector
    state: tuple[Tensor, ...]  # of the cell, each [1, b, hidden]
    previous: Tensor | None = None  # [b, s]: the alignment of the step before

    def ways(self, count: int) -> "Told":
        """Each sentence in so many ways, from now on a row each."""
        return self.take(torch.arange(len(self.there), device=self.there.device).repeat_interleave(count))

    def take(self, rows: Tensor) -> "Told":
        """Some of the sentences, [n], each as often as it is named."""
        some = (self.states[rows], self.keys[rows], self.there[rows], self.thought[rows])
        state = tuple(part[:, rows] for part in self.state)
        return Told(*some, state, None if self.previous is None else self.previous[rows])

    def reorder(self, rows: Tensor) -> "Told":
        """The same, where each row goes on as another of the same source: what is read of that stays where it is."""
        state = tuple(part[:, rows] for part in self.state)
        previous = None if self.previous is None else self.previous[rows]
        return Told(self.states, self.keys, self.there, self.thought, state, previous)


class Seq2Seq(Speaking):
    """Pieces of a source [b, s] and what was told [b, t] -> what comes next; 0 is padding.

    `attention` is "additive", "general", "dot", "location" or "none", `cell` "gru" or "lstm". Raises InputError for
    what there is not, and for location-aware attention without feeding, which needs the alignment of the step before.
    """

    def __init__(
        self,
        vocabulary_size: int,
        *,
        width: int = 256,
        hidden: int = 256,
        attention: str = "additive",
        cell: str = "gru",
        feeding: bool = True,
        dropout: float = 0.3,
    ):
        super().__init__(vocabulary_size, width)
        if attention != "none" and attention not in ATTENTIONS:
            raise InputError(f"there is no attention {attention!r}: choose {', '.join(ATTENTIONS)} or none")
        if cell not in CELLS:
            raise InputError(f"there is no cell {cell!r}: choose {' or '.join(CELLS)}")
        if attention == "location" and not feeding:
            raise InputError("location-aware attention goes step by step: leave feeding on")
        self.feeding = feeding
        self.encoder = BothWays(CELLS[cell], width, hidden)
        self.first = nn.Linear(2 * hidden, len(self._parts(cell)) * hidden)
        self.key = nn.Linear(2 * hidden, hidden, bias=False)
        self.align = None if attention == "none" else Align(ATTENTIONS[attention](hidden))
        self.cell = CELLS[cell](width + (2 * hidden if self._feeds else 0), hidden, batch_first=True)
        self.out = nn.Linear(width + 3 * hidden, width)
        self.drop = Dropout(dropout)

    @property
    def _feeds(self) -> bool:
        """Whether the cell hears what was read; without attention it always hears the thought."""
        return self.feeding or self.align is None

    def hear(self, source: Tensor, told: Tensor) -> Tensor:
        """See Speaking."""
        said, words = self.begin(source), self.drop(self.piece(told))
        if self.align is not None and self.feeding:
            each = [self._step(word, said) for word in words.split(1, 1)]
            states, mixed = (torch.cat(parts, 1) for parts in zip(*each, strict=True))
        elif self.align is not None:
            states, _ = self.cell(words, self._of_cell(said.state))
            mixed = self.align(states, said.keys, said.states, said.there, None).mixed[:, 0]
        else:
            mixed = said.thought[:, None].expand(-1, told.shape[1], -1)
            states, _ = self.cell(torch.cat([words, mixed], -1), self._of_cell(said.state))
        there = told != PAD
        return self._said(words[there], states[there], mixed[there])

    def guided(self, source: Tensor, told: Tensor) -> tuple[Tensor, Tensor]:
        """As `hear`, and what was read for each piece of the target but the last, as it was said: [b, t - 1, s], with
        gradients. Raises InputError without attention."""
        if self.align is None:
            raise InputError("this model has no attention that could be guided: leave guided at 0")
        with watch(self) as seen:
            states = self.hear(source, told)
        return states, torch.cat([reading.weights[:, :][:, 0] for reading in seen.values()], 1)[:, :-1]

    def begin(self, source: Tensor) -> Told:
        """Sources [b, s] of which nothing is said yet."""
        there = source != PAD
        words = self.drop(self.piece(source))
        states, thought = self.encoder(words, there)
        states = self.drop(states)
        state = torch.tanh(self.first(thought)).chunk(self.first.out_features // self.cell.hidden_size, -1)
        keys = self.key(states)
        # Under autocast cells and products give different types, and what is read has one.
        return Told(states.to(keys.dtype), keys, there, thought, tuple(part[None].contiguous() for part in state))

    def step(self, pieces: Tensor, said: Told) -> Tensor:
        """Hear the last pieces [b]; `said` moves on, and what may come next is given as logits [b, v]."""
        word = self.drop(self.piece(pieces[:, None]))
        state, mixed = self._step(word, said)
        return self.say(self._said(word[:, 0], state[:, 0], mixed[:, 0]))

    @torch.no_grad()
    def alignments(self, source: Tensor, target: Tensor) -> dict[str, Tensor]:
        """What each piece of a given target [b, t] read of the source [b, s] when it was said, as [b, t, s]; nothing
        where there is no attention."""
        if self.align is None:
            return {}
        with watch(self) as seen:
            self.hear(source, functional.pad(target[:, :-1], (1, 0), value=1))
        return {"saying": torch.cat([reading.weights[:, :][:, 0] for reading in seen.values()], 1)}

    def _step(self, word: Tensor, said: Told) -> tuple[Tensor, Tensor]:
        """One word [b, 1, width]: the state after it, and what was read, each [b, 1, …]."""
        if self.align is None:
            mixed = said.thought[:, None]
        elif self.feeding:
            mixed = self._read(said.state[0].transpose(0, 1), said)
        else:
            state, after = self.cell(word, self._of_cell(said.state))
            said.state = after if isinstance(after, tuple) else (after,)
            return state, self._read(state, said)
        state, after = self.cell(torch.cat([word, mixed], -1), self._of_cell(said.state))
        said.state = after if isinstance(after, tuple) else (after,)
        return state, mixed

    def _read(self, rows: Tensor, said: Told) -> Tensor:
        if self.align is None:
            return said.thought[:, None]
        reading = self.align(rows, said.keys, said.states, said.there, said.previous)
        if isinstance(self.align.score, LocationAware):
            said.previous = reading.weights[:, :][:, 0, 0]
        return reading.mixed[:, 0]

    def _said(self, word: Tensor, state: Tensor, mixed: Tensor) -> Tensor:
        return self.drop(torch.tanh(self.out(torch.cat([word, state, mixed], -1))))

    @staticmethod
    def _parts(cell: str) -> tuple[str, ...]:
        return ("state", "memory") if cell == "lstm" else ("state",)

    @staticmethod
    def _of_cell(state: tuple[Tensor, ...]) -> Tensor | tuple[Tensor, ...]:
        """A state as a cell of torch takes it."""
        one, *more = state
        return state if more else one
