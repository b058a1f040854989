"""The read model in Postgres, compared with what the log folds to: every row of every flow, and no row beyond them.

The rule that makes it exact while flows go on: `flows` and `tasks` are read in one snapshot, together with the
projection's positions at that snapshot, and only records below those positions are folded; `history` and
`rejections` never change and are cut at the same offsets. Those two are read in short statements of their own, so
that a long verification never keeps the projector from attaching a partition to history.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Final, Self

import msgspec
import psycopg
from psycopg import sql

from engine.errors import AwayError
from projections import migrations, queries, rejections
from projections.copying import Unstorable
from projections.logged import Logged, Record
from projections.statements import statements
from projections.store import PROJECTION
from replay.findings import ReadModelReport, RowFinding
from replay.log import Spans, scan
from replay.rows import FLOWS, HISTORY, REJECTIONS, TASKS, Table, as_copied, differences, fold
from replay.statements import replay_statements
from schemas import messages as m

_SQL: Final = replay_statements("read_model")
_READS: Final = statements("reads")
_LINES_MAX: Final = 5000
_POLL_S: Final = 0.1


class Cut(msgspec.Struct, frozen=True):
    """What of the read model is compared. `positions`: partition -> first offset that is not folded in `snapshot`."""

    snapshot: str
    positions: dict[int, int]
    flows: dict[int, int]


def connect(postgres: str, *, autocommit: bool) -> psycopg.Connection[Any]:
    """Raises AwayError."""
    try:
        connection = psycopg.connect(
            postgres,
            autocommit=autocommit,
            options="-c timezone=UTC -c client_encoding=UTF8 -c bytea_output=hex",
            connect_timeout=5,
        )
    except psycopg.OperationalError as problem:
        text = (
            f"Expected Postgres to answer but {str(problem).strip()}; --no-read-model verifies the log alone"
        )
        raise AwayError(text) from None
    if not autocommit:
        connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        connection.read_only = True
    return connection


@contextmanager
def answering() -> Iterator[None]:
    """Postgres that goes away in the middle is nobody's defect: an AwayError."""
    try:
        yield
    except (psycopg.OperationalError, psycopg.InterfaceError) as problem:
        raise AwayError(f"Expected Postgres to answer but {str(problem).strip()}") from None


class Snapshot:
    """Holds the transaction whose snapshot other processes join. Use with `with`."""

    def __init__(self, postgres: str, topic: str) -> None:
        self._connection = connect(postgres, autocommit=False)
        try:
            migrations.check(self._connection)
            (name,) = self._one("snapshot")
            asked = queries.positions(topic)
            found = asked.answer(
                self._connection.execute(_READS[asked.statement], asked.parameters).fetchall()
            )
            positions = {row.partition: row.next_offset for row in found if row.projection == PROJECTION}
            flows = dict(self._connection.execute(_SQL["flows_by_partition"]).fetchall())
        except BaseException:
            self._connection.close()
            raise
        self.cut = Cut(name, positions, flows)

    def _one(self, statement: str) -> tuple[Any, ...]:
        found = self._connection.execute(_SQL[statement]).fetchone()
        assert found is not None
        return tuple(found)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._connection.close()


def wait_for_projection(
    servers: str, postgres: str, topic: str, spans: Spans, key: bytes | None, grace_s: float
) -> None:
    """Returns when the read model has folded every record of `spans` (with `key`: of that flow), or after `grace_s`."""
    deadline = time.monotonic() + grace_s
    before: Spans | None = None
    with connect(postgres, autocommit=True) as connection:
        migrations.check(connection)
        while (behind := _behind(connection, topic, spans)) and time.monotonic() < deadline:
            # a position may stand before the markers at the log's end: only records make it late
            if behind == before and next(scan(servers, topic, behind, key=key), None) is None:
                return
            before = behind
            time.sleep(_POLL_S)


def _behind(connection: psycopg.Connection[Any], topic: str, spans: Spans) -> dict[int, tuple[int, int]]:
    """What of each partition is not folded."""
    asked = queries.positions(topic)
    found = asked.answer(connection.execute(_READS[asked.statement], asked.parameters).fetchall())
    at = {row.partition: row.next_offset for row in found if row.projection == PROJECTION}
    return {p: (max(first, at.get(p, 0)), end) for p, (first, end) in spans.items() if at.get(p, 0) < end}


