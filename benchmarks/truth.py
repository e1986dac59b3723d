"""How far maps can be trusted: methods and their truth scores on real sentences, and on evidence that is known.

python benchmarks/truth.py            all of it (about a quarter of an hour on one core, then the decoys)
python benchmarks/truth.py --quick    under 50 s
python benchmarks/truth.py planted    one section: planted, gold, minilm, smollm2, decoys

A truth score is 0 for a random order of the units and 100 for the best order that was found with the model's help;
units are taken out of every read (keys), or a neutral token stands in their place (input). The target is fixed first.
"""

import gzip
import os
import sys
from collections.abc import Callable, Iterator

from decoys import decoys
from look import data_folder, plain
from measure import Report, arguments

import numpy as np  # isort: skip  (after measure has set the wait policy)
import torch
from torch import Tensor, nn

from recuerdo.explain.truth import Measured, Score, judge, measure
from recuerdo.metrics import alignment_error_rate, auprc, hit_at_k, parse_alignment, token_f1_top
from recuerdo.read import Reading, bending, mute, read

SEED = 2026
WORDS = (8, 24)  # of a sentence
PASSAGE = 72  # words of a passage, at most
PHRASES = 8
Maps = dict[str, np.ndarray]


def told(score: Score, examples: int) -> str:
    low, high = (0.0, 0.0) if score.low is None or score.high is None else (score.low, score.high)
    return (
        f"95 % [{low:.1f}, {high:.1f}], {score.verdict}; AOPC {score.aopc:.3f}, chance {score.random:.3f}, "
        f"oracle {score.oracle:.3f}; {examples} texts"
    )


def table(report: Report, name: str, measured: dict[str, list[Measured]]) -> None:
    """One row for every removal, side and method; the oracle is 100 by definition."""
    for how, many in measured.items():
        truths = judge(many, removal=how)  # type: ignore[arg-type]
        for side in ("comprehensiveness", "sufficiency"):
            for method, truth in truths.items():
                score: Score = getattr(truth, side)
                what = f"{name}, {how}, {side}: {method}"
                if score.score is None or score.low is None or score.high is None:
                    print(f"{what}: no score, {score.reason}", file=sys.stderr)
                    continue
                goal = {"target": "0 inside", "ok": score.low <= 0 <= score.high} if method == "random" else {}
                report.add(what, score.score, "truth", **goal, against="chance 0", how=told(score, truth.examples))
            best = getattr(next(iter(truths.values())), side)
            report.add(f"{name}, {how}, {side}: oracle", 100.0, "truth", target="100", ok=True, against="chance 0",
                       how=f"AOPC {best.oracle:.3f}; {next(iter(truths.values())).search}")  # fmt: skip


def gold_rows(report: Report, name: str, against: str, found: dict[str, dict[str, list[float]]]) -> None:
    for method, numbers in found.items():
        for metric, values in numbers.items():
            report.add(f"{name}, gold: {method}, {metric}", float(np.mean(values)), "0 to 1",
                       against=against, how=f"mean of {len(values)}")  # fmt: skip


def missing(name: str, section: str) -> bool:
    if (data_folder() / name).exists():
        return False
    print(f"{section}: needs the data folder; set RECUERDO_DATA to where {name} lies", file=sys.stderr)
    return True


# ------------------------------------------------------------------------------------------------- evidence that is known


class Recall(nn.Module):
    """Associative recall: slots hold a key and a value each, a query names a key, one read of two heads answers."""

    def __init__(self, keys: int = 64, values: int = 64, width: int = 64):
        super().__init__()
        self.keys, self.values = nn.Embedding(keys, width), nn.Embedding(values, width)
        self.query, self.key = nn.Linear(width, width), nn.Linear(width, width)
        self.value, self.answer = nn.Linear(width, width), nn.Linear(width, values)

    def forward(self, keys: Tensor, values: Tensor, asked: Tensor) -> tuple[Tensor, Reading]:
        """Slots [b, n], asked keys [b, q] -> (logits [b, q, values], the reading)."""
        slots = self.keys(keys) + self.values(values)
        parts = [
            x.unflatten(-1, (2, -1)).transpose(1, 2)
            for x in (self.query(self.keys(asked)), self.key(slots), self.value(slots))
        ]
        reading = read(*parts)
        return self.answer(reading.mixed.transpose(1, 2).flatten(-2)), reading


