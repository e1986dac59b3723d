"""A reader of bAbI's sentences, written without a look at the simulation: what does the text say, word by word?

`answer(task, sentences, question)` knows the forms of all 20 tasks and is itself held against bAbI's own files.
"""

import itertools
import re

MOVE = r"(?:moved to|went to|went back to|travelled to|journeyed to)"
GET = r"(?:got|grabbed|took|picked up)"
DROP = r"(?:left|discarded|dropped|put down)"
GIVE = r"(?:passed|handed|gave)"
ONE = {"mice": "mouse", "cats": "cat", "wolves": "wolf", "sheep": "sheep"}
ONE |= {"foxes": "fox", "geese": "goose", "bears": "bear", "deer": "deer", "hawks": "hawk"}
WAY = {"north": (0, 1), "south": (0, -1), "east": (1, 0), "west": (-1, 0)}
SIDE = {"above": (0, 1), "below": (0, -1), "to the right of": (1, 0), "to the left of": (-1, 0)}


def answer(task: int, sentences: list[str], question: str) -> str | None:
    """The answer, or None where the text does not tell."""
    if task in (15, 16, 17, 18, 19, 4):
        return {4: _beside, 15: _afraid, 16: _colour, 17: _side, 18: _size, 19: _path}[task](sentences, question)
    if task == 14:
        return _times(sentences, question)
    if task == 20:
        return _why(sentences, question)
    return _world(sentences, question)


def _world(sentences: list[str], question: str) -> str | None:
    where: dict[str, list[tuple[bool, tuple[str, ...]]]] = {}  # person -> what was said of places, newest last
    holds: dict[str, list[str]] = {}
    been: dict[str, list[str]] = {}
    gifts: list[tuple[str, str, str]] = []
    who: list[str] = []
    had: dict[str, list[str]] = {}  # all that somebody ever got, in order: bAbI lists things by when they came first

    def at(person: str) -> str | None:
        said = where.get(person)
        return said[-1][1][0] if said and said[-1][0] and len(said[-1][1]) == 1 else None

    def bring(thing: str, place: str | None) -> None:
        if place and (not been.get(thing) or been[thing][-1] != place):
            been.setdefault(thing, []).append(place)

    for line in sentences:
        line = re.sub(r"^(afterwards|after that|following that|then) ", "", line)
        if m := re.fullmatch(rf"(.+?) {MOVE} the (\w+)", line):
            if m[1] not in ("he", "she", "they"):
                who = m[1].split(" and ")
            for person in who:
                where.setdefault(person, []).append((True, (m[2],)))
                for thing in holds.get(person, []):
                    bring(thing, m[2])
        elif m := re.fullmatch(r"(\w+) is either in the (\w+) or the (\w+)", line):
            where.setdefault(m[1], []).append((True, (m[2], m[3])))
        elif m := re.fullmatch(r"(\w+) is (no longer |not )?in the (\w+)", line):
            where.setdefault(m[1], []).append((m[2] is None, (m[3],)))
        elif m := re.fullmatch(rf"(\w+) {GIVE} the (\w+) to (\w+)", line):
            gifts.append((m[1], m[2], m[3]))
            holds[m[1]].remove(m[2])
            holds.setdefault(m[3], []).append(m[2])
            had.setdefault(m[3], []).append(m[2])
        elif m := re.fullmatch(rf"(\w+) {GET} the (\w+)(?: there)?", line):
            holds.setdefault(m[1], []).append(m[2])
            had.setdefault(m[1], []).append(m[2])
            bring(m[2], at(m[1]))
        elif m := re.fullmatch(rf"(\w+) {DROP} the (\w+)(?: there)?", line):
            holds[m[1]].remove(m[2])
        else:
            raise AssertionError(f"no such sentence in bAbI: {line}")
    holds = {person: sorted(things, key=had[person].index) for person, things in holds.items()}
    return _asked(question, where, holds, been, gifts)


def _asked(question, where, holds, been, gifts) -> str | None:
    def last(fits, which: int) -> str | None:
        return next((gift[which] for gift in reversed(gifts) if fits(*gift)), None)

    if m := re.fullmatch(r"where is the (\w+)", question):
        return been[m[1]][-1]
    if m := re.fullmatch(r"where was the (\w+) before the (\w+)", question):
        places = been[m[1]]
        return places[len(places) - 1 - places[::-1].index(m[2]) - 1]
    if m := re.fullmatch(r"where is (\w+)", question):
        return where[m[1]][-1][1][0]
    if m := re.fullmatch(r"is (\w+) in the (\w+)", question):
        true, places = where[m[1]][-1]
        if not true:
            return "no" if m[2] in places else None
        return "no" if m[2] not in places else "yes" if len(places) == 1 else "maybe"
    if m := re.fullmatch(r"how many objects is (\w+) carrying", question):
        return ("none", "one", "two", "three", "four")[len(holds.get(m[1], []))]
    if m := re.fullmatch(r"what is (\w+) carrying", question):
        return ",".join(holds.get(m[1], [])) or "nothing"
    if m := re.fullmatch(r"what did (\w+) give to (\w+)", question):
        return last(lambda giver, thing, taker: (giver, taker) == (m[1], m[2]), 1)
    if m := re.fullmatch(r"who received the (\w+)", question):
        return last(lambda giver, thing, taker: thing == m[1], 2)
    if m := re.fullmatch(r"who did (\w+) give the (\w+) to", question):
        return last(lambda giver, thing, taker: (giver, thing) == (m[1], m[2]), 2)
    if m := re.fullmatch(r"who gave the (\w+)(?: to (\w+))?", question):
        return last(lambda giver, thing, taker: thing == m[1] and m[2] in (None, taker), 0)
    raise AssertionError(f"no such question in bAbI: {question}")


