"""The scan over a cluster: all rows where they are few, else the engine's best with a bound of what was not looked at.

The engine knows dot products only. So whatever else makes a logit (bias, fading, a sharpness that is negative or zero)
is brought in here: rows with a bias are always looked at; for a negative sharpness the engine is asked for the
opposite of the query; where memories fade, the youngest rows (or oldest, where they grow) are looked at too. A row
that was not looked at then has a dot product of at most the last one that came back, and a time no better than the
last one that came back: that bounds its logit.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from recuerdo.store.cluster_engine import Engine, Filter, Point, among, both, either, equals
from recuerdo.store.cluster_points import SCORED, Scored, live, scored
from recuerdo.store.cluster_state import State
from recuerdo.store.record import DAY, Found, Rules, Where
from recuerdo.store.softmax import best

OVER, LEAST = 10, 100  # rows asked for: so many for each wanted one, and so many at least
HALF = 2.0**-24  # how much one float32 operation rounds


@dataclass(frozen=True, eq=False)
class Look:
    """One scan: what is asked, of which memory. `keys` are those of points that were looked at before."""

    engine: Engine
    state: State
    queries: np.ndarray
    top: int
    rules: Rules
    where: Where | None
    whole: int
    exact: bool
    keys: dict[str, np.ndarray]

    @property
    def which(self) -> Filter:
        """The rows addressed."""
        return live(self.state, self.where, heard=True)

    @property
    def now(self) -> float:
        """What age is counted to."""
        return time.time() if self.rules.now is None else self.rules.now


def scan(look: Look) -> Found:
    """The best rows, and the log-mass of all that was looked at, and a bound of that which was not."""
    addressed = look.engine.count(look.which)
    if addressed > look.whole:
        return _ranked(look, addressed)
    rows = scored(_known(look), look.state)
    return _found(look, rows, _exact(look, rows), np.full(len(look.queries), -np.inf), len(rows))


def _known(look: Look) -> list[Point]:
    """All points addressed. Their keys are fetched once: a point is one version of a row, whose key never changes."""
    found = [one for page in look.engine.pages(look.which, payload=SCORED) for one in page]
    if look.where is None or len(look.keys) > 2 * look.whole:  # let go of what is no longer there
        there = {one.id for one in found}
        for id in [id for id in look.keys if id not in there]:
            del look.keys[id]
    new = [one.id for one in found if one.id not in look.keys]
    look.keys.update(look.engine.keys(new, "key", look.state.width))
    for one in found:
        if one.id in look.keys:
            one.vectors["key"] = look.keys[one.id]
    return [one for one in found if one.vectors]


def _all(engine: Engine, which: Filter, state: State) -> Iterator[Point]:
    for page in engine.pages(which, payload=SCORED, vectors=["key"], width=state.width):
        yield from page


def _exact(look: Look, rows: Scored) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    extra = rows.bias
    if look.rules.fading:
        extra = extra - look.rules.fading * (look.now - rows.times) / DAY
    with np.errstate(over="ignore"):  # an age beyond float32 is infinite
        return best(rows.keys, look.rules.sharpness * look.queries.astype(np.float64), extra, look.top)


def _found(
    look: Look, rows: Scored, told: tuple[np.ndarray, np.ndarray, np.ndarray], unseen: np.ndarray, addressed: int
) -> Found:
    places, logits, lse = told
    ids = np.full(places.shape, -1)
    ids[places >= 0] = rows.ids[places[places >= 0]]
    return Found(ids, logits, lse, unseen, len(rows), addressed)


def _ranked(look: Look, addressed: int) -> Found:
    """Ask for ever more rows until none that was not looked at can be among the best, or it is too many."""
    held: dict[str, Point] = {}
    most = _biased(look, held)
    last = max(look.whole, look.top)
    limit = min(last, max(OVER * look.top, LEAST))
    while True:
        bound = most + _farther(look, held, limit) + _elder(look, held, limit)  # of the logit of one row, [q]
        rows = scored(held.values(), look.state)
        told = _exact(look, rows)
        # While others write, more may have come back than were counted.
        unseen = max(0, addressed - len(rows))
        if not unseen or not look.exact or limit >= last or (told[1][:, -1] >= bound).all():
            break
        limit = min(4 * limit, last)
    with np.errstate(divide="ignore"):
        mass = bound + np.log(float(unseen))
    return _found(look, rows, told, mass if unseen else np.full(len(look.queries), -np.inf), max(addressed, len(rows)))


def _biased(look: Look, held: dict[str, Point]) -> float:
    """Look at all rows with a bias: the largest bias of those that were too many to be looked at."""
    must = list(look.which.must) if isinstance(look.which.must, list) else []
    but = list(look.which.must_not) if isinstance(look.which.must_not, list) else []
    biased = either(equals("biased", True), among("id", list(look.state.pending)))
    for one in _all(look.engine, both([*must, biased], but), look.state):
        if len(held) >= look.whole:
            return max(0.0, look.state.bias)
        held[one.id] = one
    return 0.0


def _farther(look: Look, held: dict[str, Point], limit: int) -> np.ndarray:
    """Look at the nearest rows: the most that sharpness * (key . query) can be of one that is farther, [q]."""
    sharp, lengths = look.rules.sharpness, np.linalg.norm(look.queries.astype(np.float64), axis=1)
    if not sharp:
        return np.zeros(len(lengths))
    hits = look.engine.nearest(
        np.sign(sharp) * look.queries, look.which, limit, key="key", payload=SCORED, exact=look.exact
    )
    held |= {one.id: one for answer in hits for one in answer}
    longest = lengths * look.state.norm
    if not look.exact:  # it may have missed any row: Cauchy-Schwarz
        return abs(sharp) * longest
    last = np.array([answer[-1].score if len(answer) == limit else -np.inf for answer in hits], np.float64)
    # The engine adds up in float32; what it calls equal or less may be more by that much.
    d = look.state.width + 2
    return abs(sharp) * np.minimum(longest, last + longest * d * HALF / (1 - d * HALF))


def _elder(look: Look, held: dict[str, Point], limit: int) -> float:
    """Look at the rows that faded least: the most that fading can leave of one that faded more."""
    fading = look.rules.fading
    if fading:
        first = look.engine.first(look.which, "time", limit, falling=fading > 0, payload=SCORED, key="key")
    elif not look.rules.sharpness:  # all are equal, and of equal ones the first win
        pages = look.engine.pages(look.which, payload=SCORED, vectors=["key"], width=look.state.width, most=limit)
        first: list[Point] = []
        for page in pages:
            first += page
            if len(first) >= limit:
                break
    else:
        return 0.0
    held |= {one.id: one for one in first}
    if not fading:
        return 0.0
    if len(first) < limit:
        return -np.inf
    times = scored(first, look.state).times
    last = times.min() if fading > 0 else times.max()
    # A server may round the last digit of a time.
    return -fading * (look.now - last) / DAY + abs(fading) * np.spacing(abs(last)) * 4 / DAY
