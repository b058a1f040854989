"""What one decided batch writes: topic, partition, key, value and headers of every record, in order.

Events carry CloudEvents binary-mode headers (Kafka protocol binding) besides the `schema` fingerprint, so that a
subscriber needs no Avro to route them. Snapshots and the position are written with them: all or nothing.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Final

from engine.core.batch import Batch, DeadLetter, Kept
from engine.runtime import cloudevents, topics
from engine.runtime.cloudevents import Header
from schemas import messages as m
from schemas.codec import (
    encode_cancellation,
    encode_command,
    encode_rejection,
    encode_snapshot,
    encode_task,
)
from schemas.registry import newest

POSITION_KEY: Final = b"@position"
IMPORT_HEADER: Final = "import.id"
"""Marks an event that `flowtrail import` wrote: history of another installation, which no engine here goes on with."""

Produce = tuple[str, bytes | None, bytes | None, list[Header]]
"""Topic without prefix, key, value, headers."""


def _schema(kind: str) -> Header:
    return ("schema", newest(kind).fingerprint)


_EVENT: Final = _schema("event")
_REJECTION: Final = [_schema("rejection"), ("content-type", b"application/avro")]
_TASK: Final = [_schema("task")]
_SNAPSHOT: Final = [_schema("snapshot")]
_COMMAND: Final = [_schema("command")]
_CANCELLATION: Final = [_schema("cancellation")]
_SHARED: Final = frozenset({topics.COMMANDS, topics.INBOX, topics.OUTBOX})
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


def partition_for(topic: str, key: bytes | None, own: int, partitions: int) -> int:
    """Where a record goes: the writer's own partition, or that of its key in a topic that all of them write."""
    return topics.partition_of(key.decode(), partitions) if key is not None and topic in _SHARED else own


def records_of(batch: Batch, prefix: str, now: int) -> Iterator[Produce]:
    """Everything `batch` writes. The position comes last, if it has moved."""
    for logged, value in batch.written:
        key = logged.flow_id.encode()
        if isinstance(logged, m.Event):
            yield topics.EVENTS, key, value, event_headers(logged)
        else:
            yield topics.EVENTS, key, encode_rejection(logged), _REJECTION
    for dispatch in batch.dispatches:
        task = dispatch.task
        topic = topics.queue_topic(dispatch.queue, task.priority)
        yield topic, task.flow_id.encode(), encode_task(task), _traced(_TASK, task.trace)
    yield from commands(batch.commands)
    for cancellation in batch.cancellations:
        key = cancellation.flow_id.encode()
        yield topics.CANCELLATIONS, key, encode_cancellation(cancellation), _CANCELLATION
    for emitted in batch.emitted:
        headers = cloudevents.headers_of(emitted.event)
        for topic in (topics.OUTBOX, topics.INBOX):
            yield topic, emitted.key.encode(), emitted.event.data, headers
    for letter in batch.dead_letters:
        yield _dead_letter(letter, prefix + topics.COMMANDS, batch.partition)
    for key_text, kept in batch.overlay.items():
        snapshot = None if kept is None else encode_snapshot(kept)
        yield topics.STATE, key_text.encode(), snapshot, [] if snapshot is None else _SNAPSHOT
    if batch.last_offset != batch.first_offset:
        yield position(batch.last_offset, now)


def commands(given: Iterable[m.Command]) -> Iterator[Produce]:
    for command in given:
        headers = _traced(_COMMAND, command.trace)
        yield topics.COMMANDS, command.flow_id.encode(), encode_command(command), headers


def _traced(headers: list[Header], trace: str | None) -> list[Header]:
    return headers if trace is None else [*headers, ("traceparent", trace.encode())]


def rebuilt(states: Mapping[str, Kept], offset: int, now: int) -> Iterator[Produce]:
    """A whole partition's snapshots, the position last: what a fold of the log must write before it works.

    Otherwise the next owner would find the position of later batches and only the flows these changed.
    """
    for key, kept in states.items():
        yield topics.STATE, key.encode(), encode_snapshot(kept), _SNAPSHOT
    yield position(offset, now)


def position(offset: int, now: int) -> Produce:
    return topics.STATE, POSITION_KEY, encode_snapshot(m.Position(offset, now)), _SNAPSHOT


def forget(flow_id: str) -> Produce:
    """The tombstone of an ended flow whose window is over."""
    return topics.STATE, flow_id.encode(), None, []
