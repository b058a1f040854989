"""Transactions of an import: all of a batch or nothing of it is in the log, and one import runs at a time.

A second import with the same transactional id fences the first, which then ends with an error and loses nothing: it is
run again. Kafka is reached through engine.runtime.kafka only.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Final

import msgspec

from engine.errors import AwayError
from engine.runtime import kafka

_CALL_S: Final = 10.0
_GIVE_UP_S: Final = 60.0


class Outgoing(msgspec.Struct, frozen=True, gc=False):
    """`partition` None: by the key. `time` is Kafka's, in milliseconds."""

    topic: str
    partition: int | None
    key: bytes
    value: bytes | None
    headers: list[tuple[str, str | bytes | None]]
    time: int


class Sender:
    def __init__(self, servers: str, transactional_id: str) -> None:
        self._producer = kafka.transactional_producer(servers, transactional_id)

    def __enter__(self) -> Sender:
        self._until_done(self._producer.init_transactions)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            with contextlib.suppress(kafka.KafkaException):
                self._producer.abort_transaction(_CALL_S)

    def write(self, records: Sequence[Outgoing]) -> None:
        """Writes all of `records` or none. Raises AwayError."""
        if not records:
            return
        try:
            self._producer.begin_transaction()
            for record in records:
                self._producer.produce(
                    record.topic,
                    record.value,
                    record.key,
                    -1 if record.partition is None else record.partition,
                    headers=record.headers,
                    timestamp=max(0, record.time),
                )
        except kafka.KafkaException as problem:
            raise AwayError(f"Expected Kafka to take the records but {problem.args[0].str()}") from None
        self._until_done(self._producer.commit_transaction)

    def _until_done(self, call: Callable[[float], None]) -> None:
        """Retriable: the same call again."""
        end = time.monotonic() + _GIVE_UP_S
        while True:
            try:
                call(_CALL_S)
                return
            except kafka.KafkaException as problem:
                error = problem.args[0]
                if error.code() in (kafka.KafkaError._FENCED, kafka.KafkaError.INVALID_PRODUCER_EPOCH):
                    raise AwayError("Expected one import at a time but another one has begun") from None
                if not error.retriable() or time.monotonic() > end:
                    raise AwayError(f"Expected Kafka to answer but {error.str()}; run it again") from None
