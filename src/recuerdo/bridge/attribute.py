"""Attributions by gradients of the input: what others use instead of attention, to be judged by the same meter."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from recuerdo.bridge.run import Heard, Loaded
from recuerdo.bridge.support import can_judge, neutral_token
from recuerdo.errors import ModelError

STEPS = 16
STEPS_AT_ONCE = 4


def input_gradients(loaded: Loaded, heard: Heard) -> np.ndarray:
    """Gradient times input (Shrikumar et al. 2017) for the answer's log-probability or the text's meaning: [n] tokens.

    Raises ModelError when there was no answer.
    """
    target, given = _target(loaded, heard), _embedded(loaded, heard.ids).requires_grad_()
    (gradient,) = torch.autograd.grad(target(given).sum(), given)
    return (gradient * given).sum(-1)[0].detach().double().numpy()


def integrated_gradients(loaded: Loaded, heard: Heard, *, steps: int = STEPS) -> np.ndarray:
    """Integrated gradients (Sundararajan et al. 2017) by captum, from a document of neutral tokens to it: [n] tokens.

    What stands around the document stays, so its tokens get 0. Raises ModelError when captum is not installed, or
    when there was no answer.
    """
    try:
        from captum.attr import IntegratedGradients
    except ImportError:
        raise ModelError("integrated gradients need captum: pip install 'recuerdo[truth]'") from None
    neutral, (start, end) = neutral_token(loaded.tokenizer), heard.document
    without = [
        neutral if start <= a < b <= end else token for token, (a, b) in zip(heard.ids, heard.offsets, strict=True)
    ]
    found = IntegratedGradients(_target(loaded, heard)).attribute(
        _embedded(loaded, heard.ids),
        baselines=_embedded(loaded, without),
        n_steps=steps,
        internal_batch_size=STEPS_AT_ONCE,
    )
    return found.sum(-1)[0].detach().double().numpy()


def _embedded(loaded: Loaded, ids: list[int]) -> Tensor:
    return loaded.model.get_input_embeddings()(torch.tensor([ids])).detach()


def _target(loaded: Loaded, heard: Heard) -> Callable[[Tensor], Tensor]:
    """Embedded tokens [v, n, d] -> the target [v]: the answer's log-probability, or likeness to the whole text."""
    if not can_judge(loaded, heard):
        raise ModelError(
            f"{loaded.name} gave no answer here, so there is nothing to take a gradient of: ask a question"
        )
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