class Comparison:
    """Takes what the proof found right (proof.Compared) of one partition, in its order; `finish` gives the report.

    Records below `due` that are not folded make the read model behind; those beyond are none of its business yet. `only` is the one flow to compare; None compares all, and that there is nothing else.
    """

    def __init__(self, postgres: str, cut: Cut, partition: int, due: int, only: str | None = None) -> None:
        self.report = ReadModelReport()
        self._partition = partition
        self._bound = cut.positions.get(partition, 0)
        self._due = due
        self._rows = cut.flows.get(partition, 0)
        self._only = only
        self._flows: dict[str, tuple[list[str], list[str], list[str]]] = {}
        self._seen: set[str] = set()
        self._lines = 0
        self._rejected: list[str] = []
        self._rejected_from = 0
        self._joined = connect(postgres, autocommit=False)
        self._loose = connect(postgres, autocommit=True)
        use = sql.SQL(_SQL["use_snapshot"].decode()).format(snapshot=sql.Literal(cut.snapshot))
        self._joined.execute(use)
        at = {"partition": partition, "bound": self._bound}
        self._aside = {
            offset: f"{code}: {reason}"
            for offset, code, reason in self._loose.execute(_SQL["unreadable"], at).fetchall()
        }

    def close(self) -> None:
        self._joined.close()
        self._loose.close()

    # -- what the log holds -----------------------------------------------------------------------------------------

    def flow(self, flow_id: str, logged: list[Logged]) -> None:
        stored = [
            one for one in logged if self._is_folded(one.offset) and not self._kept_aside(flow_id, one.offset)
        ]
        expected = fold(stored)
        for offset in expected.unstorable:
            self._missing_aside(flow_id, offset)
        self.report.checked += 1
        if expected.flows:
            self._seen.add(flow_id)
        self._flows[flow_id] = (expected.flows, expected.tasks, expected.history)
        self._lines += 1 + len(expected.tasks) + len(expected.history)
        if self._lines > _LINES_MAX:
            self._compare_flows()

    def rejection(self, rejection: m.Rejection, record: Record) -> None:
        if record.partition != self._partition or not self._is_folded(record.offset):
            return
        if self._kept_aside(rejection.flow_id, record.offset):
            return
        try:
            self._rejected.append(rejections.line(rejection, record.partition, record.offset))
        except Unstorable:
            self._missing_aside(rejection.flow_id, record.offset)
        if len(self._rejected) >= _LINES_MAX:
            self._compare_rejections(record.offset + 1)

    def unreadable(self, record: Record) -> None:
        if record.partition == self._partition and self._is_folded(record.offset):
            self._missing_aside((record.key or b"").decode("utf-8", "replace"), record.offset)

    def finish(self, different: set[str]) -> ReadModelReport:
        """`different` are the flows whose log is wrong: what their rows should be, nobody can say."""
        self._compare_flows()
        self._compare_rejections(self._bound)
        if self._only is None:
            for offset, reason in self._aside.items():
                self._find_aside("", offset, f"Expected no unreadable record but found one ({reason})")
            if self._rows != len(self._seen):
                self._find_strangers(different)
        kept = [finding for finding in self.report.different if finding.flow_id not in different]
        self.report.different_count -= len(self.report.different) - len(kept)
        self.report.different = kept
        return self.report

    def _is_folded(self, offset: int) -> bool:
        if offset < self._bound:
            return True
        self.report.behind += offset < self._due
        return False

    # -- records kept aside -----------------------------------------------------------------------------------------

    def _kept_aside(self, flow_id: str, offset: int) -> bool:
        reason = self._aside.pop(offset, None)
        if reason is None:
            return False
        self.report.unreadable += 1
        self._find_aside(flow_id, offset, f"Expected the record to be folded but it was kept aside, {reason}")
        return True

    def _missing_aside(self, flow_id: str, offset: int) -> None:
        """A record that cannot be folded must be among the unreadable ones."""
        self.report.unreadable += 1
        if self._aside.pop(offset, None) is None:
            self._find_aside(flow_id, offset, "Expected the record to be kept as unreadable but it is not")

    def _find_aside(self, flow_id: str, offset: int, text: str) -> None:
        self.report.add(RowFinding(flow_id, "unreadable", f"{self._partition} {offset}", text))

    # -- what Postgres holds ----------------------------------------------------------------------------------------

    def _compare_flows(self) -> None:
        if not self._flows:
            return
        parameters = {"flow_ids": list(self._flows), "partition": self._partition, "bound": self._bound}
        tables = ((FLOWS, self._joined), (TASKS, self._joined), (HISTORY, self._loose))
        for at, (table, connection) in enumerate(tables):
            expected = as_copied([line for lines in self._flows.values() for line in lines[at]])
            self._compare(table, expected, _copied(connection, table, parameters))
        self._flows.clear()
        self._lines = 0

    def _compare_rejections(self, end: int) -> None:
        parameters = {
            "partition": self._partition,
            "first": self._rejected_from,
            "end": end,
            "flow_id": self._only,
        }
        self._compare(REJECTIONS, as_copied(self._rejected), _copied(self._loose, REJECTIONS, parameters))
        self._rejected.clear()
        self._rejected_from = end

    def _compare(self, table: Table, expected: list[str], found: list[str]) -> None:
        self.report.rows += len(expected)
        for finding in differences(table, expected, found):
            self.report.add(finding)

    def _find_strangers(self, different: set[str]) -> None:
        rows = self._joined.execute(_SQL["flows_in_partition"], {"partition": self._partition}).fetchall()
        for (flow_id,) in rows:
            if flow_id not in self._seen and flow_id not in different:
                text = (
                    f"Expected no row but found one; partition {self._partition} of the log has no such flow"
                )
                self.report.add(RowFinding(flow_id, "flows", flow_id, text))


def _copied(connection: psycopg.Connection[Any], table: Table, parameters: dict[str, Any]) -> list[str]:
    statement = sql.SQL(_SQL[table.name].decode()).format(columns=sql.SQL(table.select))
    with connection.cursor() as cursor, cursor.copy(statement, parameters) as copy:
        text = b"".join(copy).decode()
    return text.split("\n")[:-1]


def rows_without_flow(postgres: str) -> list[RowFinding]:
    """Rows of tasks and history whose flow has no row."""
    with connect(postgres, autocommit=True) as connection:
        found = connection.execute(_SQL["without_flow"]).fetchall()
    text = "Expected a row of the flow in flows but found none"
    return [RowFinding(flow_id, table, flow_id, text) for table, flow_id in found]
