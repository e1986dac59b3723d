"""`recuerdo profile`: learn which heads to steer, and how strongly, from marks with wanted answers."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from recuerdo.cli.progress import progress_bar
from recuerdo.errors import InputError

EXAMPLES = """Examples:

`recuerdo profile facts`

`recuerdo profile facts --journal lessons.jsonl --steps 60`

`recuerdo steer -f text.txt -q "Who?" --boost "the words" --profile facts`
"""


def profile(
    name: Annotated[str, typer.Argument(help="The name to keep it under.")],
    model: Annotated[str, typer.Option("--model", "-m", help="The language model that it is for.")] = "smollm2",
    journal: Annotated[
        Path | None, typer.Option("--journal", help="The journal with marks and wanted answers; default: your own.")
    ] = None,
    steps: Annotated[int, typer.Option("--steps", min=1, help="Steps of the descent, four examples each.")] = 40,
    every_row: Annotated[
        bool, typer.Option("--all-queries", help="Bend all rows, not only those behind the document.")
    ] = False,
    seed: Annotated[int, typer.Option("--seed", help="Which examples are held out, and their order.")] = 0,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="A folder for NAME.json instead of the folder of profiles.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the profile as JSON.")] = False,
) -> None:
    """Learn a strength for every head, so that marks bring about the answers that were wanted.

    Takes the feedback that has wanted answers (`recuerdo steer … --keep --answer "…"`); ten alike are a good start.
    """
    from recuerdo.steer.journal import Journal

    if out is not None and out.exists() and not out.is_dir():
        raise InputError(f"{out} is a file: --out names a folder for {name}.json")
    found = list(Journal(journal))
    if not any(one.answer and one.marks for one in found):
        raise InputError("no feedback has marks and a wanted answer: keep some with `recuerdo steer … --keep --answer`")
    with progress_bar() as report:
        from recuerdo.workbench.looking import load
        from recuerdo.workbench.profiling import learn_profile

        learned = learn_profile(
            load(model, progress=report), found, name, steps=steps, seed=seed,
            queries="all" if every_row else "after", progress=report,
        )  # fmt: skip
    learned = replace(learned, note=f"learned by `recuerdo profile {name}`")
    path = learned.save(out)
    if as_json:
        print(json.dumps(learned.as_data() | {"file": str(path)}, ensure_ascii=False))
        return
    print(f"{path}: {len(learned.heads)} heads, odds of marked words x{learned.amount:.3g} on average")
    for what, value in learned.scores.items():
        print(f"  wanted answers, {what}: {100 * value:.1f} % a token")
    print(f"use it: recuerdo steer … --profile {path if out else name}")
