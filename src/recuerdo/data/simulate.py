"""Endless fresh stories of the 20 kinds of bAbI (Weston et al. 2015), from a small world of our own.

The sentences have bAbI's forms. With `OWN` names the stories share nothing else with bAbI; with `BABI` names a model
that learned bAbI can read them. Every answer comes from the state of the world, and so do the supporting facts.
"""

import random
from collections.abc import Callable, Sequence

from recuerdo.data import moving, relating
from recuerdo.data.stories import Story
from recuerdo.data.telling import BABI, OWN, Names, Telling
from recuerdo.errors import InputError

__all__ = ["BABI", "OWN", "Names", "as_text", "simulate"]

KINDS: dict[int, Callable[[Telling], None]] = {
    1: moving.where_people,
    2: moving.where_things,
    3: moving.where_before,
    4: relating.beside,
    5: moving.who_gave,
    6: moving.is_there,
    7: moving.how_many,
    8: moving.what_carried,
    9: moving.is_not,
    10: moving.maybe,
    11: moving.she,
    12: moving.and_,
    13: moving.they,
    14: moving.before,
    15: relating.afraid,
    16: relating.colour,
    17: relating.position,
    18: relating.size,
    19: relating.path,
    20: moving.why,
}


def simulate(task: int, seed: int, stories: int, *, names: Names = OWN) -> list[Story]:
    """So many stories of one of bAbI's 20 tasks. Story n depends on task, seed, n and names only.

    Raises InputError for a task that there is not.
    """
    if task not in KINDS:
        raise InputError(f"there is no task {task}: bAbI has tasks 1 to 20")
    told = []
    for number in range(stories):
        telling = Telling(names.of(task), random.Random(f"{task}/{seed}/{number}"))
        KINDS[task](telling)
        told.append(telling.story(task))
    return told


def as_text(stories: Sequence[Story]) -> str:
    """Stories in bAbI's format, one after the other; `recuerdo.data.stories.parse` reads them back."""
    lines = []
    for story in stories:
        number, line_of = 0, {}
        asked = list(story.questions)
        for at in range(len(story.sentences) + 1):
            while asked and asked[0].before == at:
                question = asked.pop(0)
                number += 1
                facts = " ".join(str(line_of[fact]) for fact in question.facts)
                lines.append(f"{number} {' '.join(question.words)}?\t{question.answer}\t{facts}")
            if at < len(story.sentences):
                number += 1
                line_of[at] = number
                lines.append(f"{number} {' '.join(story.sentences[at])}.")
    return "".join(f"{line}\n" for line in lines)
