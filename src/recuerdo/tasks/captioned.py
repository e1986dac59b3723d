"""A caption and what each of its words read of the picture: for the terminal, a page, data."""

import json
from base64 import b64encode
from dataclasses import dataclass, replace
from html import escape
from typing import Any

from torch import Tensor

from recuerdo.data.pictures import png

SHADES = " ·░▒▓█"
WIDE = 560  # of the picture on the page, in its pixels
LARGEST = 1200  # pixels of the longer side that are put into a page
PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>{title}</title>
<style>
body {{ font: 16px/1.6 system-ui, sans-serif; margin: 2rem; color: #222; background: #fff }}
h1 {{ font-size: 1.5rem; line-height: 1.6; max-width: 50rem; margin: 0 0 .6rem }}
h1 span, .word {{ cursor: pointer; border-radius: 3px; padding: 0 .15em }}
h1 span:hover, h1 span:focus, h1 span.on {{ background: #ff8a3d55; outline: none }}
p {{ color: #666; font-size: .85rem; max-width: 50rem }}
.seen {{ position: relative; width: {shown}px; max-width: 100% }}
.seen img {{ display: block; width: 100%; image-rendering: {rendering} }}
.seen .heat {{ position: absolute; inset: 0; display: grid;
  grid-template: repeat({rows}, 1fr) / repeat({columns}, 1fr) }}
.mark {{ position: absolute; border: 2px dashed; pointer-events: none }}
.only, .boost {{ color: #4fc3f7 }}
.mute {{ color: #e57373 }}
figure {{ margin: 0 1rem 1rem 0; display: inline-block; vertical-align: top; width: {small}px }}
figure .seen {{ width: {small}px }}
figcaption {{ font-size: .9rem; color: #444 }}
</style>
<h1>{said}</h1>
{before}
<div class="seen" id="large">
<img id="picture" src="data:image/png;base64,{picture}" alt="the picture"><div class="heat"></div>{boxes}</div>
<p>Point at a word: where the picture stays bright is what the word read, exact to the cell. {marks}</p>
<div id="story"></div>
<script type="application/json" id="maps">{maps}</script>
<script>
const told = JSON.parse(document.getElementById('maps').textContent)
function paint(heat, row) {{
  const most = Math.max(...row)
  heat.replaceChildren(...row.map(share => {{
    const cell = document.createElement('div')
    cell.style.background = `rgba(0, 0, 0, ${{(0.78 * (1 - Math.sqrt(share / most))).toFixed(3)}})`
    cell.title = (100 * share).toFixed(1) + ' %'
    return cell
  }}))
}}
const large = document.querySelector('#large .heat'), spans = [...document.querySelectorAll('h1 span')]
function show(i) {{
  spans.forEach((span, j) => span.classList.toggle('on', i === j))
  paint(large, told.weights[i])
}}
spans.forEach((span, i) => {{
  for (const event of ['mouseenter', 'focus', 'click']) span.addEventListener(event, () => show(i))
}})
const source = document.getElementById('picture').src, story = document.getElementById('story')
told.weights.forEach((row, i) => {{
  const figure = document.createElement('figure'), seen = document.createElement('div')
  const picture = document.createElement('img'), heat = document.createElement('div')
  seen.className = 'seen'; heat.className = 'heat'; picture.src = source; picture.alt = ''
  paint(heat, row)
  seen.append(picture, heat)
  const caption = document.createElement('figcaption')
  caption.textContent = told.words[i]
  figure.append(seen, caption)
  story.append(figure)
}})
</script></html>
"""


@dataclass(frozen=True)
class Seen:
    """`picture` [3, height, width] uint8; a `grid` of rows and columns of cells; `words` of the caption, and `weights`
    [words][cells]: what each read, row by row (none where the captioner has no attention). `marks` that were obeyed,
    and the caption `before` them."""

    picture: Tensor
    grid: tuple[int, int]
    words: tuple[str, ...]
    weights: tuple[tuple[float, ...], ...]
    marks: tuple[str, ...] = ()
    before: "Seen | None" = None

    def marked(self, marks: list[str], before: "Seen") -> "Seen":
        """The same as what it is: obeying marks."""
        return replace(self, marks=tuple(marks), before=before)

    def as_json(self) -> dict[str, Any]:
        """Everything but the picture, as plain data."""
        return {
            "caption": " ".join(self.words),
            "words": list(self.words),
            "size": list(self.picture.shape[1:]),
            "grid": list(self.grid),
            "weights": [list(row) for row in self.weights],
            "marks": list(self.marks),
            "before": None if self.before is None else self.before.as_json(),
        }

    def text(self) -> str:
        """For the terminal: the caption, the one before the marks, and the map of each word in shades."""
        lines = [" ".join(self.words)]
        if self.before is not None:
            lines += ["", f"without the marks: {' '.join(self.before.words)}"]
        columns = self.grid[1]
        wide = max(columns, *(len(word) for word in self.words)) + 2 if self.words else columns
        each = max(1, 100 // wide)
        for first in range(0, len(self.weights), each):
            some = range(first, min(first + each, len(self.weights)))
            lines += ["", "".join(self.words[i].ljust(wide) for i in some).rstrip()]
            for row in range(self.grid[0]):
                lines.append("".join(self._shades(i, row).ljust(wide) for i in some).rstrip())
        return "\n".join(lines)

    def html(self) -> str:
        """A page by itself: the picture under the map of the word that is pointed at, and all words side by side."""
        step = -(-max(self.picture.shape[1:]) // LARGEST)
        shown = max(WIDE, min(900, self.picture.shape[2])) if self.picture.shape[1] < 2 * self.picture.shape[2] else 300
        words = self.words if self.weights else ()
        before = "" if self.before is None else f"<p>without the marks: {escape(' '.join(self.before.words))}</p>"
        maps = {"words": list(words), "weights": [[round(x, 5) for x in row] for row in self.weights]}
        said = " ".join(f'<span tabindex="0">{escape(word)}</span>' for word in self.words)
        return PAGE.format(
            title=escape(" ".join(self.words)),
            said=said,
            before=before,
            marks=escape(f"Marks: {'; '.join(self.marks)}." if self.marks else ""),
            boxes="".join(map(_outline, self.marks)),
            shown=shown,
            small=shown // 4,
            rendering="pixelated" if max(self.picture.shape[1:]) < WIDE // 2 else "auto",
            rows=self.grid[0],
            columns=self.grid[1],
            picture=b64encode(png(self.picture[:, ::step, ::step])).decode(),
            maps=json.dumps(maps).replace("<", "\\u003c"),
        )

    def _shades(self, word: int, row: int) -> str:
        """A row of cells of a word's map."""
        most = max(self.weights[word]) or 1.0
        cells = self.weights[word][row * self.grid[1] :][: self.grid[1]]
        return "".join(SHADES[round(share / most * (len(SHADES) - 1))] for share in cells)


def _outline(mark: str) -> str:
    """The box of a mark such as "only: 0,0,0.5,1", to be laid over the picture."""
    what, _, box = mark.partition(": ")
    left, top, right, bottom = (100 * float(edge) for edge in box.split(","))
    place = f"left: {left:g}%; top: {top:g}%; width: {right - left:g}%; height: {bottom - top:g}%"
    return f'<div class="mark {what}" style="{place}"></div>'
