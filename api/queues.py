"""The port `Queues` over Kafka: the topics of a queue exist before anybody reads from them or writes to them.

A queue has three: `tasks.QUEUE` and, for the other priorities, `tasks.QUEUE.high` and `tasks.QUEUE.low`.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Collection
from typing import Final

from api.errors import Invalid
from engine.runtime import kafka
from engine.runtime.topics import CONFIGURATION, TASKS, queue_topic

_NAME: Final = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")


def check_name(queue: str) -> None:
    """Raises Invalid."""
    if _NAME.fullmatch(queue) is None:
        raise Invalid(
            f"Expected a queue's name of a-z, 0-9, '.', '_' and '-' (at most 64) but found {queue[:100]!r}",
            slug="invalid-queue",
        )
    if queue.endswith((".high", ".low")):
        raise Invalid(
            f"Expected a queue's name without a priority at its end but found {queue!r}", slug="invalid-queue"
        )


def topics_of(queue: str) -> list[str]:
    """A queue's topics without prefix: high, normal and low priority."""
    return [queue_topic(queue, priority) for priority in ("high", "normal", "low")]


class KafkaQueues:
    """Remembers what it made; a topic deleted behind its back is made again by the next process."""

    def __init__(self, servers: str, prefix: str, partitions: int, replication: int) -> None:
        self._servers, self._prefix = servers, prefix
        self._partitions, self._replication = partitions, replication
        self._admin: kafka.AdminClient | None = None
        self._known: set[str] = set()
        self._lock = threading.Lock()

    def ensure(self, queues: Collection[str]) -> None:
        with self._lock:
            missing = set(queues) - self._known
            if not missing:
                return
            if self._admin is None:
                self._admin = kafka.admin_client(self._servers)
            topics = {
                self._prefix + topic: CONFIGURATION[TASKS]
                for queue in sorted(missing)
                for topic in topics_of(queue)
            }
            kafka.create(self._admin, topics, self._partitions, self._replication, timeout_s=10.0)
            self._known |= missing
