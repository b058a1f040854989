"""What one decided batch writes: topic, partition, key, value and headers of every record, in order.

Events carry CloudEvents binary-mode headers (Kafka protocol binding) besides the `schema` fingerprint, so that a
subscriber needs no Avro to route them. Snapshots and the position are written with them: all or nothing.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Final

from engine.core.batch import Batch, DeadLetter
from engine.core.evolve import FlowState
from engine.runtime import topics
from schemas import messages as m
from schemas.codec import encode_rejection, encode_snapshot, encode_task
from schemas.registry import newest

POSITION_KEY: Final = b"@position"

Header = tuple[str, str | bytes | None]
Produce = tuple[str, bytes | None, bytes | None, list[Header]]
"""Topic without prefix, key, value, headers."""


def _schema(kind: str) -> Header:
    return ("schema", newest(kind).fingerprint)


_EVENT: Final = _schema("event")
_REJECTION: Final = [_schema("rejection"), ("content-type", b"application/avro")]
_TASK: Final = [_schema("task")]
_SNAPSHOT: Final = [_schema("snapshot")]
_FIXED: Final[dict[str, list[Header]]] = {
    kind: [
        _EVENT,
        ("content-type", b"application/avro"),
        ("ce_specversion", b"1.0"),
        ("ce_type", name.encode()),
        ("ce_source", b"/flowtrail"),
    ]
    for kind, name in m.CLOUDEVENT_TYPES.items()
}

_second = threading.local()


def timestamp(microseconds: int) -> str:
    """RFC 3339 in UTC. The second is formatted once while it lasts."""
    seconds, rest = divmod(microseconds, 1_000_000)
    if getattr(_second, "value", None) != seconds:
        _second.value = seconds
        _second.text = datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    return f"{_second.text}.{rest:06d}Z"


def event_headers(event: m.Event) -> list[Header]:
    headers = [
        *_FIXED[type(event.body).__name__],
        ("ce_id", event.event_id.encode()),
        ("ce_time", timestamp(event.time).encode()),
    ]
    if event.trace is not None:
        headers.append(("traceparent", event.trace.encode()))
    return headers


def _dead_letter(letter: DeadLetter, topic: str, partition: int) -> Produce:
    record = letter.record
    headers: list[Header] = [
        ("src.topic", topic.encode()),
        ("src.partition", str(partition).encode()),
        ("src.offset", str(record.offset).encode()),
        ("error.code", letter.code.encode()),
        ("error.message", letter.reason[:1000].encode()),
    ]
    if record.fingerprint is not None:
        headers.append(("schema", record.fingerprint))
    return topics.DEAD_LETTERS, record.key, record.value, headers


def records_of(batch: Batch, prefix: str, now: int) -> Iterator[Produce]:
    """Everything `batch` writes. The position comes last."""
    for logged, value in batch.written:
        key = logged.flow_id.encode()
        if isinstance(logged, m.Event):
            yield topics.EVENTS, key, value, event_headers(logged)
        else:
            yield topics.EVENTS, key, encode_rejection(logged), _REJECTION
    for dispatch in batch.dispatches:
        headers = _TASK
        if dispatch.task.trace is not None:
            headers = [*_TASK, ("traceparent", dispatch.task.trace.encode())]
        yield (
            topics.queue_topic(dispatch.queue),
            dispatch.task.flow_id.encode(),
            encode_task(dispatch.task),
            headers,
        )
    for letter in batch.dead_letters:
        yield _dead_letter(letter, prefix + topics.COMMANDS, batch.partition)
    for flow_id, state in batch.overlay.items():
        yield topics.STATE, flow_id.encode(), encode_snapshot(state), _SNAPSHOT
    yield position(batch.last_offset, now)


def rebuilt(states: Mapping[str, FlowState], offset: int, now: int) -> Iterator[Produce]:
    """A whole partition's snapshots, the position last: what a fold of the log must write before it works.

    Otherwise the next owner would find the position of later batches and only the flows these changed.
    """
    for flow_id, state in states.items():
        yield topics.STATE, flow_id.encode(), encode_snapshot(state), _SNAPSHOT
    yield position(offset, now)


def position(offset: int, now: int) -> Produce:
    return topics.STATE, POSITION_KEY, encode_snapshot(m.Position(offset, now)), _SNAPSHOT


def forget(flow_id: str) -> Produce:
    """The tombstone of an ended flow whose window is over."""
    return topics.STATE, flow_id.encode(), None, []
