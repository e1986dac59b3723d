"""`recuerdo predict`: ask a trained model, and see where it looked."""

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from recuerdo.cli.progress import progress_bar
from recuerdo.errors import InputError

EXAMPLES = """Examples:

`recuerdo predict babi-reader --story story.txt -q "Where is Mary?"`

`recuerdo predict babi-reader --story story.txt -q "Where is Mary?" --out look.html`

`recuerdo predict babi-reader --story story.txt -q "Where is Mary?" --mute "Mary went to the office."`

`recuerdo predict translate-fr-en "Un petit chien noir court sur la plage." --out alignment.html`

`recuerdo predict translate-fr-en "Un petit chien noir court sur la plage." --mute noir`

`recuerdo predict translate-fr-en --lines captions.fr > captions.en`

`recuerdo predict runs/scitldr-pointer --text-file abstract.txt --out summary.html`
"""


def predict(
    run: Annotated[Path, typer.Argument(help="The folder of a run, or a model that comes with recuerdo.")],
    text: Annotated[str | None, typer.Argument(help="A text to translate, or to sum up.")] = None,
    text_file: Annotated[Path | None, typer.Option("--text-file", help="A file with the text.")] = None,
    lines: Annotated[
        str | None, typer.Option("--lines", help="A file, or - for standard input: say each line, a line for a line.")
    ] = None,
    story: Annotated[Path | None, typer.Option("--story", "-f", help="A file with one sentence on each line.")] = None,
    question: Annotated[str | None, typer.Option("--question", "-q", help="The question.")] = None,
    boost: Annotated[
        list[str] | None, typer.Option("--boost", help="Look at this sentence, or word of the text, more (repeatable).")
    ] = None,
    mute: Annotated[
        list[str] | None, typer.Option("--mute", help="Never look at this sentence, or word of the text (repeatable).")
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Write a .html or .json file.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the answer and the looks as JSON.")] = False,
) -> None:
    """Ask a trained model: a question about a story, for a translation, or for a summary. See what it looked at."""
    if out is not None and out.suffix not in (".html", ".json"):
        raise InputError(f"{out.name} is neither .html nor .json: these can be written")
    words: dict[str, Any] = {}
    if lines is not None:
        if any(x is not None for x in (text, text_file, story, question, boost, mute)):
            raise InputError("--lines stands alone: leave texts, stories and marks away")
        _say(run, lines, out, as_json=as_json)
        return
    if text is not None and text_file is not None:
        raise InputError("the text is given twice: as a word of the command, or with --text-file")
    for name, path in (("story", story), ("text", text_file)):
        if path is not None:
            try:
                words[name] = path.read_text(encoding="utf-8")
            except (OSError, UnicodeDecodeError) as error:
                raise InputError(f"the {name} {path} cannot be read ({error}): give a text file in UTF-8") from None
    words |= {} if text is None else {"text": text}
    words |= {} if question is None else {"question": question}
    words |= {"boost": tuple(boost)} if boost else {}
    words |= {"mute": tuple(mute)} if mute else {}
    from recuerdo.workbench.running import predict as ask

    answer = ask(run, **words)
    if out is not None:
        page = json.dumps(answer.as_json(), ensure_ascii=False) if out.suffix == ".json" else answer.html()
        out.write_text(page, encoding="utf-8")
    print(json.dumps(answer.as_json(), ensure_ascii=False) if as_json else answer.text())


def _say(run: Path, path: str, out: Path | None, *, as_json: bool) -> None:
    """A line for a line; what was said before an interruption is there."""
    from recuerdo.data.parallel import lines as read
    from recuerdo.workbench.running import predict_lines

    if out is not None:
        raise InputError("--lines prints to standard output: send it to a file with > FILE, and leave --out away")
    with progress_bar() as report:
        told = [line.rstrip("\r\n") for line in sys.stdin] if path == "-" else read(path)
        for number, said in enumerate(predict_lines(run, told)):
            print(json.dumps({"text": told[number], "said": said}, ensure_ascii=False) if as_json else said, flush=True)
            report("lines", number + 1, len(told))
