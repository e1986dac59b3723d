"""The same model without marks, step by step beside a steered one: what would it say, and how far off is this?"""

import math
from typing import Any

import torch
from torch import Tensor

from recuerdo.errors import InputError
from recuerdo.read import apart


class Beside:
    """A logits processor for `generate()`: runs the unsteered model over the same tokens, with a cache of its own.

    `steered` and `plain` collect the logits of both, [vocabulary] for each step. With `gate` (0 to 1) a token can be
    chosen only if the unsteered model gives it at least so many times the probability of its own favourite (the
    plausibility constraint of Li et al. 2022, contrastive decoding); without one nothing is changed. One sequence at
    a time. Doubles the time of the generation.
    """

    def __init__(self, model: Any, *, gate: float | None = None):
        if gate is not None and not 0 < gate <= 1:
            raise InputError(f"the gate is a part of the favourite's probability, above 0 and at most 1, not {gate:g}")
        self._model, self._gate = model, gate
        self._cache: Any = None
        self._seen = 0
        self.plain: list[Tensor] = []
        self.steered: list[Tensor] = []

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """input_ids [1, n], scores [1, vocabulary] -> scores."""
        if input_ids.shape[0] != 1:
            raise InputError(f"guard rails go along with one sequence at a time, not with {input_ids.shape[0]}")
        with torch.no_grad(), apart():
            out = self._model(input_ids[:, self._seen :], cache=self._cache, use_cache=True, logits_to_keep=1)
        self._cache, self._seen = out.cache, input_ids.shape[1]
        plain = out.logits[:, -1].float()
        self.plain.append(plain[0])
        self.steered.append(scores[0].float())
        if self._gate is None:
            return scores
        return scores.masked_fill(plain < plain.amax(-1, keepdim=True) + math.log(self._gate), -torch.inf)
