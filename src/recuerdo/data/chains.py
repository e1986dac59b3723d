"""Worlds of short facts, and questions whose answer takes one fact or a chain of two, from a simulation of our own.

"Where does the owner of the red kite work?" is answered by "The red kite belongs to Ada." and "Ada works at the mill.":
the second shares no name with the question. Each split has names of its own, and chains of relations that no other has.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from recuerdo.errors import InputError

T = TypeVar("T")
SPLITS = ("train", "valid", "test")


@dataclass(frozen=True)
class Relation:
    """What leads from one kind of thing to another: how facts say it, how it is asked, and how it stands in a chain.

    In `facts` {a} and {b} are the two things, in `asked` and `phrase` {x} is the first. Without a phrase it is the end
    of a chain.
    """

    start: str
    end: str
    facts: tuple[str, ...]
    asked: tuple[str, ...]
    phrase: str = ""


RELATIONS = {
    "owner": Relation(
        "thing", "person", ("{a} belongs to {b}.", "{b} owns {a}.", "{b} has bought {a}."),
        ("Who owns {x}?", "Who does {x} belong to?"), "the owner of {x}",
    ),
    "workplace": Relation(
        "person", "building", ("{a} works at {b}.", "{a} has a job at {b}.", "Every morning {a} goes to work at {b}."),
        ("Where does {x} work?", "Where does {x} have a job?"), "the place where {x} works",
    ),
    "town": Relation(
        "building", "town", ("{a} is in {b}.", "In {b} you find {a}.", "{a} stands in the middle of {b}."),
        ("In which town is {x}?", "Where do you find {x}?"),
    ),
    "closing": Relation(
        "building", "hour", ("{a} closes at {b}.", "At {b} {a} shuts its doors."),
        ("When does {x} close?", "Until when is {x} open?"),
    ),
    "keeper": Relation(
        "building", "person", ("{b} has the key of {a}.", "The key of {a} is with {b}."),
        ("Who has the key of {x}?", "Who can open {x}?"), "the person who has the key of {x}",
    ),
    "venue": Relation(
        "event", "building", ("{a} is held at {b}.", "{b} is where {a} takes place."),
        ("Where is {x} held?", "Where does {x} take place?"), "the building where {x} is held",
    ),
    "leader": Relation(
        "event", "person", ("{b} leads {a}.", "{a} is organised by {b}."),
        ("Who leads {x}?", "Who organises {x}?"), "the person who leads {x}",
    ),
    "month": Relation(
        "event", "month", ("{a} comes every {b}.", "{a} is in {b}."), ("In which month is {x}?", "When is {x}?"),
    ),
    "telephone": Relation(
        "person", "number", ("{a}'s telephone number is {b}.", "You reach {a} under {b}."),
        ("What is the telephone number of {x}?", "Under which number can I call {x}?"),
    ),
    "animal": Relation(
        "person", "animal", ("{a} keeps {b}.", "{b} lives with {a}."), ("Which animal does {x} keep?",),
    ),
    "street": Relation(
        "person", "street", ("{a} lives in {b}.", "The home of {a} is in {b}."),
        ("In which street does {x} live?", "What is the address of {x}?"),
    ),
    "instrument": Relation(
        "person", "instrument", ("{a} plays {b}.", "{a} has learned to play {b}."),
        ("Which instrument does {x} play?",),
    ),
    "sister": Relation(
        "person", "person", ("{b} is the sister of {a}.", "{a} has a sister called {b}."),
        ("Who is the sister of {x}?",), "the sister of {x}",
    ),
}  # fmt: skip
CHAINS = [
    (first, second)
    for first, one in RELATIONS.items()
    for second, other in RELATIONS.items()
    if one.phrase and one.end == other.start and first != second
]
EACH = {"person": 6, "building": 4, "thing": 4, "event": 3, "town": 3}  # how many there are in a world


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split("|")]


PARTS = {  # a name is one of each
    "person": (
        _names(
            "Ada | Bruno | Celia | Dario | Elena | Felix | Greta | Hector | Iris | Jonas | Karla | Luis | Marta | "
            "Nils | Olga | Pablo | Quentin | Rosa | Simon | Tilda | Ugo | Vera | Walter | Xenia | Yusuf | Zora | "
            "Amir | Berta | Cyril | Dora | Emil | Fatima | Gustav | Hilda | Igor | Judith | Kenji | Leila | "
            "Matteo | Nadia | Oscar | Priya | Ravi | Sofia | Tomas | Ursula | Viktor | Wanda"
        ),
        _names(
            "Abbott | Bauer | Castro | Dupont | Eriksen | Fischer | Gomez | Hansen | Ivanov | Jensen | Keller | "
            "Lopez | Moreau | Nowak | Okafor | Petrov | Quinn | Rossi | Schmidt | Tanaka | Ueda | Varga | Weber | "
            "Young | Zeman | Aguilar | Brandt | Chen | Duarte | Eklund | Farkas | Grant | Haddad | Ibsen | Jung | "
            "Kumar | Larsen | Mbeki | Nagy | Olsen | Park | Reyes | Santos | Torres | Urban | Vogel | Wolf | "
            "Yilmaz"
        ),
    ),
    "building": (
        _names(
            "old | new | northern | southern | upper | lower | grand | little | royal | city | village | harbour "
            "| river | forest | garden | castle | white | green | brick | glass | wooden | central | eastern | "
            "western"
        ),
        _names(
            "mill | school | library | hospital | bakery | museum | theatre | station | brewery | dairy | "
            "observatory | post office | bath | tannery | chapel | cinema | archive | printing house | boathouse "
            "| hotel | pharmacy | glassworks | prison | nursery | bank | workshop | market hall | studio | "
            "gallery | laboratory | warehouse | inn | clinic | arena | courthouse | foundry"
        ),
    ),
    "thing": (
        _names(
            "red | blue | green | silver | golden | wooden | brass | copper | leather | velvet | broken | painted "
            "| tiny | heavy | antique | striped | yellow | black | white | plastic | folding | rusty | borrowed | "
            "carved"
        ),
        _names(
            "kite | bicycle | watch | boat | telescope | tent | stool | sewing machine | suitcase | ladder | lamp "
            "| chess set | coat | canoe | kettle | sledge | vase | knife | chair | map | stove | hat | music box "
            "| clock | umbrella | carpet | mirror | camera | tractor | typewriter | globe | helmet | drum | bench "
            "| basket | cupboard"
        ),
    ),
    "event": (
        _names(
            "harvest | spring | summer | autumn | winter | midnight | village | city | annual | great | "
            "children's | farmers' | sailors' | students' | gardeners' | open-air"
        ),
        _names(
            "festival | flower show | chess tournament | book fair | boat race | carnival | market | song contest "
            "| film night | cheese fair | run | poetry evening | lantern walk | horse fair | science day | dance "
            "| auction | concert | parade | picnic | debate | quiz | regatta | exhibition"
        ),
    ),
    "town": (
        _names(
            "Ar | Bex | Cor | Dun | Elm | Far | Gal | Hest | Is | Jarn | Kel | Lun | Mor | Nes | Or | Pel | Ros | "
            "Sol | Tav | Ul | Vin | Wex | Yar | Zel"
        ),
        _names(
            "len | moor | dale | vik | stad | row | mont | by | mere | holm | ton | ford | vale | sau | sund | "
            "ham | thal | bridge"
        ),
    ),
}
NAMES = {
    "animal": _names(
        "a parrot | a greyhound | two goats | a tortoise | a black cat | three hens | a donkey | a ferret | bees "
        "| a rabbit | a pony | an owl | a poodle | two canaries | a hedgehog | a snake"
    ),
    "street": _names(
        "Mill Lane | Harbour Road | Rose Street | Church Hill | Station Road | Long Row | Oak Avenue | Bridge "
        "Street | Market Square | Garden Path | Tower Street | West Quay | Castle Yard | Vine Alley | Sand Street "
        "| Linden Road"
    ),
    "instrument": _names(
        "the cello | the trumpet | the harp | the accordion | the flute | the drums | the organ | the violin | "
        "the banjo | the clarinet | the lute | the oboe | the guitar | the tuba | the piano | the bagpipes"
    ),
    "month": _names(
        "January | February | March | April | May | June | July | August | September | October | November | December"
    ),
    "hour": _names("five | six | seven | eight | nine | ten"),
}


@dataclass(frozen=True)
class Asked:
    """A question, and the numbers of the facts that answer it, in the order in which they are found."""

    text: str
    facts: tuple[int, ...]


@dataclass(frozen=True)
class World:
    """Facts, each a sentence, and questions about them."""

    facts: tuple[str, ...]
    questions: tuple[Asked, ...]


def chains_of(split: str) -> list[tuple[str, str]]:
    """The chains of a split: of twelve, two are for validation and two for the test. Raises InputError."""
    return _share(CHAINS, split)


def world(split: str, seed: int, number: int, *, facts: int = 44, questions: int = 12) -> World:
    """World `number` of a split: it depends on these arguments only. A quarter of the questions take one fact.

    Raises InputError for a split that there is not, and for more facts than there are.
    """
    draw = random.Random(f"chains/{split}/{seed}/{number}")
    things = _things(split, draw)
    links = {
        (name, a): draw.choice([b for b in things[relation.end] if b != a])
        for name, relation in RELATIONS.items()
        for a in things[relation.start]
    }
    if not 2 * questions <= facts <= len(links):
        raise InputError(f"a world has from {2 * questions} (two a question) to {len(links)} facts, not {facts}")
    asked: dict[str, list[tuple[str, str]]] = {}
    while len(asked) < questions:
        asked |= [_asked(split, draw, things, links)]
    needed = dict.fromkeys(link for path in asked.values() for link in path)
    rest = [link for link in links if link not in needed]
    chosen = [*needed, *draw.sample(rest, facts - len(needed))]
    draw.shuffle(chosen)
    place = {link: at for at, link in enumerate(chosen)}
    said = tuple(_capital(draw.choice(RELATIONS[name].facts).format(a=a, b=links[name, a])) for name, a in chosen)
    return World(said, tuple(Asked(text, tuple(place[link] for link in path)) for text, path in asked.items()))


def _asked(
    split: str, draw: random.Random, things: dict[str, list[str]], links: dict[tuple[str, str], str]
) -> tuple[str, list[tuple[str, str]]]:
    """A question and the path to its answer."""
    if draw.random() < 0.25:
        name = draw.choice(list(RELATIONS))
        x = draw.choice(things[RELATIONS[name].start])
        return draw.choice(RELATIONS[name].asked).format(x=x), [(name, x)]
    first, second = draw.choice(chains_of(split))
    x = draw.choice(things[RELATIONS[first].start])
    text = draw.choice(RELATIONS[second].asked).format(x=RELATIONS[first].phrase.format(x=x))
    return text, [(first, x), (second, links[first, x])]


def _things(split: str, draw: random.Random) -> dict[str, list[str]]:
    """What there is in a world: of each kind some, no two with a part of their names in common."""
    found = {kind: list(names) for kind, names in NAMES.items()}
    for kind, parts in PARTS.items():
        first, second = (draw.sample(_share(part, split), EACH[kind]) for part in parts)
        space, article = ("" if kind == "town" else " "), ("" if kind in ("person", "town") else "the ")
        found[kind] = [f"{article}{a}{space}{b}" for a, b in zip(first, second, strict=True)]
    return found | {"number": [str(n) for n in draw.sample(range(1000, 10_000), 12)]}


def _share(all_of_them: Sequence[T], split: str) -> list[T]:
    if split not in SPLITS:
        raise InputError(f"there is no split {split!r} of chains: choose {', '.join(SPLITS)}")
    owner = ["test", "valid", "train", "train", "test", "train", "valid", "train", "train", "train", "train", "train"]
    return [one for at, one in enumerate(all_of_them) if owner[at % len(owner)] == split]


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]
