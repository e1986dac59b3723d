"""`recuerdo truth`: how far can a map be trusted?"""

import json
import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from recuerdo.cli.look import some_words, words_of, writable
from recuerdo.cli.options import Question, Text, TextFile
from recuerdo.cli.progress import progress_bar
from recuerdo.errors import InputError

EXAMPLES = """Examples:

`recuerdo truth -f report.txt -q "Who signed it?"`

`recuerdo truth -f report.txt -q "Who signed it?" --gold "signed by the treasurer" --sanity --out page.html`

`recuerdo truth --model minilm -t "She lit the match." --methods lift,raw,ig --json`
"""


def truth(
    model: Annotated[str, typer.Option("--model", "-m", help="A language model or an encoder.")] = "smollm2",
    text: Text = None,
    text_file: TextFile = None,
    question: Question = None,
    generate: Annotated[
        int | None, typer.Option("--generate", "-n", min=1, help="Tokens to generate, at most (with a question: 32).")
    ] = None,
    methods: Annotated[
        str | None,
        typer.Option("--methods", help="Some of lift, aside, raw, value, rollout, gradient, input, ig; default: all."),
    ] = None,
    removal: Annotated[
        str, typer.Option("--removal", help="Take words out of the reads (keys), replace them (input), or both.")
    ] = "keys",
    units: Annotated[
        str, typer.Option("--units", help="Take away words, phrases or sentences; auto goes by the length.")
    ] = "auto",
    gold: Annotated[
        str | None, typer.Option("--gold", help="The words that hold the evidence: agreement with them, too.")
    ] = None,
    sanity: Annotated[
        bool, typer.Option("--sanity", help="Also: do the maps change when the model's layers are randomised?")
    ] = False,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Write the look with its scores (.html, .json).")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print all curves and scores as JSON.")] = False,
) -> None:
    """Judge the maps of a look: does the answer fall when the words that a map shows are taken away?

    0 is chance (a random order of words), 100 the best order that the model itself could find. A map that cannot be
    told from chance is called decoration.
    """
    words = words_of(text, text_file)
    if question is not None:
        some_words(question, "--question")
    if out is not None:
        writable(out)
    removals = ("keys", "input") if removal == "both" else (removal,)
    with progress_bar() as report:
        from recuerdo.workbench.looking import look
        from recuerdo.workbench.trusting import METHODS, trust

        wanted = methods.split(",") if methods else None
        for name in wanted or ():
            if name not in METHODS:
                raise InputError(f"there is no method {name!r}: choose {', '.join(METHODS[:-1])} or {METHODS[-1]}")
        taken = look(model, words, question=question, generate=generate, progress=report)
        found = trust(taken, methods=wanted, removals=removals, units=units, gold=gold, sanity=sanity, progress=report)
    seen = taken.evidence
    seen.command = shlex.join(["recuerdo", *sys.argv[1:]])
    if out is not None:
        from recuerdo.explain import render

        render.write(seen, out)
        print(f"wrote {out} ({out.stat().st_size / 1e6:.2f} MB)", file=sys.stderr if as_json else sys.stdout)
    if as_json:
        print(json.dumps(found.as_data() | {"answer": taken.heard.answer}, ensure_ascii=False))
    else:
        _show(found, taken)


def _show(found, taken) -> None:
    """The table of methods, for each way of taking words away."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    console = Console(highlight=False)
    labels = {t.view: t.label for t in taken.evidence.trust}
    if taken.heard.answer:
        console.print(f"[bold]{escape(taken.heard.answer.strip())}[/]")
    how_many = f"{found.count} {found.units}"
    for how, truths in found.truths.items():
        what = "taken out of every read" if how == "keys" else "replaced in the input"
        console.print(f"\n[dim]{how_many}, {what}: truth score, 0 = chance, 100 = the best order found[/]")
        table = Table(box=None, pad_edge=False)
        for title in ("map", "needed", "95 %", "enough", "verdict"):
            table.add_column(title, justify="left" if title in ("map", "verdict") else "right")
        for name, t in truths.items():
            style = "" if t.verdict == "better than chance" else "yellow"
            table.add_row(
                escape(labels.get(name, name)),
                _number(t.score),
                "" if t.low is None else f"{t.low:.0f} to {t.high:.0f}",
                _number(t.sufficiency.score),
                f"[{style}]{t.verdict}[/]" if style else t.verdict,
            )
        console.print(table)
        reasons = {t.comprehensiveness.reason for t in truths.values()} - {None}
        for reason in sorted(reasons):
            console.print(f"[yellow]{escape(reason)}[/]")
    for name, numbers in found.gold.items():
        told = "  ".join(f"{key} {value:.2f}" for key, value in numbers.items())
        console.print(f"[dim]gold[/] {escape(labels.get(name, name))}: {told}")
    for name, check in found.sanity.items():
        told = ", ".join(f"{step}: {value:.2f}" for step, value in check.correlations.items())
        console.print(f"[dim]randomised[/] {escape(labels.get(name, name))}: {told} [dim]· {escape(check.verdict)}[/]")


def _number(score: float | None) -> str:
    return "none" if score is None else f"{score:.0f}"
