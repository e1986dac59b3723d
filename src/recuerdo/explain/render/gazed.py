"""A look at a picture for the terminal, as a page, as a picture, as data."""

import html
import io
import json
from base64 import b64encode
from pathlib import Path
from typing import Any

import numpy as np

from recuerdo.explain.gaze import Gaze, Map
from recuerdo.explain.render.picture import INK, SOFT, WIDTH, figure
from recuerdo.explain.render.written import written

SHADES = " ·░▒▓█"
LARGEST = 1200  # pixels of the picture's longer side on a page
HEAT = (255, 106, 0)
PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>{title}</title>
<style>
body {{ font: 16px/1.5 system-ui, sans-serif; margin: 2rem; color: #1d1b16; background: #fff }}
.seen {{ position: relative; display: inline-block; max-width: 100% }}
.seen img {{ display: block; width: {shown}px; max-width: 100% }}
.seen .dim {{ position: absolute; inset: 0; background: #000; opacity: .45 }}
.seen img.heat {{ position: absolute; inset: 0; width: 100%; height: 100%; image-rendering: pixelated }}
label {{ display: inline-block; margin: 0 1rem .4rem 0; cursor: pointer }}
p, output {{ color: #6d675b; font-size: .85rem }}
</style>
<h1>{title}</h1>
<div id="choice">{choice}</div>
<div class="seen"><img src="data:image/png;base64,{picture}" alt="the picture"><div class="dim"></div>
<img class="heat" alt="what was read, patch by patch"></div>
<p id="note"></p><output id="at">Point at a patch to see its share.</output>
<script type="application/json" id="maps">{maps}</script>
<script>
const maps = JSON.parse(document.getElementById('maps').textContent)
const heat = document.querySelector('.heat'), note = document.getElementById('note'), at = document.getElementById('at')
let now = 0
function show(i) {{ now = i; heat.src = maps[i].heat; note.textContent = maps[i].note }}
document.getElementById('choice').addEventListener('change', event => show(+event.target.value))
heat.addEventListener('mousemove', event => {{
  const shares = maps[now].shares, box = heat.getBoundingClientRect()
  const part = (value, size, count) => Math.min(count - 1, Math.max(0, Math.floor(value / size * count)))
  const row = part(event.clientY - box.top, box.height, shares.length)
  const column = part(event.clientX - box.left, box.width, shares[0].length)
  at.textContent = `row ${{row}}, column ${{column}}: ${{(100 * shares[row][column]).toFixed(2)}} %`
}})
show(0)
</script></html>
"""


def write_gaze(seen: Gaze, path: Path) -> None:
    """Write a look at a picture to a .html, .svg, .png, .json or .npz file. Raises as `written`."""
    written(
        path,
        page=lambda: _page(seen),
        data=lambda: gaze_as_data(seen),
        arrays=lambda: {one.name.replace(" ", "_"): one.shares for one in (*seen.maps, *seen.heads)},
        drawn=lambda: _drawn(seen),
    )


def gaze_as_data(seen: Gaze) -> dict[str, Any]:
    """The look as plain lists and numbers; `most` is the patch that was read most, in pixels of the picture."""
    return {
        "version": 1,
        "kind": "picture",
        "model": seen.model,
        "command": seen.command,
        "size": list(seen.picture.shape[1:]),
        "grid": list(seen.grid),
        "views": [_told(seen, one) for one in seen.maps],
        "heads": [_told(seen, one) for one in seen.heads],
    }


def gaze_as_text(seen: Gaze, *, wide: int = 72) -> str:
    """For the terminal: the first map in shades, two letters a patch where there is room."""
    first = seen.maps[0]
    most = first.shares.max() or 1.0
    letters = 2 if 2 * seen.grid[1] <= wide else 1
    lines = [f"{seen.model} · {first.label}: {first.note}", ""]
    for row in first.shares:
        lines.append("".join(SHADES[round(share / most * (len(SHADES) - 1))] * letters for share in row))
    top, left, bottom, right = seen.box(*_most(first))
    lines += [
        "",
        f"most: rows {top:.0f} to {bottom:.0f}, columns {left:.0f} to {right:.0f} of {seen.picture.shape[1]} x "
        f"{seen.picture.shape[2]} pixels, {100 * first.shares.max():.1f} %; {100 * first.aside:.0f} % went to no patch",
    ]
    return "\n".join(lines)


def _told(seen: Gaze, one: Map) -> dict[str, Any]:
    return {
        "name": one.name,
        "label": one.label,
        "note": one.note,
        "aside": round(one.aside, 6),
        "most": [round(edge, 2) for edge in seen.box(*_most(one))],
        "shares": [[round(float(share), 7) for share in row] for row in one.shares],
    }


def _most(one: Map) -> tuple[int, int]:
    row, column = np.unravel_index(int(one.shares.argmax()), one.shares.shape)
    return int(row), int(column)


def _page(seen: Gaze) -> str:
    each = [*seen.maps, *seen.heads]
    maps = [{"note": f"{one.note}; {100 * one.aside:.0f} % went to no patch", "heat": _heat(one),
             "shares": [[round(float(share), 5) for share in row] for row in one.shares]} for one in each]  # fmt: skip
    choice = "".join(
        f'<label><input type="radio" name="map" value="{i}"{"" if i else " checked"}> {html.escape(one.label)}</label>'
        for i, one in enumerate(each)
    )
    picture = _smaller(seen)
    return PAGE.format(
        title=html.escape(f"{seen.model}: what it read of the picture"),
        choice=choice,
        shown=min(900, max(600, picture.shape[1])),
        picture=b64encode(_png(picture)).decode(),
        maps=json.dumps(maps).replace("<", "\\u003c"),
    )


def _heat(one: Map) -> str:
    """A tiny picture, a pixel for each patch: the more was read, the less it is seen through."""
    strength = np.sqrt(one.shares / max(float(one.shares.max()), 1e-30))
    pixels = np.zeros((*one.shares.shape, 4), np.uint8)
    pixels[..., :3], pixels[..., 3] = HEAT, (200 * strength).round()
    return f"data:image/png;base64,{b64encode(_png(pixels)).decode()}"


def _smaller(seen: Gaze) -> np.ndarray:
    """[height, width, 3], every so many pixels left out of a large picture."""
    step = -(-max(seen.picture.shape[1:]) // LARGEST)
    return seen.picture[:, ::step, ::step].permute(1, 2, 0).contiguous().numpy()


def _png(pixels: np.ndarray) -> bytes:
    from PIL import Image

    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG")
    return out.getvalue()


def _drawn(seen: Gaze) -> Any:
    """The picture, and beside it under each of its maps."""
    height, width = seen.picture.shape[1:]
    across = 1 + len(seen.maps)
    sheet = figure(WIDTH / across * height / width + 0.6)
    picture = _smaller(seen)
    for i in range(across):
        axes = sheet.add_axes((i / across + 0.01, 0.04, 1 / across - 0.02, 0.82))
        axes.imshow(picture, extent=(0, width, height, 0))
        axes.axis("off")
        if i:
            one = seen.maps[i - 1]
            heat = np.zeros((*one.shares.shape, 4))
            heat[..., :3], heat[..., 3] = np.array(HEAT) / 255, 0.8 * np.sqrt(one.shares / one.shares.max())
            axes.imshow(np.zeros((1, 1)), cmap="gray", alpha=0.45, extent=(0, width, height, 0))
            axes.imshow(heat, extent=(0, width, height, 0), interpolation="nearest")
            axes.set_title(one.label, fontsize=10, color=INK)
    sheet.text(0.01, 0.005, f"{seen.model} · orange was read, exact to the patch", fontsize=7.5, color=SOFT)
    return sheet
