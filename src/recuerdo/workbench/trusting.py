"""How far a map can be trusted: every view and method of one look, judged by taking words away."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from recuerdo.bridge.attribute import input_gradients, integrated_gradients
from recuerdo.bridge.run import hear_again
from recuerdo.bridge.support import support_of
from recuerdo.errors import InputError
from recuerdo.explain.evidence import Trusted
from recuerdo.explain.rows import Layer, Selection
from recuerdo.explain.truth import Measured, Randomisation, Truth, judge, measure, randomisation
from recuerdo.explain.words import pool
from recuerdo.metrics import auprc, hit_at_k, token_f1_top
from recuerdo.workbench.looking import VIEWS, Look, Progress, see

METHODS = (*VIEWS, "input", "ig")
LABELS = {"input": "gradient × input", "ig": "integrated gradients (captum)"}
WORDS_AT_MOST = 24  # a longer text is taken apart by sentences: each word costs several runs of the model
BUDGET = 240  # runs of the model that the oracle may take
REMOVALS = ("keys", "input")


@dataclass(frozen=True)
class Trust:
    """The truth of every method by each way of removal; agreement with gold; the randomisation check.

    `units` is "words" or "sentences". `gold[method]` holds token-F1, AUPRC and hit@1. `sanity[view]` is there when
    asked for.
    """

    units: str
    count: int
    truths: dict[str, dict[str, Truth]]
    gold: dict[str, dict[str, float]]
    sanity: dict[str, Randomisation]

    def as_data(self) -> dict[str, Any]:
        """As plain data."""
        return {
            "version": 1,
            "units": self.units,
            "count": self.count,
            "truth": {how: {name: t.as_data() for name, t in found.items()} for how, found in self.truths.items()},
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
    have. `units`: "words", "sentences" or "auto" (words of short texts). `gold`: the words that hold the evidence.
    `sanity` also randomises the model's layers and restores them. Raises InputError for unknown names or gold that is
    not in the text, ModelError for a look without a target (`recuerdo.bridge.support`).
    """
    seen = look.evidence
    for how in removals:
        if how not in REMOVALS:
            raise InputError(f"there is no removal {how!r}: choose keys or input")
    if units not in ("auto", "words", "sentences"):
        raise InputError(f"there are no units {units!r}: choose auto, words or sentences")
    if units == "auto":
        units = "words" if len(seen.text) <= WORDS_AT_MOST else "sentences"
    unit_of = np.arange(len(seen.text)) if units == "words" else seen.text.sentence_of()
    maps = maps_of(look, methods, progress)
    rows = {name: np.bincount(unit_of, row, minlength=unit_of[-1] + 1) for name, row in maps.items()}
    measured = measured_by(look, rows, unit_of, removals, progress)
    truths = {how: judge([one], removal=how) for how, one in measured.items()}  # type: ignore[arg-type]
    note_trust(look, truths)
    return Trust(
        units,
        int(unit_of[-1]) + 1,
        truths,
        {} if gold is None else against_gold(look, maps, gold),
        _sanity(look, [name for name in rows if name in VIEWS[:5]], unit_of, progress) if sanity else {},
    )


def maps_of(
    look: Look, methods: Sequence[str] | None = None, progress: Progress | None = None
) -> dict[str, np.ndarray]:
    """Every method's map over the words of the text, all queries together: {method: [words]}."""
    wanted = list(methods) if methods is not None else _possible(look)
    maps = {}
    for name in wanted:
        if name in VIEWS:
            first = look.evidence.view().name
            look.put_first(name, progress=progress).put_first(first)
            maps[name] = look.evidence.view(name).map.row(0).astype(float)
        elif name in METHODS:
            find = input_gradients if name == "input" else integrated_gradients
            tokens = find(look.loaded, look.heard)
            maps[name] = pool(tokens[None], look.keys.word, look.keys.count)[0]
        else:
            raise InputError(f"there is no method {name!r}: choose {', '.join(METHODS[:-1])} or {METHODS[-1]}")
    return maps


def _possible(look: Look) -> list[str]:
    """The methods that this look can have, integrated gradients only where captum is installed."""
    from importlib.util import find_spec

    names = [*VIEWS[:4], *(["rollout"] if len(look.selection.layers) > 1 else [])]
    names += ["gradient"] if look.heard.answer_ids else []
    names = list(dict.fromkeys(names))
    return [*names, "input", *(["ig"] if find_spec("captum") else [])]


