"""Writes an events topic as an engine does, and runs a projector on it, for the tests of projections."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import psycopg

from engine.runtime import kafka
from engine.runtime.topics import CONFIGURATION, EVENTS
from projections.logged import Record
from projections.projector import Projector
from schemas.registry import newest
from tests.unit.projection_events import Trail

PARTITIONS = 4


class EventLog:
    """The events topic of `prefix`, written in transactions."""

    def __init__(self, servers: str, prefix: str) -> None:
        self.topic = prefix + EVENTS
        kafka.create(kafka.admin_client(servers), {self.topic: CONFIGURATION[EVENTS]}, PARTITIONS, 1)
        self._producer = kafka.transactional_producer(servers, f"test-{uuid.uuid4().hex}")
        self._producer.init_transactions(30)
        self._readers = (
            kafka.log_consumer(servers, "test"),
            kafka.log_consumer(servers, "test", **{"isolation.level": "read_uncommitted"}),
        )

    def commit(self, *trails: Trail) -> None:
        """Writes what the trails have gathered, in one transaction, and empties them."""
        for trail in trails:
            self._begin(trail.records())
            trail.logged.clear()
        self._end(self._producer.commit_transaction)

    def commit_records(self, records: Iterable[Record]) -> None:
        self._begin(records)
        self._end(self._producer.commit_transaction)

    def abort(self, *trails: Trail) -> None:
        for trail in trails:
            self._begin(trail.records())
        self._producer.flush(10)  # so that the aborted records are in the log
        self._end(self._producer.abort_transaction)

    _open = False

    def _begin(self, records: Iterable[Record]) -> None:
        if not self._open:
            self._producer.begin_transaction()
            self._open = True
        for record in records:
            self._producer.produce(
                self.topic,
                value=record.value,
                key=record.key,
                partition=record.partition,
                headers=[("schema", record.fingerprint or newest("event").fingerprint)],
            )

    def _end(self, end: Callable[[float], None]) -> None:
        if self._open:
            end(30)
            until(self._is_visible)
        self._open = False

    def _is_visible(self) -> bool:
        """The broker answers a commit before it has written its markers: until then readers do not see all of it."""
        committed, everything = (
            [
                reader.get_watermark_offsets(kafka.TopicPartition(self.topic, p), timeout=10)
                for p in range(PARTITIONS)
            ]
            for reader in self._readers
        )
        return committed == everything


def until(condition: Callable[[], Any], deadline_s: float = 30.0) -> Any:
    """What `condition` returns once it is true. Fails after `deadline_s`."""
    end = time.monotonic() + deadline_s
    while not (found := condition()):
        assert time.monotonic() < end, "the condition did not come true"
        time.sleep(0.01)
    return found


def rows(database: str, query: str) -> list[tuple[Any, ...]]:
    with psycopg.connect(database, options="-c timezone=UTC") as connection:
        return connection.execute(query.encode()).fetchall()


def history_of(database: str) -> list[tuple[str, list[int]]]:
    """Flow -> its sequence numbers as the history table holds them."""
    return rows(
        database,
        "SELECT flow_id, array_agg(sequence ORDER BY sequence) FROM flowtrail.history GROUP BY 1 ORDER BY 1",
    )


@contextmanager
def projecting(servers: str, database: str, prefix: str, instance: str | None = None) -> Iterator[Projector]:
    """A projector in a thread of its own. What it raised is raised at the end."""
    projector = Projector(servers, database, prefix, instance=instance)
    raised: list[BaseException] = []

    def run() -> None:
        try:
            projector.run()
        except BaseException as problem:
            raised.append(problem)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield projector
    finally:
        projector.stop.set()
        thread.join(30)
    assert not thread.is_alive()
    if raised:
        raise raised[0]