def items(count: int, slots: int, draw: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Keys and values [count, slots], all different within an item, and the slot that is asked for [count]."""
    keys, values = (torch.rand(count, 64, generator=draw).argsort(-1)[:, :slots] for _ in range(2))
    return keys, values, torch.randint(slots, (count,), generator=draw)


def recall(slots: int, draw: torch.Generator) -> Recall:
    torch.manual_seed(0)
    model, steps, many = Recall(), 1000, 128
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-2, fused=True)
    rate = torch.optim.lr_scheduler.OneCycleLR(optimiser, 1e-2, total_steps=steps)
    for keys, values, slot in zip(*(x.split(many) for x in items(steps * many, slots, draw)), strict=True):
        logits, _ = model(keys, values, keys.gather(1, slot[:, None]))
        loss = nn.functional.cross_entropy(logits[:, 0], values.gather(1, slot[:, None])[:, 0])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        rate.step()
    return model.eval()


@torch.no_grad()
def without(model: Recall, keys: Tensor, values: Tensor, asked: Tensor, removed: Tensor) -> Tensor:
    """The answers' probabilities [b, values] when the slots `removed` [b, n] are out of every read."""
    with bending(model, lambda address, reading: [mute(removed)] if bool(removed.any()) else []):
        return model(keys, values, asked)[0][:, 0].softmax(-1)


@torch.no_grad()
def maps_of_recall(model: Recall, keys: Tensor, values: Tensor, slot: Tensor, target: Tensor) -> dict[str, Tensor]:
    """What every method says about all items: [count, slots]."""
    each = torch.arange(len(slot))
    rows = model(keys, values, keys)[1].weights[:, :].mean(1)  # every key is asked for once
    raw = rows[each, slot]
    others = (rows.sum(1) - raw) / (rows.shape[1] - 1)
    asked = keys.gather(1, slot[:, None])
    whole = without(model, keys, values, asked, torch.zeros_like(keys, dtype=torch.bool))[each, target]
    drops = []
    for place in range(keys.shape[1]):
        removed = torch.zeros_like(keys, dtype=torch.bool)
        removed[:, place] = True
        drops.append(whole - without(model, keys, values, asked, removed)[each, target])
    chance = torch.rand(raw.shape, generator=torch.Generator().manual_seed(SEED))
    return {"raw": raw, "lift": raw - others, "leave one out": torch.stack(drops, -1), "random": chance}


def planted(report: Report, quick: bool) -> None:
    """A small model whose evidence is known: the slot with the key that was asked for."""
    slots, count, judged_on = 12, 2000, 40 if quick else 300
    draw = torch.Generator().manual_seed(SEED)
    model = recall(slots, draw)
    keys, values, slot = items(count, slots, draw)
    asked, right = keys.gather(1, slot[:, None]), values.gather(1, slot[:, None])[:, 0]
    with torch.no_grad():
        target = model(keys, values, asked)[0][:, 0].argmax(-1)
    value = 100 * float((target == right).float().mean())
    how = f"{slots} slots, 64 keys, 64 values, two heads; {count:,} items"
    report.add("planted evidence: the model answers", value, "%", target=">= 99.9", ok=value >= 99.9, how=how)
    maps = maps_of_recall(model, keys, values, slot, target)
    for name, rows in maps.items():
        best = 100 * float((rows.argmax(-1) == slot).float().mean())
        goal = {} if name == "random" else {"target": ">= 99", "ok": best >= 99}
        report.add(f"planted evidence ranked first: {name}", best, "%", **goal, against=f"chance {100 / slots:.1f}",
                   how=f"{count:,} items")  # fmt: skip
    measured = []
    for i in range(judged_on):

        def value_of(kept: np.ndarray, i: int = i) -> np.ndarray:
            many = len(kept)
            here = (keys[i].expand(many, -1), values[i].expand(many, -1), asked[i].expand(many, -1))
            return without(model, *here, ~torch.from_numpy(kept))[:, target[i]].numpy()

        measured.append(measure(value_of, {name: rows[i].numpy() for name, rows in maps.items()}, seed=SEED + i))
    table(report, "planted evidence", {"keys": measured})
    found: dict[str, dict[str, list[float]]] = {}
    for name, rows in maps.items():
        for row, at in zip(rows[:judged_on].numpy(), slot, strict=False):
            gold = np.arange(slots) == int(at)
            for metric, figure in (
                ("token-F1", token_f1_top(row, gold)),
                ("AUPRC", auprc(row, gold)),
                ("hit@1", hit_at_k([row], [gold])),
            ):
                found.setdefault(name, {}).setdefault(metric, []).append(figure)
    gold_rows(report, "planted evidence", "the slot that was asked for", found)


# ------------------------------------------------------------------------------------------------------- real sentences


def sentences(count: int) -> list[str]:
    """Real sentences of 8 to 24 words, half from XQuAD-en, half from Multi30k, drawn by a fixed seed."""
    from recuerdo.explain.words import cut

    encyclopedia = []
    for item in paragraphs():
        text = cut(item["context"])
        encyclopedia += [text.sentence(i) for i in range(len(text.sentences))]
    with gzip.open(data_folder() / "multi30k/val.en.gz", "rt", encoding="utf-8") as file:
        captions = [line.strip() for line in file]
    drawn, rng = [], np.random.default_rng(SEED)
    for source, many in ((encyclopedia, count - count // 2), (captions, count // 2)):
        fitting = [text for text in source if WORDS[0] <= len(cut(text)) <= WORDS[1]]
        drawn += [fitting[i] for i in rng.permutation(len(fitting))[:many]]
    return drawn


def paragraphs() -> list[dict]:
    import json

    file = data_folder() / "xquad/xquad.en.json"
    articles = json.loads(file.read_text(encoding="utf-8"))["data"]
    return [paragraph for article in articles for paragraph in article["paragraphs"]]


def with_random(maps: Maps, unit_of: np.ndarray, seed: int) -> Maps:
    """And a map that knows nothing: each unit's sum is random, however many words it has."""
    row, first = np.zeros(len(unit_of)), np.unique(unit_of, return_index=True)[1]
    row[first] = np.random.default_rng([SEED, seed]).random(len(first))
    return maps | {"random": row}


def minilm(report: Report, quick: bool) -> None:
    """An encoder: which words carry the meaning of a sentence."""
    if missing("xquad/xquad.en.json", "minilm") or missing("multi30k/val.en.gz", "minilm"):
        return
    from recuerdo.bridge.run import load
    from recuerdo.bridge.support import REMOVALS, support_of
    from recuerdo.workbench.looking import look
    from recuerdo.workbench.trusting import maps_of, measured_by, units_of

    loaded = load("minilm")
    measured: dict[str, list[Measured]] = {how: [] for how in REMOVALS}
    looks = []
    for number, text in enumerate(sentences(3 if quick else 80)):
        seen = look(loaded, text)
        _, unit_of = units_of(seen.evidence.text, "words")
        maps = with_random(maps_of(seen), unit_of, number)
        supports = {how: support_of(loaded, seen.heard, how) for how in REMOVALS}
        for how, one in measured_by(seen, maps, unit_of, supports, seed=SEED + number).items():
            measured[how].append(one)
        looks.append((seen, unit_of))
        if number % 10 == 9:
            print(f"minilm: {number + 1} sentences", file=sys.stderr, flush=True)
    table(report, "MiniLM, words", measured)
    sanity(report, "MiniLM, words", looks[: 1 if quick else 8], ("lift", "aside", "raw", "value", "rollout"))


def sanity(report: Report, name: str, looks: list, methods: tuple[str, ...]) -> None:
    """How much of a map's order is there without any learning."""
    from recuerdo.workbench.trusting import sanity_of

    checks = [sanity_of(seen, methods, unit_of) for seen, unit_of in looks]
    for method in methods:
        rows = [check[method] for check in checks]
        value = float(np.mean([list(row.correlations.values())[-1] for row in rows]))
        verdicts = [row.verdict for row in rows]
        counts = ", ".join(f"{verdicts.count(v)} x {v}" for v in sorted(set(verdicts)))
        report.add(f"{name}, all layers random: {method}", value, "Spearman", against="the trained model's map",
                   how=f"mean of {len(rows)} texts, 2 seeds; {counts}")  # fmt: skip


def answered(loaded, most: int) -> Iterator[tuple]:
    """Looks at passages of XQuAD-en, one a paragraph, with a question that the model answers: (look, gold)."""
    from recuerdo.workbench.looking import look

    all_of = paragraphs()
    for number in np.random.default_rng(SEED).permutation(len(all_of)):
        for item in all_of[number]["qas"][:3]:
            gold = item["answers"][0]["text"]
            text = passage(all_of[number]["context"], item["answers"][0]["answer_start"])
            if text is None or gold not in text:
                continue
            seen = look(loaded, text, question=item["question"], generate=20)
            if plain(gold) in plain(seen.heard.answer):
                most -= 1
                yield seen, gold
                break
        if not most:
            return


def passage(context: str, start: int) -> str | None:
    """The sentence with the character `start` and its neighbours: three or more, as many as fit; None if they do not."""
    from recuerdo.explain.words import cut

    text = cut(context)
    ends = [*text.sentences[1:], len(text)]
    first = last = int(np.searchsorted([text.spans[i][0] for i in text.sentences], start, side="right")) - 1
    while True:
        wider = [(a, b) for a, b in ((first - 1, last), (first, last + 1)) if a >= 0 and b < len(ends)]
        fitting = [(a, b) for a, b in wider if ends[b] - text.sentences[a] <= PASSAGE]
        if not fitting:
            break
        first, last = min(fitting, key=lambda ab: ends[ab[1]] - text.sentences[ab[0]])
    return " ".join(text.sentence(i) for i in range(first, last + 1)) if last - first >= 2 else None


def smollm2(report: Report, quick: bool) -> None:
    """A language model: which phrases of a passage its answer stands on."""
    if missing("xquad/xquad.en.json", "smollm2"):
        return
    from recuerdo.bridge.run import load
    from recuerdo.bridge.support import REMOVALS, support_of
    from recuerdo.workbench.trusting import against_gold, maps_of, measured_by, phrases

    loaded = load("smollm2")
    removals, pieces = (("keys",), 6) if quick else (REMOVALS, PHRASES)
    measured: dict[str, list[Measured]] = {how: [] for how in removals}
    found: dict[str, dict[str, list[float]]] = {}
    looks = []
    for number, (seen, gold) in enumerate(answered(loaded, 1 if quick else 8)):
        unit_of = phrases(seen.evidence.text, pieces)
        own = ["lift", "raw", "input"] if quick else None
        maps = with_random(maps_of(seen, own), unit_of, number)
        supports = {how: support_of(loaded, seen.heard, how) for how in removals}
        for how, one in measured_by(seen, maps, unit_of, supports, budget=80, seed=SEED + number).items():
            measured[how].append(one)
        for method, numbers in against_gold(seen, maps, gold).items():
            for metric, figure in numbers.items():
                found.setdefault(method, {}).setdefault(metric, []).append(figure)
        looks.append((seen, unit_of))
        print(f"smollm2: {number + 1} answered questions", file=sys.stderr, flush=True)
    table(report, "SmolLM2, phrases", measured)
    gold_rows(report, "SmolLM2, phrases", "XQuAD-en answer span", found)
    if not quick:
        sanity(report, "SmolLM2, phrases", looks[:1], ("lift", "aside", "raw", "value"))


# ---------------------------------------------------------------------------------------------------------- alignments


def gold(report: Report, quick: bool) -> None:
    """Alignment error rate on the Hansards test set: the metric itself, a baseline, and vectors of an English encoder."""
    if missing("word_alignment/enfr.gold", "gold"):
        return
    folder = data_folder() / "word_alignment"
    lines = {
        name: (folder / name).read_text(encoding="utf-8").splitlines()
        for name in ("enfr.gold", "enfr.awesome-align.out", "enfr.src-tgt")
    }
    count = 100 if quick else len(lines["enfr.gold"])
    right = [parse_alignment(line, base=1) for line in lines["enfr.gold"][:count]]
    pairs = [[side.split() for side in line.split("|||")] for line in lines["enfr.src-tgt"][:count]]

    def rate(found: list) -> float:
        return 100 * alignment_error_rate(found, [s for s, _ in right], [p for _, p in right])

    shipped = [parse_alignment(line)[0] for line in lines["enfr.awesome-align.out"][:count]]
    value, how = rate(shipped), f"{count} sentence pairs of the Hansards test set"
    goal = {} if quick else {"target": "4.07", "ok": abs(value - 4.07) < 0.01}
    report.add(
        "alignment error rate: awesome-align, as shipped", value, "%", **goal, against="its README: 4.1", how=how
    )
    diagonal = [{(i, round(i * (len(b) - 1) / max(len(a) - 1, 1))) for i in range(len(a))} for a, b in pairs]
    report.add("alignment error rate: the diagonal", rate(diagonal), "%", against="gold", how=how)
    nearest = nearest_words()
    found = [nearest(a, b) for a, b in pairs]
    report.add("alignment error rate: MiniLM, nearest words of both sides", rate(found), "%", against="gold",
               how=f"{how}; an English encoder, last layer, cosine")  # fmt: skip


def nearest_words() -> Callable[[list[str], list[str]], set]:
    """Links between words that are each other's nearest by the cosine of their vectors."""
    from recuerdo.bridge.run import load

    loaded = load("minilm")

    def vectors(words: list[str]) -> Tensor:
        given = loaded.tokenizer([words], is_split_into_words=True, return_tensors="pt", truncation=True)
        found = loaded.model(**given).last_hidden_state[0]
        of = torch.tensor([-1 if w is None else w for w in given.word_ids(0)])
        rows = [found[of == w].mean(0) if bool((of == w).any()) else found.new_zeros(found.shape[1])
                for w in range(len(words))]  # fmt: skip
        return nn.functional.normalize(torch.stack(rows), dim=-1)

    @torch.no_grad()
    def nearest(first: list[str], second: list[str]) -> set:
        likeness = vectors(first) @ vectors(second).T
        there, back = likeness.argmax(1), likeness.argmax(0)
        return {(i, int(j)) for i, j in enumerate(there) if int(back[j]) == i}

    return nearest


SECTIONS = {"planted": planted, "gold": gold, "minilm": minilm, "smollm2": smollm2, "decoys": decoys}

if __name__ == "__main__":
    options = arguments(__doc__)
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    for section in options.sections or SECTIONS:
        SECTIONS[section](Report(options.json), options.quick)