def measured_by(
    look: Look,
    rows: dict[str, np.ndarray],
    unit_of: np.ndarray,
    removals: Iterable[str],
    progress: Progress | None = None,
) -> dict[str, Measured]:
    """The curves of every map over units, for each way to take a unit away."""
    word = look.keys.word  # the text word of each token, -1 = outside
    token_unit = np.where(word >= 0, unit_of[np.maximum(word, 0)], -1)
    found = {}
    for how in removals:
        support, done = support_of(look.loaded, look.heard, how), [0]

        def value(kept: np.ndarray, support=support, done=done, how=how) -> np.ndarray:
            parts = []
            for some in np.array_split(kept, max(1, len(kept) // 32)):
                tokens = np.where(token_unit[None] >= 0, some[:, np.maximum(token_unit, 0)], True)
                parts.append(support(tokens))
                done[0] += len(some)
                if progress is not None:
                    progress(f"taking away ({how})", done[0], done[0])
            return np.concatenate(parts)

        found[how] = measure(value, rows, budget=max(BUDGET, 2 * int(unit_of[-1] + 1)))
    return found


def note_trust(look: Look, truths: dict[str, dict[str, Truth]]) -> None:
    """Write the scores into the evidence, for pages and terminals."""
    labels = {view.name: view.label for view in look.evidence.views} | LABELS
    look.evidence.trust = [
        Trusted(name, labels.get(name, name), how, measure_, score.score, score.low, score.high, score.verdict)
        for how, found in truths.items()
        for name, truth in found.items()
        for measure_, score in (("comprehensiveness", truth.comprehensiveness), ("sufficiency", truth.sufficiency))
    ]


def against_gold(look: Look, maps: dict[str, np.ndarray], gold: str) -> dict[str, dict[str, float]]:
    """Agreement with the words that hold the evidence: token-F1 of as many words, AUPRC, and hit@1 of the sentence."""
    text = look.evidence.text
    document = look.heard.text[slice(*look.heard.document)]
    at = document.find(gold)
    if at < 0:
        raise InputError(f"the gold words {gold[:40]!r} are not in the text: copy them as they stand there")
    spans = np.array(text.spans)
    inside = (spans[:, 0] < at + len(gold)) & (spans[:, 1] > at)
    of = text.sentence_of()
    right = np.bincount(of, inside, minlength=len(text.sentences)) > 0
    found = {}
    for name, row in maps.items():
        sentences = np.bincount(of, row, minlength=len(text.sentences))
        found[name] = {
            "token_f1": token_f1_top(row, inside),
            "auprc": auprc(row, inside),
            "hit@1 sentence": hit_at_k([sentences], [right], 1),
        }
    return found


def _sanity(look: Look, names: list[str], unit_of: np.ndarray, progress: Progress | None) -> dict[str, Randomisation]:
    """The maps of the same words in models whose layers are more and more random, from the last one down."""
    layers = _layer_modules(look.loaded.model)
    steps = sorted({1, max(len(layers) // 2, 1), len(layers)})
    maps: dict[str, dict[str, list[np.ndarray]]] = {name: {} for name in names}
    for seed in (0, 1):
        for done, count in enumerate(steps):
            with _randomised(layers[-count:], seed):
                heard = hear_again(look.loaded, look.heard)
                selection = Selection.of([Layer(path, reads) for path, reads in heard.own.items()])
                other = see(look.loaded, heard, selection, look.evidence.question)
                for name, row in maps_of(other, names).items():
                    units = np.bincount(unit_of, row, minlength=unit_of[-1] + 1)
                    maps[name].setdefault(f"{count} of {len(layers)} layers random", []).append(units)
            if progress is not None:
                progress("randomising layers", seed * len(steps) + done + 1, 2 * len(steps))
    trained = {name: np.bincount(unit_of, row, minlength=unit_of[-1] + 1) for name, row in maps_of(look, names).items()}
    stacked = {name: {step: np.stack(rows) for step, rows in found.items()} for name, found in maps.items()}
    return {name: randomisation(trained[name], stacked[name]) for name in names}


def _layer_modules(model: torch.nn.Module) -> list[torch.nn.Module]:
    """The longest list of modules in the model: its layers."""
    lists = [list(m) for m in model.modules() if isinstance(m, torch.nn.ModuleList)]
    return max(lists, key=len, default=[model])


class _randomised:
    """Inside the block the matrices of these modules are shuffled: the same numbers, in no order that was learnt."""

    def __init__(self, modules: list[torch.nn.Module], seed: int):
        self._parameters = [p for m in modules for p in m.parameters() if p.dim() > 1]
        self._random = torch.Generator().manual_seed(seed)
        self._kept: list[torch.Tensor] = []

    def __enter__(self) -> None:
        with torch.no_grad():
            for parameter in self._parameters:
                self._kept.append(parameter.detach().clone())
                order = torch.randperm(parameter.numel(), generator=self._random)
                parameter.copy_(parameter.flatten()[order].view_as(parameter))

    def __exit__(self, *left: object) -> None:
        with torch.no_grad():
            for parameter, kept in zip(self._parameters, self._kept, strict=True):
                parameter.copy_(kept)
