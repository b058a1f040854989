"""Paths and times of many flows on a real Postgres, against the same worked out in Python."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import pytest

from projections.analysis import asks
from projections.analysis.asks import END, START, scope_of
from projections.readers import SyncReader
from tests.conftest import Servers
from tests.integration.projection_log import EventLog, projecting, rows, until
from tests.unit.replay_logs import order, records

FLOWS = 60


@pytest.fixture
def reader(servers: Servers, migrated: str, prefix: str, order_log: EventLog) -> SyncReader:
    logs = [records(order(f"f-{i}", n=i, end=i % 3 > 0)) for i in range(FLOWS)]
    order_log.commit_records(record for log in logs for record in log)
    with projecting(servers.kafka, migrated, prefix):
        until(lambda: rows(migrated, "SELECT count(*) FROM flowtrail.history") == [(sum(map(len, logs)),)])
    return SyncReader(migrated)


def test_driven_flows_are_counted_as_their_tasks_say(reader: SyncReader, migrated: str) -> None:
    scope = scope_of("flows", "test/order")
    paths: dict[str, list[str]] = {}
    for flow_id, name in rows(
        migrated,
        """SELECT flow_id, name FROM flowtrail.tasks
           WHERE run > 0 AND coalesce(kind, '') NOT IN ('do', 'for', 'fork', 'try') AND status <> 'skipped'
           ORDER BY flow_id, coalesce(scheduled_sequence, ended_sequence)""",
    ):
        paths.setdefault(flow_id, []).append(name)
    expected: Counter[tuple[str, str]] = Counter()
    for path in paths.values():
        expected.update(pairwise([START, *path, END]))
    with reader:
        graph = reader.ask(asks.graph(scope))
        assert {(edge.from_, edge.to): edge.count for edge in graph.edges} == expected
        assert graph.cases == FLOWS
        found = reader.ask(asks.variants(scope))
        assert Counter({tuple(v.path): v.count for v in found.variants}) == Counter(
            map(tuple, paths.values())
        )
        steps = {one.step: one for one in reader.ask(asks.durations(scope))}
        assert set(steps) <= set(graph.steps)
        cases = reader.ask(asks.cases(scope))
        assert (cases.cases, cases.ended) == (FLOWS, FLOWS * 2 // 3)
        assert sum(cell.count for cell in reader.ask(asks.heat(scope))) == sum(map(len, paths.values()))
        assert sum(one.started for one in reader.ask(asks.throughput(scope, "day"))) == FLOWS
        assert all(0 <= queue.busy <= 1 for queue in reader.ask(asks.queues(scope)))
        assert {one.step for one in reader.ask(asks.rework(scope))} == set(graph.steps)
        assert reader.ask(asks.graph(scope_of("flows", "test/nothing"))).steps == {}
