"""What `schemas.reading` reads is what fastavro reads, and what it does not read it leaves to fastavro."""

from __future__ import annotations

from unittest import mock

from hypothesis import given, settings
from hypothesis import strategies as st

from schemas import messages as m
from schemas import reading
from schemas.codec import Undecodable, decode_command, encode_command

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


def outcome(value: bytes) -> m.Command | str:
    try:
        return decode_command(value)
    except Undecodable as problem:
        return f"{problem.code}: {problem}"


def by_fastavro(value: bytes) -> m.Command | str:
    with mock.patch.object(reading, "command", return_value=None):
        return outcome(value)


@given(commands)
@settings(max_examples=400)
def test_commands_are_read_as_fastavro_reads_them(command: m.Command) -> None:
    value = encode_command(command)
    assert outcome(value) == by_fastavro(value) == command


@given(commands, st.data())
@settings(max_examples=400)
def test_damaged_commands_are_refused_as_fastavro_refuses_them(
    command: m.Command, draw: st.DataObject
) -> None:
    value = bytearray(encode_command(command))
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
