"""The folder of a run: whose it is, its events, its card; and a folder of several seeds, summed up."""

import json
import math
import statistics
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from importlib.resources import files
from pathlib import Path
from typing import Any, TextIO

from recuerdo.errors import RunError
from recuerdo.train.checkpoint import disk_words, replace_file
from recuerdo.train.device import World
from recuerdo.workbench.recipe import Recipe, differences

HOW = ("tensorboard", "device")  # keys of [train] that do not change what is learned


def claim(recipe: Recipe, folder: Path) -> bool:
    """See that the folder is free or this run's; whether there is something to go on from. Raises RunError."""
    path = folder / "recipe.toml"
    if not path.exists():
        other = sorted(p.name for p in folder.iterdir() if p.name != ".lock" and not p.name.endswith(".part"))
        if other:
            raise RunError(f"{folder} is not empty and no folder of a run ({other[0]}): name another one with --out")
        return False
    last, best = ((folder / f"{name}.safetensors").exists() for name in ("last", "best"))
    if not last and not best:
        return False  # it ended before anything was learned
    try:
        there = tomllib.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise RunError(f"{path} cannot be read ({error}): name another folder with --out") from None
    if changed := differences(_learned(there), _learned(tomllib.loads(recipe.as_toml()))):
        raise RunError(
            f"{folder} holds another run ({', '.join(changed)}): go on with it by `recuerdo train {folder}`, "
            "or name another folder with --out"
        )
    if not last and not (folder / "events.jsonl").exists():
        raise RunError(f"{folder} holds a trained model with nothing to go on from: name another folder with --out")
    return last  # a damaged one was deleted, to train again from the start


def _learned(content: Mapping[str, Any]) -> dict[str, Any]:
    """What of a recipe decides what is learned."""
    train = {key: value for key, value in content.get("train", {}).items() if key not in HOW}
    return {name: content.get(name, {}) for name in ("task", "data", "model")} | {"train": train}


def open_log(folder: Path, number: int, settled: int) -> TextIO:
    """The file of events, without those behind the checkpoint: they will happen again. Raises RunError."""
    limits = {"step": number, "checked": settled, "saved": settled, "finished": -1}
    kept = [e for e in read_events(folder) if number and e.get("number", 0) <= limits.get(e["event"], math.inf)]
    path = folder / "events.jsonl"
    replace_file(path, "".join(json.dumps(e) + "\n" for e in kept).encode())
    return path.open("a", encoding="utf-8")


@contextmanager
def held(folder: Path, here: World) -> Iterator[None]:
    """Nobody else trains in this folder; the system takes the lock back from a process that dies. A folder that is made
    for a run that never began goes again."""
    from filelock import FileLock, Timeout

    if not here.first:
        yield
        return
    lock, made = FileLock(folder / ".lock"), not folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
    except Timeout:
        raise RunError(f"another process trains in {folder}: wait for it, or name another folder with --out") from None
    except OSError as error:
        raise RunError(disk_words(folder, error)) from error
    try:
        yield
    finally:
        with suppress(OSError):  # it stays where the system does not let go of an open file
            if made and [path.name for path in folder.iterdir()] == [".lock"]:
                (folder / ".lock").unlink()
                folder.rmdir()
        lock.release()


def find_run(name: str | Path) -> Path:
    """The folder of a run: a path (of several seeds, the one that is best by validation), or the name of a model that
    comes with recuerdo. Raises RunError when there is none."""
    path = Path(name)
    if (path / "recipe.toml").is_file():
        return path
    if seeds_of(path):
        return path / f"seed-{summary(path)['best_by_validation']['seed']}"
    shelf = files("recuerdo.recipes") / "trained"
    there = sorted(one.name for one in shelf.iterdir()) if shelf.is_dir() else []
    if str(name) in there:
        return Path(str(shelf / str(name)))
    also = f", or one of {', '.join(there)}" if there else ""
    raise RunError(f"{name} is no folder of a run: it has no recipe.toml; make one with `recuerdo train`{also}")


def is_shipped(folder: Path) -> bool:
    """Whether a run came with recuerdo: then nothing is written beside it."""
    return folder.parent == Path(str(files("recuerdo.recipes") / "trained"))


def seeds_of(folder: Path) -> list[Path]:
    """The runs inside a folder of several seeds, in the order of the seeds; none when it is a run itself."""
    found = [path for path in folder.glob("seed-*") if (path / "recipe.toml").is_file()]
    return sorted(found, key=lambda path: (len(path.name), path.name))


def summary(folder: Path) -> dict[str, Any]:
    """Several seeds as one: the run that is best by validation (and by the loss of its last steps of training, as
    older papers chose), and mean and standard deviation over all of them.

    These are different promises: the first is a model one can use, the last what to expect of the recipe.

    Raises RunError when the folder holds no runs of several seeds.
    """
    cards = [card for path in seeds_of(folder) if (card := read_card(path)).get("best")]
    if not cards:
        raise RunError(f"{folder} holds no run of a seed that was checked: train with --seeds 0-9")
    first = next(iter(cards[0]["best"]["numbers"]))
    best = min(cards, key=lambda card: card["best"]["numbers"][first])
    least = min(cards, key=lambda card: card["training_loss"])
    found: dict[str, Any] = {"recipe": best["recipe"], "seeds": [card["seed"] for card in cards]}
    for name, card in (("best_by_validation", best), ("best_by_training_loss", least)):
        found[name] = {"seed": card["seed"], "valid": card["best"]["numbers"], **_tested(card)}
    for split in ("valid", "test"):
        rows = [card["best"]["numbers"] if split == "valid" else _tested(card).get("test", {}) for card in cards]
        if all(rows):
            names = [name for name in rows[0] if all(name in row for row in rows)]
            found[split] = {name: _spread([row[name] for row in rows]) for name in names}
    return found


def read_events(folder: Path) -> Iterator[dict[str, Any]]:
    """The events of a run, from its file; a line that was cut off by a kill ends them."""
    try:
        with (folder / "events.jsonl").open(encoding="utf-8") as file:
            for line in file:
                if not line.endswith("\n"):
                    return
                yield json.loads(line)
    except FileNotFoundError:
        return
    except ValueError:
        raise RunError(f"{folder / 'events.jsonl'} is damaged: move it away, and the run goes on without it") from None


def read_card(folder: Path) -> dict[str, Any]:
    """The card of a run; empty where none was written yet."""
    try:
        return json.loads((folder / "card.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except ValueError:
        raise RunError(f"{folder / 'card.json'} is damaged: delete it, and it is written again") from None


def _tested(card: Mapping[str, Any]) -> dict[str, Any]:
    found = card.get("results", {}).get("test")
    return {"test": found} if found else {}


def _spread(values: list[float]) -> dict[str, float | None]:
    return {"mean": statistics.fmean(values), "sd": statistics.stdev(values) if len(values) > 1 else None}


def plain(data: Any) -> Any:
    """Data as JSON knows it: paths are texts, and a number that is none (nan, infinite) is null."""
    if isinstance(data, Mapping):
        return {key: plain(value) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return [plain(one) for one in data]
    if isinstance(data, float) and not math.isfinite(data):
        return None
    return str(data) if isinstance(data, Path) else data


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write readable JSON, whole or not at all. Raises RunError."""
    replace_file(path, (json.dumps(plain(content), indent=2, ensure_ascii=False) + "\n").encode())
