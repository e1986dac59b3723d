"""Teach a model from feedback: afterwards it attends where people marked, without being steered.

`recuerdo.workbench.cases` says what is learned and how it is judged; here the run is composed.
"""

import copy
import random
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from recuerdo.bridge.adapt import check_folder, check_method, save, training
from recuerdo.bridge.run import Loaded, load
from recuerdo.errors import InputError, MarkError, ModelError
from recuerdo.steer.journal import Feedback
from recuerdo.steer.places import Quote, Span
from recuerdo.steer.placing import on_tokens
from recuerdo.train.fit import Step, fit, rounds
from recuerdo.workbench.cases import Case, Known, Lesson, Numbers, case_of, figures, losses, paths_of
from recuerdo.workbench.looking import Progress

__all__ = ["Lesson", "Numbers", "Taught", "teach"]

ELSEWHERE = (
    "The river rises in the hills and reaches the sea after two hundred miles. In spring the water is high, and the "
    "bridges are closed to carts. Most of the mills along its banks were built to grind corn; a few of them still turn."
)


@dataclass
class Taught:
    """A taught model, and what that changed.

    `before`, `after`: unsteered; `asked`: under steering, before: the masses that were the aim. `held_…`: the same for
    feedback that was held out. `elsewhere`: nats between the next words of the taught and the untaught model, on a
    passage about other things. `steps`: the losses on the way. `folder`: where it was saved.
    """

    model: Loaded
    base: str
    lesson: Lesson
    before: Numbers
    asked: Numbers
    after: Numbers
    elsewhere: float
    held_before: Numbers | None = None
    held_asked: Numbers | None = None
    held_after: Numbers | None = None
    steps: list[Step] = field(default_factory=list)
    ids: list[str] = field(default_factory=list)
    held_ids: list[str] = field(default_factory=list)
    folder: Path | None = None

    def as_data(self) -> dict[str, Any]:
        """As plain data; it stands in teaching.json beside the weights as well."""
        from recuerdo import __version__

        numbers = ("before", "asked", "after", "held_before", "held_asked", "held_after")
        return {
            "version": 1,
            "recuerdo": __version__,
            "model": self.base,
            "folder": None if self.folder is None else str(self.folder),
            "lesson": asdict(self.lesson),
            **{name: None if (found := getattr(self, name)) is None else asdict(found) for name in numbers},
            "elsewhere": self.elsewhere,
            "losses": [{"step": step.number, "loss": step.loss, **step.parts} for step in self.steps],
            "feedback": self.ids,
            "held_out": self.held_ids,
        }


def teach(
    model: str | Path | Loaded,
    feedback: Iterable[Feedback],
    *,
    lesson: Lesson | None = None,
    out: str | Path | None = None,
    progress: Progress | None = None,
) -> Taught:
    """Teach a language model what the feedback says, and measure it before and after; saved to the new folder `out`.

    A `Loaded` that is handed over stays as it is, a taught copy comes back. `progress(what, done, total)` is called
    along the way. A run that is left, by Ctrl-C or an error, writes nothing.

    Raises InputError for no feedback, and settings or a folder that cannot be used; MarkError for marks that do not fit
    their text; ModelError for models that do not answer, LoRA without peft, and a folder that cannot be written.
    """
    lesson, entries = lesson or Lesson(), list(feedback)
    say = progress or _silent
    held = _held_out(len(entries), lesson)
    check_method(lesson.method)
    folder = None if out is None else check_folder(out)
    _check_marks(entries)
    loaded = _own(model, say)
    lesson = _placed(lesson, loaded)
    cases = []
    for i, entry in enumerate(entries):
        say("hearing", i, len(entries))
        cases.append(case_of(loaded, entry, lesson))
    elsewhere = Known.of(loaded, loaded.tokenizer(ELSEWHERE)["input_ids"])
    taught, others = [c for i, c in enumerate(cases) if i not in held], [cases[i] for i in sorted(held)]
    before, held_before = _numbers(loaded, taught, say, "before"), _numbers(loaded, others, say, "before, held out")
    steps = _train(loaded, taught, lesson, say)
    after, held_after = _numbers(loaded, taught, say, "after"), _numbers(loaded, others, say, "after, held out")
    result = Taught(
        model=loaded if folder is None else replace(loaded, name=folder.name),
        base=loaded.name,
        lesson=lesson,
        before=before,
        asked=Numbers.of([case.asked for case in taught]),
        after=after,
        elsewhere=elsewhere.far(loaded),
        steps=steps,
        ids=[case.feedback.id for case in taught],
        held_ids=[case.feedback.id for case in others],
        folder=folder,
    )
    if others:
        result.held_before, result.held_after = held_before, held_after
        result.held_asked = Numbers.of([case.asked for case in others])
    if folder is not None:
        say("saving", 0, 0)
        save(result.model, folder, result.as_data())
    return result


