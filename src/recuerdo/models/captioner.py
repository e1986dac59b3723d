"""A captioner that shows which part of the picture each word came from (Show, Attend and Tell: Xu et al. 2015).

A picture is a grid of cells: of convolutions of its own, or given by a vision model that stays as it is. A recurrent
network says one piece after the other and looks at the cells anew for each.

    s_t = cell([piece, c_(t-1)], s_(t-1))
    c_t = sigmoid(gate(s_t)) * read(s_t)          over the cells, additive score
    said = tanh(W [piece, s_t, c_t])

`attention` is how a look takes what it reads: "soft" mixes the cells by their weights; "hard" takes one of them, drawn
in training and learned by REINFORCE with a baseline, the likeliest otherwise; "none" never looks again, and has the
mean of all cells for each piece: what was before attention.

The paper reads before the cell hears the last piece, here it is read after: so a look is for the very piece that is
said next. And all that is known of the picture comes through reads, the first state too: what is muted is not known.

Watched, its reads are `overview` (the first state) and `look@0`, `look@1`, …, one for each piece.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from recuerdo.errors import InputError, ShapeError
from recuerdo.nn.dropout import Dropout
from recuerdo.nn.grid import Convolved, whereabouts
from recuerdo.nn.saying import PAD, loss_of_saying
from recuerdo.read import Additive, Reading, Sharper, read, watch

ATTENTIONS = ("soft", "hard", "none")
LEAST = 1e-9  # of a share whose logarithm is taken
UNDECIDED = 0.01  # what an entropy of 1 is worth to a drawn look, in log-probability (the paper's entropy term)


@dataclass
class Told:
    """A decoder in the middle of some captions."""

    keys: Tensor  # [b, 1, cells, width]
    values: Tensor  # [b, 1, cells, width]
    state: tuple[Tensor, Tensor]  # of the cell, each [b, hidden]
    mixed: Tensor  # [b, width]: what the last look took

    def ways(self, count: int) -> "Told":
        """Each caption in so many ways, from now on a row each."""
        return self.take(torch.arange(len(self.mixed), device=self.mixed.device).repeat_interleave(count))

    def take(self, rows: Tensor) -> "Told":
        """Some of the captions, [n], each as often as it is named."""
        return Told(self.keys[rows], self.values[rows], self._state(rows), self.mixed[rows])

    def reorder(self, rows: Tensor) -> "Told":
        """The same, where each row goes on as another of the same picture: that stays where it is."""
        return Told(self.keys, self.values, self._state(rows), self.mixed[rows])

    def _state(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        return self.state[0][rows], self.state[1][rows]


@dataclass(frozen=True)
class Look:
    """What one look took, [b, width], its weights [b, cells], and how likely a drawn cell was, [b]."""

    mixed: Tensor
    weights: Tensor
    log_prob: Tensor | None = None


class Read(nn.Module):
    """Rows read the cells: a module by itself, so that the read has an address. `sharp`: what its scores are multiplied
    by outside of training."""

    def __init__(self, hidden: int, width: int, sharp: float = 1.0):
        super().__init__()
        self.score, self.sharp = Additive(hidden, width, ready=True), sharp

    def forward(self, rows: Tensor, keys: Tensor, values: Tensor) -> Reading:
        """Rows [b, hidden], keys and values [b, 1, cells, width]."""
        score = self.score if self.training else Sharper(self.score, self.sharp)
        return read(rows[:, None, None], keys, values, score=score)


class Captioner(nn.Module):
    """Pictures and what was told of a caption [b, t] -> what comes next; 0 is padding.

    With `features` 0 pictures are [b, 3, height, width], with more they are the cells of a vision model, [b, rows,
    columns, features]. `evenly`: how much it costs that a cell is read, over a whole caption, more or less than once
    (the paper's doubly stochastic attention). `sharp`: what the scores of looks are multiplied by when it speaks:
    a word that may be about one thing or another then decides for one, and what follows is about that. Raises
    InputError for what cannot be.
    """

    def __init__(
        self,
        vocabulary_size: int,
        features: int = 0,
        *,
        width: int = 128,
        hidden: int = 256,
        attention: str = "soft",
        dropout: float = 0.1,
        evenly: float = 0.0,
        sharp: float = 1.0,
    ):
        super().__init__()
        if attention not in ATTENTIONS:
            raise InputError(f"there is no attention {attention!r} of captions: choose {', '.join(ATTENTIONS)}")
        if min(width, hidden) < 4 or features < 0 or evenly < 0 or not sharp > 0:
            raise InputError("width and hidden are 4 or more; features and evenly are 0 or more; sharp is above 0")
        self.attention, self.evenly = attention, evenly
        self.piece = nn.Embedding(vocabulary_size, width, padding_idx=PAD)
        nn.init.normal_(self.piece.weight, 0, width**-0.5)
        self.see = nn.Linear(features, width) if features else Convolved(width)
        self.where = nn.Linear(16, width)
        self.norm = nn.LayerNorm(width)
        self.key = nn.Linear(width, width, bias=False)
        self.wanted = nn.Parameter(torch.randn(hidden) * hidden**-0.5)  # what the overview looks for
        self.overview, self.look = Read(hidden, width), Read(hidden, width, sharp)
        self.first = nn.Linear(width, 2 * hidden)
        self.cell = nn.LSTMCell(2 * width, hidden)
        self.gate = nn.Linear(hidden, width)
        self.out = nn.Linear(hidden + 2 * width, width)
        self.baseline = nn.Linear(hidden, 1) if attention == "hard" else None
        self.drop = Dropout(dropout)

    @property
    def table(self) -> Tensor:
        """The vectors of all pieces, [v, width]."""
        return self.piece.weight

    def forward(self, pictures: Tensor, told: Tensor) -> Tensor:
        """Pictures and told [b, t] -> logits of the piece after each that is no padding, [n, v], row after row."""
        states, _, _ = self._all(told, self.begin(pictures))
        return functional.linear(states[told != PAD], self.table)

    def loss(
        self,
        pictures: Tensor,
        told: Tensor,
        target: Tensor,
        *,
        smoothing: float = 0.0,
        boxes: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Of each piece of the target [b, t] given those `told` before it: its cross-entropy, and what the looks cost;
        means over pieces that are no padding. `boxes` [b, t, cells] bool: where the looks of a piece should be; that
        they are costs minus the logarithm of their share there, the mean over pieces that have such a place."""
        states, looks, rows = self._all(told, self.begin(pictures))
        there = target != PAD
        parts = {"piece": loss_of_saying(states[there], self.table, target[there], smoothing=smoothing)}
        if self.attention == "none":
            return parts
        weights = torch.stack([look.weights for look in looks], 1)
        if boxes is not None:
            inside = (weights * boxes).sum(-1)[boxes.any(-1)]
            parts["boxes"] = -inside.clamp_min(LEAST).log().sum() / max(1, len(inside))
        if self.evenly:
            read_ = (weights * there[..., None]).sum(1)
            parts["evenly"] = self.evenly * (1 - read_).square().mean()
        if self.baseline is not None and looks[0].log_prob is not None:
            logs = functional.linear(states.detach(), self.table).float().log_softmax(-1)
            reward = logs.gather(2, target[..., None])[..., 0].detach()
            expected = self.baseline(rows.detach())[..., 0].float()
            gain = (reward - expected).detach()
            log_prob = torch.stack([look.log_prob for look in looks if look.log_prob is not None], 1)
            entropy = -(weights * weights.clamp_min(LEAST).log()).sum(-1)
            parts["looks"] = -(log_prob * gain + UNDECIDED * entropy)[there].mean()
            parts["baseline"] = functional.mse_loss(expected[there], reward[there])
        return parts

    def begin(self, pictures: Tensor) -> Told:
        """Pictures of which nothing is said yet. Raises ShapeError for other shapes."""
        if isinstance(self.see, nn.Linear):
            if pictures.dim() != 4 or pictures.shape[3] != self.see.in_features:
                size = self.see.in_features
                raise ShapeError(f"cells are [b, rows, columns, {size}], not {tuple(pictures.shape)}")
            pictures = pictures.to(self.see.weight.dtype)
        cells = self.see(pictures)
        cells = self.norm(cells + self.where(whereabouts(*cells.shape[1:3], cells)))
        cells = self.drop(cells.flatten(1, 2))
        keys, values = self.key(cells)[:, None], cells[:, None]
        if self.attention == "none":
            mixed = cells.mean(1)
        else:
            mixed = self.overview(self.wanted.to(keys.dtype).expand(len(cells), -1), keys, values).mixed[:, 0, 0]
        one, two = torch.tanh(self.first(mixed)).chunk(2, -1)
        return Told(keys, values, (one, two), mixed)

    def step(self, pieces: Tensor, said: Told) -> Tensor:
        """Hear the last pieces [b]; `said` moves on, and what may come next is given as logits [b, v]."""
        state, _, _ = self._step(self.drop(self.piece(pieces)), said)
        return functional.linear(state, self.table)

    @torch.no_grad()
    def alignments(self, pictures: Tensor, target: Tensor) -> dict[str, Tensor]:
        """What each piece of a given target [b, t] read of the cells when it was said, as [b, t, cells]; nothing where
        there is no attention."""
        if self.attention == "none":
            return {}
        before = functional.pad(target[:, :-1], (1, 0), value=1)
        with watch(self) as seen:
            self._all(before, self.begin(pictures))
        looks = [seen[f"look@{i}"].weights[:, :][:, 0] for i in range(target.shape[1])]
        return {"saying": torch.cat(looks, 1)}

    def _all(self, told: Tensor, said: Told) -> tuple[Tensor, list[Look], Tensor]:
        """Pieces that follow each other [b, t] -> what is said after each [b, t, width], its looks, and the states."""
        each = [self._step(word, said) for word in self.drop(self.piece(told)).unbind(1)]
        states, looks, rows = zip(*each, strict=True)
        return torch.stack(states, 1), list(looks), torch.stack(rows, 1)

    def _step(self, word: Tensor, said: Told) -> tuple[Tensor, Look, Tensor]:
        state, memory = self.cell(torch.cat([word, said.mixed], -1), said.state)
        said.state = state, memory
        look = self._look(state, said)
        said.mixed = torch.sigmoid(self.gate(state)) * look.mixed
        return self.drop(torch.tanh(self.out(torch.cat([word, state, said.mixed], -1)))), look, state

    def _look(self, state: Tensor, said: Told) -> Look:
        if self.attention == "none":
            return Look(said.values[:, 0].mean(1), state.new_zeros(len(state), 0))
        reading = self.look(state, said.keys, said.values)
        weights = reading.weights[:, :][:, 0, 0]
        if self.attention == "soft":
            return Look(reading.mixed[:, 0, 0], weights)
        if not self.training:
            return Look(said.values[:, 0][torch.arange(len(state)), weights.argmax(-1)], weights)
        at = torch.multinomial(weights.detach().float(), 1)
        taken = said.values[:, 0].gather(1, at[..., None].expand(-1, -1, said.values.shape[3]))[:, 0]
        return Look(taken, weights, weights.gather(1, at)[:, 0].clamp_min(LEAST).log())
