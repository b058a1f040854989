"""The log, bounded: every committed record of the events topic between two offsets, whole or of one flow only.

A scan ends at the offsets it was given, however much is written meanwhile. Records of other flows are skipped by
comparing the bytes of their keys: nothing of them is decoded. Kafka is reached through engine.runtime.kafka only.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from engine.errors import AwayError
from engine.runtime import kafka
from projections.logged import Record

Span = tuple[int, int]
"""[first offset, end offset) of one partition."""

Spans = Mapping[int, Span]

_BATCH: Final = 10_000
_SILENCE_S: Final = 60.0
_SETTINGS: Final[dict[str, Any]] = {
    "group.id": "flowtrail-replay",
    "fetch.message.max.bytes": 8 * 1024 * 1024,  # a scan wants few large fetches
    "queued.max.messages.kbytes": 65_536,
    "auto.offset.reset": "error",  # never begin elsewhere than asked, silently
}


def read_spans(servers: str, topic: str) -> dict[int, Span]:
    """Every partition's first offset and its end, as a reader of committed records sees them now.

    Raises AwayError when Kafka does not answer or the topic is missing.
    """
    consumer = kafka.log_consumer(servers, **_SETTINGS)
    try:
        found = consumer.list_topics(topic, timeout=5).topics[topic]
        if found.error is not None or not found.partitions:
            raise AwayError(f"Expected topic {topic} to exist but it does not; run: flowtrail admin init")
        places = {p: kafka.TopicPartition(topic, p) for p in found.partitions}
        spans = {p: consumer.get_watermark_offsets(place, timeout=5) for p, place in sorted(places.items())}
        return {p: (int(first), int(end)) for p, (first, end) in spans.items()}
    except kafka.KafkaException as problem:
        raise AwayError(f"Expected Kafka to answer but {problem.args[0].str()}") from None
    finally:
        consumer.close()


def scan(
    servers: str,
    topic: str,
    spans: Spans,
    *,
    key: bytes | None = None,
    passed: Callable[[int], None] = lambda _: None,
) -> Iterator[Record]:
    """The records of `spans`, those of a partition in its order; with `key`, only that key's.

    `passed` is told now and then how many records were read since it was told last.
    """
    fingerprint_of = kafka.fingerprint_of
    for found in scan_messages(servers, topic, spans, key=key, passed=passed):
        yield Record(found.partition(), found.offset(), found.key(), found.value(), fingerprint_of(found))


def scan_messages(
    servers: str,
    topic: str,
    spans: Spans,
    *,
    key: bytes | None = None,
    passed: Callable[[int], None] = lambda _: None,
) -> Iterator[Any]:
    """As `scan`, but Kafka's own messages, with every header and the time they were written."""
    waiting = {p for p, (first, end) in spans.items() if first < end}
    if not waiting:
        return
    consumer = kafka.log_consumer(servers, **_SETTINGS)
    try:
        consumer.assign([kafka.TopicPartition(topic, p, spans[p][0]) for p in sorted(waiting)])
        ends = {p: spans[p][1] for p in waiting}
        while waiting:
            messages = _next(consumer, topic)
            passed(len(messages))
            for message in messages:
                partition, offset = message.partition(), message.offset()
                if (problem := message.error()) is not None:
                    if _is_end(problem, topic, partition) and offset >= ends[partition]:
                        waiting.discard(partition)
                elif offset >= ends[partition]:
                    if partition in waiting:
                        waiting.discard(partition)
                        consumer.pause([kafka.TopicPartition(topic, partition)])
                elif key is None or message.key() == key:
                    yield message
    finally:
        consumer.close()


def _next(consumer: kafka.Consumer, topic: str) -> list[Any]:
    """The messages there are, at least one. Raises AwayError when Kafka stays silent."""
    until = time.monotonic() + _SILENCE_S
    while (first := consumer.poll(0.1)) is None:
        if time.monotonic() > until:
            raise AwayError(f"Expected Kafka to answer within {_SILENCE_S:.0f} s but {topic} is silent")
    return [first, *consumer.consume(_BATCH, 0)]


def _is_end(problem: kafka.KafkaError, topic: str, partition: int) -> bool:
    """Whether the end of a partition was met; a passing disturbance is neither. Raises AwayError."""
    code = problem.code()
    if code == kafka.KafkaError._PARTITION_EOF:
        return True
    if problem.retriable() or code in (kafka.KafkaError._ALL_BROKERS_DOWN, kafka.KafkaError._TRANSPORT):
        return False
    raise AwayError(f"Expected to read {topic}[{partition}] but {problem.str()}")
