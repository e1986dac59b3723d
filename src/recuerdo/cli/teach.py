"""`recuerdo teach`: train a model on the marks and answers that people kept."""

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from recuerdo.cli.progress import progress_bar
from recuerdo.errors import JournalError

EXAMPLES = """Examples:

`recuerdo teach --out taught`, then `recuerdo look --model taught -f report.txt -q "Who signed it?"`

`recuerdo teach --journal ours.jsonl --check 0.25 --json`

`recuerdo teach --only 3f2a --only 77c1 --steps 80 --layers 10-23 --out taught`
"""


def teach(
    model: Annotated[
        str, typer.Option("--model", "-m", help="A language model: a name, a folder, a hub id.")
    ] = "smollm2",
    journal: Annotated[
        Path | None, typer.Option("--journal", help="Another journal than feedback.jsonl in RECUERDO_HOME.")
    ] = None,
    only: Annotated[
        list[str] | None, typer.Option("--only", help="Only the feedback whose id begins so (repeatable).")
    ] = None,
    method: Annotated[
        str, typer.Option("--method", help="lora (adapters in the attention, by peft) or full (all parameters).")
    ] = "lora",
    steps: Annotated[int, typer.Option("--steps", min=1, help="Steps of training.")] = 30,
    rate: Annotated[float | None, typer.Option("--lr", help="Learning rate (lora 2e-3, full 5e-5).")] = None,
    rank: Annotated[int, typer.Option("--rank", min=1, help="Rank of the adapters.")] = 8,
    mass_weight: Annotated[float, typer.Option("--mass-weight", help="What looking at the marks counts.")] = 10.0,
    answer_weight: Annotated[float, typer.Option("--answer-weight", help="What the wanted answers count.")] = 1.0,
    keep_weight: Annotated[float, typer.Option("--keep-weight", help="What staying itself counts.")] = 1.0,
    skip_damaged: Annotated[bool, typer.Option("--skip-damaged", help="Read on where the journal is damaged.")] = False,
    own_answers: Annotated[
        bool, typer.Option("--own-answers", help="Where no answer is wanted, learn what the steered model answers.")
    ] = False,
    layers: Annotated[str | None, typer.Option("--layers", help="Only these layers, such as 10-23 or 4,8.")] = None,
    check: Annotated[
        float, typer.Option("--check", help="The share of the feedback to hold out and measure, such as 0.25.")
    ] = 0.0,
    seed: Annotated[int, typer.Option("--seed", help="Of the order, the adapters and what is held out.")] = 0,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="A new folder for the taught model (default: only measure).")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the numbers as JSON.")] = False,
) -> None:
    """Train a model on the feedback in the journal, and see what changed: looks, answers, damage."""
    from recuerdo.steer.journal import Journal

    kept = Journal(journal)
    found = [kept.find(prefix, skip_damaged=skip_damaged) for prefix in only or ()]
    entries = list(dict.fromkeys(found)) if only else kept.entries(skip_damaged=skip_damaged)
    if not entries:
        raise JournalError(f"no feedback is kept in {kept.path} yet: keep some with `recuerdo steer --keep`")
    with progress_bar() as report:
        from recuerdo.cli.steer import layers_of
        from recuerdo.workbench.teaching import Lesson
        from recuerdo.workbench.teaching import teach as give

        lesson = Lesson(
            method=method,
            steps=steps,
            lr=rate,
            rank=rank,
            mass_weight=mass_weight,
            answer_weight=answer_weight,
            keep_weight=keep_weight,
            layers=layers_of(layers),
            check=check,
            own_answers=own_answers,
            seed=seed,
        )
        taught = give(model, entries, lesson=lesson, out=out, progress=report)
    if as_json:
        print(json.dumps(taught.as_data(), ensure_ascii=False))
        return
    _show(taught)
    if out is not None:
        print(f"\nwrote {taught.folder}: `recuerdo look --model {taught.folder}`")
    elif sys.stdout.isatty():
        print("\nnothing was written: pass --out FOLDER to keep the taught model")


def _show(taught: Any) -> None:
    """A table: what was measured, before, as asked (steered), after; the same for what was held out."""
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for title in ("", "before", "steered", "taught"):
        table.add_column(title, justify="left" if not title else "right", no_wrap=True)
    parts = [(f"{taught.before.texts} taught", taught.before, taught.asked, taught.after)]
    if taught.held_before is not None:
        parts.append((f"{taught.held_before.texts} held out", taught.held_before, taught.held_asked, taught.held_after))
    for title, *numbers in parts:
        table.add_row(title, style="bold")
        for name, label, shown in ROWS:
            cells = [getattr(some, name) for some in numbers]
            if any(cell is not None for cell in cells):
                table.add_row(f"  {label}", *("" if cell is None else shown(cell) for cell in cells))
    table.add_row("elsewhere", style="bold")
    table.add_row("  moved, nats a word", "0.000", "", _nats(taught.elsewhere))
    Console(highlight=False).print(table)


def _percent(value: float) -> str:
    return f"{100 * value:.1f} %"


def _nats(value: float) -> str:
    return f"{max(value, 0.0):.3f}"


def _chance(value: float) -> str:
    from math import exp

    return _percent(exp(value))


ROWS = (
    ("answer_mass", "marked words, read by the answer", _percent),
    ("later_mass", "marked words, read behind the text", _percent),
    ("away_mass", "words marked down, read behind the text", _percent),
    ("log_probability", "wanted answer, chance of a token", _chance),
    ("right", "answers that hold the wanted one", _percent),
    ("damage", "moved, nats a word", _nats),
)
