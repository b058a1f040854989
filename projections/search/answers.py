"""What rows of the searches become: flows found, reasons counted, drift, two runs side by side, who another rule would keep. Pure."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from datetime import date, datetime
from typing import Any, Final

import msgspec

from projections.search.language import cursor_of

Row = tuple[Any, ...]
_SMOOTH: Final = 0.5


class Found(msgspec.Struct):
    """A flow that was found. Times are those its recorder told; `first_at` orders."""

    id: str
    version: int
    name: str | None
    status: str
    first_at: datetime
    started_at: datetime | None
    ended_at: datetime | None
    rules: str | None
    attributes: msgspec.Raw
    steps: int
    observations: int
    kept: int
    dropped: int
    notes: int
    errors: int


class FoundPage(msgspec.Struct):
    flows: list[Found]
    next: str | None


def page(rows: Sequence[Row], limit: int) -> FoundPage:
    """`rows` are one more than `limit` when others follow."""
    flows = [_found(row) for row in rows[:limit]]
    last = flows[-1] if len(rows) > limit else None
    return FoundPage(flows, None if last is None else cursor_of(last.first_at, last.id, last.version))


def _found(row: Row) -> Found:
    values = [*row[:8], msgspec.Raw(row[8].encode()), *row[9:]]
    return Found(**dict(zip(Found.__struct_fields__, values, strict=True)))


# -- reasons and drift --------------------------------------------------------------------------------------------------


class Reason(msgspec.Struct):
    step: str | None
    reason: str | None
    day: date | None
    kept: bool | None
    count: int


def reasons(rows: Iterable[Row]) -> list[Reason]:
    return [Reason(*row) for row in rows]


class StepDrift(msgspec.Struct):
    """A step before and after. `z` is that of two proportions: beyond 1.96 the keep rates differ at 95 %. `psi` (population
    stability index) compares the shares of the reasons: above 0.25 they have changed much."""

    step: str
    before: int
    after: int
    keep_before: float
    keep_after: float
    z: float
    psi: float
    reasons: list[tuple[str, float, float]]


def drift(before: Iterable[Reason], after: Iterable[Reason]) -> list[StepDrift]:
    """The steps that changed most first."""
    counted = (_by_step(before), _by_step(after))
    found = []
    for step in sorted(set(counted[0]) | set(counted[1])):
        (kept, reasons_), (kept_now, reasons_now) = (one.get(step, (Counter(), Counter())) for one in counted)
        n, m = sum(kept.values()), sum(kept_now.values())
        shares = _shares(reasons_), _shares(reasons_now)
        names = sorted(set(shares[0]) | set(shares[1]))
        found.append(
            StepDrift(
                step,
                n,
                m,
                _rate(kept),
                _rate(kept_now),
                round(_z(kept[True], n, kept_now[True], m), 4),
                round(_psi(reasons_, reasons_now, names), 4),
                [(name, shares[0].get(name, 0.0), shares[1].get(name, 0.0)) for name in names],
            )
        )
    return sorted(found, key=lambda one: (-max(abs(one.z) / 1.96, one.psi / 0.25), one.step))


_Counted = tuple[Counter[bool], Counter[str]]


def _by_step(reasons_: Iterable[Reason]) -> dict[str, _Counted]:
    found: dict[str, _Counted] = defaultdict(lambda: (Counter(), Counter()))
    for one in reasons_:
        kept, dropped = found[one.step or ""]
        if one.kept is not None:
            kept[one.kept] += one.count
        if one.kept is False:
            dropped[one.reason or ""] += one.count
    return found


def _rate(kept: Counter[bool]) -> float:
    total = sum(kept.values())
    return round(kept[True] / total, 6) if total else 0.0


def _shares(counts: Counter[str]) -> dict[str, float]:
    total = sum(counts.values())
    return {name: round(count / total, 6) for name, count in counts.items()} if total else {}


def _z(a: int, n: int, b: int, m: int) -> float:
    if not n or not m:
        return 0.0
    pooled = (a + b) / (n + m)
    spread = math.sqrt(pooled * (1 - pooled) * (1 / n + 1 / m))
    return (b / m - a / n) / spread if spread else 0.0


def _psi(before: Counter[str], after: Counter[str], names: Sequence[str]) -> float:
    if not sum(before.values()) or not sum(after.values()):
        return 0.0
    n, m = (sum(counts.values()) + _SMOOTH * len(names) for counts in (before, after))
    total = 0.0
    for name in names:
        p, q = (before[name] + _SMOOTH) / n, (after[name] + _SMOOTH) / m
        total += (q - p) * math.log(q / p)
    return total


# -- two runs -----------------------------------------------------------------------------------------------------------


class Side(msgspec.Struct):
    kept: bool | None
    reason: str | None
    score: float | None


class Difference(msgspec.Struct):
    """A candidate that the two runs of a step treated differently; None: that run did not see it."""

    step: str
    candidate: str
    one: Side | None
    other: Side | None


class StepPair(msgspec.Struct):
    """A step in both runs: statuses, what was chosen (JSON), and seconds."""

    step: str
    one: dict[str, Any] | None
    other: dict[str, Any] | None
    same: bool


class Compared(msgspec.Struct):
    steps: list[StepPair]
    candidates: list[Difference]
    same: int
    different: int


def compare(
    steps: tuple[Iterable[Row], Iterable[Row]], seen: tuple[Iterable[Row], Iterable[Row]], limit: int
) -> Compared:
    """Steps are matched by name and the how-manieth of that name, candidates by their step and name."""
    ones, others = (_numbered_steps(rows) for rows in steps)
    pairs = [
        StepPair(_label(key), ones.get(key), others.get(key), _same_step(ones.get(key), others.get(key)))
        for key in dict.fromkeys([*ones, *others])
    ]
    left, right = (_numbered(rows) for rows in seen)
    keys = list(dict.fromkeys([*left, *right]))
    different = [
        Difference(key[0], key[1], left.get(key), right.get(key))
        for key in keys
        if left.get(key) != right.get(key)
    ]
    return Compared(pairs, different[:limit], len(keys) - len(different), len(different))


def _numbered_steps(rows: Iterable[Row]) -> dict[tuple[str, int], dict[str, Any]]:
    counts: Counter[str] = Counter()
    found = {}
    for name, attempt, status, chosen, because, seconds in rows:
        counts[name] += 1
        found[name, counts[name]] = {
            "attempt": attempt,
            "status": status,
            "chosen": None if chosen is None else msgspec.Raw(chosen.encode()),
            "because": because,
            "seconds": None if seconds is None else round(float(seconds), 6),
        }
    return found


def _label(key: tuple[str, int]) -> str:
    return key[0] if key[1] == 1 else f"{key[0]} ({key[1]})"


def _same_step(one: dict[str, Any] | None, other: dict[str, Any] | None) -> bool:
    if one is None or other is None:
        return False
    return all(_plain(one[name]) == _plain(other[name]) for name in ("status", "chosen", "because"))


def _plain(value: Any) -> Any:
    return msgspec.json.decode(value) if isinstance(value, msgspec.Raw) else value


def _numbered(rows: Iterable[Row]) -> dict[tuple[str, str, int, int], Side]:
    counts: Counter[tuple[str, str, int]] = Counter()
    found = {}
    for step, attempt, candidate, kept, reason, score in rows:
        key = (step, candidate, attempt)
        counts[key] += 1
        found[(*key, counts[key])] = Side(kept, reason, score)
    return found


# -- another rule -------------------------------------------------------------------------------------------------------


class Flip(msgspec.Struct):
    """A candidate that the other rule would treat differently."""

    flow: str
    version: int
    step: str | None
    candidate: str
    was_kept: bool
    reason: str | None
    score: float | None


class Counterfactual(msgspec.Struct):
    """`judged`: candidates the rule could judge; `unjudged`: those it could not, such as without a score."""

    judged: int
    unjudged: int
    now_kept: int
    now_dropped: int
    flows: int
    flips: list[Flip]
    cut: bool


Rule = Callable[[dict[str, Any]], bool | None]
"""Whether a candidate would be kept; None: the rule cannot say."""


def counterfactual(rows: Sequence[Row], rule: Rule, limit: int, *, cut: bool) -> Counterfactual:
    """`cut`: there were more candidates than were read."""
    found = Counterfactual(0, 0, 0, 0, 0, [], cut)
    touched: set[tuple[str, int]] = set()
    for flow_id, version, _, step_name, position, candidate, kept, reason, score, data in rows:
        shown = {
            "candidate": candidate,
            "score": score,
            "kept": kept,
            "reason": reason,
            "position": position,
            "data": None if data is None else msgspec.json.decode(data),
        }
        would = rule(shown)
        if would is None:
            found.unjudged += 1
            continue
        found.judged += 1
        if would == kept:
            continue
        touched.add((flow_id, version))
        found.now_kept += would
        found.now_dropped += not would
        if len(found.flips) < limit:
            found.flips.append(Flip(flow_id, version, step_name, candidate, kept, reason, score))
    found.flows = len(touched)
    return found
