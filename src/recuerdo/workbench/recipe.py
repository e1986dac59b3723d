"""A recipe: one TOML file that says what a run learns, with which model, how fast. Nothing below knows recipes.

about = "one line"
task = "answer"
[data]                  # fields of the task
[model]
name = "memn2n"         # the rest: keyword arguments of the model
[train]                 # fields of Pace, and: every, seed, device, tensorboard
[[train.phase]]         # what is different for a while: keys of [train], and attributes to set on the model
steps = 100
set = { linear = true }
[result]                # what the paper says; not read by training
"""

import inspect
import re
import tomllib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from torch import Tensor, nn

from recuerdo.bridge.seeing import PictureEncoder
from recuerdo.bridge.sentences import SentenceEncoder
from recuerdo.errors import InputError
from recuerdo.train.device import Batch
from recuerdo.train.optimise import Pace
from recuerdo.workbench.shelf import near, recipe_text, written

TASKS = {
    "answer": "recuerdo.tasks.answer:Answer",
    "caption": "recuerdo.tasks.caption:Caption",
    "find": "recuerdo.tasks.find:Find",
    "glance": "recuerdo.tasks.glance:Glance",
    "read": "recuerdo.tasks.read_digits:ReadDigits",
    "recall": "recuerdo.tasks.recall:Recall",
    "summarise": "recuerdo.tasks.summarise:Summarise",
    "translate": "recuerdo.tasks.translate:Translate",
}
SECTIONS = ("name", "about", "task", "data", "model", "train", "result")
PACE = {f.name: f.type for f in fields(Pace)}
RUN = {"every": int, "seed": int, "device": str, "tensorboard": bool}


class Task(Protocol):
    """What a run needs of a task; its fields are the section [data]. It may have `evidence` and `predict` as well;
    `carries`: fields that it read from its data, kept on the run's card so that the model is of use without that; and
    `encoder`: which sentence encoder is put into its `encode`; `sees`: which vision model is put into its `see`."""

    def model(self, name: str, **arguments: Any) -> nn.Module:
        """A new model for this task."""
        ...

    def batches(self, *, seed: int, start: int = 0) -> Iterable[Batch]:
        """Batches without end from number `start` on; a batch depends on `seed` and its number only."""
        ...

    def loss(self, model: nn.Module, batch: Any) -> Mapping[str, Tensor]:
        """The parts of the loss, each a mean over the items of the batch."""
        ...

    def check(self, model: nn.Module, split: str) -> dict[str, float]:
        """Numbers on "valid" or "test"; the first is the one to lower."""
        ...


@dataclass(frozen=True)
class Phase:
    """A part of a run: its pace, and the attributes that the model has meanwhile."""

    pace: Pace
    attributes: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Recipe:
    """What one run is, with every choice resolved; `plain` gives it as data, `as_toml` as text."""

    name: str
    about: str
    task: str
    model: str
    data: Mapping[str, Any]
    arguments: Mapping[str, Any]
    phases: tuple[Phase, ...]
    train: Mapping[str, Any]
    result: Mapping[str, Any] = field(default_factory=dict)

    @property
    def steps(self) -> int:
        """The steps of all phases."""
        return sum(phase.pace.steps for phase in self.phases)

    def plain(self) -> dict[str, Any]:
        """The sections, as they stand in the file."""
        return {
            "name": self.name,
            "about": self.about,
            "task": self.task,
            "data": dict(self.data),
            "model": {"name": self.model, **self.arguments},
            "train": dict(self.train),
            "result": dict(self.result),
        }

    def as_toml(self) -> str:
        """The file."""
        return written(self.plain())

    def new_task(self) -> Task:
        """The task itself. Raises InputError when its data cannot be used."""
        try:
            task = task_class(self.task)(**{k: _frozen(v) for k, v in self.data.items()})
        except (TypeError, ValueError) as error:
            if isinstance(error, InputError):
                raise
            raise InputError(f"[data] of {self.name} does not fit the task {self.task}: {error}") from None
        if encoder := getattr(task, "encoder", ""):
            task.encode = _encode_by(encoder)
        if sees := getattr(task, "sees", ""):
            task.see = PictureEncoder(sees)
        return task

    def new_model(self, task: Task) -> nn.Module:
        """A model of this recipe, with new parameters. Raises InputError when its arguments cannot be used."""
        try:
            return task.model(self.model, **{k: _frozen(v) for k, v in self.arguments.items()})
        except (TypeError, ValueError) as error:
            if isinstance(error, InputError):
                raise
            raise InputError(f"[model] of {self.name} does not fit {self.model}: {error}") from None


