"""The worker's Kafka clients; every non-obvious setting is named here once, with its reason."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any, Final

from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient

from flowtrail.errors import Unreachable

log: Final = logging.getLogger("flowtrail.kafka")


class _Seldom(logging.Filter):
    """librdkafka repeats itself many times a second while a broker is away; one line of a kind in 10 s will do."""

    def __init__(self) -> None:
        super().__init__()
        self._last: dict[str, float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        kind = record.getMessage()[:40]  # facility and client, before the text that varies
        now = time.monotonic()
        if now - self._last.get(kind, float("-inf")) < 10:
            return False
        self._last[kind] = now
        return True


log.addFilter(_Seldom())

_COMMON: Final[dict[str, Any]] = {
    "socket.keepalive.enable": True,
    "reconnect.backoff.ms": 50,
    "reconnect.backoff.max.ms": 1000,
    "log_level": 4,  # warnings and worse; below are protocol details
    "logger": log,  # librdkafka prints to stderr by default
}


def producer_of(servers: str) -> Producer:
    return Producer(
        _COMMON
        | {
            "bootstrap.servers": servers,
            "enable.idempotence": True,
            "partitioner": "murmur2_random",  # as Java does it: partition p of every topic holds the same flows
            "linger.ms": 0,  # a lone result must not wait; under load batches form by themselves
            "message.timeout.ms": 0,  # for ever: a result is kept until the broker is back
        }
    )


def consumer_of(
    servers: str,
    group: str,
    instance: str | None,
    on_commit: Callable[[KafkaError | None, list[TopicPartition]], None],
) -> Consumer:
    settings = _COMMON | {
        "bootstrap.servers": servers,
        "group.id": group,
        "isolation.level": "read_committed",  # a task of an aborted transaction was never handed out
        "enable.auto.commit": False,
        "auto.offset.reset": "earliest",
        "partition.assignment.strategy": "cooperative-sticky",  # only partitions that move are interrupted
        "session.timeout.ms": 10_000,
        "heartbeat.interval.ms": 1_000,
        "fetch.wait.max.ms": 10,
        "fetch.queue.backoff.ms": 10,  # 1000 by default: what a full local queue would add to a task's latency
        "queued.max.messages.kbytes": 16_384,
        "on_commit": on_commit,
    }
    if instance is not None:
        # Static membership: a restart within the session keeps its partitions without a rebalance.
        settings["group.instance.id"] = instance
    return Consumer(settings)


def tail_of(servers: str, group: str) -> Consumer:
    """A consumer that is given its partitions by hand. Kafka wants a group's name; nothing is ever committed in it."""
    return Consumer(
        _COMMON
        | {
            "bootstrap.servers": servers,
            "group.id": group,
            "isolation.level": "read_committed",
            "enable.auto.commit": False,
            "auto.offset.reset": "latest",
            "fetch.wait.max.ms": 500,
        }
    )


def see_topic(servers: str, topic: str, timeout_s: float = 5.0) -> bool:
    """True once Kafka answers and knows `topic`. Raises Unreachable."""
    admin = AdminClient(_COMMON | {"bootstrap.servers": servers})
    try:
        found = admin.list_topics(topic, timeout=timeout_s).topics[topic]
    except KafkaException as problem:
        raise Unreachable(f"Expected Kafka at {servers} to answer but {problem.args[0].str()}") from None
    if found.error is not None:
        raise Unreachable(f"Expected topic {topic} to exist but {found.error.str()}")
    return True
