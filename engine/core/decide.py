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
from engine.core import catching, consuming, migrating, restoring, scopes, waking
from engine.core.effects import Effect
from engine.core.evolve import FlowState, active_of
from engine.core.faults import CONFIGURATION, RUNTIME
from engine.core.interpret import Interpreter
from engine.core.recording import PAYLOAD_BYTES_MAX, Encode, Recorded, Recording
from engine.dsl.model import Approval, Call, Definition, Listen, Subflow
from schemas import messages as m
from schemas.codec import encode_event

FLOW_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,127}")


__all__ = ["FLOW_ID", "PAYLOAD_BYTES_MAX", "Decision", "decide", "initial_state", "other_of", "park"]


class Decision(msgspec.Struct, frozen=True, gc=False):
    """What a command led to: events and the state after them, or a rejection, or (a duplicate) nothing at all.

    `effects` is what to tell others in the same transaction; a rejection may have some too (a parent waits for it).
    """

    state: FlowState | None
    events: tuple[Recorded, ...] = ()
    rejection: m.Rejection | None = None
    effects: tuple[Effect, ...] = ()


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
    other: Definition | None = None,
) -> Decision:
    """Decides `command` against `state`.

    `definition` is the one the flow runs (or is to run), None when nobody published it; `other` the one a MigrateFlow
    names, or under which the flow ran at a moment that is to be restored (`other_of`); `now` is in microseconds since the Unix epoch. Raises only on a defect of the engine.
    """
    try:
        if isinstance(command.body, m.MigrateFlow):
            recording: Recording | None = _migrate(definition, state, command, cause, now, encode, other)
        else:
            recording = _decided(definition, state, command, cause, now, encode, engine_version, other)
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
        return Decision(state, (), rejection, _refusal(command, refused, now))
    if recording is None or not recording.events:
        return Decision(state)
    _answer(recording)
    return Decision(recording.state, tuple(recording.events), None, tuple(recording.effects))


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
    other: Definition | None,
) -> Recording | None:
    body = command.body
    if isinstance(body, m.StartFlow):
        return _start(definition, state, command, body, cause, now, encode, engine_version, other)
    if isinstance(body, m.FireTimer | m.ContinueFlow) and not isinstance(state, m.LiveFlow):
        return None
    live = _live(state, command)
    recording = Recording(definition, live, command, cause, now, encode)
    assert definition is not None or isinstance(body, m.CancelFlow | m.SuspendFlow)
    if definition is None:
        return _without_definition(recording, body)
    it = Interpreter(definition, recording)
    match body:
        case m.CompleteTask():  # nearly all commands are one
            _complete(it, _active(definition, live, body), body)
        case m.ResumeFlow():
            if live.status != "suspended":
                raise _Refused(
                    "flow-not-suspended", f"Expected a suspended flow but {command.flow_id} is {live.status}"
                )
            waking.resume(it, body, lambda parked: _again(it, parked, engine_version))
        case m.SuspendFlow():
            _suspend(recording, body)
        case m.CancelFlow():
            _cancel(it, body)
        case m.RollBackFlow():
            _roll_back(it, body, other)
        case _:
            _apply(it, live, body)
    return recording


def _apply(it: Interpreter, live: m.LiveFlow, body: m.CommandBody) -> None:
    """What somebody reports about a running flow. Raises _Refused."""
    match body:
        case m.FireTimer():
            if live.status != "suspended" and waking.is_due(live, body, it.recording.now):
                waking.fire(it, body)
        case m.ContinueFlow():
            if live.status != "suspended" and live.ready:
                it.proceed()
        case m.DeliverEvent():
            own = active_of(live, body.task)
            task = it.definition.tasks.get(body.task)
            if own is not None and own.run == body.run and isinstance(task, Listen):
                if isinstance(checked := _payload(body.event), _Refused):
                    raise checked
                consuming.deliver(it, own, body)
        case m.CompleteTask():
            _complete(it, _active(it.definition, live, body), body)
        case m.FailTask():
            _fail(it, _active(it.definition, live, body), body)
        case m.HeartbeatTask():
            active = _active(it.definition, live, body)
            called = it.definition.tasks[active.task]
            if not isinstance(called, Call):
                raise _Refused(
                    "task-not-active", f"Expected a worker's task but found {body.task}", body.task
                )
            if body.progress is not None and isinstance(checked := _payload(body.progress), _Refused):
                raise checked
            waking.progress(it, called, active, body)
        case (
            m.StartFlow()
            | m.CancelFlow()
            | m.SuspendFlow()
            | m.ResumeFlow()
            | m.TellEntity()
            | m.MigrateFlow()
            | m.RollBackFlow()
        ):
            raise _Refused("unexpected-command", f"Expected a flow's command but found {body!r}"[:200])
        case _:
            assert_never(body)


