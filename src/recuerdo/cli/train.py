"""`recuerdo train`: train by a recipe, with everything on the way to be seen, stopped and taken up again."""

import json
import re
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from recuerdo.errors import InputError

EXAMPLES = """Examples:

`recuerdo recipes ls`, then `recuerdo train babi-1k-memn2n`

`recuerdo train babi-1k-memn2n --seeds 0-9 --out runs/memn2n`

`recuerdo train my.toml --set train.lr=0.003 --set model.hops=2 --out runs/two-hops`

`recuerdo train runs/two-hops` goes on with a run that was stopped.

`torchrun --nproc-per-node 2 -m recuerdo train my.toml --out runs/both`
"""


def train(
    recipe: Annotated[str, typer.Argument(help="A name of `recuerdo recipes ls`, a .toml file, or a run's folder.")],
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="The folder of the run (default: runs/NAME/seed-N).")
    ] = None,
    changes: Annotated[
        list[str] | None, typer.Option("--set", "-s", help="Change a value, such as train.lr=0.01 (repeatable).")
    ] = None,
    seed: Annotated[int | None, typer.Option("--seed", help="The seed (default: the recipe's).")] = None,
    seeds: Annotated[
        str | None, typer.Option("--seeds", help="Several seeds, such as 0-9 or 1,5: a folder seed-N for each.")
    ] = None,
    steps: Annotated[int | None, typer.Option("--steps", min=1, help="Steps in all, instead of the recipe's.")] = None,
    tensorboard: Annotated[bool, typer.Option("--tensorboard", help="Write a log for TensorBoard as well.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one object for each event.")] = False,
) -> None:
    """Train by a recipe into a folder. A run that was stopped there goes on as if it had not been."""
    if seed is not None and seeds is not None:
        raise InputError("--seed and --seeds exclude each other: give one of them")
    wanted = seeds_of(seeds) if seeds is not None else [seed]
    from recuerdo.workbench.recipe import load_recipe
    from recuerdo.workbench.runfolder import summary

    told = [*(changes or ()), *([f"train.steps={steps}"] if steps is not None else [])]
    told += ["train.tensorboard=true"] if tensorboard else []
    found = load_recipe(recipe, told)
    if steps is not None and found.train.get("phase"):
        raise InputError("the recipe has phases, each with its steps: write --set train.phase.0.steps=…")
    again = Path(recipe) if Path(recipe).is_dir() and out is None and seeds is None else None
    for one in wanted:
        number = found.train.get("seed", 0) if one is None else one
        folder = again or out or Path("runs") / found.name / f"seed-{number}"
        if seeds is not None:
            folder = (out or Path("runs") / found.name) / f"seed-{number}"
        _run(found, folder, number, as_json)
    if seeds is not None:
        told_up = summary(out or Path("runs") / found.name)
        print(json.dumps({"event": "summary", **told_up})) if as_json else show_summary(told_up)


def _run(recipe: Any, folder: Path, seed: int, as_json: bool) -> None:
    """One run, shown as it goes."""
    from recuerdo.workbench.running import Finished, as_data
    from recuerdo.workbench.running import train as run

    quiet = _rank() > 0
    last: Any = None
    try:
        with (
            terminated_as_stopped(),
            closing(run(recipe, folder, seed=seed)) as events,
            live(recipe.steps, folder, as_json or quiet) as show,
        ):
            for event in events:
                last = event
                if as_json and not quiet:
                    print(json.dumps(as_data(event)), flush=True)
                show(event)
    except KeyboardInterrupt:
        if not quiet:
            print(_stopped(folder), file=sys.stderr)
        raise typer.Exit(130) from None
    if isinstance(last, Finished) and not as_json and not quiet:
        spent = f"{_clock(last.seconds)}, {_clock(last.cpu_seconds)} of processors"
        print(f"{folder}: best after step {last.best} ({_numbers(last.numbers)}); {spent}")
        print(f"next: recuerdo evaluate {folder}")


