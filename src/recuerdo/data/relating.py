"""Simulated stories of how things relate: bAbI's tasks 4 and 15 to 19. Answers come from places, orders and kinds."""

from recuerdo.data.telling import Telling

COMPASS = {"north": (0, 1), "south": (0, -1), "east": (1, 0), "west": (-1, 0)}
SIDES = {"above": (0, 1), "below": (0, -1), "to the right of": (1, 0), "to the left of": (-1, 0)}
Cell = tuple[int, int]


def _step(cell: Cell, way: Cell) -> Cell:
    return cell[0] + way[0], cell[1] + way[1]


def _opposite(way: str, ways: dict[str, Cell]) -> str:
    return next(name for name, (x, y) in ways.items() if (-x, -y) == ways[way])


def beside(tell: Telling) -> None:
    """Task 4: what is east of a place, or what is it east of?"""
    middle, one, two = tell.some(tell.names.places, 3)
    way = tell.pick(tuple(COMPASS))  # three places in a line, as in bAbI
    told = []
    for place, side in ((one, way), (two, _opposite(way, COMPASS))):
        line = place, side, middle
        if tell.chance.random() < 0.5:
            line = middle, _opposite(side, COMPASS), place
        told.append((line, tell.say("The {} is {} of the {}".format(*line))))
    (first, side, second), fact = tell.chance.choice(told)
    if tell.chance.random() < 0.5:
        tell.ask(f"What is {side} of the {second}", first, [fact])
    else:
        tell.ask(f"What is the {second} {_opposite(side, COMPASS)} of", first, [fact])


def afraid(tell: Telling) -> None:
    """Task 15: what is somebody afraid of, being of a kind?"""
    kinds = tell.chance.sample(tell.names.kinds, 4)
    people = tell.some(tell.names.people, 4)
    fears = [(kind, tell.chance.choice([k for k in kinds if k is not kind])) for kind in kinds]
    is_a = [(person, tell.chance.choice(kinds)) for person in people]
    lines = [(f"{many} are afraid of {feared[1]}", ("kind", one)) for (one, many), feared in fears]
    tell.chance.shuffle(lines)
    for person, kind in is_a:  # told somewhere behind what the kind is afraid of, as in bAbI
        after = next(i for i, (_, what) in enumerate(lines) if what == ("kind", kind[0]))
        line = f"{person} is a {kind[0]}", ("person", person)
        lines.insert(tell.chance.randint(after + 1, len(lines)), line)
    fact = {what: tell.say(text) for text, what in lines}
    for _ in range(4):
        person, kind = tell.chance.choice(is_a)
        feared = dict(fears)[kind]
        tell.ask(f"What is {person} afraid of", feared[0], [fact["person", person], fact["kind", kind[0]]])


def colour(tell: Telling) -> None:
    """Task 16: what colour has somebody, as all of their kind have?"""
    people = tell.some(tell.names.people, 5)
    asked, witness, *others = people
    beasts = tell.some(tell.names.beasts, 3)
    kind = {asked: beasts[0], witness: beasts[0]} | {person: tell.pick(beasts) for person in others}
    has = {beast: tell.pick(tell.names.colours) for beast in beasts}
    lines = [(f"{person} is a {kind[person]}", (person, "kind")) for person in people]
    lines += [(f"{person} is {has[kind[person]]}", (person, "colour")) for person in people if person != asked]
    tell.chance.shuffle(lines)
    fact = {what: tell.say(text) for text, what in lines}
    same = [p for p in people if p != asked and kind[p] == kind[asked]]
    newest = max(same, key=lambda p: fact[p, "colour"])
    facts = [fact[asked, "kind"], fact[newest, "kind"], fact[newest, "colour"]]
    tell.ask(f"What color is {asked}", has[kind[asked]], facts)


