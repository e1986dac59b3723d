"""Find the two facts that answer a question, in two hops: the first finds what the question names, the second the rest.

Facts and questions (`recuerdo.data.chains`) are vectors of a frozen sentence encoder, as they are in a memory that
lasts; only where to look next is learned. Each split has names and chains of its own.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from recuerdo.data.chains import world
from recuerdo.errors import InputError
from recuerdo.models.follow import Follow
from recuerdo.read import dot, read

MODELS: dict[str, Callable[..., nn.Module]] = {"follow": Follow}
SHOWN = 3  # facts that a hop shows
SPLITS = ("valid", "test")

Encode = Callable[[Sequence[str]], np.ndarray]
Next = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True, eq=False)
class Looks:
    """Questions about some worlds: queries [w, q, d], keys [w, n, d]; `facts` [w, q, 2]: the one that each hop shall
    find (twice the same where the answer takes one), and `long` [w, q]: whether it takes two."""

    queries: Tensor
    keys: Tensor
    facts: Tensor
    long: Tensor

    def __len__(self) -> int:
        return len(self.queries)

    def take(self, rows: Sequence[int]) -> "Looks":
        """Some of the worlds."""
        return Looks(*(x[list(rows)] for x in (self.queries, self.keys, self.facts, self.long)))


@dataclass
class Find:
    """The worlds, and how they come: so many `worlds` to train with, `batch` at once, `checks` of them in every check,
    each with so many `facts` and `questions`.

    `encoder` is the name of a sentence encoder; whoever composes a run puts its `encode` here. `width` is that of its
    vectors, 0 = ask it. `sharpness` is what memories read with. Raises InputError for numbers below 1.
    """

    encoder: str = "minilm"
    worlds: int = 160
    batch: int = 16
    facts: int = 44
    questions: int = 12
    sharpness: float = 20.0
    checks: int = 24
    width: int = 0
    encode: Encode | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        if min(self.worlds, self.batch, self.facts, self.questions, self.checks) < 1 or self.batch > self.worlds:
            raise InputError(f"the numbers of a Find are 1 or more, and batch is at most worlds: not {self}")

    def model(self, name: str, **arguments) -> nn.Module:
        """The model of a name, as wide as the encoder. Raises InputError for a name that is not in MODELS."""
        if name not in MODELS:
            raise InputError(f"there is no model {name!r} for finding facts: choose {', '.join(MODELS)}")
        return MODELS[name](self._wide(), **arguments)

    def carries(self) -> dict[str, int]:
        """How wide the vectors are: with it a trained model is opened without the encoder."""
        return {"width": self._wide()}

    def batches(self, *, seed: int, start: int = 0) -> Iterator[Looks]:
        """Batches without end; which one comes at a step depends on the seed and the step alone."""
        looks, step = self.looks("train"), start
        while True:
            draw = np.random.default_rng((seed, step))
            yield looks.take(draw.choice(len(looks), self.batch, replace=False).tolist())
            step += 1

    def loss(self, model: nn.Module, batch: Looks) -> dict[str, Tensor]:
        """Minus the log of the share of the second fact at the second hop, mean over the questions that take two.

        Where the first hop came upon that one already, the second shall find the other.
        """
        first, second = self._hops(model, batch)
        wanted = batch.facts[:, :, 1].where(first.argmax(-1) != batch.facts[:, :, 1], batch.facts[:, :, 0])
        return {"second": functional.cross_entropy(second[batch.long], wanted[batch.long])}

    @torch.no_grad()
    def check(self, model: nn.Module, split: str) -> dict[str, float]:
        """Percent of the questions of two facts of which not both are among the first 3 of the two hops.

        `second`: the second fact is not the first of the second hop. `sum`: as `error`, with question plus fact as next
        question. `once`: not both are among the first 6 of one hop.
        """
        if split not in SPLITS:
            raise InputError(f"there is no split {split!r} of chains: choose {' or '.join(SPLITS)}")
        looks = self.looks(split)

        def missing(*shown: Tensor) -> float:
            there = (torch.cat(shown, -1)[..., None] == looks.facts[:, :, None]).any(2).all(-1)
            return float(100 - 100 * there[looks.long].double().mean())

        hops, plain = self._hops(model, looks), self._hops(_sum, looks)
        return {
            "error": missing(*(hop.topk(SHOWN, -1).indices for hop in hops)),
            "second": float(100 * (hops[1].argmax(-1) != looks.facts[:, :, 1])[looks.long].double().mean()),
            "sum": missing(*(hop.topk(SHOWN, -1).indices for hop in plain)),
            "once": missing(hops[0].topk(2 * SHOWN, -1).indices),
        }

    def looks(self, split: str) -> Looks:
        """All worlds of a split."""
        count = self.checks if split in SPLITS else self.worlds
        return _looks(self._encoder(), split, count, self.facts, self.questions)

    def _wide(self) -> int:
        return self.width or self._encoder()(["How wide?"]).shape[1]

    def _encoder(self) -> Encode:
        if self.encode is None:
            raise InputError("the task find has no encoder yet: set its `encode`, as training by a recipe does")
        return self.encode

    def _hops(self, follow: Next, looks: Looks) -> tuple[Tensor, Tensor]:
        """The logits of both hops, [w, q, n] each. What the first reads most the second does not read again."""
        first = self.sharpness * looks.queries @ looks.keys.mT
        asked, keys = (looks.queries * self.sharpness)[:, None], looks.keys[:, None]
        query = follow(looks.queries, read(asked, keys, keys, score=dot).mixed[:, 0])
        second = self.sharpness * query @ looks.keys.mT
        return first, second.scatter(-1, first.argmax(-1, keepdim=True), -torch.inf)


@lru_cache(4)  # several seeds read the same worlds
def _looks(encode: Encode, split: str, count: int, facts: int, questions: int) -> Looks:
    told = [world(split, 0, n, facts=facts, questions=questions) for n in range(count)]
    texts = [text for one in told for text in (*one.facts, *(q.text for q in one.questions))]
    vectors = torch.from_numpy(encode(texts)).unflatten(0, (count, facts + questions))
    pairs = [[(q.facts[0], q.facts[-1]) for q in one.questions] for one in told]
    long = [[len(q.facts) > 1 for q in one.questions] for one in told]
    return Looks(vectors[:, facts:], vectors[:, :facts], torch.tensor(pairs), torch.tensor(long))


def _sum(query: Tensor, mixed: Tensor) -> Tensor:
    return functional.normalize(query + mixed, dim=-1)
