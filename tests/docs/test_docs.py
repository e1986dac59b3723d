"""What the README and docs/ say is so: their Python runs, their commands run, their links and options exist.

How a page is read:

- ```python blocks of a page run in order and share their names; what a block prints is compared, line by line and
  loosely (white space; `…` stands for anything), with a ```text block that follows at once.
- ```console blocks: every `$ recuerdo …` line runs through the command line, with `cat FILE |` before it if it says so.
- `<!-- file: NAME -->` before a ```text block: this text lies in NAME when the page's blocks run.
- `<!-- not run: reason -->` before a block: it is not run.
"""

import functools
import io
import re
import shlex
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import typer.main

from recuerdo.cli.app import app, main

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
LINKED = [*PAGES, ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", ROOT / "web/README.md"]
MODELS = ("smollm2", "minilm")
LOADING = tuple(
    f"recuerdo {verb}"
    for verb in ("look", "compare", "steer", "truth", "profile", "teach", "demo", "remember", "ask", "correct")
)
SEPARATORS = {"|", "&&", ";"}


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, its text, the line of its first line, and the comments that stand before it."""

    kind: str
    text: str
    line: int
    notes: dict[str, str] = field(default_factory=dict)
    follows: bool = False  # only blank lines between this block and the one before


def blocks(text: str) -> list[Block]:
    found, notes, lines, at, gap = [], {}, text.splitlines(), 0, True
    while at < len(lines):
        if note := re.fullmatch(r"<!-- ([\w ]+): (.+) -->", lines[at].strip()):
            notes[note[1]] = note[2]
        elif fence := re.match(r"```(\w*)", lines[at]):
            start = at + 1
            at = next(i for i in range(start, len(lines)) if lines[i].startswith("```"))
            found.append(Block(fence[1], "\n".join(lines[start:at]) + "\n", start + 1, notes, not gap))
            notes, gap = {}, False
        elif lines[at].strip():
            notes, gap = {}, True
        at += 1
    return found


def prose(text: str) -> str:
    """A page without its fenced blocks and comments."""
    return re.sub(r"<!--.*?-->", "", re.sub(r"^```.*?^```", "", text, flags=re.S | re.M), flags=re.S)


def runnable(page: Path, kind: str) -> list[Block]:
    return [b for b in blocks(page.read_text(encoding="utf-8")) if b.kind == kind and "not run" not in b.notes]


def commands(block: Block) -> list[str]:
    """The lines of a console block that are run."""
    lines = [line[2:] for line in block.text.splitlines() if line.startswith("$ ")]
    return [line for line in lines if "recuerdo" in shlex.split(line)]


def case(page: Path, text: str, *values: Block):
    marks = [pytest.mark.models] if any(name in text for name in (*MODELS, *LOADING)) else []
    return pytest.param(page, *values, marks=marks, id="-".join([page.stem, *(str(b.line) for b in values)]))


def agrees(said: str, printed: str) -> bool:
    """Whether what is said was printed: line by line, white space aside; … stands for anything."""
    wanted, got = ([" ".join(line.split()) for line in t.strip().splitlines()] for t in (said, printed))
    patterns = [".*".join(re.escape(part) for part in line.split("…")) for line in wanted]
    return len(wanted) == len(got) and all(re.fullmatch(p, g) for p, g in zip(patterns, got, strict=True))


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Where the blocks of a page run, with the files that the page declares."""

    def prepared(page: Path) -> Path:
        for block in blocks(page.read_text(encoding="utf-8")):
            if "file" in block.notes:
                (tmp_path / block.notes["file"]).write_text(block.text, encoding="utf-8")
        (tmp_path / "examples").symlink_to(ROOT / "examples")  # pages are read in the checkout
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("RECUERDO_HOME", str(tmp_path / "home"))  # no page reads or writes a person's journal
        return tmp_path

    return prepared


@pytest.fixture(scope="module", autouse=True)
def one_load():
    """Each model is loaded once for the whole module; everything else is as people have it."""
    from recuerdo.workbench import looking, steering

    once = _once(looking.load)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(looking, "load", once)
        patch.setattr(steering, "load", once)
        yield


def _once(load):
    cached = functools.lru_cache(lambda name: load(name))
    return lambda name, *, progress=None: cached(name)


# ------------------------------------------------------------------------------------------------------------ it runs


@pytest.mark.parametrize(
    "page", [case(p, "".join(b.text for b in runnable(p, "python"))) for p in PAGES if runnable(p, "python")]
)
def test_the_python_of_a_page_runs_and_prints_what_it_says(page, folder, capsys):
    folder(page)
    names: dict = {"__name__": "__main__"}
    waiting: tuple[Block, str] | None = None
    compared = 0
    for block in blocks(page.read_text(encoding="utf-8")):
        if block.kind == "python" and "not run" not in block.notes:
            code = "\n" * (block.line - 1) + block.text  # so that a traceback names the page and its line
            exec(compile(code, page.relative_to(ROOT), "exec"), names)
            waiting = block, capsys.readouterr().out
            continue
        if block.kind == "text" and waiting is not None and block.follows:
            where = f"{page.name}:{block.line}"
            assert agrees(block.text, waiting[1]), f"{where} says\n{block.text}\nand this was printed:\n{waiting[1]}"
            compared += 1
        waiting = None
    assert compared, "no block of this page shows what it prints"


@pytest.mark.parametrize(("page", "block"), [case(p, b.text, b) for p in PAGES for b in runnable(p, "console")])
def test_the_commands_of_a_block_run(page, block, folder, capsys, monkeypatch):
    here = folder(page)
    monkeypatch.setenv("OMP_WAIT_POLICY", "PASSIVE")
    for command in commands(block):
        words, given = shlex.split(command), b""
        if words[0] == "cat":
            given, words = (here / words[1]).read_bytes(), words[3:]
        assert words[0] == "recuerdo", f"{command}: only `recuerdo …` and `cat FILE | recuerdo …` are run"
        assert not SEPARATORS & set(words), command
        monkeypatch.setattr(sys, "argv", words)
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(given), encoding="utf-8"))
        try:
            main()
            code = 0
        except SystemExit as leaving:
            code = leaving.code or 0
        said = capsys.readouterr()
        assert code == 0, f"{command}\n{said.err}"
        assert said.out.strip(), command
        if "--out" in words:
            assert (here / words[words.index("--out") + 1]).stat().st_size > 1000, command


