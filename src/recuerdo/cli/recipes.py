"""`recuerdo recipes`: what can be trained by name; see one, copy one to change it."""

import json
from pathlib import Path
from typing import Annotated

import typer

from recuerdo.errors import InputError

app = typer.Typer(help="The recipes: list them, show one, copy one to change it.", no_args_is_help=True)


@app.command()
def ls(as_json: Annotated[bool, typer.Option("--json", help="Print the list as JSON.")] = False) -> None:
    """List the recipes that come with recuerdo."""
    from recuerdo.workbench.shelf import recipes

    found = recipes()
    if as_json:
        print(json.dumps([{"name": name, "about": about} for name, about in found.items()]))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    table.add_column("name", no_wrap=True)
    table.add_column("what it trains")
    for name, about in found.items():
        table.add_row(name, about)
    Console().print(table)


@app.command()
def show(
    name: Annotated[str, typer.Argument(help="A name of `recuerdo recipes ls`, a .toml file, or a run's folder.")],
) -> None:
    """Print a recipe."""
    from recuerdo.workbench.shelf import recipe_text

    print(recipe_text(name)[1], end="")


@app.command()
def copy(
    name: Annotated[str, typer.Argument(help="A name of `recuerdo recipes ls`.")],
    to: Annotated[Path | None, typer.Argument(help="The new file (default: NAME.toml here).")] = None,
) -> None:
    """Copy a recipe into a file of your own, to be changed and trained."""
    from recuerdo.workbench.shelf import recipe_text

    stem, text = recipe_text(name)
    path = to or Path(f"{stem}.toml")
    path = path / f"{stem}.toml" if path.is_dir() else path
    if path.exists():
        raise InputError(f"{path} is there already, and nothing is overwritten: name another file")
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise InputError(f"{path} cannot be written ({error.strerror}): name another file") from None
    print(f"{path}: change it, then `recuerdo train {path}`")
