"""Names, partitions and creation of the topics (docs/architecture.md, Topics).

All topics are partitioned by flow id with Kafka's murmur2 partitioner and have the same number of partitions, so that
partition p of one is partition p of all. `partition_of` is that partitioner in Python (Kafka's `Utils.murmur2`).
"""

from __future__ import annotations

from typing import Final

from engine.errors import AwayError, InputError
from engine.runtime import kafka

COMMANDS: Final = "commands"
EVENTS: Final = "events"
STATE: Final = "state"
DEFINITIONS: Final = "definitions"
DEAD_LETTERS: Final = "commands.dlq"
TASKS: Final = "tasks."
INBOX: Final = "inbox"
OUTBOX: Final = "outbox"
CANCELLATIONS: Final = "cancellations"
PRIORITIES: Final = {"normal": "", "high": ".high", "low": ".low"}
"""Priority of a task -> what the name of its queue's topic ends with."""

_DAYS: Final = 24 * 3600 * 1000
_FOR_EVER: Final = {"cleanup.policy": "delete", "retention.ms": "-1", "retention.bytes": "-1"}
_A_WEEK: Final = {"cleanup.policy": "delete", "retention.ms": str(7 * _DAYS)}
_A_DAY: Final = {"cleanup.policy": "delete", "retention.ms": str(_DAYS)}
RECORD_BYTES_MAX: Final = 16 << 20
"""Of the state topic: a correlator with very many subscriptions is one record."""
_COMPACTED: Final = {"cleanup.policy": "compact"}

CONFIGURATION: Final[dict[str, dict[str, str]]] = {
    COMMANDS: _A_WEEK,
    EVENTS: _FOR_EVER,
    STATE: _COMPACTED
    | {"segment.ms": str(3600 * 1000), "min.cleanable.dirty.ratio": "0.2"}
    | {"max.message.bytes": str(RECORD_BYTES_MAX)},
    DEFINITIONS: _COMPACTED,
    DEAD_LETTERS: _FOR_EVER,
    INBOX: _A_WEEK,
    OUTBOX: _A_WEEK,
    CANCELLATIONS: _A_DAY,
    TASKS: _A_WEEK,
}
"""Topic (without prefix) -> its configuration. `tasks.` stands for every queue."""

_MASK: Final = 0xFFFFFFFF


def queue_topic(queue: str, priority: str = "normal") -> str:
    return TASKS + queue + PRIORITIES[priority]


def murmur2(data: bytes) -> int:
    """Kafka's 32-bit murmur2 of `data`, unsigned."""
    length = len(data)
    h = (0x9747B28C ^ length) & _MASK
    whole = length & ~3
    for i in range(0, whole, 4):
        k = int.from_bytes(data[i : i + 4], "little")
        k = (k * 0x5BD1E995) & _MASK
        k ^= k >> 24
        k = (k * 0x5BD1E995) & _MASK
        h = ((h * 0x5BD1E995) & _MASK) ^ k
    rest = data[whole:]
    if rest:
        h ^= int.from_bytes(rest, "little")
        h = (h * 0x5BD1E995) & _MASK
    h ^= h >> 13
    h = (h * 0x5BD1E995) & _MASK
    return h ^ (h >> 15)


def partition_of(flow_id: str, partitions: int) -> int:
    return (murmur2(flow_id.encode()) & 0x7FFFFFFF) % partitions


def create_topics(
    admin: kafka.AdminClient,
    prefix: str,
    partitions: int,
    replication: int,
    queues: tuple[str, ...] = ("default",),
) -> list[str]:
    """Creates what is missing; returns the names created.

    Raises InputError when an existing topic has another number of partitions, AwayError when Kafka does not answer.
    """
    wanted = {name: CONFIGURATION[name] for name in CONFIGURATION if name != TASKS}
    wanted |= {queue_topic(queue): CONFIGURATION[TASKS] for queue in queues}
    found = kafka.partition_counts(admin)
    for name in wanted:
        count = found.get(prefix + name)
        if count is not None and count != partitions:
            raise InputError(
                f"Expected topic {prefix}{name} to have {partitions} partitions but it has {count}"
            )
    missing = {prefix + name: config for name, config in wanted.items() if prefix + name not in found}
    kafka.create(admin, missing, partitions, replication)
    return sorted(missing)


def check_topics(admin: kafka.AdminClient, prefix: str, partitions: int) -> None:
    """Raises AwayError when a topic is missing, InputError when one has another number of partitions."""
    found = kafka.partition_counts(admin)
    for name in CONFIGURATION:
        if name == TASKS:
            continue
        count = found.get(prefix + name)
        if count is None:
            raise AwayError(
                f"Expected topic {prefix}{name} to exist but it does not; run: flowtrail admin init"
            )
        if count != partitions:
            raise InputError(
                f"Expected topic {prefix}{name} to have {partitions} partitions but it has {count}"
            )


class Queues:
    """The queues' topics that are known to exist.

    Publishing creates them; a task for a topic that is gone would hold up its whole partition, so the engine makes
    sure once a queue and process. Thread-safe: creating twice is harmless.
    """

    def __init__(self, servers: str, prefix: str, partitions: int, replication: int) -> None:
        self._servers, self._prefix = servers, prefix
        self._partitions, self._replication = partitions, replication
        self._known: set[str] = set()

    def ensure(self, wanted_topics: set[str]) -> None:
        """Creates what is missing of `wanted_topics` (as `queue_topic` names them). Raises AwayError when Kafka does not answer."""
        missing = wanted_topics - self._known
        if missing:
            wanted = {self._prefix + name: CONFIGURATION[TASKS] for name in missing}
            kafka.create(kafka.admin_client(self._servers), wanted, self._partitions, self._replication)
            self._known |= missing
