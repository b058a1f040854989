"""Read models made again from the log, beside those in use, proved equal to them, and put in their place.

  1. a second schema with the same tables; what an interrupted rebuild wrote there is kept: its position says where to go on
  2. the log folded into it by the projector's own code, up to where the read models in use stand, again and again
  3. for a moment the projector is held by a lock on its positions; the rest is folded, and a snapshot of both is taken
  4. the snapshot's tables are compared, row by row in the order of their keys, while the projector goes on
  5. held once more, the rest folded, the two schemas change their names in one transaction

Reads go on all the time: nothing locks against them. The projector's next statement finds the new tables by their name
(Postgres plans it again), standing where the old ones stood. The old ones stay until the next rebuild: `roll_back` puts
them back, and the projector then folds what they lack.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, Final

import msgspec
import psycopg
from psycopg import sql

from engine.errors import AwayError, FlowtrailError, InputError
from engine.runtime.topics import EVENTS
from projections import migrations
from projections.batch import Folded, Move
from projections.healing import Healer
from projections.logged import Record
from projections.statements import SCHEMA, sql_folder
from projections.store import PROJECTION, Store
from projections.writing import write_all
from replay.log import read_spans, scan
from replay.readmodel import connect
from replay.statements import replay_statements

NEW: Final = f"{SCHEMA}_rebuild"
BEFORE: Final = f"{SCHEMA}_before"
TABLES: Final[dict[str, tuple[tuple[str, ...], tuple[str, ...]]]] = {
    "flows": (("flow_id",), ()),
    "tasks": (("flow_id", "task", "run", "attempt"), ()),
    "history": (("partition", "event_offset"), ()),
    "rejections": (("partition", "event_offset"), ()),
    "unreadable": (("partition", "event_offset"), ("seen_at",)),
    "broken": (("flow_id",), ()),
}
"""Table -> its key, and the columns that are not from the log."""

_SQL: Final = replay_statements("rebuild")
_LOCK: Final = 0x466C6F79
_RECORDS: Final = 20_000
"""Folded together: the more, the fewer rows are written again."""
_HANDS: Final = 2
"""While one waits for Postgres, the other folds."""
_NEAR: Final = 2000
"""So many records behind are folded while the projector is held."""
_ROUNDS_MAX: Final = 50

Progress = Callable[[int, int], None]


class TableReport(msgspec.Struct, frozen=True):
    """`sha256` of every row in the order of its key, in use and rebuilt; `first` is the first key that differs."""

    rows: int
    sha256: str
    rebuilt_rows: int
    rebuilt_sha256: str
    first: str | None = None

    @property
    def equal(self) -> bool:
        return self.sha256 == self.rebuilt_sha256


class RebuildReport(msgspec.Struct):
    positions: dict[int, int]
    tables: dict[str, TableReport]
    resumed: bool
    records: int
    seconds: float
    records_per_second: float
    held_seconds: float
    swapped: bool = False

    @property
    def equal(self) -> bool:
        return all(table.equal for table in self.tables.values())


def rebuild(
    kafka: str,
    postgres: str,
    prefix: str,
    *,
    rate: float = 0,
    swap_different: bool = False,
    progress: Progress | None = None,
) -> RebuildReport:
    """Folds at most `rate` records a second (0: as fast as it goes). Swaps nothing when a table is not equal, unless
    `swap_different`: the report says so. Raises InputError while another rebuild runs, AwayError."""
    with _alone(postgres) as connection:
        resumed = _made(connection)
        rebuilding = _Rebuilding(kafka, postgres, prefix + EVENTS, connection, rate, progress)
        try:
            report = rebuilding.run(resumed)
            if report.equal or swap_different:
                rebuilding.swap(report)
        finally:
            rebuilding.close()
        return report


def roll_back(postgres: str) -> None:
    """The read models from before the last rebuild again. Raises InputError when there are none."""
    with _alone(postgres) as connection:
        if BEFORE not in _schemas(connection):
            raise InputError(
                "Expected read models of before a rebuild but there are none; `projections rebuild` makes them"
            )
        with connection.transaction():
            connection.execute(_SQL["hold"])
            _drop(connection, NEW)
            _rename(connection, SCHEMA, NEW)
            _rename(connection, BEFORE, SCHEMA)


@contextmanager
def _alone(postgres: str) -> Iterator[psycopg.Connection[Any]]:
    connection = connect(postgres, autocommit=True)
    try:
        migrations.check(connection)
        [(alone,)] = connection.execute(_SQL["lock"], {"key": _LOCK}).fetchall()
        if not alone:
            raise InputError("Expected to be the only rebuild of this database but another one is running")
        yield connection
    except psycopg.OperationalError as problem:
        raise AwayError(f"Expected Postgres to answer but {str(problem).strip()}") from None
    finally:
        connection.close()


# -- schemas --------------------------------------------------------------------------------------------------------


def _schemas(connection: psycopg.Connection[Any]) -> dict[str, str | None]:
    return dict(connection.execute(_SQL["schemas"], {"names": [SCHEMA, NEW, BEFORE]}).fetchall())


def _made(connection: psycopg.Connection[Any]) -> bool:
    """Makes the second schema, or finds the one that an interrupted rebuild of this very program left."""
    version = f"migration {len(migrations.released())}"
    if _schemas(connection).get(NEW) == version:
        return True
    with connection.transaction():
        _drop(connection, NEW)
        for statement in _statements(indexes=False):
            connection.execute(statement)
        note = sql.SQL("COMMENT ON SCHEMA {} IS {}").format(sql.Identifier(NEW), sql.Literal(version))
        connection.execute(note)
    return False


def _statements(*, indexes: bool) -> list[bytes]:
    """What makes the read models' tables in the second schema, or the indexes that are no keys."""
    text = sql_folder().joinpath("schema.sql").read_text("utf-8")
    lines = [line for line in text.splitlines() if not line.startswith("--")]
    parts = [part.strip() for part in "\n".join(lines).split(";\n") if part.strip(" \n;")]
    return [
        part.replace("flowtrail.", f"{NEW}.")
        .replace("CREATE SCHEMA flowtrail", f"CREATE SCHEMA {NEW}")
        .replace("CREATE INDEX", "CREATE INDEX IF NOT EXISTS", 1)
        .encode()
        for part in parts
        if "flowtrail_api" not in part and part.startswith("CREATE INDEX") == indexes
    ]