def _complete(it: Interpreter, active: m.ActiveTask, body: m.CompleteTask) -> None:
    checked = _payload(body.output)
    task = it.definition.tasks[active.task]
    if isinstance(checked, _Refused):
        title = "The task's result cannot be taken"
        catching.fault(it, task, m.Error(RUNTIME, 500, title, checked.reason), None)
    else:
        if isinstance(task, Approval) and task.form is not None:
            problem = task.form.problem(it.recording.value(checked))
            if problem is not None:  # a person can answer again
                raise _Refused("invalid-answer", problem, active.task)
        it.finish(active, checked)
    it.run()


def _fail(it: Interpreter, active: m.ActiveTask, body: m.FailTask) -> None:
    task = it.definition.tasks[active.task]
    error = m.Error(body.error.type, body.error.status, body.error.title, body.error.detail)
    if body.incident and isinstance(task, Call):
        waking.give_up(it, task, active, error)
        return
    catching.fault(it, task, error, None)
    it.run()


def _again(it: Interpreter, body: m.CommandBody, engine_version: str) -> None:
    """A command that was parked, decided now; what is refused by now was overtaken by events."""
    live = it.recording.live
    try:
        if isinstance(body, m.StartFlow):
            if live.engine_version == "":
                it.start(body, engine_version)
        elif isinstance(body, m.CancelFlow):
            _cancel(it, body)
        else:
            _apply(it, live, body)
    except _Refused:
        return


