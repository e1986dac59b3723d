"""What simulated stories are told with: names, wordings, and a Telling that keeps sentences, questions and facts."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from recuerdo.data.stories import Question, Story, split_words


@dataclass(frozen=True)
class Names:
    """The names and things of a simulated world. The sentences around them are those of bAbI."""

    women: tuple[str, ...]
    men: tuple[str, ...]
    places: tuple[str, ...]  # at least six
    objects: tuple[str, ...]
    kinds: tuple[tuple[str, str], ...]  # animals that fear each other: one, many
    beasts: tuple[str, ...]  # animals that have a colour
    colours: tuple[str, ...]
    shapes: tuple[str, ...]
    boxes: tuple[str, ...]  # the first two are smaller than all others
    wishes: tuple[tuple[str, str, str], ...]  # how somebody feels, where that is mended, with what
    special: Mapping[int, Mapping[str, tuple[str, ...]]] = field(default_factory=dict)  # what differs in some tasks

    @property
    def people(self) -> tuple[str, ...]:
        """Everybody."""
        return self.women + self.men

    def of(self, task: int) -> "Names":
        """The names of one task."""
        return replace(self, **self.special.get(task, {}))


_TOWN = ("bedroom", "cinema", "kitchen", "office", "park", "school")
OWN = Names(
    women=("Anna", "Clara", "Ines", "Rosa"),
    men=("Tomas", "Pablo", "Victor", "Hugo"),
    places=("attic", "cellar", "library", "workshop", "balcony", "courtyard", "stable", "tower"),
    objects=("lamp", "letter", "umbrella", "violin"),
    kinds=(("fox", "foxes"), ("goose", "geese"), ("bear", "bears"), ("deer", "deer"), ("hawk", "hawks")),
    beasts=("turtle", "horse", "owl", "otter"),
    colours=("brown", "black", "orange", "blue"),
    shapes=("green circle", "silver star", "cross", "golden diamond", "purple oval"),
    boxes=("biscuit", "tin of biscuits", "basket", "barrel", "trunk", "crate"),
    wishes=(
        ("sleepy", "attic", "blanket"),
        ("curious", "library", "book"),
        ("cold", "cellar", "coat"),
        ("restless", "courtyard", "kite"),
    ),
)
BABI = Names(
    women=("Mary", "Sandra"),
    men=("John", "Daniel"),
    places=("bathroom", "bedroom", "kitchen", "garden", "hallway", "office"),
    objects=("football", "milk", "apple"),
    kinds=(("mouse", "mice"), ("cat", "cats"), ("wolf", "wolves"), ("sheep", "sheep")),
    beasts=("frog", "lion", "swan", "rhino"),
    colours=("yellow", "green", "gray", "white"),
    shapes=("triangle", "pink rectangle", "blue square", "red sphere", "red square", "yellow square"),
    boxes=("chocolate", "box of chocolates", "box", "chest", "suitcase", "container"),
    wishes=(
        ("tired", "bedroom", "pajamas"),
        ("hungry", "kitchen", "apple"),
        ("thirsty", "kitchen", "milk"),
        ("bored", "garden", "football"),
    ),
    special={
        5: {"women": ("Mary",), "men": ("Bill", "Fred", "Jeff")},
        10: {"women": ("Julie", "Mary"), "men": ("Bill", "Fred"), "places": _TOWN},
        14: {"women": ("Julie", "Mary"), "men": ("Bill", "Fred"), "places": _TOWN},
        15: {"women": ("Emily", "Gertrude", "Jessica", "Winona"), "men": ()},
        16: {"women": ("Lily",), "men": ("Bernhard", "Brian", "Greg", "Julius")},
        20: {"women": (), "men": ("Antoine", "Jason", "Sumit", "Yann")},
    },
)

MOVES = ("moved to", "went to", "went back to", "travelled to", "journeyed to")
GETS = ("got", "grabbed", "took", "picked up")
DROPS = ("left", "discarded", "dropped", "put down")
GIVES = ("passed", "handed", "gave")


@dataclass
class Telling:
    """A story while it is told: names, a source of chance, and what was said and asked so far."""

    names: Names
    chance: random.Random
    sentences: list[tuple[str, ...]] = field(default_factory=list)
    questions: list[Question] = field(default_factory=list)

    def say(self, text: str) -> int:
        """Tell a sentence; gives its number, from 0."""
        self.sentences.append(split_words(text))
        return len(self.sentences) - 1

    def ask(self, text: str, answer: str, facts: Sequence[int]) -> None:
        """Ask for what follows from the sentences `facts`."""
        self.questions.append(Question(split_words(text), answer.lower(), len(self.sentences), tuple(facts)))

    def fresh(self, facts: Sequence[int], within: int = 5) -> bool:
        """Whether the newest of these facts is among the last so many sentences: bAbI asks for nothing older."""
        return max(facts) >= len(self.sentences) - within

    def pick(self, things: Sequence[str]) -> str:
        """One of several."""
        return self.chance.choice(things)

    def some(self, things: Sequence[str], n: int) -> list[str]:
        """n different ones, in random order."""
        return self.chance.sample(list(things), n)

    def other(self, things: Sequence[str], than: str) -> str:
        """One of several, but not this one."""
        return self.pick([thing for thing in things if thing != than])

    def story(self, task: int) -> Story:
        """The finished story."""
        return Story(tuple(self.sentences), tuple(self.questions), task)
