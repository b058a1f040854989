"""The hot records' Avro datums, written field by field: events, tasks and snapshots.

fastavro writes any schema and finds a union's branch by trying; these records are written tens of thousands of times a
second and their branches are known. Same bytes, a third of the time: tests/unit/test_writing.py proves the bytes equal to
fastavro's for every body under Hypothesis, so a change of schema that is forgotten here cannot pass.
Encoding (Avro specification, "Binary Encoding"): longs are zig-zag varints, strings and bytes have their length before
them, a union has its branch's number before it, a record is its fields one after the other.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any, Final

from schemas import messages as m


def _varint(value: int) -> bytes:
    rest = (value << 1) ^ (value >> 63)
    out = bytearray()
    while rest > 0x7F:
        out.append(rest & 0x7F | 0x80)
        rest >>= 7
    out.append(rest)
    return bytes(out)


_SMALL: Final = tuple(_varint(value) for value in range(4096))
_ABSENT: Final = _varint(0)
_PRESENT: Final = _varint(1)


def long(value: int) -> bytes:
    return _SMALL[value] if 0 <= value < 4096 else _varint(value)


def text(value: str) -> bytes:
    data = value.encode()
    size = len(data)
    return (_SMALL[size] if size < 4096 else _varint(size)) + data


known: Final = lru_cache(4096)(text)
"""The same for text that comes again and again: definitions, pointers, queues. Not for ids: a miss costs four writings."""


def _moment(value: int) -> bytes:
    """A time in microseconds. Those of this millennium's first half take eight bytes, written without a loop."""
    rest = value << 1
    if not _EIGHT_LEAST <= rest < _EIGHT_END:
        return _varint(value)
    return bytes(
        (
            rest & 0x7F | 0x80,
            rest >> 7 & 0x7F | 0x80,
            rest >> 14 & 0x7F | 0x80,
            rest >> 21 & 0x7F | 0x80,
            rest >> 28 & 0x7F | 0x80,
            rest >> 35 & 0x7F | 0x80,
            rest >> 42 & 0x7F | 0x80,
            rest >> 49,
        )
    )


_EIGHT_LEAST: Final = 1 << 49
_EIGHT_END: Final = 1 << 56

moment: Final = lru_cache(4096)(_moment)
"""The same, remembered: those of one decision are equal."""


def data(value: bytes) -> bytes:
    size = len(value)
    return (_SMALL[size] if size < 4096 else _varint(size)) + value


def maybe_text(value: str | None) -> bytes:
    return _ABSENT if value is None else _PRESENT + text(value)


def maybe_known(value: str | None) -> bytes:
    return _ABSENT if value is None else _PRESENT + known(value)


def payload(value: m.Payload) -> bytes:
    if isinstance(value, bytes):
        return _ABSENT + data(value)  # the first branch
    return _PRESENT + text(value.uri) + data(value.sha256) + long(value.size)


def maybe_payload(value: m.Payload | None) -> bytes:
    return _ABSENT if value is None else _PRESENT + payload(value)


def error(value: m.Error) -> bytes:
    return b"".join(
        (
            text(value.type),
            long(value.status),
            maybe_text(value.title),
            maybe_text(value.detail),
            maybe_text(value.instance),
        )
    )


_KINDS: Final = {
    kind: long(number) for number, kind in enumerate(("user", "worker", "timer", "event", "engine"))
}


def actor(value: m.Actor) -> bytes:
    return _KINDS[value.kind] + known(value.id)


_last_cause: tuple[m.Cause | None, bytes] = (None, b"")


def cause(value: m.Cause) -> bytes:
    """All events of a decision have one cause: written once. Threads may swap the memory, never mix it."""
    global _last_cause
    before, written = _last_cause
    if before is not value:
        written = text(value.command_id) + long(value.partition) + long(value.offset)
        _last_cause = (value, written)
    return written


_FALSE: Final = b"\0"
_TRUE: Final = b"\1"


def boolean(value: bool) -> bytes:
    return _TRUE if value else _FALSE


def maybe_data(value: bytes | None) -> bytes:
    return _ABSENT if value is None else _PRESENT + data(value)


def maybe_parent(value: m.Parent | None) -> bytes:
    if value is None:
        return _ABSENT
    return _PRESENT + text(value.flow_id) + known(value.task) + long(value.run) + long(value.attempt)


def time(value: int) -> bytes:
    return moment(value) if value else _ABSENT


