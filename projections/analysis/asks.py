"""The questions about many flows, as `Ask`s for a reader. Pure: names, parameters, and how rows become answers.

`Scope` says which flows: those of a definition (`flows`), or recorded ones of a name in a project (`trails`).
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final, Literal

import msgspec

from engine.errors import InputError
from projections.analysis.histogram import LOG_BASE, Histogram, shown
from projections.queries import Ask, split_definition

Source = Literal["flows", "trails"]
LIMIT_MAX: Final = 1000
_BUCKETS: Final = {"minute": "1 minute", "hour": "1 hour", "day": "1 day", "week": "7 days"}
START, END = "▶", "■"
"""The ends of a directly-follows graph, which are no steps."""


class Scope(msgspec.Struct, frozen=True, kw_only=True):
    """`namespace` is a definition's, or a project. `version`: of the definition, or of the recorded process's rules."""

    source: Source
    namespace: str
    name: str
    version: str | None = None
    since: datetime | None = None
    until: datetime | None = None

    def ask(self, question: str, answer: Any, **more: Any) -> Ask[Any]:
        parameters = {
            name: getattr(self, name) for name in ("namespace", "name", "version", "since", "until")
        }
        return Ask(f"{question}_{self.source}", parameters | more, answer)

    def before(self) -> Scope | None:
        """The period of the same length before it; None without a beginning and an end."""
        if self.since is None or self.until is None:
            return None
        return msgspec.structs.replace(self, since=self.since - (self.until - self.since), until=self.since)


def scope_of(
    source: str,
    name: str,
    project: str = "default",
    version: str | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
) -> Scope:
    """Raises InputError."""
    if source == "trails":
        return Scope(source="trails", namespace=project, name=name, version=version, since=since, until=until)
    if source != "flows":
        raise InputError(f"Expected the source to be flows or trails but found {source[:100]!r}")
    namespace, own, of = split_definition(name)
    if since is not None and until is not None and since >= until:
        raise InputError(f"Expected since to be before until but found {since} and {until}")
    return Scope(
        source="flows", namespace=namespace, name=own, version=of or version, since=since, until=until
    )


# -- paths --------------------------------------------------------------------------------------------------------------


class Edge(msgspec.Struct):
    """How often `to` followed `from_` directly, and the mean time between them in seconds."""

    from_: str = msgspec.field(name="from")
    to: str
    count: int
    seconds: float | None


class Graph(msgspec.Struct):
    """The directly-follows graph. `steps`: how often each happened."""

    steps: dict[str, int]
    edges: list[Edge]
    cases: int


def graph(scope: Scope) -> Ask[Graph]:
    return scope.ask("graph", _graph)


def _graph(rows: list[tuple[Any, ...]]) -> Graph:
    steps: dict[str, int] = {}
    edges: dict[tuple[str, str], list[tuple[int, float | None]]] = {}
    cases = 0
    for step, following, first, count, seconds in rows:
        steps[step] = steps.get(step, 0) + count
        if first == 1:
            cases += count
            edges.setdefault((START, step), []).append((count, None))
        at = (step, END if following is None else following)
        edges.setdefault(at, []).append((count, None if seconds is None else float(seconds)))
    return Graph(steps, [_edge(at, parts) for at, parts in sorted(edges.items())], cases)


def _edge(at: tuple[str, str], parts: list[tuple[int, float | None]]) -> Edge:
    count = sum(count for count, _ in parts)
    timed = [(count, seconds) for count, seconds in parts if seconds is not None]
    total = sum(count for count, _ in timed)
    mean = sum(count * seconds for count, seconds in timed) / total if total else None
    return Edge(*at, count, None if mean is None else round(mean, 6))


class Variant(msgspec.Struct):
    """A path that flows took. Times are in seconds; `example` is one of the flows."""

    path: list[str]
    count: int
    share: float
    mean: float
    p50: float
    example: str


class Variants(msgspec.Struct):
    variants: list[Variant]
    cases: int
    different: int


def variants(scope: Scope, limit: int = 100) -> Ask[Variants]:
    """The most frequent first."""
    return scope.ask("variants", _variants, limit=_limited(limit))


def _variants(rows: list[tuple[Any, ...]]) -> Variants:
    if not rows:
        return Variants([], 0, 0)
    cases, different = int(rows[0][5]), int(rows[0][6])
    found = [
        Variant(
            list(path), count, round(count / cases, 6), round(float(mean), 6), round(float(p50), 6), example
        )
        for path, count, mean, p50, example, _, _ in rows
    ]
    return Variants(found, cases, different)


# -- times --------------------------------------------------------------------------------------------------------------


class StepTimes(msgspec.Struct):
    """Of the ended runs of a step, with percentiles right to 1 %. `failed` of `count`."""

    step: str
    count: int
    failed: int
    working: Histogram
    waiting: Histogram

    def shown(self) -> dict[str, Any]:
        times = {"working": shown(self.working), "waiting": shown(self.waiting)}
        return {"step": self.step, "count": self.count, "failed": self.failed} | times


def durations(scope: Scope) -> Ask[list[StepTimes]]:
    """Those that take the most time first."""
    return scope.ask("durations", _durations, log_base=LOG_BASE)


def _durations(rows: list[tuple[Any, ...]]) -> list[StepTimes]:
    found: dict[str, StepTimes] = {}
    for step, what, bucket, count, total, least, most, failed in rows:
        times = found.setdefault(step, StepTimes(step, 0, 0, Histogram({}), Histogram({})))
        if what == "working":
            times.count += count
            times.failed += failed
        histogram = times.working if what == "working" else times.waiting
        histogram.add(bucket, count, float(total), float(least), float(most))
    return sorted(found.values(), key=lambda t: (-(t.working.total + t.waiting.total), t.step))


class Heat(msgspec.Struct):
    """A cell: `day` 1 (Monday) to 7, `hour` 0 to 23, UTC; `seconds` is the mean of what began then."""

    step: str
    day: int
    hour: int
    count: int
    seconds: float
    failed: int


def heat(scope: Scope) -> Ask[list[Heat]]:
    def cells(rows: list[tuple[Any, ...]]) -> list[Heat]:
        return [Heat(s, d, h, count, round(float(mean), 6), failed) for s, d, h, count, mean, failed in rows]

    return scope.ask("heat", cells)


class Rework(msgspec.Struct):
    """Of the `cases` with the step, in `repeated` it happened again; `again` times in all, `most` times in one."""

    step: str
    cases: int
    repeated: int
    again: int
    most: int


def rework(scope: Scope) -> Ask[list[Rework]]:
    return scope.ask("rework", lambda rows: [Rework(*map(_whole, row)) for row in rows])


def _whole(value: Any) -> Any:
    return value if isinstance(value, str) else int(value)


class Cases(msgspec.Struct):
    """Durations of the ended ones, in seconds."""

    cases: int
    ended: int
    failed: int
    mean: float | None
    p50: float | None
    p95: float | None
    p99: float | None
    first: datetime | None
    last: datetime | None


def cases(scope: Scope) -> Ask[Cases]:
    return scope.ask("cases", _cases)


def _cases(rows: list[tuple[Any, ...]]) -> Cases:
    count, ended, failed, mean, percentiles, first, last = rows[0]
    p50, p95, p99 = map(_seconds, percentiles or (None, None, None))
    return Cases(count, ended, failed, _seconds(mean), p50, p95, p99, first, last)


def _seconds(value: Any) -> float | None:
    return None if value is None else float(value)


class Throughput(msgspec.Struct):
    at: datetime
    started: int
    ended: int
    failed: int


def throughput(scope: Scope, bucket: str = "hour", limit: int = LIMIT_MAX) -> Ask[list[Throughput]]:
    """Raises InputError for another bucket than minute, hour, day or week."""
    if bucket not in _BUCKETS:
        raise InputError(f"Expected a bucket, one of {', '.join(_BUCKETS)}, but found {bucket[:100]!r}")

    def answer(rows: list[tuple[Any, ...]]) -> list[Throughput]:
        return [Throughput(at, int(s), int(e), int(f)) for at, s, e, f in rows]

    return scope.ask("throughput", answer, bucket=_BUCKETS[bucket], limit=_limited(limit))


class Queue(msgspec.Struct):
    """The calls of a queue that ended. `busy`: the share of its workers' time that they worked, at least (1 call at a
    time is assumed of each); `waited` and `worked` are sums in seconds."""

    queue: str
    calls: int
    workers: int
    worked: float
    waited: float
    busy: float
    steps: list[str]


def queues(scope: Scope) -> Ask[list[Queue]]:
    return scope.ask("queues", _queues)


def _queues(rows: list[tuple[Any, ...]]) -> list[Queue]:
    found = []
    for queue, calls, workers, worked, waited, span, steps in rows:
        time = float(span) * workers
        busy = min(1.0, float(worked) / time) if time > 0 else 0.0
        found.append(
            Queue(
                queue,
                calls,
                workers,
                round(float(worked), 6),
                round(float(waited), 6),
                round(busy, 4),
                list(steps),
            )
        )
    return found


def _limited(limit: int) -> int:
    if not 1 <= limit <= LIMIT_MAX:
        raise InputError(f"Expected a limit from 1 to {LIMIT_MAX} but found {limit}")
    return limit
