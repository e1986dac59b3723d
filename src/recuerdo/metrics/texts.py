"""Scores of texts against references, by the field's own libraries where one is kept up."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from recuerdo.errors import InputError, ShapeError

ROUGE = {"rouge1": "ROUGE-1", "rouge2": "ROUGE-2", "rougeL": "ROUGE-L"}


@dataclass(frozen=True)
class Judged:
    """A score of sacrebleu, 0 to 100, and the signature that says exactly how it was reckoned."""

    score: float
    signature: str


def bleu(said: Sequence[str], right: Sequence[str], *, tokenised: bool = False) -> Judged:
    """BLEU of a whole corpus against one reference a line (Papineni et al. 2002), by sacrebleu (Post 2018).

    Text is tokenised by `13a`, cased; where it is `tokenised` already, not again. The two are not to be compared.
    """
    metric = _sacrebleu().BLEU(tokenize="none" if tokenised else "13a", force=True)
    return _judged(metric, said, right)


def chrf(said: Sequence[str], right: Sequence[str]) -> Judged:
    """chrF2 of a whole corpus against one reference a line (Popovic 2015), by sacrebleu."""
    return _judged(_sacrebleu().CHRF(), said, right)


def rouge(said: Sequence[str], right: Sequence[Sequence[str]]) -> dict[str, float]:
    """ROUGE-1, -2 and -L, F1 in percent (Lin 2004), by rouge-score with its stemmer: the mean over the lines.

    Of several references of a line the best counts, for each of the three by itself.
    """
    try:
        from rouge_score import rouge_scorer
    except ImportError:
        raise InputError("ROUGE needs rouge-score: pip install 'recuerdo[summarise]'") from None
    if len(said) != len(right) or not said or not all(right):
        raise ShapeError(f"there are {len(said)} summaries, references of {len(right)}: each has at least one")
    scorer = rouge_scorer.RougeScorer(list(ROUGE), use_stemmer=True)
    found = [scorer.score_multi(list(some), line) for line, some in zip(said, right, strict=True)]
    return {ROUGE[name]: 100 * sum(one[name].fmeasure for one in found) / len(found) for name in ROUGE}


def _judged(metric: Any, said: Sequence[str], right: Sequence[str]) -> Judged:
    if len(said) != len(right) or not said:
        raise ShapeError(f"there are {len(said)} translations and {len(right)} references: one for one, at least one")
    score = float(metric.corpus_score(list(said), [list(right)]).score)
    return Judged(score, str(metric.get_signature()))


def _sacrebleu() -> Any:
    try:
        from sacrebleu import metrics
    except ImportError:
        raise InputError("BLEU needs sacrebleu: pip install 'recuerdo[translate]'") from None
    return metrics


# ------------------------------------------------------------------------------------------------------------- captions

ORDERS = 4  # n-grams of captions have 1 to 4 words
SPREAD = 6.0  # words by which the length of a caption may differ before CIDEr-D minds


def caption_scores(said: Sequence[str], right: Sequence[Sequence[str]]) -> dict[str, float]:
    """Scores of captions against all those that people gave, in percent: BLEU-1 to BLEU-4 (sacrebleu, 13a, lower case),
    METEOR without WordNet (nltk: exact and stemmed words), ROUGE-L (`rouge`), and CIDEr-D (`cider`; 100 is what tables
    call 1.0)."""
    if len(said) != len(right) or not said or not all(right):
        raise ShapeError(f"there are {len(said)} captions, references of {len(right)}: each has at least one")
    many = max(map(len, right))
    streams = [[some[i] if i < len(some) else None for some in right] for i in range(many)]
    found = {}
    for order in range(1, ORDERS + 1):
        metric = _sacrebleu().BLEU(max_ngram_order=order, tokenize="13a", lowercase=True, force=True)
        found[f"BLEU-{order}"] = float(metric.corpus_score(list(said), streams).score)
    found |= {"METEOR": _meteor(said, right), "ROUGE-L": rouge(said, right)["ROUGE-L"]}
    return found | {"CIDEr": cider(said, right)}


def cider(said: Sequence[str], right: Sequence[Sequence[str]]) -> float:
    """CIDEr-D of captions against references (Vedantam, Zitnick & Parikh 2015), times 100; words as blanks part them.

    N-grams of 1 to 4 words count by how rare they are among the pictures whose references are given; what is said more
    often than in the reference is clipped, and a Gaussian of 6 words minds the length.
    """
    if len(said) != len(right) or not said or not all(right):
        raise ShapeError(f"there are {len(said)} captions, references of {len(right)}: each has at least one")
    counted = [[_ngrams(one) for one in some] for some in right]
    pictures = Counter(gram for some in counted for gram in set().union(*some))
    rarity = {gram: math.log(len(right)) - math.log(count) for gram, count in pictures.items()}
    usual = math.log(len(right))  # of what stands in no reference
    total = 0.0
    for line, some in zip(said, counted, strict=True):
        own = _ngrams(line)
        total += sum(_alike(own, one, rarity, usual) for one in some) / len(some)
    return 1000 * total / len(said)


def _ngrams(line: str) -> Counter[tuple[str, ...]]:
    words = line.lower().split()
    return Counter(tuple(words[i : i + n]) for n in range(1, ORDERS + 1) for i in range(len(words) - n + 1))


def _alike(one: Counter, other: Counter, rarity: dict, usual: float) -> float:
    """The clipped cosine of two captions, the mean over the orders."""
    length = [sum(count for gram, count in some.items() if len(gram) == 1) for some in (one, other)]
    shrunk = math.exp(-((length[0] - length[1]) ** 2) / (2 * SPREAD**2))
    found = 0.0
    for n in range(1, ORDERS + 1):
        a, b = (
            {gram: count * rarity.get(gram, usual) for gram, count in some.items() if len(gram) == n}
            for some in (one, other)
        )
        sizes = [math.sqrt(sum(x * x for x in some.values())) for some in (a, b)]
        shared = sum(min(x, b[gram]) * b[gram] for gram, x in a.items() if gram in b)
        found += shared / (sizes[0] * sizes[1]) if all(sizes) else 0.0
    return shrunk * found / ORDERS


def _meteor(said: Sequence[str], right: Sequence[Sequence[str]]) -> float:
    try:
        from nltk.translate.meteor_score import meteor_score
    except ImportError:
        raise InputError("METEOR needs nltk: pip install 'recuerdo[captions]'") from None
    none: Any = _NoSynonyms()
    each = (
        meteor_score([one.lower().split() for one in some], line.lower().split(), wordnet=none)
        for line, some in zip(said, right, strict=True)
    )
    return 100 * sum(each) / len(said)


class _NoSynonyms:
    """What METEOR asks for synonyms: WordNet is no part of a package, and is left out."""

    @staticmethod
    def synsets(_: str) -> list:
        return []
