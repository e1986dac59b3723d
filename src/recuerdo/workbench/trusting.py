"""How far a map can be trusted: every view and method of one look, judged by taking words away."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import pairwise
from typing import Any, Literal, cast

import numpy as np
import torch

from recuerdo.bridge.attribute import input_gradients, integrated_gradients
from recuerdo.bridge.run import hear_again
from recuerdo.bridge.support import REMOVALS, Support, support_of
from recuerdo.errors import InputError
from recuerdo.explain.evidence import Trusted
from recuerdo.explain.rows import Layer, Selection
from recuerdo.explain.truth import Measured, Randomisation, Truth, judge, measure, randomisation
from recuerdo.explain.words import Words, pool
from recuerdo.metrics import auprc, hit_at_k, token_f1_top
from recuerdo.workbench.looking import VIEWS, Look, Progress, see

METHODS = (*VIEWS, "input", "ig")
LABELS = {"input": "gradient × input", "ig": "integrated gradients (captum)"}
UNITS = ("words", "phrases", "sentences")
WORDS_AT_MOST = 24  # a longer text is taken apart by larger units: each unit costs several runs of the model
SENTENCES_AT_LEAST = 8  # with fewer units hardly any map can be told from chance
PHRASES = 16
BUDGET = 240  # runs of the model that the oracle may take
AT_ONCE = 128  # runs between two steps of the progress


@dataclass(frozen=True)
class Trust:
    """The truth of every method by each way of removal; agreement with gold; the randomisation check.

    `units` is "words", "phrases" or "sentences", `count` how many. `gold[method]` holds token-F1, AUPRC and hit@1.
    `sanity[view]` is there when asked for.
    """

    units: str
    count: int
    truths: dict[str, dict[str, Truth]]
    gold: dict[str, dict[str, float]]
    sanity: dict[str, Randomisation]

    @property
    def reasons(self) -> dict[str, str]:
        """Why there is no score, or why it cannot tell much, for each removal that needs a warning."""
        found = {how: [t.comprehensiveness.reason for t in truths.values()] for how, truths in self.truths.items()}
        return {how: reason for how, told in found.items() if (reason := next(filter(None, told), None))}

    def as_data(self) -> dict[str, Any]:
        """As plain data; `reasons` by removal, each method's own beside its verdict."""
        return {
            "version": 1,
            "units": self.units,
            "count": self.count,
            "reasons": self.reasons,
            "truth": {
                how: {name: t.as_data() | {"reason": t.comprehensiveness.reason} for name, t in found.items()}
                for how, found in self.truths.items()
            },
            "gold": self.gold,
            "sanity": {name: check.as_data() for name, check in self.sanity.items()},
        }


def trust(
    look: Look,
    *,
    methods: Sequence[str] | None = None,
    removals: Sequence[str] = REMOVALS,
    units: str = "auto",
    gold: str | None = None,
    sanity: bool = False,
    progress: Progress | None = None,
) -> Trust:
    """Judge the maps of a look, and note the scores in its evidence.

    `methods`: views and "input" (gradient times input), "ig" (integrated gradients); default: what this look can
    have. `units`: what is taken away at once, see `units_of`. `gold`: the words that hold the evidence. `sanity` also
    randomises the model's layers and restores them. Raises InputError for unknown names or gold that is not in the
    text, ModelError for a look without a target (`recuerdo.bridge.support`).
    """
    _check(look, methods, gold)
    units, unit_of = units_of(look.evidence.text, units)
    supports = {how: support_of(look.loaded, look.heard, how) for how in removals}
    maps = maps_of(look, methods, progress)
    measured = measured_by(look, maps, unit_of, supports, progress=progress)
    truths = {how: judge([one], removal=cast(Literal["keys", "input"], how)) for how, one in measured.items()}
    note_trust(look, truths)
    return Trust(
        units,
        int(unit_of[-1]) + 1,
        truths,
        {} if gold is None else against_gold(look, maps, gold),
        sanity_of(look, [name for name in maps if name in VIEWS[:5]], unit_of, progress) if sanity else {},
    )


def _check(look: Look, methods: Sequence[str] | None, gold: str | None) -> None:
    """Refuse what is wrong before the model runs."""
    for name in methods or ():
        if name not in METHODS:
            raise InputError(f"there is no method {name!r}: choose {', '.join(METHODS[:-1])} or {METHODS[-1]}")
    if gold is not None:
        _gold_words(look, gold)


