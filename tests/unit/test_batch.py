"""A partition's batch: dead letters, incidents, dispatches, and what is left as it was."""

from __future__ import annotations

from typing import Any

import pytest

from engine.core import decide as decide_module
from engine.core.batch import Batch, Record
from engine.dsl.model import Definition
from schemas import messages as m
from schemas.codec import encode_command
from tests.flows import definition

LINE = definition("do: [{a: {call: f, metadata: {queue: special}}}]")


class Known:
    def __init__(self, *found: Definition) -> None:
        self._found = {d.id: d for d in found}

    def find(self, reference: str) -> Definition | None:
        return self._found.get(reference)


def record(offset: int, body: m.CommandBody, flow_id: str = "f1", key: bytes | None = None) -> Record:
    command = m.Command(f"c{offset}", flow_id, 0, m.Actor("user", "u"), body)
    return Record(offset, flow_id.encode() if key is None else key, encode_command(command))


START = m.StartFlow("test/test@1.0.0", b"{}")


@pytest.mark.parametrize(
    ("bad", "code"),
    [
        (Record(1, b"f1", b"garbage"), "unknown-framing"),
        (Record(1, b"f1", b"\x00\x00\x00\x00\x07x"), "unknown-schema"),
        (
            Record(1, b"f1", encode_command(m.Command("c", "f1", 0, m.Actor("user", "u"), START))[:-3]),
            "undecodable",
        ),
        (
            Record(1, b"f1", encode_command(m.Command("c", "f1", 0, m.Actor("user", "u"), START)) + b"x"),
            "trailing-bytes",
        ),
        (Record(1, b"f1", None), "no-value"),
        (record(1, START, key=b"other"), "key"),
        (record(1, START, flow_id="@position"), "flow-id"),
        (record(1, START, flow_id="x" * 200), "flow-id"),
    ],
)
def test_what_is_no_command_becomes_a_dead_letter_and_the_rest_goes_on(bad: Record, code: str) -> None:
    batch = Batch(0, {}, Known(LINE))
    batch.apply(bad, 1)
    batch.apply(record(2, START), 2)
    assert [letter.code for letter in batch.dead_letters] == [code]
    assert "Expected" in batch.dead_letters[0].reason
    assert [dispatch.queue for dispatch in batch.dispatches] == ["special"]
    assert batch.last_offset == 2


def test_states_given_are_not_changed() -> None:
    states: dict[str, Any] = {}
    batch = Batch(0, states, Known(LINE))
    batch.apply(record(1, START), 1)
    before = dict(batch.overlay)
    second = Batch(0, before, Known(LINE))
    second.apply(record(2, m.CompleteTask("/do/0/a", 1, 1, b"1")), 2)
    assert states == {}
    assert isinstance(before["f1"], m.LiveFlow)
    assert isinstance(second.overlay["f1"], m.EndedFlow)


def test_a_defect_parks_one_flow_and_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    batch = Batch(0, {}, Known(LINE))
    batch.apply(record(1, START), 1)

    def defect(*_: Any) -> None:
        raise RuntimeError("a defect")

    with monkeypatch.context() as patch:
        patch.setattr(decide_module.Interpreter, "finish", defect)
        result = record(2, m.CompleteTask("/do/0/a", 1, 1, b"1"))
        batch.apply(result, 2)
    batch.apply(record(3, START, flow_id="f2"), 3)
    batch.apply(record(4, m.CompleteTask("/do/0/a", 1, 1, b"2")), 4)
    suspended = [logged for logged, _ in batch.written if logged.flow_id == "f1"][-2:]
    assert [e.kind for e in suspended if isinstance(e, m.Event)] == ["FlowSuspended", "CommandParked"]
    first = suspended[0]
    assert isinstance(first, m.Event)
    assert isinstance(first.body, m.FlowSuspended)
    assert "a defect" in first.body.reason
    assert first.body.command == result.value
    state = batch.overlay["f1"]
    assert isinstance(state, m.LiveFlow)
    assert state.status == "suspended"
    assert isinstance(batch.overlay["f2"], m.LiveFlow)
    batch.apply(record(5, m.CancelFlow("give up")), 5)
    assert isinstance(batch.overlay["f1"], m.EndedFlow)


def test_a_rejection_is_written_beside_the_events() -> None:
    batch = Batch(3, {}, Known())
    batch.apply(record(7, START), 1)
    rejection, value = batch.written[0]
    assert isinstance(rejection, m.Rejection)
    assert value is None
    assert rejection.cause == m.Cause("c7", 3, 7)
    assert batch.overlay == {}
