"""Writes folded batches to Postgres: rows and positions in one transaction, or nothing.

`apply` is the whole protocol:
  1. move the positions by compare-and-set; a position that stands elsewhere means that somebody else wrote this batch
     (a second projector, or this one before a crash): roll back and say so,
  2. compare where each flow's row stands with where the batch begins; rows that are not what the log says are out of
     step: roll back and name them (healing.py folds those flows anew, and calls again),
  3. copy and merge the rows, append history, 4. commit.
The session commits asynchronously: a crash of Postgres loses rows and position together, and the log still has them.
A session that stops in mid-transaction is ended by Postgres, so that a frozen projector cannot hold up another.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date
from typing import Final, NamedTuple

import msgspec
import psycopg
import structlog
from psycopg import sql

from engine.errors import AwayError
from projections import migrations
from projections.batch import Folded, Move
from projections.copying import NULL, moment
from projections.statements import SCHEMA, statements

log = structlog.get_logger("flowtrail.projections")
PROJECTION: Final = "main"
_MONTHS_LOCK: Final = 0x466C6F78
_SESSION: Final = (
    "-c timezone=UTC -c synchronous_commit=off -c idle_in_transaction_session_timeout=15s -c lock_timeout=30s "
    # a plan is made once, perhaps while the tables are empty, and must be right for large ones: rows are found by their
    # keys, batches joined by hashing; what these forbid costs so much on paper that JIT would set in
    "-c enable_seqscan=off -c enable_nestloop=off -c jit=off"
)
# outside these years a time is somebody's mistake and stays in history_other, instead of making a partition each
_FIRST_MONTH: Final = "1990-01"
_LAST_MONTH: Final = "2199-12"
TABLES: Final = ("flows", "tasks", "history", "rejections", "unreadable", "broken")
_COPIED: Final = {
    "new_flows": "flows",
    "new_tasks": "tasks",
    "history": "history",
    "rejections": "rejections",
    "unreadable": "unreadable",
}
_FORGOTTEN: Final = ("flows", "tasks", "history", "rejections", "broken")


class Misfit(NamedTuple):
    """A flow's row beside where the batch begins and ends. `row_` is None where there is no row."""

    flow_id: str
    partition: int
    offset: int
    follows: int
    sequence: int
    row_partition: int | None
    row_offset: int | None
    row_sequence: int | None
    other_head: bool
    row_tasks: int
    tasks: int
    broken: bool

    @property
    def found(self) -> str:
        if self.row_partition not in (None, self.partition):
            return f"Expected its events in partition {self.row_partition} but found one in {self.partition}"
        if self.row_sequence is None and self.follows:
            return f"Expected a row at event {self.follows} but found none"
        if self.row_sequence is not None and self.row_sequence != self.follows:
            return f"Expected the row at event {self.follows} but it is at {self.row_sequence}"
        if self.row_sequence is not None and self.other_head:
            return f"Expected the row to hold the hash that event {self.follows + 1} follows but it holds another"
        return f"Expected {self.row_tasks} rows in tasks but found {self.tasks}"


class OutOfStep(Exception):
    """Rows that are not where the log's next events begin; nothing was written."""

    def __init__(self, found: list[Misfit]) -> None:
        super().__init__(f"Expected rows to stand where the log goes on but {len(found)} do not")
        self.found = found


