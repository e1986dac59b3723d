"""Does SmolLM2 obey marks? Conflicting facts, real questions, formats, long lists; `benchmarks/steer.py` calls it.

Heads and strengths come from `benchmarks/profiles/`, learned on the profiling halves; only the scoring halves are scored.
Rows behind the document are steered, so what stands before is read once, for the unsteered and the steered run together.
"""

import math
import os
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import steer_tasks as tasks
import torch
from measure import ROOT, Report
from torch import Tensor

import recuerdo
from recuerdo.bridge import attach
from recuerdo.read import Odds, bending
from recuerdo.steer.profiles import load_profile

MODEL = "smollm2"
DATA = Path(os.environ.get("RECUERDO_DATA", ROOT.parent / "shared/data"))
Span = tuple[int, int]


@dataclass(frozen=True)
class Strengths:
    """Log-factors of every head [l, h], and whether generated rows are steered as well."""

    logs: Tensor
    generated: bool = True

    @classmethod
    def of(cls, name: str) -> "Strengths":
        own = ROOT / f"benchmarks/profiles/{name}.json"
        profile = load_profile(own if own.exists() else name)  # else one that comes with the package
        logs = torch.zeros(30, 9)
        for (layer, head), factor in zip(profile.heads, profile.strengths or (), strict=True):
            logs[layer, head] = math.log(factor)
        return cls(logs, generated=profile.steps is None)


@dataclass(frozen=True)
class Prompt:
    """What the model reads; marked characters; the character behind which rows are steered."""

    text: str
    marked: tuple[Span, ...]
    behind: int


class Asked:
    """Prompts side by side, padded on the left; their common unsteered start is read once and kept."""

    def __init__(self, loaded: Any, prompts: Sequence[Prompt]):
        from transformers.cache_utils import DynamicCache

        self.model, self.tokenizer = loaded.model, loaded.tokenizer
        rows = [self._tokens(prompt) for prompt in prompts]
        self.width = max(len(ids) for ids, _, _ in rows)
        self.ids = torch.full((len(rows), self.width), self.tokenizer.eos_token_id)
        self.there = torch.zeros(len(rows), self.width, dtype=torch.long)
        self.marked = torch.zeros(len(rows), self.width, dtype=torch.bool)
        self.steered = torch.zeros(len(rows), self.width, dtype=torch.bool)
        for row, (ids, marked, steered) in enumerate(rows):
            start = self.width - len(ids)
            self.ids[row, start:], self.there[row, start:] = torch.tensor(ids), 1
            self.marked[row, start:], self.steered[row, start:] = torch.tensor(marked), torch.tensor(steered)
        self.places = (self.there.cumsum(1) - 1).clamp_min(0)
        self.first = min(int(self.steered.any(0).nonzero()[0]), self.width - 1)
        cache: Any = DynamicCache()
        if self.first:
            with torch.no_grad():
                self.model.base_model(
                    self.ids[:, : self.first], attention_mask=self.there[:, : self.first],
                    position_ids=self.places[:, : self.first], cache=cache, use_cache=True,
                )  # fmt: skip
        self.kept: Any = [(layer.keys, layer.values) for layer in cache.layers]

    def _tokens(self, prompt: Prompt) -> tuple[list[int], list[bool], list[bool]]:
        encoded = self.tokenizer(prompt.text, return_offsets_mapping=True)
        spans, marked = encoded["offset_mapping"], []
        for a, b in spans:  # a token that begins with a blank belongs to the word behind it
            a += b - a > 1 and prompt.text[a] == " "
            marked.append(any(max(a, start) < min(b, end) for start, end in prompt.marked))
        steered = [a >= prompt.behind for a, _ in spans]
        return encoded["input_ids"], marked, [*steered[:-1], True]

    def _rule(self, strengths: Strengths):
        factors = strengths.logs.exp()

        def rule(address: Any, reading: Any) -> Sequence[Odds]:
            _, _, q, k = reading.shape
            if k > self.width and not strengths.generated:
                return []
            keys = torch.nn.functional.pad(self.marked, (0, k - self.width))
            rows = torch.nn.functional.pad(self.steered, (0, k - self.width), value=True)[:, k - q :]
            return [Odds(keys, factors[int(address.path.split(".")[2])], rows=rows)]

        return rule

    def answers(self, strengths: Strengths | None, new: int) -> tuple[Tensor, list[list[int]]]:
        """Logits behind the prompts, and `new` greedy tokens each (up to the end of the answer)."""
        from transformers.cache_utils import DynamicCache

        cache = DynamicCache()
        for layer, (key, value) in enumerate(self.kept):
            cache.update(key, value, layer)
        there, places, ids = self.there, self.places[:, self.first :], self.ids[:, self.first :]
        first, said, over = None, [], torch.zeros(len(ids), dtype=torch.bool)
        ends = torch.tensor(self.tokenizer.all_special_ids)
        with torch.no_grad(), ExitStack() as stack:
            if strengths is not None:
                stack.enter_context(attach(self.model))
                stack.enter_context(bending(self.model, self._rule(strengths)))
            for _ in range(max(new, 1)):
                logits = self.model(
                    ids, attention_mask=there, position_ids=places, cache=cache, use_cache=True, logits_to_keep=1
                ).logits[:, -1]  # fmt: skip
                first = logits if first is None else first
                ids = logits.argmax(-1, keepdim=True)
                over |= torch.isin(ids[:, 0], ends)
                said.append(ids[:, 0].masked_fill(over, -1))
                if over.all():
                    break
                there, places = torch.nn.functional.pad(there, (0, 1), value=1), places[:, -1:] + 1
        return first, [[t for t in row if t >= 0] for row in torch.stack(said, 1).tolist()]  # type: ignore[return-value]


