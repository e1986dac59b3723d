"""`recuerdo steer`: tell a model where to look, and see before, after and what it cost."""

import json
import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from recuerdo.cli.look import some_words, words_of, writable
from recuerdo.cli.options import Out, Question, Text, TextFile
from recuerdo.cli.progress import progress_bar
from recuerdo.errors import InputError, MarkError

EXAMPLES = """Examples:

`recuerdo steer -f report.txt -q "Who signed it?" --boost "signed by the treasurer" --by 8 --out page.html`

`recuerdo steer -t "It was red. *Now it is blue.*" -q "What colour is it?" --markup`

`recuerdo steer -f a.txt -q "When?" --share "in 1974" --give 0.3 --layers 10-23 --keep --reason "the date is here"`

`recuerdo steer -f a.txt -q "When?" --boost "in 1974" --dose 2,4,8,16,32`
"""


def steer(
    model: Annotated[
        str, typer.Option("--model", "-m", help="A language model: a name, a folder, a hub id.")
    ] = "smollm2",
    text: Text = None,
    text_file: TextFile = None,
    question: Question = None,
    generate: Annotated[int, typer.Option("--generate", "-n", min=1, help="Tokens to generate, at most.")] = 32,
    boost: Annotated[list[str] | None, typer.Option("--boost", help="Words to look at more (repeatable).")] = None,
    damp: Annotated[list[str] | None, typer.Option("--damp", help="Words to look at less (repeatable).")] = None,
    share: Annotated[
        list[str] | None, typer.Option("--share", help="Words to get an exact share of each read (repeatable).")
    ] = None,
    mute: Annotated[
        list[str] | None, typer.Option("--mute", help="Words to take out of all reads (repeatable).")
    ] = None,
    by: Annotated[
        float, typer.Option("--by", help="Boost multiplies the odds by this, damp divides them by it.")
    ] = 4.0,
    give: Annotated[float, typer.Option("--give", help="The share that --share gives, 0 to 1.")] = 0.3,
    every: Annotated[bool, typer.Option("--every", help="Mark every place where the words stand.")] = False,
    markup: Annotated[
        bool, typer.Option("--markup", help="Read *words* and (words:1.3) in the text as marks.")
    ] = False,
    marks: Annotated[
        Path | None, typer.Option("--marks", help="A JSON file of marks (what `recuerdo marks export` writes).")
    ] = None,
    layers: Annotated[str | None, typer.Option("--layers", help="Only these layers, such as 10-23 or 4,8,-1.")] = None,
    profile: Annotated[
        str | None, typer.Option("--profile", help="Heads and strength of a saved profile (a name or a file).")
    ] = None,
    gate: Annotated[
        float | None,
        typer.Option("--gate", help="Only tokens that the unsteered model finds so plausible, 0 to 1 (0.1 is gentle)."),
    ] = None,
    dose: Annotated[
        str | None, typer.Option("--dose", help="Several strengths, such as 2,4,8: the answer at each.")
    ] = None,
    keep: Annotated[bool, typer.Option("--keep", help="Keep the marks in the feedback journal.")] = False,
    answer: Annotated[
        str | None, typer.Option("--answer", help="With --keep: the wanted answer (default: none is kept).")
    ] = None,
    author: Annotated[str, typer.Option("--author", help="Who marks.")] = "",
    reason: Annotated[str, typer.Option("--reason", help="Why.")] = "",
    journal: Annotated[Path | None, typer.Option("--journal", help="Another journal than the usual one.")] = None,
    out: Out = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print it as JSON.")] = False,
) -> None:
    """Mark words of a text, ask, and see the answer before and after, what moved, and the guard rails."""
    words = words_of(text, text_file)
    if question is not None:
        some_words(question, "--question")
    if out is not None:
        writable(out)
    if answer is not None and not keep:
        raise InputError("--answer is for feedback that is kept: add --keep")
    doses = _numbers(dose)
    asked = {"boost": boost, "damp": damp, "share": share, "mute": mute}
    words, wanted = _wishes(words, asked, {"boost": by, "damp": by, "share": give}, every, markup, marks)
    with progress_bar() as report:
        from dataclasses import replace

        from recuerdo.steer.profiles import load_profile
        from recuerdo.workbench.steering import ask_steered, dose_curve

        chosen = load_profile(profile) if profile else None
        scope = layers_of(layers)
        found = [replace(mark, scope=replace(mark.scope, layers=scope)) if scope else mark for mark in wanted]
        found = [replace(mark, author=author or mark.author, reason=reason or mark.reason).dated() for mark in found]
        found = [chosen.mark(mark) for mark in found] if chosen else found
        taken = ask_steered(
            model, words, found, question=question, generate=generate, gate=gate, profile=chosen, progress=report
        )
        rows = dose_curve(taken, doses, generate=generate, profile=chosen) if doses else []
    seen = taken.after.evidence
    seen.command = shlex.join(["recuerdo", *sys.argv[1:]])
    data = taken.as_data() | ({"dose": rows} if rows else {})
    if keep:
        from recuerdo.steer.journal import Journal

        data["kept"] = _keep(taken, words, model, answer, Journal(journal))
    from recuerdo.explain import render

    if out is not None:
        render.write(seen, out)
        print(f"wrote {out} ({out.stat().st_size / 1e6:.2f} MB)", file=sys.stderr if as_json else sys.stdout)
    if as_json:
        print(json.dumps(data, ensure_ascii=False))
        return
    if out is None:
        render.show(seen)
    _show_dose(rows)
    if keep:
        print(f"kept as {data['kept']}: `recuerdo marks show {data['kept']}`, `recuerdo teach`")


