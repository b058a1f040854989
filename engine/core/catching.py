"""Errors: from the task that failed outwards to the first try that catches them, or to the end of the flow.

On the way every composite task faults with the same error, and what runs beside it is cancelled. A try retries by its
policy, then performs its `catch.do`; with a policy that is used up and without `catch.do` the error goes on. A flow
that has to end by an error first undoes what it completed (metadata.compensate), newest first.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any, Final

import orjson

from engine.core import durable, restoring, scopes
from engine.core.faults import Fault, runtime_failed, standard
from engine.core.folding import active_of, scope_of
from engine.core.recording import PAYLOAD_BYTES_MAX
from engine.dsl.model import Fork, Json, Retry, Task, Try
from schemas import messages as m

if TYPE_CHECKING:
    from engine.core.interpret import Interpreter

_BACKOFF_MAX: Final = 2**20


def small(output: bytes) -> bytes:
    """What a composite collected, if it is not too large. Raises Fault."""
    if len(output) > PAYLOAD_BYTES_MAX:
        detail = f"Expected at most {PAYLOAD_BYTES_MAX} bytes but the collected output has {len(output)}"
        raise runtime_failed("Output too large", detail)
    return output


def described(error: m.Error) -> dict[str, Json]:
    """The error as expressions see it: its properties, without those it does not have."""
    fields = {name: getattr(error, name) for name in error.__struct_fields__}
    return {name: value for name, value in fields.items() if value is not None}


def located(error: m.Error, instance: str) -> m.Error:
    if error.instance is not None:
        return error
    return m.Error(error.type, error.status, error.title, error.detail, instance)


# -- outwards -----------------------------------------------------------------------------------------------------------


def fault(
    it: Interpreter, task: Task, error: m.Error, result: bytes | None, *, released: bool = False
) -> None:
    """`task` failed: records it, and looks for who catches the error. `released`: its workers know already."""
    rec = it.recording
    error = located(error, task.pointer)
    own = active_of(rec.live, task.pointer)
    if own is not None:
        scopes.cancel_within(it, task.pointer)
    run = rec.live.runs.get(task.pointer, 0) + 1 if own is None else own.run
    rec.emit(m.TaskFaulted(error, result), task.pointer, run, 1 if own is None else own.attempt)
    if own is not None and not released:
        scopes.release(it, own, over=True)
    outwards(it, task.pointer, error)


def outwards(it: Interpreter, pointer: str, error: m.Error) -> None:
    """The error of the task at `pointer`, which is over, goes outwards until a try catches it."""
    rec = it.recording
    while (scope := scope_of(rec.live, pointer)) is not None:
        outer = it.definition.tasks[scope.task]
        if isinstance(outer, Fork):
            scopes.cancel_within(it, scope.task)
        if isinstance(outer, Try) and pointer.startswith("/try/", len(scope.task)):
            try:
                if _caught(it, outer, scope, error):
                    return
            except Fault as another:  # the catch's own expressions failed: that error replaces the first
                error = located(another.error, scope.task)
        rec.emit(m.TaskFaulted(error), scope.task, scope.run, scope.attempt)
        pointer = scope.task
    if rec.live.fate is not None and pointer.endswith("/metadata/compensate"):
        compensate(it)
    else:
        end_by(it, error)


def end_by(it: Interpreter, error: m.Error) -> None:
    """Nobody caught `error`: the flow faults, after its compensations."""
    rec = it.recording
    it.agenda.clear()
    scopes.cancel_all(it)
    if rec.live.compensations and rec.live.fate is None:
        rec.emit(m.FlowCompensating(error))
        compensate(it)
    else:
        rec.emit(m.FlowFaulted(error))


def compensate(it: Interpreter) -> None:
    """Performs the next compensation, or lets the flow end, or go on, as it has to."""
    rec = it.recording
    assert rec.live.fate is not None
    fate = orjson.loads(rec.live.fate)
    if len(rec.live.compensations) > fate.get("keep", 0):
        undoing = it.definition.tasks[rec.live.compensations[-1].task].compensate
        assert undoing is not None
        it.agenda.appendleft(undoing)
    elif "restore" in fate:
        restoring.restore(it)
    elif fate["error"] is None:
        rec.emit(m.FlowCancelled(fate["reason"]))
    else:
        rec.emit(m.FlowFaulted(m.Error(**fate["error"])))


# -- catching -----------------------------------------------------------------------------------------------------------


def _caught(it: Interpreter, task: Try, own: m.ActiveTask, error: m.Error) -> bool:
    """Whether the catch of `task` takes `error`; then it is retried or handled. May raise Fault."""
    catch, shown = task.catch, described(error)
    value = it.recording.value(own.data)
    given = {catch.name: shown}

    def holds(form: Any, where: str) -> bool:
        arguments = it.arguments.of(form.reads, task, raw=own.raw_input, data=own.input, given=given)
        return it.truth(form, value, arguments, where)

    if catch.errors is not None:
        arguments = it.arguments.of(catch.errors.reads, task, raw=own.raw_input, data=own.input, given=given)
        wanted = it.value_of(catch.errors, value, arguments, "catch.errors")
        if any(standard(shown.get(name)) != standard(expected) for name, expected in wanted.items()):
            return False
    if catch.when is not None and not holds(catch.when, "catch.when"):
        return False
    if catch.except_when is not None and holds(catch.except_when, "catch.exceptWhen"):
        return False
    policy = catch.retry
    if policy is not None:
        wanted_again = (policy.when is None or holds(policy.when, "retry.when")) and (
            policy.except_when is None or not holds(policy.except_when, "retry.exceptWhen")
        )
        if wanted_again and _retry(it, task, own, policy, error):
            return True
        if catch.first is None:
            return False
    it.recording.emit(m.TaskCaught(error), task.pointer, own.run, own.attempt)
    if catch.first is not None:
        it.agenda.appendleft(catch.first)
    else:
        again = active_of(it.recording.live, task.pointer)
        assert again is not None
        it.leave(again, again.data)
    return True


def _retry(it: Interpreter, task: Try, own: m.ActiveTask, policy: Retry, error: m.Error) -> bool:
    """Begins another attempt, at once or later; False when the policy allows none."""
    rec = it.recording
    if policy.count is not None and own.attempt > policy.count:
        return False
    due = rec.now + _delay(it, task, own, policy)
    if policy.limit is not None:
        since = own.retrying_since or rec.now
        if due > _end_of(it, task, own, policy.limit, since):
            return False
    deadline = 0
    if policy.attempt_limit is not None:
        deadline = _end_of(it, task, own, policy.attempt_limit, due)
    rec.emit(m.TaskRetried(error, due, deadline), task.pointer, own.run, own.attempt + 1)
    if due <= rec.now:
        it.agenda.appendleft(task.first)
    return True


def _end_of(it: Interpreter, task: Try, own: m.ActiveTask, duration: Any, since: int) -> int:
    return durable.end_of(it, duration, task, own.raw_input, own.input, since, "retry")


def _delay(it: Interpreter, task: Try, own: m.ActiveTask, policy: Retry) -> int:
    """Microseconds before the next attempt: delay by back-off, and jitter drawn from the flow's own hash chain."""
    rec = it.recording
    base = 0
    if policy.delay is not None:
        base = _end_of(it, task, own, policy.delay, rec.now) - rec.now
    match policy.backoff.kind:
        case "linear":
            base *= own.attempt
        case "exponential":
            base *= min(2 ** min(own.attempt - 1, 64), _BACKOFF_MAX)
        case _:
            pass
    if policy.jitter is not None:
        low, high = (_end_of(it, task, own, part, rec.now) - rec.now for part in policy.jitter)
        drawn = int.from_bytes(hashlib.sha256(rec.live.head + b"jitter").digest()[:8], "big")
        base += low + drawn * max(0, high - low) // 2**64
    return base


def attempt_end(it: Interpreter, task: Try, raw: bytes, data: bytes) -> int:
    """When the first attempt of `task`, begun now, times out; 0: never."""
    policy = task.catch.retry
    if policy is None or policy.attempt_limit is None:
        return 0
    return durable.end_of(it, policy.attempt_limit, task, raw, data, it.recording.now, "retry")
