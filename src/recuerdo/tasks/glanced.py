"""What was seen in a picture by a few glimpses, and where they were: for the terminal, a page, data."""

import math
from base64 import b64encode
from dataclasses import dataclass
from html import escape
from typing import Any

import torch
from torch import Tensor

from recuerdo.data.pictures import png

SECONDS = 1.0  # that a glimpse is shown
WIDE = 560  # of the picture on the page, in its pixels
PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>{title}</title>
<style>
body {{ font: 16px/1.5 system-ui, sans-serif; margin: 2rem; color: #222; background: #fff }}
figure {{ margin: 0 1.5rem 1rem 0; display: inline-block; vertical-align: top }}
figcaption, p {{ color: #666; font-size: .85rem }}
svg {{ background: #000; display: block }}
image {{ image-rendering: pixelated }}
rect, polyline {{ fill: none; stroke: #ff8a3d; vector-effect: non-scaling-stroke; stroke-width: 2 }}
polyline {{ stroke-dasharray: 3 3; opacity: .7 }}
.look {{ opacity: 0; animation: look {round}s infinite }}
@keyframes look {{ 0%, {share}% {{ opacity: 1 }} {after}%, 100% {{ opacity: 0 }} }}
@media (prefers-reduced-motion: reduce) {{ .look {{ animation: none; opacity: 1 }} }}
</style>
<h1>{title}</h1>
<figure><svg viewBox="0 0 {width} {height}" width="{shown}" role="img" aria-label="{title}">
<image id="picture" href="data:image/png;base64,{picture}" width="{width}" height="{height}"/>{path}{looks}</svg>
<figcaption>One glimpse after the other: the squares are what was seen, finer inside. {rest}</figcaption>
</figure>
<div>{story}</div></html>
"""


@dataclass(frozen=True)
class Glanced:
    """`picture` [height, width] uint8 as the model saw it. Of each look: its middle pixel (down, across) in `places`,
    and the probability of each class after it, in `chances`. A look has squares of so many pixels: `squares`, the
    smallest first. `each`: so many looks lead to an answer, of which the last class is "no more"; 0 = all lead to one.
    `sums`: the probabilities of the sums of all answers, from 0 on, where a sum is what was asked (empty = it is not).
    `coarse`: beside the looks all of the picture was seen, so many pixels down and across averaged (0 = nothing of it).
    `marks` that were obeyed."""

    picture: Tensor
    places: tuple[tuple[int, int], ...]
    chances: tuple[tuple[float, ...], ...]
    squares: tuple[int, ...]
    each: int = 0
    sums: tuple[float, ...] = ()
    coarse: int = 0
    marks: tuple[str, ...] = ()

    @property
    def answer(self) -> int | str:
        """The likeliest class after the last look; of several answers all of them in a row, or their sum."""
        if self.sums:
            return _best(self.sums)
        if not self.each:
            return _best(self.chances[-1])
        return "".join(map(str, self._read))

    @property
    def chance(self) -> float:
        """The probability of the answer, or of all answers together."""
        if self.sums:
            return max(self.sums)
        ends = self.chances[self.each - 1 :: self.each] if self.each else self.chances[-1:]
        return math.prod(map(max, ends))

    @property
    def looked_at(self) -> float:
        """The share of the picture's pixels that lie in any of the looks."""
        seen = torch.zeros(self.picture.shape, dtype=torch.bool)
        for down, across in self.places:
            wide = max(self.squares)
            first = [max(0, at - wide // 2) for at in (down, across)]
            seen[first[0] : down - wide // 2 + wide, first[1] : across - wide // 2 + wide] = True
        return float(seen.float().mean())

    def as_json(self) -> dict[str, Any]:
        """Everything but the picture, as plain data."""
        return {
            "answer": self.answer,
            "chance": self.chance,
            "marks": list(self.marks),
            "size": list(self.picture.shape),
            "looked_at": self.looked_at,
            "coarse": self.coarse,
            "looks": [
                {
                    "middle": list(place),
                    "boxes": [self._box(place, wide) for wide in self.squares],
                    "chances": list(chances),
                }
                for place, chances in zip(self.places, self.chances, strict=True)
            ],
        }

    def text(self) -> str:
        """For the terminal: the answer, and a line for each look."""
        lines = [self._title, ""]
        for number, (place, chances) in enumerate(zip(self.places, self.chances, strict=True), 1):
            at = f"row {place[0]:4}, column {place[1]:4}"
            lines.append(f"look {number}  at {at}: {self._thought(chances)}")
        return "\n".join(lines)

    def html(self) -> str:
        """A page by itself: the looks one after the other over the picture, and all of them side by side."""
        height, width = self.picture.shape
        count = len(self.places)
        looks = "".join(
            f'<g class="look" style="animation-delay: {SECONDS * i:g}s">{self._rects(place)}</g>'
            for i, place in enumerate(self.places)
        )
        path = " ".join(f"{across + 0.5},{down + 0.5}" for down, across in self.places)
        share = 100 / count
        return PAGE.format(
            title=escape(self._title),
            width=width,
            height=height,
            shown=WIDE,
            picture=b64encode(png(self.picture)).decode(),
            rest=self._rest,
            path=f'<polyline points="{path}"/>',
            looks=looks,
            round=f"{SECONDS * count:g}",
            share=f"{0.999 * share:.3f}",
            after=f"{share:.3f}",
            story="".join(self._told(i) for i in range(count)),
        )

    @property
    def _title(self) -> str:
        said = "nothing" if self.answer == "" else self.answer
        if self.sums and len(self._read) > 1 and sum(self._read) == self.answer:
            said = f"{' + '.join(map(str, self._read))} = {said}"
        looks = "sharp looks" if self.coarse else "looks"
        marked = "".join(f", {mark}" for mark in self.marks)
        return (
            f"{said} ({100 * self.chance:.1f} %){marked}, after {len(self.places)} {looks} at "
            f"{100 * self.looked_at:.2g} % of {self.picture.shape[1]} x {self.picture.shape[0]} pixels"
        )

    @property
    def _read(self) -> list[int]:
        """The likeliest class of each answer, without "no more"."""
        best = [_best(chances) for chances in self.chances[self.each - 1 :: self.each]]
        return [one for one in best if one < len(self.chances[0]) - 1]

    @property
    def _rest(self) -> str:
        """What else of the picture was seen."""
        if not self.coarse:
            return "Nothing else was."
        return f"Of the rest the model saw {self.coarse} x {self.coarse} pixels as one, to find where to look."

    def _told(self, number: int) -> str:
        """A look of the story: the picture around it, and what was thought after it."""
        height, width = self.picture.shape
        return (
            f'<figure><svg viewBox="0 0 {width} {height}" width="{WIDE // 4}"><use href="#picture"/>'
            f"{self._rects(self.places[number])}</svg>"
            f"<figcaption>{number + 1}: {self._thought(self.chances[number])}</figcaption></figure>"
        )

    def _thought(self, chances: tuple[float, ...]) -> str:
        best = _best(chances)
        what = "no more" if self.each and best == len(chances) - 1 else best
        return f"{what} ({100 * chances[best]:.1f} %)"

    def _rects(self, place: tuple[int, int]) -> str:
        found = []
        for wide in self.squares:
            top, left, _, _ = self._box(place, wide)
            found.append(f'<rect x="{left}" y="{top}" width="{wide}" height="{wide}"/>')
        return "".join(found)

    @staticmethod
    def _box(place: tuple[int, int], wide: int) -> list[int]:
        """Top, left, bottom and right of a square around a place; the last two are behind it."""
        top, left = (at - wide // 2 for at in place)
        return [top, left, top + wide, left + wide]


def _best(chances: tuple[float, ...]) -> int:
    return max(range(len(chances)), key=chances.__getitem__)