# ------------------------------------------------------------------------------------------------------ units and maps


def units_of(text: Words, units: str = "auto") -> tuple[str, np.ndarray]:
    """What is taken away at once: the name of the units, and the unit of each word [words].

    "words", "sentences", or "phrases": pieces of sentences, about 16 in all. "auto": words of a text of at most 24
    words, sentences where there are 8 or more, else phrases. Raises InputError for other units.
    """
    if units not in ("auto", *UNITS):
        raise InputError(f"there are no units {units!r}: choose auto, words, phrases or sentences")
    if units == "auto":
        short, many = len(text) <= WORDS_AT_MOST, len(text.sentences) >= SENTENCES_AT_LEAST
        units = "words" if short else "sentences" if many else "phrases"
    if units == "words":
        return units, np.arange(len(text))
    return units, text.sentence_of() if units == "sentences" else phrases(text)


def phrases(text: Words, count: int = PHRASES) -> np.ndarray:
    """The phrase of each word [words]: sentences cut into pieces of about equal size, about `count` in all."""
    size, of, done = max(len(text) / count, 1.0), np.zeros(len(text), int), 0
    for first, last in pairwise([*text.sentences, len(text)]):
        pieces = max(1, round((last - first) / size))
        of[first:last] = done + np.arange(last - first) * pieces // (last - first)
        done += pieces
    return of


def maps_of(
    look: Look, methods: Sequence[str] | None = None, progress: Progress | None = None
) -> dict[str, np.ndarray]:
    """Every method's map over the words of the text, all queries together: {method: [words]}."""
    maps, first = {}, look.evidence.view().name
    for name in methods if methods is not None else methods_of(look):
        if name in VIEWS:
            look.put_first(name, progress=progress)
            maps[name] = look.evidence.view(name).map.row(0).astype(float)
        else:
            find = input_gradients if name == "input" else integrated_gradients
            maps[name] = pool(find(look.loaded, look.heard)[None], look.keys.word, look.keys.count)[0]
    look.put_first(first)
    return maps


def methods_of(look: Look) -> list[str]:
    """The methods that this look can have, integrated gradients only where captum is installed."""
    can = {
        "rollout": len(look.selection.layers) > 1,
        "gradient": bool(look.heard.answer_ids),
        "ig": find_spec("captum") is not None,
    }
    return [name for name in METHODS if can.get(name, True)]


def measured_by(
    look: Look,
    maps: dict[str, np.ndarray],
    unit_of: np.ndarray,
    supports: dict[str, Support],
    *,
    budget: int = BUDGET,
    seed: int = 0,
    progress: Progress | None = None,
) -> dict[str, Measured]:
    """The curves of every map {method: [words]} over units, for each way to take a unit away (a `support_of` each)."""
    count = int(unit_of[-1]) + 1
    rows = {name: np.bincount(unit_of, row, minlength=count) for name, row in maps.items()}
    word = look.keys.word  # the text word of each token, -1 = outside
    token_unit = np.where(word >= 0, unit_of[np.maximum(word, 0)], -1)
    return {
        how: measure(_by_units(support, token_unit, how, progress), rows, budget=max(budget, 2 * count), seed=seed)
        for how, support in supports.items()
    }


def _by_units(
    support: Support, token_unit: np.ndarray, how: str, progress: Progress | None
) -> Callable[[np.ndarray], np.ndarray]:
    """The support as a function of the units that are there, [v, units] -> [v]; what is outside the text stays."""
    done = 0

    def value(kept: np.ndarray) -> np.ndarray:
        nonlocal done
        parts = []
        for start in range(0, len(kept), AT_ONCE):
            some = kept[start : start + AT_ONCE]
            parts.append(support(np.where(token_unit >= 0, some[:, np.maximum(token_unit, 0)], True)))
            done += len(some)
            if progress is not None:
                progress(f"taking away ({how})", done, done)
        return np.concatenate(parts)

    return value


# ------------------------------------------------------------------------------------------------------ scores and gold


