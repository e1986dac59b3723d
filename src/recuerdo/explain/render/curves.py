"""Curves as a picture: a score along something, a line for each of those that are compared; SVG and PNG."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from recuerdo.errors import InputError
from recuerdo.explain.render.picture import INK, SOFT, figure, saved

COLOURS = ("#c4540e", "#26608e", "#6d675b", "#7a9a3a", "#8a4f9e", "#b8860b")


def check_curves(path: Path) -> None:
    """Raises InputError for a file that cannot be drawn to, before anything long is reckoned."""
    if path.suffix.lower() not in (".svg", ".png"):
        raise InputError(f"{path.name} is neither .svg nor .png: these can be drawn")
    if not path.parent.is_dir():
        raise InputError(f"there is no folder {path.parent} to draw {path.name} in: make it first")


def write_curves(
    curves: Mapping[str, Sequence[float]], ticks: Sequence[str], path: Path, *, along: str, score: str
) -> None:
    """Write a .svg or .png: each curve has a score at every tick. `along` says what the ticks are, `score` what is
    higher when it is better. Raises InputError as `check_curves`, and when matplotlib is not installed."""
    check_curves(path)
    with saved(path) as save:
        sheet = figure(4.0)
        axes = sheet.add_axes((0.09, 0.16, 0.88, 0.76))
        for (name, values), colour in zip(curves.items(), COLOURS * len(curves), strict=False):
            axes.plot(range(len(ticks)), values, color=colour, marker="o", label=name)
        axes.set_xticks(range(len(ticks)), ticks)
        axes.set_xlabel(along, color=INK)
        axes.set_ylabel(score, color=INK)
        axes.tick_params(colors=SOFT)
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", color="#e8e4da")
        axes.legend(frameon=False)
        save(sheet)
