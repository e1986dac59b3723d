"""`recuerdo evaluate`: how good is what a run has learned?"""

import json
from pathlib import Path
from typing import Annotated

import typer

from recuerdo.errors import InputError

EXAMPLES = """Examples:

`recuerdo evaluate runs/babi-1k-memn2n/seed-0`

`recuerdo evaluate runs/babi-1k-memn2n` takes every seed, and gives best, mean and standard deviation.

`recuerdo evaluate runs/babi-1k-memn2n/seed-0 --split valid --truth --json`

`recuerdo evaluate runs/multi30k-en-fr --by-length --beside runs/multi30k-en-fr-rnn --plot lengths.svg`
"""


def evaluate(
    run: Annotated[
        Path, typer.Argument(help="The folder of a run or of several seeds, or a model that comes with recuerdo.")
    ],
    split: Annotated[str, typer.Option("--split", help="test or valid.")] = "test",
    truth: Annotated[
        bool, typer.Option("--truth", help="Compare what the model read with what it should have read.")
    ] = False,
    last: Annotated[bool, typer.Option("--last", help="The last parameters, not those of the best check.")] = False,
    by_length: Annotated[
        bool, typer.Option("--by-length", help="Part the pairs of a translator by how many words the source has.")
    ] = False,
    beside: Annotated[
        list[Path] | None, typer.Option("--beside", help="For --by-length: another run to compare (repeatable).")
    ] = None,
    plot: Annotated[
        Path | None, typer.Option("--plot", help="For --by-length: draw the curves as a .svg or .png file.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the numbers as JSON.")] = False,
) -> None:
    """Measure a trained model on data that it was not trained on; the run's card keeps the numbers."""
    from recuerdo.workbench.runfolder import find_run, read_card, seeds_of, summary
    from recuerdo.workbench.running import evaluate as measure

    which = "last" if last else "best"
    if by_length:
        if truth:
            raise InputError("--by-length and --truth are two questions: ask one at a time")
        _by_length([run, *(beside or [])], split, which, plot, as_json=as_json)
        return
    if beside or plot is not None:
        raise InputError("--beside and --plot belong to --by-length: give that too")
    several = seeds_of(run)
    found = {str(one): measure(one, split, which=which, truth=truth) for one in several or [run]}
    if not several:
        numbers = found[str(run)]
        if not numbers and not as_json:
            print("there is nothing to compare: train it further, until it answers right")
            return
        if as_json:
            print(json.dumps(numbers))
            return
        print("\n".join(f"{name}  {value:.4g}" for name, value in numbers.items()))
        judges = {} if truth else read_card(find_run(run)).get("judged_by", {})
        for name, signature in judges.items():
            print(f"{name}: {signature}")
        return
    if truth:
        print(json.dumps(found) if as_json else "\n".join(f"{name}: {numbers}" for name, numbers in found.items()))
        return
    told = summary(run)
    if as_json:
        print(json.dumps(told))
        return
    from recuerdo.cli.train import show_summary

    show_summary(told)


def _by_length(runs: list[Path], split: str, which: str, plot: Path | None, *, as_json: bool) -> None:
    """A row for each group of lengths, a column for each run."""
    from recuerdo.cli.progress import progress_bar
    from recuerdo.explain.render.curves import check_curves, write_curves
    from recuerdo.workbench.saying import by_length

    if plot is not None:
        check_curves(plot)
    found = {}
    with progress_bar() as report:
        for number, run in enumerate(runs):
            report("runs", number, len(runs))
            found[str(run)] = by_length(run, split, which=which)
    groups = [[(row["from"], row["to"], row["pairs"]) for row in rows] for rows in found.values()]
    if any(one != groups[0] for one in groups):
        raise InputError("these runs are judged on other pairs: compare runs of one data set and direction")
    if plot is not None:
        ticks = [f"{first}-{last}" if last else f"{first} or more" for first, last, _ in groups[0]]
        scores = {name: [row["BLEU"] for row in rows] for name, rows in found.items()}
        write_curves(scores, ticks, plot, along="words of the source", score="BLEU")
    if as_json:
        print(json.dumps(found))
        return
    print("words      pairs  " + "  ".join(found))
    for i, (first, last, pairs) in enumerate(groups[0]):
        cells = "  ".join(f"{rows[i]['BLEU']:{len(name)}.2f}" for name, rows in found.items())
        print(f"{f'{first}-{last}' if last else f'{first}-':9}  {pairs:5}  {cells}")
