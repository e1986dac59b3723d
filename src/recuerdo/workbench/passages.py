"""A long text as passages that an encoder can take: whole sentences, some of them in two passages."""

from recuerdo.explain.words import cut

MOST = 120  # words of a passage
OVERLAP = 1  # sentences that also begin the next passage


def sentences_of(text: str) -> list[str]:
    """The sentences of a text, as they are written."""
    words = cut(text)
    return [words.sentence(i) for i in range(len(words.sentences))]


def passages(text: str, *, most: int = MOST, overlap: int = OVERLAP) -> list[str]:
    """A text in passages of whole sentences, at most `most` words long where sentences allow it.

    A passage begins with the last `overlap` sentences of the one before, where both belong to one paragraph: what
    stands at a seam is found in one of the two. A sentence that is longer by itself is cut between words.
    """
    words = cut(text)
    starts = [*words.sentences, len(words)]
    edges = set(words.paragraphs)
    found: list[str] = []
    at = 0
    while at < len(starts) - 1:
        last = at + 1
        while last < len(starts) - 1 and starts[last + 1] - starts[at] <= most and starts[last] not in edges:
            last += 1
        for first in range(starts[at], starts[last], most):
            piece = "".join(
                word + glue
                for word, glue in zip(
                    words.words[first : min(first + most, starts[last])],
                    words.glue[first : min(first + most, starts[last])],
                    strict=True,
                )
            ).strip()
            if piece:
                found.append(piece)
        whole = last == len(starts) - 1 or starts[last] in edges
        at = last if whole else max(at + 1, last - overlap)
    return found
