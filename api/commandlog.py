"""The port `Log` over Kafka: one idempotent producer, acknowledgements as futures.

A thread waits in `poll`, which returns the moment an acknowledgement arrives; those of one wake-up go to the event
loop together. No request flushes. A producer that broke for good (a fatal error) is replaced by the same thread.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from functools import partial
from typing import Final

import structlog

from api.metrics import PRODUCE_FAILURES, PRODUCED
from engine.errors import AwayError
from engine.runtime import kafka
from engine.runtime.topics import COMMANDS

log = structlog.get_logger("flowtrail.api")

ACKNOWLEDGED_WITHIN_MS: Final = 8_000
_SETTINGS: Final = {
    "linger.ms": 0,  # a start answers in a few ms; under load batches form behind the requests in flight
    "message.timeout.ms": ACKNOWLEDGED_WITHIN_MS,  # a caller gets its 503 before its own patience ends
}
_Place = tuple[int, int]
_Done = tuple["asyncio.Future[_Place]", _Place | AwayError]


class KafkaLog:
    """Start and close it in the event loop's thread. Needs no Kafka to start."""

    def __init__(self, servers: str, prefix: str) -> None:
        self._servers, self._prefix = servers, prefix
        self._producer: kafka.Producer | None = None
        self._broken = threading.Event()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._done: deque[_Done] = deque()
        self._loop: asyncio.AbstractEventLoop | None = None

    def start(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._producer = kafka.producer(self._servers, **_SETTINGS)
        self._thread = threading.Thread(target=self._run, name="acknowledgements", daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join(ACKNOWLEDGED_WITHIN_MS / 1000)

    async def send(
        self, topic: str, key: str, value: bytes | None, headers: list[tuple[str, bytes]]
    ) -> tuple[int, int]:
        assert self._loop is not None
        assert self._producer is not None
        future: asyncio.Future[_Place] = self._loop.create_future()
        try:
            self._producer.produce(
                self._prefix + topic,
                value,
                key,
                headers=list(headers),
                on_delivery=partial(self._delivered, future),
            )
        except (kafka.KafkaException, BufferError) as problem:
            PRODUCE_FAILURES.labels(topic).inc()
            raise AwayError(f"Expected Kafka to take a record of {topic} but {problem}") from None
        try:
            place = await future
        except AwayError:
            PRODUCE_FAILURES.labels(topic).inc()
            raise
        PRODUCED.labels(topic).inc()
        return place

    def check(self, timeout_s: float) -> None:
        assert self._producer is not None
        topic = self._prefix + COMMANDS
        try:
            found = self._producer.list_topics(topic, timeout=timeout_s).topics[topic]
        except kafka.KafkaException as problem:
            raise AwayError(f"Expected Kafka to answer but {problem.args[0].str()}") from None
        if found.error is not None:
            raise AwayError(f"Expected topic {topic} but {found.error.str()}; run: flowtrail admin init")

    # -- the thread ---------------------------------------------------------------------------------------------

    def _run(self) -> None:
        producer = self._producer
        assert producer is not None
        while not self._stop.is_set():
            producer.poll(0.2)
            self._hand_over()
            if self._broken.is_set():
                log.error("the producer broke, replacing it")
                self._producer = kafka.producer(self._servers, **_SETTINGS)
                producer.purge()
                producer.poll(0)  # what it still held is reported as not acknowledged
                self._hand_over()
                producer = self._producer
                self._broken.clear()
        producer.flush(2.0)
        self._hand_over()

    def _delivered(
        self, future: asyncio.Future[_Place], problem: kafka.KafkaError | None, message: kafka.Message
    ) -> None:
        if problem is None:
            self._done.append((future, (message.partition() or 0, message.offset() or 0)))
            return
        if problem.fatal():
            self._broken.set()
        text = (
            f"Expected Kafka to acknowledge within {ACKNOWLEDGED_WITHIN_MS} ms but {problem.str()}; "
            "it may arrive yet: repeat the request with the same Idempotency-Key"
        )
        self._done.append((future, AwayError(text)))

    def _hand_over(self) -> None:
        if self._done and self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._resolve)

    def _resolve(self) -> None:
        while self._done:
            future, result = self._done.popleft()
            if future.done():
                continue  # the caller went away
            if isinstance(result, AwayError):
                future.set_exception(result)
            else:
                future.set_result(result)
