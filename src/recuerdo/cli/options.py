"""Options that several verbs share: the same words for the same thing."""

from pathlib import Path
from typing import Annotated

import typer

Text = Annotated[str | None, typer.Option("--text", "-t", help="The text to read.")]
TextFile = Annotated[
    Path | None, typer.Option("--text-file", "-f", help="A file that holds it (UTF-8). Default: standard input.")
]
Question = Annotated[str | None, typer.Option("--question", "-q", help="Ask a language model about the text.")]
Out = Annotated[Path | None, typer.Option("--out", "-o", help="Write a .html, .svg, .png, .json or .npz file.")]
