"""Which records of the log an export takes: one flow's, all, or those of the flows that began in a range of time.

A flow belongs to a range when its first event does: all of its records are taken, however late. A refused command of a
flow that has no event yet is judged by its own time. What cannot be read is handed on as it is, never left out; in a range
it belongs where its key does. Memory of a range: the ids of the log's flows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import msgspec

from engine.core.decide import FLOW_ID
from engine.errors import InputError
from engine.runtime.topics import EVENTS, partition_of
from replay.log import Spans, read_spans, scan_messages
from replay.moment import parse_moment
from schemas import messages as m
from schemas.codec import Undecodable, decode_logged

Passed = Callable[[int], None]


class Selection(msgspec.Struct, frozen=True, kw_only=True):
    """`flow_id`, or a range [since, until) in microseconds, or, with neither, everything."""

    flow_id: str | None = None
    since: int | None = None
    until: int | None = None

    @property
    def is_range(self) -> bool:
        return self.since is not None or self.until is not None

    def includes(self, time: int) -> bool:
        return (self.since is None or self.since <= time) and (self.until is None or time < self.until)


class Taken(msgspec.Struct, gc=False):
    """One record: Kafka's message, and what it holds, or why that is unreadable."""

    message: Any
    logged: m.Event | m.Rejection | None
    problem: str = ""

    @property
    def place(self) -> str:
        return f"partition {self.message.partition()}, offset {self.message.offset()}"


def parse_selection(flow_id: str | None, everything: bool, since: str | None, until: str | None) -> Selection:
    """Raises InputError unless exactly one of the three was asked for."""
    asked = [flow_id is not None, everything, since is not None or until is not None]
    if sum(asked) != 1:
        names = [
            name
            for name, is_there in zip(("--flow", "--all", "--since/--until"), asked, strict=True)
            if is_there
        ]
        found = " and ".join(names) or "none"
        raise InputError(f"Expected one of --flow ID, --all, or --since and --until but found {found}")
    if flow_id is not None and not FLOW_ID.fullmatch(flow_id):
        raise InputError(f"Expected a flow id matching {FLOW_ID.pattern} but found {flow_id[:200]!r}")
    found_range = Selection(flow_id=flow_id, since=_time(since, "--since"), until=_time(until, "--until"))
    if (
        found_range.since is not None
        and found_range.until is not None
        and found_range.since >= found_range.until
    ):
        raise InputError(f"Expected --since to be before --until but found {since} and {until}")
    return found_range


def _time(text: str | None, name: str) -> int | None:
    if text is None:
        return None
    moment = parse_moment(text, name)
    if moment.time is None:
        raise InputError(f"Expected {name} to be a time but found the sequence number {text}")
    return moment.time


def spans_of(servers: str, prefix: str, selection: Selection) -> tuple[Spans, int]:
    """What is to be read, and how many partitions there are."""
    spans = read_spans(servers, prefix + EVENTS)
    if selection.flow_id is None:
        return spans, len(spans)
    home = partition_of(selection.flow_id, len(spans))
    return {home: spans[home]}, len(spans)


def selected(
    servers: str, prefix: str, selection: Selection, spans: Spans, passed: Passed
) -> Iterator[Taken]:
    """The records of `selection`, those of a partition in its order."""
    key = None if selection.flow_id is None else selection.flow_id.encode()
    chosen: dict[bytes | None, bool] = {}
    for message in scan_messages(servers, prefix + EVENTS, spans, key=key, passed=passed):
        taken = _read(message)
        if not selection.is_range or _in_range(selection, taken, chosen):
            yield taken


def _in_range(selection: Selection, taken: Taken, chosen: dict[bytes | None, bool]) -> bool:
    key, logged = taken.message.key(), taken.logged
    if isinstance(logged, m.Event) and logged.sequence == 1:
        chosen[key] = selection.includes(logged.time)
    if (known := chosen.get(key)) is not None:
        return known
    if isinstance(logged, m.Rejection):
        return selection.includes(logged.time)
    # the log lacks the flow's beginning or this cannot be read: Kafka's own time says when it was written
    return selection.includes(taken.message.timestamp()[1] * 1000 if logged is None else logged.time)


def _read(message: Any) -> Taken:
    value = message.value()
    if value is None:
        return Taken(message, None, "it has no value")
    fingerprint = dict(message.headers() or ()).get("schema")
    try:
        return Taken(message, decode_logged(value, fingerprint))
    except Undecodable as problem:
        return Taken(message, None, str(problem))