# ---------------------------------------------------------------------------------------------------- links and options


def slug(heading: str) -> str:
    """The anchor that GitHub makes of a heading."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


def anchors(page: Path) -> set[str]:
    return {slug(m[1]) for m in re.finditer(r"^#+ (.+)$", prose(page.read_text(encoding="utf-8")), flags=re.M)}


LINKS = [
    (page, target)
    for page in LINKED
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page.read_text(encoding="utf-8")))
    if not re.match(r"https?://", target)
]


@pytest.mark.parametrize(("page", "target"), [pytest.param(p, t, id=f"{p.stem} {t}") for p, t in LINKS])
def test_a_link_leads_somewhere(page, target):
    path, _, anchor = target.partition("#")
    to = (page.parent / path).resolve() if path else page
    assert to.is_relative_to(ROOT), f"{target} leads out of the checkout"
    assert to.exists(), f"{page.name} links to {target}, which does not exist"
    if anchor:
        assert anchor in anchors(to), f"{to.name} has no heading #{anchor}: it has {sorted(anchors(to))}"


def _parameters(command) -> set[str]:
    return {name for p in command.params for name in (*p.opts, *p.secondary_opts)} | {"--help"}


def _verbs() -> dict[tuple[str, ...], set[str]]:
    """Every verb of the command line with its options."""
    root = typer.main.get_command(app)
    found = {(): _parameters(root)}
    for name, command in root.commands.items():
        found[(name,)] = _parameters(command)
        for inner, sub in getattr(command, "commands", {}).items():
            found[name, inner] = _parameters(sub)
    return found


VERBS = _verbs()
BENCHMARKS = {
    option
    for file in (ROOT / "benchmarks").glob("*.py")
    for option in re.findall(r'add_argument\(\s*"(--[\w-]+)"', file.read_text(encoding="utf-8"))
}


def spans(page: Path) -> list[str]:
    """Code in the running text, and the lines of console blocks, run or not."""
    text = page.read_text(encoding="utf-8")
    shown = [line[2:] for b in blocks(text) if b.kind == "console" for line in b.text.splitlines() if line[:2] == "$ "]
    return re.findall(r"`([^`\n]+)`", prose(text)) + shown


def said_about_recuerdo(span: str) -> list[str] | None:
    """The words after `recuerdo` where the span is a command of ours."""
    words = re.split(r"\s+", span.replace("'", "").replace('"', ""))
    at = next((i for i, w in enumerate(words) if re.fullmatch(r"(.*/bin/)?recuerdo", w)), None)
    return None if at is None or words[0] in ("import", "from", "pip") else words[at + 1 :]


def unknown(span: str) -> str | None:
    """What a span says of the command line that is not so."""
    words = said_about_recuerdo(span)
    options = re.findall(r"(?<![\w-])--[a-z][\w-]*", span)
    if words is None:  # an option by itself, or another program: of those only the benchmarks are ours
        known = BENCHMARKS if "benchmarks/" in span else BENCHMARKS.union(*VERBS.values())
        return next((o for o in options if o not in known), None) if span.startswith(("--", "python bench")) else None
    verb: tuple[str, ...] = ()
    for word in words:
        if (*verb, word) not in VERBS:
            break
        verb = (*verb, word)
    has_subcommands = any(len(v) > len(verb) and v[: len(verb)] == verb for v in VERBS)
    rest = words[len(verb) :]
    if has_subcommands and rest and re.fullmatch(r"[a-z]+", rest[0]):
        return rest[0]
    return next((o for o in options if o not in VERBS[verb]), None)


@pytest.mark.parametrize("page", [pytest.param(p, id=p.stem) for p in LINKED])
def test_verbs_and_options_exist(page):
    wrong = {span: what for span in spans(page) if (what := unknown(span)) is not None}
    assert not wrong


def test_the_checker_of_verbs_and_options_can_fail():
    assert unknown("recuerdo lok --text x") == "lok"
    assert unknown("recuerdo models fetch") == "fetch"
    assert unknown("recuerdo look --colour red") == "--colour"
    assert unknown("--colour") == "--colour"
    assert unknown("recuerdo models get NAME --again") is None
    assert unknown("--quick") is None
    assert unknown("python benchmarks/read.py --colour x") == "--colour"
    assert agrees("a  …\nb", "a 1 2\n b\n")
    assert not agrees("a …\nb", "a 1 2\nc\n")


def test_every_verb_and_option_is_documented():
    """The other way round: what the command line has, the docs name."""
    text = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)
    hidden = {"--help", "--version", "--install-completion", "--show-completion"}
    names = {o for options in VERBS.values() for o in options if o.startswith("--")} - hidden
    assert not {o for o in names if o not in text}
    assert not {" ".join(v) for v in VERBS if v and f"recuerdo {' '.join(v)}" not in text}


# ------------------------------------------------------------------------------------- facts that stand in two places


def test_make_targets_exist():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for page in LINKED:
        for target in re.findall(r"\bmake ([a-z]+)(?=[` \n])", "\n".join([*spans(page), ""])):
            assert re.search(rf"^{target}:", makefile, flags=re.M), f"{page.name}: make {target}"


def test_the_families_are_those_that_are_tested():
    source = (ROOT / "tests/bridge/families.py").read_text(encoding="utf-8")
    names = re.findall(r'"([^"]+)": lambda: tf\.', source)
    families = {re.split(r"[ ,]", name)[0] for name in names}
    models = (ROOT / "docs/models.md").read_text(encoding="utf-8")
    for page in (ROOT / "README.md", ROOT / "docs/models.md"):
        assert f"{len(families)} families" in page.read_text(encoding="utf-8")
    table = models.split("## Families that can be watched")[1].split("\n## ")[0]
    assert not {family for family in families if not re.search(rf"\b{family}\b", table)}


def test_the_catalogue_is_the_one_in_the_code():
    from recuerdo.bridge.catalogue import catalogue

    models = (ROOT / "docs/models.md").read_text(encoding="utf-8")
    licences = (ROOT / "README.md").read_text(encoding="utf-8").split("## Licence")[1]
    for entry in catalogue().values():
        row = next(line for line in models.splitlines() if line.startswith(f"| `{entry.name}` | {entry.title}"))
        assert entry.licence in row
        assert entry.title in licences
        assert entry.licence in licences


def test_the_targets_are_those_of_the_benchmarks():
    page = (ROOT / "docs/benchmarks.md").read_text(encoding="utf-8")
    for file in sorted((ROOT / "benchmarks").glob("*.py")):
        source = file.read_text(encoding="utf-8")
        for target in re.findall(r'target(?:"?: |=)"([<>]=? [^"]+)"', source):
            assert target in page, f"{file.name}: {target}"
    for name, options in (("read", "read.py"), ("look", "look.py")):
        source = (ROOT / f"benchmarks/{name}.py").read_text(encoding="utf-8")
        sections = re.search(r"^SECTIONS = \{(.+)\}$", source, flags=re.M)
        for section in re.findall(r'"(\w+)":', sections[1]):
            assert f"{options} `{section}`" in page


def test_names_of_read_are_documented():
    from importlib import import_module

    page = (ROOT / "docs/read.md").read_text(encoding="utf-8")
    room = import_module("recuerdo.read")
    not_asked_for = {"Mask", "Part", "Seen", "Softmax", "Hard", "Monotonic", "StickBreaking", "Summary",
                     "Top", "Weights"}  # fmt: skip
    assert set(room.__all__) >= not_asked_for
    assert not {n for n in room.__all__ if not re.search(rf"\b{n}\b", page)} - not_asked_for


def test_views_are_documented():
    from recuerdo.workbench import looking

    page = (ROOT / "docs/look.md").read_text(encoding="utf-8")
    for name in looking.VIEWS:
        assert re.search(rf"^\| `{name}`", page, flags=re.M)
