"""The Transformer, encoder and decoder (Vaswani et al. 2017), for pairs of texts.

Layers are normed at their entrance (pre-norm: Xiong et al. 2020):

    x = x + own(norm(x))        a piece reads the pieces of its own side, in the decoder those before it
    x = x + cross(norm(x))      in the decoder: and the source
    x = x + think(norm(x))

Watched, its reads are `encoder.i.own`, `decoder.i.own` and `decoder.i.cross`, over pieces: of all rows at once in
training; of one row for each step when it speaks, and of the source one for each way of a beam.
"""

import math
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from recuerdo.errors import InputError
from recuerdo.nn.attention import Kept, KeyValue, MultiHead
from recuerdo.nn.dropout import Dropout
from recuerdo.nn.lean import Linear, Map, Norm
from recuerdo.nn.places import sinusoids
from recuerdo.nn.saying import PAD, Speaking
from recuerdo.read import allow, causal, watch
from recuerdo.read.mask import Mask

BEGIN = 1
PLACES = 256  # that are made at once


@dataclass
class Told:
    """A decoder in the middle of some sentences: what it reads of the source and of itself, layer by layer."""

    source: list[KeyValue]
    own: list[Kept]
    there: Tensor  # [b, s] bool: which pieces of the source are no padding
    mask: Mask | None  # the same as a rule, one for all steps and layers
    steps: "list[Step]"  # of each layer
    norm: Norm  # of what they give
    count: int = 1  # of ways in which each sentence is said: so many rows in `own`, which share the source
    length: int = 0

    def ways(self, count: int) -> "Told":
        """Each sentence in so many ways, from now on a row each; what is read of the source is there once."""
        rows = torch.arange(len(self.there) * self.count, device=self.there.device).repeat_interleave(count)
        return replace(self, own=[one.take(rows) for one in self.own], count=self.count * count)

    def take(self, rows: Tensor) -> "Told":
        """Some of the sentences with all their ways, by rows [n], each as often as it is named; this is used up."""
        sentences = rows[:: self.count] // self.count
        there, source = self.there[sentences], [one.take(sentences) for one in self.source]
        return replace(self.reorder(rows), source=source, there=there, mask=_readable(there))

    def reorder(self, rows: Tensor) -> "Told":
        """The same, where each row goes on as another of the same sentence: what is read of the source stays where it
        is. This is used up."""
        return replace(self, own=[one.take(rows) for one in self.own])


class Layer(nn.Module):
    """One layer; with `cross` it is a decoder's."""

    def __init__(self, width: int, heads: int, inner: int, dropout: float, *, cross: bool):
        super().__init__()
        self.norm_own, self.own = nn.LayerNorm(width), MultiHead(width, heads)
        if cross:
            self.norm_cross, self.cross = nn.LayerNorm(width), MultiHead(width, heads)
        self.norm_think = nn.LayerNorm(width)
        self.think = nn.Sequential(Linear(width, inner), nn.ReLU(), Dropout(dropout), Linear(inner, width))
        self.drop = Dropout(dropout)

    def read_own(self, x: Tensor, mask: Mask | None, kept: Kept | None = None) -> Tensor:
        """Rows [b, q, width] read themselves, and what was kept before them; they are kept, too."""
        y, own = self.norm_own(x), self.own
        return x + self.drop(own.out(own(own.asked(y), own.keys(y, kept), mask)))

    def read_source(self, x: Tensor, source: KeyValue, mask: Mask | None) -> Tensor:
        """Rows [b, q, width] read the source."""
        cross = self.cross
        return x + self.drop(cross.out(cross(cross.asked(self.norm_cross(x)), source, mask)))

    def forward(self, x: Tensor) -> Tensor:
        """Each row thinks by itself, [b, q, width]."""
        return x + self.drop(self.think(self.norm_think(x)))