def _subscriptions(values: tuple[m.Subscription, ...]) -> bytes:
    return _items([long(s.filter) + text(s.key) + maybe_data(s.expected) for s in values])


def _runs(values: tuple[m.ActiveRun, ...]) -> bytes:
    return _items([text(r.task) + long(r.run) + long(r.attempt) + text(r.kind) + text(r.was) for r in values])


def _map(values: dict[str, str]) -> bytes:
    return _items([text(key) + text(value) for key, value in values.items()])


def _restore(value: m.Restore) -> bytes:
    return text(value.flow_id) + long(value.sequence) + data(value.state) + maybe_payload(value.data)


_BODY: Final[dict[type, Callable[[Any], bytes]]] = {
    m.FlowStarted: lambda b: (
        payload(b.input)
        + maybe_payload(b.transformed)
        + known(b.engine_version)
        + maybe_parent(b.parent)
        + time(b.deadline)
    ),
    m.FlowCompleted: lambda b: payload(b.output),
    m.FlowFaulted: lambda b: error(b.error),
    m.FlowCancelled: lambda b: maybe_text(b.reason),
    m.FlowSuspended: lambda b: text(b.reason) + data(b.command),
    m.CommandParked: lambda b: data(b.command),
    m.TaskScheduled: lambda b: (
        known(b.queue)
        + known(b.function)
        + maybe_payload(b.input)
        + maybe_payload(b.arguments)
        + time(b.deadline)
        + time(b.due)
        + known(b.priority)
        + boolean(b.reply)
    ),
    m.TaskStarted: lambda b: (
        maybe_payload(b.input)
        + time(b.deadline)
        + time(b.due)
        + known(b.purpose)
        + maybe_payload(b.items)
        + known(b.kind)
    ),
    m.TaskSkipped: lambda _: b"",
    m.TaskCompleted: lambda b: (
        maybe_payload(b.result)
        + maybe_payload(b.output)
        + maybe_payload(b.context)
        + maybe_text(b.branch)
        + boolean(b.compensable)
    ),
    m.TaskFaulted: lambda b: error(b.error) + maybe_payload(b.result),
    m.TaskCancelled: lambda _: b"",
    m.TaskIterated: lambda b: long(b.index),
    m.TaskIterationCompleted: lambda b: long(b.index) + maybe_payload(b.output) + maybe_payload(b.context),
    m.TaskRetried: lambda b: error(b.error) + time(b.due) + time(b.deadline),
    m.TaskCaught: lambda b: error(b.error),
    m.TaskProgressed: lambda b: maybe_payload(b.progress) + time(b.due),
    m.TimerFired: lambda b: known(b.purpose) + time(b.due) + time(b.next),
    m.SubflowStarted: lambda b: (
        text(b.child)
        + text(b.definition)
        + maybe_payload(b.input)
        + maybe_payload(b.arguments)
        + time(b.deadline)
        + boolean(b.reply)
    ),
    m.ListenStarted: lambda b: maybe_payload(b.input) + time(b.deadline) + _subscriptions(b.subscriptions),
    m.EventConsumed: lambda b: long(b.filter) + payload(b.event) + text(b.read) + maybe_data(b.keys),
    m.EventEmitted: lambda b: payload(b.event),
    m.DecisionMade: lambda b: text(b.table) + payload(b.explanation),
    m.FlowYielded: lambda b: _items([text(task) for task in b.ready]),
    m.FlowContinued: lambda _: b"",
    m.FlowResumed: lambda b: maybe_text(b.reason),
    m.FlowCompensating: lambda b: (
        (_ABSENT if b.error is None else _PRESENT + error(b.error)) + maybe_text(b.reason)
    ),
    m.FlowMigrated: lambda b: (
        text(b.was) + data(b.was_hash) + _map(b.moved) + _runs(b.active) + maybe_text(b.reason)
    ),
    m.FlowRollingBack: lambda b: _restore(b.restore) + _map(b.moved) + long(b.keep) + maybe_text(b.reason),
    m.FlowRestored: lambda b: (
        _restore(b.restore) + _map(b.moved) + _runs(b.active) + _items([text(task) for task in b.ready])
    ),
}
_BRANCH: Final = {body: long(number) for number, body in enumerate(m.EVENT_BODIES)}


