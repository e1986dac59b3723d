"""What a question found in a memory: episodes with their weights, hop by hop, as objects and as plain data."""

from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

import numpy as np

from recuerdo.store.record import Record
from recuerdo.workbench.tags import own, source_of


@dataclass(frozen=True, eq=False)
class Episode:
    """A row that was read: its share of the softmax, the row, and the sentence of it that is most like the question."""

    weight: float
    record: Record
    sentence: str
    also: tuple[int, ...] = ()  # rows that say the same

    @property
    def source(self) -> str:
        """Where it is from; empty where nobody said."""
        return source_of(self.record.tags)


@dataclass(frozen=True, eq=False)
class Asked:
    """What a question found: the episodes of each hop, best first; which share of the softmax over all rows addressed
    they hold at the last hop; how many rows were looked at, of how many."""

    question: str
    hops: tuple[tuple[Episode, ...], ...]
    covered: float
    looked: int
    addressed: int

    @property
    def episodes(self) -> tuple[Episode, ...]:
        """The episodes of all hops, each once: the best of every hop first, then the second of every hop, and so on.

        One that several hops read has the largest of its weights.
        """
        found: dict[int, Episode] = {}
        for rank in zip_longest(*self.hops):
            for one in rank:
                if one is not None and (one.record.id not in found or one.weight > found[one.record.id].weight):
                    found[one.record.id] = one
        return tuple(found.values())

    def as_json(self) -> dict[str, Any]:
        """Everything, as plain data."""
        return {
            "question": self.question,
            "hops": [
                [
                    {
                        "id": one.record.id,
                        "version": one.record.version,
                        "weight": one.weight,
                        "text": one.record.text,
                        "sentence": one.sentence,
                        "source": one.source,
                        "tags": own(one.record.tags),
                        "author": one.record.author,
                        "time": one.record.time,
                        "bias": one.record.bias if np.isfinite(one.record.bias) else None,
                        "also": list(one.also),
                    }
                    for one in hop
                ]
                for hop in self.hops
            ],
            "covered": self.covered,
            "looked": self.looked,
            "addressed": self.addressed,
        }
