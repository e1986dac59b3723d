"""`recuerdo look`: what did the model look at?"""

import json
import shlex
import sys
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from recuerdo.cli.options import Out, Question, Text, TextFile
from recuerdo.cli.progress import progress_bar
from recuerdo.errors import InputError
from recuerdo.explain import KINDS

EXAMPLES = """Examples:

`recuerdo look --text-file report.txt --question "Who signed it?" --out page.html`

`recuerdo look --model minilm --text "She lit the match."`

`recuerdo look --model dinov2 --image photo.jpg --out page.html`

`recuerdo look --audio speech.wav --out page.html`

`cat notes.txt | recuerdo look --question "When do we meet?" --json`
"""


def look(
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            "-m",
            help="A name of `recuerdo models ls`, a model folder, or a hub id. Default: smollm2; dinov2 for --image, "
            "whisper for --audio.",
        ),
    ] = None,
    text: Text = None,
    text_file: TextFile = None,
    image: Annotated[
        Path | None, typer.Option("--image", help="A picture, for a model that looks at pictures (dinov2).")
    ] = None,
    audio: Annotated[
        Path | None, typer.Option("--audio", help="Speech, for a model that listens (whisper); up to 30 s of it.")
    ] = None,
    start: Annotated[float, typer.Option("--start", help="For --audio: the second to begin at.")] = 0.0,
    question: Question = None,
    generate: Annotated[
        int | None, typer.Option("--generate", "-n", min=1, help="Tokens to generate, at most (with a question: 32).")
    ] = None,
    target: Annotated[
        str | None, typer.Option("--target", help="The other side, for encoder-decoders; default: their own.")
    ] = None,
    layer: Annotated[int | None, typer.Option("--layer", help="One layer only (negative: from the end).")] = None,
    head: Annotated[int | None, typer.Option("--head", help="One head only.")] = None,
    view: Annotated[
        str | None,
        typer.Option(
            "--view",
            help="lift (what a word adds), aside (sinks aside), raw, value, rollout or gradient; "
            "of a picture raw or rollout.",
        ),
    ] = None,
    out: Out = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the maps as JSON.")] = False,
) -> None:
    """Show what a model looked at: in a text, while it answered a question about one, in a picture, or in sound."""
    others = (text, text_file, question, generate, target)
    if image is not None:
        if audio is not None or any(given is not None for given in others):
            raise InputError("--image stands alone: leave texts, questions, targets and sound away")
        _at_picture("dinov2" if model is None else model, image, layer, head, view, out, as_json=as_json)
        return
    if audio is not None:
        if any(given is not None for given in (*others, layer, head, view)):
            raise InputError("--audio stands alone: leave texts, questions, targets, layers, heads and views away")
        _at_sound("whisper" if model is None else model, audio, start, out, as_json=as_json)
        return
    words = words_of(text, text_file)
    for name, given in (("--question", question), ("--target", target)):
        if given is not None:
            some_words(given, name)
    if out is not None:
        writable(out)
    with progress_bar() as report:
        from recuerdo.workbench.looking import check_view
        from recuerdo.workbench.looking import look as take_a_look

        if view is not None:
            check_view(view)
        taken = take_a_look(
            "smollm2" if model is None else model,
            words,
            question=question,
            target=target,
            generate=generate,
            layer=layer,
            head=head,
            progress=report,
        )
        if view is not None:
            taken.put_first(view, progress=report)
        if out is not None and out.suffix.lower() in (".html", ".npz"):
            taken.draw_map(progress=report)
    seen = taken.evidence
    seen.command = shlex.join(["recuerdo", *sys.argv[1:]])
    from recuerdo.explain import render

    if out is not None:
        render.write(seen, out)
        print(f"wrote {out} ({out.stat().st_size / 1e6:.2f} MB)", file=sys.stderr if as_json else sys.stdout)
    if as_json:
        print(json.dumps(render.as_data(seen), ensure_ascii=False))
    elif out is None:
        render.show(seen)


