"""Evidence in a terminal: the answer, the sentences it read most, and the text in its heat."""

import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from recuerdo.explain.evidence import Evidence

WORDS_AT_MOST = 400  # a longer text is shown by its most-read sentences
PAPER, HEAT, COOL = np.array([251, 250, 247]), np.array([196, 84, 14]), np.array([38, 96, 142])


# A text may hold codes that move the cursor or rename the window: they are shown, not sent.
_CODES = {c: chr(0x2400 + c) if c < 32 else "�" for c in [*range(32), *range(127, 160)] if chr(c) not in "\t\n"}


def _clean(text: str) -> str:
    return text.translate(_CODES)


def _safe(text: str) -> str:
    """Text that is neither a code of the terminal nor markup."""
    return escape(_clean(text))


def show(evidence: Evidence, console: Console | None = None) -> None:
    """Print a look."""
    console = console or Console(highlight=False, emoji=False)
    size = f"{evidence.tokens} tokens · {evidence.layers} layers × {evidence.heads} heads"
    console.print(f"[bold]{_safe(evidence.model)}[/] [dim]· {size} · {_safe(evidence.selection)}[/]\n")
    if evidence.question:
        console.print(f"[italic dim]{_safe(evidence.question)}[/]")
    if evidence.before is not None and evidence.before.answer is not None:
        console.print(f"[dim]before[/]  {_safe(_joined(evidence.before.answer))}")
        console.print("[dim]after [/]  ", end="")
    if evidence.answer is not None:
        console.print(f"[bold]{_safe(_joined(evidence.answer))}[/]\n")
    _marks(evidence, console)
    row = evidence.view().map.row(0)
    if len(evidence.text) <= WORDS_AT_MOST:
        console.print(heated(evidence, row))
        console.print()
    if not evidence.view().map.signed:
        _sentences(evidence, console)
    if evidence.kind == "alignment":
        _alignment(evidence, console)
    else:
        _words(evidence, row, console)
    _foot(evidence, console)


def _joined(words) -> str:
    return "".join(w + g for w, g in zip(words.words, words.glue, strict=True)).strip()


def heated(evidence: Evidence, row: np.ndarray) -> Text:
    """The text, each word on a background as warm as its share (square root); less than zero is blue."""
    text, most = Text(), max(float(np.abs(row).max(initial=0.0)), 1e-9)
    for raw_word, raw_glue, share in zip(evidence.text.words, evidence.text.glue, row, strict=True):
        word, glue = _clean(raw_word), _clean(raw_glue)
        warmth = float(np.sqrt(abs(share) / most))
        if warmth > 0.25:
            r, g, b = (PAPER + ((HEAT if share > 0 else COOL) - PAPER) * warmth * 0.9).astype(int)
            text.append(word, style=f"{'white' if warmth > 0.8 else 'black'} on rgb({r},{g},{b})")
        else:
            text.append(word)
        text.append(glue)
    return text


def _sentences(evidence: Evidence, console: Console) -> None:
    shares = evidence.sentences()
    if len(shares) < 2:
        return
    console.print("[dim]most-read sentences[/]")
    for i in np.argsort(-shares)[:3]:
        if shares[i] > 0:
            console.print(
                f"  [bold]{100 * shares[i]:4.0f} %[/]  {_safe(' '.join(evidence.text.sentence(int(i)).split()))}"
            )
    console.print()


def _words(evidence: Evidence, row: np.ndarray, console: Console) -> None:
    best = np.argsort(-np.abs(row))[:8]
    most = max(float(np.abs(row).max(initial=0.0)), 1e-9)
    signed = evidence.view().map.signed
    table = Table(box=None, show_header=False, pad_edge=False)
    for i in best:
        if row[i] != 0:
            bar = "█" * max(1, round(20 * abs(float(row[i])) / most))
            colour = "rgb(196,84,14)" if row[i] > 0 else "rgb(38,96,142)"
            share = f"{100 * row[i]:+.2f} %" if signed else f"{100 * row[i]:.2f} %"
            table.add_row(_safe(evidence.text.words[i]), f"[{colour}]{bar}[/]", f"[dim]{share}[/]")
    console.print(f"[dim]{'read more (+) and less (-)' if signed else 'most-read words'}[/]")
    console.print(table)


def _marks(evidence: Evidence, console: Console) -> None:
    """What was marked, what moved, and the guard rails."""
    for mark in evidence.marks:
        words = " … ".join(_run(evidence.text, a, b) for a, b in mark.words)
        scope = f" [dim]({_safe(mark.scope)})[/]" if mark.scope else ""
        console.print(f"  [bold]{_safe(mark.label)}[/]  {_safe(words)}{scope}")
    guard = evidence.guard
    if guard is not None:
        before, after = guard["mass"]
        console.print(
            f"  [dim]read of the marked part[/] {100 * before:.1f} % → {100 * after:.1f} %  "
            f"[dim]· from its own answer[/] {guard['kl']:.2f} nats a step  "
            f"[dim]· plausible tokens[/] {100 * guard['plausible']:.0f} %  "
            f"[dim]· fluency[/] {guard['fluency'][0]:.2f} → {guard['fluency'][1]:.2f} bits"
        )
        for warning in guard["warnings"]:
            console.print(f"  [yellow]! {_safe(warning)}[/]")
    if evidence.moved is not None:
        row = evidence.moved.map.row(0)
        order = [i for i in np.argsort(-np.abs(row))[:8] if row[i] != 0]
        told = "  ".join(f"{_safe(evidence.text.words[i])} {100 * row[i]:+.1f}" for i in order)
        console.print(f"  [dim]what moved, points of share:[/] {told}")
    if evidence.marks or guard is not None:
        console.print()


def _run(text, first: int, end: int) -> str:
    words = "".join(text.words[i] + text.glue[i] for i in range(first, end)).strip()
    return words if len(words) <= 80 else words[:50] + " … " + words[-25:]


def _trust(evidence: Evidence, console: Console) -> None:
    """How far the map can be trusted, for the view that is shown."""
    for t in evidence.trust:
        if t.view == evidence.view().name:
            score = "no score" if t.score is None else f"{t.score:.0f} [{t.low:.0f}, {t.high:.0f}]"
            style = "bold" if t.verdict == "better than chance" else "bold yellow"
            console.print(f"[dim]truth ({t.measure}, {t.removal}):[/] [{style}]{score} · {_safe(t.verdict)}[/]")


def _alignment(evidence: Evidence, console: Console) -> None:
    table = Table(box=None, pad_edge=False)
    for title in ("target", "read", "share"):
        table.add_column(title, style=None if title == "target" else "dim")
    for i, word in enumerate(evidence.queries.words):
        row = evidence.view().map.row(1 + i)
        best = np.argsort(-row)[:3]
        read = "  ".join(evidence.text.words[j] for j in best if row[j] > 0)
        table.add_row(_safe(word), _safe(read), f"{100 * row[best[0]]:.0f} %")
    console.print(table)


def _foot(evidence: Evidence, console: Console) -> None:
    view = evidence.view()
    console.print(f"\n[dim]{_safe(view.label)}: {_safe(view.note)}[/]")
    _trust(evidence, console)
    if evidence.sinks:
        names = ", ".join(f"{s.word.strip() or s.word!r} {100 * s.share:.1f} %" for s in evidence.sinks[:6])
        console.print(f"[dim]sinks: {_safe(names)}{' …' if len(evidence.sinks) > 6 else ''}[/]")
    console.print("[dim]--out page.html opens it up: every word, every head, every cell[/]")
