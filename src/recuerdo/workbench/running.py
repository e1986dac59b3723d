"""Train by a recipe into a folder, and use what is in it: evaluate, predict, sum up several seeds.

The folder of a run holds recipe.toml (every choice, the seed too), events.jsonl (a line for each step and check),
last.safetensors (all that is needed to go on), best.safetensors (the parameters at the best check) and card.json.
"""

import inspect
import json
import math
import time
from collections import deque
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, TextIO

import torch
from torch import nn

from recuerdo.errors import InputError, RunError
from recuerdo.train.checkpoint import (
    disk_words,
    load_checkpoint,
    load_model,
    model_tensors,
    replace_file,
    save_checkpoint,
)
from recuerdo.train.device import World, world
from recuerdo.train.fit import Checked, Saved, Step, fit
from recuerdo.train.optimise import State, mixed, whole
from recuerdo.workbench.recipe import Recipe, Task, load_recipe
from recuerdo.workbench.runfolder import (
    claim,
    find_run,
    held,
    is_shipped,
    open_log,
    plain,
    read_card,
    read_events,
    write_json,
)
from recuerdo.workbench.shelf import near


@dataclass(frozen=True)
class Started:
    """A run begins, or goes on after `number` steps; `sees`: the vision model that looks at all pictures first."""

    folder: Path
    number: int
    steps: int
    parameters: int
    seed: int
    sees: str = ""


@dataclass(frozen=True)
class Finished:
    """A run is through: the numbers of its best check, at which step that was, and the seconds of all its parts, by the
    clock and of this process's processors."""

    folder: Path
    number: int
    numbers: dict[str, float]
    best: int
    seconds: float
    cpu_seconds: float


Event = Started | Step | Checked | Saved | Finished


def as_data(event: Event) -> dict[str, Any]:
    """An event as plain data."""
    return {"event": type(event).__name__.lower(), **plain(asdict(event))}


def train(recipe: Recipe, folder: Path, *, seed: int | None = None) -> Generator[Event, None, None]:
    """Train by a recipe into a folder, and yield what happens; a run that was stopped there goes on, bit for bit.

    Whoever leaves the loop, or presses Ctrl-C, finds the last whole step saved.

    Raises InputError for a recipe that cannot be used and for training that gets out of hand; RunError for a folder
    that holds another run, is in use, or cannot be written.
    """
    told = {**recipe.train, "seed": recipe.train.get("seed", 0) if seed is None else seed}
    with world(told.get("device", "auto")) as here, held(folder, here):
        run = Run(replace(recipe, train=told), folder, here)
        try:
            yield from run.events()
        except (KeyboardInterrupt, GeneratorExit):
            run.keep()
            raise
        except InputError as error:
            if not run.saved:
                raise
            raise InputError(f"{error}; step {run.saved} is saved in {folder}") from None
        finally:
            run.close()