def _at_picture(
    model: str, image: Path, layer: int | None, head: int | None, view: str | None, out: Path | None, *, as_json: bool
) -> None:
    """A look at a picture; where no other model was named, by dinov2."""
    if out is not None:
        writable(out)
    with progress_bar() as report:
        from recuerdo.workbench.gazing import look_at

        seen = look_at(model, image, layer=layer, head=head, view=view or "raw", progress=report)
    from recuerdo.explain.render.gazed import gaze_as_data, gaze_as_text, write_gaze

    _told(seen, out, (write_gaze, gaze_as_data, gaze_as_text), as_json=as_json)


def _at_sound(model: str, audio: Path, start: float, out: Path | None, *, as_json: bool) -> None:
    """A look at sound; where no other model was named, by whisper."""
    if out is not None:
        writable(out)
    with progress_bar() as report:
        from recuerdo.workbench.hearing import listen

        seen = listen(model, audio, start=start, progress=report)
    from recuerdo.explain.render.timed import timeline_as_data, timeline_as_text, write_timeline

    _told(seen, out, (write_timeline, timeline_as_data, timeline_as_text), as_json=as_json)


def _told(seen: Any, out: Path | None, ways: tuple[Any, Any, Any], *, as_json: bool) -> None:
    """Write a look, print it as data, or show it: `ways` to do each."""
    write, as_data, as_text = ways
    seen = replace(seen, command=shlex.join(["recuerdo", *sys.argv[1:]]))
    if out is not None:
        write(seen, out)
        print(f"wrote {out} ({out.stat().st_size / 1e6:.2f} MB)", file=sys.stderr if as_json else sys.stdout)
    if as_json:
        print(json.dumps(as_data(seen), ensure_ascii=False))
    elif out is None:
        print(as_text(seen))


def writable(out: Path) -> None:
    """Refuse a file that could not be written, before the work is done."""
    if out.suffix.lower() not in KINDS:
        raise InputError(f"{out} has no kind that can be written: name it {', '.join(KINDS[:-1])} or {KINDS[-1]}")
    if not out.parent.is_dir():
        raise InputError(f"there is no folder {out.parent} to write {out.name} to: make it first")


def words_of(text: str | None, text_file: Path | None) -> str:
    """The text from where it was said to be. Raises InputError in words that name the fix."""
    if text is not None and text_file is not None:
        raise InputError("the text is given twice: pass --text or --text-file, not both")
    if text is not None:
        return some_words(text, "--text")
    if text_file is None:
        if sys.stdin is None or sys.stdin.isatty():
            raise InputError("there is no text: pass --text, --text-file, or pipe it in")
        return _decoded(sys.stdin.buffer.read(), "standard input")
    if text_file.is_dir():
        raise InputError(f"{text_file} is a folder: name a text file in it")
    try:
        return _decoded(text_file.read_bytes(), str(text_file))
    except FileNotFoundError:
        raise InputError(f"there is no file {text_file}: check the path") from None
    except OSError as error:
        raise InputError(f"{text_file} cannot be read: {error.strerror}") from None


def _decoded(raw: bytes, source: str) -> str:
    if b"\0" in raw[:4096]:
        raise InputError(f"{source} is not text (it holds zero bytes): convert it to plain UTF-8 text first")
    try:
        return some_words(raw.decode("utf-8-sig"), source)
    except UnicodeDecodeError as error:
        raise InputError(
            f"{source} is not UTF-8 text (byte {error.start}): convert it, such as with iconv -f LATIN1 -t UTF-8"
        ) from None


def some_words(text: str, source: str) -> str:
    """The text, unless there is none or it cannot be written down. Raises InputError."""
    if not text.strip():
        raise InputError(f"{source} is empty: there is nothing to read")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise InputError(f"{source} is not UTF-8 text: set the terminal to UTF-8, or pass a file") from None
    return text
