"""Read models made again from the log, beside those in use, proved equal to them, and put in their place.

  1. a second schema with the same tables; what an interrupted rebuild wrote there is kept: its position says where to go on
  2. the log folded into it by the projector's own code, up to where the read models in use stand, again and again
  3. for a moment the projector is held by a lock on its positions; the rest is folded, and a snapshot of both is taken
  4. the snapshot's tables are compared, row by row in the order of their keys, while the projector goes on
  5. held once more, the rest folded, the two schemas change their names in one transaction

Of a part (a name, or the flows since a time) the rest is copied from the tables in use in step 1, and only what is rebuilt
is compared. Reads go on all the time: nothing locks against them. The projector's next statement finds the new tables by
their name (Postgres plans it again), standing where the old ones stood. The old ones stay until the next rebuild:
`roll_back` puts them back, and the projector then folds what they lack.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

import msgspec
import psycopg

from engine.errors import AwayError, InputError
from engine.runtime.topics import EVENTS
from projections import migrations
from projections.statements import SCHEMA
from projections.store import PROJECTION
from replay import beside
from replay.beside import AGAIN, BEFORE, NEW, SQL, Part
from replay.equality import TableReport, compare, copied
from replay.hands import LOCK, Hand, Target
from replay.helping import Helper
from replay.log import read_spans
from replay.readmodel import connect
from replay.recent import flows_since

_ALONE: Final = 0x466C6F79
_NEAR: Final = 2000
"""So many records behind are folded while the projector is held."""
_ROUNDS_MAX: Final = 50

Progress = Callable[[int, int], None]


class RebuildReport(msgspec.Struct, kw_only=True):
    """`tables` were rebuilt and compared. Of a part, `copied` tables were taken over whole (rows), and `flows` is how many
    flows have an event `since` then. `healed` flows were folded anew on the way."""

    name: str
    since: int | None
    flows: int | None
    positions: dict[int, int]
    tables: dict[str, TableReport]
    copied: dict[str, int]
    resumed: bool
    records: int
    healed: int
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
    part: Part | None = None,
    *,
    rate: float = 0,
    swap_different: bool = False,
    progress: Progress | None = None,
) -> RebuildReport:
    """Folds at most `rate` records a second (0: as fast as it goes). Swaps nothing when a table is not equal, unless
    `swap_different`: the report says so. Raises InputError while another rebuild runs, AwayError."""
    target = Target(kafka, postgres, prefix + EVENTS)
    helper = Helper()  # before there are clients
    try:
        with _alone(postgres) as connection:
            rebuilding = _Rebuilding(target, part or Part(), connection, helper, rate, progress)
            try:
                report = rebuilding.run()
                if report.equal or swap_different:
                    rebuilding.swap(report)
            finally:
                rebuilding.close()
            return report
    finally:
        helper.close()


def roll_back(postgres: str) -> None:
    """The read models from before the last rebuild again. Raises InputError when there are none."""
    with _alone(postgres) as connection:
        if BEFORE not in beside.schemas(connection):
            raise InputError(
                "Expected read models of before a rebuild but there are none; `projections rebuild` makes them"
            )
        with connection.transaction():
            connection.execute(SQL["hold"])
            beside.put_back(connection)


@contextmanager
def _alone(postgres: str) -> Iterator[psycopg.Connection[Any]]:
    connection = connect(postgres, autocommit=True)
    try:
        migrations.check(connection)
        [(alone,)] = connection.execute(SQL["lock"], {"key": _ALONE}).fetchall()
        if not alone:
            raise InputError("Expected to be the only rebuild of this database but another one is running")
        connection.execute(SQL["await_hands"], {"key": LOCK})
        yield connection
    except psycopg.OperationalError as problem:
        raise AwayError(f"Expected Postgres to answer but {str(problem).strip()}") from None
    finally:
        connection.close()


class _Rebuilding:
    def __init__(
        self,
        target: Target,
        part: Part,
        connection: psycopg.Connection[Any],
        helper: Helper,
        rate: float,
        progress: Progress | None,
    ) -> None:
        self._target, self._part = target, part
        self._connection, self._helper = connection, helper
        self._rate = rate
        self._progress = progress
        self._spans = read_spans(target.kafka, target.topic)
        self._records = self._healed = 0
        self._counting = threading.Lock()
        self._began = time.monotonic()
        self._held = 0.0
        self._resumed = beside.is_made(connection, part)
        if not self._resumed:
            self._make()
        self._hand = Hand(target)
        self._positions = self._hand.positions(self._spans)

    def close(self) -> None:
        self._hand.close()

    def run(self) -> RebuildReport:
        if not self._part.is_all:
            self._fold_part()
        self._catch_up(self._live())
        beside.index(self._connection)
        self._come_near()
        with self._hold():
            self._catch_up(self._live())
            snapshots = (self._snapshot(), self._snapshot())  # one table is read from both at the same time
        folded = time.monotonic() - self._began
        try:
            tables, others = compare(*snapshots, self._part), copied(snapshots[1], self._part)
        finally:
            for snapshot in snapshots:
                snapshot.close()
        return RebuildReport(
            name=self._part.name,
            since=self._part.since,
            flows=None if self._part.since is None else len(beside.chosen(self._connection)),
            positions=dict(self._positions),
            tables=tables,
            copied=others,
            resumed=self._resumed,
            records=self._records,
            healed=self._healed,
            seconds=round(folded, 3),
            records_per_second=round(self._records / folded, 1),
            held_seconds=round(self._held, 3),
        )

    def swap(self, report: RebuildReport) -> None:
        self._come_near()
        with self._hold():
            self._catch_up(self._live())
            beside.put_in_place(self._connection)
        report.held_seconds, report.swapped = round(self._held, 3), True

    # -- making the second schema -----------------------------------------------------------------------------------

    def _make(self) -> None:
        """All or nothing: a rebuild that is killed here begins anew."""
        connection, part = self._connection, self._part
        if part.is_all:
            with connection.transaction():
                beside.make(connection, part)
            return
        connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        try:
            with connection.transaction():
                positions = self._live()
                beside.make(connection, part)
                beside.copy(connection, part, self._target.topic, positions, self._chosen(positions))
        finally:
            connection.isolation_level = None

    def _chosen(self, positions: dict[int, int]) -> set[str]:
        if self._part.since is None:
            return set()
        spans = {p: (first, max(first, positions[p])) for p, (first, _) in self._spans.items()}
        return flows_since(self._target.kafka, self._target.topic, spans, self._part.since)

    def _fold_part(self) -> None:
        """Folds the part up to where the copy of the rest was made; nothing when that was done before."""
        again = beside.positions(self._connection, NEW, self._target.topic, AGAIN)
        spans = {p: (at, self._positions[p]) for p, at in again.items()}
        keys = None if self._part.since is None else frozenset(beside.chosen(self._connection))
        # a record that this program cannot read is kept, whatever the part
        tables = (*self._part.tables, "unreadable")
        target = msgspec.structs.replace(self._target, projection=AGAIN, tables=tables, keys=keys)
        hand = Hand(target)
        try:
            self._fold(hand, target, spans)
        finally:
            hand.close()
        beside.folded_again(self._connection)

    # -- folding ----------------------------------------------------------------------------------------------------

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
            self._connection.execute(SQL["hold"])
            yield
        self._held += time.monotonic() - began

    def _live(self) -> dict[int, int]:
        """Where the read models in use stand."""
        found = beside.positions(self._connection, SCHEMA, self._target.topic, PROJECTION)
        return {partition: found.get(partition, 0) for partition in self._spans}

    def _behind(self, bounds: dict[int, int]) -> int:
        return sum(max(0, bounds[partition] - at) for partition, at in self._positions.items())

    def _catch_up(self, bounds: dict[int, int]) -> None:
        """Folds exactly what lies below `bounds`."""
        spans = {p: (at, bounds[p]) for p, at in self._positions.items() if at < bounds[p]}
        self._fold(self._hand, self._target, spans)
        self._positions |= {p: end for p, (_, end) in spans.items()}

    def _fold(self, hand: Hand, target: Target, spans: dict[int, tuple[int, int]]) -> None:
        before, healed = self._records, hand.healed
        of = sum(end - start for start, end in spans.values())

        def passed(records: int) -> None:
            with self._counting:
                self._records += records
                if self._progress is not None:
                    self._progress(min(self._records - before, of), of)

        others = self._helper.fold(hand, target, spans, self._rate, passed)
        self._healed += others + hand.healed - healed

    def _snapshot(self) -> psycopg.Connection[Any]:
        """A connection that sees both schemas as they are now, whatever is written later."""
        connection = connect(self._target.postgres, autocommit=False)
        connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        connection.read_only = True
        connection.execute("SELECT 1")
        return connection
