"""Names: words that can be exchanged in every story without anybody noticing, found in the stories themselves.

That Mary is in the kitchen says nothing of Mary that would not hold of John. Where a whole group of words is such, a
reader may see every story under other names each time it comes by, and learns what does not hang on names: Hermann et
al. 2015 (arXiv 1506.03340) permute the entities of a news story so. Which words are names is not told here, it is
tested, task by task: words that stand in the same places are a group, and a group passes if exchanging its words at
random in each story (the very symmetry that will be used) leaves the counts of where they stand, together with what,
and with which answer, as they are. North and south stand in the same places and do not pass: "n" is said for north.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from recuerdo.data.stories import Encoded, Encoder, Story, Words


def exchangeable(
    stories: Sequence[Story], *, alike: float = 0.3, rounds: int = 60, most: float = 8.0, seed: int = 0
) -> dict[int, list[Words]]:
    """Task -> groups of words that can be exchanged in its stories.

    Only words that sentences as well as questions or answers speak of can be names. Two words are in a group if at
    least the share `alike` of what stands around each also stands around the other. A group fails if any of its counts
    lies more than `most` standard deviations above what `rounds` random exchanges give.
    """
    spoken = {word for story in stories for sentence in story.sentences for word in sentence}
    asked = {word for story in stories for q in story.questions for word in (*q.words, *q.answer.split(","))}
    by_task: dict[int, list[Story]] = defaultdict(list)
    for story in stories:
        by_task[story.task].append(story)
    found = {}
    for task, some in sorted(by_task.items()):
        groups = _groups(some, spoken & asked, alike)
        found[task] = [group for group in groups if worst(some, group, rounds=rounds, seed=seed) <= most]
    return found


def unordered(stories: Sequence[Story], *, rounds: int = 60, most: float = 8.0, seed: int = 0) -> set[int]:
    """The tasks in whose stories the order of the sentences tells nothing: all questions come behind all sentences, and
    shuffling leaves the counts of what stands where as they are (judged as the groups of `exchangeable` are)."""
    by_task: dict[int, list[Story]] = defaultdict(list)
    for story in stories:
        by_task[story.task].append(story)
    return {
        task
        for task, some in by_task.items()
        if all(q.before == len(story.sentences) for story in some for q in story.questions)
        and out_of_order(some, rounds=rounds, seed=seed) <= most
    }


@dataclass(frozen=True, eq=False)
class Variety:
    """How stories come by in training: under other names and in another order, where this changes nothing.

    `groups`: task -> the numbers of words that can be exchanged, `loose`: the tasks without an order.
    """

    encoder: Encoder
    groups: Mapping[int, Sequence[np.ndarray]]
    loose: set[int]

    @classmethod
    def found(cls, stories: Sequence[Story], encoder: Encoder) -> "Variety":
        """What can be varied in these stories, by the tests above; nothing, where there are none."""
        index = encoder.vocabulary.index()
        found = exchangeable(stories)
        groups = {task: [np.array([index[w] for w in group]) for group in some] for task, some in found.items()}
        return cls(encoder, groups, unordered(stories))

    def __call__(self, story: Encoded, draw: np.random.Generator) -> Encoded:
        """The story as it comes by this time."""
        if story.task in self.loose:
            story = story.reordered(draw.permutation(len(story.sentences)))
        if not self.groups.get(story.task):
            return story
        table = np.arange(len(self.encoder.vocabulary.words), dtype=np.int16)
        for group in self.groups[story.task]:
            table[group] = draw.permutation(group)
        return self.encoder.renamed(story, table)


def out_of_order(stories: Sequence[Story], *, rounds: int = 60, seed: int = 0) -> float:
    """How far the least even count of places lies above random orders, in standard deviations; small = no order."""
    names: dict[object, int] = {}
    rows: list[tuple[int, int, int, int]] = []  # story, count, place, sentences of the story
    for i, story in enumerate(stories):
        asked = {("asked", word) for q in story.questions for word in q.words}
        told = {("told", word) for q in story.questions for word in q.answer.split(",")}
        for place, line in enumerate(story.sentences):
            tags: set[object] = {("said", word) for word in line}
            tags |= {kind for kind, word in asked | told if word in line} | {
                (kind, j) for j, word in enumerate(line) for kind, known in asked | told if known == word
            }
            n = len(story.sentences)
            rows += [(i, names.setdefault((n, tag), len(names)), place, n) for tag in tags]
    story, name, place, lengths = np.array(rows).T
    draw, longest = np.random.default_rng(seed), int(lengths.max())
    count = np.bincount(name, minlength=len(names))
    often = count >= 5 * longest

    def unevenness(table: np.ndarray) -> np.ndarray:
        cells = np.bincount(name * longest + table[story, place], minlength=len(names) * longest)
        return np.square(cells.reshape(len(names), -1).astype(float)).sum(1)

    sizes = np.array([len(one.sentences) for one in stories])
    as_it_is = unevenness(np.tile(np.arange(longest), (len(stories), 1)))
    drawn = []
    for _ in range(rounds):
        keys = draw.random((len(stories), longest))
        keys[np.arange(longest) >= sizes[:, None]] = 2.0  # behind the last sentence there is nothing
        drawn.append(unevenness(keys.argsort(1)))
    null = np.stack(drawn)
    far = (as_it_is - null.mean(0)) / np.maximum(null.std(0), 1e-6 * null.mean(0) + 1e-9)
    return float(far[often].max(initial=0.0))


def _groups(stories: Iterable[Story], words: set[str], alike: float) -> list[Words]:
    """Words that stand in the same places: connected by shared surroundings."""
    around: dict[str, Counter[Words]] = defaultdict(Counter)
    for story in stories:
        for line in (*story.sentences, *(q.words for q in story.questions)):
            for i, word in enumerate(line):
                if word in words:
                    around[word][(*line[:i], "_", *line[i + 1 :])] += 1
    home = {word: word for word in around}
    for a in around:
        for b in around:
            if a < b and min(_share(around[a], around[b]), _share(around[b], around[a])) >= alike:
                old, new = home[b], home[a]
                home = {word: new if place == old else place for word, place in home.items()}
    groups: dict[str, list[str]] = defaultdict(list)
    for word, place in home.items():
        groups[place].append(word)
    return sorted(tuple(sorted(group)) for group in groups.values() if len(group) > 1)


def _share(mine: Counter[Words], others: Counter[Words]) -> float:
    return sum(n for place, n in mine.items() if place in others) / sum(mine.values())


@dataclass
class _Counts:
    """Where the words of a group stand: one row for each time, cells of one word or of an ordered pair."""

    names: dict[object, int] = field(default_factory=dict)
    rows: list[tuple[int, int, int, int]] = field(default_factory=list)  # story, count, word, other word or -1

    def add(self, story: int, name: object, a: int, b: int = -1) -> None:
        if b >= 0:
            name = (name, a == b)  # the same word twice, and two words, are cells of their own kind
        self.rows.append((story, self.names.setdefault(name, len(self.names)), a, b))


def worst(stories: Sequence[Story], group: Words, *, rounds: int = 60, seed: int = 0) -> float:
    """How far the least even count of a group lies above random exchanges, in standard deviations; small = names."""
    counts, draw, n = _Counts(), np.random.default_rng(seed), len(group)
    of = {word: i for i, word in enumerate(group)}
    for i, story in enumerate(stories):
        _note(counts, i, story, of)
    if not counts.rows:
        return 0.0
    story, name, a, b = np.array(counts.rows).T
    pair = b >= 0

    kinds, cells = len(counts.names), n * n
    rows = np.bincount(name, minlength=kinds)
    often = rows >= 5 * np.where(np.bincount(name, pair, kinds) > 0, cells, n)  # a few rows prove nothing
    as_it_is = _unevenness(np.tile(np.arange(n), (len(stories), 1)), story, name, a, b, kinds)
    order = np.tile(np.arange(n), (len(stories), 1))
    drawn = np.stack([_unevenness(draw.permuted(order, axis=1), story, name, a, b, kinds) for _ in range(rounds)])
    far = (as_it_is - drawn.mean(0)) / np.maximum(drawn.std(0), 1e-6 * drawn.mean(0) + 1e-9)
    return float(far[often].max(initial=0.0))


def _unevenness(table: np.ndarray, story, name, a, b, kinds: int) -> np.ndarray:
    """The sum of squared cells of every count, with the words of each story exchanged by its row of `table`."""
    n = table.shape[1]
    left, right = table[story, a], np.where(b >= 0, table[story, b], 0)
    cells = np.bincount((name * n + left) * n + right, minlength=kinds * n * n)
    return np.square(cells.reshape(kinds, -1).astype(float)).sum(1)


def _note(counts: _Counts, number: int, story: Story, of: Mapping[str, int]) -> None:
    """Count one story: words in sentences, questions and answers, alone and together."""
    for line in story.sentences:
        here = [of[word] for word in line if word in of]
        for j, a in enumerate(here):
            counts.add(number, "said", a)
            for b in here[j + 1 :]:
                counts.add(number, "said together", a, b)
            for word in set(line) - of.keys():
                counts.add(number, ("said with", word), a)
    for q in story.questions:
        said = Counter(word for line in story.sentences[: q.before] for word in line)
        for name, a, b in _asked(q.words, q.answer, said, of):
            counts.add(number, name, a, b)
        for line in story.sentences[: q.before]:
            for name, a in _linked(line, q.words, q.answer.split(","), of):
                counts.add(number, name, a)


def _asked(words: Words, answer: str, said: Counter[str], of: Mapping[str, int]) -> Iterator[tuple[object, int, int]]:
    """What a question and its answer say of the words of a group."""
    told = answer.split(",")
    asked = [of[word] for word in words if word in of]
    answered = [of[word] for word in told if word in of]
    other = tuple(word for word in told if word not in of)
    there = [of[word] for word in said.elements() if word in of]
    for j, a in enumerate(asked):
        yield ("asked", other), a, -1
        for b in asked[j + 1 :]:
            yield ("asked together", other), a, b
        for b in answered:
            yield "asked and answered", a, b
        for b in there:
            yield "asked and said", a, b
            yield ("asked and said", other), a, b
    for place, a in enumerate(answered):
        yield "answered", a, -1
        for word in (said.keys() | set(words)) - of.keys():
            yield ("answered with", word), a, -1
        for b in answered[place + 1 :]:
            yield "answered together", a, b
        for b in there:
            yield "answered and said", a, b
    for a in there:
        for place, word in enumerate(other):
            yield ("said, answered", place, word), a, -1


def _linked(line: Words, words: Words, told: Sequence[str], of: Mapping[str, int]) -> Iterator[tuple[object, int]]:
    """A word of the group in a sentence that also holds a word of the question or the answer: on which side of it."""
    here = [(i, of[word]) for i, word in enumerate(line) if word in of]
    if not here:
        return
    for place, word in enumerate((*words, *told)):
        if word not in line or word in of:
            continue
        where = line.index(word)
        for i, a in here:
            yield ("linked", place, i < where), a
            for part, answer in enumerate(told):
                if answer not in of:
                    yield ("linked, answered", place, i < where, part, answer), a
