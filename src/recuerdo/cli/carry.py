"""`recuerdo memories move | export | import | salvage`: a memory from one place to another."""

import json
from pathlib import Path
from typing import Annotated

import typer

from recuerdo.cli.options import HERE, AsJson, MemoryAt

MOVE = """Examples:

`recuerdo memories move notes.db "postgresql://ada@db.example/base?schema=notes"`

`recuerdo memories move notes.db qdrant+https://cluster.example:6333/notes`
"""
EXPORT = """Examples:

`recuerdo memories export notes.jsonl`

`recuerdo memories export notes.parquet --vectors`
"""
SALVAGE = "Example:\n\n`recuerdo memories salvage notes.db new.db`"
IMPORT = "Example:\n\n`recuerdo memories import notes.jsonl --memory other.db`"
NAMED = 5  # rows that are named of many


def move(
    source: Annotated[str, typer.Argument(metavar="FROM", help="The memory: a file, postgresql://…, qdrant+https://…")],
    target: Annotated[str, typer.Argument(metavar="TO", help="Where to: a new place of any of these kinds.")],
    as_json: AsJson = False,
) -> None:
    """Copy a memory to another place, and compare both. The old one stays; a move that was stopped is gone on with."""
    from recuerdo.cli.progress import progress_bar
    from recuerdo.workbench.moving import move as moved
    from recuerdo.workbench.opening import place_of

    with progress_bar() as report:
        told = moved(source, target, step=report)
    if as_json:
        print(json.dumps({**vars(told), "from": place_of(source).name, "to": place_of(target).name}))
        return
    print(
        f"{told.rows:,} rows in {told.versions:,} versions and {told.hands:,} things done by hand are in "
        f"{place_of(target).name}; all were compared with {place_of(source).name}, which stays as it is"
    )


def export(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A .jsonl or .parquet file to write.")],
    memory: MemoryAt = HERE,
    vectors: Annotated[bool, typer.Option("--vectors", help="The vectors of the rows too.")] = False,
    as_json: AsJson = False,
) -> None:
    """Write all rows, with versions, biases, tags, times and what hands did, to a file that others can read."""
    from recuerdo.cli.progress import progress_bar
    from recuerdo.workbench.carrying import export_file
    from recuerdo.workbench.opening import place_of

    with progress_bar() as report:
        told = export_file(memory, file, vectors=vectors, step=report)
    if as_json:
        print(json.dumps({"file": str(file), "rows": told.rows, "vectors": vectors}))
        return
    with_them = "with" if vectors else "without"
    print(f"{told.rows:,} rows of {place_of(memory).name} are in {file}, {with_them} their vectors")


def import_(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A file that `recuerdo memories export` wrote.")],
    memory: MemoryAt = HERE,
    encoder: Annotated[str, typer.Option("--encoder", help="The encoder of a new memory (default: the file's).")] = "",
    as_json: AsJson = False,
) -> None:
    """Keep the rows of an export. Those that are there stay as they are; numbers that are taken are not given twice."""
    from recuerdo.cli.progress import progress_bar
    from recuerdo.workbench.carrying import import_file
    from recuerdo.workbench.opening import place_of

    with progress_bar() as report:
        told = import_file(file, memory, encoder=encoder, step=report, progress=report)
    if as_json:
        print(json.dumps(vars(told)))
        return
    keys = "their vectors were made anew" if told.encoded else "with the vectors of the file"
    print(f"{told.rows:,} rows in {told.versions:,} versions came to {place_of(memory).name}, {keys}")
    if told.known:
        print(f"{told.known:,} were there already, and stay as they are there")
    if told.numbers:
        some = [f"#{old} is #{new}" for old, new in list(told.numbers.items())[:NAMED]]
        more = f" and {len(told.numbers) - NAMED:,} more" if len(told.numbers) > NAMED else ""
        print(f"their numbers were taken: {', '.join(some)}{more}")


def salvage(
    broken: Annotated[Path, typer.Argument(metavar="BROKEN", help="The damaged file of a memory.")],
    target: Annotated[
        str, typer.Argument(metavar="NEW", help="Where to: a new file, postgresql://…, qdrant+https://…")
    ],
    as_json: AsJson = False,
) -> None:
    """Save what can still be read of a damaged memory into a new one, and say what is lost. The file stays as it is."""
    from recuerdo.cli.progress import progress_bar
    from recuerdo.workbench.moving import salvage as salvaged
    from recuerdo.workbench.opening import place_of

    with progress_bar() as report:
        told, lost = salvaged(broken, target, step=report)
    if as_json:
        print(json.dumps({**vars(told), "to": place_of(target).name, "lost": vars(lost)}))
        return
    print(f"{told.rows:,} rows in {told.versions:,} versions were read, and are in {place_of(target).name}")
    if lost.rows:
        some = ", ".join(f"#{id}" for id in lost.rows[:NAMED])
        print(f"{len(lost.rows):,} rows are lost: {some}{' …' if len(lost.rows) > NAMED else ''}")
    if lost.versions:
        print(f"{lost.versions:,} earlier versions of rows are lost")
    if lost.frames:
        print(f"{lost.frames:,} pages of the log beside the file were damaged: what was written last may be lost")
    if not lost.counted:
        print("how many rows there were is lost too: later ones may be lost")
    for id, what in lost.doubtful.items():
        print(f"#{id}: {what}")
    if lost.counted and not (lost.rows or lost.versions or lost.frames or lost.doubtful):
        print("nothing is lost")
