"""Guard rails: how far a steered model is from itself, and whether it was pushed too hard."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from recuerdo.errors import ShapeError
from recuerdo.metrics import ngram_entropy

PLAUSIBLE = 0.1  # a token is plausible if it has this part of the favourite's probability (Li et al. 2022)
FAR = 4.0  # nats: beyond it the steered model says something else at nearly every step
POOR = 0.9  # of the entropy of word pairs before: below it the text repeats itself
FEW = 0.5  # of the tokens plausible: below it the answer is not the model's own language any more


@dataclass(frozen=True)
class Guard:
    """What steering did to an answer.

    `kl`: nats, mean over the steps, steered from unsteered. `plausible`: share of the chosen tokens that the unsteered
    model finds plausible. `fluency`: bi- and trigram entropy (bits) of the answer, before and after. `mass`: share of
    the answer's reads on the marked part, before and after. `warnings`: what looks like over-steering.
    """

    kl: float
    plausible: float
    fluency: tuple[float, float]
    mass: tuple[float, float]
    warnings: list[str] = field(default_factory=list)


def kl_of_steps(steered: Tensor, plain: Tensor) -> Tensor:
    """KL(steered || plain) of each step, nats: logits [t, v] of both -> [t]. Raises ShapeError."""
    if steered.shape != plain.shape or steered.dim() != 2:
        raise ShapeError(f"both logits are [t, v], not {tuple(steered.shape)} and {tuple(plain.shape)}")
    p, q = torch.log_softmax(steered.float(), -1), torch.log_softmax(plain.float(), -1)
    seen = ~torch.isneginf(p)
    return torch.where(seen, p.exp() * (p.masked_fill(~seen, 0.0) - q), 0.0).sum(-1).clamp_min(0.0)


def plausible(tokens: Sequence[int], plain: Tensor, part: float = PLAUSIBLE) -> Tensor:
    """Which tokens have at least `part` of the favourite's probability: plain logits [t, v] -> [t] bool."""
    if len(tokens) > plain.shape[0]:
        raise ShapeError(f"there are {len(tokens)} tokens and logits of {plain.shape[0]} steps only")
    logits = plain[: len(tokens)].float()
    chosen = logits.gather(-1, torch.tensor(list(tokens), device=logits.device)[:, None])[:, 0]
    return chosen >= logits.amax(-1) + math.log(part)


def guard(
    steered: Tensor, plain: Tensor, tokens: Sequence[int], before: Sequence[int], *, mass: tuple[float, float]
) -> Guard:
    """Guard rails of an answer: logits [t, v] of the steered and the unsteered model at each of its steps, its tokens,
    and the tokens of the unsteered answer."""
    steps = len(tokens)
    if not steps:
        return Guard(0.0, 1.0, (ngram_entropy(before), 0.0), mass, ["the steered model said nothing"])
    kl = float(kl_of_steps(steered[:steps], plain[:steps]).mean())
    own = float(plausible(tokens, plain).float().mean())
    fluency = ngram_entropy(before), ngram_entropy(tokens)
    warnings = []
    if kl > FAR:
        warnings.append(f"over-steered? the steered model is {kl:.1f} nats from itself at each step: mark more gently")
    if own < FEW:
        warnings.append(f"over-steered? only {100 * own:.0f} % of the answer's tokens are plausible without the marks")
    if repeats(tokens):
        warnings.append("over-steered? the answer repeats itself: mark more gently, or fewer heads")
    if mass[1] > 0.9:
        warnings.append(f"{100 * mass[1]:.0f} % of what the answer reads is the marked part: nearly all else is unread")
    return Guard(kl, own, fluency, mass, warnings)


def repeats(tokens: Sequence[int]) -> bool:
    """Whether a text goes round in circles: of its runs of three tokens, less than 60 % differ (20 tokens or more)."""
    runs = [tuple(tokens[i : i + 3]) for i in range(len(tokens) - 2)]
    return len(tokens) >= 20 and len(set(runs)) < 0.6 * len(runs)
