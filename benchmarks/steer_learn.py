"""Learn the profiles that `steer_obeys.py` scores, from the profiling halves only.

`python benchmarks/steer_learn.py [facts questions json pronouns list] [--out FOLDER]`

Every head has one log-factor on the odds of the marked keys. All are learned together: the prompts are read with their
marks steered so, and Adam makes the wanted answers likelier, by gradient through the bent reads; the model stays as it
is. It is what `recuerdo profile` does, with three things more: a start of unsteered rows that a batch shares is read
once, a log-factor may be below zero, and the loss can set a wanted answer against another one. `list` is `facts` at 1.5 times
its log-factors. About 5 to 20 minutes each on one core.
"""

import argparse
import json
import math
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import steer_tasks as tasks
import torch
from measure import ROOT
from steer_obeys import DATA, MODEL, Prompt, Strengths, chat, texts
from torch import Tensor
from transformers.cache_utils import DynamicCache

import recuerdo
from recuerdo.bridge import attach
from recuerdo.bridge.reads import layer_of
from recuerdo.read import Odds, bending
from recuerdo.steer.placing import on_tokens
from recuerdo.steer.profiles import Profile


@dataclass(frozen=True)
class Example:
    """A prompt, the tokens that shall follow, and those that shall not (None: only the wanted ones count)."""

    prompt: Prompt
    wanted: list[int]
    against: list[int] | None = None


@dataclass(frozen=True)
class Pace:
    """Where the log-factors start (layers from `layer` on), their bounds, and how the descent goes."""

    layer: int = 10
    start: float = 2.0
    least: float = 0.0
    most: float = 3.0
    rates: tuple[float, ...] = (0.3, 0.2)  # one a pass
    batch: int = 16


class _Batch:
    """Examples side by side, padded on the left: [b, t]; the columns before `first` are read once, unsteered."""

    def __init__(self, loaded: Any, examples: Sequence[Example]):
        from recuerdo.steer.marks import Mark
        from recuerdo.steer.places import Span

        rows = []
        for one in examples:
            prompt = one.prompt
            encoded = loaded.tokenizer(prompt.text, return_offsets_mapping=True)
            offsets = encoded["offset_mapping"]
            keys = on_tokens([Mark(Span(a, b), "mute") for a, b in prompt.marked], prompt.text, offsets)
            steered = [a >= prompt.behind for a, _ in offsets[:-1]] + [True]
            rows.append((encoded["input_ids"], torch.stack(keys).any(0).tolist(), steered))
        width = max(len(ids) for ids, _, _ in rows)

        def left(part: int, fill: Any) -> Tensor:
            return torch.tensor([[fill] * (width - len(row[part])) + list(row[part]) for row in rows])

        self.examples, self.ids = examples, left(0, loaded.tokenizer.eos_token_id)
        self.marked, self.steered = left(1, False), left(2, False)
        self.there = torch.tensor([[0] * (width - len(ids)) + [1] * len(ids) for ids, _, _ in rows])
        self.first, self.read = min(int(self.steered.any(0).nonzero()[0]), width - 1), DynamicCache()
        if self.first:
            with torch.no_grad():
                loaded.model.base_model(
                    self.ids[:, : self.first], attention_mask=self.there[:, : self.first],
                    position_ids=_places(self.there)[:, : self.first], cache=self.read, use_cache=True,
                )  # fmt: skip

    def chance(self, loaded: Any, answers: Sequence[list[int]], logs: Tensor) -> tuple[Tensor, Tensor]:
        """Summed log-probability of each answer, and its tokens, [b]; differentiable in the log-factors [l, h]."""
        long = max(map(len, answers))
        tail = torch.tensor([a + [0] * (long - len(a)) for a in answers])
        said = torch.tensor([[1] * len(a) + [0] * (long - len(a)) for a in answers])
        there = torch.cat([self.there, said[:, :-1]], 1)
        rows = torch.nn.functional.pad(self.steered, (0, long - 1), value=True)[:, self.first :]
        keys = torch.nn.functional.pad(self.marked, (0, long - 1))
        cache = DynamicCache()
        for number, layer in enumerate(self.read.layers):
            cache.update(layer.keys, layer.values, number)

        def rule(address: Any, reading: Any) -> list[Odds]:
            return [Odds(keys, logs[layer_of(address.path)].exp(), rows=rows)]

        with attach(loaded.model), bending(loaded.model, rule):
            logits = loaded.model(
                torch.cat([self.ids, tail[:, :-1]], 1)[:, self.first :], attention_mask=there,
                position_ids=_places(there)[:, self.first :], cache=cache, use_cache=True, logits_to_keep=long,
            ).logits  # fmt: skip
        found = logits.float().log_softmax(-1).gather(-1, tail[..., None])[..., 0]
        return (found * said).sum(1), said.sum(1)


