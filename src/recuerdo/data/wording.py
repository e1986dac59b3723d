"""Sentences whose words are known: a text, and where in it each of its words stands.

People who align words part French by rule (`de le` for du, `que il` for qu'il). A model learned from sentences as they
are written, or as Multi30k's tokeniser leaves them: `as_written` makes those of the words, and keeps track of them.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import chain

ELIDED = {"le": "l", "de": "d", "que": "qu", "ne": "n", "se": "s", "je": "j", "me": "m", "te": "t", "ce": "c"}
ELIDED |= {"jusque": "jusqu", "lorsque": "lorsqu", "puisque": "puisqu"}
CONTRACTED = {("de", "le"): "du", ("de", "les"): "des", ("à", "le"): "au", ("à", "les"): "aux"}
VOWELS = frozenset("aeiouyàâéèêëîïôûh")
ASPIRATED = (
    "hausse",
    "hausses",
    "haut",
    "haute",
    "hauts",
    "hauteur",
    "hasard",
    "huit",
    "héros",
    "honte",
    "hors",
    "hâte",
)
INFINITIVE = ("er", "ir", "re")
NO_VERB = (
    "premier",
    "dernier",
    "dossier",
    "courrier",
    "papier",
    "ministère",
    "frère",
    "père",
    "maire",
    "livre",
    "centre",
)
# Marks of the printer, and those of a keyboard that say the same.
PRINTED = {
    "’": "'",
    "‘": "'",
    "ʼ": "'",
    "“": '"',
    "”": '"',
    "„": '"',
    "–": "-",
    "—": "-",
    "‐": "-",
    "‑": "-",
    "…": "...",
}
LEFT_OF = (".", ",", ")", "]", "%", "...")  # no blank before these
LEFT_OF_ENGLISH = (*LEFT_OF, "!", "?", ";", ":")
RIGHT_OF = ("(", "[")  # none behind these


@dataclass(frozen=True)
class Worded:
    """A text, and where each of its words stands in it, as (first, last + 1); two words may stand at the same place."""

    text: str
    spans: tuple[tuple[int, int], ...]

    @classmethod
    def by_blanks(cls, text: str) -> "Worded":
        """Words as blanks part them; of several blanks one stays."""
        words, spans, first = text.split(), [], 0
        for word in words:
            spans.append((first, first + len(word)))
            first += len(word) + 1
        return cls(" ".join(words), tuple(spans))

    @property
    def words(self) -> list[str]:
        """Them."""
        return [self.text[a:b] for a, b in self.spans]


def plainly(text: str, strange: Collection[str]) -> str:
    """The text with those of its `strange` letters that are marks of the printer as a keyboard has them."""
    return text.translate({ord(mark): PRINTED[mark] for mark in strange if mark in PRINTED})


def as_written(words: Sequence[str], *, french: bool, tokenised: bool = False) -> Worded:
    """The sentence of these words, French as it is elided and contracted.

    `tokenised`: in lower case, with blanks between what Moses' tokeniser parts and its names of marks, as in Multi30k.
    """
    groups = list(_shapes(words) if french else ((word, 1) for word in words))
    left_of, text, spans = LEFT_OF if french else LEFT_OF_ENGLISH, "", []
    for number, (shape, many) in enumerate(groups):
        before = groups[number - 1][0] if number else ""
        if tokenised:
            shape = shape.lower().replace('"', "&quot;").replace("'", "&apos;")
            text += " " if number else ""
        elif number and not (
            before in RIGHT_OF or shape in left_of or shape.startswith("'") or (french and before.endswith("'"))
        ):
            text += " "
        spans += [(len(text), len(text) + len(shape))] * many
        text += shape
    return Worded(text if tokenised else text[:1].upper() + text[1:], tuple(spans))


def _shapes(words: Sequence[str]):
    """How French words are written, and how many words each shape is of."""
    place = 0
    while place < len(words):
        word, after, then = [*words[place : place + 3], "", ""][:3]
        low, next_low = word.lower(), after.lower()
        if _elides(low, next_low):
            short = ELIDED.get(low, "s")
            yield (short.capitalize() if word[0].isupper() else short) + "'", 1
        elif (low, next_low) in CONTRACTED and not _elides(next_low, then.lower()) and not _is_object(next_low, then):
            shape = CONTRACTED[low, next_low]
            yield shape.capitalize() if word[0].isupper() else shape, 2
            place += 1
        else:
            yield word, 1
        place += 1


def _elides(word: str, after: str) -> bool:
    if word == "si":
        return after in ("il", "ils")
    return word in ELIDED and after[:1] in VOWELS and after not in ASPIRATED and after != ""


def _is_object(article: str, after: str) -> bool:
    """Is `le` of "de le faire" a pronoun?"""
    return article in ("le", "les") and after.endswith(INFINITIVE) and after.lower() not in NO_VERB


def owners(ends: Sequence[int], told: Worded) -> list[list[int]]:
    """To which words each piece of a text belongs, given where its last letter stands; a blank is the next word's.

    An end of -1 is of no word.
    """
    of: list[list[int]] = [[] for _ in range(len(told.text) + 1)]
    for word, (first, last) in enumerate(told.spans):
        before = [first - 1] if first and told.text[first - 1].isspace() else []
        for place in chain(before, range(first, last)):
            of[place].append(word)
    return [of[end] if end >= 0 else [] for end in ends]
