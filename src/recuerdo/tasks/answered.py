"""What a reader said to a question, and which sentences each of its hops looked at: for the terminal, a page, data."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import torch

from recuerdo.data.stories import split_words
from recuerdo.errors import InputError
from recuerdo.read import Bend, Odds
from recuerdo.read import mute as mute_keys

SHADES = " ·░▒▓█"


@dataclass(frozen=True)
class Hop:
    """What the question read at one hop: the address of the read, and the weight of each sentence."""

    address: str
    weights: tuple[float, ...]


@dataclass(frozen=True)
class Answered:
    """An answer. `chances` are the likeliest answers with their probabilities, best first; `unknown` the words that the
    model never met; `before` what it answers when nobody steers, None where nobody does."""

    sentences: tuple[str, ...]
    question: str
    answer: str
    chances: tuple[tuple[str, float], ...]
    hops: tuple[Hop, ...]
    unknown: tuple[str, ...] = ()
    marks: tuple[str, ...] = ()
    before: "Answered | None" = None

    @property
    def most_read(self) -> int | None:
        """The sentence that all hops together read most, None where nothing was read."""
        totals = self.totals()
        return max(range(len(totals)), key=totals.__getitem__) if any(totals) else None

    def totals(self) -> list[float]:
        """The weight of each sentence, summed over the hops."""
        return [sum(hop.weights[i] for hop in self.hops) for i in range(len(self.sentences))]

    def as_json(self) -> dict[str, Any]:
        """Everything, as plain data."""
        found: dict[str, Any] = {
            "question": self.question,
            "answer": self.answer,
            "chances": [{"answer": answer, "probability": p} for answer, p in self.chances],
            "sentences": list(self.sentences),
            "hops": [{"address": hop.address, "weights": list(hop.weights)} for hop in self.hops],
            "most_read": self.most_read,
            "unknown_words": list(self.unknown),
            "marks": list(self.marks),
        }
        return found | ({"before": self.before.as_json()} if self.before else {})

    def text(self) -> str:
        """For the terminal: a row for each sentence, a column for each hop, percent of what was read."""
        lines = [f"{self.question}", f"  {self.answer}   {self._also()}".rstrip()]
        if self.before is not None:
            lines.append(f"  unsteered: {self.before.answer}   {self.before._also()}".rstrip())
        lines += [f"  steered: {mark}" for mark in self.marks]
        if self.unknown:
            lines.append(f"  words it never met: {', '.join(self.unknown)}")
        names = "".join(f"{f'hop {i}':>7}" for i in range(1, len(self.hops) + 1))
        lines += ["", f"{names}   of what the question read, % (▸ = most over all hops)"]
        for i, sentence in enumerate(self.sentences):
            cells = "".join(_cell(hop.weights[i]) for hop in self.hops)
            lines.append(f"{cells} {'▸' if i == self.most_read else ' '} {i + 1:>3}  {sentence}")
        return "\n".join(lines)

    def html(self) -> str:
        """A page by itself: the story in the heat of each hop."""
        parts = [
            f"<h1>{escape(self.question)}</h1>",
            f"<p class=a>{escape(self.answer)} <small>{escape(self._also())}</small></p>",
        ]
        if self.before is not None:
            parts.append(
                f"<p>unsteered: <b>{escape(self.before.answer)}</b> <small>{escape(self.before._also())}</small></p>"
            )
        parts += [f"<p class=m>steered: {escape(mark)}</p>" for mark in self.marks]
        if self.unknown:
            parts.append(f"<p class=m>words it never met: {escape(', '.join(self.unknown))}</p>")
        parts.append(self._table("what the question read"))
        if self.before is not None:
            parts.append(self.before._table("unsteered"))
        return PAGE.format(title=escape(self.question), body="\n".join(parts))

    def _also(self) -> str:
        likely = [chance for chance in self.chances[:3] if chance[1] >= 0.0005]  # what would read 0.0 % says nothing
        return "  ".join(f"{answer} {100 * p:.1f} %" for answer, p in likely)

    def _table(self, caption: str) -> str:
        names = "".join(f'<th title="{escape(hop.address)}">{i}' for i, hop in enumerate(self.hops, 1))
        rows = [f"<table><caption>{escape(caption)}, a column for each hop, in %</caption><tr><th><th>sentence{names}"]
        for i, sentence in enumerate(self.sentences):
            cells = "".join(
                f'<td class=n style="--w:{min(1.0, hop.weights[i]):.4f}">{_percent(hop.weights[i])}'
                for hop in self.hops
            )
            rows.append(
                f"<tr{' class=most' if i == self.most_read else ''}><td class=n>{i + 1}<td>{escape(sentence)}{cells}"
            )
        return "\n".join(rows) + "</table>"


def _percent(weight: float) -> str:
    return f"{100 * weight:.0f}" if weight >= 0.005 else "·"


def bends_on(marks: Sequence[tuple[str, str]], lines: Sequence[str], boost: float) -> tuple[Bend, ...]:
    """Marks on sentences as bends: every sentence with these words, whatever its capitals and marks."""
    bends: list[Bend] = []
    muted = torch.zeros(len(lines), dtype=torch.bool)
    taken = torch.zeros(len(lines), dtype=torch.bool)
    for what, sentence in marks:
        keys = torch.tensor([split_words(line) == split_words(sentence) for line in lines])
        if not keys.any():
            raise InputError(f"the story has no sentence {sentence!r}: give one as it stands there")
        if (keys & taken).any():
            raise InputError(f"the sentence {sentence!r} is marked twice: boost it or mute it, once")
        taken |= keys
        muted |= keys & (what == "mute")
        bends.append(Odds(keys, boost) if what == "boost" else mute_keys(keys))
    if muted.all():
        raise InputError("all sentences are muted: leave one to be read")
    return tuple(bends)


def _cell(weight: float) -> str:
    shade = SHADES[min(len(SHADES) - 1, round(weight * (len(SHADES) - 1)))]
    return f"{_percent(weight):>5}{shade} "


PAGE = """<!doctype html><html lang=en><meta charset=utf-8>
<meta name=viewport content="width=device-width,initial-scale=1">
<title>{title}</title><style>
:root{{color-scheme:light dark;--heat:#c2410c}}
body{{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}}
h1{{font-size:1.4rem;margin:0 0 .2rem}} .a{{font-size:1.8rem;margin:0 0 1rem;font-weight:600}}
small{{font-size:.85rem;font-weight:400;opacity:.7}} .m{{opacity:.8;margin:.2rem 0}}
table{{border-collapse:collapse;margin:1.2rem 0;width:100%}} caption{{text-align:left;opacity:.7;font-size:.85rem}}
th{{font-weight:400;opacity:.7;font-size:.85rem;text-align:right}} th:nth-child(2){{text-align:left}}
td{{padding:.15rem .5rem;border-top:1px solid color-mix(in srgb,currentColor 12%,transparent)}}
.n{{text-align:right;font-variant-numeric:tabular-nums;width:3.2rem;
background:color-mix(in srgb,var(--heat) calc(var(--w,0)*75%),transparent)}}
td.n:first-child{{opacity:.6;width:2rem}} .most td:nth-child(2){{font-weight:600}}
</style><body>
{body}
</body></html>
"""