def _places(there: Tensor) -> Tensor:
    return (there.cumsum(1) - 1).clamp_min(0)


def learn(loaded: Any, examples: Sequence[Example], pace: Pace, margin: float = 3.0) -> Tensor:
    """Log-factors [l, h]. With `against` the loss is softplus(margin - (log P(wanted) - log P(against)))."""
    config = loaded.model.config
    logs = torch.zeros(config.num_hidden_layers, config.num_attention_heads)
    logs[pace.layer :] = pace.start
    logs.requires_grad_()
    loaded.model.requires_grad_(False)
    order = sorted(range(len(examples)), key=lambda i: len(examples[i].prompt.text))
    parts = [[examples[i] for i in order[a : a + pace.batch]] for a in range(0, len(order), pace.batch)]
    batches = [_Batch(loaded, part) for part in parts]
    for number, rate in enumerate(pace.rates):
        adam = torch.optim.Adam([logs], lr=rate, betas=(0.9, 0.95))
        for i in np.random.default_rng(number).permutation(len(batches)).tolist():
            batch = batches[i]
            said, count = batch.chance(loaded, [x.wanted for x in batch.examples], logs)
            loss = (-said / count).mean()
            if batch.examples[0].against is not None:
                other, _ = batch.chance(loaded, [x.against or [] for x in batch.examples], logs)
                loss = torch.nn.functional.softplus(margin - (said - other)).mean()
            adam.zero_grad()
            loss.backward()
            adam.step()
            with torch.no_grad():
                logs.clamp_(pace.least, pace.most)
            print(f"pass {number + 1} of {len(pace.rates)}, loss {loss.item():.3f}", file=sys.stderr, flush=True)
    return logs.detach()


def profile_of(logs: Tensor, name: str, examples: int, note: str, steps: tuple[int, int] | None = None) -> Profile:
    """Log-factors as a profile; heads with next to none are left out."""
    chosen = (logs.abs() >= 0.05).nonzero().tolist()
    found = [float(logs[layer, head]) for layer, head in chosen]
    return Profile(
        name=name, model="SmolLM2-135M-Instruct", heads=tuple((i, h) for i, h in chosen), action="boost",
        amount=round(math.exp(sum(found) / len(found)), 4), strengths=tuple(round(math.exp(x), 4) for x in found),
        queries="after", steps=steps, examples=examples, note=note, date=datetime.now(UTC).isoformat(timespec="seconds"),
    )  # fmt: skip


# -------------------------------------------------------------------------------------------------------- the examples


def facts(loaded: Any) -> Profile:
    """The new object against the old one, behind the prompt and behind rehearsed ones that are never scored."""
    items, token = tasks.of_half(tasks.facts(), "profiling"), loaded.tokenizer
    some = [items[i] for i in np.random.default_rng(1).permutation(len(items))[:300]]
    examples = []
    for number, item in enumerate(some):
        first = [token(item.truth[x])["input_ids"][:1] for x in ("new", "old")]
        for text in (item.prompt, item.truth["rehearsed"][number % 2]):
            examples.append(Example(Prompt(text, item.mark, item.rows_from), *first))
    pace = Pace(layer=6, least=-2.0, most=6.0, rates=(0.3, 0.3, 0.3, 0.3), batch=60)
    logs = 0.4 * learn(loaded, examples, pace)  # the gentlest of 0.2, 0.3, 0.4, 0.6 that obeyed on all profiling items
    note = "which of two facts holds now; 0.4 times what was learned; the pass over the prompt only is steered"
    return profile_of(logs, "facts", len(examples), note, (0, 1))


