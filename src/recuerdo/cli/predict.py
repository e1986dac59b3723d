"""`recuerdo predict`: ask a trained model, and see where it looked."""

import json
import sys
from itertools import tee
from pathlib import Path
from typing import Annotated, Any

import typer

from recuerdo.cli.progress import progress_bar
from recuerdo.errors import InputError

BOM = "\N{ZERO WIDTH NO-BREAK SPACE}"  # some editors begin a file with it
EXAMPLES = """Examples:

`recuerdo predict babi-reader --story story.txt -q "Where is Mary?"`

`recuerdo predict babi-reader --story story.txt -q "Where is Mary?" --out look.html`

`recuerdo predict babi-reader --story story.txt -q "Where is Mary?" --mute "Mary went to the office."`

`recuerdo predict runs/mnist-glimpse --image seven.png --out looks.html`

`recuerdo predict runs/mnist-glimpse --image seven.png --sure 0.95`

`recuerdo predict runs/scenes-captioner --image scene.png --out caption.html`

`recuerdo predict runs/scenes-captioner --image scene.png --only 0,0,0.5,1`

`recuerdo predict translate-fr-en "Un petit chien noir court sur la plage." --out alignment.html`

`recuerdo predict translate-fr-en "Un petit chien noir court sur la plage." --mute noir`

`recuerdo predict translate-fr-en "Un petit chien noir court sur la plage." --sample 5 --temperature 0.7`

`recuerdo predict translate-en-fr "A small black dog runs on the beach." --stream`

`recuerdo predict translate-fr-en --lines captions.fr > captions.en`

`recuerdo predict runs/scitldr-pointer --text-file abstract.txt --out summary.html`
"""


def predict(
    run: Annotated[Path, typer.Argument(help="The folder of a run, or a model that comes with recuerdo.")],
    text: Annotated[str | None, typer.Argument(help="A text to translate, or to sum up.")] = None,
    text_file: Annotated[Path | None, typer.Option("--text-file", help="A file with the text.")] = None,
    image: Annotated[
        Path | None, typer.Option("--image", help="A picture, for a model that looks at pictures.")
    ] = None,
    lines: Annotated[
        str | None, typer.Option("--lines", help="A file, or - for standard input: say each line, a line for a line.")
    ] = None,
    story: Annotated[Path | None, typer.Option("--story", "-f", help="A file with one sentence on each line.")] = None,
    question: Annotated[str | None, typer.Option("--question", "-q", help="The question.")] = None,
    boost: Annotated[
        list[str] | None,
        typer.Option(
            "--boost", help="Look more at this sentence, word of the text, or box of the picture (repeatable)."
        ),
    ] = None,
    mute: Annotated[
        list[str] | None,
        typer.Option(
            "--mute", help="Never look at this sentence, word of the text, or box of the picture (repeatable)."
        ),
    ] = None,
    only: Annotated[
        list[str] | None,
        typer.Option(
            "--only",
            help="Look at nothing but this box of the picture, left,top,right,bottom in shares of it (repeatable).",
        ),
    ] = None,
    sure: Annotated[
        float | None,
        typer.Option("--sure", help="Take no more glimpses of a picture when an answer is likelier than this, 0 to 1."),
    ] = None,
    sample: Annotated[
        int | None, typer.Option("--sample", help="Draw so many texts instead of the likeliest; the best come first.")
    ] = None,
    temperature: Annotated[
        float, typer.Option("--temperature", help="For --sample: below 1 the likely becomes likelier.")
    ] = 1.0,
    seed: Annotated[int, typer.Option("--seed", help="For --sample: the same draws the same.")] = 0,
    stream: Annotated[bool, typer.Option("--stream", help="Print the text as it is said, greedily; no map.")] = False,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Write a .html or .json file.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the answer and the looks as JSON.")] = False,
) -> None:
    """Ask a trained model about a story or a picture, or for a translation or summary. See what it looked at."""
    if out is not None and out.suffix not in (".html", ".json"):
        raise InputError(f"{out.name} is neither .html nor .json: these can be written")
    words: dict[str, Any] = {}
    if lines is not None:
        if any(x is not None for x in (text, text_file, image, story, question, boost, mute, only, sure)):
            raise InputError("--lines stands alone: leave texts, stories and marks away")
        _say(run, lines, out, as_json=as_json)
        return
    if text is not None and text_file is not None:
        raise InputError("the text is given twice: as a word of the command, or with --text-file")
    for name, path in (("story", story), ("text", text_file)):
        if path is not None:
            try:
                words[name] = path.read_text(encoding="utf-8-sig")
            except (OSError, UnicodeDecodeError) as error:
                raise InputError(f"the {name} {path} cannot be read ({error}): give a text file in UTF-8") from None
    words |= {} if image is None else {"image": str(image)}
    words |= {} if text is None else {"text": text}
    if sample is not None or stream:
        if (
            "text" not in words
            or out is not None
            or any((image, story, question, boost, mute, only, sure))
            or (stream and as_json)
        ):
            raise InputError(
                "--sample and --stream take a text and nothing more, and print: no page, no story, no marks"
            )
        if sample is not None and stream:
            raise InputError("--sample draws several texts and --stream says one: choose one of them")
        _print(run, words["text"], sample, temperature, seed, as_json=as_json)
        return
    words |= {} if question is None else {"question": question}
    words |= {"boost": tuple(boost)} if boost else {}
    words |= {"mute": tuple(mute)} if mute else {}
    words |= {"only": tuple(only)} if only else {}
    words |= {} if sure is None else {"sure": sure}
    from recuerdo.workbench.running import predict as ask

    answer = ask(run, **words)
    if out is not None:
        page = json.dumps(answer.as_json(), ensure_ascii=False) if out.suffix == ".json" else answer.html()
        try:
            out.write_text(page, encoding="utf-8")
        except OSError as error:
            raise InputError(f"{out} cannot be written ({error.strerror}): name another file with --out") from error
    print(json.dumps(answer.as_json(), ensure_ascii=False) if as_json else answer.text())


def _print(run: Path, text: str, sample: int | None, temperature: float, seed: int, *, as_json: bool) -> None:
    """Texts that are drawn, or one as it is said."""
    from recuerdo.workbench.saying import draw
    from recuerdo.workbench.saying import stream as parts

    if sample is None:
        for part in parts(run, text):
            print(part, end="", flush=True)
        print()
        return
    found = draw(run, text, count=sample, temperature=temperature, seed=seed)
    if as_json:
        print(json.dumps([{"text": said, "score": score} for said, score in found], ensure_ascii=False))
        return
    print("\n".join(f"{score:7.3f}  {said}" for said, score in found))


def _say(run: Path, path: str, out: Path | None, *, as_json: bool) -> None:
    """A line for a line; what was said before an interruption is there."""
    from recuerdo.data.parallel import lines as read
    from recuerdo.workbench.saying import predict_lines

    if out is not None:
        raise InputError("--lines prints to standard output: send it to a file with > FILE, and leave --out away")
    with progress_bar() as report:
        here = [] if path == "-" else read(path)
        told, asked = tee((line.rstrip("\r\n").removeprefix(BOM) for line in sys.stdin) if path == "-" else here)
        for number, (text, said) in enumerate(zip(told, predict_lines(run, asked), strict=True)):
            print(json.dumps({"text": text, "said": said}, ensure_ascii=False) if as_json else said, flush=True)
            report("lines", number + 1, len(here))