def _wishes(words: str, asked: dict, amounts: dict, every: bool, markup: bool, file: Path | None):
    """The text without its markup, and all marks that were asked for."""
    from recuerdo.steer.marks import Mark, read_marks
    from recuerdo.steer.markup import parse_markup
    from recuerdo.steer.places import Quote

    found = []
    if markup:
        words, written = parse_markup(words)
        found += written
    for action, quotes in asked.items():
        amount = amounts.get(action)
        if action == "damp" and amount:
            amount = 1 / amount
        found += [Mark(_quote(quote, every, Quote), action, amount) for quote in quotes or ()]
    if file is not None:
        found += read_marks(file)
    if not found:
        raise MarkError("nothing is marked: pass --boost, --damp, --share or --mute with words of the text, or --marks")
    return words, found


def _quote(quote: str, every: bool, made):
    """`words#2` is the second place where the words stand."""
    head, mark, number = quote.rpartition("#")
    if mark and head.strip() and number.isdigit():
        return made(head, occurrence=int(number))
    return made(quote, every=every)


def layers_of(told: str | None) -> tuple[int, ...] | None:
    """Layers from words such as 10-23 or 4,8,-1."""
    if told is None:
        return None
    from recuerdo.steer.places import MOST

    found: list[int] = []
    try:
        for part in told.split(","):
            first, dash, last = part.strip().partition("-") if not part.strip().startswith("-") else (part, "", "")
            named = range(int(first), int(last) + 1) if dash else [int(first)]
            found += named[: MOST + 1]  # more are refused where the scope is made
    except ValueError:
        found = []
    if not found:
        raise InputError(f"{told!r} are no layers: write them like 10-23 or 4,8,-1")
    return tuple(found)


def _numbers(told: str | None) -> list[float]:
    try:
        return [float(part) for part in told.split(",")] if told else []
    except ValueError:
        raise InputError(f"{told!r} are no strengths: write them like 2,4,8,16") from None


def _keep(taken, words: str, model: str, answer: str | None, journal) -> str:
    """The steered question in the journal; its id."""
    from recuerdo.steer.journal import Feedback

    rails = taken.guard
    mark = taken.marks[0]
    return journal.add(
        Feedback(
            marks=taken.marks,
            text=words,
            question=taken.after.evidence.question,
            answer=answer,
            model=model,
            author=mark.author,
            date=mark.date,
            reason=mark.reason,
            before={"mass": rails.mass[0]},
            after={"mass": rails.mass[1], "kl": rails.kl},
        )
    )


def _show_dose(rows: list[dict]) -> None:
    if not rows:
        return
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for title in ("strength", "marked", "nats", "plausible", "fluency", "answer"):
        table.add_column(title, justify="left" if title == "answer" else "right")
    for row in rows:
        warned = "[yellow]![/] " if row["warnings"] else ""
        table.add_row(
            f"{row['amount']:g}",
            f"{100 * row['mass'][1]:.1f} %",
            f"{row['kl']:.2f}",
            f"{100 * row['plausible']:.0f} %",
            f"{row['fluency'][1]:.2f}",
            warned + escape(" ".join(row["answer"].split())[:90]),
        )
    Console(highlight=False).print(table)
