"""Questions with known answers: over paragraphs (the SQuAD format) and over long conversations (the LoCoMo format).

Both formats are JSON. The data are not ours to ship; a person hands over the file.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recuerdo.errors import InputError

EVIDENCE = re.compile(r"[^\s;,]+")  # some files name several turns in one string


@dataclass(frozen=True)
class Asked:
    """A question over a paragraph, and the texts that count as its answer."""

    question: str
    answers: tuple[str, ...]


@dataclass(frozen=True)
class Paragraph:
    """A paragraph, the number of its article, and what is asked about it."""

    article: int
    text: str
    asked: tuple[Asked, ...]


@dataclass(frozen=True)
class Turn:
    """What somebody said: `id` as the questions name it, the text with its speaker, and the session's date as it is
    written."""

    id: str
    text: str
    date: str = ""


@dataclass(frozen=True)
class Evidence:
    """A question over a conversation: the turns that hold its answer, and its category (1 to 5)."""

    question: str
    turns: frozenset[str]
    category: int


@dataclass(frozen=True)
class Conversation:
    """Turns in their order, and what is asked about them."""

    turns: tuple[Turn, ...]
    asked: tuple[Evidence, ...]


def paragraphs(file: Path) -> list[Paragraph]:
    """The paragraphs of a file in the format of SQuAD 1.1 (XQuAD's, too). Raises InputError for another file."""
    try:
        return [
            Paragraph(
                number,
                str(one["context"]),
                tuple(Asked(str(q["question"]), tuple(str(a["text"]) for a in q["answers"])) for q in one["qas"]),
            )
            for number, article in enumerate(_json(file)["data"])
            for one in article["paragraphs"]
        ]
    except (KeyError, TypeError) as error:
        raise InputError(f"{file.name} is not in the format of SQuAD 1.1: {error!r}") from None


def conversations(file: Path) -> list[Conversation]:
    """The conversations of a file in the format of `locomo10.json` (Maharana et al. 2024).

    A turn's text begins with its speaker and has the caption of a picture that was shown. Questions that name no turn
    of their conversation as evidence are left out. Raises InputError for another file.
    """
    try:
        return [_conversation(sample) for sample in _json(file)]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(f"{file.name} is not in the format of locomo10.json: {error!r}") from None


def _conversation(sample: Mapping[str, Any]) -> Conversation:
    told = sample["conversation"]
    sessions = sorted((int(found[1]), name) for name in told if (found := re.fullmatch(r"session_(\d+)", name)))
    turns = tuple(
        Turn(str(one["dia_id"]), _said(one), str(told.get(f"{name}_date_time", "")))
        for _, name in sessions
        for one in told[name]
    )
    there = {turn.id for turn in turns}
    asked = []
    for one in sample["qa"]:
        named = {id for text in one.get("evidence") or () for id in EVIDENCE.findall(text)}
        if named & there:
            asked.append(Evidence(str(one["question"]), frozenset(named & there), int(one["category"])))
    return Conversation(turns, tuple(asked))


def _said(turn: Mapping[str, Any]) -> str:
    picture = turn.get("blip_caption")
    return f"{turn['speaker']}: {turn.get('text') or ''}" + (f" [{picture}]" if picture else "")


def _json(file: Path) -> Any:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{file} cannot be read: {error.strerror}") from None
    except ValueError:
        raise InputError(f"{file.name} is not JSON in UTF-8") from None