class Run:
    """One run in its folder: task, model and state, and what is written beside them."""

    def __init__(self, recipe: Recipe, folder: Path, here: World) -> None:
        self.recipe, self.folder, self.world = recipe, folder, here
        self.seed: int = recipe.train["seed"]
        self.every: int = recipe.train.get("every", 0)
        going_on = here.tell(claim(recipe, folder) if here.first else False)
        self.task = recipe.new_task()
        self.carried = getattr(self.task, "carries", dict)()
        torch.manual_seed(mixed(self.seed, "model"))
        self.model = recipe.new_model(self.task).to(here.device)
        _check_attributes(recipe, self.model)
        self.named = {name: p for name, p in self.model.named_parameters() if p.requires_grad}
        here.same(self.model)
        self.phase, self.first, self.seconds, self.cpu_seconds = 0, 0, 0.0, 0.0
        self.best: dict[str, Any] = {}
        self.saved = 0
        self.state = self._state()
        if going_on:
            self._load(folder / "last.safetensors")
        elif here.first:
            replace_file(folder / "recipe.toml", recipe.as_toml().encode())
        self.board = _board(folder, self.number) if recipe.train.get("tensorboard") and here.first else None
        self.since, self.cpu_since = time.monotonic(), time.process_time()
        self.log: TextIO | None = open_log(folder, self.number, self.state.settled + self.first) if here.first else None
        told = read_events(folder) if here.first else ()
        self.losses = deque((e["loss"] for e in told if e["event"] == "step"), self.every or 100)

    @property
    def number(self) -> int:
        """The steps made, of all phases."""
        return self.first + self.state.number

    def events(self) -> Iterator[Event]:
        """Train to the end."""
        count, sees = sum(p.numel() for p in self.named.values()), getattr(self.task, "sees", "")
        yield self._told(Started(self.folder, self.number, self.recipe.steps, count, self.seed, sees))
        while True:
            phase = self.recipe.phases[self.phase]
            batches = self.task.batches(seed=self.seed, start=self.number)
            with _attributes(self.model, phase.attributes):
                for event in fit(
                    lambda batch: self.task.loss(self.model, batch),
                    self.named.values(),
                    (self.world.part(batch) for batch in batches),
                    phase.pace,
                    every=self.every,
                    check=self._check,
                    save=self.save,
                    state=self.state,
                ):
                    yield self._told(self._placed(event))
            if self.phase + 1 == len(self.recipe.phases):
                break
            with whole():
                self.first += self.state.number
                self.phase += 1
                self.state = self._state()
        self._write_card(finished=True)
        best = self.best
        yield self._told(
            Finished(self.folder, self.number, best.get("numbers", {}), best.get("number", 0), *self._spent())
        )

    def save(self) -> Path:
        """Write the checkpoints: best, where the last check was the best one, then last; then the card."""
        if not self.world.first:
            return self.folder / "last.safetensors"
        told = {**self.state.numbers(), "phase": self.phase, "first": self.first}
        seconds, cpu_seconds = self._spent()
        told |= {"seconds": seconds, "cpu_seconds": cpu_seconds, "best": self.best}
        if self.state.improved:
            with self.state.averaged():
                save_checkpoint(self.folder / "best.safetensors", model_tensors(self.model), self.best)
        tensors = model_tensors(self.model) | self.state.tensors()
        path = save_checkpoint(self.folder / "last.safetensors", tensors, told)
        self.saved = self.number
        self._write_card()
        return path

    def keep(self) -> None:
        """Save when somebody leaves; nothing where no step was made."""
        if self.number and self.state.finite():
            self.save()

    def close(self) -> None:
        """Let go of the files."""
        if self.log is not None:
            with suppress(OSError):  # a full disk was told already
                self.log.close()
        if self.board is not None:
            self.board.close()

    def _state(self) -> State:
        pace = self.recipe.phases[self.phase].pace
        tables = [p for module in self.model.modules() if isinstance(module, nn.Embedding) for p in module.parameters()]
        return State(self.named, pace, seed=f"{self.seed}/{self.phase}", world=self.world, tables=tables)

    def _load(self, path: Path) -> None:
        tensors, told = load_checkpoint(path)
        load_model(self.model, tensors, path)
        self.phase, self.first = told["phase"], told["first"]
        self.seconds, self.best = told["seconds"], told["best"]
        self.cpu_seconds = told.get("cpu_seconds", 0.0)  # older runs did not count them
        self.state = self._state()
        self.state.load(tensors, told)
        self.saved = self.number

    def _check(self) -> dict[str, float]:
        """The numbers of the first process: the others wait for them."""
        numbers = None
        if self.world.first:
            torch.manual_seed(mixed(self.seed, "check"))
            self.model.eval()
            with torch.no_grad():
                numbers = {name: float(value) for name, value in self.task.check(self.model, "valid").items()}
            self.model.train()
        told = self.world.tell(numbers) or {}
        first = next(iter(told.values()), math.inf)
        if first < self.state.least:
            self.best = {"number": self.number, "numbers": told}
        return told

    def _placed(self, event: Step | Checked | Saved) -> Event:
        """An event of one phase as one of the run."""
        event = replace(event, number=self.first + event.number)
        return replace(event, steps=self.recipe.steps) if isinstance(event, Step) else event

    def _told(self, event: Event) -> Event:
        """Write the event down."""
        if isinstance(event, Step):
            self.losses.append(event.loss)
        if self.log is not None:
            told = as_data(event) | ({} if isinstance(event, Step) else self._rounded(3))
            try:
                self.log.write(json.dumps(told) + "\n")
                self.log.flush()
            except OSError as error:
                raise RunError(disk_words(self.folder / "events.jsonl", error)) from error
        if self.board is not None and isinstance(event, Step | Checked):
            if isinstance(event, Step):
                numbers = {"loss": event.loss, "rate": event.rate}
            else:
                numbers = {f"valid/{name}": value for name, value in event.numbers.items()}
            for name, value in numbers.items():
                self.board.add_scalar(name, value, event.number)
        return event

    def _spent(self) -> tuple[float, float]:
        clock, cpu = time.monotonic() - self.since, time.process_time() - self.cpu_since
        return self.seconds + clock, self.cpu_seconds + cpu

    def _rounded(self, digits: int) -> dict[str, float]:
        seconds, cpu_seconds = self._spent()
        return {"seconds": round(seconds, digits), "cpu_seconds": round(cpu_seconds, digits)}

    def _write_card(self, finished: bool = False) -> None:
        from recuerdo import __version__

        if not self.world.first:
            return
        card = {
            "version": 1,
            "recuerdo": __version__,
            "torch": torch.__version__,
            "recipe": self.recipe.name,
            "task": self.recipe.task,
            "model": self.recipe.model,
            "seed": self.seed,
            "parameters": sum(p.numel() for p in self.named.values()),
            "steps": self.number,
            "finished": finished,
            **self._rounded(1),
            "processes": self.world.size,
            "threads": torch.get_num_threads(),
            "training_loss": sum(self.losses) / len(self.losses) if self.losses else None,
            "best": self.best,
            "carries": self.carried,
        }
        before = read_card(self.folder)
        if before.get("best") != self.best:  # what was measured was measured on other parameters
            before.pop("results", None)
            before.pop("evidence", None)
        write_json(self.folder / "card.json", before | card)