def event(value: m.Event) -> bytes:
    body = value.body
    kind = type(body)
    return b"".join(
        (
            text(value.flow_id),
            long(value.sequence),
            text(value.event_id),
            moment(value.time),
            actor(value.actor),
            cause(value.cause),
            known(value.definition),
            data(value.definition_hash),
            maybe_known(value.task),
            long(value.run),
            long(value.attempt),
            maybe_text(value.trace),
            data(value.previous_hash),
            _BRANCH[kind],
            _BODY[kind](body),
        )
    )


def task(value: m.Task) -> bytes:
    return b"".join(
        (
            text(value.flow_id),
            known(value.definition),
            known(value.task),
            long(value.run),
            long(value.attempt),
            known(value.function),
            payload(value.arguments),
            moment(value.time),
            maybe_text(value.trace),
            time(value.deadline),
            time(value.heartbeat),
            known(value.priority),
            boolean(value.reply),
        )
    )


def _unless(value: bytes, known: bytes) -> bytes:
    """Absent when it is what is known already."""
    return _ABSENT if value == known else _PRESENT + data(value)


def _active(value: m.ActiveTask, flow_input: bytes) -> bytes:
    return b"".join(
        (
            known(value.task),
            long(value.run),
            long(value.attempt),
            moment(value.started_at),
            _unless(value.raw_input, flow_input),
            _unless(value.input, value.raw_input),
            _unless(value.data, value.input),
            _waits(value),
        )
    )


def _waits(value: m.ActiveTask) -> bytes:
    """The rest of an active task: of a plain call only its queue is not at its default."""
    if not (
        value.due
        or value.deadline
        or value.index >= 0
        or value.items is not None
        or value.results
        or value.error is not None
        or value.purpose
        or value.child
        or value.subscriptions
        or value.keys is not None
        or value.retrying_since
    ):
        return _BEFORE_QUEUE + known(value.queue) + _AFTER_QUEUE
    return b"".join(
        (
            time(value.due),
            known(value.purpose),
            time(value.deadline),
            long(value.index) if value.index >= 0 else _varint(value.index),
            maybe_data(value.items),
            _items([text(result.key) + data(result.value) for result in value.results]),
            maybe_data(value.error),
            text(value.child),
            known(value.queue),
            _subscriptions(value.subscriptions),
            maybe_data(value.keys),
            time(value.retrying_since),
        )
    )


_BEFORE_QUEUE: Final = _ABSENT + _ABSENT + _ABSENT + _varint(-1) + _ABSENT * 4
_AFTER_QUEUE: Final = _ABSENT * 3


def _items(items: list[bytes]) -> bytes:
    """An array's or map's blocks: one with all items, then the empty one that ends it."""
    if not items:
        return _ABSENT
    return long(len(items)) + b"".join(items) + _ABSENT


def _compensation(value: m.Compensation) -> bytes:
    return known(value.task) + long(value.run) + data(value.input) + data(value.output)


def _live(value: m.LiveFlow) -> bytes:
    return b"".join(
        (
            text(value.flow_id),
            known(value.definition),
            data(value.definition_hash),
            known(value.engine_version),
            text(value.start_command_id),
            known(value.status),
            long(value.sequence),
            data(value.head),
            moment(value.started_at),
            moment(value.updated_at),
            data(value.input),
            _unless(value.data, value.input),
            _unless(value.context, value.input),
            _items([_active(active, value.input) for active in value.active]),
            _items([known(task) + long(count) for task, count in value.runs.items()]),
            maybe_parent(value.parent),
            time(value.deadline),
            _items([text(task) for task in value.ready]) if value.ready else _ABSENT,
            long(value.steps),
            _items([_compensation(undo) for undo in value.compensations]) if value.compensations else _ABSENT,
            maybe_data(value.fate),
            _items([data(command) for command in value.parked]) if value.parked else _ABSENT,
        )
    )


def _ended(value: m.EndedFlow) -> bytes:
    return b"".join(
        (
            text(value.flow_id),
            known(value.definition),
            text(value.start_command_id),
            known(value.status),
            long(value.sequence),
            moment(value.ended_at),
        )
    )


def snapshot(value: m.Snapshot) -> bytes:
    if isinstance(value, m.LiveFlow):
        return b"\0" + _live(value)
    if isinstance(value, m.EndedFlow):
        return _SMALL[1] + _ended(value)
    if isinstance(value, m.Entity):
        return _SMALL[3] + known(value.key) + data(value.state) + time(value.due)
    return _SMALL[2] + long(value.offset) + moment(value.time)
