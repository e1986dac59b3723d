"""`recuerdo evaluate`: how good is what a run has learned?"""

import json
from pathlib import Path
from typing import Annotated

import typer

EXAMPLES = """Examples:

`recuerdo evaluate runs/babi-1k-memn2n/seed-0`

`recuerdo evaluate runs/babi-1k-memn2n` takes every seed, and gives best, mean and standard deviation.

`recuerdo evaluate runs/babi-1k-memn2n/seed-0 --split valid --truth --json`
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
    as_json: Annotated[bool, typer.Option("--json", help="Print the numbers as JSON.")] = False,
) -> None:
    """Measure a trained model on data that it was not trained on; the run's card keeps the numbers."""
    from recuerdo.workbench.runfolder import find_run, read_card, seeds_of, summary
    from recuerdo.workbench.running import evaluate as measure

    which = "last" if last else "best"
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
