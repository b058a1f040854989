"""Every node's copy of the `definitions` topic, compiled.

A thread reads the topic from its beginning and goes on. `catch_up` answers "has everything that was acknowledged
before this call been read?", so that a flow of a definition published a moment ago is not refused. A version, once
read, never changes: a second record of the same version with other content is ignored and logged.
"""

from __future__ import annotations

import threading
import time
from typing import Any

import orjson
import structlog

from engine.dsl.compile import compile_definition
from engine.dsl.errors import DefinitionError
from engine.dsl.model import Definition
from engine.errors import AwayError
from engine.runtime import kafka
from engine.runtime.topics import DEFINITIONS
from schemas import messages as m
from schemas.codec import Undecodable, decode_definition

log = structlog.get_logger("flowtrail.definitions")


def version_key(version: str) -> tuple[Any, ...]:
    """Sorts by semantic version precedence (semver 2.0, item 11)."""
    core, _, rest = version.partition("+")[0].partition("-")
    numbers = tuple(int(part) for part in core.split("."))
    marks = tuple((0, int(p), "") if p.isdigit() else (1, 0, p) for p in rest.split(".")) if rest else ()
    return (*numbers, 0 if marks else 1, marks)


class DefinitionLog:
    """The published definitions. Thread-safe; `find` is a dictionary look-up; `generation` counts what was added."""

    def __init__(self, servers: str, prefix: str, *, sandbox: Any = None) -> None:
        self._servers = servers
        self._topic = prefix + DEFINITIONS
        self._sandbox = sandbox
        self._compiled: dict[str, Definition] = {}
        self._published: dict[str, m.PublishedDefinition] = {}
        self._newest: dict[str, str] = {}
        self.generation = 0
        self._positions: dict[int, int] = {}
        self._moved = threading.Condition()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._watermarks: kafka.Consumer | None = None
        self._asking = threading.Lock()

    def start(self) -> None:
        self._thread = threading.Thread(target=self._run, name="definitions", daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join(10)

    def find(self, reference: str) -> Definition | None:
        """By `namespace/name@version`, or by `namespace/name` the newest version."""
        found = self._compiled.get(reference)
        if found is None and (newest := self._newest.get(reference)) is not None:
            found = self._compiled.get(newest)
        return found

    def published(self, definition_id: str) -> m.PublishedDefinition | None:
        return self._published.get(definition_id)

    def every(self) -> list[Definition]:
        """Every version, compiled."""
        with self._moved:
            return list(self._compiled.values())

    def newest(self) -> list[Definition]:
        """The newest version of each name, compiled."""
        with self._moved:
            return [self._compiled[found] for found in self._newest.values()]

    def all(self) -> list[m.PublishedDefinition]:
        """Every version, sorted by name, then by version."""
        with self._moved:
            found = list(self._published.values())
        return sorted(
            found, key=lambda d: (d.definition.split("@")[0], version_key(d.definition.split("@")[1]))
        )

    def queues(self) -> set[str]:
        """Every queue that a definition hands tasks to."""
        with self._moved:
            compiled = list(self._compiled.values())
        return {
            queue
            for d in compiled
            for t in d.tasks.values()
            if isinstance(queue := getattr(t, "queue", None), str)
        }

    def catch_up(self, timeout_s: float = 10.0) -> bool:
        """Waits until everything acknowledged before this call was read; False when that took too long."""
        end = time.monotonic() + timeout_s
        try:
            wanted = self._ends(timeout_s)
        except kafka.KafkaException:
            return False
        with self._moved:
            return self._moved.wait_for(
                lambda: all(self._positions.get(p, -1) >= offset for p, offset in wanted.items()),
                max(0.0, end - time.monotonic()),
            )

    def _ends(self, timeout_s: float) -> dict[int, int]:
        with self._asking:
            if self._watermarks is None:
                self._watermarks = kafka.log_consumer(self._servers)
            partitions = list(
                self._watermarks.list_topics(self._topic, timeout=timeout_s).topics[self._topic].partitions
            )
            return {
                p: self._watermarks.get_watermark_offsets(
                    kafka.TopicPartition(self._topic, p), timeout=timeout_s
                )[1]
                for p in partitions
            }

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self._follow()
            except Exception as problem:  # Kafka away: say so and try again, nothing is lost
                log.warning("definitions unreadable, retrying", problem=str(problem))
                self._stop.wait(1.0)

    def _follow(self) -> None:
        consumer = kafka.log_consumer(self._servers)
        try:
            found = consumer.list_topics(self._topic, timeout=10).topics[self._topic]
            if found.error is not None:
                raise RuntimeError(f"Expected topic {self._topic} to exist but {found.error}")
            consumer.assign(
                [kafka.TopicPartition(self._topic, p, kafka.OFFSET_BEGINNING) for p in found.partitions]
            )
            while not self._stop.is_set():
                message = consumer.poll(0.5)
                if message is not None:
                    self._see(message)
        finally:
            consumer.close()

    def _see(self, message: kafka.Message) -> None:
        partition, offset = message.partition() or 0, message.offset() or 0
        problem = message.error()
        if problem is not None:
            if problem.code() != kafka.KafkaError._PARTITION_EOF:
                return
        else:
            if (value := message.value()) is not None:
                self._add(value, kafka.fingerprint_of(message))
            offset += 1
        with self._moved:
            self._positions[partition] = max(offset, self._positions.get(partition, -1))
            self._moved.notify_all()

    def _add(self, value: bytes, fingerprint: bytes | None) -> None:
        try:
            record = decode_definition(value, fingerprint)
            compiled = compile_definition(orjson.loads(record.document), sandbox=self._sandbox)
        except (Undecodable, DefinitionError, orjson.JSONDecodeError) as problem:
            log.error("unusable definition ignored", problem=str(problem))
            return
        known = self._compiled.get(compiled.id)
        if known is not None:
            if known.hash != compiled.hash:
                log.error(
                    "a published version was published again with other content; ignored",
                    definition=compiled.id,
                )
            return
        with self._moved:
            self._published[compiled.id] = record
            self._compiled[compiled.id] = compiled
            name = compiled.id.split("@")[0]
            newest = self._newest.get(name)
            if newest is None or version_key(newest.split("@")[1]) < version_key(compiled.version):
                self._newest[name] = compiled.id
            self.generation += 1


def read_definitions(servers: str, prefix: str, sandbox: Any = None) -> DefinitionLog:
    """Every definition published so far; nothing is followed any more. Raises AwayError."""
    definitions = DefinitionLog(servers, prefix, sandbox=sandbox)
    definitions.start()
    try:
        if not definitions.catch_up(30):
            raise AwayError(f"Expected to read {prefix}{DEFINITIONS} within 30 s but Kafka is slow or away")
    finally:
        definitions.close()
    return definitions
