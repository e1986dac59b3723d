"""What a memory was asked and what it read, as one page: no script, no network, and every text as text."""

import re
import time
from collections.abc import Mapping, Sequence
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import Any

from recuerdo.errors import InputError

UNSEEN = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")
FAINT = 0.01  # shares below this are grey
LONG = 45  # characters of a line that goes on in the next
ROOM = 0.06  # shares above this have room for their number in the strip
AGES = ((365.25, "year"), (30.44, "month"), (1.0, "day"), (1 / 24, "hour"), (1 / 1440, "minute"))  # days


def asked_page(asked: Mapping[str, Any], *, memory: str = "", command: str = "", now: float | None = None) -> str:
    """The page of an answer, as `recuerdo ask --json` gives it: the question, and of each hop the rows that were read.

    `memory` and `command` say where it is from; `now` (seconds since 1970, None = this moment) is what ages count to.
    """
    css = files("recuerdo.explain").joinpath("static/asked.css").read_text(encoding="utf-8")
    moment = time.time() if now is None else now
    hops = [_hop(number, hop, len(asked["hops"]), moment) for number, hop in enumerate(asked["hops"], 1)]
    made = time.strftime("%Y-%m-%d %H:%M", time.localtime(moment))
    foot = [f"{_text(memory)}, asked {made}" if memory else f"asked {made}"]
    foot += [f"<code>{_text(command)}</code>"] if command else []
    policy = "default-src 'none'; style-src 'unsafe-inline'"
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="referrer" content="no-referrer">
<title>{_text(asked["question"])}</title>
<style>
{css}</style>
</head>
<body>
<header>
<p>recuerdo · asked of a memory</p>
<h1 dir="auto">{_text(asked["question"])}</h1>
{_overview(asked)}
</header>
<main>
{"".join(hops)}</main>
<footer>
{"".join(f"<p>{line}</p>" for line in foot)}
</footer>
</body>
</html>
"""


def write_asked(
    asked: Mapping[str, Any], path: Path, *, memory: str = "", command: str = "", now: float | None = None
) -> None:
    """Write the page of an answer. Raises InputError for a file that cannot be written."""
    try:
        path.write_text(asked_page(asked, memory=memory, command=command, now=now), encoding="utf-8", errors="replace")
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error.strerror}") from error


def _overview(asked: Mapping[str, Any]) -> str:
    """All of the attention of the last look in one strip, and in words how much of it is shown."""
    last: Sequence[Mapping[str, Any]] = asked["hops"][-1] if asked["hops"] else ()
    if not last:
        return '<p class="all">Nothing is there to be read.</p>'
    # A weight is a share of what was looked at, and the strip is all: what was not looked at counts to the rest.
    seen = asked["covered"] / (sum(one["weight"] for one in last) or 1.0)
    strip = "".join(_part(seen * one["weight"], f"#{one['id']}") for one in last)
    rest = 1.0 - asked["covered"]
    if rest > 0.0005:
        label = f"{_percent(rest)} not shown" if rest > 3 * ROOM else ""
        strip += f'<span class="rest{"" if label else " bare"}" style="flex:{rest:.4f}">{label}</span>'
    exact = asked["looked"] == asked["addressed"]
    share = f"{'' if exact else 'at least '}{_percent(asked['covered'])}"
    rows = f"{asked['looked']:,} of {asked['addressed']:,} rows were looked at"
    who = f"At hop {len(asked['hops'])} these" if len(asked["hops"]) > 1 else "These"
    return (
        f'<div class="strip" role="img" aria-label="Shares of the attention, row by row">{strip}</div>\n'
        f'<p class="all">{who} rows hold {share} of the attention; {rows}.</p>'
    )


def _part(share: float, label: str) -> str:
    room = share > ROOM
    kind = " ".join(filter(None, ("dark" if share > 0.45 else "", "" if room else "bare")))
    style = f"flex:{share:.4f};--share:{100 * share**0.5:.0f}%"
    return f'<span class="{kind}" style="{style}">{label if room else ""}</span>'


def _hop(number: int, hop: Sequence[Mapping[str, Any]], hops: int, now: float) -> str:
    asks = "the question" if number == 1 else f"the question, moved by what hop {number - 1} read"
    head = f"<h2><b>Hop {number}</b> of {hops}: {asks}</h2>\n" if hops > 1 else ""
    rows = "".join(_row(one, now) for one in hop)
    return f"<section>\n{head}<ol>\n{rows}</ol>\n</section>\n" if rows else head


def _row(one: Mapping[str, Any], now: float) -> str:
    share, text, sentence = one["weight"], _flowed(str(one["text"])), _flowed(str(one["sentence"]))
    before, found, after = text.partition(sentence) if sentence else (text, "", "")
    marked = f"{_text(before)}<mark>{_text(found)}</mark>{_text(after)}" if found else _text(text)
    return (
        f'<li{" class=faint" if share < FAINT else ""} style="--share:{100 * share**0.5:.0f}%">\n'
        f'<div class="share"><span>{_number(share)}<small> %</small></span>'
        f'<span class="bar"><i style="width:{100 * share:.2f}%"></i></span></div>\n'
        f'<div><p class="text" dir="auto">{marked}</p>\n<dl>{"".join(_facts(one, now))}</dl></div>\n</li>\n'
    )


def _flowed(text: str) -> str:
    """A text in which the end of a long line is no end: it was only the end of the paper."""
    return re.sub(rf"(?<=[^\n]{{{LONG}}})\n(?=[^\n])", " ", text)


def _facts(one: Mapping[str, Any], now: float) -> list[str]:
    """What is known of a row, name by name."""
    version = f", version {one['version']}" if one["version"] > 1 else ""
    tags = "".join(f'<span class="tag">{_text(tag)}</span>' for tag in one["tags"])
    told = [
        ("row", f'<span class="id">#{one["id"]}</span>{version}', ""),
        ("source", _text(one["source"]), ""),
        ("by", _text(one["author"]), "seen"),
        ("time", _when(one["time"], now), ""),
        ("tags", tags, ""),
        ("bias", f"{one['bias']:+g} by hand" if one["bias"] else "", "seen"),
        ("also said by", ", ".join(f"#{id}" for id in one["also"]), "seen"),
    ]
    return [
        f"<div{' class=hand' if name == 'bias' else ''}><dt class={seen or 'unseen'}>{name}</dt><dd>{value}</dd></div>"
        for name, value, seen in told
        if value
    ]


def _when(seconds: float, now: float) -> str:
    """The day that a row speaks of, and how long ago that is."""
    try:
        day = time.strftime("%Y-%m-%d", time.localtime(seconds))
    except (OverflowError, ValueError, OSError):
        return ""
    days = (now - seconds) / 86_400
    for size, name in AGES:
        if (n := int(abs(days) / size)) >= 1:
            ago = f"{n} {name}{'s' if n > 1 else ''}"
            return f"{day}, {ago} ago" if days > 0 else f"{day}, in {ago}"
    return f"{day}, just now"


def _percent(share: float) -> str:
    return f"{_number(share)} %"


def _number(share: float) -> str:
    return "< 0.1".replace("<", "&lt;") if 0 < share < 0.001 else f"{100 * share:.1f}"


def _text(text: Any) -> str:
    """A text of somebody else, as text."""
    return escape(UNSEEN.sub("�", str(text)), quote=True)
