"""The projector: follows the log, folds what came, writes it; again and again until told to stop.

Exactly once because the position decides where to start and moves in the transaction of the rows (store.py). Two
projectors at once are safe: the slower one finds the position moved, gives its batch up and goes on from there. When
Kafka or Postgres is away it says so, waits with back-off and starts over from the position. Every batch holds what
there was at that moment, so a lone event is written at once and a backlog in large transactions.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Final

import psycopg
import structlog

from engine.errors import AwayError
from engine.runtime.topics import EVENTS
from projections import metrics
from projections.batch import Folded, Move
from projections.follower import Follower
from projections.healing import Healer
from projections.logged import Record
from projections.store import Store
from projections.writing import write_all

log = structlog.get_logger("flowtrail.projections")

_POLL_S: Final = 0.1
_REST_S: Final = 0.2
_BACKOFF_S: Final = (0.1, 0.2, 0.5, 1.0, 2.0)


class Projector:
    """Folds topic `<prefix>events` into `postgres`. With `instance`, shares the partitions with others by a group."""

    _store: Store
    _healer: Healer
    _follower: Follower

    def __init__(
        self,
        kafka_servers: str,
        postgres: str,
        prefix: str,
        *,
        instance: str | None = None,
        stop: threading.Event | None = None,
    ) -> None:
        self.stop = threading.Event() if stop is None else stop
        self._servers = kafka_servers
        self._postgres = postgres
        self._topic = prefix + EVENTS
        self._instance = instance
        self._failures = 0
        self._rested_at = 0.0
        self._event_times: dict[int, int] = {}
        self._told: set[int] = set()

    def run(self) -> None:
        """Returns when `stop` is set. Raises AwayError when the database is not migrated, FlowtrailError when the log
        does not hold the position."""
        self._check_once()
        while not self.stop.is_set():
            try:
                self._follow()
            except (AwayError, psycopg.OperationalError, psycopg.InterfaceError) as problem:
                delay = _BACKOFF_S[min(self._failures, len(_BACKOFF_S) - 1)]
                self._failures += 1
                metrics.RETRIES.inc()
                log.warning("server away, retrying", problem=str(problem).strip(), seconds=delay)
                self.stop.wait(delay)

    def _check_once(self) -> None:
        """A database that answers and lacks the tables is reported at once; one that is away is waited for."""
        try:
            store = Store(self._postgres, self._topic)
        except AwayError:
            return
        try:
            store.prepare()
        finally:
            store.close()

    def _follow(self) -> None:
        self._store = Store(self._postgres, self._topic)
        try:
            self._store.prepare()
            self._healer = Healer(self._servers, self._topic, self._store)
            self._follower = Follower(self._servers, self._topic, self._instance, self._store.positions)
            try:
                self._follower.start()
                while not self.stop.is_set():
                    self._step()
            finally:
                self._follower.close()
        finally:
            self._store.close()

    def _step(self) -> None:
        records = self._follower.poll(_POLL_S)
        if records:
            self._project(records)
        if time.monotonic() - self._rested_at > _REST_S:
            self._rest()

    def partitions(self) -> set[int]:
        """Those this projector follows at the moment."""
        follower = getattr(self, "_follower", None)
        return set() if follower is None else set(follower.assigned)

    # -- writing ------------------------------------------------------------------------------------------------

    def _project(self, records: Sequence[Record]) -> bool:
        """False when another projector moved the position: then none of the records after that may be written."""
        positions = self._follower.assigned
        return write_all(
            [record for record in records if record.partition in positions],
            positions,
            self._write,
            self._healer,
        )

    def _write(self, folded: Folded) -> bool:
        if not folded.moves:
            return True
        begun = time.perf_counter()
        if not self._store.apply(folded):
            metrics.CONFLICTS.inc()
            log.info("another projector wrote this batch, going on from its position")
            self._follower.reposition()
            return False
        metrics.TRANSACTION.observe(time.perf_counter() - begun)
        self._failures = 0
        for partition, move in folded.moves.items():
            self._follower.moved(partition, move.next_offset)
            if move.event_time is not None:
                self._event_times[partition] = move.event_time
        if folded.records:
            self._count(folded)
        return True

    def _count(self, folded: Folded) -> None:
        metrics.EVENTS.inc(folded.records)
        metrics.BATCH.observe(folded.records)
        for table in ("flows", "tasks", "history", "rejections"):
            if lines := len(getattr(folded, table)) + len(getattr(folded, f"new_{table}", ())):
                metrics.ROWS.labels(table).inc(lines)
        if folded.unreadable:
            metrics.UNREADABLE.inc(len(folded.unreadable))
            log.error("records unreadable, kept in flowtrail.unreadable", records=len(folded.unreadable))
        for broken in folded.broken:
            metrics.BROKEN.inc()
            log.error(
                "flow broken in the log; run: flowtrail replay verify",
                flow=broken.flow_id,
                partition=broken.partition,
                offset=broken.offset,
                found=broken.found,
            )

    def _rest(self) -> None:
        """Now and then: moves positions over the markers at the log's end, makes history's next month, tells the lag."""
        self._rested_at = time.monotonic()
        self._store.ensure_months(_months_ahead())
        follower = self._follower
        ends = {
            partition: Move(at, follower.ends[partition])
            for partition, at in follower.assigned.items()
            if follower.ends.get(partition, -1) > at
        }
        if ends:
            self._write(Folded(ends))
        self._tell_lag()

    def _tell_lag(self) -> None:
        now, follower = time.time(), self._follower
        for partition in self._told - set(follower.assigned):  # another member of the group tells of them now
            for gauge in (metrics.LAG_EVENTS, metrics.LAG_SECONDS, metrics.POSITION):
                gauge.remove(str(partition))
        self._told = set(follower.assigned)
        for partition, position in follower.assigned.items():
            behind = follower.behind(partition)
            event_time = self._event_times.get(partition)
            late = now - event_time / 1_000_000 if behind and event_time is not None else 0.0
            metrics.POSITION.labels(str(partition)).set(position)
            metrics.LAG_EVENTS.labels(str(partition)).set(behind)
            metrics.LAG_SECONDS.labels(str(partition)).set(max(late, 0.0))


def _months_ahead() -> set[str]:
    now = datetime.now(UTC)
    return {now.strftime("%Y-%m"), (now.replace(day=28) + timedelta(days=7)).strftime("%Y-%m")}