def _drop(connection: psycopg.Connection[Any], name: str) -> None:
    connection.execute(sql.SQL("DROP SCHEMA IF EXISTS {} CASCADE").format(sql.Identifier(name)))


def _rename(connection: psycopg.Connection[Any], name: str, new: str) -> None:
    statement = sql.SQL("ALTER SCHEMA {} RENAME TO {}")
    connection.execute(statement.format(sql.Identifier(name), sql.Identifier(new)))


# -- folding --------------------------------------------------------------------------------------------------------


class _Rebuilding:
    def __init__(
        self,
        kafka: str,
        postgres: str,
        topic: str,
        connection: psycopg.Connection[Any],
        rate: float,
        progress: Progress | None,
    ) -> None:
        self._kafka, self._postgres, self._topic = kafka, postgres, topic
        self._connection = connection
        self._rate = rate
        self._progress = progress
        self._partitions = sorted(read_spans(kafka, topic))
        self._stores = [Store(postgres, topic, NEW) for _ in range(_HANDS)]
        for store in self._stores:
            store.prepare()
        self._healers = [Healer(kafka, topic, store) for store in self._stores]
        self._positions = self._stores[0].positions(self._partitions)
        self._done = [0] * _HANDS
        self._began = time.monotonic()
        self._held = 0.0

    def close(self) -> None:
        for store in self._stores:
            store.close()

    @property
    def _records(self) -> int:
        return sum(self._done)

    def run(self, resumed: bool) -> RebuildReport:
        self._catch_up(self._live())
        for statement in _statements(indexes=True):  # one sort each, instead of a place for every row
            self._connection.execute(statement)
        self._come_near()
        with self._hold():
            self._catch_up(self._live())
            snapshots = (self._snapshot(), self._snapshot())  # one table is read from both at the same time
        folded = time.monotonic() - self._began
        try:
            tables = {name: _compared(snapshots[0], snapshots[1], name) for name in TABLES}
        finally:
            for snapshot in snapshots:
                snapshot.close()
        return RebuildReport(
            positions=dict(self._positions),
            tables=tables,
            resumed=resumed,
            records=self._records,
            seconds=round(folded, 3),
            records_per_second=round(self._records / folded, 1),
            held_seconds=round(self._held, 3),
        )

    def swap(self, report: RebuildReport) -> None:
        self._come_near()
        with self._hold():
            self._catch_up(self._live())
            _drop(self._connection, BEFORE)
            _rename(self._connection, SCHEMA, BEFORE)
            _rename(self._connection, NEW, SCHEMA)
        report.held_seconds, report.swapped = round(self._held, 3), True

    def _come_near(self) -> None:
        for _ in range(_ROUNDS_MAX):
            if self._behind(self._live()) <= _NEAR:
                break
            self._catch_up(self._live())

    @contextmanager
    def _hold(self) -> Iterator[None]:
        """Meanwhile no projector writes; reads go on."""
        began = time.monotonic()
        with self._connection.transaction():
            self._connection.execute(_SQL["hold"])
            yield
        self._held += time.monotonic() - began

    def _live(self) -> dict[int, int]:
        """Where the read models in use stand."""
        asked = {"projection": PROJECTION, "topic": self._topic}
        statement = sql.SQL(_SQL["positions"].decode()).format(schema=sql.Identifier(SCHEMA))
        found: dict[int, int] = dict(self._connection.execute(statement, asked).fetchall())
        return {partition: found.get(partition, 0) for partition in self._partitions}

    def _behind(self, bounds: dict[int, int]) -> int:
        return sum(max(0, bounds[partition] - at) for partition, at in self._positions.items())

    def _catch_up(self, bounds: dict[int, int]) -> None:
        """Folds exactly what lies below `bounds`, each hand its own partitions."""
        before, of = self._records, self._behind(bounds)

        def tell() -> None:
            if self._progress is not None:
                self._progress(min(self._records - before, of), of)

        with ThreadPoolExecutor(_HANDS, "rebuild") as hands:
            for done in [hands.submit(self._fold_share, number, bounds, tell) for number in range(_HANDS)]:
                done.result()

    def _fold_share(self, number: int, bounds: dict[int, int], tell: Callable[[], None]) -> None:
        began, before = time.monotonic(), self._done[number]
        mine = {p: at for p, at in self._positions.items() if p % _HANDS == number}
        size = int(min(_RECORDS, max(500, self._rate or _RECORDS)))  # a low rate shall not come in bursts
        waiting: list[Record] = []
        for record in scan(self._kafka, self._topic, {p: (at, bounds[p]) for p, at in mine.items()}):
            waiting.append(record)
            if len(waiting) < size:
                continue
            self._fold(number, waiting, mine)
            waiting = []
            tell()
            done = self._done[number] - before
            if self._rate and (early := done * _HANDS / self._rate - (time.monotonic() - began)) > 0:
                time.sleep(early)
        self._fold(number, waiting, mine)
        ends = {p: Move(at, bounds[p]) for p, at in mine.items() if at < bounds[p]}
        if ends:  # markers of transactions
            self._write(number, Folded(ends), mine)

    def _fold(self, number: int, records: list[Record], positions: dict[int, int]) -> None:
        if not write_all(
            records, positions, lambda folded: self._write(number, folded, positions), self._healers[number]
        ):
            raise FlowtrailError(f"Expected to write schema {NEW} alone but somebody moved its positions")
        self._done[number] += len(records)

    def _write(self, number: int, folded: Folded, positions: dict[int, int]) -> bool:
        if folded.moves and not self._stores[number].apply(folded):
            return False
        for partition, move in folded.moves.items():
            positions[partition] = self._positions[partition] = move.next_offset
        return True

    def _snapshot(self) -> psycopg.Connection[Any]:
        """A connection that sees both schemas as they are now, whatever is written later."""
        connection = connect(self._postgres, autocommit=False)
        connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        connection.read_only = True
        connection.execute("SELECT 1")
        return connection