def note_trust(look: Look, truths: dict[str, dict[str, Truth]]) -> None:
    """Write the scores into the evidence, for pages and terminals."""
    labels = {view.name: view.label for view in look.evidence.views} | LABELS
    look.evidence.trust = [
        Trusted(
            name, labels.get(name, name), how, measure_, score.score, score.low, score.high, score.verdict, score.reason
        )
        for how, found in truths.items()
        for name, truth in found.items()
        for measure_, score in (("comprehensiveness", truth.comprehensiveness), ("sufficiency", truth.sufficiency))
    ]


def against_gold(look: Look, maps: dict[str, np.ndarray], gold: str) -> dict[str, dict[str, float]]:
    """Agreement with the words that hold the evidence: token-F1 of as many words, AUPRC, and hit@1 of the sentence."""
    inside = _gold_words(look, gold)
    of, count = look.evidence.text.sentence_of(), len(look.evidence.text.sentences)
    right = np.bincount(of, inside, minlength=count) > 0
    return {
        name: {
            "token_f1": token_f1_top(row, inside),
            "auprc": auprc(row, inside),
            "hit@1 sentence": hit_at_k([np.bincount(of, row, minlength=count)], [right], 1),
        }
        for name, row in maps.items()
    }


def _gold_words(look: Look, gold: str) -> np.ndarray:
    """The words that hold the first place where `gold` stands in the text, bool [words]."""
    at = look.heard.text[slice(*look.heard.document)].find(gold)
    spans = np.array(look.evidence.text.spans)
    inside = (spans[:, 0] < at + len(gold)) & (spans[:, 1] > at)
    if at < 0 or not inside.any():
        raise InputError(f"the gold words {gold[:40]!r} are not in the text: copy them as they stand there")
    return inside


# --------------------------------------------------------------------------------------- what is left without learning


def sanity_of(
    look: Look, names: Sequence[str], unit_of: np.ndarray, progress: Progress | None = None
) -> dict[str, Randomisation]:
    """The maps of the same words in models whose layers are more and more random, from the last one down.

    Two seeds; the answer that was heard is forced. Inside, the model is changed; afterwards it is as before. A map
    whose units are all equal has no order that could be kept: it is left out.
    """
    layers, count = _layers(look.loaded.model), int(unit_of[-1]) + 1

    def over_units(one: Look) -> dict[str, np.ndarray]:
        return {name: np.bincount(unit_of, row, minlength=count) for name, row in maps_of(one, names).items()}

    depths = sorted({1, max(len(layers) // 2, 1), len(layers)})
    found: dict[str, dict[str, list[np.ndarray]]] = {name: {} for name in names}
    for seed in (0, 1):
        for done, depth in enumerate(depths):
            with _randomised(layers[-depth:], seed):
                heard = hear_again(look.loaded, look.heard)
                same = [Layer(layer.address, heard.own[layer.address]) for layer in look.selection.layers]
                selection = Selection(same, look.selection.head, look.selection.words)
                other = see(look.loaded, heard, selection, look.evidence.question)
                for name, row in over_units(other).items():
                    found[name].setdefault(f"{depth} of {len(layers)} layers random", []).append(row)
            if progress is not None:
                progress("randomising layers", seed * len(depths) + done + 1, 2 * len(depths))
    trained = over_units(look)
    return {
        name: randomisation(trained[name], {step: np.stack(rows) for step, rows in found[name].items()})
        for name in names
        if np.ptp(trained[name]) > 0
    }


def _layers(model: torch.nn.Module) -> list[torch.nn.Module]:
    """The longest list of modules in the model: its layers."""
    lists = [list(m) for m in model.modules() if isinstance(m, torch.nn.ModuleList)]
    return max(lists, key=len, default=[model])


@contextmanager
def _randomised(modules: list[torch.nn.Module], seed: int) -> Iterator[None]:
    """Inside the block the matrices of these modules are noise of the same mean and spread."""
    matrices = [p for m in modules for p in m.parameters() if p.dim() > 1]
    kept = [p.detach().clone() for p in matrices]
    random = torch.Generator().manual_seed(seed)
    try:
        with torch.no_grad():
            for matrix in matrices:
                matrix.normal_(float(matrix.mean()), float(matrix.std()), generator=random)
        yield
    finally:
        with torch.no_grad():
            for matrix, before in zip(matrices, kept, strict=True):
                matrix.copy_(before)
