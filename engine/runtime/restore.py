"""Loading a partition's state: from the `state` topic, or, where that has no position, by folding the log.

The `state` topic is a cache. Deleting it costs time, nothing else: the fold of `events` gives the same states, and
the causes of events and rejections give the position (commands without a consequence are decided again, harmlessly).
Entities leave no events: `told` is what they were told by the commands that are still there, for them to be told again.
"""

from __future__ import annotations

import msgspec

from engine.core.batch import Kept
from engine.core.evolve import FlowState, digest, evolve
from engine.runtime import kafka, topics
from engine.runtime.records import IMPORT_HEADER, POSITION_KEY
from schemas import messages as m
from schemas.codec import Undecodable, decode_command, decode_logged, decode_snapshot


class Told(msgspec.Struct, frozen=True, gc=False):
    """A message to an entity, and when it was sent (microseconds since the Unix epoch)."""

    key: str
    message: bytes
    time: int


class Restored(msgspec.Struct):
    """A partition's states, and the offset of the last command whose consequences are in the log (-1: none)."""

    states: dict[str, Kept]
    position: int
    from_log: bool
    told: list[Told] = []


def restore(servers: str, prefix: str, partition: int) -> Restored:
    """Call only after `init_transactions`: then no earlier owner can add to what is read here."""
    consumer = kafka.log_consumer(servers)
    try:
        raw: dict[bytes, tuple[bytes, bytes | None]] = {}
        start = kafka.TopicPartition(prefix + topics.STATE, partition, kafka.OFFSET_BEGINNING)
        for message in kafka.read_partitions(consumer, [start]):
            key, value = message.key() or b"", message.value()
            if value is None:
                raw.pop(key, None)
            else:
                raw[key] = (value, kafka.fingerprint_of(message))
        if (stored := raw.pop(POSITION_KEY, None)) is None:
            return _fold(consumer, prefix, partition)
        found = decode_snapshot(*stored)
        assert isinstance(found, m.Position)
        states: dict[str, Kept] = {}
        for key, record in raw.items():
            state = decode_snapshot(*record)
            if isinstance(state, m.LiveFlow | m.EndedFlow | m.Entity):
                states[key.decode()] = state
        return Restored(states, found.offset, from_log=False)
    finally:
        consumer.close()


def _fold(consumer: kafka.Consumer, prefix: str, partition: int) -> Restored:
    states: dict[str, FlowState] = {}
    last = -1
    start = kafka.TopicPartition(prefix + topics.EVENTS, partition, kafka.OFFSET_BEGINNING)
    for message in kafka.read_partitions(consumer, [start]):
        value = message.value()
        if value is None:
            continue
        headers = kafka.headers_of(message)
        if (
            IMPORT_HEADER in headers
        ):  # its cause is a command of another installation, its flow is not run here
            continue
        logged = decode_logged(value, headers.get("schema"))
        last = max(last, logged.cause.offset)
        if isinstance(logged, m.Event):
            before = None if logged.sequence == 1 else states.get(logged.flow_id)
            states[logged.flow_id] = evolve(before, logged, digest(value))
    told = _told(consumer, prefix, partition, last)
    return Restored(dict(states), last, from_log=last >= 0, told=told)


def _told(consumer: kafka.Consumer, prefix: str, partition: int, last: int) -> list[Told]:
    found: list[Told] = []
    start = kafka.TopicPartition(prefix + topics.COMMANDS, partition, kafka.OFFSET_BEGINNING)
    for message in kafka.read_partitions(consumer, [start]):
        offset, value = message.offset(), message.value()
        if value is None or offset is None or offset > last:
            continue
        try:
            command = decode_command(value, kafka.fingerprint_of(message))
        except Undecodable:
            continue
        if isinstance(command.body, m.TellEntity):
            found.append(Told(command.flow_id, command.body.message, message.timestamp()[1] * 1000))
    return found
