"""Who gave each value of a flow, and what changed between two moments."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.errors import InputError
from projections.logged import Logged
from replay import blame as room
from replay import past
from replay.blame import ABSENT, Blamed, fold
from replay.flow import Log
from replay.moment import Moment, parse_moment
from schemas import messages as m
from tests.flows import Run
from tests.unit.replay_logs import order


def log_of(run: Run) -> Log:
    logged = [Logged(one.event, one.value, 1, 10 + at) for at, one in enumerate(run.log)]
    return Log(
        flow_id=run.flow_id, logged=logged, rejections=[], way="scan", why="", partition=1, records_read=9
    )


def test_each_value_has_the_event_that_gave_it() -> None:
    folded = fold(log_of(order("f-1")).logged)
    given = {change.pointer: (change.after, change.by.sequence, change.by.kind) for change in folded.blame()}
    assert given["/input/n"][1:] == (1, "FlowStarted")
    assert given["/context/paid"] == (True, 5, "TaskCompleted")
    assert given["/context/text"][1] == 1
    assert given["/status"][1:] == (8, "FlowCompleted")
    assert given["/output/sent/0"][1] == 8


def test_a_difference_names_place_values_and_cause() -> None:
    log = log_of(order("f-1"))
    told = past.difference(log, Moment(sequence=4), Moment(sequence=5))
    assert (told["from"], told["to"]) == (4, 5)
    paid = next(change for change in told["changes"] if change["path"] == "/context/paid")
    assert "before" not in paid
    assert paid["after"] is True
    assert paid["by"]["task"] == "/do/2/charge"
    assert past.difference(log, Moment(sequence=5), Moment(sequence=4)) == told
    assert past.difference(log, Moment(sequence=5), Moment(sequence=5))["changes"] == []
    now = past.difference(log, Moment(sequence=4), None)
    assert [event["sequence"] for event in now["events"]] == [5, 6, 7, 8]


def test_blame_is_asked_for_a_place_and_a_moment() -> None:
    log = log_of(order("f-1"))
    told = past.blame(log, "/context", Moment(sequence=4))
    assert {value["path"] for value in told["values"]} == {"/context/n", "/context/text"}
    with pytest.raises(
        InputError, match="Expected a value at /context/paid of flow f-1 but there is none then"
    ):
        past.blame(log, "/context/paid", Moment(sequence=4))
    with pytest.raises(InputError, match="Expected a JSON pointer"):
        past.blame(log, "context")


def test_a_moment_is_called_what_the_caller_calls_it() -> None:
    with pytest.raises(InputError, match="Expected the moment to be a sequence number"):
        parse_moment("yesterday", "the moment")


# -- the law --------------------------------------------------------------------------------------------------------

scalars = st.none() | st.booleans() | st.integers(0, 2) | st.sampled_from(["a", "b/c", "~"])
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["a", "b/c", "~"]), inner),
    max_leaves=8,
)


def by(sequence: int) -> Blamed:
    return Blamed(sequence, sequence, "TaskCompleted", "/do/0/a", 1, m.Actor("engine", ""), "c")


def resolved(value: Any, pointer: str) -> Any:
    """The value at `pointer` with the kinds of what is around it; ABSENT where there is none."""
    around = []
    for name in room._names(pointer):
        around.append(type(value))
        value = room._member(value, name)
    return ABSENT if value is ABSENT else (around, value)


def differs(one: Any, other: Any) -> bool:
    if one is ABSENT or other is ABSENT:
        return one is not other
    return bool(one[0] != other[0]) or not room._same(one[1], other[1])


@given(st.lists(values, min_size=1, max_size=6))
@settings(max_examples=300)
def test_the_blamed_event_is_the_last_one_that_changed_the_value(documents: list[Any]) -> None:
    node = room._Node(by(1), {})
    for at in range(1, len(documents)):
        node = room._updated(node, documents[at - 1], documents[at], by(at + 1))
    for change in room._leaves("", documents[-1], node, node.by):
        seen = [resolved(document, change.pointer) for document in documents]
        changed = [at + 1 for at in range(1, len(seen)) if differs(seen[at - 1], seen[at])]
        assert change.by.sequence == (changed[-1] if changed else 1)


@given(values, values)
def test_changes_applied_to_the_first_document_give_the_second(first: Any, second: Any) -> None:
    node = room._updated(room._Node(by(1), {}), first, second, by(2))
    changes = list(room._changes("", first, second, node, node.by))
    assert all(change.by.sequence == 2 for change in changes)
    assert (changes == []) == room._same(first, second)
    for change in changes:
        for document, value in ((first, change.before), (second, change.after)):
            found = resolved(document, change.pointer)
            assert (found is ABSENT) == (value is ABSENT)
            assert found is ABSENT or room._same(found[1], value)