@dataclass(frozen=True)
class Trained:
    """What a run has learned: the model in evaluation mode, its task, and where it is from."""

    folder: Path
    recipe: Recipe
    task: Task
    model: nn.Module


def open_run(folder: str | Path, which: str = "best") -> Trained:
    """The model of a run at its best check, or the last one. Raises RunError when the folder holds no such run."""
    folder = find_run(folder)
    recipe = load_recipe(folder)
    path = folder / f"{which}.safetensors"
    tensors, _ = load_checkpoint(path)
    carried = read_card(folder).get("carries")
    recipe = replace(recipe, data={**recipe.data, **(carried if isinstance(carried, dict) else {})})
    task = recipe.new_task()
    model = recipe.new_model(task)
    load_model(model, tensors, path)
    return Trained(folder, recipe, task, model.eval())


def evaluate(folder: str | Path, split: str = "test", *, which: str = "best", truth: bool = False) -> dict[str, float]:
    """The numbers of a run on "test" or "valid"; its card keeps them (those of the best check), and how often the test
    was looked at.

    `truth` asks for the task's evidence instead: whether what the model read is what it should have.

    Raises InputError for an unknown split and for a task that has no evidence; RunError as `open_run`.
    """
    if split not in ("test", "valid"):
        raise InputError(f"there is no split {split!r}: choose test or valid")
    run = open_run(folder, which)
    ask = getattr(run.task, "evidence", None) if truth else run.task.check
    if ask is None:
        raise InputError(f"the task {run.recipe.task} has no evidence to compare with: leave --truth away")
    with torch.no_grad():
        numbers = {name: float(value) for name, value in ask(run.model, split).items()}
    if is_shipped(run.folder):
        return numbers
    card = read_card(run.folder)
    if which == "best":
        card.setdefault("evidence" if truth else "results", {})[split] = numbers
    if not truth and (judges := getattr(run.task, "judged_by", None)):
        card["judged_by"] = judges()
    if split == "test" and not truth:
        card["tested"] = card.get("tested", 0) + 1
    write_json(run.folder / "card.json", card)
    return numbers


def predict(folder: str | Path, **words: Any) -> Any:
    """What the model of a run says; `words` are those of the task's `predict`.

    Raises InputError for a task that predicts nothing; RunError as `open_run`.
    """
    run = open_run(folder)
    ask = getattr(run.task, "predict", None)
    if ask is None:
        raise InputError(f"the task {run.recipe.task} has nothing to predict: `recuerdo evaluate` says how good it is")
    there = inspect.signature(ask).parameters
    for name in words:
        if name not in there:
            raise InputError(f"predict does not know {name!r}: it knows {', '.join(sorted({*there} - {'model'}))}")
    for name, parameter in there.items():
        if parameter.default is parameter.empty and name not in ("model", *words):
            raise InputError(f"predict needs {name}: give {'it after the run' if name == 'text' else f'--{name}'}")
    return ask(run.model, **words)


def _check_attributes(recipe: Recipe, model: nn.Module) -> None:
    for phase in recipe.phases:
        for name in phase.attributes:
            if not hasattr(model, name):
                own = [key for key in vars(model) if not key.startswith("_")]
                raise InputError(f"{recipe.model} has no attribute {name!r} that a phase could set: {near(name, own)}")


@contextmanager
def _attributes(model: nn.Module, wanted: Mapping[str, Any]) -> Iterator[None]:
    """Inside the block the model has these attributes."""
    before = {name: getattr(model, name) for name in wanted}
    for name, value in wanted.items():
        setattr(model, name, value)
    try:
        yield
    finally:
        for name, value in before.items():
            setattr(model, name, value)


def _board(folder: Path, number: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise InputError("TensorBoard is not installed: pip install tensorboard, or train without it") from None
    return SummaryWriter(str(folder / "tensorboard"), purge_step=number + 1)
