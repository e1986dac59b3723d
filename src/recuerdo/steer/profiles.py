"""Head profiles: which heads to steer and how strongly, found on a few examples, kept and used again by name."""

import json
import math
import os
import re
from dataclasses import dataclass, field, replace
from importlib.resources import files
from pathlib import Path
from typing import Any

from recuerdo.errors import MarkError
from recuerdo.steer.journal import journal_folder
from recuerdo.steer.marks import ACTIONS, Mark, build, check_version
from recuerdo.steer.places import Quote, Scope, number

VERSION = 1


@dataclass(frozen=True)
class Profile:
    """The heads of a model that obey marks best, and how strongly to mark.

    `amount`: the strength in all of them; `strengths`: factors on the odds, one for each head, whose geometric mean
    `amount` then is. `queries`: "after" steers only what stands behind the document; `steps`: only these generation
    steps, (first, end), where the mark names none. `scores`: what was measured on the examples, by name.
    """

    name: str
    model: str
    heads: tuple[tuple[int, int], ...]
    action: str
    amount: float | None
    strengths: tuple[float, ...] | None = None
    queries: str = "all"
    steps: tuple[int | None, int | None] | None = None
    examples: int = 0
    scores: dict[str, float] = field(default_factory=dict)
    note: str = ""
    date: str = ""

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not re.fullmatch(r"[\w.-]{1,80}", self.name):
            raise MarkError("the name of a profile is 1 to 80 letters, digits, dots and dashes")
        if self.action not in ACTIONS:
            raise MarkError(f"a profile boosts, damps, shares or mutes, it cannot {self.action!r}")
        if self.queries not in ("all", "after"):
            raise MarkError(f"a profile steers all queries, or those after the document, not {self.queries!r}")
        if self.strengths is not None:
            factors = tuple(number(x, "a strength") for x in self.strengths)
            if len(factors) != len(self.heads) or not all(1e-6 <= x <= 1e6 for x in factors):
                raise MarkError(f"a profile of {len(self.heads)} heads has as many strengths, each from 1e-6 to 1e6")
            object.__setattr__(self, "strengths", factors)
        object.__setattr__(self, "steps", Scope(heads=self.heads, steps=self.steps).steps)  # refuse what are none
        object.__setattr__(self, "heads", tuple((int(layer), int(head)) for layer, head in self.heads))
        Mark(Quote("x"), self.action, self.amount)  # refuse an amount that the action cannot have

    def mark(self, mark: Mark) -> Mark:
        """A mark at the same place, with the action, the strength and the heads of this profile."""
        scope = replace(mark.scope, head_set=self.name, layers=None, heads=None)
        return replace(mark, action=self.action, amount=self.amount, scope=scope)

    def strengths_at(self, amount: float | None) -> dict[tuple[int, int], float] | None:
        """The factor of every head for a mark of this amount (at `self.amount` the profile's own); None = one for all.

        Between, all are raised to one power, so that a dose curve turns all heads together.
        """
        if self.strengths is None:
            return None
        base = math.log(self.amount or 1.0)
        power = math.log(amount) / base if amount and abs(base) > 1e-9 else 1.0
        return {head: min(max(x**power, 1e-6), 1e6) for head, x in zip(self.heads, self.strengths, strict=True)}

    def as_data(self) -> dict[str, Any]:
        """As JSON-able data."""
        return {"version": VERSION} | {
            name: [list(pair) for pair in self.heads] if name == "heads" else value
            for name, value in vars(self).items()
        }

    def save(self, folder: Path | None = None) -> Path:
        """Write it to NAME.json in the folder of profiles, whole or not at all."""
        path = (folder or profiles_folder()) / f"{self.name}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_suffix(f".{os.getpid()}.part")
        draft.write_text(json.dumps(self.as_data(), ensure_ascii=False), encoding="utf-8")
        draft.replace(path)
        return path


def profiles_folder() -> Path:
    """Where profiles are kept: beside the journal."""
    return journal_folder() / "profiles"


def shipped_profiles() -> list[str]:
    """The names of the profiles that come with the package."""
    return sorted(path.name.removesuffix(".json") for path in files("recuerdo.steer").joinpath("shipped").iterdir())


def load_profile(name: str | Path, folder: Path | None = None) -> Profile:
    """A profile by its name or the path of its file: a person's own before one that comes with the package.

    Raises MarkError when there is none, or it is damaged.
    """
    path = Path(name)
    if path.suffix != ".json":
        path = (folder or profiles_folder()) / f"{name}.json"
        if not path.exists() and str(name) in shipped_profiles():
            path = Path(str(files("recuerdo.steer").joinpath(f"shipped/{name}.json")))
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        check_version(data.pop("version", None), f"the profile {path.name}")
        data["heads"] = tuple(tuple(pair) for pair in data["heads"])
        return build(Profile, data, "a profile")
    except FileNotFoundError:
        there = sorted({p.stem for p in path.parent.glob("*.json")} | set(shipped_profiles()))
        raise MarkError(
            f"there is no profile {path.stem!r}: there is {', '.join(there)}, and `recuerdo profile` makes others"
        ) from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        if isinstance(error, MarkError):
            raise
        raise MarkError(f"{path} is not a profile: make it again") from None


def looked_up(mark: Mark, profile: Profile | None = None) -> tuple[Mark, Profile | None]:
    """The mark with the heads of its head set in its scope, and the profile they are from; other marks as they are.

    The profile is `profile`, when it has that name, or the one in the folder. Raises MarkError.
    """
    name = mark.scope.head_set
    if name is None:
        return mark, None
    found = profile if profile is not None and profile.name == name else load_profile(name)
    return replace(mark, scope=replace(mark.scope, heads=found.heads, layers=None, head_set=None)), found
