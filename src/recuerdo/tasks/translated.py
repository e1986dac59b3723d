"""A translation, and which words of the source each of its words read: for the terminal, a page, data."""

from dataclasses import dataclass
from html import escape
from typing import Any

SHADES = " ·░▒▓█"
READ = "Each row: what a word of the translation read of the source, darker is more."
NOTHING = "This model has no attention: it read the source as one vector."
SILENT = "It said nothing."
PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>{title}</title>
<style>
body {{ font: 16px/1.4 system-ui, sans-serif; margin: 2rem; color: #222; background: #fff }}
table {{ border-collapse: collapse }}
th {{ font-weight: normal; text-align: right; padding: 0 .5rem; white-space: nowrap }}
thead th {{ writing-mode: vertical-rl; transform: rotate(180deg); text-align: left; padding: .5rem 0 }}
td {{ width: 1.6rem; height: 1.6rem; border: 1px solid #eee }}
caption {{ caption-side: bottom; text-align: left; padding-top: 1rem; color: #666; font-size: .85rem }}
</style>
<h1>{title}</h1>{notes}
<table><thead><tr><th></th>{head}</tr></thead><tbody>
{rows}
</tbody><caption>{caption}</caption></table></html>
"""


@dataclass(frozen=True)
class Translated:
    """`source` words, `words` of the translation, `weights` [words][source]: what each read, which sums to one but for
    the end mark of the source, and is empty for a model without attention; `others`: what else was nearly said, with
    the scores of the beam, the best first. `strange`: words of the source with letters that the model hardly knows.
    `marks`: what a person marked, and `before`: the same without."""

    source: tuple[str, ...]
    words: tuple[str, ...]
    weights: tuple[tuple[float, ...], ...]
    others: tuple[tuple[str, float], ...] = ()
    strange: tuple[str, ...] = ()
    marks: tuple[str, ...] = ()
    before: "Translated | None" = None  # without the marks

    def as_json(self) -> dict[str, Any]:
        """Everything, as plain data."""
        return {
            "source": list(self.source),
            "translation": " ".join(self.words),
            "words": list(self.words),
            "weights": [list(row) for row in self.weights],
            "beam": [{"text": text, "score": score} for text, score in self.others],
            "strange": list(self.strange),
            "marks": list(self.marks),
            "unsteered": None if self.before is None else self.before.as_json(),
        }

    def text(self) -> str:
        """For the terminal: the translation, and a row for each of its words, a column for each of the source."""
        wide = max((len(word) for word in self.words), default=0)
        lines = [" ".join(self.words), *self._notes, ""]
        if not self.weights:
            return "\n".join([*lines, NOTHING if self.words else SILENT])
        for i in range(max(map(len, self.source))):
            lines.append(" " * (wide + 2) + " ".join(f"{word[i : i + 1]:1}" for word in self.source))
        lines.append("")
        for word, row in zip(self.words, self.weights, strict=True):
            most = max(row, default=0.0) or 1.0
            cells = " ".join(SHADES[round(w / most * (len(SHADES) - 1))] for w in row)
            lines.append(f"{word:>{wide}}  {cells}")
        return "\n".join(lines)

    def html(self) -> str:
        """A page by itself: the alignment in shades."""
        notes = "".join(f"<p>{escape(line.strip())}</p>" for line in self._notes)
        if not self.weights:
            return PAGE.format(
                title=escape(" ".join(self.words)),
                head="",
                rows="",
                caption=NOTHING if self.words else SILENT,
                notes=notes,
            )
        head = "".join(f"<th>{escape(word)}</th>" for word in self.source)
        rows = "\n".join(
            f"<tr><th>{escape(word)}</th>"
            + "".join(
                f'<td style="background: rgb(178 34 34 / {w:.3f})" title="{escape(other)}: {100 * w:.1f} %"></td>'
                for other, w in zip(self.source, row, strict=True)
            )
            + "</tr>"
            for word, row in zip(self.words, self.weights, strict=True)
        )
        return PAGE.format(title=escape(" ".join(self.words)), head=head, rows=rows, caption=READ, notes=notes)

    @property
    def _notes(self) -> list[str]:
        unread = ", ".join(dict.fromkeys(self.strange))
        found = [f"  it hardly knows the letters of {unread}: what it says there is made up"] if unread else []
        if self.before is None:
            return found
        return [*found, f"  unsteered: {' '.join(self.before.words)}", *(f"  steered: {mark}" for mark in self.marks)]
