"""A look at sound for the terminal, as a page, as a picture, as data."""

import html
import io
from base64 import b64encode
from pathlib import Path
from typing import Any

import numpy as np

from recuerdo.explain.render.picture import INK, SOFT, figure
from recuerdo.explain.render.written import written
from recuerdo.explain.timeline import Timeline

HEAT = (196, 84, 14)
WIDE = 60  # letters of the terminal's time line
ROW = 22  # pixels of a word's row
PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>{title}</title>
<style>
body {{ font: 16px/1.5 system-ui, sans-serif; margin: 2rem; color: #1d1b16; background: #fff }}
#time {{ position: relative; width: 100%; overflow: hidden }}
#time img {{ display: block; width: 100%; image-rendering: pixelated }}
#mel {{ height: 120px }}
#rows {{ position: relative; height: {high}px }}
#rows img {{ height: 100% }}
#rows button {{ position: absolute; height: {row}px; padding: 0 .2rem; border: 0; border-left: 2px solid #26608e;
  background: none; font: 13px/1 system-ui, sans-serif; color: #1d1b16; cursor: pointer; white-space: nowrap }}
#now {{ position: absolute; top: 0; bottom: 0; width: 1px; background: #26608e; left: 0 }}
p {{ color: #6d675b; font-size: .85rem }}
</style>
<h1>{title}</h1>
<audio id="sound" controls src="data:audio/wav;base64,{sound}"></audio>
<div id="time"><img id="mel" alt="the sound: time across, pitch up" src="{mel}">
<div id="rows"><img alt="what each word read of the sound" src="{heat}">{words}</div><div id="now"></div></div>
<p>{note}</p>
<script>
const sound = document.getElementById('sound'), now = document.getElementById('now'), seconds = {seconds}
document.getElementById('rows').addEventListener('click', event => {{
  if (event.target.dataset.at) {{ sound.currentTime = +event.target.dataset.at; sound.play() }}
}})
sound.addEventListener('timeupdate', () => {{ now.style.left = `${{100 * sound.currentTime / seconds}}%` }})
</script></html>
"""


def write_timeline(seen: Timeline, path: Path) -> None:
    """Write a look at sound to a .html, .svg, .png, .json or .npz file. Raises as `written`."""
    written(
        path,
        page=lambda: _page(seen),
        data=lambda: timeline_as_data(seen),
        arrays=lambda: _arrays(seen),
        drawn=lambda: _drawn(seen),
    )


def _arrays(seen: Timeline) -> dict[str, Any]:
    starts, ends = ([getattr(word, edge) for word in seen.words] for edge in ("start", "end"))
    words = np.array([word.text for word in seen.words], dtype=str)
    return {"words": words, "start": starts, "end": ends, "shares": seen.shares, "mel": seen.mel}


def timeline_as_data(seen: Timeline) -> dict[str, Any]:
    """The look as plain lists and numbers; times are seconds of the file."""
    return {
        "version": 1,
        "kind": "sound",
        "model": seen.model,
        "command": seen.command,
        "text": seen.text,
        "start": seen.start,
        "seconds": round(seen.shares.shape[1] * seen.step, 3),
        "whole": round(seen.whole, 3),
        "note": seen.note,
        "words": [
            {"text": word.text, "start": round(seen.start + word.start, 3), "end": round(seen.start + word.end, 3)}
            for word in seen.words
        ],
        "step": seen.step,
        "shares": [[round(float(share), 5) for share in row] for row in seen.shares],
    }


def timeline_as_text(seen: Timeline) -> str:
    """For the terminal: the transcript, and each word with its times on a line of time."""
    lines, seconds = [seen.text or "nothing was said", ""], max(seen.shares.shape[1] * seen.step, 1e-9)
    wide = max((len(word.text) for word in seen.words), default=0)
    for word in seen.words:
        first, behind = (round(WIDE * edge / seconds) for edge in (word.start, word.end))
        bar = " " * first + "█" * max(1, behind - first)
        lines.append(f"{seen.start + word.start:7.2f} {seen.start + word.end:7.2f}  {word.text:{wide}}  {bar}")
    return "\n".join([*lines, "", seen.note])


def _page(seen: Timeline) -> str:
    seconds = max(seen.shares.shape[1] * seen.step, 1e-9)
    words = "".join(
        f'<button data-at="{word.start:.2f}" title="{seen.start + word.start:.2f} to {seen.start + word.end:.2f} s" '
        f'style="left: {100 * word.start / seconds:.3f}%; top: {ROW * i}px">{html.escape(word.text)}</button>'
        for i, word in enumerate(seen.words)
    )
    return PAGE.format(
        title=html.escape(seen.text or "nothing was said"),
        high=ROW * max(1, len(seen.words)),
        row=ROW,
        sound=b64encode(seen.wav).decode(),
        mel=_url(_grey(seen.mel)),
        heat=_url(_heat(seen.shares)),
        words=words,
        note=html.escape(f"{seen.model}. {seen.note}"),
        seconds=f"{seconds:.3f}",
    )


def _grey(mel: np.ndarray) -> np.ndarray:
    """Low notes below, loud ones dark."""
    return (255 * (1 - mel[::-1])).round().astype(np.uint8)


def _heat(shares: np.ndarray) -> np.ndarray:
    """A row for each word, the more it read the darker."""
    if not shares.size:
        shares = np.zeros((1, max(1, shares.shape[1])))
    strength = np.sqrt(shares / np.maximum(shares.max(1, keepdims=True), 1e-30))[..., None]
    return (255 - strength * (255 - np.array(HEAT))).round().astype(np.uint8)


def _url(pixels: np.ndarray) -> str:
    from PIL import Image

    out = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(out, "PNG")
    return f"data:image/png;base64,{b64encode(out.getvalue()).decode()}"


def _drawn(seen: Timeline) -> Any:
    """The spectrogram, and below it the words' reads."""
    count, seconds = max(1, len(seen.words)), max(seen.shares.shape[1] * seen.step, 1e-9)
    height = 1.6 + 0.2 * count + 0.5
    sheet = figure(height)
    sound = sheet.add_axes((0.14, 1 - 1.5 / height, 0.84, 1.3 / height))
    sound.imshow(_grey(seen.mel), cmap="gray", aspect="auto", extent=(0, seconds, 0, 1), vmin=0, vmax=255)
    sound.axis("off")
    rows = sheet.add_axes((0.14, 0.45 / height, 0.84, 0.2 * count / height))
    rows.imshow(_heat(seen.shares), aspect="auto", extent=(0, seconds, count, 0), interpolation="nearest")
    for i, word in enumerate(seen.words):
        rows.plot([word.start, word.start], [i, i + 1], color="#26608e", linewidth=1.5)
    rows.set_yticks(
        [i + 0.5 for i in range(len(seen.words))], [word.text for word in seen.words], fontsize=8, color=INK
    )
    rows.set_xlabel("seconds", fontsize=8, color=SOFT)
    rows.tick_params(labelsize=8, colors=SOFT)
    rows.spines[["top", "right", "left"]].set_visible(False)
    return sheet