def position(tell: Telling) -> None:
    """Task 17: where are two things to each other, when each stands beside a third?"""
    middle, one, two = tell.some(tell.names.shapes, 3)
    at, facts = {}, {}
    ways = tell.some(tuple(SIDES), 2)  # two different places
    for thing, way in zip((one, two), ways, strict=True):
        at[thing] = SIDES[way]
        first, told, second = thing, way, middle
        if tell.chance.random() < 0.5:
            first, told, second = middle, _opposite(way, SIDES), thing
        facts[thing] = tell.say(f"The {first} is {told} the {second}")
    for _ in range(8):
        first, second = tell.some((one, two), 2)
        way = tell.pick(tuple(SIDES))
        dx, dy = at[first][0] - at[second][0], at[first][1] - at[second][1]
        true = dx * SIDES[way][0] + dy * SIDES[way][1] > 0
        tell.ask(f"Is the {first} {way} the {second}", "yes" if true else "no", [facts[first], facts[second]])


def size(tell: Telling) -> None:
    """Task 18: does a thing fit in another, by way of a third?"""
    smallest, rest = list(tell.names.boxes[:2]), tell.some(tell.names.boxes[2:], len(tell.names.boxes) - 2)
    order = smallest + rest
    a, b, c = (order[i] for i in sorted(tell.chance.sample(range(len(order)), 3)))  # a fits in c by way of b
    lines = [(a, b), (b, c), *(_smaller(tell, order) for _ in range(3))]
    tell.chance.shuffle(lines)
    told: dict[tuple[str, str], int] = {}  # (smaller, larger) -> the sentence that says so last
    while len(tell.questions) < 5:
        for small, large in lines:
            if (small, large) == (a, c):
                continue  # never told, so that there is always something to ask
            inside = tell.chance.random() < 0.5
            line = f"The {small} fits inside the {large}" if inside else f"The {large} is bigger than the {small}"
            told[small, large] = tell.say(line)
        lines = [_smaller(tell, order)]
        ways = [(x, y, z) for x, y in told for y_, z in told if y == y_ and (x, z) not in told]
        for _ in range(tell.chance.randint(2, 5)):
            small, between, large = tell.chance.choice(ways)
            facts = [told[small, between], told[between, large]]
            first, second, larger = (small, large, False) if tell.chance.random() < 0.5 else (large, small, True)
            if tell.chance.random() < 0.5:
                tell.ask(f"Is the {first} bigger than the {second}", "yes" if larger else "no", facts)
            else:
                tell.ask(f"Does the {first} fit in the {second}", "no" if larger else "yes", facts)


def _smaller(tell: Telling, order: list[str]) -> tuple[str, str]:
    """Two of an order, the smaller first."""
    i, j = sorted(tell.chance.sample(range(len(order)), 2))
    return order[i], order[j]


def path(tell: Telling) -> None:
    """Task 19: how does one go from a place to another, two steps away?"""
    places = tell.some(tell.names.places, 6)
    at: dict[str, Cell] = {places[0]: (0, 0)}
    near: dict[str, dict[str, tuple[str, int]]] = {place: {} for place in places}
    links: list[tuple[str, str, str]] = []
    for place in places[1:]:
        free = [(p, way) for p in at for way in COMPASS if _step(at[p], COMPASS[way]) not in at.values()]
        old, way = tell.chance.choice(free)
        at[place] = _step(at[old], COMPASS[way])
        links.append((place, way, old))
    tell.chance.shuffle(links)
    for place, way, old in links:
        back = _opposite(way, COMPASS)
        told = (place, way, old) if tell.chance.random() < 0.5 else (old, back, place)
        fact = tell.say("The {} is {} of the {}".format(*told))
        near[old][place], near[place][old] = (way, fact), (back, fact)
    ways = [(a, b, c) for a in places for b in near[a] for c in near[b] if c != a]
    start, between, end = tell.chance.choice(ways)
    (first, one), (second, two) = near[start][between], near[between][end]
    tell.ask(f"How do you go from the {start} to the {end}", f"{first[0]},{second[0]}", [one, two])
