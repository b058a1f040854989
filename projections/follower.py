"""The log as the projector reads it: batches of committed records from given positions on, and where the log ends.

Positions come from Postgres and only from there. A position that the log does not hold (the topic was made anew, or
cut) is an error that stops the projector: starting again by itself would write everything twice.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import structlog

from engine.errors import AwayError, FlowtrailError
from engine.runtime import kafka
from projections.logged import Record

log = structlog.get_logger("flowtrail.projections")

RECORDS_MAX: Final = 5000
_END: Final = kafka.KafkaError._PARTITION_EOF
_LOST: Final = {
    kafka.KafkaError._AUTO_OFFSET_RESET,
    kafka.KafkaError._LOG_TRUNCATION,
    kafka.KafkaError.OFFSET_OUT_OF_RANGE,
}

Positions = Callable[[list[int]], dict[int, int]]


class Follower:
    """All partitions of `topic`; or, with `instance`, those that the consumer group gives to this static member.

    `positions` is asked for the start of every partition, whenever partitions are assigned.
    """

    def __init__(self, servers: str, topic: str, instance: str | None, positions: Positions) -> None:
        self.topic = topic
        self._positions = positions
        self._grouped = instance is not None
        self._silent = False  # a complaint about Kafka was logged and nothing came since
        self.assigned: dict[int, int] = {}  # partition -> next offset
        self.ends: dict[int, int] = {}  # partition -> offset at which the end of the log was met
        settings: dict[str, Any] = {
            "error_cb": self._complain,
            "auto.offset.reset": "error",  # see above: never start from the beginning by itself
            "queued.max.messages.kbytes": 32_768,
        }
        if instance is not None:
            settings |= {
                "group.instance.id": instance,  # static: a restart within the session time moves no partition
                "session.timeout.ms": 10_000,
                "heartbeat.interval.ms": 1_000,
                "partition.assignment.strategy": "range",
            }
        self._consumer = kafka.log_consumer(servers, f"{topic}-projections", **settings)

    def close(self) -> None:
        self._consumer.close()

    def start(self) -> None:
        """Raises AwayError when Kafka does not answer or the topic is missing."""
        try:
            found = self._consumer.list_topics(self.topic, timeout=5).topics[self.topic]
        except kafka.KafkaException as problem:
            raise AwayError(f"Expected Kafka to answer but {problem.args[0].str()}") from None
        if found.error is not None or not found.partitions:
            raise AwayError(
                f"Expected topic {self.topic} to exist but it does not; run: flowtrail admin init"
            )
        if self._grouped:
            self._consumer.subscribe([self.topic], on_assign=self._on_assign, on_revoke=self._on_revoke)
        else:
            self._begin(list(found.partitions))

    def reposition(self) -> None:
        """Goes back, or on, to where Postgres says the read models stand."""
        self._begin(list(self.assigned))

    def poll(self, timeout_s: float) -> list[Record]:
        """What there is, at most RECORDS_MAX; waits at most `timeout_s` for the first record.

        Takes one message by `poll` and drains by `consume(n, 0)`: `consume(n, t)` would wait out its whole time.
        """
        first = self._consumer.poll(timeout_s)
        if first is None:
            return []
        if self._silent and ((problem := first.error()) is None or problem.code() == _END):
            self._silent = False
            log.info("kafka answers again")
        messages = [first, *self._consumer.consume(RECORDS_MAX - 1, 0)]
        records = []
        for message in messages:
            if message.error() is not None:
                self._signal(message)
                continue
            offset, partition = message.offset(), message.partition()
            assert offset is not None
            assert partition is not None
            records.append(
                Record(partition, offset, message.key(), message.value(), kafka.fingerprint_of(message))
            )
        return records

    def moved(self, partition: int, next_offset: int) -> None:
        self.assigned[partition] = next_offset

    def behind(self, partition: int) -> int:
        """How many offsets are known to follow the position (markers of transactions included)."""
        position = self.assigned[partition]
        if self.ends.get(partition, -1) >= position:
            return 0
        place = kafka.TopicPartition(self.topic, partition)
        _, high = self._consumer.get_watermark_offsets(place, cached=True)
        return max(0, int(high) - position)

    def _begin(self, partitions: list[int]) -> None:
        self.assigned = self._positions(partitions)
        self.ends.clear()
        self._consumer.assign(
            [kafka.TopicPartition(self.topic, partition, at) for partition, at in self.assigned.items()]
        )
        log.info("following the log", topic=self.topic, positions=self.assigned)

    def _on_assign(self, consumer: kafka.Consumer, partitions: list[kafka.TopicPartition]) -> None:
        self._begin([place.partition for place in partitions])

    def _on_revoke(self, consumer: kafka.Consumer, partitions: list[kafka.TopicPartition]) -> None:
        self.assigned = {}
        self.ends.clear()
        consumer.unassign()

    def _signal(self, message: kafka.Message) -> None:
        problem, partition = message.error(), message.partition()
        assert problem is not None
        if problem.code() == _END:
            offset = message.offset()
            if partition in self.assigned and offset is not None:
                self.ends[partition] = offset
        elif problem.code() in _LOST:
            at = self.assigned.get(partition if partition is not None else -1)
            raise FlowtrailError(
                f"Expected {self.topic}[{partition}] to hold offset {at}, where the read models stand, but the log was "
                f"cut or made anew ({problem.str()}): rebuild the read models from an empty database"
            )
        elif problem.fatal() or problem.code() == kafka.KafkaError._FATAL:
            raise AwayError(f"Expected to read {self.topic} but {problem.str()}")
        else:
            self._complain(problem)

    def _complain(self, problem: kafka.KafkaError) -> None:
        """The client reconnects by itself; one line tells of it until something comes again."""
        if not self._silent:
            self._silent = True
            log.warning("kafka is away, waiting for it", problem=problem.str())
