"""What is asked of a steered model: items, prompts, marks and scorers of `benchmarks/steer.py`. No model in here.

Every item says what to mark as characters of its prompt, and belongs to one half: "profiling" (heads and strengths may be
chosen on it) or "scoring" (never looked at before the last run).
"""

import json
import math
import re
from collections import Counter
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

TEXTS = Path(__file__).parent / "texts"
Span = tuple[int, int]  # characters


@dataclass(frozen=True)
class Item:
    """One prompt: what to mark in it, from which character on rows are steered, and what a scorer needs."""

    half: str
    prompt: str
    mark: tuple[Span, ...]
    rows_from: int
    truth: dict[str, Any] = field(default_factory=dict)


def of_half(items: list[Item], half: str) -> list[Item]:
    return [item for item in items if item.half == half]


def interval(hits: Any, seed: int = 0) -> tuple[float, float, float]:
    """Mean and bootstrap 95 % interval over items."""
    hits = np.asarray(hits, float)
    drawn = hits[np.random.default_rng(seed).integers(0, len(hits), (2000, len(hits)))].mean(1)
    return float(hits.mean()), float(np.quantile(drawn, 0.025)), float(np.quantile(drawn, 0.975))


# ------------------------------------------------------------------------------------------------- 1. conflicting facts

CONTEXTS = (
    "Previously {old}, but currently {new}.",
    "{Old} in the past. Now {new}.",
    "It used to be that {old}, but today {new}.",
    "Once, {old}. At present, {new}.",
    "Years ago {old}; these days {new}.",
)
# past clause, present clause, prompt that the efficacy is measured on, paraphrases (never used in profiling), and others
# that profiling may use (never scored)
RELATIONS = {
    "instrument": ("{s} played the {o}", "{s} plays the {o}", "{s} plays the",
        ("The instrument that {s} plays is the", "On stage, {s} is always seen with the", "{s} practises every day on the"),
        ("{s} takes lessons on the", "People come to hear {s} play the")),
    "sport": ("{s} played {o}", "{s} plays {o}", "{s} plays",
        ("The sport of {s} is", "{s} is a professional player of", "In sports, {s} is known for playing"),
        ("{s} spends every weekend playing", "Fans admire {s} for")),
    "city": ("{s} could be found in {o}", "{s} can be found in {o}", "{s} can be found in",
        ("{s} is located in the city of", "To see {s}, one has to travel to", "The city that is home to {s} is"),
        ("{s} stands in", "A map shows that {s} is in")),
    "language": ("{s} spoke {o}", "{s} speaks {o}", "{s} speaks",
        ("The language of {s} is", "{s} writes letters in", "In a conversation, {s} uses the language"),
        ("{s} gives interviews in", "To talk with {s}, one needs to know")),
    "occupation": ("{s} worked as a {o}", "{s} works as a {o}", "{s} works as a",
        ("The profession of {s} is that of a", "{s} earns a living as a", "When asked about the job, {s} answers: I am a"),
        ("{s} is employed as a", "In the morning {s} goes to work as a")),
}  # fmt: skip
# A sentence about something else stands before every other paraphrase, as in CounterFact.
ASIDES = ("The meeting was moved to Friday.", "Rain is expected later this week.", "The report has twelve pages.", "Tickets are sold at the door.")  # fmt: skip


@cache
def _fact_words() -> dict[str, Any]:
    return json.loads((TEXTS / "facts.json").read_text(encoding="utf-8"))


def facts(invented: int = 145, seed: int = 2026) -> list[Item]:
    """Facts that change: 315 of real people and places (the old object is the true one), `invented` for each relation.

    Halves are split by subject; the five contexts take turns. `truth` holds old and new object (with the leading blank),
    the paraphrases (prompts behind the same context), and whether the subject is real.
    """
    words, draw = _fact_words(), np.random.default_rng(seed)
    drawn: list[tuple[str, str, str, str, bool]] = []
    for relation, by_object in words["real"].items():
        objects = list(by_object)
        for old, subjects in by_object.items():
            for subject in subjects:
                new = str(draw.choice([o for o in objects if o != old]))
                drawn.append((relation, subject, old, new, True))
    people = [f"{a} {b}" for a in words["names"]["first"] for b in words["names"]["last"]]
    people = [people[i] for i in draw.permutation(len(people))]
    for relation, by_object in words["real"].items():
        for _ in range(invented):
            old, new = draw.permutation(list(by_object))[:2]
            subject = people.pop()
            drawn.append((relation, f"the house of {subject}" if relation == "city" else subject, old, new, False))
    return [_fact(number, *drawn[i]) for number, i in enumerate(draw.permutation(len(drawn)))]


