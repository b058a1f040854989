"""The codec: every message survives, byte for byte, and what is no message is named."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas import messages as m
from schemas.codec import (
    Undecodable,
    decode_command,
    decode_definition,
    decode_logged,
    decode_snapshot,
    decode_task,
    encode_command,
    encode_definition,
    encode_event,
    encode_rejection,
    encode_snapshot,
    encode_task,
)
from schemas.registry import newest

text = st.text(max_size=20)
number = st.integers(0, 2**31 - 1)
count = st.integers(0, 2**62)
payload = st.one_of(st.binary(max_size=40), st.builds(m.Claim, text, st.binary(max_size=32), count))
error = st.builds(m.Error, text, number, st.none() | text, st.none() | text, st.none() | text)
actor = st.builds(m.Actor, st.sampled_from(["user", "worker", "timer", "event", "engine"]), text)
cause = st.builds(m.Cause, text, number, count)
maybe = st.none() | payload

BODIES: dict[type, st.SearchStrategy[Any]] = {
    m.FlowStarted: st.builds(m.FlowStarted, payload, maybe, text),
    m.FlowCompleted: st.builds(m.FlowCompleted, payload),
    m.FlowFaulted: st.builds(m.FlowFaulted, error),
    m.FlowCancelled: st.builds(m.FlowCancelled, st.none() | text),
    m.FlowSuspended: st.builds(m.FlowSuspended, text, st.binary(max_size=20)),
    m.CommandParked: st.builds(m.CommandParked, st.binary(max_size=20)),
    m.TaskScheduled: st.builds(m.TaskScheduled, text, text, maybe, maybe),
    m.TaskStarted: st.builds(m.TaskStarted, maybe),
    m.TaskSkipped: st.builds(m.TaskSkipped),
    m.TaskCompleted: st.builds(m.TaskCompleted, maybe, maybe, maybe, st.none() | text),
    m.TaskFaulted: st.builds(m.TaskFaulted, error, maybe),
    m.TaskCancelled: st.builds(m.TaskCancelled),
}
COMMANDS: dict[type, st.SearchStrategy[Any]] = {
    m.StartFlow: st.builds(m.StartFlow, text, payload),
    m.CompleteTask: st.builds(m.CompleteTask, text, number, number, payload),
    m.FailTask: st.builds(m.FailTask, text, number, number, error),
    m.CancelFlow: st.builds(m.CancelFlow, st.none() | text),
}
event = st.builds(
    m.Event, text, count, count, actor, cause, text, st.binary(max_size=32), st.none() | text, number, number,
    st.none() | text, st.binary(max_size=32), st.one_of(*BODIES.values()),
)  # fmt: skip
active = st.builds(
    m.ActiveTask,
    text,
    number,
    number,
    count,
    st.binary(max_size=5),
    st.binary(max_size=5),
    st.binary(max_size=5),
)
live = st.builds(
    m.LiveFlow, text, text, st.binary(max_size=32), text, text, text, count, st.binary(max_size=32), count, count,
    st.binary(max_size=9), st.binary(max_size=9), st.binary(max_size=9), st.lists(active, max_size=3).map(tuple),
    st.dictionaries(text, number, max_size=3),
)  # fmt: skip
snapshot = st.one_of(
    live, st.builds(m.EndedFlow, text, text, text, text, count, count), st.builds(m.Position, count, count)
)


def test_every_event_and_command_has_a_strategy_here() -> None:
    assert set(BODIES) == set(m.EVENT_BODIES)
    assert set(COMMANDS) == set(m.COMMAND_BODIES)
    assert set(m.CLOUDEVENT_TYPES) == {body.__name__ for body in m.EVENT_BODIES} | {"Rejection"}


@given(event)
def test_events_survive(found: m.Event) -> None:
    value = encode_event(found)
    assert decode_logged(value) == found
    assert decode_logged(value, newest("event").fingerprint) == found
    assert encode_event(found) == value


@given(
    st.builds(m.Rejection, text, count, actor, cause, text, text, text, st.none() | text, st.none() | text)
)
def test_rejections_survive(found: m.Rejection) -> None:
    assert decode_logged(encode_rejection(found)) == found


@given(st.builds(m.Command, text, text, count, actor, st.one_of(*COMMANDS.values()), st.none() | text))
def test_commands_survive(found: m.Command) -> None:
    assert decode_command(encode_command(found)) == found


@given(st.builds(m.Task, text, text, text, number, number, text, payload, count, st.none() | text))
def test_tasks_survive(found: m.Task) -> None:
    assert decode_task(encode_task(found)) == found


@given(
    st.builds(
        m.PublishedDefinition, text, st.binary(max_size=32), st.binary(max_size=40), text, text, count, text
    )
)
def test_definitions_survive(found: m.PublishedDefinition) -> None:
    assert decode_definition(encode_definition(found)) == found


@given(snapshot)
def test_snapshots_survive(found: m.Snapshot) -> None:
    assert decode_snapshot(encode_snapshot(found)) == found


@given(st.binary(max_size=60))
def test_whatever_is_no_message_is_named_and_never_raises_anything_else(value: bytes) -> None:
    for decode in (decode_logged, decode_command, decode_task, decode_definition, decode_snapshot):
        with pytest.raises(Undecodable, match="Expected"):
            decode(value)


def test_a_record_of_another_kind_is_named() -> None:
    with pytest.raises(Undecodable, match="Expected a record of command but found a task"):
        decode_command(encode_task(m.Task("f", "d", "t", 1, 1, "f", b"1", 0)))


def test_single_object_encoding_is_read_too() -> None:
    command = m.Command("c", "f", 0, m.Actor("user", "u"), m.CancelFlow())
    datum = encode_command(command)[5:]
    assert decode_command(b"\xc3\x01" + newest("command").fingerprint + datum) == command
