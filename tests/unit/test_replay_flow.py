"""A flow folded up to a moment, as JSON and as lines, and rows folded from it; without any server."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from engine.errors import InputError
from projections.logged import Logged
from replay.flow import BrokenFlow, Rebuilt, fold_until
from replay.moment import Moment
from replay.processes import share
from replay.rows import FLOWS, HISTORY, TASKS, as_copied, differences, fold
from replay.showing import document, lines, raw
from schemas import messages as m
from tests.flows import Run
from tests.unit import whole_flows
from tests.unit.replay_logs import order


def logged(run: Run) -> list[Logged]:
    return [Logged(one.event, one.value, 1, 10 + at) for at, one in enumerate(run.log)]


def rebuilt(run: Run, until: Moment | None = None) -> Rebuilt:
    live, state, head, kept = fold_until(run.flow_id, logged(run), until)
    return Rebuilt(
        live=live,
        state=state,
        head=head,
        logged=kept,
        events_in_log=len(run.log),
        rejections=[],
        until=until,
        way="scan",
        why="the index was not to be used",
        partition=1,
        records_read=99,
    )


def shown(run: Run, until: Moment | None = None) -> dict[str, Any]:
    result = json.loads(msgspec.json.encode(document(rebuilt(run, until))))
    assert isinstance(result, dict)
    return result


def test_an_ended_flow_shows_what_its_end_dropped() -> None:
    flow = shown(order("f-1"))
    assert (flow["status"], flow["sequence"], flow["active"]) == ("completed", 8, [])
    assert flow["output"] == {"sent": [1, 2]}
    assert flow["data"] == {"sent": [1, 2]}
    assert flow["context"] == {"n": 1, "text": "a", "paid": True}
    assert flow["ended_at"] == flow["updated_at"]
    assert [e["sequence"] for e in flow["events"]] == list(range(1, 9))


def test_every_moment_of_a_flow_is_the_state_the_engine_had_then() -> None:
    run = order("f-1")
    for sequence in range(1, 8):
        flow = shown(run, Moment(sequence=sequence))
        assert (flow["sequence"], flow["status"], flow["output"]) == (sequence, "running", None)
    waiting = shown(run, Moment(sequence=4))
    assert [task["task"] for task in waiting["active"]] == ["/do/2/charge"]
    assert waiting["data"] == {"n": 2, "text": "a"}
    assert waiting["events_in_log"] == 8
    assert "4 (4 later events in the log)" in "\n".join(lines(rebuilt(run, Moment(sequence=4))))


def test_a_time_includes_the_events_of_that_very_time() -> None:
    run = order("f-1")
    at = run.log[3].event.time
    assert shown(run, Moment(time=at))["sequence"] == 4
    with pytest.raises(InputError, match="before its first event"):
        rebuilt(run, Moment(time=run.log[0].event.time - 1))


def test_a_sequence_beyond_the_log_is_refused() -> None:
    with pytest.raises(InputError, match="Expected an event from 1 to 8 of f-1 but found 9"):
        rebuilt(order("f-1"), Moment(sequence=9))


def test_faults_cancellations_and_refusals_are_told() -> None:
    run = order("f-1", end=False)
    run.fail("/do/3/ship", m.Error("urn:x", 500, "Boom", "it fell"))
    flow = shown(run)
    assert (flow["status"], flow["error"]["title"]) == ("faulted", "Boom")
    run = order("f-2", end=False)
    run.cancel("no longer wanted")
    found = rebuilt(run)
    found.rejections = [
        m.Rejection(
            "f-2",
            1,
            m.Actor("user", "u"),
            m.Cause("c", 0, 0),
            "CancelFlow",
            "flow-ended",
            "Expected it to run",
        )
    ]
    text = "\n".join(lines(found))
    assert "no longer wanted" in text
    assert "CancelFlow: Expected it to run" in text
    assert "by a full scan of its partition, the index was not to be used: 99 records" in text


def test_a_broken_log_is_reported_with_its_place() -> None:
    run = order("f-1")
    del run.log[3]
    with pytest.raises(BrokenFlow, match=r"breaks at event 5 \(partition 1, offset 13\)") as caught:
        rebuilt(run)
    assert caught.value.exit_code == 1


def test_payloads_are_spliced_as_they_are_and_what_is_no_json_is_text() -> None:
    assert msgspec.json.encode(raw(b'{"b":1.50,"a":[ ]}')) == b'{"b":1.50,"a":[ ]}'
    assert raw(b"{\xff") == "{\N{REPLACEMENT CHARACTER}"


def test_rows_are_the_projections_own_and_compare_equal_to_themselves() -> None:
    expected = fold(logged(order("f-1", text="tab\t nl\n \\ \x08")))
    assert (len(expected.flows), len(expected.tasks), len(expected.history)) == (1, 4, 8)
    for table, found in ((FLOWS, expected.flows), (TASKS, expected.tasks), (HISTORY, expected.history)):
        copied = as_copied(found)
        assert len({len(line.split("\t")) for line in copied} | {len(table.columns)}) == 1
        assert list(differences(table, copied, list(reversed(copied)))) == []


def test_a_row_that_differs_is_missing_or_is_too_many_is_named_with_its_columns() -> None:
    expected = as_copied(fold(logged(order("f-1"))).tasks)
    changed = [line.replace("completed", "faulted") for line in expected[:1]]
    (finding,) = differences(TASKS, expected, [*changed, *expected[1:]])
    assert (finding.flow_id, finding.table) == ("f-1", "tasks")
    assert finding.key.startswith("f-1 /do/0/prepare 1 ")
    assert finding.text == "Expected status 'completed' but found 'faulted'"
    (missing,) = differences(TASKS, expected, expected[1:])
    assert missing.text == "Expected a row but found none"
    (extra,) = differences(TASKS, expected[1:], expected)
    assert extra.text.startswith("Expected no row")
    (double,) = differences(TASKS, expected, [*expected, expected[0]])
    assert double.text == "Expected one row but found another of the same key"


def test_a_claim_has_no_row() -> None:
    run = order("f-1")
    first = run.log[0].event
    body = m.FlowStarted(m.Claim("s3://x", b"", 1))
    expected = fold([Logged(msgspec.structs.replace(first, body=body), b"", 1, 7)])
    assert expected.unstorable == [7]
    assert expected.flows == []


def test_partitions_are_shared_out_evenly() -> None:
    assert share({0: 10, 1: 1, 2: 9, 3: 2}, 2) == [[0, 1], [2, 3]]
    assert share({0: 10, 1: 1}, 8) == [[0], [1]]
    assert share({0: 0}, 1) == [[0]]


def test_a_flow_that_waits_shows_for_what_and_until_when() -> None:
    run = whole_flows.trip(end=False)
    flow = shown(run)
    assert (flow["status"], flow["waits"], flow["parent"]) == ("running", True, None)
    (rest,) = flow["active"]
    assert (rest["task"], rest["due_for"]) == ("/do/2/rest", "wait")
    assert flow["deadline"] < rest["due"]
    assert [undo["task"] for undo in flow["compensations"]] == ["/do/0/hotel", "/do/1/flight"]
    text = "\n".join(lines(rebuilt(run)))
    assert f"/do/2/rest (run 1, wait until {rest['due']})" in text
    assert "for events, times or people alone" in text


def test_a_listen_a_loop_a_retry_and_a_sub_flow_are_shown_at_any_moment() -> None:
    run = whole_flows.events()
    listening = shown(run, Moment(sequence=_first(run, "TaskIterated")))
    some = listening["active"][0]
    assert (some["task"], some["filters"], some["iteration"]) == ("/do/2/some", [0], 0)
    assert [result["key"] for result in some["results"]] == ["0"]
    assert listening["parent"] == {"flow_id": "parent-1", "task": "/do/0/sub", "run": 1, "attempt": 1}
    waiting = shown(run, Moment(sequence=_first(run, "SubflowStarted")))
    assert (waiting["active"][0]["child"], waiting["waits"]) == ("events.30", False)
    run = whole_flows.retries()
    retried = rebuilt(run, Moment(sequence=_first(run, "TaskRetried")))
    assert "/do/1/outer (run 1, attempt 2, retry until " in "\n".join(lines(retried))
    suspended = shown(run, Moment(sequence=_first(run, "FlowSuspended")))
    assert (suspended["status"], suspended["reason"]) == ("suspended", "Down")
    assert suspended["active"][0]["queue"] == "default"
    run = whole_flows.long()
    yielded = shown(run, Moment(sequence=_first(run, "FlowYielded")))
    assert (yielded["ready"], yielded["waits"]) == (["/do/0/loop/do/0/a"], False)


def _first(run: Run, kind: str) -> int:
    return next(stored.event.sequence for stored in run.log if stored.event.kind == kind)