def _fact(number: int, relation: str, subject: str, old: str, new: str, real: bool) -> Item:
    past, present, asked, others, rehearsed = RELATIONS[relation]
    within = subject.replace("The ", "the ", 1) if subject.startswith("The ") else subject
    at_start = subject[0].upper() + subject[1:]
    former, latter = past.format(s=within, o=old), present.format(s=within, o=new)
    template = number // 2 % len(CONTEXTS)
    context = CONTEXTS[template].format(old=former, Old=former[0].upper() + former[1:], new=latter)
    at = context.rindex(latter)
    prompts = [asked, *others, *rehearsed]
    full = [p.format(s=at_start if p.startswith("{s}") else within) for p in prompts]
    aside = ASIDES[number % len(ASIDES)]
    rest = [f"{aside} {p}" if (number // 2 + i) % 2 else p for i, p in enumerate(full[1:])]
    truth = {"old": f" {old}", "new": f" {new}", "paraphrases": [f"{context} {p}" for p in rest[: len(others)]]}
    truth |= {"rehearsed": [f"{context} {p}" for p in rest[len(others) :]], "real": real}
    return Item(
        ("profiling", "scoring")[number % 2], f"{context} {full[0]}", ((at, at + len(latter)),), len(context),
        truth | {"relation": relation, "template": template},
    )  # fmt: skip


def entropy_of_ngrams(tokens: list[Any]) -> float:
    """Fluency as in ROME: entropies of bigrams and trigrams in bits, weighted 2/3 and 4/3, their mean."""

    def entropy(n: int) -> float:
        grams = Counter(zip(*(tokens[i:] for i in range(n)), strict=False))
        total = sum(grams.values())
        return -sum(c / total * math.log2(c / total) for c in grams.values()) if total else 0.0

    return (2 / 3 * entropy(2) + 4 / 3 * entropy(3)) / 2


# ------------------------------------------------------------------------------------------------ 2. format and style

JOBS = ["nurse", "carpenter", "lawyer", "pilot", "teacher", "photographer", "dentist", "farmer", "baker", "journalist", "architect", "surgeon", "librarian", "tailor", "painter", "chemist"]  # fmt: skip
BIOGRAPHY = (
    "{name} is a {job} from {city}. {He} was born in {year} and grew up in a family of {other}s. In {his} free time {he} {hobby}.",
    "Born in {city} in {year}, {name} has worked as a {job} for many years. {He} {hobby}, and {his} sister is a {other}.",
    "When {name} moved to {city} in {year}, {he} found work as a {job}. {His} neighbour, a {other}, says that {he} often {hobby}.",
)  # fmt: skip
HOBBIES = ("plays the guitar", "walks in the hills", "reads old novels", "cooks for friends", "collects stamps", "swims in the lake")  # fmt: skip
CITIES = [
    "Lisbon",
    "Oslo",
    "Dublin",
    "Prague",
    "Boston",
    "Madrid",
    "Vienna",
    "Toronto",
    "Athens",
    "Helsinki",
    "Chicago",
    "Geneva",
]
ASK_JSON = (
    'Answer with a JSON object with the keys "name" and "occupation".',
    'Return the name and the occupation as JSON: {"name": ..., "occupation": ...}.',
    'Write a JSON object that holds "name" and "occupation" of the person. Write nothing else.',
)


def biographies(count: int = 200, seed: int = 7) -> list[dict[str, Any]]:
    """Short biographies, an instruction to answer in JSON behind each: half, document, instruction, name, occupation."""
    draw, names, out = np.random.default_rng(seed), _fact_words()["names"], []
    for number in range(count):
        job, other = draw.permutation(JOBS)[:2]
        name = f"{draw.choice(names['first'])} {draw.choice(names['last'])}"
        he, his = ("she", "her") if name.split()[0] in names["women"] else ("he", "his")
        text = BIOGRAPHY[number // 2 % 3].format(
            name=name, job=job, other=other, city=draw.choice(CITIES), year=draw.integers(1940, 2000),
            hobby=draw.choice(HOBBIES), he=he, his=his, He=he.capitalize(), His=his.capitalize(),
        )  # fmt: skip
        ask = ASK_JSON[number // 6 % 3]
        out.append(
            {"half": ("profiling", "scoring")[number % 2], "document": text, "instruction": ask}
            | {"name": name, "occupation": str(job)}
        )
    return out


def json_answer(answer: str) -> dict[str, Any] | None:
    """The answer as a JSON object, read by `json`; None when it is none. A fence of ``` around the object is allowed."""
    text = answer.strip()
    fenced = re.fullmatch(r"```(?:json)?\s*(.*?)\s*```.*", text, re.DOTALL)
    try:
        found = json.loads(fenced.group(1) if fenced else text)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def score_json(item: dict[str, Any], answer: str) -> dict[str, bool]:
    """format: a JSON object with both keys; value: and the right occupation in it."""
    found = json_answer(answer)
    if found is None or not {"name", "occupation"} <= set(found):
        return {"format": False, "value": False}
    said = re.findall(r"[a-z]+", str(found["occupation"]).lower())
    return {"format": True, "value": item["occupation"] in said}


SINGULAR = re.compile(r"\b(he|she|him|her|hers|his|himself|herself)\b", re.IGNORECASE)
PLURAL = re.compile(r"\b(they|them|their|theirs|themselves|themself)\b", re.IGNORECASE)
ASK_THEY = "Rewrite the text. Use they, them and their instead of he, she, him, his and her."


def sentences_with_pronouns(folder: Path, count: int = 200, seed: int = 11) -> list[dict[str, Any]]:
    """Sentences of GAP (Wikipedia) of 8 to 28 words with one to three singular pronouns and no plural ones."""
    import csv

    found = []
    for file in ("gap-development.tsv", "gap-validation.tsv", "gap-test.tsv"):
        with (folder / "gap" / file).open(encoding="utf-8", newline="") as lines:
            for row in csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE):
                for s in re.split(r"(?<=[a-z)][.!?]) (?=[A-Z])", row["Text"]):
                    fits = 8 <= len(s.split()) <= 28 and s.endswith(".") and s[0].isupper() and s.isascii()
                    if (
                        fits
                        and not re.search(r"[*`\"]", s)
                        and 1 <= len(SINGULAR.findall(s)) <= 3
                        and not PLURAL.search(s)
                    ):
                        found.append(s)
    found = list(dict.fromkeys(found))
    picked = [found[i] for i in np.random.default_rng(seed).permutation(len(found))[:count]]
    return [
        {"half": ("profiling", "scoring")[n % 2], "document": s, "instruction": ASK_THEY} for n, s in enumerate(picked)
    ]


def score_pronouns(item: dict[str, Any], answer: str) -> dict[str, bool]:
    """changed: no singular pronoun left and a plural one there; all: as many plural as there were singular ones;
    kept: at least 80 % of the other words are still there, and changed."""
    text = answer.strip()
    before = len(SINGULAR.findall(item["document"]))
    changed = not SINGULAR.search(text) and bool(PLURAL.search(text))
    others = re.findall(r"\w+", SINGULAR.sub(" ", item["document"]).lower())
    there = set(re.findall(r"\w+", text.lower()))
    kept = sum(word in there for word in others) >= 0.8 * len(others)
    every = changed and len(PLURAL.findall(text)) >= before
    return {"changed": changed, "all": every, "kept": every and kept}


def harm(before: list[bool], after: list[bool]) -> float:
    """Of the items that were right before, how many are wrong after."""
    right = [b for a, b in zip(before, after, strict=True) if a]
    return 1 - sum(right) / len(right) if right else 0.0


# ------------------------------------------------------------------------------------------------ 3. lost in the middle

THINGS = ["falcon", "parrot", "tiger", "rabbit", "donkey", "camel", "spider", "salmon", "turtle", "lizard", "penguin", "monkey", "otter", "badger", "pigeon", "eagle", "apple", "mango", "lemon", "cherry", "banana", "orange", "onion", "carrot", "pepper", "garlic", "ginger", "butter", "honey", "sugar", "bread", "cheese", "coffee", "marble", "copper", "silver", "iron", "granite", "amber", "coral", "cotton", "velvet", "leather", "paper", "candle", "hammer", "ladder", "bottle", "mirror", "basket", "blanket", "button", "needle", "pencil", "lantern", "anchor", "saddle", "wagon", "engine", "bridge", "tunnel", "tower", "castle", "temple", "harbor", "island", "valley", "desert"]  # fmt: skip


@dataclass(frozen=True)
class Listed:
    """A long list of lines, and the questions about it: (depth, line as characters of the list, question, value)."""

    half: str
    text: str
    asked: tuple[tuple[float, Span, str, str], ...]


def lists(count: int = 6, lines: int = 460, depths: int = 11, seed: int = 3) -> list[Listed]:
    """Passwords of people, one a line, `lines` of them (9 to 11 tokens each); one question at every depth."""
    names, out = _fact_words()["names"], []
    people = [f"{a} {b}" for a in names["first"] for b in names["last"]]
    for number in range(count):
        draw = np.random.default_rng([seed, number])
        who = [people[i] for i in draw.permutation(len(people))[:lines]]
        what = [THINGS[i] for i in draw.integers(len(THINGS), size=lines)]
        text, spans = "", []
        for person, value in zip(who, what, strict=True):
            line = f"The password of {person} is {value}."
            spans.append((len(text), len(text) + len(line)))
            text += line + "\n"
        at = np.linspace(0, lines - 1, depths).round().astype(int)
        asked = tuple((i / (lines - 1), spans[i], f"\nThe password of {who[i]} is", f" {what[i]}") for i in at)
        out.append(Listed(("profiling", "scoring")[number % 2], text, asked))
    return out


# -------------------------------------------------------------------------------------------------- 4. real questions


def questions(folder: Path, rounds: int = 2) -> list[dict[str, Any]]:
    """XQuAD-en: up to `rounds` questions of every paragraph, drawn by a fixed seed; halves are split by paragraph.

    half, context, question, answers (texts), sentences (characters of each), gold (numbers of the sentences that hold
    the answer), marked (their characters).
    """
    from recuerdo.explain.words import cut

    articles = json.loads((folder / "xquad/xquad.en.json").read_text(encoding="utf-8"))["data"]
    paragraphs = [p for article in articles for p in article["paragraphs"]]
    profiling = set(np.random.default_rng(2026).permutation(len(paragraphs))[: len(paragraphs) // 2].tolist())
    drawn = []
    for number, paragraph in enumerate(paragraphs):
        text = cut(paragraph["context"])
        spans, of = np.array(text.spans), text.sentence_of()
        sentences = [
            (int(spans[of == n][0, 0]), int(spans[of == n][-1, 1]))
            for n in range(len(text.sentences))
            if (of == n).any()
        ]
        for i in np.random.default_rng(1000 + number).permutation(len(paragraph["qas"]))[:rounds]:
            asked = paragraph["qas"][i]
            start = asked["answers"][0]["answer_start"]
            end = start + len(asked["answers"][0]["text"])
            gold = [n for n, (a, b) in enumerate(sentences) if a < end and b > start]
            if gold:
                drawn.append(
                    {"half": "profiling" if number in profiling else "scoring", "context": paragraph["context"]}
                    | {"question": asked["question"], "answers": [a["text"] for a in asked["answers"]]}
                    | {"sentences": sentences, "gold": gold, "marked": [sentences[n] for n in gold]}
                )
    return drawn


def answered(item: dict[str, Any], answer: str) -> bool:
    """Whether the answer holds one of the gold answers, letter case and blanks aside."""
    said = re.sub(r"\s+", " ", answer).lower()
    return any(re.sub(r"\s+", " ", text).lower() in said for text in item["answers"])


def quotes(item: dict[str, Any], answer: str, letters: int = 60) -> bool:
    """Whether the answer begins as a copy of the document: right answers by quoting are to be told apart."""
    return answer.strip()[:letters].lower() in item["context"].lower()
