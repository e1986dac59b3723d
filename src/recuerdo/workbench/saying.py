"""What a run that says texts can be asked beside `predict`: other texts, a text as it is said, many lines, lengths."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from recuerdo.errors import InputError
from recuerdo.nn.decoding import Drawn
from recuerdo.workbench.running import Trained, open_run


def draw(
    folder: str | Path, text: str, *, count: int, temperature: float = 1.0, seed: int = 0
) -> list[tuple[str, float]]:
    """What the model of a run says of a text when its pieces are drawn, so many times, with scores, the best first.

    Raises InputError for a task that says no texts, and for what cannot be drawn; RunError as `open_run`.
    """
    run = open_run(folder)
    return _speaks(run, "draw")(run.model, text, count=count, choose=Drawn(temperature, seed=seed))


def stream(folder: str | Path, text: str) -> Iterator[str]:
    """What the model of a run says of a text, greedily, in parts as they are said. Raises as `draw`."""
    run = open_run(folder)
    return _speaks(run, "stream")(run.model, text)


def _speaks(run: Trained, how: str) -> Any:
    ask = getattr(run.task, how, None)
    if ask is None:
        raise InputError(f"the task {run.recipe.task} says no texts: leave --sample and --stream away")
    return ask


def predict_lines(folder: str | Path, lines: Iterable[str]) -> Iterator[str]:
    """What the model of a run says of each of many lines, in their order, as they come.

    Raises InputError for a task that has nothing to say of a line; RunError as `open_run`.
    """
    run = open_run(folder)
    ask = getattr(run.task, "say_lines", None)
    if ask is None:
        raise InputError(f"the task {run.recipe.task} has nothing to say of single lines: leave --lines away")
    return ask(run.model, lines)


def by_length(folder: str | Path, split: str = "test", *, which: str = "best") -> list[dict[str, float]]:
    """How good a run is at sources of some words and of many, group by group; see the task's `by_length`.

    Raises InputError for an unknown split and for a task without lengths; RunError as `open_run`.
    """
    if split not in ("test", "valid"):
        raise InputError(f"there is no split {split!r}: choose test or valid")
    run = open_run(folder, which)
    ask = getattr(run.task, "by_length", None)
    if ask is None:
        raise InputError(f"the task {run.recipe.task} has no lengths to part by: leave --by-length away")
    return ask(run.model, split)
