"""A batch: what is copied, how far positions move, and that nothing unreadable stops it or vanishes."""

from __future__ import annotations

import re

import pytest

from projections import copying
from projections.batch import fold_batch
from projections.logged import Record
from projections.statements import statements
from schemas import messages as m
from schemas.codec import encode_rejection
from tests.unit.projection_events import ALICE, START, Trail


def refusal(offset: int = 50, **given: object) -> Record:
    rejection = m.Rejection(
        **{
            "flow_id": "f-9",
            "time": START,
            "actor": ALICE,
            "cause": m.Cause("c-9", 3, 777),
            "command": "CompleteTask",
            "code": "unknown-flow",
            "reason": "Expected a flow but found none",
        }
        | given  # type: ignore[arg-type]
    )
    return Record(3, offset, b"f-9", encode_rejection(rejection), None)


def test_a_batch_has_one_line_a_flow_a_task_and_an_event_and_moves_past_gaps() -> None:
    folded = fold_batch([*Trail().order().records(), refusal()], {3: 10, 5: 7})
    assert [
        len(lines)
        for lines in (folded.flows, folded.tasks, folded.history, folded.rejections, folded.unreadable)
    ] == [1, 3, 6, 1, 0]
    assert set(folded.moves) == {3}
    move = folded.moves[3]
    assert (move.start, move.next_offset, move.command_offset, move.event_time) == (10, 51, 777, START)
    assert (folded.months, folded.records) == ({"2026-01"}, 7)


def test_records_before_the_position_are_left_out() -> None:
    folded = fold_batch(Trail().order().records(), {3: 15})
    assert (len(folded.history), folded.moves[3].start) == (2, 15)


@pytest.mark.parametrize(
    ("value", "code"),
    [
        (None, "no-value"),
        (b"", "unknown-framing"),
        (b"{}", "unknown-framing"),
        (b"\0\0\0\0\1garbage", "unknown-schema"),
        (Trail().order().records()[0].value[:-3], "undecodable"),  # type: ignore[index]
    ],
)
def test_what_cannot_be_decoded_is_kept_with_its_bytes_and_the_rest_goes_on(
    value: bytes | None, code: str
) -> None:
    trail = Trail().order()
    folded = fold_batch([*trail.records(), Record(3, 90, b"k", value, None)], {3: 10})
    assert len(folded.history) == 6
    assert folded.moves[3].next_offset == 91
    (line,) = folded.unreadable
    fields = line.rstrip("\n").split("\t")
    assert fields[:5] == ["3", "90", "\\\\x6b", copying.hexed(value), code]
    assert "Expected" in fields[5]


@pytest.mark.parametrize("payload", [b'"\xed\xa0\x80"', b'"\0"', b"\xff"])
def test_a_payload_that_no_text_can_hold_is_kept_as_unreadable(payload: bytes) -> None:
    trail = Trail()
    trail.add(m.FlowStarted(payload))
    folded = fold_batch(trail.records(), {3: 10})
    assert (folded.flows, folded.history, len(folded.unreadable)) == ([], [], 1)


def test_a_time_outside_the_calendar_is_kept_as_unreadable() -> None:
    trail = Trail(time=2**62)
    trail.add(m.FlowStarted(b"1"))
    assert "Expected a time from 1970 to 9999" in fold_batch(trail.records(), {3: 10}).unreadable[0]


def test_names_with_separators_cannot_break_a_line() -> None:
    trail = Trail("a\tb\\c\nd\re\0f")
    trail.add(
        m.FlowStarted(b'{"a":"\\t\\\\"}\n\t'), actor=m.Actor("user", "x\\N\t"), definition="a\tb", trace="\n"
    )
    trail.add(m.TaskScheduled("q\t", "f\n"), "/do/0/a\tb", 1, 1)
    folded = fold_batch([*trail.records(), refusal(reason="a\tb\0c\\")], {3: 10})
    assert folded.unreadable == []
    for table in ("flows", "tasks", "history", "rejections"):
        columns = re.search(rb"\((.*?)\)", statements("writes")[f"copy_{table}"], re.DOTALL)
        assert columns is not None
        for line in getattr(folded, table):
            assert line.count("\t") == columns[1].count(b",")
            assert line.count("\n") == 1


@pytest.mark.parametrize(
    ("microseconds", "text"),
    [
        (0, "1970-01-01 00:00:00.000000+00"),
        (START + 1, "2026-01-01 00:00:00.000001+00"),
        (1_799_999_999_999_999, "2027-01-15 07:59:59.999999+00"),
        (253_402_300_799_999_999, "9999-12-31 23:59:59.999999+00"),
    ],
)
def test_times_are_exact_to_the_microsecond(microseconds: int, text: str) -> None:
    assert copying.moment(microseconds) == text


def test_an_event_that_skips_one_is_folded_and_its_flow_broken() -> None:
    trail = Trail().order()
    folded = fold_batch([*trail.records()[:2], *trail.records()[3:]], {3: 10})
    assert [(one.flow_id, one.offset, one.found) for one in folded.broken] == [
        ("f-1", 13, "Expected event 3 but found event 4")
    ]
    assert folded.flows[0].split("\t")[7:9] == ["completed", "6"]


def test_an_event_from_before_is_kept_in_history_alone() -> None:
    trail = Trail().order()
    first, *others = trail.records()
    again = Record(first.partition, 90, first.key, first.value, None)
    folded = fold_batch([first, *others, again], {3: 10})
    assert [one.found for one in folded.broken] == ["Expected event 7 but found event 1"]
    assert (len(folded.history), folded.flows) == (7, fold_batch([first, *others], {3: 10}).flows)


def test_an_event_under_another_key_than_its_flow_is_kept_as_unreadable() -> None:
    (first, *_) = Trail().order().records()
    folded = fold_batch([Record(3, 10, b"f-2", first.value, None)], {3: 10})
    assert (folded.flows, folded.history) == ([], [])
    assert "Expected the record's key to be its flow id f-1 but found b'f-2'" in folded.unreadable[0]


def test_a_batch_says_where_each_flow_goes_on() -> None:
    trail = Trail().order()
    folded = fold_batch(trail.records(), {3: 14})
    follows, head = folded.flows[0].rstrip("\n").split("\t")[-2:]
    assert (follows, head) == ("4", copying.hexed(trail.logged[4].event.previous_hash))


def test_many_new_flows_are_copied_with_the_number_of_their_tasks_instead_of_merged() -> None:
    trails = [Trail(f"f-{number}", 3, number * 10).order() for number in range(200)]
    folded = fold_batch([record for trail in trails for record in trail.records()], {3: 0})
    assert (folded.flows, folded.tasks, len(folded.new_tasks)) == ([], [], 600)
    assert {line.rstrip("\n").split("\t")[-1] for line in folded.new_flows} == {"3"}


def test_a_flow_with_events_in_two_partitions_tears_the_batch() -> None:
    one, other = Trail("f-1", 3).order().records()[:2]
    assert fold_batch([one, Record(4, 10, other.key, other.value, None)], {3: 0, 4: 0}).torn