def _start(
    definition: Definition | None,
    state: FlowState | None,
    command: m.Command,
    body: m.StartFlow,
    cause: m.Cause,
    now: int,
    encode: Encode,
    engine_version: str,
    then: Definition | None,
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
    if body.restore is not None:
        _check_moment(definition, body.restore, then)
    recording = Recording(definition, None, command, cause, now, encode)
    Interpreter(definition, recording).start(body, engine_version, then)
    return recording


def other_of(body: m.CommandBody) -> str | None:
    """The id of the second definition that deciding a command takes; None: it takes none."""
    match body:
        case m.MigrateFlow():
            return body.definition
        case m.StartFlow(restore=restore) | m.RollBackFlow(restore=restore) if restore is not None:
            try:
                return restoring.moment(restore).definition if restore.sequence else None
            except restoring.Unrestorable:
                return None  # deciding says so
        case _:
            return None


def _check_moment(definition: Definition, restore: m.Restore, then: Definition | None) -> None:
    """Raises _Refused for what no flow of `definition` can go on from."""
    if restore.data is not None and isinstance(checked := _payload(restore.data), _Refused):
        raise checked
    try:
        if restore.sequence > 0:
            restoring.check(definition, restoring.moment(restore), then)
    except restoring.Unrestorable as problem:
        raise _Refused("not-restorable", str(problem)) from None


def _roll_back(it: Interpreter, body: m.RollBackFlow, then: Definition | None) -> None:
    _check_moment(it.definition, body.restore, then)
    try:
        restoring.roll_back(it, body, then)
    except restoring.Unrestorable as problem:
        raise _Refused("not-restorable", str(problem)) from None
    catching.compensate(it)
    it.run()


def _migrate(
    definition: Definition | None,
    state: FlowState | None,
    command: m.Command,
    cause: m.Cause,
    now: int,
    encode: Encode,
    target: Definition | None,
) -> Recording:
    body = command.body
    assert isinstance(body, m.MigrateFlow)
    live = _live(state, command)
    if target is None:
        raise _Refused("unknown-definition", f"Expected a published definition but found {body.definition!r}")
    assert definition is not None
    recording = Recording(definition, live, command, cause, now, encode)
    try:
        migrating.migrate(recording, definition, target, body.reason)
    except migrating.Unmovable as problem:
        raise _Refused("not-migratable", str(problem)) from None
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
    definition: Definition, live: m.LiveFlow, body: m.CompleteTask | m.FailTask | m.HeartbeatTask
) -> m.ActiveTask:
    """The active task a worker, a person or a sub-flow reports on."""
    active = active_of(live, body.task) or migrating.stale(live, definition, body.task)
    task = definition.tasks.get(body.task if active is None else active.task)
    if active is None or not isinstance(task, Call | Approval | Subflow):
        others = (definition.tasks.get(a.task) for a in live.active)
        waits = (
            ", ".join(sorted(t.pointer for t in others if isinstance(t, Call | Approval | Subflow))) or "none"
        )
        raise _Refused(
            "task-not-active",
            f"Expected a task that waits for a worker ({waits[:1000]}) but found {body.task}",
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


def _suspend(recording: Recording, body: m.SuspendFlow) -> None:
    if recording.live.status == "suspended":
        raise _Refused("flow-suspended", f"Expected a running flow but {recording.live.flow_id} is suspended")
    recording.emit(m.FlowSuspended(body.reason or "", b""))


def _cancel(it: Interpreter, body: m.CancelFlow) -> None:
    recording = it.recording
    scopes.cancel_all(it)
    if body.compensate and recording.live.compensations and recording.live.fate is None:
        recording.emit(m.FlowCompensating(None, body.reason))
        catching.compensate(it)
        it.run()
    else:
        recording.emit(m.FlowCancelled(body.reason))


def _without_definition(recording: Recording, body: m.CommandBody) -> Recording:
    """A flow whose definition this node does not know can still be stopped."""
    if isinstance(body, m.SuspendFlow):
        _suspend(recording, body)
        return recording
    assert isinstance(body, m.CancelFlow)
    for active in reversed(recording.live.active):
        recording.emit(m.TaskCancelled(), active.task, active.run, active.attempt)
    recording.emit(m.FlowCancelled(body.reason))
    return recording


# -- answers ------------------------------------------------------------------------------------------------------------


def _answer(recording: Recording) -> None:
    """A flow that ended tells the flow or the schedule that waits for it."""
    if not isinstance(recording.state, m.EndedFlow) or (parent := recording.parent) is None:
        return
    if parent.flow_id.startswith("~"):
        message = orjson.dumps({"ended": recording.command.flow_id})
        recording.ask("ended", parent.flow_id, m.TellEntity(message))
        return
    at = (parent.task, parent.run, parent.attempt)
    body: m.CommandBody
    match recording.events[-1].event.body:
        case m.FlowCompleted(output):
            body = m.CompleteTask(*at, output)
        case m.FlowFaulted(error):
            body = m.FailTask(*at, m.Error(error.type, error.status, error.title, error.detail))
        case _:
            detail = f"Expected flow {recording.command.flow_id} to end but it was cancelled"
            body = m.FailTask(*at, m.Error(RUNTIME, 500, "Sub-flow cancelled", detail))
    recording.ask("answer", parent.flow_id, body)


def _refusal(command: m.Command, refused: _Refused, now: int) -> tuple[Effect, ...]:
    """The task that asked for a flow which cannot start has to know."""
    body = command.body
    if not isinstance(body, m.StartFlow) or body.parent is None or body.parent.flow_id.startswith("~"):
        return ()
    parent = body.parent
    error = m.Error(CONFIGURATION, 400, "The sub-flow was refused", refused.reason)
    failed = m.FailTask(parent.task, parent.run, parent.attempt, error)
    actor = m.Actor("engine", command.flow_id)
    return (m.Command(f"{command.command_id}:refused", parent.flow_id, now, actor, failed, command.trace),)


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
