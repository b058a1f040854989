"""The read models of every kind of task on a real Postgres: however the log is cut into batches, the rows are the same."""

from __future__ import annotations

import random
from collections.abc import Iterable
from itertools import pairwise

import pytest

from projections import queries
from projections.batch import fold_batch
from projections.logged import Record
from projections.migrations import migrate
from projections.readers import SyncReader
from projections.store import Store
from replay.readmodel import Comparison, Snapshot
from tests.flows import Run
from tests.integration.projection_log import rows
from tests.unit.whole_flows import RETRIES, branches, events, every, logged, retries, trip

TOPIC = "t.events"
RUNS = every()


def records(runs: Iterable[Run]) -> list[Record]:
    """The flows one after the other in one partition."""
    found: list[Record] = []
    for run in runs:
        for stored in run.log:
            found.append(Record(0, len(found), run.flow_id.encode(), stored.value, None))
    return found


def project(database: str, log: list[Record], cuts: Iterable[int] = ()) -> None:
    """Writes the log in batches that end before each of `cuts`."""
    migrate(database)
    store = Store(database, TOPIC)
    try:
        store.prepare()
        for start, end in pairwise(sorted({0, len(log), *cuts})):
            folded = fold_batch(log[start:end], store.positions([0]))
            assert folded.unreadable == []
            assert store.apply(folded)
    finally:
        store.close()


def differences(database: str, runs: Iterable[Run]) -> list[str]:
    """What `replay verify` finds of the read model."""
    at = 0
    with Snapshot(database, TOPIC) as snapshot:
        comparison = Comparison(database, snapshot.cut, 0, 1_000_000)
        try:
            for run in runs:
                comparison.flow(run.flow_id, logged(run, first=at))
                at += len(run.log)
            report = comparison.finish(set())
        finally:
            comparison.close()
    assert report.rows > 0
    return [f"{finding.table} {finding.key}: {finding.text}" for finding in report.different]


@pytest.mark.parametrize("seed", range(3))
def test_rows_do_not_depend_on_where_a_batch_ends(database: str, seed: int) -> None:
    log = records(RUNS)
    small = sum(len(run.log) for run in RUNS[:-1])
    cuts = random.Random(seed).sample(range(1, small), small // 3)
    project(database, log, cuts)
    assert differences(database, RUNS) == []


def test_rows_of_one_batch_and_of_a_batch_an_event_are_the_same(database: str) -> None:
    runs = RUNS[:-1]
    log = records(runs)
    project(database, log, range(len(log)))
    assert differences(database, runs) == []


def test_an_altered_row_is_found(database: str) -> None:
    runs = [retries()]
    project(database, records(runs))
    rows(
        database,
        "UPDATE flowtrail.tasks SET due_at = due_at + interval '1 s' WHERE due_for = 'attempt' RETURNING 1",
    )
    assert any("Expected due_at" in text for text in differences(database, runs))


def test_tasks_are_read_with_their_attempts_progress_and_outputs(database: str) -> None:
    project(database, records([retries(), events(), branches()]))
    with SyncReader(database) as reader:
        found = {
            (task.task, task.run, task.attempt): task for task in reader.ask(queries.tasks_of("retries"))
        }
        attempts = [found["/do/1/outer", 1, n] for n in (1, 2, 3)]
        assert [a.status for a in attempts] == ["retried", "retried", "completed"]
        assert [a.kind for a in attempts] == ["try"] * 3
        assert [bytes(a.input or b"") for a in attempts] == [b'{"n":2}'] * 3
        silent = [found["/do/2/silent", 1, n] for n in (1, 2, 3)]
        assert [s.status for s in silent] == ["retried", "retried", "completed"]
        assert bytes(silent[0].progress or b"") == b'{"done":0.5}'
        assert found["/do/3/loop", 1, 1].iteration == 1
        listened = {task.task: task for task in reader.ask(queries.tasks_of("events"))}
        assert bytes(listened["/do/2/some"].output or b"") == b'[{"did":"A"},{"did":"B"}]'
        assert bytes(listened["/do/3/stop"].output or b"") == b'["{\\"n\\":1}"]'
        assert (listened["/do/5/sure"].kind, listened["/do/7/big"].kind) == ("approval", "decision")
        assert listened["/do/6/child"].child == "events.30"
        split = next(t for t in reader.ask(queries.tasks_of("branches")) if t.name == "split")
        assert bytes(split.output or b"") == b'{"all":["two",{"n":1},{"n":1}]}'


def test_a_flow_that_only_waits_is_waiting_and_one_whose_task_a_worker_has_is_running(database: str) -> None:
    waiting, working = trip("f-waiting", end=False), Run(RETRIES, "f-working")
    working.start({})
    child = events("f-child")
    project(database, records([waiting, working, child]))
    with SyncReader(database) as reader:
        flow = reader.ask(queries.get_flow("f-waiting"))
        assert flow is not None
        assert (flow.status, flow.active) == ("waiting", ["/do/2/rest"])
        assert flow.deadline_at is not None
        listed = reader.ask(queries.list_flows(status="waiting")).items
        assert [flow.id for flow in listed] == ["f-waiting"]
        listed = reader.ask(queries.list_flows(status="running")).items
        assert [flow.id for flow in listed] == ["f-working"]
        assert reader.ask(queries.counts_by_status("test/trip")) == {"waiting": 1}
        sub = reader.ask(queries.list_flows(parent="parent-1")).items
        assert [flow.id for flow in sub] == ["f-child"]
        flow = reader.ask(queries.get_flow("f-child"))
        assert flow is not None
        assert (flow.parent_flow, flow.parent_task, flow.reason) == ("parent-1", "/do/0/sub", None)