class Store:
    """One connection, which writes `tables` alone. Raises psycopg.OperationalError when Postgres goes away; then make a new Store."""

    def __init__(
        self,
        postgres: str,
        topic: str,
        schema: str = SCHEMA,
        projection: str = PROJECTION,
        tables: tuple[str, ...] = TABLES,
    ) -> None:
        self._topic, self._projection, self._tables = topic, projection, tables
        self._sql = statements("writes", schema)
        self._months: set[str] = set()
        try:
            self._connection = psycopg.connect(
                postgres,
                autocommit=True,
                options=_SESSION,
                connect_timeout=5,
                keepalives_idle=5,
                keepalives_interval=2,
                keepalives_count=3,
                tcp_user_timeout=15_000,
            )
        except psycopg.OperationalError as problem:
            raise AwayError(f"Expected Postgres to answer but {str(problem).strip()}") from None

    def close(self) -> None:
        self._connection.close()

    def prepare(self) -> None:
        """Raises AwayError or InputError when the database is not the one this program needs."""
        migrations.check(self._connection)
        self._connection.execute(self._sql["session"])
        self._months = {name for (name,) in self._connection.execute(self._sql["months"])}

    def positions(self, partitions: Iterable[int]) -> dict[int, int]:
        """Partition -> first offset that is not folded; 0 for a partition seen for the first time."""
        asked = {"projection": self._projection, "topic": self._topic, "partitions": sorted(partitions)}
        self._connection.execute(self._sql["add_positions"], asked)
        found = self._connection.execute(self._sql["read_positions"], asked).fetchall()
        return dict(found)

    def share_lock(self, key: int) -> None:
        """Holds the lock, with whoever else shares it, until the connection is closed."""
        self._connection.execute(self._sql["share_lock"], {"key": key})

    def aside(self, partitions: Iterable[int]) -> set[tuple[int, int]]:
        """(partition, offset) of records that are kept as unreadable."""
        found = self._connection.execute(self._sql["aside"], {"partitions": sorted(partitions)}).fetchall()
        return {(partition, offset) for partition, offset in found}

    def apply(self, folded: Folded) -> bool:
        """Writes `folded`; False, and nothing is written, when a position stands elsewhere than the batch starts.

        Raises OutOfStep, and nothing is written, when rows do.
        """
        self.ensure_months(folded.months)
        with self._connection.transaction(), self._connection.cursor() as cursor:
            if not self._move(cursor, folded.moves):
                raise psycopg.Rollback  # leaves the block below it
            if folded.healed:
                self._forget(cursor, folded)
            if folded.flows and "flows" in self._tables:
                self._merge(cursor, folded)
            for name, table in _COPIED.items():
                if table in self._tables and (lines := getattr(folded, name)):
                    self._copy(cursor, name, lines)
            for broken in folded.broken if "broken" in self._tables else ():
                cursor.execute(self._sql["add_broken"], msgspec.structs.asdict(broken))
            return True
        return False

    def _move(self, cursor: psycopg.Cursor, moves: dict[int, Move]) -> bool:
        ordered = sorted(moves.items())
        times = [moment(move.event_time) for _, move in ordered]
        cursor.execute(
            self._sql["move_positions"],
            {
                "projection": self._projection,
                "topic": self._topic,
                "partitions": [partition for partition, _ in ordered],
                "starts": [move.start for _, move in ordered],
                "next_offsets": [move.next_offset for _, move in ordered],
                "command_offsets": [move.command_offset for _, move in ordered],
                "event_times": [None if time == NULL else time for time in times],
            },
        )
        return cursor.rowcount == len(ordered)

    def _merge(self, cursor: psycopg.Cursor, folded: Folded) -> None:
        self._copy(cursor, "flows", folded.flows)
        found = cursor.execute(self._sql["out_of_step"]).fetchall()
        if found:
            raise OutOfStep([Misfit(*row) for row in found])
        if folded.tasks:
            self._copy(cursor, "tasks", folded.tasks)
        cursor.execute(self._sql["merge"])

    def _copy(self, cursor: psycopg.Cursor, table: str, lines: list[str]) -> None:
        with cursor.copy(self._sql[f"copy_{table}"]) as copy:
            copy.write("".join(lines))

    def _forget(self, cursor: psycopg.Cursor, folded: Folded) -> None:
        asked = {
            "flow_ids": [healing.flow_id for healing in folded.healed],
            "partitions": [healing.partition for healing in folded.healed],
        }
        for table in _FORGOTTEN:
            if table in self._tables:
                cursor.execute(self._sql[f"forget_{table}"], asked)
        for healing in folded.healed:
            cursor.execute(self._sql["add_healing"], msgspec.structs.asdict(healing))

    def ensure_months(self, months: Iterable[str]) -> None:
        """Attaches the partitions of history for `months` (YYYY-MM) that are missing."""
        missing = sorted(month for month in months if _table(month) not in self._months)
        if not missing:
            return
        with self._connection.transaction():
            self._connection.execute(self._sql["lock_months"], {"key": _MONTHS_LOCK})
            for month in missing:
                if _FIRST_MONTH <= month <= _LAST_MONTH:
                    self._add_month(month)
        self._months |= {_table(month) for month in missing}

    def _add_month(self, month: str) -> None:
        first, following = _bounds(month)
        statement = sql.SQL(self._sql["add_month"].decode()).format(
            table=sql.Identifier(_table(month)),
            first=sql.Literal(first.isoformat()),
            next=sql.Literal(following.isoformat()),
        )
        try:
            with self._connection.transaction():
                self._connection.execute(statement)
        except psycopg.errors.CheckViolation:
            # history_other holds rows of this month already; the rest of it goes there too
            log.warning("history partition not made, its rows stay in history_other", month=month)


def _table(month: str) -> str:
    return f"history_{month.replace('-', '_')}"


def _bounds(month: str) -> tuple[date, date]:
    year, number = map(int, month.split("-"))
    return date(year, number, 1), date(year + number // 12, number % 12 + 1, 1)
