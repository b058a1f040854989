"""The decision: what a command does to a flow, or why it is refused.

    decide(definition, state, command, cause, now) -> Decision

Pure: time comes in with the call, and the same arguments give the same bytes for ever; replay relies on that. A
command sent twice (same id) is done once; a command that cannot be done is a Rejection, "Expected ... but ...".
"""

from __future__ import annotations

import re
from typing import Final, assert_never

import msgspec
import orjson

from engine import VERSION
from engine.core.evolve import FlowState, active_of
from engine.core.faults import RUNTIME
from engine.core.interpret import Interpreter
from engine.core.recording import PAYLOAD_BYTES_MAX, Encode, Recorded, Recording
from engine.dsl.model import Call, Definition
from schemas import messages as m
from schemas.codec import encode_event

FLOW_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,127}")


__all__ = ["FLOW_ID", "PAYLOAD_BYTES_MAX", "Decision", "decide", "initial_state", "park"]


class Decision(msgspec.Struct, frozen=True, gc=False):
    """What a command led to: events and the state after them, or a rejection, or (a duplicate) nothing at all."""

    state: FlowState | None
    events: tuple[Recorded, ...] = ()
    rejection: m.Rejection | None = None


class _Refused(Exception):
    def __init__(self, code: str, reason: str, task: str | None = None) -> None:
        super().__init__(reason)
        self.code, self.reason, self.task = code, reason, task


def initial_state() -> FlowState | None:
    """The state of a flow that no event has begun."""
    return None


def decide(
    definition: Definition | None,
    state: FlowState | None,
    command: m.Command,
    cause: m.Cause,
    now: int,
    *,
    encode: Encode = encode_event,
    engine_version: str = VERSION,
) -> Decision:
    """Decides `command` against `state`.

    `definition` is the one the flow runs (or is to run), None when nobody published it; `now` is in microseconds
    since the Unix epoch. Raises only on a defect of the engine.
    """
    try:
        recording = _decided(definition, state, command, cause, now, encode, engine_version)
    except _Refused as refused:
        rejection = m.Rejection(
            flow_id=command.flow_id,
            time=now,
            actor=command.actor,
            cause=cause,
            command=command.kind,
            code=refused.code,
            reason=refused.reason,
            task=refused.task,
            trace=command.trace,
        )
        return Decision(state, (), rejection)
    if recording is None:
        return Decision(state)
    return Decision(recording.state, tuple(recording.events))


def park(
    definition: Definition | None,
    state: m.LiveFlow | None,
    command: m.Command,
    stored: bytes,
    cause: m.Cause,
    now: int,
    reason: str,
) -> Decision:
    """Suspends a flow whose command could not be decided by a defect; the command's bytes are kept in the log."""
    recording = Recording(definition, state, command, cause, now)
    if state is not None and state.status == "suspended":
        recording.emit(m.CommandParked(stored))
    else:
        recording.emit(m.FlowSuspended(reason, stored))
    return Decision(recording.state, tuple(recording.events))


def _decided(
    definition: Definition | None,
    state: FlowState | None,
    command: m.Command,
    cause: m.Cause,
    now: int,
    encode: Encode,
    engine_version: str,
) -> Recording | None:
    body = command.body
    if isinstance(body, m.StartFlow):
        return _start(definition, state, command, body, cause, now, encode, engine_version)
    live = _live(state, command)
    recording = Recording(definition, live, command, cause, now, encode)
    if isinstance(body, m.CancelFlow):
        _cancel(recording, body)
        return recording
    active = _active(definition, live, body)
    assert definition is not None
    interpreter = Interpreter(definition, recording)
    match body:
        case m.CompleteTask():
            if isinstance(checked := _payload(body.output), bytes):
                interpreter.finish(active, checked)
            else:
                title = "The task's result cannot be taken"
                interpreter.fail(active, m.Error(RUNTIME, 500, title, checked.reason))
        case m.FailTask():
            error = body.error
            interpreter.fail(active, m.Error(error.type, error.status, error.title, error.detail))
        case _:
            assert_never(body)
    return recording


def _start(
    definition: Definition | None,
    state: FlowState | None,
    command: m.Command,
    body: m.StartFlow,
    cause: m.Cause,
    now: int,
    encode: Encode,
    engine_version: str,
) -> Recording | None:
    if state is not None:
        if state.start_command_id == command.command_id:
            return None  # the same command again: done already
        raise _Refused(
            "flow-exists", f"Expected a flow id not in use but flow {command.flow_id} is {state.status}"
        )
    if definition is None:
        raise _Refused("unknown-definition", f"Expected a published definition but found {body.definition!r}")
    if isinstance(checked := _payload(body.input), _Refused):
        raise checked
    recording = Recording(definition, None, command, cause, now, encode)
    Interpreter(definition, recording).start(body, engine_version)
    return recording


def _live(state: FlowState | None, command: m.Command) -> m.LiveFlow:
    if state is None:
        raise _Refused(
            "unknown-flow", f"Expected a flow that was started but found no flow {command.flow_id}"
        )
    if isinstance(state, m.EndedFlow):
        raise _Refused("flow-ended", f"Expected a running flow but flow {command.flow_id} is {state.status}")
    return state


def _active(
    definition: Definition | None, live: m.LiveFlow, body: m.CompleteTask | m.FailTask
) -> m.ActiveTask:
    """The active task a worker reports on."""
    active = active_of(live, body.task)
    task = None if definition is None else definition.tasks.get(body.task)
    if active is None or not isinstance(task, Call):
        waits = ", ".join(sorted(a.task for a in live.active)) or "none"
        raise _Refused(
            "task-not-active",
            f"Expected a task that waits for a worker ({waits}) but found {body.task}",
            body.task,
        )
    if (active.run, active.attempt) != (body.run, body.attempt):
        raise _Refused(
            "task-not-active",
            f"Expected run {active.run}, attempt {active.attempt} of {body.task} but found "
            f"run {body.run}, attempt {body.attempt}",
            body.task,
        )
    return active


def _cancel(recording: Recording, body: m.CancelFlow) -> None:
    for active in reversed(recording.live.active):
        recording.emit(m.TaskCancelled(), active.task, active.run, active.attempt)
    recording.emit(m.FlowCancelled(body.reason))


def _payload(payload: m.Payload) -> bytes | _Refused:
    """The payload's JSON bytes, or why they cannot be taken."""
    if isinstance(payload, m.Claim):
        return _Refused(
            "payload-not-inline", f"Expected an inline payload but found a claim on {payload.uri}"
        )
    if len(payload) > PAYLOAD_BYTES_MAX:
        return _Refused(
            "payload-too-large",
            f"Expected a payload of at most {PAYLOAD_BYTES_MAX} bytes but got {len(payload)}",
        )
    try:
        orjson.loads(payload)
    except orjson.JSONDecodeError as problem:
        return _Refused("payload-not-json", f"Expected a JSON payload but {problem}")
    return payload
