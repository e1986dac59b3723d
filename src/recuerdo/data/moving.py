"""Simulated stories of people who move, carry things and want something: bAbI's tasks 1-3, 5-14 and 20.

The world keeps what is the case and which sentences say so. A question is asked only where its answer follows from what
was told.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise

from recuerdo.data.telling import DROPS, GETS, GIVES, MOVES, Telling

QUESTIONS = 5
TIMES = ("yesterday", "this morning", "this afternoon", "this evening")
LATER = ("Afterwards", "After that", "Following that", "Then")
NUMBERS = ("none", "one", "two", "three", "four")


@dataclass
class Thing:
    """An object: who has it, where it was (place, sentences that say so), what happened to it last."""

    holder: str | None = None
    place: str | None = None
    last: int = -1
    been: list[tuple[str, int]] = field(default_factory=list)  # places in order, each with the move that says so


@dataclass
class Gift:
    """Who gave what to whom, and the sentence that says so."""

    giver: str
    thing: str
    taker: str
    fact: int


class World:
    """People with a place, and things that lie there or are carried. Everybody starts by going somewhere."""

    def __init__(self, telling: Telling, people: int = 4, things: int = 3, *, there: float = 1.0):
        self.tell = telling
        self.there = there  # how often somebody is said to get a thing "there"
        self.people = telling.some(telling.names.people, people)
        self.things = {name: Thing() for name in telling.some(telling.names.objects, things)}
        self.place: dict[str, str] = {}
        self.moved: dict[str, int] = {}
        self.touched: dict[str, list[int]] = {person: [] for person in self.people}  # sentences on what each carries
        self.carried: dict[str, list[str]] = {person: [] for person in self.people}
        self.had: dict[str, list[str]] = {person: [] for person in self.people}
        self.gifts: list[Gift] = []

    def move(self, person: str) -> None:
        """Somebody goes elsewhere, with all that they carry."""
        place = self.tell.other(self.tell.names.places, self.place.get(person, ""))
        fact = self.tell.say(f"{person} {self.tell.pick(MOVES)} the {place}")
        self.place[person], self.moved[person] = place, fact
        for name in self.carried[person]:
            self._brought(self.things[name], place, fact)

    def _brought(self, thing: Thing, place: str, fact: int) -> None:
        if thing.place == place:
            thing.been.pop()  # it was here already: what tells so now is the move of whoever has it
        thing.been.append((place, fact))
        thing.place = place

    def get(self, person: str) -> bool:
        """Somebody takes what lies here, or what was not seen yet. False when there is nothing."""
        here = self.place.get(person)
        free = [n for n, t in self.things.items() if t.holder is None and t.place in (None, here)]
        if here is None or not free:
            return False
        name = self.tell.pick(free)
        there = " there" if self.tell.chance.random() < self.there else ""
        fact = self.tell.say(f"{person} {self.tell.pick(GETS)} the {name}{there}")
        thing = self.things[name]
        self._brought(thing, here, self.moved[person])
        thing.holder, thing.last = person, fact
        self._carry(person, name)
        self.touched[person].append(fact)
        return True

    def _carry(self, person: str, name: str) -> None:
        """What somebody carries is kept in the order in which they first had it: so bAbI lists it."""
        if name not in self.had[person]:
            self.had[person].append(name)
        self.carried[person] = [n for n in self.had[person] if n == name or n in self.carried[person]]

    def drop(self, person: str) -> bool:
        """Somebody leaves what they carry. False when that is nothing."""
        if not self.carried[person]:
            return False
        name = self.tell.pick(self.carried[person])
        fact = self.tell.say(f"{person} {self.tell.pick(DROPS)} the {name}{self.tell.pick(['', '', '', ' there'])}")
        self.things[name].holder, self.things[name].last = None, fact
        self.carried[person].remove(name)
        self.touched[person].append(fact)
        return True

    def near(self, person: str) -> list[str]:
        """Who is where somebody is."""
        return [p for p in self.people if p != person and self.place.get(p) == self.place.get(person)]

    def give(self, person: str) -> bool:
        """Somebody hands something to somebody here. False when there is nothing, or nobody."""
        near = self.near(person)
        if not self.carried[person] or not near:
            return False
        name, taker = self.tell.pick(self.carried[person]), self.tell.pick(near)
        fact = self.tell.say(f"{person} {self.tell.pick(GIVES)} the {name} to {taker}")
        self.things[name].holder, self.things[name].last = taker, fact
        self._brought(self.things[name], self.place[taker], self.moved[taker])
        self.carried[person].remove(name)
        self._carry(taker, name)
        self.touched[person].append(fact)
        self.touched[taker].append(fact)
        self.gifts.append(Gift(person, name, taker, fact))
        return True

    def happen(self, handle: float = 0.4, give: float = 0.0) -> None:
        """Something happens: with the chance `handle` to a thing (given away with the chance `give`), else a move."""
        person = self.tell.pick(self.people)
        if self.tell.chance.random() >= handle:
            self.move(person)
            return
        givers = [p for p in self.people if self.carried[p] and self.near(p)]
        if self.tell.chance.random() < give and givers and self.give(self.tell.pick(givers)):
            return
        first, second = (self.get, self.drop) if self.tell.chance.random() < 0.45 else (self.drop, self.get)
        if not first(person) and not second(person):
            self.move(person)


def where_people(tell: Telling) -> None:
    """Task 1: where is somebody who only walks about?"""
    world = World(tell)
    for _ in range(QUESTIONS):
        world.happen(0)
        world.happen(0)
        person = tell.pick([p for p, fact in world.moved.items() if tell.fresh([fact])])
        tell.ask(f"Where is {person}", world.place[person], [world.moved[person]])


def where_things(tell: Telling) -> None:
    """Task 2: where is a thing that somebody carries, or left?"""
    world = World(tell)
    while len(tell.questions) < QUESTIONS:
        for _ in range(tell.chance.randint(2, 5)):
            world.happen(0.6)
        known = [n for n, t in world.things.items() if t.been and tell.fresh([t.last, t.been[-1][1]])]
        if known:
            name = tell.pick(known)
            place, moved = world.things[name].been[-1]
            tell.ask(f"Where is the {name}", place, [world.things[name].last, moved])


def where_before(tell: Telling) -> None:
    """Task 3: where was a thing before it came to where it is?"""
    world = World(tell, there=0.2)
    while len(tell.questions) < QUESTIONS:
        for _ in range(tell.chance.randint(5, 20)):
            world.happen(0.6)
        known = [n for n, t in world.things.items() if len(t.been) > 1 and tell.fresh([t.last, t.been[-1][1]])]
        # Of a thing that somebody has, the last move tells only where they had it already.
        known = [
            n for n in known if world.things[n].holder is None or world.things[n].last < world.things[n].been[-1][1]
        ]
        if known:
            name = max(known, key=lambda n: world.things[n].been[-2][1])  # what is least long ago
            thing = world.things[name]
            (before, first), (place, second) = thing.been[-2:]
            tell.ask(f"Where was the {name} before the {place}", before, [thing.last, second, first])


def who_gave(tell: Telling) -> None:
    """Task 5: who gave what to whom?"""
    world = World(tell)
    while len(tell.questions) < QUESTIONS:
        for _ in range(tell.chance.randint(2, 5)):
            world.happen(0.6, 0.6)
        gifts = [gift for gift in world.gifts if tell.fresh([gift.fact])]
        if not gifts:
            continue
        gift = tell.chance.choice(gifts)
        giver, thing, taker = gift.giver, gift.thing, gift.taker
        text, asked, given = tell.chance.choice(
            [
                (f"What did {giver} give to {taker}", "thing", ("giver", "taker")),
                (f"Who received the {thing}", "taker", ("thing",)),
                (f"Who gave the {thing}", "giver", ("thing",)),
                (f"Who did {giver} give the {thing} to", "taker", ("giver", "thing")),
                (f"Who gave the {thing} to {taker}", "giver", ("thing", "taker")),
            ]
        )
        fits = [g for g in world.gifts if all(getattr(g, what) == getattr(gift, what) for what in given)]
        if fits[-1] is gift:  # the last time is what is asked for
            tell.ask(text, getattr(gift, asked), [gift.fact])


def is_there(tell: Telling) -> None:
    """Task 6: is somebody in a place?"""
    world = World(tell)
    for _ in range(QUESTIONS):
        world.happen()
        world.happen()
        person = tell.pick([p for p, fact in world.moved.items() if tell.fresh([fact])] or sorted(world.place))
        here = world.place[person]
        asked = here if tell.chance.random() < 0.5 else tell.other(tell.names.places, here)
        tell.ask(f"Is {person} in the {asked}", "yes" if asked == here else "no", [world.moved[person]])


def how_many(tell: Telling) -> None:
    """Task 7: how many things does somebody carry?"""
    _carrying(tell, 0.4, "How many objects is {} carrying", lambda things: NUMBERS[len(things)])


def what_carried(tell: Telling) -> None:
    """Task 8: what does somebody carry, in the order in which they first had it?"""
    _carrying(tell, 0.0, "What is {} carrying", lambda things: ",".join(things) or "nothing")


def _carrying(tell: Telling, give: float, text: str, answer: Callable[[list[str]], str]) -> None:
    world = World(tell)
    while len(tell.questions) < QUESTIONS:
        world.happen(0.6, give)
        world.happen(0.6, give)
        known = [person for person, facts in world.touched.items() if facts and tell.fresh(facts)]
        if known:
            person = tell.pick(known)
            tell.ask(text.format(person), answer(world.carried[person]), world.touched[person])


def is_not(tell: Telling) -> None:
    """Task 9: is somebody in a place, when others said that they are not?"""
    people, known = tell.some(tell.names.people, 4), {}
    for _ in range(QUESTIONS):
        for _ in range(2):
            person, place = tell.pick(people), tell.pick(tell.names.places)
            verb, true = tell.chance.choice(
                [(tell.pick(MOVES), True), ("is in", True), ("is no longer in", False), ("is not in", False)]
            )
            known[person] = place, true, tell.say(f"{person} {verb} the {place}")
        person = tell.pick([p for p, (_, _, fact) in known.items() if tell.fresh([fact])])
        place, true, fact = known[person]
        # After a denial nothing is known of other places.
        asked = place if not true or tell.chance.random() < 0.75 else tell.other(tell.names.places, place)
        tell.ask(f"Is {person} in the {asked}", "yes" if true and asked == place else "no", [fact])


def maybe(tell: Telling) -> None:
    """Task 10: is somebody in a place, when it is one of two?"""
    people, known = tell.some(tell.names.people, 4), {}
    for _ in range(QUESTIONS):
        for _ in range(2):
            person, (one, two) = tell.pick(people), tell.some(tell.names.places, 2)
            if tell.chance.random() < 0.35:
                known[person] = (one, two), tell.say(f"{person} is either in the {one} or the {two}")
            else:
                known[person] = (one,), tell.say(f"{person} {tell.pick((*MOVES, 'is in'))} the {one}")
        person = tell.pick([p for p, (_, fact) in known.items() if tell.fresh([fact])])
        places, fact = known[person]
        asked = tell.pick(places) if tell.chance.random() < 0.6 else tell.pick(tell.names.places)
        answer = "no" if asked not in places else "yes" if len(places) == 1 else "maybe"
        tell.ask(f"Is {person} in the {asked}", answer, [fact])


def she(tell: Telling) -> None:
    """Task 11: where is somebody who was last called he or she?"""
    people, known = tell.some(tell.names.people, 4), {}
    for _ in range(QUESTIONS):
        person = tell.pick(people)
        _twice(tell, person, "she" if person in tell.names.women else "he", [person], known)


def and_(tell: Telling) -> None:
    """Task 12: where is somebody who went with somebody?"""
    people, known = tell.some(tell.names.people, 4), {}
    for _ in range(QUESTIONS):
        for _ in range(2):
            pair, place = tell.some(people, 2), tell.pick(tell.names.places)
            fact = tell.say(f"{pair[0]} and {pair[1]} {tell.pick(MOVES)} the {place}")
            known.update(dict.fromkeys(pair, (place, fact)))
        person = tell.pick([p for p, (_, fact) in known.items() if tell.fresh([fact], 3)])
        tell.ask(f"Where is {person}", known[person][0], [known[person][1]])


def they(tell: Telling) -> None:
    """Task 13: where is one of those who were last called they?"""
    people, known = tell.some(tell.names.people, 4), {}
    for _ in range(QUESTIONS):
        pair = tell.some(people, 2)
        _twice(tell, " and ".join(pair), "they", pair, known, within=3)


def _twice(tell: Telling, subject: str, pronoun: str, who: list[str], known: dict, within: int = 5) -> None:
    """Two moves, the second under a pronoun, and a question about anybody."""
    first, second = tell.some(tell.names.places, 2)
    one = tell.say(f"{subject} {tell.pick(MOVES)} the {first}")
    two = tell.say(f"{tell.pick(LATER)} {pronoun} {tell.pick(MOVES)} the {second}")
    known.update(dict.fromkeys(who, (second, [one, two])))
    person = tell.pick([p for p, (_, facts) in known.items() if tell.fresh(facts, within)])
    tell.ask(f"Where is {person}", known[person][0], known[person][1])


def before(tell: Telling) -> None:
    """Task 14: where was somebody before, when the order is that of the times and not of the telling?"""
    people = tell.some(tell.names.people, 4)
    left = [(person, when) for person in people for when in range(len(TIMES))]
    left.sort(key=lambda told: told[1] + tell.chance.gauss(0, 1.1))  # roughly in the order of the times
    known: dict[str, dict[int, tuple[str, int]]] = {person: {} for person in people}
    while left:
        for person, when in left[:2]:
            place = tell.pick([p for p in tell.names.places if p not in [was for was, _ in known[person].values()]])
            went = f"{person} {tell.pick(MOVES)} the {place}"
            told = f"{TIMES[when]} {went}" if tell.chance.random() < 0.5 else f"{went} {TIMES[when]}"
            known[person][when] = place, tell.say(told)
        left = left[2:]
        pairs = [(p, a, b) for p in people for a, b in pairwise(sorted(known[p]))]
        pairs = [(p, a, b) for p, a, b in pairs if tell.fresh([known[p][a][1], known[p][b][1]], 6)]
        if pairs and len(tell.questions) < QUESTIONS:
            person, a, b = tell.chance.choice(pairs)
            (was, first), (place, second) = known[person][a], known[person][b]
            tell.ask(f"Where was {person} before the {place}", was, [second, first])
        if len(tell.questions) == QUESTIONS:
            return


def why(tell: Telling) -> None:
    """Task 20: where will somebody go, and why did they?"""
    people = tell.some(tell.names.people, 4)
    wish = {person: tell.chance.choice(tell.names.wishes) for person in people}
    stage, said = dict.fromkeys(people, 0), {}
    while any(n < 3 for n in stage.values()):
        person = tell.pick([p for p in people if stage[p] < 3])
        feels, place, thing = wish[person]
        if stage[person] == 0:
            said[person] = tell.say(f"{person} is {feels}")
            tell.ask(f"Where will {person} go", place, [said[person]])
        elif stage[person] == 1:
            tell.say(f"{person} {tell.pick(MOVES)} the {place}")
            tell.ask(f"Why did {person} go to the {place}", feels, [said[person]])
        else:
            tell.say(f"{person} {tell.pick(GETS)} the {thing} there")
            tell.ask(f"Why did {person} get the {thing}", feels, [said[person]])
        stage[person] += 1
