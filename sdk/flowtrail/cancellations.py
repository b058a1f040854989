"""Reads the topic of cancelled tasks from its end, for as long as a worker runs, in a thread of its own.

Every worker reads all of it: there is no group, nothing is committed, and what was cancelled before the worker started
is refused by the engine anyway. A record that is none of ours, or a broker that is away, never disturbs the worker.
"""

from __future__ import annotations

import logging
import threading
import uuid
from collections.abc import Callable
from typing import Final

from confluent_kafka import OFFSET_END, Consumer, KafkaException, TopicPartition

from flowtrail.errors import ApiError, Unreachable
from flowtrail.kafka import tail_of
from flowtrail.wire import Cancellation, Unreadable, Wire

log: Final = logging.getLogger("flowtrail.worker")

_POLL_S: Final = 0.2
_LIST_S: Final = 5.0
_AGAIN_S: Final = 2.0


class Cancellations:
    """`heed` is called with each cancellation of `queue`, in this object's thread."""

    def __init__(self, wire: Wire, queue: str, heed: Callable[[Cancellation], object]) -> None:
        self._wire, self._queue, self._heed = wire, queue, heed
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self.listening = threading.Event()
        """Set once the end of the topic was found: what is cancelled from then on is seen."""

    def start(self) -> None:
        if self._wire.cancellations_topic is None:
            return  # a server that cancels no task
        self._thread = threading.Thread(target=self._run, name="flowtrail-cancellations", daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join(5)

    def _run(self) -> None:
        topic = self._wire.cancellations_topic
        assert topic is not None
        consumer = tail_of(self._wire.kafka, f"flowtrail-cancellations-{uuid.uuid4().hex}")
        try:
            while not self._stop.is_set() and not self._assigned(consumer, topic):
                self._stop.wait(_AGAIN_S)
            while not self._stop.is_set():
                self._turn(consumer)
        finally:
            consumer.close()

    def _assigned(self, consumer: Consumer, topic: str) -> bool:
        """Stands at the end of every partition. The ends are asked for, so that none is decided later."""
        try:
            found = consumer.list_topics(topic, timeout=_LIST_S).topics[topic]
            if found.error is not None:
                log.warning(
                    "Expected topic %s but %s; tasks cannot be cancelled yet", topic, found.error.str()
                )
                return False
            ends = []
            for partition in found.partitions:
                place = TopicPartition(topic, partition, OFFSET_END)
                _, place.offset = consumer.get_watermark_offsets(place, timeout=_LIST_S)
                ends.append(place)
            consumer.assign(ends)
        except KafkaException as problem:
            log.warning("Expected Kafka to tell the end of %s but %s", topic, problem.args[0].str())
            return False
        self.listening.set()
        return True

    def _turn(self, consumer: Consumer) -> None:
        message = consumer.poll(_POLL_S)
        if message is None:
            return
        if (problem := message.error()) is not None:
            log.debug("while reading cancellations: %s", problem)
            return
        try:
            cancelled = self._wire.read_cancellation(message.value(), message.headers())  # type: ignore[arg-type]
        except (Unreadable, ApiError, Unreachable) as unread:
            log.warning("a cancellation was passed over: %s", unread)
            return
        if cancelled.queue == self._queue:
            self._heed(cancelled)
