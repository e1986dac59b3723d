"""`recuerdo marks`: the feedback that was kept, listed, shown, merged and exported."""

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from recuerdo.cli.shown import shown

# The journal is imported inside the verbs: `--help` stays quick.
JournalAt = Annotated[
    Path | None, typer.Option("--journal", help="Another journal than feedback.jsonl in RECUERDO_HOME.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
SkipDamaged = Annotated[bool, typer.Option("--skip-damaged", help="Read on where a line is damaged.")]

app = typer.Typer(
    help="The marks that people kept as feedback: list, show, merge and export them.",
    epilog="Examples:\n\n`recuerdo marks ls`\n\n`recuerdo marks show 3f2a`\n\n`recuerdo marks export ours.jsonl`",
    no_args_is_help=True,
    rich_markup_mode="markdown",
)


@app.command(epilog="Examples:\n\n`recuerdo marks ls`\n\n`recuerdo marks ls --journal theirs.jsonl --json`")
def ls(journal: JournalAt = None, as_json: AsJson = False, skip_damaged: SkipDamaged = False) -> None:
    """List the feedback that was kept, the oldest first."""
    from recuerdo.steer.journal import Journal

    kept = Journal(journal)
    entries = kept.entries(skip_damaged=skip_damaged)
    if as_json:
        rows = [{**entry.to_data(), "text": None, "characters": len(entry.text)} for entry in entries]
        for row in rows:  # a list of whole documents helps nobody: `show` has them
            del row["text"]
        told = {"journal": str(kept.path), "torn": kept.torn, "damaged": kept.damaged, "feedback": rows}
        print(json.dumps(told, ensure_ascii=False))
        return
    _warn(kept)
    if not entries:
        print(f"no feedback is kept in {kept.path} yet")
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False)
    for title in ("id", "date", "author", "model", "question", "marks"):
        table.add_column(title, no_wrap=title in ("id", "date"))
    for entry in entries:
        marks = "\n".join(map(str, entry.marks[:4])) + (f"\n… {len(entry.marks)} in all" if entry.marks[4:] else "")
        cells = (entry.id, entry.date[:10], entry.author, entry.model, entry.question or "", marks)
        table.add_row(*(Text(shown(cell)) for cell in cells))
    Console().print(table)


@app.command(epilog="Example:\n\n`recuerdo marks show 3f2a`")
def show(
    name: Annotated[str, typer.Argument(metavar="ID", help="An id of `recuerdo marks ls`, or the beginning of one.")],
    journal: JournalAt = None,
    as_json: AsJson = False,
    skip_damaged: SkipDamaged = False,
) -> None:
    """Show one feedback: its marks, its words, and who said it."""
    from recuerdo.steer.journal import Journal

    entry = Journal(journal).find(name, skip_damaged=skip_damaged)
    if as_json:
        print(json.dumps(entry.to_data(), ensure_ascii=False))
        return
    said: dict[str, Any] = {
        "id": entry.id,
        "date": entry.date,
        "author": entry.author,
        "model": entry.model,
        "reason": entry.reason,
        "question": entry.question,
        "answer wanted": entry.answer,
        "before": _figures(entry.before),
        "after": _figures(entry.after),
    }
    lines = [f"{title:<14}{value}" for title, value in said.items() if value]
    for mark in entry.marks:
        about = ", ".join(part for part in (mark.author, mark.date, mark.reason) if part)
        lines.append(f"{'mark':<14}{mark}" + (f": {about}" if about else ""))
    print(shown("\n".join([*lines, "", entry.text])))


@app.command(epilog="Example:\n\n`recuerdo marks merge theirs.jsonl more.json`")
def merge(
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="Journals (.jsonl) or exports (.json).")],
    journal: JournalAt = None,
    as_json: AsJson = False,
) -> None:
    """Keep what other journals hold as well; what is known already stays once."""
    from recuerdo.steer.journal import Journal

    counts = Journal(journal).merge(files)
    if as_json:
        print(json.dumps(counts))
        return
    unfinished = f"; {counts['torn']} unfinished set aside" if counts["torn"] else ""
    print(f"added {counts['added']}, known already {counts['known']}{unfinished}")


@app.command(epilog="Examples:\n\n`recuerdo marks export ours.jsonl`\n\n`recuerdo marks export - --json`")
def export(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A new .jsonl or .json file; - = standard output.")],
    journal: JournalAt = None,
    as_json: AsJson = False,
    skip_damaged: SkipDamaged = False,
) -> None:
    """Write all feedback to a file that can be sent and merged elsewhere."""
    from recuerdo.steer.journal import Journal, as_text

    kept = Journal(journal)
    if str(file) == "-":
        text = as_text(kept.entries(skip_damaged=skip_damaged), ".json" if as_json else ".jsonl")
        _warn(kept)
        sys.stdout.write(text)
        return
    count = kept.export(file, skip_damaged=skip_damaged)
    _warn(kept)
    print(json.dumps({"file": str(file), "count": count}) if as_json else f"wrote {count} to {file}")


def _warn(kept: Any) -> None:
    """Say on the error stream what was left out."""
    if kept.torn:
        print(f"recuerdo: {kept.torn} unfinished, never acknowledged, in {kept.path} set aside", file=sys.stderr)
    for why in kept.damaged:
        print(f"recuerdo: skipped {shown(why)}", file=sys.stderr)


def _figures(numbers: dict[str, float] | None) -> str:
    return ", ".join(f"{name} {value:.4g}" for name, value in (numbers or {}).items())
