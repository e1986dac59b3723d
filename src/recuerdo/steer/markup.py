r"""Marks inside the text itself, as people write them.

    (the second key:4)   boost: the odds of these words times 4
    (the first key:0.2)  damp: times 0.2
    (the first key:0)    mute: these words are removed from the reads; with 1 they stay unmarked
    *the second key*     boost by EMPHASIS

What is no markup stays as it is, to the letter. So a weight counts only where

- the words hold no other brackets and no empty line, and begin and end with no space;
- no digit stands before the colon, which is a time or a verse: (10:30), (John 3:16);
- the number follows the colon at once, is below 100 and has no sign or leading zero: (note: 5), (host:8080), (x:-1)
  and (agent:007) are text;
- no letter, digit, `_` or `]` touches the opening bracket from outside, which is a call or a link: f(x:2), [a](b:2).

and stars count only where

- the words are on one line, hold no other star, and begin and end with no space: `2 * 3 * 4`, `* a point`, `**bold**`;
- they begin with no full stop, comma or other sign that closes: `*.txt,*.md`;
- no letter, digit, `_`, `/` or star touches the stars from outside: `2*3*4`, `/*code*/`.

Chinese and Japanese put no spaces between words: their letters may touch the markup. Marks do not nest: inside the
first one, the other's signs are text. A backslash before `(`, `)`, `*` or `:` takes that sign as text and goes (double
it in LaTeX's `\(x\)`); elsewhere a backslash is a backslash. Words that end in a digit: `*page 3*`, or mark a quote.
"""

import re

from recuerdo.errors import MarkError
from recuerdo.steer.marks import MOST, Mark, Span

__all__ = ["EMPHASIS", "escape_markup", "parse_markup"]

EMPHASIS = 4.0  # the factor on the odds of *words*

LETTER = r"[^\W\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff]"  # of a script that puts spaces between words
ESCAPE = re.compile(r"\\([()*:])")
MARKUP = re.compile(
    rf"""
      \\[()*:]
    | (?<! {LETTER} ) (?<! \] )
      \( (?P<weighed> (?! \s ) (?: \\[()*:] | \n (?! [^\S\n]* \n ) | [^()\n] )++ \) )
    | (?<! {LETTER} ) (?<! [*/] )
      \* (?P<starred> (?! [\s*.,;:!?=/)\]}}] ) (?: \\[()*:] | [^*\n] )++ ) (?<! \s ) \* (?! {LETTER} | [*/] )
    """,
    re.VERBOSE,
)
WEIGHED = re.compile(r"(?P<words> .* [^\s\d\\] ) : (?P<weight> (?: 0 | [1-9]\d? )? (?: \.\d+ )? ) \) ", re.S | re.X)


def parse_markup(text: str) -> tuple[str, list[Mark]]:
    """The text without its markup, and its marks, each a Span of that text with its quote.

    Raises MarkError for more than MOST marks.
    """
    parts: list[str] = []
    marks: list[Mark] = []
    length = done = 0

    def put(piece: str) -> None:
        nonlocal length
        parts.append(piece)
        length += len(piece)

    at = 0
    while (found := MARKUP.search(text, at)) is not None:
        at = found.end()
        words, factor = _meant(found)
        if words is None:  # a bracket without a weight: what is in it may be markup still
            at = found.start() + 1
            continue
        put(text[done : found.start()])
        start = length
        put(words)
        done = at
        if factor is not None and factor != 1:
            marks.append(_mark(Span(start, length, words), factor))
        if len(marks) > MOST:
            raise MarkError(f"the text holds more than {MOST:,} marks: at most {MOST:,} at once")
    put(text[done:])
    return "".join(parts), marks


def _meant(found: re.Match[str]) -> tuple[str | None, float | None]:
    """The words of a place that looks like markup and their factor; (None, None) where it is text."""
    if found["starred"] is not None:
        return ESCAPE.sub(r"\1", found["starred"]), EMPHASIS
    if found["weighed"] is None:
        return found[0][1], None  # an escaped sign
    weighed = WEIGHED.fullmatch(found["weighed"])
    if weighed is None or not weighed["weight"]:
        return None, None
    return ESCAPE.sub(r"\1", weighed["words"]), float(weighed["weight"])


def _mark(where: Span, factor: float) -> Mark:
    if factor == 0:
        return Mark(where, "mute")
    return Mark(where, "boost" if factor > 1 else "damp", factor)


def escape_markup(text: str) -> str:
    """The text that `parse_markup` reads as `text` without any mark; also fit to stand inside a mark."""
    return re.sub(r"[()*:]", r"\\\g<0>", text)