@cache
def _encode_by(name: str) -> Callable[[Sequence[str]], np.ndarray]:
    """The same function for the same encoder, which is loaded when it is used first."""
    loaded: list[SentenceEncoder] = []

    def encode(texts: Sequence[str]) -> np.ndarray:
        if not loaded:
            loaded.append(SentenceEncoder(name))
        return loaded[0].encode(texts)

    return encode


def load_recipe(name: str | Path, changes: Sequence[str] = ()) -> Recipe:
    """A recipe by name or path, with `changes` such as "train.lr=0.01" or "model.name=entnet".

    Raises InputError for what is no recipe; unknown keys are told with the nearest that there is.
    """
    name, text = recipe_text(name)
    try:
        content = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"the recipe {name} is not TOML: {error}") from None
    for change in changes:
        _change(content, change)
    return resolve(name, content)


def resolve(name: str, content: Mapping[str, Any]) -> Recipe:
    """The recipe that the content of a file says. Raises InputError."""
    _known(content, SECTIONS, f"the recipe {name}")
    for section in ("data", "model", "train", "result"):
        if not isinstance(content.get(section, {}), Mapping):
            raise InputError(f"{section} of the recipe {name} is a section: write [{section}]")
    data, train = dict(content.get("data", {})), dict(content.get("train", {}))
    arguments = dict(content.get("model", {}))
    task, model = content.get("task"), arguments.pop("name", None)
    if not isinstance(task, str):
        raise InputError(f'the recipe {name} names no task: write task = "answer"')
    if not isinstance(model, str):
        raise InputError(f'the recipe {name} names no model: write name = "memn2n" in [model]')
    offered = [f.name for f in fields(task_class(task)) if f.init]
    _known(data, offered, f"[data] of {name} (task {task})")
    _known(arguments, _accepted(model_class(task, model)), f"[model] of {name} ({model})")
    return Recipe(
        name=str(content.get("name", name)),
        about=str(content.get("about", "")),
        task=task,
        model=model,
        data=data,
        arguments=arguments,
        phases=_phases(train, name),
        train=train,
        result=dict(content.get("result", {})),
    )


def task_class(name: str) -> Any:
    """The class of a task: one of ours, or "module:Class" of somebody else's. Raises InputError when there is none."""
    module, kind = _home(name)
    try:
        found = getattr(import_module(module), kind)
    except (ImportError, AttributeError) as error:
        raise InputError(f"the task {name!r} cannot be imported ({error}): write module:Class") from None
    if not (isinstance(found, type) and is_dataclass(found)):
        raise InputError(f"{name!r} is no task: a task is a dataclass, whose fields are [data]")
    return found


def _home(task: str) -> tuple[str, str]:
    """Module and class of a task."""
    place = task if ":" in task else TASKS.get(task)
    if place is None:
        raise InputError(f"there is no task {task!r}: {near(task, TASKS)}")
    module, _, kind = place.partition(":")
    return module, kind


def model_class(task: str, name: str) -> Any:
    """The class of a model of a task. Raises InputError when there is none."""
    there = getattr(import_module(_home(task)[0]), "MODELS", {})
    if name not in there:
        raise InputError(f"the task {task} has no model {name!r}: {near(name, there)}")
    return there[name]


