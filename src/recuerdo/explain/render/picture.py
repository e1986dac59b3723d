"""Evidence as a picture for papers and slides: the text in its heat, or the alignment as a matrix; SVG and PNG."""

import re
import textwrap
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from recuerdo.errors import InputError
from recuerdo.explain.evidence import Evidence

WIDTH = 8.0  # inches
POINTS = 11.0
WORDS_AT_MOST = 900  # a longer text is drawn by its most-read sentences, in their order
HEAT = (196 / 255, 84 / 255, 14 / 255)
COOL = (38 / 255, 96 / 255, 142 / 255)
_NOT_XML = re.compile("[^\\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_STYLE: dict[Any, Any] = {"svg.fonttype": "none", "font.family": "DejaVu Serif", "svg.hashsalt": "recuerdo"}
INK, SOFT = "#1d1b16", "#6d675b"


def drawn(evidence: Evidence) -> Any:
    """The figure of a look at text."""
    return _matrix(evidence) if evidence.kind == "alignment" else _text(evidence)


@contextmanager
def saved(path: Path) -> Iterator[Callable[[Any], None]]:
    """Inside the block figures are drawn in our style; what is given saves one as .svg (with real text) or .png (200
    dpi). Raises InputError when matplotlib is not installed."""
    try:
        import matplotlib
    except ImportError:
        raise InputError("pictures need matplotlib: pip install 'recuerdo[png]'") from None
    with matplotlib.rc_context(_STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font")  # shown as boxes; SVG keeps the real text
        metadata = {"Date": None} if path.suffix.lower() == ".svg" else {}
        kind = path.suffix[1:].lower()
        yield lambda sheet: sheet.savefig(path, dpi=200, format=kind, metadata=metadata)


def figure(height: float) -> Any:
    """An empty sheet, so many inches high."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    sheet = Figure(figsize=(WIDTH, height), facecolor="white")
    FigureCanvasAgg(sheet)
    return sheet


def _pieces(evidence: Evidence) -> list[tuple[str, str, float | None]]:
    """(word, glue, share) of what is drawn; share None marks a gap between sentences that are left out."""
    row = evidence.view().map.row(0)
    if len(evidence.text) <= WORDS_AT_MOST:
        return list(zip(evidence.text.words, evidence.text.glue, row.tolist(), strict=True))
    of, shares = evidence.text.sentence_of(), evidence.sentences()
    chosen: set[int] = set()
    count = 0
    for sentence in np.argsort(-shares):
        count += int((of == sentence).sum())
        if chosen and count > WORDS_AT_MOST:
            break
        chosen.add(int(sentence))
    pieces: list[tuple[str, str, float | None]] = []
    for i, (word, glue) in enumerate(zip(evidence.text.words, evidence.text.glue, strict=True)):
        if of[i] in chosen:
            pieces.append((word, glue, float(row[i])))
        elif not pieces or pieces[-1][2] is not None:
            pieces.append(("…", "\n", None))
    return pieces


def _text(evidence: Evidence) -> Any:
    """Words set line by line by their true widths, each on its heat."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import TextPath

    font, line = FontProperties(family="DejaVu Serif", size=POINTS), POINTS * 1.75
    left, right = 30.0, WIDTH * 72 - 30.0
    widths: dict[str, float] = {}

    def width(word: str) -> float:
        if word not in widths:
            drawable = _plain(word).replace("$", r"\$")
            widths[word] = TextPath((0, 0), drawable, prop=font).get_extents().width + 0.6 if word.strip() else 0.0
        return widths[word]

    space, x, y, placed = POINTS * 0.32, left, 0.0, []
    for word, glue, share in _pieces(evidence):
        if x + width(word) > right:
            x, y = left, y + line
        placed.append((x, y, word, share))
        x += width(word) + (space if glue.strip(" ") == "" and glue else 0.5)
        if "\n" in glue:
            x, y = left, y + line * (1.35 if "\n\n" in glue or glue.count("\n") > 1 else 1.0)
    head = _heading(evidence)
    top = 26.0 + 20.0 * len(head)
    height = top + y + 2.2 * line
    sheet = figure(height / 72)
    axes = sheet.add_axes((0, 0, 1, 1))
    axes.set_xlim(0, WIDTH * 72)
    axes.set_ylim(height, 0)
    axes.axis("off")
    for i, (words, style) in enumerate(head):
        axes.text(left, 26 + 20 * i, _plain(words), va="baseline", parse_math=False, **style)
    _draw_words(axes, placed, top + 8, width)
    note = f"{evidence.model} · {evidence.view().label}: {evidence.view().note}"
    axes.text(left, height - 12, _plain(note), fontsize=7.5, color=SOFT, va="baseline", parse_math=False)
    return sheet


def _draw_words(axes: Any, placed: list, top: float, width: Any) -> None:
    from matplotlib.patches import FancyBboxPatch

    most = max((abs(share) for *_, share in placed if share is not None), default=0.0) or 1.0
    for x, y, word, share in placed:
        warmth = float(np.sqrt(abs(share or 0.0) / most))
        if warmth > 0.12:
            box = FancyBboxPatch(
                (x - 0.8, top + y - POINTS * 0.85),
                width(word) + 1.6,
                POINTS * 1.2,
                boxstyle="round,pad=0,rounding_size=1.6",
                facecolor=(*(HEAT if (share or 0.0) > 0 else COOL), 0.92 * warmth),
                linewidth=0,
            )
            axes.add_patch(box)
        color = "white" if warmth > 0.8 else INK
        axes.text(x, top + y, _plain(word), fontsize=POINTS, color=color, va="baseline", parse_math=False)


def _heading(evidence: Evidence) -> list[tuple[str, dict]]:
    lines = []
    if evidence.question:
        asked = textwrap.shorten(evidence.question, 96, placeholder=" …")
        lines.append((asked, {"fontsize": 10, "color": SOFT, "style": "italic"}))
    if evidence.answer is not None:
        lines += [(line, {"fontsize": 13, "color": INK}) for line in textwrap.wrap(_joined(evidence.answer), 68)[:4]]
    return lines


def _joined(words: Any) -> str:
    return " ".join("".join(w + g for w, g in zip(words.words, words.glue, strict=True)).split())


def _plain(text: str) -> str:
    """One line without the characters that XML does not allow."""
    return _NOT_XML.sub("�", text.replace("\n", " "))


def _matrix(evidence: Evidence) -> Any:
    """Source words across, target words down: the picture of Bahdanau et al. (2014)."""
    from matplotlib.colors import LinearSegmentedColormap

    weights = evidence.view().map.dense()[1:]
    height = max(2.5, 0.26 * weights.shape[0] + 1.6)
    sheet = figure(height)
    axes = sheet.add_axes((0.2, 0.06, 0.77, 1 - 1.5 / height - 0.06))
    heat = LinearSegmentedColormap.from_list("heat", ["#ffffff", HEAT])
    axes.imshow(np.sqrt(weights), cmap=heat, aspect="auto", vmin=0)
    axes.set_xticks(
        range(len(evidence.text)), [_plain(w) for w in evidence.text.words], rotation=60, ha="left", parse_math=False
    )
    axes.set_yticks(range(len(evidence.queries)), [_plain(w) for w in evidence.queries.words], parse_math=False)
    axes.xaxis.tick_top()
    axes.tick_params(length=0, labelsize=9, labelcolor=INK)
    for side in axes.spines.values():
        side.set_visible(False)
    return sheet
