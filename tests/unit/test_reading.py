"""What `schemas.reading` reads is what fastavro reads, and what it does not read it leaves to fastavro."""

from __future__ import annotations

from unittest import mock

from hypothesis import given, settings
from hypothesis import strategies as st

from schemas import messages as m
from schemas import reading
from schemas.codec import (
    Undecodable,
    decode_command,
    decode_event,
    decode_logged,
    encode_command,
    encode_event,
)
from schemas.registry import newest

COMMAND = newest("command").id.to_bytes(4, "big")

text = st.text(max_size=20) | st.text(min_size=60, max_size=300)
data = st.binary(max_size=200) | st.binary(min_size=8200, max_size=8300)
times = st.integers(0, 1 << 60) | st.integers(1_790_000_000_000_000, 1_800_000_000_000_000)
numbers = st.integers(-5, (1 << 31) - 1)
actors = st.builds(m.Actor, st.sampled_from(("user", "worker", "timer", "event", "engine")), text)
parents = st.none() | st.builds(m.Parent, text, text, numbers, numbers)
payloads = data | st.builds(m.Claim, text, st.binary(max_size=32), numbers)
bodies = (
    st.builds(m.CompleteTask, text, numbers, numbers, payloads)
    | st.builds(m.StartFlow, text, payloads, parents)
    | st.builds(m.CancelFlow, st.none() | text)
)
commands = st.builds(m.Command, text, text, times, actors, bodies, st.none() | text)


maybe = st.none() | payloads
event_bodies = (
    st.builds(m.FlowStarted, payloads, maybe, text, parents, times)
    | st.builds(m.FlowCompleted, payloads)
    | st.builds(m.TaskScheduled, text, text, maybe, maybe, times, times, text, st.booleans())
    | st.builds(m.TaskStarted, maybe, times, times, text, maybe, text)
    | st.builds(m.TaskCompleted, maybe, maybe, maybe, st.none() | text, st.booleans())
    | st.builds(m.TaskIterated, numbers)
    | st.builds(m.FlowCancelled, st.none() | text)
)
events = st.builds(
    m.Event,
    flow_id=text,
    sequence=st.integers(1, 1 << 40),
    time=times,
    actor=actors,
    cause=st.builds(m.Cause, text, numbers, times),
    definition=text,
    definition_hash=data,
    task=st.none() | text,
    run=numbers,
    attempt=numbers,
    trace=st.none() | text,
    previous_hash=data,
    body=event_bodies,
)
records = commands.map(encode_command) | events.map(encode_event)


def outcome(value: bytes) -> m.Command | m.Event | m.Rejection | str:
    """What the codec makes of it as the command or the event that its schema's number says."""
    decode = decode_command if value[1:5] == COMMAND else decode_logged
    try:
        return decode(value)
    except Undecodable as problem:
        return f"{problem.code}: {problem}"


def by_fastavro(value: bytes) -> m.Command | m.Event | m.Rejection | str:
    with (
        mock.patch.object(reading, "command", return_value=None),
        mock.patch.object(reading, "event", return_value=None),
    ):
        return outcome(value)


@given(commands)
@settings(max_examples=300)
def test_commands_are_read_as_fastavro_reads_them(command: m.Command) -> None:
    value = encode_command(command)
    assert outcome(value) == by_fastavro(value) == command


@given(events)
@settings(max_examples=300)
def test_events_are_read_as_fastavro_reads_them(event: m.Event) -> None:
    value = encode_event(event)
    assert outcome(value) == by_fastavro(value) == decode_event(value) == event


@given(records, st.data())
@settings(max_examples=600)
def test_damaged_records_are_refused_as_fastavro_refuses_them(record: bytes, draw: st.DataObject) -> None:
    value = bytearray(record)
    for _ in range(draw.draw(st.integers(1, 3))):
        value[draw.draw(st.integers(5, len(value) - 1))] = draw.draw(st.integers(0, 255))
    cut = draw.draw(st.integers(6, len(value)) | st.just(len(value)))
    damaged = bytes(value[:cut]) + draw.draw(st.just(b"") | st.binary(max_size=3))
    assert outcome(damaged) == by_fastavro(damaged)


def test_the_usual_commands_need_no_fastavro() -> None:
    actor = m.Actor("worker", "w1")
    for body in (m.StartFlow("a/b@1", b"{}"), m.CompleteTask("/do/0/a", 1, 1, b'{"x":1}')):
        command = m.Command("c1", "f1", 1_790_000_000_000_000, actor, body, "00-ab-cd-01")
        assert reading.command(encode_command(command), 5) == command
