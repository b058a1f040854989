"""Proof that a log is what this engine decides: rebuild each recorded cause's command, decide again, compare bytes.

The log suffices: the first events of a decision hold all the command held. What a person or a defect caused outside
`decide` (FlowSuspended, CommandParked) is folded, not decided again. Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

import msgspec

from engine.core.decide import decide, other_of
from engine.core.evolve import BrokenLog, FlowState, digest, evolve
from engine.dsl.model import Definition
from schemas import messages as m
from schemas.codec import encoder_like


class Stored(msgspec.Struct, frozen=True, gc=False):
    """An event as the log holds it."""

    event: m.Event
    value: bytes


class Difference(msgspec.Struct, frozen=True, gc=False):
    """Where a log is not what it claims to be. `kind`: sequence, chain, decision, time, cause."""

    flow_id: str
    sequence: int
    kind: str
    text: str


Find = Callable[[str], Definition | None]
"""The published definition of an id."""


def groups(events: Iterable[Stored]) -> Iterator[list[Stored]]:
    """One list a decision: neighbouring events of one cause."""
    group: list[Stored] = []
    for stored in events:
        if group and group[0].event.cause != stored.event.cause:
            yield group
            group = []
        group.append(stored)
    if group:
        yield group


def command_of(group: Sequence[Stored]) -> m.Command | None:
    """The command behind a decision; None for what is not decided again."""
    first = group[0].event
    body = _command_body(group)
    if body is None:
        return None
    return m.Command(first.cause.command_id, first.flow_id, first.time, first.actor, body, first.trace)


def _command_body(group: Sequence[Stored]) -> m.CommandBody | None:
    first = group[0].event
    at = (first.task or "", first.run, first.attempt)
    match first.body:
        case m.FlowStarted() as body:
            return m.StartFlow(first.definition, body.input, body.parent, _restore(group))
        case m.TaskCompleted(result=result) if result is not None:
            return m.CompleteTask(*at, result)
        case m.TaskFaulted(result=result) if result is not None:
            return m.CompleteTask(*at, result)
        case m.TaskFaulted() as body:
            return m.FailTask(*at, body.error)
        case m.TaskRetried() as body:
            return m.FailTask(first.task or "", first.run, first.attempt - 1, body.error, incident=True)
        case m.TaskProgressed() as body:
            return m.HeartbeatTask(*at, body.progress)
        case m.EventConsumed() as body:
            return m.DeliverEvent(first.task or "", first.run, body.filter, body.event)
        case m.TimerFired() as body:
            return m.FireTimer(first.task, first.run, first.attempt, body.purpose, body.due)
        case m.FlowContinued():
            return m.ContinueFlow()
        case m.FlowResumed() as body:
            return m.ResumeFlow(body.reason)
        case m.FlowSuspended(command=b"") as body:
            return m.SuspendFlow(body.reason or None)
        case m.FlowMigrated() | m.FlowRollingBack():
            return _turned(first)
        case m.FlowCancelled() | m.FlowCompensating() | m.TaskCancelled():
            return _cancel(group)
    return None


def _turned(first: m.Event) -> m.CommandBody:
    body = first.body
    if isinstance(body, m.FlowMigrated):
        return m.MigrateFlow(first.definition, body.reason)
    assert isinstance(body, m.FlowRollingBack)
    return m.RollBackFlow(body.restore, body.reason)


def _restore(group: Sequence[Stored]) -> m.Restore | None:
    """The moment a flow that was run again began from."""
    body = group[1].event.body if len(group) > 1 else None
    if not isinstance(body, m.FlowRestored):
        return None
    return body.restore


def _cancel(group: Sequence[Stored]) -> m.CommandBody | None:
    for stored in group:
        match stored.event.body:
            case m.FlowCancelled() as body:
                return m.CancelFlow(body.reason)
            case m.FlowCompensating() as body:
                return m.CancelFlow(body.reason, compensate=True)
    return None


def verify_flow(find: Find, events: Iterable[Stored]) -> tuple[FlowState | None, list[Difference]]:
    """Folds a flow's whole log, checks sequence and hash chain, and decides each cause again.

    An event stored under an older schema is encoded under that schema again. Gives the state at its end and what differs;
    an empty list is the proof. Stops at the first difference of a flow, because everything after it rests on it.
    """
    before: FlowState | None = None
    state: FlowState | None = None
    pending: list[Stored] = []

    for group in groups(events):
        # links first: an event that was moved or dropped is named as that, not as a decision that lacks it
        if (problem := _link_problem(state, group[0].event)) is not None:
            return state, [problem]
        if pending and (problem := _decision_problem(find, before, pending)) is not None:
            return state, [problem]
        before, pending = state, group
        for stored in group:
            event = stored.event
            if (problem := _link_problem(state, event)) is not None:
                return state, [problem]
            try:
                state = evolve(state, event, digest(stored.value))
            except BrokenLog as broken:
                return state, [Difference(event.flow_id, event.sequence, "sequence", str(broken))]
    if pending and (problem := _decision_problem(find, before, pending)) is not None:
        return state, [problem]
    return state, []


def _link_problem(state: FlowState | None, event: m.Event) -> Difference | None:
    head = state.head if isinstance(state, m.LiveFlow) else b""
    if isinstance(state, m.EndedFlow) or event.sequence != (0 if state is None else state.sequence) + 1:
        found = 0 if state is None else state.sequence
        text = f"Expected event {found + 1} but found {event.sequence}"
        return Difference(event.flow_id, event.sequence, "sequence", text)
    if event.previous_hash != head:
        text = f"Expected the hash {head.hex() or '(none)'} of the event before but found {event.previous_hash.hex() or '(none)'}"
        return Difference(event.flow_id, event.sequence, "chain", text)
    return None


def _decision_problem(find: Find, before: FlowState | None, group: Sequence[Stored]) -> Difference | None:
    command = command_of(group)
    first = group[0].event
    if command is None:
        if isinstance(first.body, m.FlowSuspended | m.CommandParked):
            return None
        text = f"Expected a decision to begin with what a command says but found {first.kind}"
        return Difference(first.flow_id, first.sequence, "cause", text)
    definition = find(first.definition)
    if definition is None or definition.hash != first.definition_hash:
        text = f"Expected definition {first.definition} with hash {first.definition_hash.hex()} but it is not published"
        return Difference(first.flow_id, first.sequence, "decision", text)
    other = None if (named := other_of(command.body)) is None else find(named)
    if isinstance(first.body, m.FlowMigrated):
        definition, other = find(first.body.was), definition
        if definition is None:
            text = f"Expected definition {first.body.was} but it is not published"
            return Difference(first.flow_id, first.sequence, "decision", text)
    version = first.body.engine_version if isinstance(first.body, m.FlowStarted) else ""
    encode = encoder_like(group[0].value)
    again = decide(
        definition,
        before,
        command,
        first.cause,
        first.time,
        encode=encode,
        engine_version=version,
        other=other,
    )
    if again.rejection is not None:
        text = f"Expected the command to be decided again but it is refused: {again.rejection.reason}"
        return Difference(first.flow_id, first.sequence, "decision", text)
    for recorded, stored in zip(again.events, group, strict=False):
        if recorded.value != stored.value:
            text = f"Expected {_summary(recorded.event)} but the log has {_summary(stored.event)}"
            return Difference(first.flow_id, stored.event.sequence, "decision", text)
    if len(again.events) != len(group):
        text = f"Expected {len(again.events)} events of this decision but the log has {len(group)}"
        return Difference(first.flow_id, group[-1].event.sequence, "decision", text)
    return None


def _summary(event: m.Event) -> str:
    return f"{event.kind} {event.task or ''} {event.body!r}"[:400]
