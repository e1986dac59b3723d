"""How far a memory inside a language model is to be believed, learned while it reads.

A recall is as loud as it is alike; how often it is then right differs from text to text: a manual says its sentences
again, a novel begins them in the same way and goes on otherwise. While a memory reads it knows which token came, so
that shifts of its log-mass can be compared: six experts stand beside each other, from silence (-inf) to louder than it
is, each with a weight that is multiplied by a power of the chance it gave to the token that came. That is Bayes' rule
over experts, slowed down, so that few loud mistakes do not silence a memory that will be asked for something else; and
a little of each weight is given back to where it began after every token, so that a text may change (fixed share,
Herbster and Warmuth 1998). Quiet and loud recalls learn apart.

The mean of all experts is itself a shift for each token, so model and memory still merge as reads do.
"""

import json

import numpy as np

from recuerdo.errors import InputError

# Chosen on the texts that the heads were chosen on: see benchmarks/language_memory.py.
EDGES = np.array([-4.0, -3.0, -2.0, -1.0, 0.0, 1.0, 2.0, 4.0])  # of the log-mass, between which recalls learn together
SHIFTS = np.array([-np.inf, -3.0, -2.0, -1.0, 0.0, 1.0])  # of the log-mass, one for each expert
BEGIN = np.array([1.0, 1.0, 1.0, 1.0, 16.0, 1.0]) / 21  # their weights at first: mostly the memory as it is
SLOW = 0.2  # the power: 1 = Bayes' rule
GIVEN_BACK = 0.003  # of the weights, after each token
FIX = 'take it away with `store.note("belief", "")`, and it learns again'


class Belief:
    """Weights [9, 6] of the experts, by how loud a recall is."""

    def __init__(self, weights: np.ndarray | None = None):
        self.weights = np.tile(BEGIN, (len(EDGES) + 1, 1)) if weights is None else weights

    def shift(self, mass: np.ndarray) -> np.ndarray:
        """What is added to the log-mass of recalls, beside a model with log-mass 0: [q] of [q]."""
        logs = np.log(self.weights[np.searchsorted(EDGES, mass)])
        whole = np.logaddexp(0.0, mass[:, None] + SHIFTS)
        return np.logaddexp.reduce(logs + SHIFTS - whole, 1) - np.logaddexp.reduce(logs - whole, 1)

    def learn(self, mass: np.ndarray, model: np.ndarray, memory: np.ndarray) -> None:
        """Tokens came, in this order: the log-masses of their recalls [q], and the log-chances that the model and the
        memory by themselves gave them, [q] and [q]."""
        louder = mass[:, None] + SHIFTS
        told = np.logaddexp(model[:, None], memory[:, None] + louder) - np.logaddexp(0.0, louder)
        told = np.exp(SLOW * (told - told.max(1, keepdims=True)))  # the model itself is among them and has a chance
        for one, chance in zip(np.searchsorted(EDGES, mass), told, strict=True):
            after = self.weights[one] * chance
            self.weights[one] = (1 - GIVEN_BACK) * after / after.sum() + GIVEN_BACK * BEGIN

    def as_text(self) -> str:
        """To be written down."""
        return json.dumps([[float(f"{x:.6g}") for x in row] for row in self.weights])

    @classmethod
    def of_text(cls, text: str) -> "Belief":
        """What was written down; at first, nothing. Raises InputError for what no memory wrote."""
        if not text:
            return cls()
        try:
            weights = np.array(json.loads(text), np.float64)
        except (ValueError, TypeError) as error:
            raise InputError(f"the belief of this memory cannot be read ({error}): {FIX}") from error
        if weights.shape != (len(EDGES) + 1, len(SHIFTS)) or not (weights > 0).all():
            raise InputError(f"the belief of this memory has no {len(EDGES) + 1} x {len(SHIFTS)} weights: {FIX}")
        return cls(weights / weights.sum(1, keepdims=True))
