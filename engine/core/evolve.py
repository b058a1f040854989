"""The fold: what an event does to a flow's state.

Evaluates no expression and needs no definition, because events carry results; so an old log folds under any later
version of the code. `decide` applies every event it emits through this one function, so the two cannot disagree.
Invariant: after event n of a flow, `state.sequence == n` and `state.head` is the SHA-256 of that event's stored value.
What a task's event does to the tasks around it is in folding.py.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any, Final

import msgspec
import orjson

from engine.core import folding, moments
from engine.core.folding import BrokenLog, active_of, inline, scope_data, scope_of
from schemas import messages as m

__all__ = ["BrokenLog", "FlowState", "active_of", "digest", "evolve", "inline", "scope_data", "scope_of"]

FlowState = m.LiveFlow | m.EndedFlow

_replace = msgspec.structs.replace


def digest(value: bytes) -> bytes:
    """What the hash chain holds of an event: SHA-256 of its stored value, framing included."""
    return hashlib.sha256(value).digest()


def evolve(state: FlowState | None, event: m.Event, event_digest: bytes) -> FlowState:
    """The state after `event`. Raises BrokenLog when the event cannot follow the state."""
    if state is None:
        if event.sequence != 1:
            raise BrokenLog(f"Expected event 1 of {event.flow_id} but found {event.sequence}")
        return _begin(event, event_digest)
    if isinstance(state, m.EndedFlow):
        raise BrokenLog(f"Expected no event after the end of {event.flow_id} but found {event.sequence}")
    if event.sequence != state.sequence + 1:
        raise BrokenLog(f"Expected event {state.sequence + 1} of {event.flow_id} but found {event.sequence}")
    kind = type(event.body)
    if (status := _ENDS.get(kind)) is not None:
        return _ended(state, event, status)
    if kind is m.FlowStarted:
        return _started_late(state, event, event_digest)
    changes = _FOLDS[kind](state, event, event.body)
    return _replace(state, sequence=event.sequence, head=event_digest, updated_at=event.time, **changes)


def _begin(event: m.Event, event_digest: bytes) -> m.LiveFlow:
    body = event.body
    parent: m.Parent | None = None
    parked: tuple[bytes, ...] = ()
    deadline = 0
    match body:
        case m.FlowStarted():
            raw = inline(body.input)
            data = raw if body.transformed is None else inline(body.transformed)
            status, version = "running", body.engine_version
            parent, deadline = body.parent, body.deadline
        case m.FlowSuspended():  # a defect in deciding its very first command
            raw = data = b"null"
            status, version = "suspended", ""
            parked = (body.command,)
        case _:
            raise BrokenLog(f"Expected {event.flow_id} to begin with FlowStarted but found {event.kind}")
    return m.LiveFlow(
        flow_id=event.flow_id,
        definition=event.definition,
        definition_hash=event.definition_hash,
        engine_version=version,
        start_command_id=event.cause.command_id,
        status=status,
        sequence=event.sequence,
        head=event_digest,
        started_at=event.time,
        updated_at=event.time,
        input=raw,
        data=data,
        context=data,
        parent=parent,
        deadline=deadline,
        parked=parked,
    )


def _started_late(state: m.LiveFlow, event: m.Event, event_digest: bytes) -> m.LiveFlow:
    """A flow whose first command could not be decided at first, and was when the flow was resumed."""
    if state.engine_version != "":
        raise BrokenLog(f"Expected {event.flow_id} to start once but event {event.sequence} starts it again")
    return _replace(_begin(event, event_digest), start_command_id=state.start_command_id)


def _ended(state: m.LiveFlow, event: m.Event, status: str) -> m.EndedFlow:
    return m.EndedFlow(
        flow_id=state.flow_id,
        definition=state.definition,
        start_command_id=state.start_command_id,
        status=status,
        sequence=event.sequence,
        ended_at=event.time,
    )


# -- the flow's own events: each gives the fields that change -----------------------------------------------------------

Changes = dict[str, Any]


def _suspended(state: m.LiveFlow, _: m.Event, body: m.FlowSuspended) -> Changes:
    parked = (*state.parked, body.command) if body.command else state.parked
    return {"status": "suspended", "parked": parked}


def _parked(state: m.LiveFlow, _: m.Event, body: m.CommandParked) -> Changes:
    return {"parked": (*state.parked, body.command)}


def _resumed(_state: m.LiveFlow, _: m.Event, __: m.FlowResumed) -> Changes:
    return {"status": "running", "parked": ()}


def _yielded(_: m.LiveFlow, __: m.Event, body: m.FlowYielded) -> Changes:
    return {"ready": body.ready}


def _continued(_: m.LiveFlow, __: m.Event, ___: m.FlowContinued) -> Changes:
    return {"ready": ()}


def _compensating(state: m.LiveFlow, _: m.Event, body: m.FlowCompensating) -> Changes:
    fate = orjson.dumps({"error": None if body.error is None else _error(body.error), "reason": body.reason})
    return {"fate": fate, "ready": (), **folding.armed(state.compensations)}


def _migrated(state: m.LiveFlow, event: m.Event, body: m.FlowMigrated) -> Changes:
    of = {"definition": event.definition, "definition_hash": event.definition_hash}
    return of | moments.relocated(state, body.moved)


def _rolling_back(state: m.LiveFlow, _: m.Event, body: m.FlowRollingBack) -> Changes:
    changes: Changes = {"status": "running", "fate": moments.rolling_back(body), "ready": (), "parked": ()}
    if len(state.compensations) > body.keep:
        changes |= folding.armed(state.compensations)
    return changes


def _restored(state: m.LiveFlow, event: m.Event, body: m.FlowRestored) -> Changes:
    try:
        return moments.restored(state, event, body)
    except (moments.Unrestorable, ValueError, KeyError) as problem:
        raise BrokenLog(str(problem)) from None


def _error(error: m.Error) -> dict[str, Any]:
    return {field: getattr(error, field) for field in error.__struct_fields__}


_ENDS: Final[dict[type, str]] = {
    m.FlowCompleted: "completed",
    m.FlowFaulted: "faulted",
    m.FlowCancelled: "cancelled",
}
_FOLDS: Final[dict[type, Callable[[m.LiveFlow, m.Event, Any], Changes]]] = {
    m.FlowSuspended: _suspended,
    m.CommandParked: _parked,
    m.FlowResumed: _resumed,
    m.FlowYielded: _yielded,
    m.FlowContinued: _continued,
    m.FlowCompensating: _compensating,
    m.FlowMigrated: _migrated,
    m.FlowRollingBack: _rolling_back,
    m.FlowRestored: _restored,
    **folding.FOLDS,
}
