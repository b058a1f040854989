"""The proof names what was done to a log: altered, dropped, swapped, copied, inserted, misplaced."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import pytest
from msgspec.structs import replace

from projections.logged import Record
from replay.findings import KEPT_MAX, Finding, LogReport
from replay.proof import Proof
from schemas import messages as m
from schemas.codec import encode_event
from tests.unit import whole_flows
from tests.unit.replay_logs import (
    ORDER,
    PARTITIONS,
    Definitions,
    event,
    order,
    placed,
    records,
    rejection,
    with_body,
)


def prove(found: list[Record], *definitions: object) -> LogReport:
    proof = Proof(Definitions(ORDER) if not definitions else Definitions(), PARTITIONS)
    for record in placed(found):
        proof.take(record)
    return proof.finish()


def only(report: LogReport) -> Finding:
    (finding,) = report.different
    assert report.different_count == 1
    return finding


def test_a_true_log_is_proved_flow_by_flow_whether_they_ended_or_not() -> None:
    first, second = records(order("f-1")), records(order("f-2", n=20, end=False))
    mixed = [record for pair in zip(first, second, strict=False) for record in pair] + first[len(second) :]
    report = prove([*mixed, rejection("f-1")])
    assert (report.flows, report.verified, report.events, report.rejections) == (2, 2, 14, 1)
    assert report.different == []


def test_a_flow_of_an_unpublished_definition_is_a_difference() -> None:
    finding = only(prove(records(order("f-1")), None))
    assert (finding.kind, finding.sequence) == ("decision", 1)
    assert "test/order@1.0.0" in finding.text
    assert "not published" in finding.text


def test_an_altered_value_is_named_where_it_was_altered() -> None:
    run = order("f-1")
    log = records(run)
    log[1] = event(with_body(run, 2, m.TaskCompleted(output=b'{"n":3,"text":"a"}')), "f-1")
    finding = only(prove(log))
    assert (finding.kind, finding.sequence, finding.offset) == ("decision", 2, 1)
    assert '{"n":2,"text":"a"}' in finding.text
    assert '{"n":3,"text":"a"}' in finding.text
    assert "event 3 holds another hash of it" in finding.text


def test_the_last_value_altered_is_found_by_deciding_again() -> None:
    run = order("f-1")
    log = records(run)
    log[-1] = event(with_body(run, 8, m.FlowCompleted(b'{"sent":[1]}')), "f-1")
    finding = only(prove(log))
    assert (finding.kind, finding.sequence, finding.offset) == ("decision", 8, 7)


def test_an_altered_result_of_a_worker_shows_in_what_was_concluded_from_it() -> None:
    run = order("f-1", end=False)
    altered = records(run)
    body = run.log[4].event.body
    assert isinstance(body, m.TaskCompleted)
    altered[4] = event(with_body(run, 5, replace(body, result=b'{"n":1,"amount":99}')), "f-1")
    finding = only(prove(altered))
    assert (finding.kind, finding.sequence) == ("chain", 6)
    assert finding.text.endswith("event 5 or this one was altered")


def test_an_altered_hash_is_found() -> None:
    run = order("f-1")
    log = records(run)
    log[5] = event(encode_event(replace(run.log[5].event, previous_hash=b"\x07" * 32)), "f-1")
    finding = only(prove(log))
    assert (finding.kind, finding.sequence) == ("chain", 6)


@pytest.mark.parametrize(
    ("harm", "at", "words"),
    [
        (lambda log: log.pop(3), 5, "event 4 is not in the log"),
        (lambda log: log.insert(4, log.pop(3)), 5, "event 4 follows at offset 4, out of order"),
        (lambda log: log.insert(4, log[3]), 4, "a copy of the record at offset 3"),
        (lambda log: log.append(log[7]), 8, "Expected no event after the flow's end (event 8)"),
        (lambda log: log.insert(0, log[3]), 4, "Expected event 1 but found 4"),
    ],
)
def test_a_record_dropped_swapped_or_copied_is_named(
    harm: Callable[[list[Record]], None], at: int, words: str
) -> None:
    log = records(order("f-1"))
    harm(log)
    finding = only(prove([*log, *records(order("f-2"))]))
    assert (finding.flow_id, finding.kind, finding.sequence) == ("f-1", "sequence", at)
    assert words in finding.text


def test_an_inserted_event_that_fits_the_chain_is_found_by_what_comes_after_it() -> None:
    run = order("f-1")
    last = run.log[3]
    forged = replace(
        last.event,
        sequence=5,
        previous_hash=hashlib.sha256(last.value).digest(),
        cause=m.Cause("forged", 0, 99),
        task="/do/0/prepare",
        body=m.TaskCompleted(output=b"{}"),
    )
    log = records(run)
    log.insert(4, event(encode_event(forged), "f-1"))
    report = prove(log)
    assert (report.verified, report.different_count) == (0, 1)
    finding = only(report)
    assert finding.offset in (4, 5)


def test_a_whole_forged_decision_at_the_end_is_decided_again() -> None:
    run = order("f-1", end=False)
    last = run.log[-1]
    forged = replace(
        last.event,
        sequence=last.event.sequence + 1,
        previous_hash=hashlib.sha256(last.value).digest(),
        cause=m.Cause("forged", 0, 99),
        task=None,
        run=0,
        attempt=0,
        body=m.FlowCompleted(b"{}"),
    )
    finding = only(prove([*records(run), event(encode_event(forged), "f-1")]))
    assert (finding.kind, finding.sequence) == ("cause", forged.sequence)


def test_a_record_in_the_wrong_partition_is_named_with_the_right_one() -> None:
    log = records(order("f-1"))
    home = log[0].partition
    stray = (home + 1) % PARTITIONS
    report = prove([*log, event(log[0].value or b"", "f-1", stray)])
    finding = only(report)
    assert (finding.kind, finding.partition) == ("partition", stray)
    assert finding.text == f"Expected partition {home} but found {stray}"
    mingled = prove([log[0], event(log[0].value or b"", "f-1", stray), *log[1:]])
    assert only(mingled).kind == "partition"


def test_a_flow_wholly_in_the_wrong_partition_is_not_verified() -> None:
    run = order("f-1")
    home = records(run)[0].partition
    stray = (home + 1) % PARTITIONS
    report = prove([event(stored.value, "f-1", stray) for stored in run.log])
    assert (report.flows, report.verified, report.different_count) == (0, 0, 8)
    assert report.different[0].text == f"Expected partition {home} but found {stray}"


def test_bytes_that_are_no_event_are_named_with_their_place() -> None:
    log = records(order("f-1"))
    log[4] = event(b"\x00garbage", "f-1")
    report = prove(log)
    unreadable, gap = report.different
    assert (unreadable.kind, unreadable.offset, unreadable.flow_id) == ("unreadable", 4, "f-1")
    assert "event 5 is not in the log" in gap.text
    assert report.verified == 0


def test_a_record_under_another_key_is_named() -> None:
    log = records(order("f-1"))
    log[2] = Record(log[2].partition, -1, b"f-9", log[2].value, log[2].fingerprint)
    finding = only(prove(log))
    assert finding.kind == "key"
    assert "b'f-9'" in finding.text


def test_a_payload_that_is_no_json_is_a_difference_and_no_traceback() -> None:
    run = order("f-1", end=False)
    log = records(run)
    log[0] = event(with_body(run, 1, m.FlowStarted(b"{", engine_version="0")), "f-1")
    finding = only(prove(log))
    assert finding.sequence in (1, 2)


def test_findings_beyond_what_is_kept_are_counted() -> None:
    report = LogReport()
    for number in range(KEPT_MAX + 5):
        report.add(Finding(f"f-{number}", "chain", "", 1, 0, number))
    report.merge(LogReport(different_count=1, different=[Finding("g", "chain", "", 1, 0, 0)]))
    assert (report.different_count, len(report.different)) == (KEPT_MAX + 6, KEPT_MAX)


def test_flows_of_every_kind_of_task_are_proved_wherever_they_stand() -> None:
    runs = whole_flows.every()
    proof = Proof(Definitions(*whole_flows.DEFINITIONS.values()), PARTITIONS)
    for record in placed([record for run in runs for record in records(run)]):
        proof.take(record)
    report = proof.finish()
    assert report.different == []
    assert (report.flows, report.verified) == (len(runs), len(runs))


def test_a_dropped_event_of_any_kind_is_missed() -> None:
    for run in whole_flows.every()[:-1]:
        log = records(run)
        for dropped in range(1, len(log) - 1):
            proof = Proof(Definitions(*whole_flows.DEFINITIONS.values()), PARTITIONS)
            for record in placed(log[:dropped] + log[dropped + 1 :]):
                proof.take(record)
            finding = proof.finish().different[0]
            assert (finding.kind, finding.sequence) == ("sequence", dropped + 2), finding
