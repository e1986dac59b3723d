"""A summary, what each of its words read of the text, and which were copied: for the terminal, a page, data."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

COPIED = 0.5  # a word is copied when more than half of its probability came from copying
LEAST = 0.005  # less is not told: it would be said as 0 %
TOP = 3  # words of the text that are named for each word of the summary
PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>{title}</title>
<style>
body {{ font: 16px/1.6 system-ui, sans-serif; margin: 2rem; color: #222; background: #fff; max-width: 50rem }}
h1 {{ font-size: 1.4rem; line-height: 1.5 }}
table {{ border-collapse: collapse; margin: 1rem 0 }}
td, th {{ text-align: left; font-weight: normal; padding: .1rem .8rem .1rem 0; vertical-align: top }}
th {{ color: #666; font-size: .85rem }}
b.copied {{ border-bottom: 2px solid firebrick; font-weight: inherit }}
.read {{ color: #666; font-size: .85rem }}
p.note {{ color: #666; font-size: .85rem }}
</style>
<h1>{title}</h1>
<p class="note">Of underlined words more than half was copied. The text: darker is what the summary read more of.</p>
<p>{text}</p>
<table><thead><tr><th>said</th><th>copied</th><th>from</th><th>read most</th></tr></thead><tbody>
{rows}
</tbody></table></html>
"""


@dataclass(frozen=True)
class Summarised:
    """`source` words of the text, `words` of the summary, `weights` [words][source]: what each read, `copied`
    [words][source]: the share of each word's probability that was copied from there; `others`: what else was nearly
    said, best first."""

    source: tuple[str, ...]
    words: tuple[str, ...]
    weights: tuple[tuple[float, ...], ...]
    copied: tuple[tuple[float, ...], ...]
    others: tuple[tuple[str, float], ...] = ()

    def as_json(self) -> dict[str, Any]:
        """Everything, as plain data."""
        return {
            "source": list(self.source),
            "summary": " ".join(self.words),
            "words": list(self.words),
            "weights": [list(row) for row in self.weights],
            "copied": [self.share(i) for i in range(len(self.words))],
            "copied_from": [list(row) for row in self.copied],
            "beam": [{"text": text, "score": score} for text, score in self.others],
        }

    def share(self, word: int) -> float:
        """How much of a word's probability was copied."""
        return min(1.0, sum(self.copied[word]))

    def most_read(self, word: int) -> list[tuple[int, float]]:
        """The places of the text that a word read most, and how much, most first."""
        return _most(self.weights[word])

    def copied_from(self, word: int) -> list[tuple[int, float]]:
        """The places of the text that a word was copied from, and how much of its probability from each, most first."""
        return _most(self.copied[word])

    def text(self) -> str:
        """For the terminal: the summary, and for each word how much was copied, from where, and what it read most."""
        lines, wide = [" ".join(self.words), ""], max((len(word) for word in self.words), default=0)
        for i, word in enumerate(self.words):
            from_ = f" from {self._named(self.copied_from(i))}" if self.share(i) > COPIED else ""
            lines.append(f"{word:>{wide}}  copied {self.share(i):4.0%}{from_}  read {self._named(self.most_read(i))}")
        return "\n".join(lines)

    def html(self) -> str:
        """A page by itself."""
        total = [sum(column) for column in zip(*self.weights, strict=True)] or [0.0] * len(self.source)
        most = max(total, default=0.0) or 1.0
        text = " ".join(
            f'<span style="background: rgb(178 34 34 / {0.8 * share / most:.3f})">{escape(word)}</span>'
            for word, share in zip(self.source, total, strict=True)
        )
        title = " ".join(
            f'<b class="copied">{escape(word)}</b>' if self.share(i) > COPIED else escape(word)
            for i, word in enumerate(self.words)
        )
        rows = "\n".join(
            f"<tr><td>{escape(word)}</td><td>{self.share(i):.0%}</td>"
            f'<td class="read">{escape(self._named(self.copied_from(i)))}</td>'
            f'<td class="read">{escape(self._named(self.most_read(i)))}</td></tr>'
            for i, word in enumerate(self.words)
        )
        page = PAGE.format(title="{title}", text=text, rows=rows)
        plain = escape(" ".join(self.words))
        return page.replace("{title}", plain, 1).replace("{title}", title, 1)

    def _named(self, places: list[tuple[int, float]]) -> str:
        return ", ".join(f"{self.source[i]} ({share:.0%}, word {i + 1})" for i, share in places if share >= LEAST)


def _most(row: Sequence[float]) -> list[tuple[int, float]]:
    order = sorted(range(len(row)), key=lambda i: -row[i])[:TOP]
    return [(i, row[i]) for i in order if row[i] > 0]
