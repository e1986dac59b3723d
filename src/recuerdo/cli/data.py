"""`recuerdo data`: the data sets that recipes train on and that can be fetched."""

import json
from pathlib import Path
from typing import Annotated

import typer

from recuerdo.cli.progress import progress_bar

app = typer.Typer(help="Data sets for recipes: list them, fetch one.", no_args_is_help=True)
EXAMPLES = """Examples:

    recuerdo data get tatoeba

    recuerdo data get multi30k --to ~/data; export RECUERDO_DATA=~/data"""


@app.command()
def ls(as_json: Annotated[bool, typer.Option("--json", help="Print the list as JSON.")] = False) -> None:
    """List the data sets that can be fetched, and where those lie that are here."""
    from recuerdo.data.sources import data_folder, data_sets

    rows = [
        {
            "name": one.name,
            "about": one.about,
            "licence": one.licence,
            "home": one.home,
            "megabytes": round(one.size / 1e6),
            "folder": None if (folder := data_folder(one.name)) is None else str(folder),
        }
        for one in data_sets().values()
    ]
    if as_json:
        print(json.dumps(rows))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for title in ("name", "what it is", "licence", "text", "here"):
        table.add_column(title, no_wrap=title in ("name", "text"))
    for row in rows:
        table.add_row(
            row["name"], row["about"], row["licence"], f"{row['megabytes']} MB", "yes" if row["folder"] else "no"
        )
    Console().print(table)


@app.command(epilog=EXAMPLES)
def get(
    name: Annotated[str, typer.Argument(help="A name of `recuerdo data ls`.")],
    to: Annotated[
        Path | None, typer.Option("--to", help="The folder to put it into; else RECUERDO_DATA, else the cache.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the folder as JSON.")] = False,
) -> None:
    """Fetch what is missing of a data set, check the sha256 of each file, and print its folder."""
    from recuerdo.data.sources import fetch

    with progress_bar() as report:
        folder = fetch(name, to, progress=report)
    print(json.dumps({"name": name, "folder": str(folder)}) if as_json else folder)