def questions(loaded: Any) -> Profile:
    """The model's own right answer under a plain bias of 2 on layers 10-29, up to the gold; else the gold itself."""
    items, token = [x for x in tasks.questions(DATA) if x["half"] == "profiling"], loaded.tokenizer
    prompts = [chat(loaded, x["context"], x["question"], x["marked"]) for x in items]
    plain = torch.zeros(30, 9)
    plain[10:] = 2.0
    answers = texts(loaded, prompts, {"plain": Strengths(plain)}, 24)["plain"]
    examples = []
    for item, prompt, tokens in zip(items, prompts, answers, strict=True):
        said = token.decode(tokens, skip_special_tokens=True)
        ends = [said.lower().find(a.lower()) + len(a) for a in item["answers"] if a.lower() in said.lower()]
        wanted = said[: max(ends)] if ends and tasks.answered(item, said) else item["answers"][0]
        examples.append(Example(prompt, token(wanted)["input_ids"]))
    note = "real questions (XQuAD-en, CC BY-SA 4.0, profiling half): the sentence that holds the answer is marked"
    return profile_of(learn(loaded, examples, Pace()), "questions", len(examples), note)


def json_format(loaded: Any) -> Profile:
    """The object itself."""
    rows = [x for x in tasks.biographies(200) if x["half"] == "profiling"][:72]
    wanted = [json.dumps({"name": x["name"], "occupation": x["occupation"]}) for x in rows]
    return _format(loaded, "json", rows, wanted)


def pronouns(loaded: Any) -> Profile:
    """The sentence with its pronouns replaced word by word."""
    rows = [x for x in tasks.sentences_with_pronouns(DATA, 200) if x["half"] == "profiling"][:72]
    return _format(loaded, "pronouns", rows, [they(x["document"]) for x in rows])


def _format(loaded: Any, name: str, rows: Sequence[dict], wanted: Sequence[str]) -> Profile:
    prompts = [chat(loaded, x["document"], x["instruction"]) for x in rows]
    tokens = [loaded.tokenizer(f"{text}<|im_end|>")["input_ids"] for text in wanted]
    pace = Pace(start=1.0, least=-1.0, most=4.0, rates=(0.4, 0.4, 0.4), batch=24)
    logs = learn(loaded, [Example(*pair) for pair in zip(prompts, tokens, strict=True)], pace)
    return profile_of(logs, name, len(rows), f"{name}: the instruction is marked")


def they(sentence: str) -> str:
    """The sentence in they/them; "her" is "them" where no noun can follow."""
    plural = {"he": "they", "she": "they", "him": "them", "his": "their", "hers": "theirs"}
    plural |= {"himself": "themselves", "herself": "themselves"}
    alone = r"\W*($|[.,;:]|\s(and|to|in|on|at|for|with|by|from|as|that|when|while|because|a|the)\b)"

    def other(match: re.Match) -> str:
        word = match.group(0)
        ends = re.match(alone, sentence[match.end() :])
        found = plural.get(word.lower(), "them" if ends else "their")
        return found.capitalize() if word[0].isupper() else found

    return tasks.SINGULAR.sub(other, sentence)


LESSONS = {"facts": facts, "questions": questions, "json": json_format, "pronouns": pronouns}

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help=", ".join([*LESSONS, "list"]))
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks/profiles", help="the folder of profiles")
    options = parser.parse_args()
    for asked in options.names or LESSONS:
        made = LESSONS["facts" if asked == "list" else asked](recuerdo.load(MODEL))
        if asked == "list":
            made = replace(
                made, name="list", steps=None, note="3.75 times the profile `facts`: 1.5 times what was learned",
                amount=round((made.amount or 1.0) ** 3.75, 4),
                strengths=tuple(round(min(x**3.75, 1e6), 4) for x in made.strengths or ()),
            )  # fmt: skip
        print(made.save(options.out))