def texts(loaded: Any, prompts: Sequence[Prompt], runs: dict[str, Strengths | None], new: int, size: int = 16):
    """Greedy answers of every run to every prompt, as tokens: {run: [tokens]}."""
    found: dict[str, Any] = {name: [[]] * len(prompts) for name in runs}
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i].text))
    for part in (order[a : a + size] for a in range(0, len(order), size)):
        asked = Asked(loaded, [prompts[i] for i in part])
        for name, strengths in runs.items():
            for i, tokens in zip(part, asked.answers(strengths, new)[1], strict=True):
                found[name][i] = tokens
    return found


def chat(loaded: Any, document: str, question: str, marked: Sequence[Span] = ()) -> Prompt:
    """Document and question as `recuerdo look` asks them; `marked`: characters of the document, none = the question."""
    message = [{"role": "user", "content": f"{document}\n\n{question}"}]
    text = loaded.tokenizer.apply_chat_template(message, tokenize=False, add_generation_prompt=True)
    start = text.index(document)
    if marked:
        return Prompt(text, tuple((start + a, start + b) for a, b in marked), start + len(document))
    asked = text.index(question, start + len(document))
    return Prompt(text, ((asked, asked + len(question)),), asked + len(question))


def told(report: Report, what: str, hits: Sequence[bool], least: float | None, how: str, judge: bool = True) -> float:
    mean, low, high = tasks.interval(hits)
    target, ok = ("", None) if least is None else (f">= {least}", bool(mean >= least) if judge else None)
    report.add(
        what, mean, "of items", target=target, ok=ok, how=f"{how}; n = {len(hits)}, 95 % [{low:.3f}, {high:.3f}]"
    )
    return mean


# ------------------------------------------------------------------------------------------------------------ sections


