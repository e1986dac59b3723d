"""`recuerdo remember`: keep texts in a memory. `recuerdo ask`: which of them answers?"""

import json
import shlex
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from recuerdo.cli.options import HERE, AsJson, By, MemoryAt, Tags
from recuerdo.cli.shown import day, line
from recuerdo.errors import InputError

if TYPE_CHECKING:
    from recuerdo.workbench.answering import Answered
    from recuerdo.workbench.remembering import Asked, Memory

LINE, INDENT = 100, " " * 9
REMEMBER = """Examples:

`recuerdo remember notes.txt`

`recuerdo remember papers/ --tag reading --memory papers.db`

`echo "Bob has the key of the library." | recuerdo remember -`
"""
ASK = """Examples:

`recuerdo ask "Who has the key?"`

`recuerdo ask "Who has the key?" --tag town --top 3 --json`

`recuerdo ask "Who has the key?" --hops 2 --html answer.html`

`recuerdo ask "Who has the key?" --answer`
"""


def remember(
    files: Annotated[
        list[Path],
        typer.Argument(help="Files (txt, md, html, pdf, docx, csv, jsonl), folders of them, or - for standard input."),
    ],
    memory: MemoryAt = HERE,
    tag: Annotated[list[str] | None, typer.Option("--tag", help="A tag to find the texts by (repeatable).")] = None,
    author: Annotated[str, typer.Option("--author", help="Who says so.")] = "",
    encoder: Annotated[str, typer.Option("--encoder", help="The encoder of a new memory (default: minilm).")] = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, one object a file.")] = False,
) -> None:
    """Keep texts in a memory, passage by passage. What is there already from the same file is not kept twice."""
    from recuerdo.cli.progress import progress_bar
    from recuerdo.data.documents import READERS, files_below
    from recuerdo.workbench.remembering import Memory

    found = [file for one in files for file in (files_below(one) if one.is_dir() else [one])]
    if not found:
        raise InputError(
            f"there is no file of a kind that can be read in {', '.join(map(str, files))}: {', '.join(READERS)}"
        )
    failed = 0
    with progress_bar() as report, Memory(memory, encoder=encoder, progress=report) as kept:
        for file in found:
            try:
                if str(file) == "-":
                    told = kept.remember(sys.stdin.read(), tags=tag or (), author=author, step=report)
                else:
                    told = kept.remember_file(file, tags=tag or (), author=author, step=report)
            except InputError as error:
                if len(found) == 1:
                    raise
                failed += 1  # one bad file of a folder does not stop the others
                print(f"recuerdo: {line(str(error))}", file=sys.stderr)
                continue
            name = "" if str(file) == "-" else str(file)
            if as_json:
                print(json.dumps({"source": name, "ids": told.ids, "known": told.known, "same": told.same}))
            else:
                same = f", {len(told.same)} of them said by another row already (linked)" if told.same else ""
                known = f"; {told.known} were there" if told.known else ""
                print(f"{line(name) or 'standard input'}: {len(told.ids)} passages kept{same}{known}")
    if failed:
        raise typer.Exit(1)


