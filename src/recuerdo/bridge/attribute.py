"""Attributions by gradients of the input: what others use instead of attention, to be judged by the same meter."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from recuerdo.bridge.run import Heard, Loaded
from recuerdo.bridge.support import neutral_token
from recuerdo.errors import ModelError

STEPS = 16


def input_gradients(loaded: Loaded, heard: Heard) -> np.ndarray:
    """Gradient times input (Shrikumar et al. 2017) for the answer's log-probability or the text's meaning: [n] tokens."""
    given = _embedded(loaded, heard.ids).requires_grad_()
    (gradient,) = torch.autograd.grad(_target(loaded, heard)(given).sum(), given)
    return (gradient * given).sum(-1)[0].detach().double().numpy()


def integrated_gradients(loaded: Loaded, heard: Heard, *, steps: int = STEPS) -> np.ndarray:
    """Integrated gradients (Sundararajan et al. 2017) by captum, from neutral tokens to the text: [n] tokens.

    Raises ModelError when captum is not installed.
    """
    try:
        from captum.attr import IntegratedGradients
    except ImportError:
        raise ModelError("integrated gradients need captum: pip install 'recuerdo[truth]'") from None
    given = _embedded(loaded, heard.ids)
    base = _embedded(loaded, [neutral_token(loaded.tokenizer)] * len(heard.ids))
    found = IntegratedGradients(_target(loaded, heard)).attribute(
        given, baselines=base, n_steps=steps, internal_batch_size=4
    )
    return found.sum(-1)[0].detach().double().numpy()


def _embedded(loaded: Loaded, ids: list[int]) -> Tensor:
    return loaded.model.get_input_embeddings()(torch.tensor([ids])).detach()


def _target(loaded: Loaded, heard: Heard) -> Any:
    """Embedded tokens [v, n, d] -> the target [v]: the answer's log-probability, or likeness to the whole text."""
    if loaded.kind == "encoder":
        with torch.no_grad():
            whole = loaded.model(inputs_embeds=_embedded(loaded, heard.ids)).last_hidden_state.mean(1)

        def meaning(given: Tensor) -> Tensor:
            mean = loaded.model(inputs_embeds=given).last_hidden_state.mean(1)
            return (mean * whole).sum(-1)  # the cosine has no gradient at the text itself: it is highest there

        return meaning
    answer = torch.tensor(heard.answer_ids)
    after = _embedded(loaded, heard.answer_ids)[:, :-1]

    def said(given: Tensor) -> Tensor:
        whole = torch.cat([given, after.expand(len(given), -1, -1)], 1)
        logits = loaded.model(inputs_embeds=whole, use_cache=False, logits_to_keep=len(answer)).logits
        chances = torch.log_softmax(logits.float(), -1)
        return chances.gather(-1, answer.expand(len(given), -1)[..., None])[..., 0].mean(-1)

    return said
