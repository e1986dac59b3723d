"""`recuerdo export`: a trained model for somebody else: small, or for the engine that serves translators."""

import json
from pathlib import Path
from typing import Annotated

import typer

from recuerdo.errors import InputError

EXAMPLES = """Examples:

`recuerdo export runs/multi30k-en-fr --out served`

`recuerdo export runs/multi30k-en-fr --out served --type int8`

`recuerdo export runs/multi30k-en-fr --to onnx --out portable`

`recuerdo export runs/babi-1k-reader --to run --out small --type float16 --licence "CC BY 3.0"`
"""


def export(
    run: Annotated[Path, typer.Argument(help="The folder of a run.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="A folder that is not there yet.")],
    to: Annotated[
        str,
        typer.Option(
            "--to", help="ctranslate2 or onnx (Transformers that translate), or run: a small folder to pass on."
        ),
    ] = "ctranslate2",
    kind: Annotated[
        str, typer.Option("--type", help="float32, float16; ctranslate2 also int8, int8_float32, int16; run bfloat16.")
    ] = "float32",
    about: Annotated[str, typer.Option("--about", help="What it is, for the card of a run.")] = "",
    licence: Annotated[str, typer.Option("--licence", help="Under which licence, for the card of a run.")] = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print where it is and how large, as JSON.")] = False,
) -> None:
    """Write a trained model to be passed on, or a translator for CTranslate2, which serves it fast, or as ONNX."""
    if to == "run":
        from recuerdo.workbench.packing import pack

        folder = pack(run, out, kind=kind, about=about, licence=licence)
        what = f"a run to pass on, numbers as {kind}; `recuerdo predict {folder} …` uses it"
    elif to == "ctranslate2":
        from recuerdo.workbench.exporting import export as write

        folder = write(run, out, kind=kind)
        what = f"for CTranslate2, numbers as {kind}; its subwords are in subwords.json"
    elif to == "onnx":
        from recuerdo.workbench.portable import export_onnx

        if kind != "float32":
            raise InputError(f"ONNX is written in float32, not in {kind}: leave --type out")
        folder = export_onnx(run, out)
        what = "model.onnx: source and what was told -> logits of the next piece, and what it read of the source"
    else:
        raise InputError(f"there is no form {to!r} to export to: choose ctranslate2, onnx or run")
    size = sum(file.stat().st_size for file in folder.iterdir())
    if as_json:
        print(json.dumps({"folder": str(folder), "type": kind, "bytes": size}))
        return
    print(f"{folder}: {size / 1e6:.1f} MB, {what}")
