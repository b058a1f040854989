"""The codec: every message survives, byte for byte, and what is no message is named."""

from __future__ import annotations

from typing import Any, Literal, get_args, get_origin, get_type_hints

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas import messages as m
from schemas.codec import (
    Undecodable,
    decode_cancellation,
    decode_cloudevent,
    decode_command,
    decode_definition,
    decode_logged,
    decode_snapshot,
    decode_task,
    encode_cancellation,
    encode_cloudevent,
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
LONG = {
    "sequence",
    "time",
    "offset",
    "size",
    "started_at",
    "updated_at",
    "ended_at",
    "due",
    "deadline",
    "next",
    "heartbeat",
}


def of(struct: type) -> st.SearchStrategy[Any]:
    """Any value of a struct of the contract: each field by its type."""
    hints = get_type_hints(struct)
    return st.builds(struct, **{name: _of(hint, name) for name, hint in hints.items()})


def _of(hint: Any, name: str) -> st.SearchStrategy[Any]:
    arguments = get_args(hint)
    if hint is int:
        return count if name in LONG else number
    if hint in (str, bytes, bool):
        return {str: text, bytes: st.binary(max_size=40), bool: st.booleans()}[hint]
    if hint is type(None):
        return st.none()
    if get_origin(hint) is Literal:
        return st.sampled_from(arguments)
    if get_origin(hint) is tuple:
        return st.lists(_of(arguments[0], name), max_size=3).map(tuple)
    if get_origin(hint) is dict:
        return st.dictionaries(_of(arguments[0], name), _of(arguments[1], name), max_size=3)
    if arguments:
        return st.one_of([_of(argument, name) for argument in arguments])
    return of(hint)


payload = _of(m.Payload, "payload")
BODIES: dict[type, st.SearchStrategy[Any]] = {body: of(body) for body in m.EVENT_BODIES}
COMMANDS: dict[type, st.SearchStrategy[Any]] = {body: of(body) for body in m.COMMAND_BODIES}
actor, cause, error = of(m.Actor), of(m.Cause), of(m.Error)
event = of(m.Event)
live = of(m.LiveFlow)
snapshot = st.one_of([of(kind) for kind in (m.LiveFlow, m.EndedFlow, m.Position, m.Entity)])


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


@given(of(m.Rejection))
def test_rejections_survive(found: m.Rejection) -> None:
    assert decode_logged(encode_rejection(found)) == found


@given(of(m.Command))
def test_commands_survive(found: m.Command) -> None:
    assert decode_command(encode_command(found)) == found


@given(of(m.Task))
def test_tasks_survive(found: m.Task) -> None:
    assert decode_task(encode_task(found)) == found


@given(of(m.Cancellation))
def test_cancellations_survive(found: m.Cancellation) -> None:
    assert decode_cancellation(encode_cancellation(found)) == found


@given(of(m.CloudEvent))
def test_cloud_events_survive(found: m.CloudEvent) -> None:
    assert decode_cloudevent(encode_cloudevent(found)) == found


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
