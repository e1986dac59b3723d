"""What every benchmark shares: interleaved CPU time, peak memory, and one JSON object a line."""

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # threads that wait actively would count as work
ROOT = Path(__file__).resolve().parent.parent


def arguments(about: str, *more: Callable[[argparse.ArgumentParser], object]) -> argparse.Namespace:
    """--quick (under 50 s), --json, the names of sections to run, and what else a file takes."""
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument("sections", nargs="*", help="only these sections")
    parser.add_argument("--quick", action="store_true", help="smaller and fewer, under 50 s")
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    for add in more:
        add(parser)
    return parser.parse_args()


def data(parser: argparse.ArgumentParser) -> None:
    """A file that a person hands over."""
    parser.add_argument("--data", type=Path, help="a file with data that cannot be shipped")


def questions(parser: argparse.ArgumentParser) -> None:
    """How many questions are asked."""
    parser.add_argument("--questions", type=int, default=0, help="so many questions at most")


class Report:
    """Prints each figure as it is known, beside its target."""

    def __init__(self, as_json: bool):
        self.as_json = as_json

    def add(
        self,
        what: str,
        value: float,
        unit: str,
        *,
        target: str = "",
        ok: bool | None = None,
        against: str = "",
        how: str = "",
    ) -> None:
        row = {
            "what": what,
            "value": float(f"{value:.4g}"),
            "unit": unit,
            "target": target,
            "ok": None if ok is None else bool(ok),
            "against": against,
            "how": how,
        }
        if self.as_json:
            print(json.dumps(row), flush=True)
        else:
            mark = {True: "ok  ", False: "MISS", None: "    "}[row["ok"]]
            print(f"{mark} {what:58s} {value:9.4g} {unit:10s} {target:12s} {against} · {how}", flush=True)


def cpu(function: Callable[[], object]) -> float:
    """CPU seconds of this process during one call."""
    start = time.process_time()
    function()
    return time.process_time() - start


def interleaved(variants: dict[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """CPU seconds of every variant, round by round in turn; one round before is not counted."""
    times: dict[str, list[float]] = {name: [] for name in variants}
    for turn in range(rounds + 1):
        for name, function in variants.items():
            spent = cpu(function)
            if turn:
                times[name].append(spent)
    return times


def median(values: list[float]) -> float:
    return sorted(values)[len(values) // 2]


def ratio(times: dict[str, list[float]], name: str, base: str) -> float:
    """Median of the ratios within each round: a machine that drifts drifts for both."""
    return median([a / b for a, b in zip(times[name], times[base], strict=True)])


def status(key: str) -> float:
    """A line of /proc/self/status, in bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(key):
            return int(line.split()[1]) * 1024
    raise KeyError(key)


def peak_above(function: Callable[[], object]) -> float:
    """Peak memory during a call above what was in use before it, in bytes (Linux)."""
    before = status("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")
    result = function()
    peak = status("VmHWM") - before
    del result
    return peak


def peak_of_process() -> float:
    """Largest resident size of this process so far, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024.0


def in_new_process(file: str, *words: str) -> dict:
    """Run `file` with words in a process of its own; its last line is the JSON it found."""
    done = subprocess.run([sys.executable, file, *words], check=True, capture_output=True, text=True)
    return json.loads(done.stdout.strip().splitlines()[-1])
