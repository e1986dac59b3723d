"""A summary, what each of its words read of the text, and which were copied: for the terminal, a page, data."""

from dataclasses import dataclass
from html import escape
from typing import Any

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
<table><thead><tr><th>said</th><th>copied</th><th>read most</th></tr></thead><tbody>
{rows}
</tbody></table></html>
"""


@dataclass(frozen=True)
class Summarised:
    """`source` words of the text, `words` of the summary, `weights` [words][source]: what each read, `copied` [words]:
    the share of each word's probability that came from copying; `others`: what else was nearly said, best first."""

    source: tuple[str, ...]
    words: tuple[str, ...]
    weights: tuple[tuple[float, ...], ...]
    copied: tuple[float, ...]
    others: tuple[tuple[str, float], ...] = ()

    def as_json(self) -> dict[str, Any]:
        """Everything, as plain data."""
        return {
            "source": list(self.source),
            "summary": " ".join(self.words),
            "words": list(self.words),
            "weights": [list(row) for row in self.weights],
            "copied": list(self.copied),
            "beam": [{"text": text, "score": score} for text, score in self.others],
        }

    def most_read(self, word: int) -> list[tuple[int, float]]:
        """The places of the text that a word read most, and how much, most first."""
        row = self.weights[word]
        order = sorted(range(len(row)), key=lambda i: -row[i])[:TOP]
        return [(i, row[i]) for i in order if row[i] > 0]

    def text(self) -> str:
        """For the terminal: the summary, and for each word whether it was copied and what it read most."""
        lines, wide = [" ".join(self.words), ""], max((len(word) for word in self.words), default=0)
        for i, word in enumerate(self.words):
            lines.append(f"{word:>{wide}}  copied {self.copied[i]:4.0%}  read {self._named(i)}")
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
            f'<b class="copied">{escape(word)}</b>' if share > 0.5 else escape(word)
            for word, share in zip(self.words, self.copied, strict=True)
        )
        rows = "\n".join(
            f"<tr><td>{escape(word)}</td><td>{self.copied[i]:.0%}</td>"
            f'<td class="read">{escape(self._named(i))}</td></tr>'
            for i, word in enumerate(self.words)
        )
        page = PAGE.format(title="{title}", text=text, rows=rows)
        plain = escape(" ".join(self.words))
        return page.replace("{title}", plain, 1).replace("{title}", title, 1)

    def _named(self, word: int) -> str:
        return ", ".join(f"{self.source[i]} ({share:.0%}, word {i + 1})" for i, share in self.most_read(word))
