"""Phrases: two words that stand for one thing, "red square", found in the stories themselves.

A phrase can be put in the place of other phrases and words ("triangle"), and its words stand nowhere else: so the pair,
not the word, is what a story speaks of. Joined, it is one word for a model, and one name for `recuerdo.data.exchange`.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from recuerdo.data.stories import Story, Words, join_phrases


def phrases(stories: Sequence[Story], *, alike: float = 0.3) -> list[tuple[str, str]]:
    """The pairs of words that are phrases in any task of some stories.

    Two spans are alike if at least the share `alike` of what stands around each also stands around the other. A group
    of such spans counts if no span is a part of another, if none of its words stands outside of them, and if its pairs
    do not all begin, or all end, with the same word: "the garden" is a garden.
    """
    by_task: dict[int, set[Words]] = defaultdict(set)
    for story in stories:
        by_task[story.task].update(story.sentences, (q.words for q in story.questions))
    groups = [group for lines in by_task.values() for group in _groups(lines, alike)]
    return sorted({(span[0], span[1]) for group in groups for span in group if len(span) == 2})


def joined(story: Story, pairs: Iterable[tuple[str, str]]) -> Story:
    """The story with every phrase as one word, "red square". Answers stay what they are."""
    known = set(pairs)
    sentences = tuple(join_phrases(line, known) for line in story.sentences)
    questions = tuple(replace(q, words=join_phrases(q.words, known)) for q in story.questions)
    return replace(story, sentences=sentences, questions=questions)


def _groups(lines: set[Words], alike: float) -> Iterator[set[Words]]:
    """Groups of spans of one or two words that stand in the same places and whose words stand nowhere else."""
    around: dict[Words, Counter[Words]] = defaultdict(Counter)
    for line in lines:
        for size in (1, 2):
            for i in range(len(line) - size + 1):
                around[line[i : i + size]][(*line[:i], "_", *line[i + size :])] += 1
    places: dict[Words, set[Words]] = defaultdict(set)
    for span, found in around.items():
        for place in found:
            places[place].add(span)
    near: dict[Words, set[Words]] = defaultdict(set)
    for spans in places.values():
        for a in spans:
            near[a] |= spans
    open_ = set(around)
    while open_:
        group, edge = set(), {open_.pop()}
        while edge:
            a = edge.pop()
            group.add(a)
            edge |= {b for b in near[a] - group if min(_share(around, a, b), _share(around, b, a)) >= alike}
        open_ -= group
        words = Counter(word for span in group for word in span)
        apart = all(len(span) == 2 or words[span[0]] == 1 for span in group)
        pairs = [span for span in group if len(span) == 2]
        many = min(len({first for first, _ in pairs}), len({last for _, last in pairs})) > 1
        if many and apart and _closed(group, set(words), lines):
            yield group


def _share(around: dict[Words, Counter[Words]], a: Words, b: Words) -> float:
    return sum(n for place, n in around[a].items() if place in around[b]) / sum(around[a].values())


def _closed(group: set[Words], words: set[str], lines: set[Words]) -> bool:
    """Whether every one of these words stands in a span of the group, wherever it stands."""
    for line in lines:
        for i, word in enumerate(line):
            if word in words and not any(line[j : j + n] in group for j, n in ((i, 1), (i, 2), (i - 1, 2)) if j >= 0):
                return False
    return True