def differences(one: Mapping[str, Any], other: Mapping[str, Any], head: str = "") -> list[str]:
    """The keys in which two recipes differ, such as "train.lr"."""
    found = []
    for key in {**one, **other}:
        a, b = one.get(key), other.get(key)
        if isinstance(a, Mapping) and isinstance(b, Mapping):
            found += differences(a, b, f"{head}{key}.")
        elif a != b:
            found.append(f"{head}{key}")
    return found


def _phases(train: Mapping[str, Any], name: str) -> tuple[Phase, ...]:
    """The phases of [train]; one of all steps where there are none."""
    told = train.get("phase", [])
    if not isinstance(told, list) or not all(isinstance(one, Mapping) for one in told):
        raise InputError(f"phases of {name} are tables: write [[train.phase]]")
    common = {key: value for key, value in train.items() if key != "phase"}
    _known(common, [*PACE, *RUN], f"[train] of {name}")
    found = []
    for phase in told or [{}]:
        _known(phase, [*PACE, "set"], f"[[train.phase]] of {name}")
        attributes = phase.get("set", {})
        if not isinstance(attributes, Mapping):
            raise InputError(f"set of a phase of {name} is a table: write set = {{ linear = true }}")
        pace = {key: value for key, value in {**common, **phase}.items() if key in PACE}
        _check_kinds({**common, **pace}, name)
        if "steps" not in pace:
            raise InputError(f"[train] of {name} says no steps: write steps = 1000")
        if not phase and told:
            raise InputError(f"a phase of {name} changes nothing: give it steps, lr or set")
        found.append(Phase(Pace(**pace), dict(attributes)))
    return tuple(found)


def _check_kinds(train: Mapping[str, Any], name: str) -> None:
    kinds = {**PACE, **RUN}
    for key, value in train.items():
        kind = kinds[key]
        if isinstance(value, bool) if kind is not bool else False:
            fits = False
        else:
            fits = isinstance(value, (int, float) if kind is float else kind)
        if not fits:
            words = {int: "a whole number", float: "a number", str: "a text", bool: "true or false"}
            raise InputError(f"train.{key} of {name} is {words[kind]}, not {value!r}")
    if train.get("every", 0) < 0:
        raise InputError(f"train.every of {name} is a number of steps, or 0 for only at the end")


def _accepted(kind: Any) -> list[str]:
    """The arguments of a model that a recipe may give: those with a default; the task gives the others."""
    found = inspect.signature(kind).parameters.values()
    return [p.name for p in found if p.default is not p.empty or p.kind is p.KEYWORD_ONLY]


def _known(given: Iterable[str], there: Iterable[str], where: str) -> None:
    names = list(there)
    for key in given:
        if key not in names:
            raise InputError(f"{where} has no key {key!r}: {near(key, names)}")


def _change(content: dict[str, Any], change: str) -> None:
    """Set one value, such as "train.lr=0.01" or "train.phase.0.steps=5"."""
    path, equals, text = change.partition("=")
    keys = path.strip().split(".")
    if not equals or not all(keys):
        raise InputError(f"{change!r} changes nothing: write it like train.lr=0.01")
    value = _parsed(text.strip())
    at: Any = content
    try:
        for key in keys[:-1]:
            at = at[int(key)] if isinstance(at, list) else at.setdefault(key, {})
        last: Any = int(keys[-1]) if isinstance(at, list) else keys[-1]
        at[last] = value
    except (ValueError, IndexError, TypeError, AttributeError):
        raise InputError(f"there is no {path.strip()} to set: see `recuerdo recipes show`") from None


def _parsed(text: str) -> Any:
    try:
        return tomllib.loads(f"x = {text}")["x"]
    except tomllib.TOMLDecodeError:
        if re.fullmatch(r"[A-Za-z][\w./-]*", text):
            return text  # a bare word is a text: the shell eats the quotes
        raise InputError(f'{text!r} is no value of TOML: write 1, 0.5, true, [1, 2], or a text in "quotes"') from None


def _frozen(value: Any) -> Any:
    """Lists become tuples: the fields of a frozen dataclass should not change."""
    return tuple(_frozen(one) for one in value) if isinstance(value, list) else value
