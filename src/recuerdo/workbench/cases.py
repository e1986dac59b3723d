"""A feedback before a model: what is to be learned of it, the losses that say so, and the figures that judge it.

The steered model is heard once over the text: how much each of its reads gives to the marked words is what the model
shall learn to give by itself (it is its own teacher). Three losses:

    mass     KL of a read's share on the marked words from the steered share, in the reads behind the text
    answer   minus the log-probability of the wanted answer, where the feedback gives one
    keep     KL of the next words from those of the untaught model, everywhere before the answer: it shall stay itself
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from recuerdo.bridge.attention import watch
from recuerdo.bridge.reads import layer_of
from recuerdo.bridge.run import Loaded, encode, hear_answer, prompt_of, quiet
from recuerdo.errors import InputError, MarkError
from recuerdo.read import Reading
from recuerdo.steer.journal import Feedback
from recuerdo.steer.losses import mass_loss
from recuerdo.steer.placing import on_prompt
from recuerdo.train.fit import Pace
from recuerdo.workbench.steering import steer

KEPT = 128  # next words whose probabilities are remembered, at so many places of a text
PLACES = 48
RATES = {"lora": 2e-3, "full": 5e-5}
SPOKEN = 16  # tokens of an answer that nobody gave


@dataclass(frozen=True)
class Lesson:
    """How to teach. `method`: lora (adapters of this `rank` in the attention) or full (all parameters), at the highest
    learning rate `lr` (None = what suits the method, RATES).

    The weights say what each loss counts. `layers`: only these, from the end if negative (None = those that the marks
    bend). `check`: the share of the feedback that is held out, never taught, and measured beside the rest.
    `own_answers`: where no answer is wanted, what the steered model answers is learned. Raises InputError.
    """

    method: str = "lora"
    steps: int = 30
    lr: float | None = None
    rank: int = 8
    batch: int = 2
    mass_weight: float = 10.0
    answer_weight: float = 1.0
    keep_weight: float = 1.0
    layers: tuple[int, ...] | None = None
    check: float = 0.0
    own_answers: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        if self.rank < 1 or self.batch < 1:
            raise InputError(f"the rank is {self.rank} and the batch {self.batch}: both are 1 or more")
        weights = (self.mass_weight, self.answer_weight, self.keep_weight)
        if not all(0 <= weight < float("inf") for weight in weights) or not sum(weights[:2]):
            raise InputError("the weights of the losses are 0 or more, and mass or answer counts: raise one of them")
        if not 0 <= self.check < 1:
            raise InputError(f"the share that is held out is {self.check:g}: give 0 or more, and less than 1")
        self.pace()

    def pace(self) -> Pace:
        """Steps and learning rates."""
        return Pace(self.steps, RATES.get(self.method, 1e-3) if self.lr is None else self.lr)


@dataclass(frozen=True)
class Numbers:
    """What a model does with texts of the feedback; means over the texts, None where none of them says anything.

    `answer_mass`: share of the reads that write the answer on the words to look at; `later_mass`: the same of all reads
    behind the text; `away_mass`: of these, on words to look away from. `log_probability`: of the wanted answer, per
    token; `right`: how many answers contain it. `damage`: nats between the next words of the taught model and those of
    the untaught one, over these texts without their questions.
    """

    texts: int
    answer_mass: float | None = None
    later_mass: float | None = None
    away_mass: float | None = None
    log_probability: float | None = None
    right: float | None = None
    damage: float | None = None

    @classmethod
    def of(cls, figures: Sequence[Mapping[str, float]]) -> "Numbers":
        """The means of the figures of several texts."""
        found: dict[str, list[float]] = {}
        for some in figures:
            for name, value in some.items():
                found.setdefault(name, []).append(value)
        return cls(len(figures), **{name: sum(values) / len(values) for name, values in found.items()})


@dataclass(frozen=True, eq=False)
class Aim:
    """What one read shall give to some keys: `keys` [k] bool, `share` [b, h, q], `active` [b, h, q] (0: not asked)."""

    keys: Tensor
    share: Tensor
    active: Tensor


@dataclass(frozen=True, eq=False)
class Known:
    """The most probable next words of a model at some places of a text: `places` [n], `words` and `logs` [n, m]."""

    ids: list[int]
    places: Tensor
    words: Tensor
    logs: Tensor

    @classmethod
    def of(cls, loaded: Loaded, ids: list[int]) -> "Known":
        """What the model says now, at places spread over the text."""
        places = torch.linspace(0, len(ids) - 1, min(len(ids), PLACES)).long()
        logs = _logits(loaded, torch.tensor([ids]), places).log_softmax(-1)
        top = logs.topk(min(KEPT, logs.shape[-1]))
        return cls(ids, places, top.indices, top.values)

    def nats(self, logits: Tensor) -> Tensor:
        """KL of what was known from what logits [n, v] say, a scalar; words that were not remembered count as one."""
        logs = logits.log_softmax(-1).gather(-1, self.words)
        rest = 1 - self.logs.exp().sum(-1).clamp_max(1 - 1e-6)
        other = torch.log1p(-logs.exp().sum(-1).clamp_max(1 - 1e-6))
        return ((self.logs.exp() * (self.logs - logs)).sum(-1) + rest * (rest.log() - other)).mean()

    def far(self, loaded: Loaded) -> float:
        """How far the model has moved from what was known, in nats."""
        return float(self.nats(_logits(loaded, torch.tensor([self.ids]), self.places)))


@dataclass(frozen=True, eq=False)
class Case:
    """A feedback before the model: the tokens before the answer, the answer's, and all that is to be compared.

    `later`: the number of the first token behind the text; `towards` and `away`: the tokens to look at and not to look
    at, [n] bool; `aims` by the path of the read; `asked`: the figures of the steered model.
    """

    feedback: Feedback
    ids: list[int]
    answer: list[int]
    later: int
    towards: Tensor
    away: Tensor
    known: Known
    alone: Known
    aims: Mapping[str, Sequence[Aim]]
    asked: Mapping[str, float]

    @property
    def given(self) -> Tensor:
        """What the model reads, [1, n]: all tokens but the last, which nobody reads."""
        return torch.tensor([self.ids + self.answer[:-1]])

    @property
    def speaking(self) -> Tensor:
        """The places that write the answer."""
        return torch.arange(len(self.ids) - 1, len(self.ids) - 1 + max(len(self.answer), 1))


def case_of(loaded: Loaded, entry: Feedback, lesson: Lesson) -> Case:
    """A feedback before the untaught model, which reads it once as it is and once steered.

    Raises InputError and MarkError that name the feedback.
    """
    text, place, _, special = prompt_of(loaded, entry.text, entry.question)
    encoded = encode(loaded, text, special=special, room=64, document=place)
    ids, offsets = encoded["input_ids"], encoded["offset_mapping"]
    try:
        keys = on_prompt(entry.marks, entry.text, text, offsets, place)
    except MarkError as error:
        raise MarkError(f"feedback {entry.id}: {error}") from None
    towards, away = (torch.zeros(len(ids), dtype=torch.bool) for _ in range(2))
    for mark, some in zip(entry.marks, keys, strict=True):
        (towards if mark.action in ("boost", "share") else away).logical_or_(some)

    def steered() -> Any:
        return steer(loaded, entry.marks, text=text, inputs=encoded, document=place)

    answer = _answer(loaded, entry, text, steered if lesson.own_answers and entry.marks else None)
    behind = [i for i, (start, end) in enumerate(offsets) if end > start >= place[1]]
    later = behind[0] if behind else len(ids) - 1
    if not behind and not answer:  # the text is all there is: what reads behind the first marked word
        later = int((towards | away).nonzero()[0]) + 1
    alone = encode(loaded, entry.text, special=True)["input_ids"]
    known = Known.of(loaded, ids[:-1] or ids), Known.of(loaded, alone)
    case = Case(entry, ids, answer, later, towards, away, *known, {}, {})
    if not entry.marks:
        return case
    with watch(loaded.model) as seen, steered():
        logits = _logits(loaded, case.given, case.speaking)
    reads = [seen[path] for path in seen.paths]
    aims = {r.address.partition("@")[0]: _aims(r, later) for r in reads if _wanted(r, lesson.layers)}
    if not aims:
        raise MarkError(f"feedback {entry.id}: its marks bend no read that is to be taught: look at scope and layers")
    return replace(case, aims=aims, asked=_masses(case, reads) | _chance(case, logits))


def _answer(loaded: Loaded, entry: Feedback, text: str, steered: Any) -> list[int]:
    """The tokens of the wanted answer and its end, or of what the model answers, by itself or steered."""
    tokenizer = loaded.tokenizer
    if entry.answer is not None:
        chat = entry.question is not None and tokenizer.chat_template
        blank = "" if chat or text[-1:].isspace() else " "
        ids = tokenizer(blank + entry.answer.strip(), add_special_tokens=False)["input_ids"]
        if not entry.answer.strip() or not ids:
            raise InputError(f"feedback {entry.id}: the wanted answer is empty")
        return ids + ([tokenizer.eos_token_id] if chat and tokenizer.eos_token_id is not None else [])
    if entry.question is None:
        return []
    if steered is None:
        return hear_answer(loaded, entry.text, entry.question, generate=SPOKEN).answer_ids
    with steered():
        return hear_answer(loaded, entry.text, entry.question, generate=SPOKEN).answer_ids


def paths_of(loaded: Loaded, case: Case, lesson: Lesson) -> list[str]:
    """The modules that read while the model hears a case, in the layers of the lesson."""
    with watch(loaded.model) as seen:
        _logits(loaded, case.given, case.speaking)
    return [path for path in seen.paths if lesson.layers is None or layer_of(path) in lesson.layers]


def _wanted(reading: Reading, layers: Sequence[int] | None) -> bool:
    return reading.bent is not None and (layers is None or layer_of(reading.address) in layers)


def _aims(reading: Reading, later: int) -> list[Aim]:
    """The shares of a steered read on the keys of each of its bends, in the rows behind the text."""
    aims, bent = [], reading.bent
    if bent is None:
        return aims
    behind = torch.arange(reading.shape[2]) >= later
    for i, bend in enumerate(bent.regions.bends):
        share = bent.after[..., i].clamp(0.0, 1.0)
        keys = bend.keys if bend.keys.dim() == 1 else bend.keys[0]
        aims.append(Aim(keys, share, (bend.active() & behind).expand_as(share)))
    return aims


def _logits(loaded: Loaded, given: Tensor, places: Tensor) -> Tensor:
    """The scores of the next words at places [n] of a text, [n, v]."""
    with torch.no_grad(), quiet():
        return loaded.model(given, use_cache=False, logits_to_keep=places).logits[0].float()


# -------------------------------------------------------------------------------------------------------------- losses


def aim_loss(reading: Reading, aim: Aim) -> Tensor:
    """KL of the share that a read shall give to keys from the one it gives: the mean over heads and rows, a scalar."""
    mass = reading.log_mass(aim.keys)
    to, off = aim.active * aim.share, aim.active * (1 - aim.share)
    least = (torch.xlogy(aim.share, aim.share) + torch.xlogy(1 - aim.share, 1 - aim.share)) * aim.active
    # mass_loss is a mean over weighed rows: weighed by the two wanted shares, "look here" and "look elsewhere" make KL.
    cross = to.sum() * mass_loss(mass, 1.0, to) + off.sum() * mass_loss(mass, 0.0, off)
    return (cross + least.sum()) / aim.active.sum().clamp_min(1)


def losses(loaded: Loaded, case: Case, lesson: Lesson) -> dict[str, Tensor]:
    """The losses of a case by name, each times its weight. One pass, with gradients."""
    before = case.known.places
    with quiet(), watch(loaded.model) as seen:
        places = torch.cat([before, case.speaking])
        logits = loaded.model(case.given, use_cache=False, logits_to_keep=places).logits[0].float()
    found = {}
    if case.aims and lesson.mass_weight:
        each = [aim_loss(seen[path], aim) for path, aims in case.aims.items() for aim in aims]
        found["mass"] = lesson.mass_weight * torch.stack(each).mean()
    learned = case.feedback.answer is not None or (lesson.own_answers and case.answer)
    if learned and lesson.answer_weight:
        found["answer"] = -lesson.answer_weight * _chances(case, logits[len(before) :]).mean()
    if lesson.keep_weight:
        found["keep"] = lesson.keep_weight * case.known.nats(logits[: len(before)])
    return found


def _chances(case: Case, logits: Tensor) -> Tensor:
    """The log-probability of each token of the answer, [t]."""
    return logits.log_softmax(-1).gather(-1, torch.tensor(case.answer)[:, None])[:, 0]


# ----------------------------------------------------------------------------------------------------------- measuring


def figures(loaded: Loaded, case: Case) -> dict[str, float]:
    """What the model does with a case, unsteered: the fields of Numbers that it says something about."""
    with watch(loaded.model) as seen:
        logits = _logits(loaded, case.given, case.speaking)
    found = _masses(case, list(seen.values())) | _chance(case, logits) | {"damage": case.alone.far(loaded)}
    if case.feedback.answer is not None:
        said = hear_answer(loaded, case.feedback.text, case.feedback.question, generate=max(SPOKEN, len(case.answer)))
        found["right"] = float(_plain(case.feedback.answer) in _plain(said.answer))
    return found


def _chance(case: Case, logits: Tensor) -> dict[str, float]:
    return {} if case.feedback.answer is None else {"log_probability": float(_chances(case, logits).mean())}


def _masses(case: Case, reads: Sequence[Reading]) -> dict[str, float]:
    found = {}
    for keys, name in ((case.towards, "later_mass"), (case.away, "away_mass")):
        if bool(keys.any()):
            wide = torch.nn.functional.pad(keys, (0, reads[0].shape[3] - len(keys)))
            mass = torch.stack([reading.log_mass(wide).exp().mean((0, 1)) for reading in reads]).mean(0)
            found[name] = float(mass[case.later :].mean())
            if name == "later_mass" and case.answer:
                found["answer_mass"] = float(mass[len(case.ids) - 1 :].mean())
    return found


def _plain(text: str) -> str:
    """Without case, doubled blanks and the marks around a sentence."""
    return " ".join(text.casefold().split()).strip(" .!?\"'")