@contextmanager
def terminated_as_stopped() -> Iterator[None]:
    """Inside the block SIGTERM, which a machine that goes down sends, is a Ctrl-C: the last whole step is saved."""

    def stop(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():  # only that one hears signals
        yield
        return
    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def live(steps: int, folder: Path, silent: bool) -> Iterator[Callable[[Any], None]]:
    """Yields what shows an event: a live line on a terminal, a line for each check elsewhere."""
    if silent:
        yield lambda event: None
        return
    from recuerdo.workbench.running import Checked, Started, Step

    if not sys.stderr.isatty():

        def plain(event: Any) -> None:
            if isinstance(event, Checked):
                print(f"step {event.number} of {steps}: {_numbers(event.numbers)}", file=sys.stderr, flush=True)
            elif isinstance(event, Started):
                print(_opening(event), file=sys.stderr, flush=True)

        yield plain
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, TextColumn, TimeRemainingColumn
    from rich.text import Text

    class Speed(ProgressColumn):
        def render(self, task: Any) -> Text:
            return Text(f"{task.speed:.3g} steps/s" if task.speed else "")

    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"), BarColumn(None), MofNCompleteColumn(), TextColumn("loss {task.fields[loss]}"),
        Speed(), TextColumn("left"), TimeRemainingColumn(compact=True), TextColumn("{task.fields[check]}"),
    )  # fmt: skip
    with Progress(*columns, console=console, transient=True, refresh_per_second=4) as bars:
        task = bars.add_task(folder.name, total=steps, loss="…", check="")

        def live(event: Any) -> None:
            if isinstance(event, Started):
                console.print(_opening(event), highlight=False)
                bars.reset(task, completed=event.number)  # steps made long ago say nothing about the speed
            elif isinstance(event, Step):
                bars.update(task, completed=event.number, loss=f"{event.loss:.4g}")
            elif isinstance(event, Checked):
                bars.update(task, check=f"[{event.number}: {_numbers(event.numbers, 2)}]")
                console.print(f"step {event.number}: {_numbers(event.numbers)}", highlight=False)

        yield live


def _stopped(folder: Path) -> str:
    """What to say after Ctrl-C: how far it is, and how to go on."""
    from recuerdo.workbench.runfolder import read_card

    steps = read_card(folder).get("steps", 0)
    if not steps:
        return "\nstopped before the first step"
    return f"\nstopped after step {steps}, which is saved; go on with: recuerdo train {folder}"


def _opening(event: Any) -> str:
    goes_on = f"{event.steps} steps"
    if event.number:
        goes_on = f"goes on after step {event.number}" if event.number < event.steps else "all steps are made"
    first = f"; first {event.sees} looks at all pictures, which takes minutes" if event.sees else ""
    return f"{event.folder}: {event.parameters:,} parameters, seed {event.seed}, {goes_on}{first}"


def _numbers(numbers: dict[str, float], most: int = 4) -> str:
    return ", ".join(f"{name} {value:.4g}" for name, value in list(numbers.items())[:most])


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{minutes} min {rest} s"


def _rank() -> int:
    import os

    return int(os.environ.get("RANK", "0"))


def seeds_of(text: str) -> list[int]:
    """The seeds of "0-9" or "1,5,7-8". Raises InputError."""
    found: list[int] = []
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d+)(?:-(\d+))?\s*", part)
        if match is None or int(match[2] or match[1]) < int(match[1]):
            raise InputError(f"{text!r} are no seeds: write them like 0-9 or 1,5,7")
        found += range(int(match[1]), int(match[2] or match[1]) + 1)
    return list(dict.fromkeys(found))


def show_summary(told: dict[str, Any]) -> None:
    """Print several seeds: the best by validation, and mean and standard deviation over all."""
    from rich.console import Console
    from rich.table import Table

    chosen = {"validation": told["best_by_validation"], "training loss": told["best_by_training_loss"]}
    for split in ("valid", "test"):
        if split not in told:
            continue
        table = Table(box=None, pad_edge=False, title=split, title_justify="left")
        titles = [f"best by {by}: seed {best['seed']}" for by, best in chosen.items()]
        for title in ("", *titles, f"mean of {len(told['seeds'])} seeds", "± sd"):
            table.add_column(title, justify="right" if title else "left")
        for name, spread in told[split].items():
            numbers = (*(best[split][name] for best in chosen.values()), spread["mean"], spread["sd"])
            table.add_row(name, *("" if number is None else f"{number:.4g}" for number in numbers))
        Console(highlight=False).print(table)
