"""How captions of composed scenes are judged: fact by fact, and by what their words read."""

import random
from collections.abc import Iterator, Sequence
from functools import lru_cache

from recuerdo.data.scenes import SIDE, SPLITS, Box, Group, Scenes, claim, facts, scenes, spoken_of
from recuerdo.errors import InputError
from recuerdo.tasks.captioned import Seen

HELD = 1000  # scenes that are judged


@lru_cache(2)
def held(split: str) -> Scenes:
    """The scenes of "valid", "test" or "new", always the same. Raises InputError for another split."""
    if split not in SPLITS[1:]:
        raise InputError(f"there is no split {split!r} of the scenes to judge: choose valid or test")
    return scenes(split, HELD, random.Random(f"judged {split}"))


def judged(said: Sequence[str], groups: Sequence[Sequence[Group]]) -> dict[str, float]:
    """In percent: `error`, captions with a fact that is false or that no grammar knows; the facts of each kind that are
    true. And how many different sentences were said."""
    found: dict[str, list[bool]] = {}
    wrong = 0
    for line, some in zip(said, groups, strict=True):
        told = facts(claim(line), some)
        wrong += not all(all(each) for each in told.values())
        for name, each in told.items():
            found.setdefault(name, []).extend(each)
    true = {f"{name}s": 100 * sum(each) / len(each) for name, each in sorted(found.items()) if name != "sentence"}
    return {"error": 100 * wrong / len(said), **true, "sentences": len(set(said))}


def pointed(each: Sequence[Seen], groups: Sequence[Sequence[Group]]) -> dict[str, float]:
    """Of all words that name something on their scene, count, colour and shape, in percent: how often the cell that was
    read most has its middle in the box of that thing (pointing game); and what that box covers of the picture."""
    found = [one for seen, some in zip(each, groups, strict=True) for one in _pointings(seen, some)]
    count = max(1, len(found))
    return {
        "words on their thing": 100 * sum(inside for inside, _ in found) / count,
        "box of the picture": 100 * sum(covered for _, covered in found) / count,
    }


def follows(said: str, group: Group) -> bool:
    """Whether a caption is about one group and nothing else."""
    named = [what for _, what in spoken_of(said)]
    return bool(named) and all(what == group.what for what in named)


def share(box: Box) -> str:
    """A box of a scene as a mark: left, top, right, bottom in shares of the picture."""
    top, left, bottom, right = (min(max(edge, 0), SIDE) / SIDE for edge in box)
    return f"{left:.4f},{top:.4f},{right:.4f},{bottom:.4f}"


def _pointings(seen: Seen, groups: Sequence[Group]) -> Iterator[tuple[bool, float]]:
    for (start, end), what in spoken_of(" ".join(seen.words)):
        boxes = [group.box for group in groups if group.what == what]
        if not boxes:
            continue  # it is false: no box is right
        top, left, bottom, right = boxes[0]
        at = 0
        for word, row in zip(seen.words, seen.weights, strict=True):
            if start <= at < end:
                best = max(range(len(row)), key=row.__getitem__)
                down, across = (
                    (place + 0.5) * SIDE / many
                    for place, many in zip(divmod(best, seen.grid[1]), seen.grid, strict=True)
                )
                yield (top <= down < bottom and left <= across < right), (bottom - top) * (right - left) / SIDE**2
            at += len(word) + 1
