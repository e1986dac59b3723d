"""Head profiles: which heads to steer and how strongly, found on a few examples, kept and used again by name."""

import json
import os
import re
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from recuerdo.errors import MarkError
from recuerdo.steer.journal import journal_folder
from recuerdo.steer.marks import ACTIONS, Mark, build, check_version
from recuerdo.steer.places import Quote, Scope

VERSION = 1


@dataclass(frozen=True)
class Profile:
    """The heads of a model that obey marks best, and how strongly to mark.

    `scores`: what was measured on the examples, such as {"unsteered": 0.3, "steered": 0.6, "harm": 0.02}.
    """

    name: str
    model: str
    heads: tuple[tuple[int, int], ...]
    action: str
    amount: float | None
    examples: int = 0
    scores: dict[str, float] = field(default_factory=dict)
    note: str = ""
    date: str = ""

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not re.fullmatch(r"[\w.-]{1,80}", self.name):
            raise MarkError("the name of a profile is 1 to 80 letters, digits, dots and dashes")
        if self.action not in ACTIONS:
            raise MarkError(f"a profile boosts, damps, shares or mutes, it cannot {self.action!r}")
        object.__setattr__(self, "heads", Scope(heads=self.heads).heads)
        Mark(Quote("x"), self.action, self.amount)  # refuse an amount that the action cannot have

    def mark(self, mark: Mark) -> Mark:
        """A mark at the same place, with the action, the strength and the heads of this profile."""
        scope = replace(mark.scope, heads=self.heads, layers=None, head_set=None)
        return replace(mark, action=self.action, amount=self.amount, scope=scope)

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


def load_profile(name: str | Path, folder: Path | None = None) -> Profile:
    """A profile by its name or the path of its file. Raises MarkError when there is none, or it is damaged."""
    path = Path(name)
    if path.suffix != ".json":
        path = (folder or profiles_folder()) / f"{name}.json"
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        check_version(data.pop("version", None), f"the profile {path.name}")
        data["heads"] = tuple(tuple(pair) for pair in data["heads"])
        return build(Profile, data, "a profile")
    except FileNotFoundError:
        there = sorted(p.stem for p in path.parent.glob("*.json"))
        known = f": there is {', '.join(there)}" if there else ": make one with `recuerdo steer --profile`"
        raise MarkError(f"there is no profile {path.stem!r}{known}") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        if isinstance(error, MarkError):
            raise
        raise MarkError(f"{path} is not a profile: make it again") from None


def with_heads(mark: Mark, profile: Profile | None = None) -> Mark:
    """The mark with the heads of its head set, from `profile` or from the folder; other marks as they are."""
    name = mark.scope.head_set
    if name is None:
        return mark
    found = profile if profile is not None and profile.name == name else load_profile(name)
    return replace(mark, scope=replace(mark.scope, heads=found.heads, layers=None, head_set=None))