def _own(model: str | Path | Loaded, say: Progress) -> Loaded:
    """A language model that nobody else holds."""
    theirs = isinstance(model, Loaded)
    loaded = model if theirs else load(model, progress=say)
    if loaded.kind != "causal" or loaded.tokenizer is None:
        raise ModelError(
            f"{loaded.name} does not answer: teach a language model, or train this one with `recuerdo.train.fit`"
        )
    return replace(loaded, model=copy.deepcopy(loaded.model)) if theirs else loaded


def _placed(lesson: Lesson, loaded: Loaded) -> Lesson:
    """The lesson with its layers counted from the first."""
    count = getattr(loaded.model.config, "num_hidden_layers", None)
    if lesson.layers is None or count is None:
        return lesson
    for layer in lesson.layers:
        if not -count <= layer < count:
            raise InputError(f"there is no layer {layer}: {loaded.name} has layers 0 to {count - 1}")
    return replace(lesson, layers=tuple(layer % count for layer in lesson.layers))


def _train(loaded: Loaded, cases: Sequence[Case], lesson: Lesson, say: Progress) -> list[Step]:
    """The lesson itself; afterwards the weights are the taught ones."""
    steps: list[Step] = []
    reads = {path for case in cases for path in case.aims} or paths_of(loaded, cases[0], lesson)
    with training(loaded.model, lesson.method, reads=reads, rank=lesson.rank, seed=lesson.seed) as learned:
        batches = rounds(cases, min(lesson.batch, len(cases)), lesson.seed)
        say("teaching", 0, lesson.steps)
        for event in fit(lambda case: losses(loaded, case, lesson), learned, batches, lesson.pace()):
            if isinstance(event, Step):
                steps.append(event)
                say("teaching", event.number, event.steps)
    return steps


def _numbers(loaded: Loaded, cases: Sequence[Case], say: Progress, when: str) -> Numbers:
    found = []
    for i, case in enumerate(cases):
        say(f"measuring {when}", i, len(cases))
        found.append(figures(loaded, case))
    return Numbers.of(found)


def _held_out(count: int, lesson: Lesson) -> set[int]:
    """Which feedback is not taught, drawn by the seed."""
    if not count:
        raise InputError("there is no feedback to teach: keep some with `recuerdo steer --keep`")
    if not lesson.check:
        return set()
    if count < 2:
        raise InputError("one feedback cannot be held out and taught as well: keep more, or hold out nothing")
    few = min(max(1, round(lesson.check * count)), count - 1)
    return set(random.Random(lesson.seed).sample(range(count), few))


def _check_marks(entries: Sequence[Feedback]) -> None:
    """Refuse what cannot be taught before a model is loaded, and say which feedback it is."""
    for entry in entries:
        try:
            for mark in entry.marks:
                if not isinstance(mark.where, Quote | Span):
                    raise MarkError(f"the mark {mark} is not on words: choose others to teach (--only)")
            on_tokens(entry.marks, entry.text, [(i, i + 1) for i in range(len(entry.text))])
        except MarkError as error:
            raise MarkError(f"feedback {entry.id}: {error}") from None


def _silent(what: str, done: int, total: int) -> None:
    """Stands in where nobody wants to know how far the work is."""
