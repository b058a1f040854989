"""The fold: what an event does to a flow's state.

Evaluates no expression and needs no definition, because events carry results; so an old log folds under any later
version of the code. `decide` applies every event it emits through this one function, so the two cannot disagree.
Invariant: after event n of a flow, `state.sequence == n` and `state.head` is the SHA-256 of that event's stored value.
"""

from __future__ import annotations

import hashlib
from typing import assert_never

import msgspec

from schemas import messages as m

FlowState = m.LiveFlow | m.EndedFlow

_replace = msgspec.structs.replace


class BrokenLog(Exception):
    """Events that no engine of this design can have written in this order: a defect, or a damaged log."""


def digest(value: bytes) -> bytes:
    """What the hash chain holds of an event: SHA-256 of its stored value, framing included."""
    return hashlib.sha256(value).digest()


def inline(payload: m.Payload) -> bytes:
    """The JSON bytes of a payload. Claims are resolved at the edge, before the core sees them."""
    if isinstance(payload, bytes):
        return payload
    raise BrokenLog(f"Expected an inline payload but found a claim on {payload.uri}")


def active_of(state: m.LiveFlow, task: str) -> m.ActiveTask | None:
    for active in state.active:
        if active.task == task:
            return active
    return None


def scope_of(state: m.LiveFlow, task: str) -> m.ActiveTask | None:
    """The innermost active composite task around `task`; None is the flow's own scope."""
    found = None
    for active in state.active:
        if task.startswith(active.task + "/") and (found is None or len(active.task) > len(found.task)):
            found = active
    return found


def scope_data(state: m.LiveFlow, task: str) -> bytes:
    """The raw input of `task` were it performed now: the output of the task before it in its scope."""
    scope = scope_of(state, task)
    return state.data if scope is None else scope.data


def evolve(state: FlowState | None, event: m.Event, event_digest: bytes) -> FlowState:
    """The state after `event`. Raises BrokenLog when the event cannot follow the state."""
    body = event.body
    if state is None:
        if event.sequence != 1:
            raise BrokenLog(f"Expected event 1 of {event.flow_id} but found {event.sequence}")
        return _begin(event, event_digest)
    if isinstance(state, m.EndedFlow):
        raise BrokenLog(f"Expected no event after the end of {event.flow_id} but found {event.sequence}")
    if event.sequence != state.sequence + 1:
        raise BrokenLog(f"Expected event {state.sequence + 1} of {event.flow_id} but found {event.sequence}")
    match body:
        case m.TaskCompleted():
            return _completed(state, event, body, event_digest)
        case m.TaskScheduled() | m.TaskStarted():
            return _entered(state, event, body.input, event_digest)
        case m.TaskFaulted() | m.TaskCancelled():
            return _left(state, event, event_digest)
        case m.TaskSkipped() | m.CommandParked():
            return _step(state, event, event_digest)
        case m.FlowCompleted():
            return _ended(state, event, "completed")
        case m.FlowFaulted():
            return _ended(state, event, "faulted")
        case m.FlowCancelled():
            return _ended(state, event, "cancelled")
        case m.FlowSuspended():
            return _replace(
                state,
                status="suspended",
                sequence=event.sequence,
                head=event_digest,
                updated_at=event.time,
            )
        case m.FlowStarted():
            raise BrokenLog(
                f"Expected {event.flow_id} to start once but event {event.sequence} starts it again"
            )
        case _:
            assert_never(body)


def _begin(event: m.Event, event_digest: bytes) -> m.LiveFlow:
    body = event.body
    match body:
        case m.FlowStarted():
            raw = inline(body.input)
            data = raw if body.transformed is None else inline(body.transformed)
            status, version = "running", body.engine_version
        case m.FlowSuspended():  # a defect in deciding its very first command
            raw = data = b"null"
            status, version = "suspended", ""
        case _:
            raise BrokenLog(f"Expected {event.flow_id} to begin with FlowStarted but found {event.kind}")
    return m.LiveFlow(
        flow_id=event.flow_id,
        definition=event.definition,
        definition_hash=event.definition_hash,
        engine_version=version,
        start_command_id=event.cause.command_id,
        status=status,
        sequence=1,
        head=event_digest,
        started_at=event.time,
        updated_at=event.time,
        input=raw,
        data=data,
        context=data,
        active=(),
        runs={},
    )


def _step(state: m.LiveFlow, event: m.Event, event_digest: bytes) -> m.LiveFlow:
    return _replace(state, sequence=event.sequence, head=event_digest, updated_at=event.time)


def _entered(
    state: m.LiveFlow, event: m.Event, transformed: m.Payload | None, event_digest: bytes
) -> m.LiveFlow:
    task = event.task or ""
    raw = scope_data(state, task)
    data = raw if transformed is None else inline(transformed)
    entered = m.ActiveTask(
        task=task,
        run=event.run,
        attempt=event.attempt,
        started_at=event.time,
        raw_input=raw,
        input=data,
        data=data,
    )
    return _replace(
        state,
        sequence=event.sequence,
        head=event_digest,
        updated_at=event.time,
        active=(*state.active, entered),
        runs=state.runs | {task: event.run},
    )


def _completed(state: m.LiveFlow, event: m.Event, body: m.TaskCompleted, event_digest: bytes) -> m.LiveFlow:
    task = event.task or ""
    own = active_of(state, task)
    if body.output is not None:
        output = inline(body.output)
    elif body.result is not None:
        output = inline(body.result)
    else:
        output = scope_data(state, task) if own is None else own.data
    scope = scope_of(state, task)
    active = tuple(
        _replace(other, data=output) if other is scope else other
        for other in state.active
        if other is not own
    )
    return _replace(
        state,
        sequence=event.sequence,
        head=event_digest,
        updated_at=event.time,
        data=output if scope is None else state.data,
        context=state.context if body.context is None else inline(body.context),
        active=active,
        runs=state.runs if own is not None else state.runs | {task: event.run},
    )


def _left(state: m.LiveFlow, event: m.Event, event_digest: bytes) -> m.LiveFlow:
    task = event.task or ""
    own = active_of(state, task)
    return _replace(
        state,
        sequence=event.sequence,
        head=event_digest,
        updated_at=event.time,
        active=tuple(other for other in state.active if other is not own),
        runs=state.runs if own is not None else state.runs | {task: event.run},
    )


def _ended(state: m.LiveFlow, event: m.Event, status: str) -> m.EndedFlow:
    return m.EndedFlow(
        flow_id=state.flow_id,
        definition=state.definition,
        start_command_id=state.start_command_id,
        status=status,
        sequence=event.sequence,
        ended_at=event.time,
    )