def facts(report: Report, quick: bool) -> None:
    """Which of two facts holds now: efficacy, held-out paraphrases, fluency."""
    loaded, items = recuerdo.load(MODEL), tasks.of_half(tasks.facts(), "scoring")[: 16 if quick else None]
    strengths, shipped = Strengths.of("facts"), Strengths.of("smollm2-facts")
    first = {
        i: [loaded.tokenizer(item.truth[x])["input_ids"][0] for x in ("new", "old")] for i, item in enumerate(items)
    }
    how = "P(new) > P(old), first token; clause marked"
    for what, least in (("efficacy", 0.99), ("paraphrase", 0.98)):
        # The three paraphrases take turns.
        asked = [x.prompt if what == "efficacy" else x.truth["paraphrases"][i // 2 % 3] for i, x in enumerate(items)]
        hits: dict[str, Any] = {"unsteered": [], "steered": [], "shipped": []}
        for a in range(0, len(items), 52):
            part = range(a, min(a + 52, len(items)))
            batch = Asked(loaded, [Prompt(asked[i], items[i].mark, items[i].rows_from) for i in part])
            for name, run in (("unsteered", None), ("steered", strengths), ("shipped", shipped)):
                logits = batch.answers(run, 1)[0]
                hits[name] += [bool(logits[n, first[i][0]] > logits[n, first[i][1]]) for n, i in enumerate(part)]
        told(report, f"facts, {what}: unsteered", hits["unsteered"], None, how)
        told(report, f"facts, {what}: steered", hits["steered"], least, how, not quick)
        told(report, f"facts, {what}: the shipped profile", hits["shipped"], None, how)
    some = items[:: max(1, len(items) // (4 if quick else 156))]
    runs = {"unsteered": None, "steered": strengths, "shipped": shipped}
    said = texts(loaded, [Prompt(x.prompt, x.mark, x.rows_from) for x in some], runs, 10 if quick else 50, 52)
    fluency = {name: float(np.mean([tasks.entropy_of_ngrams(x) for x in answers])) for name, answers in said.items()}
    change = fluency["steered"] / fluency["unsteered"] - 1
    report.add(
        "facts, fluency: change", 100 * change, "%", target="within 5", ok=None if quick else abs(change) <= 0.05,
        how=f"bi/tri-gram entropy {fluency['unsteered']:.2f} -> {fluency['steered']:.2f} bits, {len(some)} x 50 tokens",
    )  # fmt: skip
    change = fluency["shipped"] / fluency["unsteered"] - 1
    report.add("facts, fluency: change by the shipped profile", 100 * change, "%", how="every generated token steered")


def _missing(folder: str, section: str) -> bool:
    """Whether the data folder lacks a set; says so."""
    if (DATA / folder).is_dir():
        return False
    print(f"{section}: needs the data folder; set RECUERDO_DATA to where {folder}/ lies", file=sys.stderr)
    return True


def questions(report: Report, quick: bool, most: int = 160, looks: int = 40) -> None:
    """XQuAD: the sentence of the answer marked, a wrong one, and the one that the default view picks."""
    if _missing("xquad", "questions"):
        return
    loaded, draw = recuerdo.load(MODEL), np.random.default_rng(0)
    items = [x for x in tasks.questions(DATA) if x["half"] == "scoring"]
    items = [items[i] for i in draw.permutation(len(items))[: 4 if quick else most]]
    strengths, new = Strengths.of("questions"), 8 if quick else 32
    decode = loaded.tokenizer.decode

    def ask(some: Sequence[dict], runs: dict[str, Strengths | None], marked: Sequence) -> dict[str, Sequence[str]]:
        prompts = [chat(loaded, x["context"], x["question"], m) for x, m in zip(some, marked, strict=True)]
        return {name: [decode(t) for t in said] for name, said in texts(loaded, prompts, runs, new).items()}

    said = ask(items, {"unsteered": None, "steered": strengths}, [x["marked"] for x in items])
    right = {name: [tasks.answered(*pair) for pair in zip(items, s, strict=True)] for name, s in said.items()}
    quoted = np.mean([tasks.quotes(*pair) for pair in zip(items, said["steered"], strict=True)])
    how = f"XQuAD-en, answer contains gold in {new} tokens"
    told(report, "questions: unsteered", right["unsteered"], None, how)
    told(report, "questions: the answer's sentence marked", right["steered"], 0.55, how, not quick)
    report.add("questions: answers that begin as a quote", float(quoted), "of items", how="60 letters; steered")
    report.add("questions: harm", tasks.harm(right["unsteered"], right["steered"]), "of right", how="right before, wrong after")  # fmt: skip
    some = [i for i, x in enumerate(items) if len(x["sentences"]) > len(x["gold"])][: 2 if quick else most // 2]
    wrong = [
        [
            items[i]["sentences"][
                draw.choice([n for n in range(len(items[i]["sentences"])) if n not in items[i]["gold"]])
            ]
        ]
        for i in some
    ]
    answers = ask([items[i] for i in some], {"steered": strengths}, wrong)["steered"]
    hits = [tasks.answered(items[i], a) for i, a in zip(some, answers, strict=True)]
    told(report, "questions: a wrong sentence marked", hits, None, how)
    _self_steered(report, items[: 1 if quick else looks], right["unsteered"], ask, strengths)


def _self_steered(report: Report, items: list[dict], before: list[bool], ask: Any, strengths: Strengths) -> None:
    """The sentence with most of the default view is marked: nobody helps."""
    from recuerdo.workbench.looking import look

    picked = [
        int(look(recuerdo.load(MODEL), x["context"], question=x["question"], generate=24).evidence.sentences().argmax())
        for x in items
    ]
    answers = ask(items, {"steered": strengths}, [[x["sentences"][n]] for x, n in zip(items, picked, strict=True)])
    hits = [tasks.answered(*pair) for pair in zip(items, answers["steered"], strict=True)]
    least = round(float(np.mean(before[: len(items)])), 3)
    found = np.mean([n in x["gold"] for x, n in zip(items, picked, strict=True)])
    told(
        report,
        "questions: self-steered",
        hits,
        least,
        f"target: unsteered, same items; picks gold {found:.2f}",
        len(items) > 9,
    )
    report.add("questions: harm of self-steering", tasks.harm(before[: len(items)], hits), "of right")


def formats(report: Report, quick: bool, most: int = 96) -> None:
    """JSON and pronouns: the instruction marked, against no mark and against `*marked*` prompts."""
    loaded = recuerdo.load(MODEL)
    for name, drawn, score in (
        ("json", tasks.biographies(200), tasks.score_json),
        *(
            [("pronouns", tasks.sentences_with_pronouns(DATA, 200), tasks.score_pronouns)]
            if not _missing("gap", "pronouns")
            else []
        ),
    ):
        items = [x for x in drawn if x["half"] == "scoring"][: 4 if quick else most]
        plain = [chat(loaded, x["document"], x["instruction"]) for x in items]
        starred = [chat(loaded, x["document"], f"*{x['instruction']}*") for x in items]
        new = 6 if quick else 48
        said = texts(loaded, plain, {"unsteered": None, "steered": Strengths.of(name)}, new, 48)
        said |= texts(loaded, starred, {"*marked*": None}, new, 48)
        scores = {
            run: [score(x, loaded.tokenizer.decode(t)) for x, t in zip(items, tokens, strict=True)]
            for run, tokens in said.items()
        }
        for key in scores["unsteered"][0]:
            hits = {run: [s[key] for s in of] for run, of in scores.items()}
            best = max(np.mean(hits["unsteered"]), np.mean(hits["*marked*"]))
            for run in ("unsteered", "*marked*", "steered"):
                harmed = "" if run == "unsteered" else f"harm {tasks.harm(hits['unsteered'], hits[run]):.3f}"
                least = round(float(best), 3) if run == "steered" else None
                told(report, f"{name}, {key}: {run}", hits[run], least, harmed, not quick)


def list(report: Report, quick: bool) -> None:
    """The value of a key in a long list, by the depth of its line."""
    loaded, strengths = recuerdo.load(MODEL), Strengths.of("list")
    for lines, count in ((20, 1),) if quick else ((20, 4), (460, 4)):
        hits: dict[str, dict[float, Any]] = {"unsteered": {}, "steered": {}}
        tokens = 0
        for one in (x for x in tasks.lists(2 * count, lines=lines) if x.half == "scoring"):
            tokens = max(tokens, _list_hits(loaded, one, strengths, hits))
        for run, by_depth in hits.items():
            means = [float(np.mean(x)) for x in by_depth.values()]
            how = f"{tokens} tokens, {count} lists; by depth " + " ".join(f"{x:.2f}" for x in means)
            target, ok = (">= 0.95", min(means) >= 0.95) if run == "steered" and lines == 460 else ("", None)
            report.add(
                f"list of {lines} lines, worst depth: {run}", min(means), "of items", target=target, ok=ok, how=how
            )
            report.add(f"list of {lines} lines, all depths: {run}", float(np.mean(means)), "of items", how="the same")


def _list_hits(loaded: Any, one: tasks.Listed, strengths: Strengths, hits: dict) -> int:
    """Whether each answer is the value, greedy; the list is read once. Returns its tokens."""
    base = None
    for depth, span, question, value in one.asked:
        new = len(loaded.tokenizer(value)["input_ids"])
        prompt = Prompt(one.text + question.lstrip("\n"), (span,), len(one.text))
        if base is None:
            base = Asked(loaded, [prompt])
        asked = _again(base, prompt)
        for run in hits:
            said = asked.answers(None if run == "unsteered" else strengths, new)[1][0]
            right = loaded.tokenizer.decode(said).strip() == value.strip()
            hits[run].setdefault(round(float(depth), 1), []).append(right)
    return base.width if base is not None else 0


def _again(base: Asked, prompt: Prompt) -> Asked:
    """The same document with another question, marked elsewhere: what was read of the document stays."""
    again = object.__new__(Asked)
    again.model, again.tokenizer, again.first, again.kept = base.model, base.tokenizer, base.first, base.kept
    ids, marked, steered = again._tokens(prompt)
    again.ids, again.marked, again.steered = torch.tensor([ids]), torch.tensor([marked]), torch.tensor([steered])
    again.width, again.there = len(ids), torch.ones_like(again.ids)
    again.places = (again.there.cumsum(1) - 1).clamp_min(0)
    return again
