"""`recuerdo memories`: what a memory holds."""

import json
import math
from typing import TYPE_CHECKING, Annotated

import typer

from recuerdo.cli.options import HERE, AsJson, By, MemoryAt, Row, Since, Tags, Until
from recuerdo.cli.shown import day, shown

if TYPE_CHECKING:
    from datetime import datetime

    from recuerdo.store.record import Hand, Record, Where

LINE = 90  # characters of a text in a list
MINUTE = "%Y-%m-%d %H:%M"

app = typer.Typer(
    help="What a memory holds, and where: list, show, history, check, index, move, export, import, salvage.",
    epilog="Examples:\n\n`recuerdo memories ls`\n\n`recuerdo memories history 12 --memory notes.db`",
    no_args_is_help=True,
    rich_markup_mode="markdown",
)


@app.command(epilog="Example:\n\n`recuerdo memories ls --tag town --since 2026-01-31`")
def ls(
    memory: MemoryAt = HERE,
    tag: Tags = None,
    author: By = None,
    since: Since = None,
    until: Until = None,
    as_json: AsJson = False,
) -> None:
    """List the rows."""
    from recuerdo.workbench.opening import open_store, place_of
    from recuerdo.workbench.rows import plain

    with open_store(memory, read_only=True) as store:
        records = store.get(store.ids(where(tag, author, since, until)))
    if as_json:
        print(json.dumps([plain(one) for one in records], ensure_ascii=False))
        return
    for one in records:
        print(line(one))
    print(f"{len(records)} rows in {place_of(memory).name}")


@app.command(epilog="Example:\n\n`recuerdo memories show 12`")
def show(row: Row, memory: MemoryAt = HERE, as_json: AsJson = False) -> None:
    """Show a row as it is now: its text, where it is from, and what hands did to it."""
    from recuerdo.workbench.opening import open_store
    from recuerdo.workbench.rows import finite, plain
    from recuerdo.workbench.tags import own, source_of, twins

    with open_store(memory, read_only=True) as store:
        (one,), hands, same = store.get([row]), store.hands(row), twins(store, [row])
    if as_json:
        told = {**plain(one), "hands": [vars(hand) for hand in hands], "same": same}
        print(json.dumps(finite(told), ensure_ascii=False))
        return
    about = {
        "from": source_of(one.tags),
        "tags": ", ".join(own(one.tags)),
        "author": one.author,
        "of": day(one.time, MINUTE),
        "written": f"{day(one.written, MINUTE)}, version {one.version}",
        "bias": f"{one.bias:+g}" if one.bias else "",
        "same as": ", ".join(f"#{id}" for id in same),
    }
    print(f"#{one.id}")
    for name, value in about.items():
        if value:
            print(f"{name:8} {shown(value)}")
    print(f"\n{shown(one.text)}")
    if hands:
        print()
    for hand in hands:
        print(done(hand))


@app.command(epilog="Example:\n\n`recuerdo memories history 12`")
def history(row: Row, memory: MemoryAt = HERE, as_json: AsJson = False) -> None:
    """All versions of a row, and what was done to it by hand."""
    from recuerdo.workbench.opening import open_store
    from recuerdo.workbench.rows import finite, plain

    with open_store(memory, read_only=True) as store:
        versions, hands = store.history(row), store.hands(row)
    if as_json:
        told = {"versions": [plain(one) for one in versions], "hands": [vars(hand) for hand in hands]}
        print(json.dumps(finite(told), ensure_ascii=False))
        return
    for one in versions:
        print(f"version {one.version}  {day(one.written, MINUTE)}  {one.author}".rstrip())
        print(f"  {shown(one.text)}")
    for hand in hands:
        print(done(hand))


@app.command(epilog="Example:\n\n`recuerdo memories stats`")
def stats(memory: MemoryAt = HERE, as_json: AsJson = False) -> None:
    """How large a memory is, and which encoder made it."""
    from recuerdo.workbench.opening import open_store

    with open_store(memory, read_only=True) as store:
        told = {**vars(store.stats()), "encoder": store.notes().get("encoder", "")}
    if as_json:
        print(json.dumps(told))
        return
    for name, value in told.items():
        print(f"{name.replace('_', ' '):12} {value:,}" if isinstance(value, int) else f"{name:12} {value}")


@app.command(epilog="Example:\n\n`recuerdo memories check`")
def check(memory: MemoryAt = HERE, as_json: AsJson = False) -> None:
    """Compare everything in a memory with itself and with its caches; leaves with 1 where something is wrong."""
    from recuerdo.workbench.opening import open_store, place_of

    with open_store(memory, read_only=True) as store:
        wrong = store.check()
    name = place_of(memory).name
    if as_json:
        print(json.dumps({"memory": name, "wrong": wrong}))
    else:
        print("\n".join(wrong) if wrong else f"{name} is well")
    if wrong:
        raise typer.Exit(1)


@app.command(epilog="Example:\n\n`recuerdo memories rebuild`")
def rebuild(memory: MemoryAt = HERE, as_json: AsJson = False) -> None:
    """Make the caches beside the database of a memory in a file again."""
    from recuerdo.store.embedded import Embedded
    from recuerdo.workbench.opening import open_store, place_of

    name = place_of(memory).name
    with open_store(memory) as store:
        in_a_file = isinstance(store, Embedded)
        if in_a_file:
            store.rebuild()
    if as_json:
        print(json.dumps({"memory": name, "rebuilt": in_a_file}))
    else:
        print(f"the caches of {name} were made again" if in_a_file else f"{name} has no caches: nothing was to be done")


@app.command(epilog="Example:\n\n`recuerdo memories index`")
def index(
    memory: MemoryAt = HERE,
    cells: Annotated[int, typer.Option("--cells", min=0, help="So many cells; 0 = as suits its size.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Sort the rows of a large memory in a file into cells, by which `recuerdo ask --approximate` looks. Rows that come
    later are read one and all, until the index is made again."""
    from recuerdo.cli.progress import progress_bar
    from recuerdo.store.embedded import Embedded
    from recuerdo.workbench.opening import open_store, place_of

    name = place_of(memory).name
    with progress_bar() as report, open_store(memory) as store:
        told = store.index(cells=cells, step=report) if isinstance(store, Embedded) else None
    if as_json:
        print(json.dumps({"memory": name, **(vars(told) if told else {})}))
    elif told:
        print(f"{told.rows:,} rows of {name} lie in {told.cells:,} cells; it took {told.seconds:.1f} s")
    else:
        print(f"{name} has an index of its own: nothing was to be done")


# ---------------------------------------------------------------------------------------- what the other verbs share


def where(
    tag: list[str] | None, author: str | None, since: "datetime | None", until: "datetime | None"
) -> "Where | None":
    """The filter that the options say; None = they say nothing."""
    from recuerdo.store.record import Where

    low, high = (end if when is None else when.timestamp() for when, end in ((since, -math.inf), (until, math.inf)))
    found = Where(tags=tuple(tag or ()), author=author, since=low, until=high)
    return None if found == Where() else found


def line(one: "Record") -> str:
    """A row in one line."""
    text = " ".join(shown(one.text).split())
    bias = f"  bias {one.bias:+g}" if one.bias else ""
    return f"#{one.id}  {text if len(text) <= LINE else text[: LINE - 1] + '…'}{bias}"


def done(hand: "Hand") -> str:
    """What a hand did, in one line."""
    amount = "" if hand.amount is None else f" {hand.amount:+g}"
    return f"{day(hand.time, MINUTE)}  {hand.what}{amount}  {shown(hand.author)}  {shown(hand.reason)}".rstrip()
