"""`recuerdo demo`: a two-minute tour that ends with a page."""

import sys
import webbrowser
from importlib.resources import files
from pathlib import Path
from typing import Annotated

import typer

from recuerdo.cli.look import writable
from recuerdo.cli.progress import progress_bar
from recuerdo.cli.remembered import remembered

QUESTION = "What did Jacob Devlin and his colleagues train?"
COLOURS = (
    "Previously, the lighthouse of Vell was painted red. Now the lighthouse of Vell is painted green.",
    "What colour is the lighthouse of Vell?",
    "Previously, the lighthouse of Vell was painted red.",
)

FRENCH = "Un petit chien noir court sur la plage avec une balle rouge."
UNREAD = "rouge"

SCENE, BOXED = "c", "0.34,0.34,0.67,0.67"  # which scene is drawn, and the box of the group in its middle

STORY = """Mary moved to the bathroom.
Mary got the football there.
John went to the kitchen.
Mary went back to the kitchen.
Mary went back to the garden."""


def demo(
    out: Annotated[Path, typer.Option("--out", "-o", help="Where to write the page.")] = Path("recuerdo-demo.html"),
    show: Annotated[bool, typer.Option("--open/--no-open", help="Open the page in a browser.")] = True,
) -> None:
    """Tour: a small language model answers from a text of several pages, and you see where it looked."""
    writable(out)
    from rich.console import Console

    console = Console(highlight=False)
    document = files("recuerdo.cli").joinpath("texts/history.txt").read_text(encoding="utf-8")
    console.print("[bold]recuerdo[/] [dim]· a tour in eight steps[/]\n")
    console.print("[bold]1[/]  One read: two words look at three others. The weights of each row sum to one.\n")
    _one_read(console)
    length = len(document.split())
    console.print(
        f"\n[bold]2[/]  SmolLM2-135M (30 layers × 9 heads) reads a text of {length} words and is asked:\n"
        f"    [italic]{QUESTION}[/]\n"
    )
    with progress_bar() as report:
        from recuerdo.explain import render
        from recuerdo.workbench.looking import load, look

        model = load("smollm2", progress=report)
        taken = look(model, document, question=QUESTION, generate=32, progress=report)
        seen = taken.draw_map(progress=report).evidence
    seen.command = "recuerdo demo"
    render.show(seen, console)
    render.write(seen, out)
    _steering(console, model)
    _memory(console)
    _translating(console)
    _captioning(console)
    remembered(console)
    size = out.stat().st_size / 1e6
    console.print(
        f"\n[bold]8[/]  All of step 2, word by word and head by head, is in [bold]{out}[/] ({size:.1f} MB, no network)."
    )
    console.print("    Choose a word of the answer there; the text below shows what that word read.\n")
    console.print('[dim]Your own: recuerdo look --text-file FILE --question "…" --out page.html[/]')
    console.print('[dim]          recuerdo steer --text-file FILE --question "…" --boost "its words"[/]')
    console.print('[dim]          recuerdo predict babi-reader --story FILE --question "…"[/]')
    console.print('[dim]          recuerdo predict translate-fr-en "…" --out alignment.html[/]')
    console.print(
        '[dim]          recuerdo predict caption-scenes --image examples/scene.png --only "0.3,0.3,0.7,0.7"[/]'
    )
    console.print('[dim]          recuerdo remember FOLDER; recuerdo ask "…"[/]')
    if show and sys.stdout.isatty():
        webbrowser.open(out.resolve().as_uri())


def _steering(console, model) -> None:
    """One sentence is marked, and the answer follows the mark."""
    from recuerdo.steer.marks import boost
    from recuerdo.steer.profiles import load_profile
    from recuerdo.workbench.steering import ask_steered

    text, question, marked = COLOURS
    profile = load_profile("smollm2-facts")
    with progress_bar() as report:
        asked = ask_steered(
            model,
            text,
            profile.mark(boost(marked, 4.0)),
            question=question,
            generate=10,
            profile=profile,
            progress=report,
        )
    shares = [f"{100 * mass:.0f} %" for mass in asked.guard.mass]
    console.print(
        "\n[bold]3[/]  Look here, not there. A person marks one sentence, and the model obeys in its attention:\n"
    )
    console.print(f"    [underline]{marked}[/]{text[len(marked) :]}\n    [italic]{question}[/]\n")
    console.print(f"    before   {asked.before.heard.answer.strip()}")
    console.print(f"    after    [bold]{asked.after.heard.answer.strip()}[/]")
    console.print(
        f"    [dim]read of it {shares[0]} → {shares[1]}; {asked.guard.kl:.1f} nats a step from its own answer[/]"
    )


def _memory(console) -> None:
    """A memory network answers from a story, hop by hop, and again without one of the sentences."""
    from recuerdo.workbench.running import predict

    asked = predict("babi-reader", story=STORY, question="Where is the football?", mute=(STORY.splitlines()[-1],))
    console.print(
        "\n[bold]4[/]  A memory network of 0.4 million parameters, trained on bAbI, reads a story.\n"
        "    Each hop reads again; the last sentence is then taken out of every read:\n"
    )
    for line in asked.text().splitlines():
        console.print(f"    {line}", markup=False, soft_wrap=True)


def _translating(console) -> None:
    """A translator shows what each of its words read, and says the line again without one of the source's words."""
    from recuerdo.workbench.running import predict

    asked = predict("translate-fr-en", text=FRENCH, mute=(UNREAD,))
    console.print(
        f"\n[bold]5[/]  A Transformer of 3.7 million parameters, trained on Tatoeba and Multi30k, reads French:\n"
        f"    [italic]{FRENCH}[/]\n    Each row is a word that it says, darker is what it read more of.\n"
    )
    for line in asked.before.text().splitlines():
        console.print(f"    {line}", markup=False, soft_wrap=True)
    console.print(f"\n    Without reading [italic]{UNREAD}[/] it says:\n    [bold]{' '.join(asked.words)}[/]")


def _captioning(console) -> None:
    """A captioner says what is on a picture, and again when a person draws a box."""
    import random

    from recuerdo.data.scenes import scenes
    from recuerdo.workbench.running import predict

    made = scenes("test", 1, random.Random(SCENE))
    asked = predict("caption-scenes", image=made.pixels[0], only=(BOXED,))
    console.print(
        "\n[bold]6[/]  A captioner of 1 million parameters says what is on a picture of 72 x 72 pixels.\n"
        "    Under each word is where it looked (Show, Attend and Tell):\n"
    )
    for line in asked.before.text().splitlines():
        console.print(f"    {line}", markup=False, soft_wrap=True)
    console.print(f"\n    With nothing read outside of the box {BOXED} it says:\n    [bold]{' '.join(asked.words)}[/]")


def _one_read(console) -> None:
    """The atom, small enough to see whole."""
    import torch

    from recuerdo.read import read

    keys = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])[None, None]
    queries = torch.tensor([[2.0, 0.0], [0.0, 2.0]])[None, None]
    weights = read(queries, keys, keys).weights[:, :][0, 0]
    for name, row in zip(("wool", "iron"), weights.tolist(), strict=True):
        cells = "   ".join(
            f"{key} {100 * share:3.0f} %" for key, share in zip(("sheep", "mine", "harbour"), row, strict=True)
        )
        console.print(f"    {name}  →  {cells}")
