"""`recuerdo forget`: erase rows of a memory, by their numbers, by a filter or by a question."""

import json
from typing import TYPE_CHECKING, Annotated

import typer

from recuerdo.cli.memories import line, where
from recuerdo.cli.options import HERE, AsJson, By, MemoryAt, Reason, Since, Tags, Until
from recuerdo.errors import InputError

if TYPE_CHECKING:
    from recuerdo.store.record import Receipt, Where

LISTED = 50  # rows that are shown before the question
EXAMPLES = """Examples:

`recuerdo forget 12 15`

`recuerdo forget --author Bob --until 2026-01-01 --reason "as he asked"`

`recuerdo forget --query "Where does Bob live?" --top 3`
"""


def forget(
    ids: Annotated[list[int] | None, typer.Argument(help="Numbers of rows.")] = None,
    tag: Tags = None,
    author: By = None,
    since: Since = None,
    until: Until = None,
    query: Annotated[
        str | None, typer.Option("--query", help="The rows that answer this question; a filter goes first.")
    ] = None,
    top: Annotated[int, typer.Option("--top", min=1, help="So many answers to the question.")] = 5,
    memory: MemoryAt = HERE,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    by: Annotated[str, typer.Option("--by", help="Who erases.")] = "",
    reason: Reason = "",
    as_json: AsJson = False,
) -> None:
    """Erase rows and all their versions, to the last byte. This cannot be undone."""
    filtered = where(tag, author, since, until)
    if bool(ids) == (filtered is not None or query is not None):
        raise InputError("say what to forget: numbers of rows, or --tag, --author, --since, --until or --query")
    some, weights = _found(memory, ids, filtered, query, top)
    receipt, same = _erased(memory, some, weights, yes, by, reason)
    if as_json:
        told = {"ids": some, "weights": weights} if query is not None else {"ids": some}
        print(json.dumps({**vars(receipt), **told, "same": same}))
        return
    print(f"{receipt.rows} rows in {receipt.versions} versions were erased; searched: {', '.join(receipt.searched)}")
    for owed in receipt.owed:
        print(f"still owed: {owed}")
    if same:
        print(f"other rows say the same word for word, and stay: {', '.join(f'#{id}' for id in same)}")


def _found(
    memory: str, ids: list[int] | None, filtered: "Where | None", query: str | None, top: int
) -> tuple[list[int], list[float]]:
    """The rows that are meant, and where a question found them their weights."""
    from recuerdo.workbench.opening import open_store, place_of

    if query is not None:
        from recuerdo.cli.progress import progress_bar
        from recuerdo.workbench.remembering import Memory

        with progress_bar() as report, Memory(memory, make=False, progress=report) as kept:
            told = kept.rows_of(query, top=top, where=filtered)
        return [id for id, _ in told], [weight for _, weight in told]
    with open_store(memory, read_only=True) as store:
        some = ids or store.ids(filtered).tolist()
    if not some:
        raise InputError(f"no row of {place_of(memory).name} is what the filter says: see `recuerdo memories ls`")
    return some, []


def _erased(
    memory: str, some: list[int], weights: list[float], yes: bool, by: str, reason: str
) -> tuple["Receipt", list[int]]:
    from recuerdo.workbench.opening import open_store
    from recuerdo.workbench.tags import twins

    with open_store(memory) as store:
        if not yes:
            shares = [f"{100 * weight:5.1f} %  " for weight in weights] or [""] * len(some)
            for share, one in zip(shares, store.get(some[:LISTED]), strict=False):
                typer.echo(share + line(one), err=True)
            if len(some) > LISTED:
                typer.echo(f"and {len(some) - LISTED:,} more", err=True)
            typer.confirm(f"erase {len(some)} rows for ever?", abort=True, err=True)
        same = twins(store, some)
        return store.forget(some, author=by, reason=reason), same