class Step(NamedTuple):
    """A decoder's layer that goes on by one piece, its parameters at hand: the same as its `read_own`, `read_source`
    and `forward` where nothing is dropped."""

    norm_own: Norm
    query_own: Map
    pair_own: Map
    own: MultiHead
    out_own: Map
    norm_cross: Norm
    query_cross: Map
    cross: MultiHead
    out_cross: Map
    norm_think: Norm
    wide: Map
    narrow: Map

    @classmethod
    def of(cls, layer: Layer) -> "Step":
        """That of a layer."""
        own, cross = layer.own, layer.cross
        wide, narrow = (part for part in layer.think if isinstance(part, nn.Linear))
        return cls(
            *(Norm.of(layer.norm_own), Map.of(own.query), Map.of(own.pair), own, Map.of(own.out)),
            *(Norm.of(layer.norm_cross), Map.of(cross.query), cross, Map.of(cross.out)),
            *(Norm.of(layer.norm_think), Map.of(wide), Map.of(narrow)),
        )

    def __call__(self, x: Tensor, kept: Kept, source: KeyValue, said: Told) -> Tensor:
        """Rows [b, width] -> the same."""
        b, width = x.shape
        y = self.norm_own(x)
        query = self.query_own(y).view(b, self.own.heads, 1, -1)
        x = x + self.out_own(self.own(query, self.own.split(self.pair_own(y)[:, None], kept)).flatten(0, 1))
        # All ways of a sentence read its source at once.
        query = self.query_cross(self.norm_cross(x)).view(-1, said.count, self.cross.heads, width // self.cross.heads)
        x = x + self.out_cross(self.cross(query.transpose(1, 2), source, said.mask).flatten(0, 1))
        return x + self.narrow(self.wide(self.norm_think(x)).relu())


class Transformer(Speaking):
    """Pieces of a source [b, s] and what was told [b, t] -> what comes next; 0 is padding.

    `width` is that of all vectors, `inner` that of the layers' second part. Raises InputError for heads that do not
    divide the width, and for no layers.
    """

    def __init__(
        self,
        vocabulary_size: int,
        *,
        width: int = 128,
        heads: int = 4,
        inner: int = 256,
        layers: int = 4,
        dropout: float = 0.3,
        head: int | None = None,
    ):
        super().__init__(vocabulary_size, width)
        if layers < 1:
            raise InputError(f"a Transformer has 1 layer or more, not {layers}")
        if head is not None and not 0 <= head < heads:
            raise InputError(f"there is no head {head} to show the alignment: choose 0 to {heads - 1}")
        self.width, self.head = width, head
        self.encoder = nn.ModuleList(Layer(width, heads, inner, dropout, cross=False) for _ in range(layers))
        self.decoder = nn.ModuleList(Layer(width, heads, inner, dropout, cross=True) for _ in range(layers))
        self.norm_source, self.norm_told = nn.LayerNorm(width), nn.LayerNorm(width)
        self.drop = Dropout(dropout)
        self.register_buffer("places", sinusoids(0, PLACES, width, self.table), persistent=False)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)

    def hear(self, source: Tensor, told: Tensor) -> Tensor:
        """See Speaking."""
        said = self.begin(source)
        x, mask = self._placed(told), said.mask
        for layer, there in zip(_layers(self.decoder), said.source, strict=True):
            x = layer.read_own(x, causal)
            x = layer(layer.read_source(x, there, mask))
        return self.norm_told(x[told != PAD])

    def guided(self, source: Tensor, told: Tensor) -> tuple[Tensor, Tensor]:
        """As `hear`, and what shows the alignment of each piece of the target but the last, [b, t - 1, s], with
        gradients."""
        with watch(self) as seen:
            states = self.hear(source, told)
        heads = seen[f"decoder.{self._layer}.cross"].weights[:, :]
        return states, heads.mean(1)[:, :-1] if self.head is None else heads[:, self.head, 1:]

    @torch.no_grad()
    def alignments(self, source: Tensor, target: Tensor) -> dict[str, Tensor]:
        """What each piece of a given target [b, t] reads of the source [b, s], as [b, t, s], by name.

        The first is the usual one, of the last layer but one: the mean over the heads (Garg et al. 2019) in the row
        that *says* the piece; or what `head` reads in the row that *hears* it, which knows it, and can be trained to
        look where it came from. Untrained for that, the row that hears a piece looks for the next one. The second is
        the raw one, the last layer, saying; the third the shifted one (Chen et al. 2020), the mean over the heads of
        the last layer but one, hearing. Then every layer and every head, both ways.
        """
        with watch(self) as seen:
            self.hear(source, functional.pad(target, (1, 0), value=BEGIN))
        layer, last = f"layer {self._layer}", f"layer {len(self.decoder) - 1}, saying"
        usual = f"{layer}, saying" if self.head is None else f"{layer} head {self.head}, hearing"
        found: dict[str, Tensor] = {}
        for i in range(len(self.decoder)):
            each = seen[f"decoder.{i}.cross"].weights[:, :]
            for way, rows in (("saying", slice(0, -1)), ("hearing", slice(1, None))):
                found[f"layer {i}, {way}"] = each.mean(1)[:, rows]
                found |= {f"layer {i} head {j}, {way}": each[:, j, rows] for j in range(each.shape[1])}
        return {name: found[name] for name in (usual, last, f"{layer}, hearing")} | found

    @property
    def _layer(self) -> int:
        """The layer that shows the alignment: the last but one."""
        return max(0, len(self.decoder) - 2)

    def begin(self, source: Tensor) -> Told:
        """Sources [b, s] of which nothing is said yet."""
        there = source != PAD
        x, mask = self._placed(source), _readable(there)
        for layer in _layers(self.encoder):
            x = layer.read_own(x, mask)
            x = layer(x)
        x = self.norm_source(x)
        read = [layer.cross.keys(x) for layer in _layers(self.decoder)]
        steps = [Step.of(layer) for layer in _layers(self.decoder)]
        return Told(read, [Kept() for _ in read], there, mask, steps, Norm.of(self.norm_told))

    def step(self, pieces: Tensor, said: Told) -> Tensor:
        """Hear the last pieces [b]; `said` moves on, and what may come next is given as logits [b, v]."""
        (place,) = self._places_of(said.length, 1)
        x = torch.add(place, functional.embedding(pieces, self.table), alpha=math.sqrt(self.width))
        for step, there, own in zip(said.steps, said.source, said.own, strict=True):
            x = step(x, own, there, said)
        said.length += 1
        return self.say(said.norm(x))

    def _placed(self, pieces: Tensor) -> Tensor:
        places = self._places_of(0, pieces.shape[1])
        return self.drop(torch.add(places, self.piece(pieces), alpha=math.sqrt(self.width)))

    def _places_of(self, first: int, count: int) -> Tensor:
        last = first + count
        if last > len(self.places):
            with torch.inference_mode(False):  # they stay, and may be trained with
                self.places = sinusoids(0, 2 * last, self.width, self.table)
        return self.places[first:last]


def _layers(side: nn.ModuleList) -> list[Layer]:
    return [layer for layer in side if isinstance(layer, Layer)]


def _readable(there: Tensor) -> Mask | None:
    """Who may be read: not padding. Where there is none, no rule is cheaper than one that allows all."""
    return None if there.all() else allow(there[:, None, None])
