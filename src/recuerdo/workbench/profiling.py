"""Profiling: which heads of a model obey marks, and how strongly to mark, learned from a few examples.

The factor on the odds of the marked words is one number for each head; the wanted answers' probability has a gradient
in it, through the bent reads themselves. So profiling is a short descent over a few hundred numbers, not thousands of
generations, and the model stays as it is.
"""

import math
import random
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import torch
from torch import Tensor

from recuerdo.bridge.attention import attach
from recuerdo.bridge.batch import Batch, batch_of
from recuerdo.bridge.reads import reads_of
from recuerdo.bridge.run import Loaded
from recuerdo.errors import InputError
from recuerdo.read import Address, Bend, Odds, Reading, bending
from recuerdo.steer.journal import Feedback
from recuerdo.steer.placing import on_prompt
from recuerdo.steer.profiles import Profile
from recuerdo.workbench.looking import Progress

START = 2.0  # log of the factor where the descent begins
MOST = 6.0  # log of the largest factor it may reach
LEAST = 0.05  # heads whose log-factor ends up smaller are left out


def learn_profile(
    loaded: Loaded,
    feedback: Sequence[Feedback],
    name: str,
    *,
    steps: int = 40,
    rate: float = 0.3,
    queries: str = "after",
    seed: int = 0,
    progress: Progress | None = None,
) -> Profile:
    """Learn a strength for every head, so that marking the marked words brings about the wanted answers.

    `feedback`: texts with marks, questions and wanted answers, ten or more that are alike; every fifth is held out
    and scored. `queries`: "after" bends only what stands behind the document, "all" every row. Adam on the log-factors,
    clamped to 0..6. Raises InputError for feedback without answers, MarkError for marks that do not fit their text
    and for a name or queries that a profile cannot have.
    """
    Profile(name, loaded.name, ((0, 0),), "boost", math.e, queries=queries)  # refuse a bad name before the work
    useful = [one for one in feedback if one.answer and one.marks]
    if len(useful) < 2:
        raise InputError("a profile is learned from marks with wanted answers, two or more: keep some with --answer")
    order = random.Random(seed).sample(range(len(useful)), len(useful))
    held = [useful[i] for i in order[::5]] if len(useful) >= 5 else []
    taught = [useful[i] for i in order if not (len(useful) >= 5 and order.index(i) % 5 == 0)]
    reads = reads_of(loaded.model)
    layers, heads = reads.layers or 1, reads.heads or 1
    strengths = torch.zeros(layers, heads)
    strengths[layers // 5 :] = START
    strengths.requires_grad_()
    optimiser = torch.optim.Adam([strengths], lr=rate, betas=(0.9, 0.95))
    batches = [_examples(loaded, taught[i : i + 4]) for i in range(0, len(taught), 4)]
    learned = [p for p in loaded.model.parameters() if p.requires_grad]
    for parameter in learned:
        parameter.requires_grad_(False)
    try:
        for step in range(steps):
            optimiser.zero_grad()
            loss = -_support(loaded, *batches[step % len(batches)], strengths, queries).mean()
            loss.backward()
            optimiser.step()
            with torch.no_grad():
                strengths.clamp_(0.0, MOST)
            if progress is not None:
                progress("learning strengths", step + 1, steps)
    finally:
        for parameter in learned:
            parameter.requires_grad_(True)
    scores = {}
    for what, some in (("learned from", taught), ("held out", held)):
        if some:
            scores |= _scores(loaded, some, strengths.detach(), queries, what)
    return _profile(loaded, name, strengths.detach(), queries, len(taught), scores)


def _examples(loaded: Loaded, some: Sequence[Feedback]) -> tuple[Batch, Tensor]:
    """A batch and its marked columns, [b, t] bool."""
    batch = batch_of(loaded, [(one.text, one.question, one.answer or "") for one in some])
    keys = [
        torch.stack(on_prompt(one.marks, one.text, prompt, offsets, document)).any(0)
        for one, prompt, offsets, document in zip(some, batch.texts, batch.offsets, batch.documents, strict=True)
    ]
    return batch, batch.columns(keys)


def _support(loaded: Loaded, batch: Batch, marked: Tensor, strengths: Tensor | None, queries: str) -> Tensor:
    """Log-probability per token of each wanted answer, [b]; steered by log-factors [layers, heads], or not at all."""
    if strengths is None:
        return batch.answer_log_probability(loaded.model)
    layer_of, rows = reads_of(loaded.model).layer, batch.behind() if queries == "after" else None

    def rule(address: Address, reading: Reading) -> list[Bend]:
        return [Odds(marked, strengths[layer_of(address.path)].exp(), rows=rows)]

    with attach(loaded.model), bending(loaded.model, rule):
        return batch.answer_log_probability(loaded.model)


def _scores(loaded: Loaded, some: Sequence[Feedback], strengths: Tensor, queries: str, what: str) -> dict[str, float]:
    """Mean probability per token of the wanted answers, without and with the profile."""
    plain, steered = [], []
    with torch.no_grad():
        for i in range(0, len(some), 4):
            batch, marked = _examples(loaded, some[i : i + 4])
            plain += _support(loaded, batch, marked, None, queries).exp().tolist()
            steered += _support(loaded, batch, marked, strengths, queries).exp().tolist()
    return {f"{what}, unsteered": sum(plain) / len(plain), f"{what}, steered": sum(steered) / len(steered)}


def _profile(
    loaded: Loaded, name: str, strengths: Tensor, queries: str, examples: int, scores: dict[str, Any]
) -> Profile:
    chosen = [(int(i), int(h)) for i, h in (strengths > LEAST).nonzero().tolist()]
    if not chosen:
        raise InputError("marking these words did not help any of these answers: look at the marks and the answers")
    logs = [float(strengths[i, h]) for i, h in chosen]
    return Profile(
        name=name,
        model=loaded.name,
        heads=tuple(chosen),
        action="boost",
        amount=math.exp(sum(logs) / len(logs)),
        strengths=tuple(round(math.exp(x), 4) for x in logs),
        queries=queries,
        examples=examples,
        scores={key: round(value, 4) for key, value in scores.items()},
        date=datetime.now(UTC).isoformat(timespec="seconds"),
    )
