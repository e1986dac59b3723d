"""`recuerdo memories`: what a memory holds. `recuerdo correct | pin | boost | mute | forget`: a person's hand on it."""

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from recuerdo.cli.remember import HERE, MemoryAt
from recuerdo.cli.shown import shown
from recuerdo.errors import InputError

if TYPE_CHECKING:
    from recuerdo.store.record import Record

Ids = Annotated[list[int], typer.Argument(help="Numbers of rows, as `recuerdo ask` and `recuerdo memories ls` say.")]
Author = Annotated[str, typer.Option("--author", help="Who says so.")]
Reason = Annotated[str, typer.Option("--reason", help="Why.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
LINE = 90  # characters of a text in a list
HAND = """Examples:

`recuerdo {verb} 12 {more}--reason "as of today"`
"""

app = typer.Typer(
    help="What a memory holds: list, show, history, statistics, check, rebuild, index.",
    epilog="Examples:\n\n`recuerdo memories ls`\n\n`recuerdo memories history 12 --memory notes.db`",
    no_args_is_help=True,
    rich_markup_mode="markdown",
)


@app.command(epilog="Example:\n\n`recuerdo memories ls --tag town`")
def ls(
    memory: MemoryAt = HERE,
    tag: Annotated[list[str] | None, typer.Option("--tag", help="Only rows with this tag (repeatable).")] = None,
    as_json: AsJson = False,
) -> None:
    """List the rows."""
    from recuerdo.store.embedded import Embedded
    from recuerdo.store.record import Where

    with Embedded(memory, read_only=True) as store:
        records = store.get(store.ids(Where(tags=tuple(tag)) if tag else None))
    if as_json:
        print(json.dumps([_data(one) for one in records], ensure_ascii=False))
        return
    for one in records:
        text = " ".join(shown(one.text).split())
        bias = f"  bias {one.bias:+g}" if one.bias else ""
        print(f"#{one.id}  {text if len(text) <= LINE else text[: LINE - 1] + '…'}{bias}")
    print(f"{len(records)} rows in {memory}")


@app.command(epilog="Example:\n\n`recuerdo memories history 12`")
def history(
    row: Annotated[int, typer.Argument(help="The number of a row.")], memory: MemoryAt = HERE, as_json: AsJson = False
) -> None:
    """All versions of a row, and what was done to it by hand."""
    from recuerdo.store.embedded import Embedded

    with Embedded(memory, read_only=True) as store:
        versions, hands = store.history(row), store.hands(row)
    if as_json:
        told = {"versions": [_data(one) for one in versions], "hands": [vars(hand) for hand in hands]}
        print(json.dumps(_finite(told), ensure_ascii=False))
        return
    for one in versions:
        print(f"version {one.version}  {_day(one.written)}  {one.author}".rstrip())
        print(f"  {shown(one.text)}")
    for hand in hands:
        amount = "" if hand.amount is None else f" {hand.amount:+g}"
        print(f"{_day(hand.time)}  {hand.what}{amount}  {hand.author}  {shown(hand.reason)}".rstrip())


@app.command(epilog="Example:\n\n`recuerdo memories stats`")
def stats(memory: MemoryAt = HERE, as_json: AsJson = False) -> None:
    """How large a memory is, and which encoder made it."""
    from recuerdo.store.embedded import Embedded

    with Embedded(memory, read_only=True) as store:
        told = {**vars(store.stats()), "encoder": store.notes().get("encoder", "")}
    if as_json:
        print(json.dumps(told))
        return
    for name, value in told.items():
        print(f"{name.replace('_', ' '):12} {value:,}" if isinstance(value, int) else f"{name:12} {value}")


@app.command(epilog="Example:\n\n`recuerdo memories check`")
def check(memory: MemoryAt = HERE) -> None:
    """Compare the database with itself and with its caches; leaves with 1 where something is wrong."""
    from recuerdo.store.embedded import Embedded

    with Embedded(memory, read_only=True) as store:
        wrong = store.check()
    print("\n".join(wrong) if wrong else f"{memory} is well")
    if wrong:
        raise typer.Exit(1)


@app.command(epilog="Example:\n\n`recuerdo memories rebuild`")
def rebuild(memory: MemoryAt = HERE) -> None:
    """Make the caches beside the database again."""
    from recuerdo.store.embedded import Embedded

    with Embedded(memory) as store:
        store.rebuild()
    print(f"the caches of {memory} were made again")


@app.command(epilog="Example:\n\n`recuerdo memories index`")
def index(
    memory: MemoryAt = HERE,
    cells: Annotated[int, typer.Option("--cells", min=0, help="So many cells; 0 = as suits its size.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Sort the rows of a large memory into cells, by which `recuerdo ask --approximate` looks. Rows that come later are
    read one and all, until the index is made again."""
    from recuerdo.cli.progress import progress_bar
    from recuerdo.store.embedded import Embedded

    _must_be(memory)
    with progress_bar() as report, Embedded(memory) as store:
        told = store.index(cells=cells, step=report)
    if as_json:
        print(json.dumps(vars(told)))
        return
    print(f"{told.rows:,} rows of {memory} lie in {told.cells:,} cells; it took {told.seconds:.1f} s")


def correct(
    row: Annotated[int, typer.Argument(help="The number of a row.")],
    text: Annotated[str, typer.Argument(help="What it should say.")],
    memory: MemoryAt = HERE,
    author: Author = "",
    reason: Reason = "",
) -> None:
    """Put another text in the place of a row's. The old one stays in its history until the row is forgotten."""
    from recuerdo.workbench.remembering import Memory

    _must_be(memory)
    with Memory(memory) as kept:
        print(f"#{row} is version {kept.correct(row, text, author=author, reason=reason)} now")


def pin(ids: Ids, memory: MemoryAt = HERE, author: Author = "", reason: Reason = "") -> None:
    """Read rows far more than others."""
    from recuerdo.workbench.remembering import PIN

    _bias(memory, ids, PIN, author, reason, "pinned")


def boost(
    ids: Ids,
    by: Annotated[float, typer.Option("--by", help="Added to the logits; 0 takes back what was done.")] = 1.0,
    memory: MemoryAt = HERE,
    author: Author = "",
    reason: Reason = "",
) -> None:
    """Read rows more, or less where the number is negative."""
    _bias(memory, ids, by, author, reason, f"boosted by {by:g}")


def mute(ids: Ids, memory: MemoryAt = HERE, author: Author = "", reason: Reason = "") -> None:
    """Never read rows. `recuerdo boost ID --by 0` takes it back."""
    _bias(memory, ids, float("-inf"), author, reason, "muted")


def forget(
    ids: Annotated[list[int] | None, typer.Argument(help="Numbers of rows.")] = None,
    tag: Annotated[list[str] | None, typer.Option("--tag", help="All rows with this tag (repeatable).")] = None,
    memory: MemoryAt = HERE,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    author: Author = "",
    reason: Reason = "",
    as_json: AsJson = False,
) -> None:
    """Erase rows and all their versions, to the last byte. This cannot be undone."""
    from recuerdo.store.embedded import Embedded
    from recuerdo.store.record import Where
    from recuerdo.workbench.tags import twins

    if bool(ids) == bool(tag):
        raise InputError("say what to forget: numbers of rows, or --tag")
    _must_be(memory)
    with Embedded(memory) as store:
        some = ids or store.ids(Where(tags=tuple(tag or ()))).tolist()
        if not some:
            raise InputError(f"no row of {memory} has the tag {', '.join(tag or ())}")
        if not yes:
            for one in store.get(some):
                typer.echo(f"#{one.id}  {' '.join(shown(one.text).split())[:LINE]}", err=True)
            typer.confirm(f"erase {len(some)} rows for ever?", abort=True, err=True)
        same = twins(store, some)
        receipt = store.forget(some, author=author, reason=reason)
    if as_json:
        print(json.dumps({**vars(receipt), "same": same}))
        return
    print(f"{receipt.rows} rows in {receipt.versions} versions were erased; searched: {', '.join(receipt.searched)}")
    for owed in receipt.owed:
        print(f"still owed: {owed}")
    if same:
        print(f"other rows say the same word for word, and stay: {', '.join(f'#{id}' for id in same)}")


def _bias(memory: Path, ids: list[int], amount: float, author: str, reason: str, what: str) -> None:
    from recuerdo.store.embedded import Embedded

    _must_be(memory)
    with Embedded(memory) as store:
        store.bias(ids, amount, author=author, reason=reason)
    print(f"{', '.join(f'#{id}' for id in ids)} {what}")


def _must_be(memory: Path) -> None:
    if not memory.exists():
        raise InputError(f"there is no memory {memory}: make one with `recuerdo remember FILE --memory {memory}`")


def _day(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds))


def _data(one: "Record") -> dict[str, Any]:
    """A row as plain data: without its vectors, and without the tags that the memory makes for itself."""
    from recuerdo.workbench.tags import own, source_of

    told = {name: value for name, value in vars(one).items() if name not in ("key", "value")}
    return _finite(told | {"tags": own(one.tags), "source": source_of(one.tags)})


def _finite(told: Any) -> Any:
    """Plain data without infinities, which JSON does not know: a muted row has the bias null."""
    if isinstance(told, dict):
        return {name: _finite(value) for name, value in told.items()}
    if isinstance(told, (list, tuple)):
        return [_finite(one) for one in told]
    return None if isinstance(told, float) and told in (float("inf"), float("-inf")) else told
