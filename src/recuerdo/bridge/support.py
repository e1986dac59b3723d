"""How much a model supports what it said, when some tokens are not there: what the truth of a map is measured by.

The target is fixed first: the answer that was heard (its probability per token), or, for an encoder, the meaning of
the whole text (cosine with its mean vector). Then tokens are taken away in one of two ways. `keys`: nobody can read
them, in no layer, head or row; exact, by muting them in every read. `input`: a neutral token stands in their place.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from recuerdo.bridge.attention import attach
from recuerdo.bridge.run import Heard, Loaded
from recuerdo.errors import ModelError
from recuerdo.read import bending, mute

TOKENS_AT_ONCE = 4096
Support = Callable[[np.ndarray], np.ndarray]


def support_of(loaded: Loaded, heard: Heard, removal: str) -> Support:
    """A function: which of the n tokens before the answer are there, bool [v, n] -> the model's support [v], 0 to 1.

    `removal` is "keys" or "input". Raises ModelError for a model that neither answered nor is an encoder.
    """
    if loaded.kind == "causal" and heard.answer_ids:
        judge = _answer
    elif loaded.kind == "encoder":
        judge = _meaning
    else:
        raise ModelError(
            f"{loaded.name} gave no answer here, so there is nothing whose support could fall: ask a question"
        )
    ids = torch.tensor(heard.ids)
    whole = judge(loaded, heard, ids[None], torch.ones(1, len(ids), dtype=torch.bool), None)
    step = max(1, TOKENS_AT_ONCE // (len(ids) + len(heard.answer_ids)))
    neutral = neutral_token(loaded.tokenizer)

    def support(kept: np.ndarray) -> np.ndarray:
        there = torch.from_numpy(np.ascontiguousarray(kept))
        parts = []
        with torch.no_grad():
            for some in there.split(step):
                if removal == "input":
                    read = torch.where(some, ids, neutral)
                    parts.append(judge(loaded, heard, read, torch.ones_like(some), whole))
                    continue
                removed = ~some

                def rule(address: object, reading: Any, removed: Tensor = removed) -> list:
                    width = reading.shape[3]
                    keys = torch.nn.functional.pad(removed, (0, max(width - removed.shape[1], 0)))[:, :width]
                    return [mute(keys)] if bool(keys.any()) else []

                with attach(loaded.model), bending(loaded.model, rule):
                    parts.append(judge(loaded, heard, ids.expand(len(some), -1), some, whole))
        return torch.cat([part[1] for part in parts]).double().numpy()

    return support


def neutral_token(tokenizer: Any) -> int:
    """A token that says as little as possible: the tokenizer's own mask or padding token, else an underscore."""
    for found in (tokenizer.mask_token_id, tokenizer.pad_token_id):
        if found is not None:
            return found
    return tokenizer("_", add_special_tokens=False)["input_ids"][0]


def _answer(loaded: Loaded, heard: Heard, read: Tensor, kept: Tensor, whole: Any) -> tuple[None, Tensor]:
    """The probability of the answer, per token (the geometric mean)."""
    answer = torch.tensor(heard.answer_ids).expand(len(read), -1)
    given = torch.cat([read, answer[:, :-1]], 1)
    logits = loaded.model(given, use_cache=False, logits_to_keep=answer.shape[1]).logits
    chances = torch.log_softmax(logits.float(), -1).gather(-1, answer[..., None])[..., 0]
    return None, chances.mean(-1).exp()


def _meaning(loaded: Loaded, heard: Heard, read: Tensor, kept: Tensor, whole: Any) -> tuple[Tensor, Tensor]:
    """The cosine between the mean vector of what is there and that of the whole text."""
    vectors = loaded.model(input_ids=read).last_hidden_state.float()
    share = kept.float()[..., None]
    mean = (vectors * share).sum(1) / share.sum(1).clamp_min(1.0)
    return mean, torch.nn.functional.cosine_similarity(mean, mean if whole is None else whole[0], dim=-1)
