"""The folds: what events make of the rows of flows and tasks, and of a line of history."""

from __future__ import annotations

import json
from hashlib import sha256

import pytest

from projections import flows, history, tasks
from projections.copying import Unstorable
from schemas import messages as m
from tests.unit.projection_events import ALICE, START, WORKER, Trail


def folded_flow(trail: Trail) -> flows.FlowRow:
    row = None
    for logged in trail.logged:
        row = flows.fold(row, logged)
    assert row is not None
    return row


def folded_tasks(trail: Trail) -> dict[tuple[str, int], tasks.TaskRow]:
    rows: dict[tasks.Key, tasks.TaskRow] = {}
    for logged in trail.logged:
        for key in tasks.keys_of(logged.event):
            rows[key] = tasks.fold(rows.get(key), logged, key)
    return {(key[1], key[2]): row for key, row in rows.items()}


def test_a_completed_flow_has_its_first_facts_and_its_last() -> None:
    row = folded_flow(trail := Trail().order())
    assert (row.status, row.sequence, row.started_at, row.ended_at) == (
        "completed",
        6,
        START + 1_000,
        START + 6_000,
    )
    assert (row.actor, row.command_id, row.first_offset, row.last_offset) == (ALICE, "c-f-1-1", 10, 17)
    assert (row.input, row.transformed, row.context, row.output) == (
        b'{"n":1}',
        b'{"n": 1, "x": []}',
        b'{"c":1}',
        b'{"paid":true}',
    )
    assert trail.head.hex() in flows.line(row)


def test_a_row_that_begins_in_the_middle_leaves_unknown_what_earlier_events_said() -> None:
    row = flows.fold(None, Trail().order().logged[3])
    assert (row.status, row.input, row.context, row.ended_at, row.sequence) == (None, None, None, None, 4)


def test_a_faulted_flow_keeps_the_error_as_problem_details() -> None:
    trail = Trail()
    trail.add(m.FlowStarted(b"1"))
    trail.add(m.FlowFaulted(m.Error("about:blank", 500, detail='a "quoted"\nline', instance="/do/0/x")))
    row = folded_flow(trail)
    assert row.status == "faulted"
    assert json.loads(row.error or b"") == {
        "type": "about:blank",
        "status": 500,
        "detail": 'a "quoted"\nline',
        "instance": "/do/0/x",
    }


def test_a_cancelled_and_a_suspended_flow_keep_their_reason() -> None:
    for body, status, ended in (
        (m.FlowCancelled("no stock"), "cancelled", True),
        (m.FlowSuspended("no stock", b"\0"), "suspended", False),
    ):
        trail = Trail()
        trail.add(m.FlowStarted(b"1"))
        trail.add(body)
        row = folded_flow(trail)
        assert (row.status, row.reason, row.ended_at is not None) == (status, "no stock", ended)


def test_tasks_have_one_row_a_run_with_who_ended_it() -> None:
    rows = folded_tasks(Trail().order())
    charge = rows["/do/2/charge", 1]
    assert (charge.kind, charge.queue, charge.function, charge.status) == (
        "call",
        "default",
        "charge",
        "completed",
    )
    assert (charge.scheduled_sequence, charge.ended_sequence, charge.actor) == (4, 5, WORKER)
    assert (charge.ended_at or 0) - (charge.scheduled_at or 0) == 1_000
    assert (rows["/do/1/route", 1].kind, rows["/do/1/route", 1].branch) == ("switch", "gold")
    assert (rows["/do/0/prepare", 1].scheduled_at, rows["/do/0/prepare", 1].output) == (None, b'{"n":2}')


def test_a_task_run_twice_has_two_rows_and_other_ends_have_their_status() -> None:
    trail = Trail()
    trail.add(m.FlowStarted(b"1"))
    trail.add(m.TaskStarted(), "/do/0/loop", 1, 1)
    trail.add(m.TaskCompleted(), "/do/0/loop", 1, 1)
    trail.add(m.TaskStarted(), "/do/0/loop", 2, 1)
    trail.add(m.TaskSkipped(), "/do/0/loop/do/0/a")
    trail.add(m.TaskFaulted(m.Error("t", 400)), "/do/0/loop", 2, 1)
    trail.add(m.TaskScheduled("q", "f"), "/do/1/b", 1, 1)
    trail.add(m.TaskCancelled(), "/do/1/b", 1, 1)
    assert {key: row.status for key, row in folded_tasks(trail).items()} == {
        ("/do/0/loop", 1): "completed",
        ("/do/0/loop", 2): "faulted",
        ("/do/0/loop/do/0/a", 0): "skipped",
        ("/do/1/b", 1): "cancelled",
    }


