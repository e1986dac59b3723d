"""`recuerdo remember`: keep texts in a memory. `recuerdo ask`: which of them answers?"""

import json
import sys
import textwrap
import time
from collections.abc import Callable, Container
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from recuerdo.cli.shown import shown
from recuerdo.errors import InputError

if TYPE_CHECKING:
    from recuerdo.workbench.answering import Answered
    from recuerdo.workbench.remembering import Asked, Memory

MemoryAt = Annotated[
    Path, typer.Option("--memory", "-m", envvar="RECUERDO_MEMORY", help="The file of the memory.", show_default=True)
]
HERE = Path("memory.db")
LINE, INDENT = 100, " " * 9
REMEMBER = """Examples:

`recuerdo remember notes.txt`

`recuerdo remember papers/ --tag reading --memory papers.db`

`echo "Bob has the key of the library." | recuerdo remember -`
"""
ASK = """Examples:

`recuerdo ask "Who has the key?"`

`recuerdo ask "Who has the key?" --tag town --top 3 --json`

`recuerdo ask "Who has the key?" --answer --follow`
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
    from recuerdo.data.documents import READERS
    from recuerdo.workbench.remembering import Memory

    found = [file for one in files for file in _files(one, READERS)]
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
                print(f"recuerdo: {error}", file=sys.stderr)
                continue
            name = "" if str(file) == "-" else str(file)
            if as_json:
                print(json.dumps({"source": name, "ids": told.ids, "known": told.known, "same": told.same}))
            else:
                same = f", {len(told.same)} of them said by another row already (linked)" if told.same else ""
                known = f"; {told.known} were there" if told.known else ""
                print(f"{name or 'standard input'}: {len(told.ids)} passages kept{same}{known}")
    if failed:
        raise typer.Exit(1)


def ask(
    question: Annotated[str, typer.Argument(help="The question.")],
    memory: MemoryAt = HERE,
    top: Annotated[int, typer.Option("--top", min=1, help="So many episodes.")] = 5,
    hops: Annotated[int, typer.Option("--hops", min=1, help="Read so often; each look moves the question on.")] = 1,
    tag: Annotated[list[str] | None, typer.Option("--tag", help="Only rows with this tag (repeatable).")] = None,
    author: Annotated[str | None, typer.Option("--author", help="Only rows by this author.")] = None,
    words: Annotated[float, typer.Option("--words", help="Weight of shared words beside meaning; 0 = none.")] = 0.6,
    answers: Annotated[bool, typer.Option("--answer", help="Let a language model answer from the episodes.")] = False,
    model: Annotated[str, typer.Option("--model", help="The language model that answers.")] = "smollm2",
    follow: Annotated[bool, typer.Option("--follow", help="The answer reads as the memory weighs, hands too.")] = False,
    least: Annotated[float | None, typer.Option("--least", help="Below it a question is not in memory.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Which episodes answer a question: with their weights, and how much was not looked at."""
    from recuerdo.cli.progress import progress_bar
    from recuerdo.store.record import Where
    from recuerdo.workbench.remembering import Memory

    where = Where(tags=tuple(tag or ()), author=author) if tag or author is not None else None
    if not memory.exists():
        raise InputError(f"there is no memory {memory}: make one with `recuerdo remember FILE --memory {memory}`")
    if not answers and (follow or least is not None):
        raise InputError("--follow and --least are about an answer: add --answer")
    with progress_bar() as report, Memory(memory, progress=report) as kept:
        told = kept.ask(question, top=top, hops=hops, where=where, words=words)
        said = _answered(kept, told, model, follow, least, report) if answers else None
    if as_json:
        print(json.dumps((said or told).as_json(), ensure_ascii=False))
        return
    if said is not None:
        _print_answer(said)
    for number, hop in enumerate(told.hops, 1):
        if len(told.hops) > 1:
            print(f"hop {number}")
        for one in hop:
            when = time.strftime("%Y-%m-%d", time.localtime(one.record.time))
            about = "  ".join(filter(None, [f"#{one.record.id}", one.source, when, _hand(one.record.bias)]))
            same = f"  also #{', #'.join(map(str, one.also))}" if one.also else ""
            print(f"{100 * one.weight:5.1f} %  {about}{same}")
            text, sentence = (" ".join(shown(part).split()) for part in (one.record.text, one.sentence))
            marked = text.replace(sentence, f"▸{sentence}◂", 1)
            print(textwrap.fill(marked, LINE, initial_indent=INDENT, subsequent_indent=INDENT))
    if not any(told.hops):
        print("nothing is there to be read")
        return
    print(
        f"these hold {100 * told.covered:.1f} % of the attention; {told.looked} of {told.addressed} rows were looked at"
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
    print(shown(said.answer) or f"{said.model} said nothing")
    cited = said.cited
    if cited is None:
        print(f"{INDENT}the answer read no episode more than other words do ({sure})\n")
        return
    same = "the memory found it best, too" if said.agrees else f"the memory found #{said.told[0].id} best"
    numbers = f"{100 * cited.read:.0f} % of what it read beyond the usual, {100 * cited.raw:.1f} % of all it read"
    for line in (
        f"the answer read #{cited.id} ({numbers}); {same}",
        f"▸{' '.join(shown(cited.sentence).split())}◂",
        f"by {said.model}{', following the weights' if said.followed else ''}; {sure}",
    ):
        print(textwrap.fill(line, LINE, initial_indent=INDENT, subsequent_indent=INDENT))
    print()


def _hand(bias: float) -> str:
    return "" if not bias else f"bias {bias:+g}"


def _files(path: Path, kinds: Container[str]) -> list[Path]:
    """The file itself, or those of a folder that can be read; nothing that a link leads to outside of the folder."""
    if str(path) == "-":
        return [path]
    if path.is_dir():
        inside = path.resolve()
        files = (file for file in path.rglob("*") if file.is_file() and file.suffix.lower() in kinds)
        return sorted(file for file in files if file.resolve().is_relative_to(inside))
    return [path]
