"""What past flows would have done under another definition: each decided again, counted by how it differs.

Reads Kafka and nothing else; nothing is produced anywhere. Flows are taken when they end, or at the end of the log, so
that memory holds the flows that live and what is told of the others. Only flows of the definition's own namespace and
name are taken, unless one is asked for by its id.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Final, Literal

import msgspec
import orjson

from engine.core.evolve import FlowState, digest, evolve, inline
from engine.core.redecide import Stored
from engine.dsl.model import Definition, Expression
from engine.runtime.topics import EVENTS
from projections.logged import Logged
from replay.again import Again, Step, decide_again, path_of, waits_of
from replay.log import read_spans, scan
from schemas import messages as m
from schemas.codec import Undecodable, decode_logged

EXAMPLES: Final = 5
_ENDS: Final = (m.FlowCompleted, m.FlowFaulted, m.FlowCancelled)

Class = Literal["same", "different", "needs", "refused"]
Progress = Callable[[int, int], None]


class Verdict(msgspec.Struct, frozen=True):
    """How one flow would have gone. `at` is the first step that differs: `was` in the log, `would` under the other one."""

    flow_id: str
    kind: Class
    at: str = ""
    was: str = ""
    would: str = ""
    needs: tuple[str, ...] = ()


class Group(msgspec.Struct):
    """Flows that differ alike."""

    kind: Class
    at: str
    was: str
    would: str
    flows: int = 0
    examples: list[str] = []


class WhatIf(msgspec.Struct):
    """`counts` by class; `groups` the most frequent differences first; `tasks`: name -> how many flows differ there."""

    definition: str
    flows: int
    counts: dict[str, int]
    groups: list[Group]
    tasks: dict[str, int]
    unreadable: int = 0


def judge(definition: Definition, log: Sequence[Stored]) -> Verdict:
    """One flow, whole or as far as it has come."""
    flow_id = log[0].event.flow_id
    try:
        again = decide_again(definition, log)
    except Exception as defect:  # such as data that only the old definition's engine could have written
        return Verdict(
            flow_id, "refused", would=f"Expected to decide again but {type(defect).__name__}: {defect}"
        )
    if again.refused is not None:
        return Verdict(flow_id, "refused", would=again.refused)
    was, would = path_of(one.event for one in log), path_of(again.events)
    ended = isinstance(log[-1].event.body, _ENDS)
    difference = _first_difference(was, would, ended=ended)
    if difference is None and ended:
        difference = _other_output(log[-1].event, again)
    waiting = set() if ended else waits_of(_folded(log))
    if needs := tuple(task for task in again.needs if task not in waiting):
        return Verdict(flow_id, "needs", *(difference or ("", "", "")), needs)
    if difference is None:
        return Verdict(flow_id, "same")
    return Verdict(flow_id, "different", *difference)


def _folded(log: Sequence[Stored]) -> FlowState | None:
    state: FlowState | None = None
    for one in log:
        state = evolve(state, one.event, digest(one.value))
    return state


def _by_task(path: Iterable[Step]) -> dict[tuple[str, int], list[str]]:
    found: dict[tuple[str, int], list[str]] = defaultdict(list)
    for step in path:
        found[step.task, step.run].append(step.what)
    return found


def _first_difference(was: list[Step], would: list[Step], *, ended: bool) -> tuple[str, str, str] | None:
    """(task, what was, what would be). Tasks side by side may come in another order; one task's steps may not."""
    before, after = _by_task(was), _by_task(would)
    seen: Counter[tuple[str, int]] = Counter()
    for step in was:
        key, at = (step.task, step.run), seen[step.task, step.run]
        seen[key] += 1
        found = after[key][at] if at < len(after.get(key, ())) else "does not come to it"
        if found != step.what:
            return step.task, str(step), found
    if not ended:
        return None  # it has only come so far
    seen.clear()
    for step in would:
        key, at = (step.task, step.run), seen[step.task, step.run]
        seen[key] += 1
        if at >= len(before.get(key, ())):
            return step.task, "did not come to it", str(step)
    return None


