"""Writes, corrects, boosts, forgets and rebuilds without end, and says on a file what was acknowledged; or checks it.

python writer.py FOLDER           until it is killed
python writer.py FOLDER check     whether the memory holds what was acknowledged, and nothing that was forgotten
"""

import sys
from pathlib import Path

import numpy as np

from recuerdo.store.embedded import Embedded
from recuerdo.store.record import Rows, Rules

D = 32


def text(seed):
    return f"<<text of {seed}>> " * 3


def key(seed):
    """A unit vector, so that nothing is more like it than itself."""
    row = np.random.default_rng(seed).standard_normal((1, D))
    return (row / np.linalg.norm(row)).astype(np.float32)


def write(folder):
    with Embedded(folder / "notes.db", width=D) as store, open(folder / "acknowledged", "a", buffering=1) as told:
        draw, seed, there = np.random.default_rng(), 0, {}
        while True:
            what = draw.choice(["append", "update", "bias", "forget", "rebuild"], p=[0.5, 0.15, 0.15, 0.15, 0.05])
            if what == "append" or len(there) < 20:
                seeds = list(range(seed, seed + int(draw.integers(1, 40))))
                seed = seeds[-1] + 1
                told.write(f"begin append {' '.join(map(str, seeds))}.\n")
                ids = store.append(Rows(np.concatenate([key(s) for s in seeds]), [text(s) for s in seeds])).tolist()
                there |= dict(zip(ids, seeds, strict=True))
                told.write(f"append {' '.join(f'{i}:{s}' for i, s in zip(ids, seeds, strict=True))}.\n")
                continue
            id = int(draw.choice(list(there)))
            told.write(f"begin {what} {id} {seed}.\n")
            if what == "update":
                store.update(id, Rows(key(seed), [text(seed)]))
                there[id] = seed
                told.write(f"update {id} {seed}.\n")
                seed += 1
            elif what == "bias":
                store.bias([id], float(seed % 7))
                told.write(f"bias {id} {seed % 7}.\n")
            elif what == "forget":
                store.forget([id])
                told.write(f"forget {id} {there.pop(id)}.\n")
            else:
                store.rebuild()
                told.write("rebuild.\n")


def check(folder):
    lines = [line[:-1].split() for line in (folder / "acknowledged").read_text().splitlines() if line.endswith(".")]
    rows, biases, forgotten, maybe = {}, {}, set(), None
    history = {}
    for line in lines:
        if line[0] == "begin":
            maybe = line[1:]
            continue
        maybe = None
        if line[0] == "append":
            for pair in line[1:]:
                id, seed = map(int, pair.split(":"))
                rows[id], history[id] = seed, [seed]
        elif line[0] == "update":
            rows[int(line[1])] = int(line[2])
            history[int(line[1])].append(int(line[2]))
        elif line[0] == "bias":
            biases[int(line[1])] = float(line[2])
        elif line[0] == "forget":
            del rows[int(line[1])]
            forgotten |= set(history[int(line[1])])
    with Embedded(folder / "notes.db") as store:
        wrong = store.check()
        there = set(store.ids().tolist())
        unsure = int(maybe[1]) if maybe and maybe[0] in ("update", "bias", "forget") else None
        for id, seed in rows.items():
            if id not in there:
                if not (id == unsure and maybe[0] == "forget"):
                    wrong.append(f"row {id} is lost")
                continue
            found = store.get([id])[0]
            seeds = [seed] + ([int(maybe[2])] if id == unsure and maybe[0] == "update" else [])
            if not any(found.text == text(s) and np.array_equal(found.key, key(s)[0]) for s in seeds):
                wrong.append(f"row {id} is changed")
            if found.bias != biases.get(id, 0.0) and not (id == unsure and maybe[0] == "bias"):
                wrong.append(f"the bias of row {id} is changed")
        extra = there - set(rows)
        if extra and not (maybe and maybe[0] == "append" and len(extra) == len(maybe) - 1):
            wrong.append(f"rows {sorted(extra)} were never acknowledged")
        some = [id for id in rows if id in there][:50]
        for id in some:
            found = store.scan(store.get([id])[0].key[None], top=1, rules=Rules(500.0))
            if store.get(found.ids[0])[0].text != store.get([id])[0].text:
                wrong.append(f"row {id} is not found by its key")
    data = {file: file.read_bytes() for file in folder.iterdir() if file.name.startswith("notes.db")}
    for seed in forgotten:
        traces = [f.name for f, d in data.items() if text(seed)[:-1].encode() in d or key(seed).tobytes() in d]
        if traces:
            wrong.append(f"what was forgotten ({seed}) is still in {traces}")
    print(f"{len(lines)} lines, {len(rows)} rows, {len(forgotten)} forgotten, cut off in {maybe}")
    print("\n".join(wrong[:20]))
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    (check if sys.argv[2:] == ["check"] else write)(Path(sys.argv[1]))