def test_history_keeps_payloads_as_they_are_and_bytes_as_base64() -> None:
    body = m.TaskCompleted(result=b'{"b": 1.0,"a":1e400, "b":"\\ud800\\u0000"}', branch=None)
    assert history.body_json(body) == b'{"result":{"b": 1.0,"a":1e400, "b":"\\ud800\\u0000"}}'
    assert history.body_json(m.FlowSuspended("why", b"\0\xff")) == b'{"reason":"why","command":"AP8="}'
    assert history.body_json(m.TaskSkipped()) == b"{}"


def test_a_claim_is_not_storable() -> None:
    with pytest.raises(Unstorable, match="Expected an inline payload but found a claim on s3://x"):
        history.body_json(m.FlowCompleted(m.Claim("s3://x", b"", 1)))


def test_the_head_of_a_row_is_the_hash_of_the_last_stored_event() -> None:
    trail = Trail()
    last = trail.add(m.FlowStarted(b"1"))
    assert sha256(last.value).hexdigest() in flows.line(folded_flow(trail))


def rows_of(*bodies: tuple[m.EventBody, str, int, int]) -> dict[tuple[str, int, int], tasks.TaskRow]:
    trail = Trail()
    trail.add(m.FlowStarted(b"1"))
    for body, task, run, attempt in bodies:
        trail.add(body, task, run, attempt)
    rows: dict[tasks.Key, tasks.TaskRow] = {}
    for logged in trail.logged:
        for key in tasks.keys_of(logged.event):
            rows[key] = tasks.fold(rows.get(key), logged, key)
    return {key[1:]: row for key, row in rows.items()}


def test_a_retry_ends_one_attempt_and_begins_another() -> None:
    error = m.Error("about:blank", 503)
    rows = rows_of(
        (m.TaskStarted(kind="try"), "/do/0/t", 1, 1),
        (m.TaskRetried(error, START + 9_000_000), "/do/0/t", 1, 2),
        (m.TimerFired("retry", START + 9_000_000), "/do/0/t", 1, 2),
        (m.TaskCompleted(), "/do/0/t", 1, 2),
    )
    first, second = rows["/do/0/t", 1, 1], rows["/do/0/t", 1, 2]
    assert (first.status, first.kind, first.ended_sequence) == ("retried", "try", 3)
    assert (second.status, second.scheduled_sequence, second.ended_sequence) == ("completed", 3, 5)
    assert (second.due, second.due_for) == (START + 9_000_000, "retry")


def test_rows_tell_what_a_task_waits_for_and_how_far_it_is() -> None:
    rows = rows_of(
        (m.TaskStarted(due=START + 5, kind="wait", purpose="wait"), "/do/0/w", 1, 1),
        (m.TaskScheduled("q", "f", due=START + 7, priority="high"), "/do/1/c", 1, 1),
        (m.TaskProgressed(b"0.5", START + 8), "/do/1/c", 1, 1),
        (m.SubflowStarted("f-1.4", "ns/n"), "/do/2/s", 1, 1),
        (m.TaskStarted(items=b"[1]", kind="for"), "/do/3/l", 1, 1),
        (m.TaskIterated(0), "/do/3/l", 1, 1),
        (m.TaskScheduled("", "approval"), "/do/4/a", 1, 1),
    )
    assert (rows["/do/0/w", 1, 1].status, rows["/do/0/w", 1, 1].due) == ("waiting", START + 5)
    call = rows["/do/1/c", 1, 1]
    assert (call.kind, call.priority, call.progress, call.due) == ("call", "high", b"0.5", START + 8)
    assert rows["/do/2/s", 1, 1].child == "f-1.4"
    assert rows["/do/3/l", 1, 1].iteration == 0
    assert (rows["/do/4/a", 1, 1].kind, rows["/do/4/a", 1, 1].queue) == ("approval", "")
