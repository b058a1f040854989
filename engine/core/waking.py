"""What wakes a waiting flow besides results and events: timers, heartbeats, a person who suspends or resumes it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from engine.core import catching, durable, limiting, scopes, starting
from engine.core.faults import TIMEOUT, Fault
from engine.core.folding import active_of
from engine.dsl.model import Call, Task, Try
from schemas import messages as m
from schemas.codec import Undecodable, decode_command

if TYPE_CHECKING:
    from engine.core.interpret import Interpreter

_PARKED: Final = "parked"


def _late(what: str) -> m.Error:
    return m.Error(TIMEOUT, 408, "Timeout", f"Expected {what} to end in time but it did not")


# -- timers -------------------------------------------------------------------------------------------------------------


def is_due(live: m.LiveFlow, timer: m.FireTimer, now: int) -> bool:
    """Whether the timer still means something, and its time has come."""
    if now < timer.due:
        return False
    if timer.task is None:
        return live.deadline == timer.due
    active = active_of(live, timer.task)
    if active is None or (active.run, active.attempt) != (timer.run, timer.attempt):
        return False
    if timer.purpose == "timeout":
        return active.deadline == timer.due
    return active.due == timer.due and active.purpose == timer.purpose


def fire(it: Interpreter, timer: m.FireTimer) -> None:
    """A timer whose time has come (`is_due`)."""
    rec = it.recording
    if timer.task is None:
        rec.emit(m.TimerFired(timer.purpose, timer.due))
        scopes.cancel_all(it)
        error = catching.located(_late("the flow"), "/")
        catching.end_by(it, error)
        it.run()
        return
    active = active_of(rec.live, timer.task)
    assert active is not None
    task = it.definition.tasks[timer.task]
    following = 0
    if timer.purpose == "retry":
        following = _attempt_end(it, task, active)
    rec.emit(m.TimerFired(timer.purpose, timer.due, following), timer.task, active.run, active.attempt)
    active = active_of(rec.live, timer.task)
    assert active is not None
    match timer.purpose:
        case "wait":
            it.leave(active, active.data)
        case "retry":
            assert isinstance(task, Try)
            it.agenda.append(task.first)
        case "attempt":
            _attempt_over(it, task)
        case "heartbeat":
            assert isinstance(task, Call)
            _silent(it, task, active)
        case _:
            scopes.release(it, active, over=False)
            _time_out(it, task)
    it.run()


def _attempt_end(it: Interpreter, task: Task, active: m.ActiveTask) -> int:
    assert isinstance(task, Try)
    policy = task.catch.retry
    if policy is None or policy.attempt_limit is None:
        return 0
    return durable.end_of(
        it, policy.attempt_limit, task, active.raw_input, active.input, it.recording.now, "retry"
    )


def _attempt_over(it: Interpreter, task: Task) -> None:
    """An attempt of a try took too long: what runs in it is cancelled, and its catch gets a timeout."""
    scopes.cancel_within(it, task.pointer)
    error = catching.located(_late(f"the attempt of {task.pointer}"), task.pointer)
    assert isinstance(task, Try)
    catching.outwards(it, task.first, error)


def _time_out(it: Interpreter, task: Task) -> None:
    scopes.cancel_within(it, task.pointer)
    catching.fault(it, task, _late(task.pointer), None, released=True)


# -- calls that go silent -----------------------------------------------------------------------------------------------


def _silent(it: Interpreter, task: Call, active: m.ActiveTask) -> None:
    """No heartbeat in time: another worker gets the task; after the last attempt a person has to look."""
    detail = f"Expected a heartbeat of {task.pointer} in time but attempt {active.attempt} went silent"
    error = m.Error(TIMEOUT, 408, "Worker silent", detail)
    scopes.silence(it, active)
    if active.attempt < task.attempts:
        it.recording.emit(m.TaskRetried(error), task.pointer, active.run, active.attempt + 1)
        if task.limits:
            limiting.release(it, task, active)
        _again(it, task)
    else:
        give_up(it, task, active, error)


def give_up(it: Interpreter, task: Call, active: m.ActiveTask, error: m.Error) -> None:
    """The task stays, for another attempt when a person resumes the flow."""
    rec = it.recording
    rec.emit(m.TaskRetried(error), task.pointer, active.run, active.attempt + 1)
    if task.limits:
        limiting.release(it, task, active)
    rec.emit(m.FlowSuspended(error.detail or error.title or error.type, b""))


def _again(it: Interpreter, task: Call) -> None:
    active = active_of(it.recording.live, task.pointer)
    assert active is not None
    try:
        starting.schedule_again(it, task, active)
    except Fault as fault:
        catching.fault(it, task, fault.error, None)


def progress(it: Interpreter, task: Call, active: m.ActiveTask, body: m.HeartbeatTask) -> None:
    """A worker is alive: its next heartbeat is due a heartbeat's time from now."""
    rec = it.recording
    due = 0
    if task.heartbeat is not None:
        due = durable.end_of(it, task.heartbeat, task, active.raw_input, active.input, rec.now, "heartbeat")
    rec.emit(m.TaskProgressed(body.progress, due), task.pointer, active.run, active.attempt)


# -- people -------------------------------------------------------------------------------------------------------------


def resume(it: Interpreter, body: m.ResumeFlow, again: Callable[[m.CommandBody], None]) -> None:
    """Goes on: calls that were given up are scheduled again, then what was parked is decided (`again`), in order."""
    rec = it.recording
    parked = rec.live.parked
    rec.emit(m.FlowResumed(body.reason))
    for active in rec.live.active:
        task = it.definition.tasks[active.task]
        if active.purpose == _PARKED and isinstance(task, Call):
            _again(it, task)
    it.run()
    for stored in parked:
        if not isinstance(rec.state, m.LiveFlow):
            return
        try:
            command = decode_command(stored)
        except Undecodable:
            continue
        if not isinstance(command.body, m.ResumeFlow | m.SuspendFlow):
            again(command.body)