def _beside(sentences: list[str], question: str) -> str | None:
    said = [re.fullmatch(r"the (\w+) is (\w+) of the (\w+)", line).groups() for line in sentences]
    opposite = {"north": "south", "south": "north", "east": "west", "west": "east"}
    said += [(c, opposite[way], a) for a, way, c in said]
    if m := re.fullmatch(r"what is (\w+) of the (\w+)", question):
        found = [a for a, way, c in said if (way, c) == (m[1], m[2])]
    else:
        m = re.fullmatch(r"what is the (\w+) (\w+) of", question)
        found = [c for a, way, c in said if (a, way) == (m[1], m[2])]
    return found[0] if len(found) == 1 else None


def _afraid(sentences: list[str], question: str) -> str | None:
    text = "\n".join(sentences)
    name = re.fullmatch(r"what is (\w+) afraid of", question)[1]
    kind = re.search(rf"^{name} is a (\w+)$", text, re.M)[1]
    fears = {ONE[a]: ONE[c] for a, c in re.findall(r"^(\w+) are afraid of (\w+)$", text, re.M)}
    return fears[kind]


def _colour(sentences: list[str], question: str) -> str | None:
    name = question.split()[-1]
    kind = dict(m.groups() for line in sentences if (m := re.fullmatch(r"(\w+) is a (\w+)", line)))
    has = [m.groups() for line in sentences if (m := re.fullmatch(r"(\w+) is (?!a )(\w+)", line))]
    return [c for other, c in has if kind.get(other) == kind[name] and other != name][-1]


def _side(sentences: list[str], question: str) -> str | None:
    sides = "|".join(SIDE)
    known: dict[str, tuple[int, int]] = {}
    said = [re.fullmatch(rf"the (.+) is ({sides}) the (.+)", line).groups() for line in sentences]
    known[said[0][2]] = (0, 0)
    for _ in said:
        for a, side, c in said:
            dx, dy = SIDE[side]
            if c in known:
                known[a] = (known[c][0] + dx, known[c][1] + dy)
            elif a in known:
                known[c] = (known[a][0] - dx, known[a][1] - dy)
    a, side, c = re.fullmatch(rf"is the (.+) ({sides}) the (.+)", question).groups()
    (ax, ay), (cx, cy), (dx, dy) = known[a], known[c], SIDE[side]
    return "yes" if (ax - cx) * dx + (ay - cy) * dy > 0 else "no"


def _size(sentences: list[str], question: str) -> str | None:
    smaller = set()
    for line in sentences:
        if m := re.fullmatch(r"the (.+) fits inside the (.+)", line):
            smaller.add((m[1], m[2]))
        else:
            m = re.fullmatch(r"the (.+) is bigger than the (.+)", line)
            smaller.add((m[2], m[1]))
    while more := {(a, d) for (a, b), (c, d) in itertools.product(smaller, smaller) if b == c} - smaller:
        smaller |= more
    m = re.fullmatch(r"is the (.+) bigger than the (.+)|does the (.+) fit in the (.+)", question)
    small, large = (m[2], m[1]) if m[1] else (m[3], m[4])
    assert ((small, large) in smaller) != ((large, small) in smaller)
    return "yes" if (small, large) in smaller else "no"


def _path(sentences: list[str], question: str) -> str | None:
    go = {}
    for line in sentences:
        a, way, c = re.fullmatch(r"the (\w+) is (\w+) of the (\w+)", line).groups()
        go[c, a] = way
        go[a, c] = next(w for w, (x, y) in WAY.items() if (x + WAY[way][0], y + WAY[way][1]) == (0, 0))
    start, end = re.fullmatch(r"how do you go from the (\w+) to the (\w+)", question).groups()
    ways = [f"{go[a, b][0]},{go[b, c][0]}" for a, b in go for b2, c in go if (a, b, c) == (start, b2, end)]
    return ways[0] if len(ways) == 1 else None


def _times(sentences: list[str], question: str) -> str | None:
    times = ("yesterday", "this morning", "this afternoon", "this evening")
    name, place = re.fullmatch(r"where was (\w+) before the (\w+)", question).groups()
    been = []
    for line in sentences:
        when = next(t for t in times if t in line)
        m = re.fullmatch(rf"(\w+) {MOVE} the (\w+)", line.replace(when, "").strip())
        if m[1] == name:
            been.append((times.index(when), m[2]))
    places = [p for _, p in sorted(been)]
    return places[len(places) - 1 - places[::-1].index(place) - 1]


def _why(sentences: list[str], question: str) -> str | None:
    mended = {"tired": "bedroom", "hungry": "kitchen", "thirsty": "kitchen", "bored": "garden"}
    mended |= {"sleepy": "attic", "curious": "library", "cold": "cellar", "restless": "courtyard"}
    name = re.match(r"(?:where will|why did) (\w+) ", question)[1]
    feels = [m[1] for line in sentences if (m := re.fullmatch(rf"{name} is (\w+)", line))][-1]
    return mended[feels] if question.startswith("where") else feels
