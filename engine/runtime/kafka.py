"""The only module of the server that imports confluent_kafka: clients, and every non-obvious setting with its reason.

Other rooms get their consumers, producers and admin clients here, so that a setting is named once.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Iterator
from typing import Any, Final, cast

from confluent_kafka import (
    OFFSET_BEGINNING,
    Consumer,
    KafkaError,
    KafkaException,
    Message,
    Producer,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient, ConfigResource, NewTopic

from engine.errors import AwayError

__all__ = [
    "OFFSET_BEGINNING",
    "AdminClient",
    "ConfigResource",
    "Consumer",
    "KafkaError",
    "KafkaException",
    "Message",
    "Producer",
    "TopicPartition",
    "admin_client",
    "create",
    "fingerprint_of",
    "group_consumer",
    "headers_of",
    "log_consumer",
    "partition_counts",
    "producer",
    "read_partitions",
    "transactional_producer",
]

log = logging.getLogger("flowtrail.kafka")
log.addHandler(logging.NullHandler())

_COMMON: Final[dict[str, Any]] = {
    "socket.keepalive.enable": True,
    "reconnect.backoff.ms": 50,
    "reconnect.backoff.max.ms": 1000,
    # librdkafka prints to stderr by default; the process's own log gets it instead
    "logger": log,
}


def _bootstrap(servers: str) -> dict[str, Any]:
    return {"bootstrap.servers": servers, **_COMMON}


def admin_client(servers: str) -> AdminClient:
    return AdminClient(_bootstrap(servers))


def producer(servers: str, **settings: Any) -> Producer:
    """An idempotent producer for requests and definitions; partitions like Java (murmur2)."""
    return Producer(
        _bootstrap(servers)
        | {
            "enable.idempotence": True,
            "partitioner": "murmur2_random",
            "linger.ms": 1,
            "message.timeout.ms": 30_000,
        }
        | settings
    )


def transactional_producer(servers: str, transactional_id: str) -> Producer:
    """The one writer of a partition: a second one with the same id fences the first (KIP-98)."""
    return Producer(
        _bootstrap(servers)
        | {
            "transactional.id": transactional_id,
            "partitioner": "murmur2_random",
            "linger.ms": 0,  # commit flushes at once; lingering only adds latency to every transaction
            "transaction.timeout.ms": 10_000,  # a dead owner's open transaction holds readers up this long at most
            "message.timeout.ms": 8_000,  # must be below the transaction's timeout
            "queue.buffering.max.messages": 1_000_000,
            "message.max.bytes": 16 << 20,  # the state topic takes entities that long (topics.py)
            "retry.backoff.ms": 10,  # CONCURRENT_TRANSACTIONS is retried with this
        }
    )


def log_consumer(servers: str, group: str = "flowtrail-reader", **settings: Any) -> Consumer:
    """A consumer of explicitly assigned partitions that sees only committed records and is told of each end."""
    return Consumer(
        _bootstrap(servers)
        | {
            "group.id": group,  # required by the client, never joined: partitions are assigned by hand
            "isolation.level": "read_committed",
            "enable.partition.eof": True,
            "enable.auto.commit": False,
            "auto.offset.reset": "earliest",
            "fetch.wait.max.ms": 20,
            "fetch.queue.backoff.ms": 10,
        }
        | settings
    )


def group_consumer(servers: str, group: str, instance: str) -> Consumer:
    """A member of `group` that commits by hand; static, so that a restart moves no partition."""
    return Consumer(
        _bootstrap(servers)
        | {
            "group.id": group,
            "group.instance.id": instance,
            "isolation.level": "read_committed",
            "enable.auto.commit": False,
            "auto.offset.reset": "earliest",
            "session.timeout.ms": 10_000,
            "fetch.wait.max.ms": 20,
            "partition.assignment.strategy": "cooperative-sticky",
        }
    )


def headers_of(message: Message) -> dict[str, Any]:
    """The record's headers; of a repeated one the last."""
    return dict(cast("list[tuple[str, Any]]", message.headers() or ()))


def fingerprint_of(message: Message) -> bytes | None:
    """The record's `schema` header: the CRC-64-AVRO fingerprint of its writer's schema."""
    found = headers_of(message).get("schema")
    return found if isinstance(found, bytes) else None


def read_partitions(
    consumer: Consumer, starts: Iterable[TopicPartition], deadline_s: float = 60.0
) -> Iterator[Message]:
    """Every committed record from `starts` to the ends as they are met. Raises AwayError after `deadline_s` without one.

    The log ends with transaction markers, so only the end-of-partition signal tells that everything was read.
    """
    waiting = {(start.topic, start.partition) for start in starts}
    consumer.assign(list(starts))
    silent_since = time.monotonic()
    while waiting:
        first = consumer.poll(0.1)
        messages = [] if first is None else [first, *consumer.consume(5000, 0)]
        if not messages and time.monotonic() - silent_since > deadline_s:
            raise AwayError(
                f"Expected Kafka to answer within {deadline_s:.0f} s but {len(waiting)} partitions are silent"
            )
        for message in messages:
            silent_since = time.monotonic()
            problem = message.error()
            if problem is None:
                yield message
            elif problem.code() == KafkaError._PARTITION_EOF:
                waiting.discard((message.topic(), message.partition()))
            elif not problem.retriable() and problem.code() != KafkaError._ALL_BROKERS_DOWN:
                raise AwayError(f"Expected to read {message.topic()} but {problem.str()}")


def partition_counts(admin: AdminClient, timeout_s: float = 10.0) -> dict[str, int]:
    """Topic -> number of partitions. Raises AwayError when no broker answers."""
    try:
        found = admin.list_topics(timeout=timeout_s)
    except KafkaException as problem:
        raise AwayError(f"Expected Kafka to answer but {problem.args[0].str()}") from None
    return {name: len(topic.partitions) for name, topic in found.topics.items() if topic.error is None}


def create(
    admin: AdminClient,
    topics: dict[str, dict[str, str]],
    partitions: int,
    replication: int,
    timeout_s: float = 30.0,
) -> None:
    """Creates `topics` (name -> configuration); one that exists already is fine."""
    if not topics:
        return
    wanted = [NewTopic(name, partitions, replication, config=config) for name, config in topics.items()]
    for name, future in admin.create_topics(wanted, operation_timeout=timeout_s).items():
        try:
            future.result(timeout_s)
        except KafkaException as problem:
            if problem.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                raise AwayError(f"Expected to create topic {name} but {problem.args[0].str()}") from None
