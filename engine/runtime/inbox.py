"""The inbox: events from the world become messages to the correlators and schedules they are for.

A thread of its own in each engine process, a group of its own. At least once: offsets are committed after every message
is acknowledged, and correlators know an event by its source and id. Before a batch is routed the definitions are read to
their end, so that a flow that began to listen before the event came is not missed. What is no event goes to the dead
letters with the reason.
"""

from __future__ import annotations

import threading
import time
from typing import Any, Final

import structlog

from engine.core.entities.routing import Routes, routes
from engine.runtime import cloudevents, kafka, metrics, topics
from schemas.codec import Undecodable, encode_command
from schemas.registry import newest

log = structlog.get_logger("flowtrail.inbox")

_BATCH: Final = 500
_PAUSE_S: Final = 1.0
_ACKNOWLEDGE_S: Final = 30.0


class Inbox:
    """`definitions` is a DefinitionLog; `instance` names this process among the engines."""

    def __init__(self, servers: str, prefix: str, partitions: int, definitions: Any, instance: str) -> None:
        self._servers, self._prefix, self._partitions = servers, prefix, partitions
        self._definitions, self._instance = definitions, instance
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="inbox", daemon=True)
        self._generation = -1
        self._routes = Routes((), ())
        self._headers: list[cloudevents.Header] = [("schema", newest("command").fingerprint)]

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        self._stop.set()
        self._thread.join(10)

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self._follow()
            except Exception as problem:  # what was not acknowledged is read again
                log.warning("inbox interrupted, trying again", problem=f"{type(problem).__name__}: {problem}")
                self._stop.wait(_PAUSE_S)

    def _follow(self) -> None:
        producer = kafka.producer(self._servers, **{"linger.ms": 0})
        consumer = kafka.group_consumer(self._servers, f"{self._prefix}inbox", self._instance)
        consumer.subscribe([self._prefix + topics.INBOX])
        try:
            while not self._stop.is_set():
                first = consumer.poll(0.2)
                if first is None:
                    continue
                messages = [first, *consumer.consume(_BATCH, 0)]
                self._take(producer, messages)
                consumer.commit(asynchronous=True)
        finally:
            consumer.close()

    def _take(self, producer: kafka.Producer, messages: list[kafka.Message]) -> None:
        failed: list[str] = []

        def done(problem: kafka.KafkaError | None, _: kafka.Message) -> None:
            if problem is not None:
                failed.append(problem.str())

        if not self._definitions.catch_up(10):
            raise RuntimeError("Expected the definitions to be readable but they are not")
        for message in messages:
            if (problem := message.error()) is not None:
                if not problem.retriable():
                    raise kafka.KafkaException(problem)
                continue
            self._route(producer, message, done)
        left = producer.flush(_ACKNOWLEDGE_S)
        if left or failed:
            raise RuntimeError(f"Expected every message to be acknowledged but {failed or left}")

    def _route(self, producer: kafka.Producer, message: kafka.Message, done: Any) -> None:
        try:
            event = cloudevents.document_of(message.value(), kafka.headers_of(message))
        except Undecodable as problem:
            self._refuse(producer, message, problem, done)
            return
        metrics.INBOX.labels("event").inc()
        for command in self._known().of(event, time.time_ns() // 1000):
            key = command.flow_id
            producer.produce(
                self._prefix + topics.COMMANDS,
                encode_command(command),
                key.encode(),
                topics.partition_of(key, self._partitions),
                headers=self._headers,
                on_delivery=done,
            )

    def _refuse(
        self, producer: kafka.Producer, message: kafka.Message, problem: Undecodable, done: Any
    ) -> None:
        metrics.INBOX.labels("dead_letter").inc()
        headers = [
            *(message.headers() or ()),
            ("src.topic", (self._prefix + topics.INBOX).encode()),
            ("src.partition", str(message.partition()).encode()),
            ("src.offset", str(message.offset()).encode()),
            ("error.code", problem.code.encode()),
            ("error.message", str(problem)[:1000].encode()),
        ]
        producer.produce(
            self._prefix + topics.DEAD_LETTERS,
            message.value(),
            message.key(),
            headers=headers,
            on_delivery=done,
        )

    def _known(self) -> Routes:
        generation = self._definitions.generation
        if generation != self._generation:
            self._routes = routes(self._definitions.every(), self._definitions.newest())
            self._generation = generation
        return self._routes
