"""Writes folded batches to Postgres: rows and positions in one transaction, or nothing.

`apply` is the whole protocol:
  1. move the positions by compare-and-set; a position that stands elsewhere means that somebody else wrote this batch
     (a second projector, or this one before a crash): roll back and say so,
  2. copy and merge the rows, append history, 3. commit.
The session commits asynchronously: a crash of Postgres loses rows and position together, and the log still has them.
A session that stops in mid-transaction is ended by Postgres, so that a frozen projector cannot hold up another.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date
from typing import Final

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
    "-c timezone=UTC -c synchronous_commit=off -c idle_in_transaction_session_timeout=15s -c lock_timeout=30s"
)
# outside these years a time is somebody's mistake and stays in history_other, instead of making a partition each
_FIRST_MONTH: Final = "1990-01"
_LAST_MONTH: Final = "2199-12"
_TABLES: Final = ("flows", "tasks", "history", "rejections", "unreadable")
_MERGED: Final = {"flows", "tasks"}


class Store:
    """One connection. Raises psycopg.OperationalError when Postgres goes away; then make a new Store."""

    def __init__(self, postgres: str, topic: str, schema: str = SCHEMA) -> None:
        self._topic = topic
        self._sql = statements("writes", schema)
        self._months: set[str] = set()
        self.refused_rows = 0  # rows that were not ahead of what is stored: a broken log, or a defect
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
        asked = {"projection": PROJECTION, "topic": self._topic, "partitions": sorted(partitions)}
        self._connection.execute(self._sql["add_positions"], asked)
        found = self._connection.execute(self._sql["read_positions"], asked).fetchall()
        return dict(found)

    def apply(self, folded: Folded) -> bool:
        """Writes `folded`; False, and nothing is written, when a position stands elsewhere than the batch starts."""
        self.ensure_months(folded.months)
        with self._connection.transaction(), self._connection.cursor() as cursor:
            if not self._move(cursor, folded.moves):
                raise psycopg.Rollback  # leaves the block below it
            for table in _TABLES:
                lines = getattr(folded, table)
                if lines:
                    self._write(cursor, table, lines)
            return True
        return False

    def _move(self, cursor: psycopg.Cursor, moves: dict[int, Move]) -> bool:
        ordered = sorted(moves.items())
        times = [moment(move.event_time) for _, move in ordered]
        cursor.execute(
            self._sql["move_positions"],
            {
                "projection": PROJECTION,
                "topic": self._topic,
                "partitions": [partition for partition, _ in ordered],
                "starts": [move.start for _, move in ordered],
                "next_offsets": [move.next_offset for _, move in ordered],
                "command_offsets": [move.command_offset for _, move in ordered],
                "event_times": [None if time == NULL else time for time in times],
            },
        )
        return cursor.rowcount == len(ordered)

    def _write(self, cursor: psycopg.Cursor, table: str, lines: list[str]) -> None:
        with cursor.copy(self._sql[f"copy_{table}"]) as copy:
            copy.write("".join(lines))
        if table in _MERGED:
            # never a prepared plan: one made while the table was empty would stay for the life of the session
            cursor.execute(self._sql[f"merge_{table}"], prepare=False)
            self.refused_rows += len(lines) - cursor.rowcount

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
