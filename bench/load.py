"""Starting many flows and seeing them end, straight on Kafka: the shortest way that does not itself become the limit."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

from engine.errors import FlowtrailError
from engine.runtime import kafka, topics
from schemas import messages as m
from schemas.codec import decode_command, decode_logged, encode_command
from schemas.registry import newest

_SCHEMA: list[tuple[str, str | bytes | None]] = [("schema", newest("command").fingerprint)]
_COMPLETED = b"io.serverlessworkflow.workflow.completed.v1"
_FAULTED = b"io.serverlessworkflow.workflow.faulted.v1"


def start_command(flow_id: str, definition: str, data: bytes) -> bytes:
    now = time.time_ns() // 1000
    return encode_command(
        m.Command(f"start-{flow_id}", flow_id, now, m.Actor("user", "bench"), m.StartFlow(definition, data))
    )


class Starter:
    """Sends StartFlow commands."""

    def __init__(self, servers: str, prefix: str = "flowtrail.") -> None:
        self._topic = prefix + topics.COMMANDS
        self._producer = kafka.producer(
            servers, **{"linger.ms": 0, "queue.buffering.max.messages": 1_000_000}
        )

    def start(self, flow_id: str, definition: str, data: bytes) -> None:
        self._producer.produce(
            self._topic, start_command(flow_id, definition, data), flow_id.encode(), headers=_SCHEMA
        )
        self._producer.poll(0)

    def flush(self) -> None:
        self._producer.flush(60)


class Ends:
    """Follows the events topic from its end and reports flows that ended."""

    def __init__(self, servers: str, partitions: int = 8, prefix: str = "flowtrail.") -> None:
        settings: dict[str, Any] = {"fetch.wait.max.ms": 5, "enable.partition.eof": False}
        self._consumer = kafka.log_consumer(servers, **settings)
        topic = prefix + topics.EVENTS
        starts = []
        for p in range(partitions):
            _, end = self._consumer.get_watermark_offsets(kafka.TopicPartition(topic, p), timeout=30)
            starts.append(kafka.TopicPartition(topic, p, end))
        self._consumer.assign(starts)

    def poll(self, timeout_s: float) -> Iterator[tuple[str, float]]:
        """Flow id and the time (s) of each flow that completed. Raises FlowtrailError when one faulted."""
        first = self._consumer.poll(timeout_s)
        messages = [] if first is None else [first, *self._consumer.consume(5000, 0)]
        now = time.perf_counter()
        for message in messages:
            if message.error() is not None:
                continue
            kind = kafka.headers_of(message).get("ce_type")
            if kind == _COMPLETED:
                yield (message.key() or b"").decode(), now
            elif kind == _FAULTED:
                raise FlowtrailError(f"Expected every flow to complete but {message.key()!r} faulted")

    def close(self) -> None:
        self._consumer.close()


def all_commands(servers: str, partitions: int = 8, prefix: str = "flowtrail.") -> Iterator[m.Command]:
    """Every command still kept."""
    consumer = kafka.log_consumer(servers)
    starts = [
        kafka.TopicPartition(prefix + topics.COMMANDS, p, kafka.OFFSET_BEGINNING) for p in range(partitions)
    ]
    try:
        for message in kafka.read_partitions(consumer, starts):
            yield decode_command(message.value() or b"", kafka.fingerprint_of(message))
    finally:
        consumer.close()


def all_events(
    servers: str, partitions: int = 8, prefix: str = "flowtrail."
) -> Iterator[tuple[m.Event, bytes, int]]:
    """Every event in the log with its stored value and partition."""
    consumer = kafka.log_consumer(servers)
    starts = [
        kafka.TopicPartition(prefix + topics.EVENTS, p, kafka.OFFSET_BEGINNING) for p in range(partitions)
    ]
    try:
        for message in kafka.read_partitions(consumer, starts):
            value = message.value()
            assert value is not None
            logged = decode_logged(value, kafka.fingerprint_of(message))
            if isinstance(logged, m.Event):
                yield logged, value, message.partition() or 0
    finally:
        consumer.close()
