"""One partition's transactional producer: the only writer of its partition of every topic but the shared ones.

Commands for other flows and events for the world go to the partition of their key, in the same transaction.

Every call blocks and is made in the partition's own thread. `transactional.id` is the application and the partition,
nothing else, so a new owner's `init_transactions` fences the old one and ends its open transaction (KIP-98); the
position is written inside the transaction, so offsets need no part in it (reference: Kafka Streams' EOS, KIP-129).
After `ProducerLost` the producer is finished: drop it, prove membership, reload.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable
from itertools import chain
from typing import Final

import structlog

from engine.runtime import kafka
from engine.runtime.records import Produce, partition_for

log = structlog.get_logger("flowtrail.writer")

_CALL_S: Final = 10.0
_GIVE_UP_S: Final = 30.0


class ProducerLost(Exception):
    """This producer can write no more. `reason`: open, read, away, fenced, abort, fatal, uncertain, gap."""

    def __init__(self, reason: str, text: str) -> None:
        super().__init__(f"{reason}: {text}")
        self.reason = reason


class Writer:
    """Opens, writes transactions, closes. `prefix` is the topics' prefix, `partitions` how many each topic has."""

    def __init__(self, servers: str, prefix: str, partition: int, partitions: int) -> None:
        self._servers = servers
        self._prefix = prefix
        self._partition = partition
        self._partitions = partitions
        self._producer: kafka.Producer | None = None

    def open(self) -> None:
        """Fences whoever wrote this partition before. Raises ProducerLost."""
        self._producer = kafka.transactional_producer(
            self._servers, f"{self._prefix}engine-{self._partition}"
        )
        end = time.monotonic() + _GIVE_UP_S
        while True:
            try:
                self._producer.init_transactions(_CALL_S)
                return
            except kafka.KafkaException as problem:
                error = problem.args[0]
                if not error.retriable() or time.monotonic() > end:
                    raise ProducerLost("open", error.str()) from None

    def write(self, records: Iterable[Produce]) -> None:
        """Writes all of `records` or none. Raises ProducerLost, also when it is not known which.

        A record is made when its turn comes and gone when the client has it: a list of a whole batch's would grow old in
        the garbage collector, and each of its full collections costs more than a batch.
        """
        producer, coming = self._producer, iter(records)
        assert producer is not None
        if (first := next(coming, None)) is None:
            return
        # Step 1: begin; nothing was sent yet, a failure here leaves nothing behind
        # Step 2: hand everything to the client; its queue is large enough for a batch
        # Step 3: commit: the client flushes first, then asks the coordinator
        try:
            producer.begin_transaction()
            produce, prefix = producer.produce, self._prefix
            own, partitions = self._partition, self._partitions
            for topic, key, value, headers in chain((first,), coming):
                produce(
                    prefix + topic, value, key, partition_for(topic, key, own, partitions), headers=headers
                )
            self._commit(producer)
        except kafka.KafkaException as problem:
            raise self._lost(producer, problem.args[0]) from None
        except BufferError as problem:
            raise ProducerLost("abort", str(problem)) from None

    def _commit(self, producer: kafka.Producer) -> None:
        end = time.monotonic() + _GIVE_UP_S
        while True:
            try:
                producer.commit_transaction(_CALL_S)
                return
            except kafka.KafkaException as problem:
                if not problem.args[0].retriable() or time.monotonic() > end:
                    raise

    def _lost(self, producer: kafka.Producer, error: kafka.KafkaError) -> ProducerLost:
        if error.code() in (kafka.KafkaError._FENCED, kafka.KafkaError.INVALID_PRODUCER_EPOCH):
            return ProducerLost("fenced", error.str())
        if error.txn_requires_abort():
            with contextlib.suppress(kafka.KafkaException):
                producer.abort_transaction(_CALL_S)
            return ProducerLost("abort", error.str())
        return ProducerLost("fatal" if error.fatal() else "uncertain", error.str())

    def close(self) -> None:
        """Never raises: a fenced producer complains when it is closed, and that changes nothing."""
        producer, self._producer = self._producer, None
        if producer is not None:
            try:
                producer.close()
            except Exception as problem:
                log.info("closing a lost producer", partition=self._partition, problem=str(problem))
