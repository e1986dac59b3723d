"""A memory in `recuerdo demo`: documents are kept, asked, corrected and forgotten, to the last byte."""

import shutil
import tempfile
import textwrap
from importlib.resources import as_file, files
from pathlib import Path
from typing import TYPE_CHECKING

from recuerdo.cli.progress import progress_bar

if TYPE_CHECKING:
    from rich.console import Console

    from recuerdo.workbench.remembering import Asked, Memory

QUESTION = "Who looks after the light at night?"
NAME = "Halloway"
NEW = "The keeper is Tomas Brandt, who lights the lamp at dusk. Ingrid Halloway has retired."
LINE = 100


def remembered(console: "Console") -> None:
    """Documents of a small town go into a memory; what is asked, corrected and erased is printed."""
    from recuerdo.data.documents import files_below
    from recuerdo.workbench.remembering import Memory

    folder = Path(tempfile.mkdtemp(prefix="recuerdo-"))
    try:
        with (
            progress_bar() as report,
            as_file(files("recuerdo.cli").joinpath("texts/vell")) as town,
            Memory(folder / "vell.db", progress=report) as memory,
        ):
            kept = [(file.name, memory.remember_file(Path(file.name), folder=town).ids) for file in files_below(town)]
            rows = sum(len(ids) for _, ids in kept)
            console.print(
                f"\n[bold]7[/]  A memory that lasts. {len(kept)} documents of a town are {rows} passages in one file."
                f"\n    A question reads them by attention:\n\n    [italic]{QUESTION}[/]\n"
            )
            _scene(console, memory, folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _scene(console: "Console", memory: "Memory", folder: Path) -> None:
    asked = memory.ask(QUESTION, top=3)
    _show(console, asked)
    row = asked.hops[0][0].record.id
    memory.correct(row, NEW, reason="new keeper")
    console.print(f"\n    A hand corrects [bold]#{row}[/], and the same question is asked again:\n")
    _show(console, memory.ask(QUESTION, top=1))
    before, size = _holding(folder)
    receipt = memory.forget([row], reason="asked to")
    after, _ = _holding(folder)
    console.print(
        f"\n    [bold]#{row}[/] is forgotten, all {receipt.versions} versions. “{NAME}” stood {before} times in the "
        f"{size / 1e3:.0f} kB of the memory's files;\n    now it stands there [bold]{after}[/] times. "
        "[dim]Every byte of the folder was read.[/]"
    )


def _show(console: "Console", asked: "Asked") -> None:
    for one in asked.hops[0]:
        bar = "█" * round(12 * one.weight)
        console.print(f"    {100 * one.weight:5.1f} % [red]{bar:12}[/]  [bold]#{one.record.id}[/] [dim]{one.source}[/]")
        text = textwrap.shorten(" ".join(one.sentence.split()), LINE, placeholder=" …")
        console.print(f"        {text}", markup=False)
    share = f"{100 * asked.covered:.0f} % of the attention is shown"
    console.print(f"    [dim]{share}; {asked.looked} of {asked.addressed} rows were looked at[/]")


def _holding(folder: Path) -> tuple[int, int]:
    """How often the name stands in the files of a folder, and how many bytes these have."""
    held = [file.read_bytes() for file in folder.rglob("*") if file.is_file()]
    return sum(data.lower().count(NAME.lower().encode()) for data in held), sum(map(len, held))
