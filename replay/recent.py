"""Which flows have an event at or after a time, read from the log.

Kafka's own index of times says where to begin; an event is decided before it is written, so what was written earlier is
older, but for clocks that go apart. From there on every event's own time is read.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from engine.errors import AwayError
from engine.runtime import kafka
from replay.log import Span, Spans, scan
from schemas.codec import Undecodable, decode_logged

_CLOCKS_APART_MS: Final = 600_000


def flows_since(
    servers: str,
    topic: str,
    spans: Spans,
    since: int,
    passed: Callable[[int], None] = lambda _: None,
) -> set[str]:
    """Ids of the flows of `spans` with an event or a rejection at or after `since`, in microseconds. Raises AwayError."""
    found: set[str] = set()
    for record in scan(servers, topic, _written_since(servers, topic, spans, since), passed=passed):
        if record.value is None:
            continue
        try:
            logged = decode_logged(record.value, record.fingerprint)
        except Undecodable:
            continue  # a rebuild of everything judges it again
        if logged.time >= since:
            found.add(logged.flow_id)
    return found


def _written_since(servers: str, topic: str, spans: Spans, since: int) -> dict[int, Span]:
    """What of `spans` was written at that time or later, and a little before."""
    consumer = kafka.log_consumer(servers)
    at = max(0, since // 1000 - _CLOCKS_APART_MS)
    try:
        places = consumer.offsets_for_times(
            [kafka.TopicPartition(topic, partition, at) for partition in spans], timeout=10
        )
    except kafka.KafkaException as problem:
        raise AwayError(f"Expected Kafka to answer but {problem.args[0].str()}") from None
    finally:
        consumer.close()
    # a negative offset: nothing was written since
    starts = {place.partition: place.offset for place in places if place.offset >= 0}
    return {p: (max(starts[p], first), end) for p, (first, end) in spans.items() if p in starts}
