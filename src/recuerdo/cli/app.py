"""`recuerdo`: the command line. Every verb prints something a person can read; `--json` prints the object itself."""

import os
import sys
from typing import Annotated

import typer

from recuerdo.cli import (
    carry,
    compare,
    data,
    demo,
    evaluate,
    export,
    forget,
    hand,
    look,
    marks,
    mcp,
    memories,
    models,
    predict,
    profile,
    recipes,
    remember,
    steer,
    teach,
    train,
    truth,
)
from recuerdo.cli.shown import line
from recuerdo.errors import RecuerdoError

app = typer.Typer(
    name="recuerdo",
    help="Attention and memory that people can look at, steer and keep.",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)
app.command(name="look", epilog=look.EXAMPLES)(look.look)
app.command(name="compare", epilog=compare.EXAMPLES)(compare.compare)
app.command(name="steer", epilog=steer.EXAMPLES)(steer.steer)
app.command(name="truth", epilog=truth.EXAMPLES)(truth.truth)
app.command(name="teach", epilog=teach.EXAMPLES)(teach.teach)
app.command(name="profile", epilog=profile.EXAMPLES)(profile.profile)
app.command(name="train", epilog=train.EXAMPLES)(train.train)
app.command(name="evaluate", epilog=evaluate.EXAMPLES)(evaluate.evaluate)
app.command(name="export", epilog=export.EXAMPLES)(export.export)
app.command(name="predict", epilog=predict.EXAMPLES)(predict.predict)
app.command(name="remember", epilog=remember.REMEMBER)(remember.remember)
app.command(name="ask", epilog=remember.ASK)(remember.ask)
app.command(name="correct", epilog=hand.EXAMPLES.format(verb="correct", more='"Bob has the key." '))(hand.correct)
app.command(name="pin", epilog=hand.EXAMPLES.format(verb="pin", more=""))(hand.pin)
app.command(name="boost", epilog=hand.EXAMPLES.format(verb="boost", more="--by 2 "))(hand.boost)
app.command(name="mute", epilog=hand.EXAMPLES.format(verb="mute", more=""))(hand.mute)
app.command(name="undo", epilog=hand.EXAMPLES.format(verb="undo", more=""))(hand.undo)
app.command(name="forget", epilog=forget.EXAMPLES)(forget.forget)
memories.app.command(name="move", epilog=carry.MOVE)(carry.move)
memories.app.command(name="export", epilog=carry.EXPORT)(carry.export)
memories.app.command(name="import", epilog=carry.IMPORT)(carry.import_)
memories.app.command(name="salvage", epilog=carry.SALVAGE)(carry.salvage)
app.command(name="mcp", epilog=mcp.EXAMPLES)(mcp.mcp)
app.command(name="demo")(demo.demo)
app.add_typer(marks.app, name="marks")
app.add_typer(memories.app, name="memories")
app.add_typer(models.app, name="models")
app.add_typer(data.app, name="data")
app.add_typer(recipes.app, name="recipes")


def _version(asked: bool) -> None:
    if asked:
        import recuerdo

        print(f"recuerdo {recuerdo.__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="The version.")] = False,
) -> None:
    """Attention and memory that people can look at, steer and keep."""


def main() -> None:
    """Run the command line: errors raised on purpose become one line and exit code 2, Ctrl-C exit code 130."""
    # Two threads that wait actively on a busy machine are slower than one: say so before torch starts.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        app()
    except RecuerdoError as error:
        print(f"recuerdo: {line(str(error))}", file=sys.stderr)
        raise SystemExit(2) from None
    except SystemExit as left:  # the library turns Ctrl-C into this
        if left.code == 130:
            print("recuerdo: stopped; nothing is left half done", file=sys.stderr)
        raise
