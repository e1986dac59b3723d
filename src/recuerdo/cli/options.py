"""Options that several verbs share: the same words for the same thing."""

from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer

Text = Annotated[str | None, typer.Option("--text", "-t", help="The text to read.")]
TextFile = Annotated[
    Path | None, typer.Option("--text-file", "-f", help="A file that holds it (UTF-8). Default: standard input.")
]
Question = Annotated[str | None, typer.Option("--question", "-q", help="Ask a language model about the text.")]
Out = Annotated[Path | None, typer.Option("--out", "-o", help="Write a .html, .svg, .png, .json or .npz file.")]

HERE = "memory.db"
MemoryAt = Annotated[
    str,
    typer.Option(
        "--memory",
        "-m",
        envvar="RECUERDO_MEMORY",
        help="The memory: a file, postgresql://… or qdrant+https://….",
        show_default=True,
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Row = Annotated[int, typer.Argument(help="The number of a row.")]
Rows = Annotated[list[int], typer.Argument(help="Numbers of rows, as `recuerdo ask` and `recuerdo memories ls` say.")]
Author = Annotated[str, typer.Option("--author", help="Who says so.")]
Reason = Annotated[str, typer.Option("--reason", help="Why.")]
Tags = Annotated[list[str] | None, typer.Option("--tag", help="Only rows with this tag (repeatable).")]
By = Annotated[str | None, typer.Option("--author", help="Only rows by this author.")]
DATES = ["%Y-%m-%d", "%Y-%m-%dT%H:%M", "%Y-%m-%d %H:%M", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%d %H:%M:%S"]
Since = Annotated[
    datetime | None, typer.Option("--since", formats=DATES, help="Only rows that speak of this time or later.")
]
Until = Annotated[
    datetime | None, typer.Option("--until", formats=DATES, help="Only rows that speak of a time before this.")
]