def _other_output(last: m.Event, again: Again) -> tuple[str, str, str] | None:
    now = again.events[-1].body
    if not isinstance(last.body, m.FlowCompleted) or not isinstance(now, m.FlowCompleted):
        return None
    was, would = inline(last.body.output), inline(now.output)
    if orjson.loads(was) == orjson.loads(would):
        return None
    return "output", was.decode("utf-8", "replace")[:200], would.decode("utf-8", "replace")[:200]


# -- many flows -----------------------------------------------------------------------------------------------------


class Tally:
    """Verdicts, counted."""

    def __init__(self, definition: Definition) -> None:
        self._definition = definition
        self._counts: Counter[str] = Counter()
        self._groups: dict[tuple[str, ...], Group] = {}
        self._tasks: Counter[str] = Counter()
        self._unreadable = 0

    def unread(self) -> None:
        self._unreadable += 1

    def add(self, verdict: Verdict) -> None:
        self._counts[verdict.kind] += 1
        if verdict.kind == "same":
            return
        where = verdict.at if verdict.kind != "needs" else ", ".join(verdict.needs)
        self._tasks[where] += 1
        was, would = (
            (verdict.was, verdict.would) if where != "output" else ("another output", "another output")
        )
        group = self._groups.setdefault(
            (verdict.kind, where, was, would), Group(verdict.kind, where, was, would, 0, [])
        )
        group.flows += 1
        if len(group.examples) < EXAMPLES:
            group.examples.append(verdict.flow_id)

    def report(self) -> WhatIf:
        groups = sorted(self._groups.values(), key=lambda group: (-group.flows, group.at, group.was))
        return WhatIf(
            definition=self._definition.id,
            flows=sum(self._counts.values()),
            counts={kind: self._counts[kind] for kind in ("same", "different", "needs", "refused")},
            groups=groups,
            tasks=dict(self._tasks.most_common()),
            unreadable=self._unreadable,
        )


def what_if(
    kafka: str,
    prefix: str,
    definition: Definition,
    *,
    since: int = 0,
    where: Expression | None = None,
    progress: Progress | None = None,
) -> WhatIf:
    """All flows of the definition's name that began at `since` (microseconds) or later and whose input fulfils `where`.

    Raises AwayError.
    """
    tally = Tally(definition)
    name = f"{definition.namespace}/{definition.name}@"
    for logged in flows_of(kafka, prefix, tally.unread, progress):
        first = logged[0].event
        if not first.definition.startswith(name) or first.time < since or first.sequence != 1:
            continue
        if where is not None and not _fulfils(where, first):
            continue
        tally.add(judge(definition, stored(logged)))
    return tally.report()


def flows_of(
    kafka: str, prefix: str, unreadable: Callable[[], None], progress: Progress | None = None
) -> Iterator[list[Logged]]:
    """Every flow of the log with its events: when it ends, or as far as it has come. Raises AwayError."""
    topic = prefix + EVENTS
    spans = read_spans(kafka, topic)
    of = sum(end - first for first, end in spans.values())
    read = 0

    def passed(records: int) -> None:
        nonlocal read
        read += records
        if progress is not None:
            progress(min(read, of), of)

    living: dict[str, list[Logged]] = {}
    for record in scan(kafka, topic, spans, passed=passed):
        try:
            if record.value is None:
                raise Undecodable("no-value", "Expected an event but found a record without a value")
            found = decode_logged(record.value, record.fingerprint)
        except Undecodable:
            unreadable()
            continue
        if isinstance(found, m.Rejection):
            continue
        one = Logged(found, record.value, record.partition, record.offset)
        living.setdefault(found.flow_id, []).append(one)
        if isinstance(found.body, _ENDS):
            yield living.pop(found.flow_id)
    yield from living.values()


def stored(logged: Iterable[Logged]) -> list[Stored]:
    return [Stored(one.event, one.value) for one in logged]


def _fulfils(where: Expression, first: m.Event) -> bool:
    body = first.body
    value: Any = orjson.loads(inline(body.input)) if isinstance(body, m.FlowStarted) else None
    result = where.evaluate(value, {})
    return result is not None and result is not False
