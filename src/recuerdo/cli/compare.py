"""`recuerdo compare`: two looks at the same text, as one signed map."""

import json
from pathlib import Path
from typing import Annotated

import typer

from recuerdo.cli.look import writable
from recuerdo.cli.options import Out
from recuerdo.errors import InputError

EXAMPLES = """Example:

`recuerdo look -f a.txt -q "Who signed?" --out one.json`

`recuerdo look -f a.txt -q "Who signed?" --layer 20 --out two.json`

`recuerdo compare one.json two.json --out difference.html`
"""


def compare(
    first: Annotated[Path, typer.Argument(help="A look written with `--out FILE.json`.")],
    second: Annotated[Path, typer.Argument(help="Another one, over the same text.")],
    view: Annotated[str | None, typer.Option("--view", help="Which view to compare; default: the first's own.")] = None,
    out: Out = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the difference as JSON.")] = False,
) -> None:
    """Show what the second look read more, and what less, than the first."""
    if out is not None:
        writable(out)
    from recuerdo.explain import render
    from recuerdo.explain.compare import compare as difference

    seen = difference(_look(first), _look(second), view)
    seen.command = f"recuerdo compare {first} {second}"
    if out is not None:
        render.write(seen, out)
        typer.echo(f"wrote {out} ({out.stat().st_size / 1e6:.2f} MB)", err=as_json)
    if as_json:
        print(json.dumps(render.as_data(seen), ensure_ascii=False))
    elif out is None:
        render.show(seen)


def _look(path: Path):
    from recuerdo.explain.render.data import from_data

    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"there is no file {path}: check the path") from None
    except (OSError, ValueError):
        raise InputError(f"{path} is not a look: write one with `recuerdo look … --out FILE.json`") from None
    return from_data(data, str(path))
