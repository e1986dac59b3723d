"""The shelf of recipes: which there are, and their text. Nothing here needs torch."""

import difflib
import json
import re
import tomllib
from collections.abc import Iterable, Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

from recuerdo.errors import InputError


def recipes() -> dict[str, str]:
    """The recipes of the package: name -> what it is about."""
    found = sorted(files("recuerdo.recipes").iterdir(), key=lambda file: file.name)
    return {
        file.name.removesuffix(".toml"): str(tomllib.loads(file.read_text(encoding="utf-8")).get("about", ""))
        for file in found
        if file.name.endswith(".toml")
    }


def recipe_text(name: str | Path) -> tuple[str, str]:
    """Name and text of a recipe: a file (or a folder with recipe.toml), else one of the package. Raises InputError."""
    path = Path(name)
    try:
        if path.is_dir():
            return path.resolve().name, (path / "recipe.toml").read_text(encoding="utf-8")
        if path.suffix == ".toml" or path.is_file():
            return path.stem, path.read_text(encoding="utf-8")
        return str(name), files("recuerdo.recipes").joinpath(f"{name}.toml").read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise InputError(f"{name} is not a text in UTF-8: a recipe is a TOML file") from None
    except OSError:
        there = near(str(name), recipes(), otherwise="see `recuerdo recipes ls`, or give the path of a .toml file")
        raise InputError(f"there is no recipe {str(name)!r}: {there}") from None


def near(name: str, there: Iterable[str], otherwise: str = "") -> str:
    """The way out for a name that is not there: the nearest that is, or all of them."""
    names = sorted(there)
    close = difflib.get_close_matches(name, names, 1, 0.6)
    return f"did you mean {close[0]!r}?" if close else otherwise or f"there is {', '.join(names) or 'none'}"


def written(content: Mapping[str, Any]) -> str:
    """Data as TOML: plain keys first, then a section for every table."""
    lines = [f"{key} = {_value(v)}" for key, v in content.items() if not isinstance(v, Mapping)]
    for section, table in content.items():
        if isinstance(table, Mapping) and table:
            lines += ["", f"[{section}]", *(f"{_key(key)} = {_value(v)}" for key, v in table.items())]
    return "\n".join(lines) + "\n"


def _key(key: str) -> str:
    return key if re.fullmatch(r"[A-Za-z0-9_-]+", key) else _value(key)


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{_key(k)} = {_value(v)}" for k, v in value.items()) + " }" if value else "{}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_value(one) for one in value) + "]"
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    return str(value) if not hasattr(value, "isoformat") else value.isoformat()