def ask(
    question: Annotated[str, typer.Argument(help="The question.")],
    memory: MemoryAt = HERE,
    top: Annotated[int, typer.Option("--top", min=1, help="So many episodes.")] = 5,
    hops: Annotated[int, typer.Option("--hops", min=1, help="Read so often; each look moves the question on.")] = 1,
    further: Annotated[str, typer.Option("--further", help="A run of the task find: where further hops look.")] = "",
    tag: Tags = None,
    author: By = None,
    words: Annotated[float, typer.Option("--words", help="Weight of shared words beside meaning; 0 = none.")] = 0.6,
    approximate: Annotated[
        bool, typer.Option("--approximate", help="Look where the index says (`recuerdo memories index` makes it).")
    ] = False,
    html: Annotated[Path | None, typer.Option("--html", help="Write a page of the answer.")] = None,
    answers: Annotated[bool, typer.Option("--answer", help="Let a language model answer from the episodes.")] = False,
    model: Annotated[str, typer.Option("--model", help="The language model that answers.")] = "smollm2",
    follow: Annotated[
        bool | None,
        typer.Option(
            "--follow/--plain",
            help="The answer reads as the memory weighs, hands too (the default).",
            show_default=False,
        ),
    ] = None,
    least: Annotated[float | None, typer.Option("--least", help="Below it a question is not in memory.")] = None,
    as_json: AsJson = False,
) -> None:
    """Which episodes answer a question: with their weights, and how much was not looked at."""
    from recuerdo.cli.progress import progress_bar
    from recuerdo.store.near import Near
    from recuerdo.store.record import Where
    from recuerdo.workbench.remembering import Memory

    where = Where(tags=tuple(tag or ()), author=author) if tag or author is not None else None
    if html is not None and (html.suffix.lower() not in (".html", ".htm") or not html.parent.is_dir()):
        raise InputError(f"{html} cannot be written: name a .html file in a folder that is there")
    if not answers and (follow is not None or least is not None):
        raise InputError("--follow, --plain and --least are about an answer: add --answer")
    opened = {"further": further, "make": False, "approximate": Near() if approximate else None}
    with progress_bar() as report, Memory(memory, **opened, progress=report) as kept:
        told = kept.ask(question, top=top, hops=hops, where=where, words=words)
        said = _answered(kept, told, model, follow is not False, least, report) if answers else None
    if html is not None:
        from recuerdo.explain.render.asked import write_asked

        # The page may be passed on, and an address may hold a password: what is shown is the name.
        command = shlex.join(["recuerdo", *(word.replace(memory, kept.name) for word in sys.argv[1:])])
        write_asked(told.as_json(), html, memory=kept.name, command=command)
        print(f"wrote {html}", file=sys.stderr)
    if as_json:
        print(json.dumps((said or told).as_json(), ensure_ascii=False))
        return
    if said is not None:
        _print_answer(said)
    for number, hop in enumerate(told.hops, 1):
        if len(told.hops) > 1:
            print(f"hop {number}")
        for one in hop:
            when = day(one.record.time)
            about = "  ".join(filter(None, [f"#{one.record.id}", one.source, when, _hand(one.record.bias)]))
            same = f"  also #{', #'.join(map(str, one.also))}" if one.also else ""
            print(f"{100 * one.weight:5.1f} %  {about}{same}")
            text, sentence = (line(part) for part in (one.record.text, one.sentence))
            marked = text.replace(sentence, f"▸{sentence}◂", 1)
            print(textwrap.fill(marked, LINE, initial_indent=INDENT, subsequent_indent=INDENT))
    if not any(told.hops):
        print("nothing is there to be read")
        return
    at_least = "at least " if told.looked < told.addressed else ""
    if approximate and not at_least:
        why = "few rows, a filter, or no index that helps (`recuerdo memories index` makes one)"
        print(f"recuerdo: all rows were read in spite of --approximate: {why}", file=sys.stderr)
    print(
        f"these hold {at_least}{100 * told.covered:.1f} % of the attention; "
        f"{told.looked} of {told.addressed} rows were looked at"
    )


def _answered(
    kept: "Memory", told: "Asked", model: str, follow: bool, least: float | None, report: Callable[..., None]
) -> "Answered":
    from recuerdo.workbench.answering import LEAST, answer_from

    return answer_from(kept, told, model=model, follow=follow, least=LEAST if least is None else least, progress=report)


def _print_answer(said: "Answered") -> None:
    sure = f"sure {said.sure:.2f}, and {said.least:.2f} is needed"
    if not said.known:
        print(f"not in memory ({sure}); these are the nearest:\n")
        return
    print(line(said.answer) or f"{said.model} said nothing")
    cited = said.cited
    if cited is None:
        print(f"{INDENT}the answer read no episode more than other words do ({sure})\n")
        return
    same = "the memory found it best, too" if said.agrees else f"the memory found #{said.told[0].id} best"
    numbers = f"{100 * cited.read:.0f} % of what it read beyond the usual, {100 * cited.raw:.1f} % of all it read"
    for part in (
        f"the answer read #{cited.id} ({numbers}); {same}",
        f"▸{line(cited.sentence)}◂",
        f"by {said.model}{', following the weights' if said.followed else ''}; {sure}",
    ):
        print(textwrap.fill(part, LINE, initial_indent=INDENT, subsequent_indent=INDENT))
    print()


def _hand(bias: float) -> str:
    return "" if not bias else f"bias {bias:+g}"
