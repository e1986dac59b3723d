"""The public surface, pinned; and the rules of the house that a machine can check on every file."""

import ast
import importlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

import recuerdo
from recuerdo import errors

SOURCE = Path(recuerdo.__file__).parent
FILES = sorted(SOURCE.rglob("*.py"))
TREES = {str(path.relative_to(SOURCE)): ast.parse(path.read_text(encoding="utf-8")) for path in FILES}
RAISED = {
    name for name, kind in vars(errors).items() if isinstance(kind, type) and issubclass(kind, errors.RecuerdoError)
}


# ------------------------------------------------------------------------------------------------------------ the names


def test_the_public_names_are_these():
    assert sorted(recuerdo.__all__) == [
        "Mark",
        "Mask",
        "Memory",
        "Profile",
        "Reading",
        "RecuerdoError",
        "__version__",
        "ask_steered",
        "attach",
        "bend",
        "causal",
        "learn_profile",
        "lengths",
        "load",
        "look",
        "merge",
        "read",
        "steer",
        "teach",
        "trust",
        "watch",
        "window",
    ]


@pytest.mark.parametrize("name", recuerdo.__all__)
def test_every_public_name_resolves_and_is_documented(name):
    found = getattr(recuerdo, name)
    assert name in dir(recuerdo)
    if callable(found):
        assert (found.__doc__ or "").strip()


@pytest.mark.parametrize(
    "room", ["recuerdo.read", "recuerdo.bridge", "recuerdo.steer", "recuerdo.workbench", "recuerdo.explain.render"]
)
def test_every_name_of_a_room_resolves(room):
    module = importlib.import_module(room)
    for name in module.__all__:
        getattr(module, name)


@pytest.mark.parametrize("room", ["recuerdo", "recuerdo.bridge", "recuerdo.steer", "recuerdo.workbench"])
def test_an_unknown_name_is_an_attribute_error(room):
    module = importlib.import_module(room)
    with pytest.raises(AttributeError, match=f"^module '{room}' has no attribute 'nope'$"):
        _ = module.nope


def test_errors_have_one_root():
    assert {
        "ReadError",
        "ShapeError",
        "NothingHeard",
        "AddressError",
        "ModelError",
        "FetchError",
        "InputError",
    } <= RAISED
    for name in RAISED:
        assert name in (errors.__doc__ or ""), "the tree in the docstring draws all of them"


@pytest.mark.parametrize("statement", ["import recuerdo", "import recuerdo.errors", "import recuerdo.cli.app"])
def test_importing_is_light(statement):
    heavy = ("torch", "numpy", "transformers", "matplotlib", "jaxtyping", "huggingface_hub")
    code = f"{statement}; import sys; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, env=_with_source())
    assert (done.stdout.strip(), done.stderr) == ("[]", "")


def test_looking_around_is_light():
    code = (
        "import recuerdo, sys; dir(recuerdo); recuerdo.__version__; hasattr(recuerdo, 'nope'); recuerdo.RecuerdoError"
    )
    code += "; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, env=_with_source())
    assert (done.stdout.strip(), done.stderr) == ("False", "")


def _with_source() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(SOURCE.parent)}


# ------------------------------------------------------------------------------------------------------------- the house


@pytest.mark.parametrize("file", TREES)
def test_a_file_is_documented_short_and_quiet(file):
    tree = TREES[file]
    assert (ast.get_docstring(tree) or "").strip(), "every module says what it is for"
    assert len((SOURCE / file).read_text(encoding="utf-8").splitlines()) <= 600
    for node in ast.walk(tree):
        assert not isinstance(node, ast.Assert), f"line {node.lineno}: an assert disappears under -O; raise"
        assert not (isinstance(node, ast.ExceptHandler) and node.type is None), f"line {node.lineno}: a bare except"
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print":
            assert file.startswith("cli/"), f"line {node.lineno}: only the command line prints"
        if isinstance(node, ast.ImportFrom):
            assert node.module != "__future__", f"line {node.lineno}: shapes are checked in real annotations"
            assert node.level == 0, f"line {node.lineno}: imports are absolute"


FUNCTIONS = {
    node.name: [r.value for r in ast.walk(node) if isinstance(r, ast.Return) and r.value is not None]
    for tree in TREES.values()
    for node in ast.walk(tree)
    if isinstance(node, ast.FunctionDef)
}


def _literal(message: ast.expr) -> bool:
    """A text written here, or by a function of ours every return of which is one (or another such function's)."""
    if isinstance(message, ast.Constant):
        return isinstance(message.value, str) and bool(message.value.strip())
    if isinstance(message, ast.JoinedStr):
        return any(isinstance(part, ast.Constant) and part.value.strip() for part in message.values)
    if isinstance(message, ast.BinOp) and isinstance(message.op, ast.Add):
        return _literal(message.left) or _literal(message.right)
    if isinstance(message, ast.Call):
        name = message.func.attr if isinstance(message.func, ast.Attribute) else getattr(message.func, "id", "")
        return bool(FUNCTIONS.get(name)) and all(_literal(r) for r in FUNCTIONS[name])
    return False


RAISES = [
    pytest.param(node.exc, id=f"{file}:{node.lineno}")
    for file, tree in TREES.items()
    for node in ast.walk(tree)
    if isinstance(node, ast.Raise)
    and isinstance(node.exc, ast.Call)
    and getattr(node.exc.func, "id", getattr(node.exc.func, "attr", "")) in RAISED
]


@pytest.mark.parametrize("raised", RAISES)
def test_every_error_that_is_raised_has_its_words(raised):
    assert len(raised.args) == 1
    assert not raised.keywords
    assert _literal(raised.args[0])


def test_there_are_errors_to_check_and_none_without_words():
    assert len(RAISES) > 40
    bare = [
        f"{file}:{node.lineno}"
        for file, tree in TREES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Name) and node.exc.id in RAISED
    ]
    assert bare == []