# -- comparing ------------------------------------------------------------------------------------------------------


def _compared(one: psycopg.Connection[Any], other: psycopg.Connection[Any], name: str) -> TableReport:
    key, without = TABLES[name]
    hashes = hashlib.sha256(), hashlib.sha256()
    counts = [0, 0]
    first: str | None = None
    columns = _columns(one, name, without)
    width = len(key)
    streams = _rows(one, SCHEMA, name, columns, key), _rows(other, NEW, name, columns, key)
    rows: list[bytes | None] = [b"", b""]
    while rows[0] is not None or rows[1] is not None:
        for side, stream in enumerate(streams):
            if rows[side] is not None:
                rows[side] = line = next(stream, None)
                if line is not None:
                    hashes[side].update(line)
                    counts[side] += 1
        if first is None and rows[0] != rows[1]:
            lines = [line for line in rows if line is not None]
            first = min(" ".join(line.decode("utf-8", "replace").split("\t")[:width]) for line in lines)
    return TableReport(counts[0], hashes[0].hexdigest(), counts[1], hashes[1].hexdigest(), first)


def _columns(connection: psycopg.Connection[Any], name: str, without: tuple[str, ...]) -> list[str]:
    """The key first, then the others."""
    key = TABLES[name][0]
    found = connection.execute(_SQL["columns"], {"schema": SCHEMA, "name": name}).fetchall()
    return [*key, *(column for (column,) in found if column not in (*key, *without))]


def _rows(
    connection: psycopg.Connection[Any], schema: str, name: str, columns: list[str], key: tuple[str, ...]
) -> Iterator[bytes]:
    """Lines in COPY's text form, in the order of the key."""
    statement = sql.SQL(_SQL["rows"].decode()).format(
        columns=sql.SQL(", ").join(map(sql.Identifier, columns)),
        schema=sql.Identifier(schema),
        name=sql.Identifier(name),
        key=sql.SQL(", ").join(map(sql.Identifier, key)),
    )
    with connection.cursor() as cursor, cursor.copy(statement) as copy:
        for row in copy:
            yield bytes(row)
