"""`recuerdo correct | pin | boost | mute | undo`: a person's hand on the rows of a memory."""

import json
from typing import Annotated

import typer

from recuerdo.cli.memories import done
from recuerdo.cli.options import HERE, AsJson, Author, MemoryAt, Reason, Row, Rows

EXAMPLES = """Examples:

`recuerdo {verb} 12 {more}--reason "as of today"`

`recuerdo {verb} 12 {more}--memory "postgresql://ada@db.example/notes"`
"""


def correct(
    row: Row,
    text: Annotated[str, typer.Argument(help="What it should say.")],
    memory: MemoryAt = HERE,
    author: Author = "",
    reason: Reason = "",
    as_json: AsJson = False,
) -> None:
    """Put another text in the place of a row's. The old one stays in its history until the row is forgotten."""
    from recuerdo.workbench.remembering import Memory

    with Memory(memory, make=False) as kept:
        version = kept.correct(row, text, author=author, reason=reason)
    print(json.dumps({"id": row, "version": version}) if as_json else f"#{row} is version {version} now")


def pin(ids: Rows, memory: MemoryAt = HERE, author: Author = "", reason: Reason = "", as_json: AsJson = False) -> None:
    """Read rows far more than others."""
    from recuerdo.workbench.remembering import PIN

    _bias(memory, ids, PIN, author, reason, "" if as_json else "pinned")


def boost(
    ids: Rows,
    by: Annotated[float, typer.Option("--by", help="Added to the logits; 0 takes back what was done.")] = 1.0,
    memory: MemoryAt = HERE,
    author: Author = "",
    reason: Reason = "",
    as_json: AsJson = False,
) -> None:
    """Read rows more, or less where the number is negative."""
    _bias(memory, ids, by, author, reason, "" if as_json else f"boosted by {by:g}")


def mute(ids: Rows, memory: MemoryAt = HERE, author: Author = "", reason: Reason = "", as_json: AsJson = False) -> None:
    """Never read rows. `recuerdo undo ID`, or `recuerdo boost ID --by 0`, takes it back."""
    _bias(memory, ids, float("-inf"), author, reason, "" if as_json else "muted")


def undo(ids: Rows, memory: MemoryAt = HERE, author: Author = "", reason: Reason = "", as_json: AsJson = False) -> None:
    """Take back what a hand did last to each row (correct, pin, boost, mute). Undone again, it goes further back."""
    from recuerdo.workbench.opening import open_store
    from recuerdo.workbench.rows import finite

    with open_store(memory) as store:
        store.get(ids)  # all are there, or nothing is done
        for id in ids:
            hand = store.undo(id, author=author, reason=reason)
            (now,) = store.get([id])
            if as_json:
                told = {"id": id, "undone": vars(hand), "version": now.version, "bias": now.bias}
                print(json.dumps(finite(told), ensure_ascii=False))
            else:
                state = f"version {now.version}" if hand.what == "correct" else f"bias {now.bias:+g}"
                print(f"#{id} has {state} now; taken back: {done(hand)}")


def _bias(memory: str, ids: list[int], amount: float, author: str, reason: str, what: str) -> None:
    from recuerdo.workbench.opening import open_store
    from recuerdo.workbench.rows import finite

    with open_store(memory) as store:
        store.bias(ids, amount, author=author, reason=reason)
    told = {"ids": ids, "bias": amount}
    print(f"{', '.join(f'#{id}' for id in ids)} {what}" if what else json.dumps(finite(told)))
