"""The folds: what events make of the rows of flows and tasks, and of a line of history."""

from __future__ import annotations

import json
from hashlib import sha256

import pytest

from projections import flows, history, tasks
from projections.copying import Unstorable
from schemas import messages as m
from tests.unit import whole_flows
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


def test_an_approval_and_a_listen_wait_and_a_caught_error_stays() -> None:
    rows = rows_of(
        (m.TaskScheduled("", "approval", arguments=b"{}"), "/do/0/a", 1, 1),
        (m.ListenStarted(None, START + 9, ()), "/do/1/l", 1, 1),
        (m.TaskStarted(kind="try"), "/do/2/t", 1, 1),
        (m.TaskCaught(m.Error("about:blank", 503)), "/do/2/t", 1, 1),
        (m.DecisionMade("size", b"{}"), "/do/3/d", 1, 1),
        (m.TaskCompleted(output=b"1"), "/do/3/d", 1, 1),
        (m.EventEmitted(b"{}"), "/do/4/e", 1, 1),
    )
    assert [rows[task, 1, 1].status for task in ("/do/0/a", "/do/1/l")] == ["waiting", "waiting"]
    assert rows["/do/1/l", 1, 1].deadline == START + 9
    caught = rows["/do/2/t", 1, 1]
    assert (caught.status, json.loads(caught.error or b"")["status"]) == ("running", 503)
    decided = rows["/do/3/d", 1, 1]
    assert (decided.kind, decided.function, decided.status) == ("decision", "size", "completed")
    assert rows["/do/4/e", 1, 1].kind == "emit"


def test_a_call_that_was_given_up_waits_for_its_next_attempt() -> None:
    rows = rows_of(
        (m.TaskScheduled("q", "f"), "/do/0/c", 1, 1),
        (m.TaskRetried(m.Error("about:blank", 408)), "/do/0/c", 1, 2),
        (m.TaskScheduled("q", "f"), "/do/0/c", 1, 2),
    )
    assert [rows["/do/0/c", 1, n].status for n in (1, 2)] == ["retried", "scheduled"]
    assert rows["/do/0/c", 1, 2].scheduled_sequence == 3


def test_a_flow_knows_its_parent_its_deadline_and_why_it_is_suspended() -> None:
    trail = Trail()
    trail.add(m.FlowStarted(b"1", parent=m.Parent("p-1", "/do/0/s", 2, 1), deadline=START + 60_000_000))
    trail.add(m.FlowSuspended("a moment", b""))
    row = folded_flow(trail)
    assert (row.status, row.reason) == ("suspended", "a moment")
    assert flows.line(row).endswith("\tp-1\t/do/0/s\t2026-01-01 00:01:00.000000+00\n")
    trail.add(m.FlowResumed())
    assert (folded_flow(trail).status, folded_flow(trail).reason) == ("running", "")
    trail.add(m.FlowCompensating(reason="enough"))
    assert folded_flow(trail).status == "compensating"


def test_a_due_time_beyond_every_calendar_is_the_last_one() -> None:
    rows = rows_of((m.TaskStarted(due=2**62, kind="wait", purpose="wait"), "/do/0/w", 1, 1))
    assert "9999-12-31 23:59:59.999999+00" in tasks.line(rows["/do/0/w", 1, 1])


def test_history_says_of_events_of_the_first_version_what_it_always_said() -> None:
    assert history.body_json(m.TaskScheduled("q", "f")) == b'{"queue":"q","function":"f"}'
    assert history.body_json(m.TaskStarted()) == b"{}"
    assert history.body_json(m.FlowStarted(b"1")) == b'{"input":1,"engine_version":""}'
    assert history.body_json(m.TaskCompleted(branch="x")) == b'{"branch":"x"}'


def test_history_shows_json_within_a_body_as_json() -> None:
    listening = m.ListenStarted(
        None, 0, (m.Subscription(0, "~correlation/a", b'["x"]'), m.Subscription(1, "k"))
    )
    assert json.loads(history.body_json(listening))["subscriptions"] == [
        {"filter": 0, "key": "~correlation/a", "expected": ["x"]},
        {"filter": 1, "key": "k"},
    ]
    consumed = json.loads(history.body_json(m.EventConsumed(0, b'{"id":"e"}', keys=b'{"order":1}')))
    assert consumed == {"filter": 0, "event": {"id": "e"}, "keys": {"order": 1}}
    made = json.loads(history.body_json(m.DecisionMade("size", b'{"matched":[1]}')))
    assert made["explanation"] == {"matched": [1]}


def test_every_event_has_a_body_that_is_json() -> None:
    for run in whole_flows.every():
        for one in whole_flows.logged(run):
            assert isinstance(json.loads(history.body_json(one.event.body)), dict)
