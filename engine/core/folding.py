"""What a task's event changes in its flow: which runs are active, what they hold, what the task around them holds.

Each function gives the fields of LiveFlow that change. A task's place says what its output does: a branch's output
joins its fork's results, an extension's task leaves the data alone, every other task's output becomes the data of the
task around it (or of the flow). Pure; needs no definition.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import msgspec
import orjson

from schemas import messages as m

Changes = dict[str, Any]

_replace = msgspec.structs.replace
_COMPENSATE: Final = "/metadata/compensate"
_UNTIL: Final = "~"
"""Marks a result that only counts: an event of an `until`, which is no part of the output."""


class BrokenLog(Exception):
    """Events that no engine of this design can have written in this order: a defect, or a damaged log."""


def inline(payload: m.Payload) -> bytes:
    """The JSON bytes of a payload. Claims are resolved at the edge, before the core sees them."""
    if isinstance(payload, bytes):
        return payload
    raise BrokenLog(f"Expected an inline payload but found a claim on {payload.uri}")


# -- where a task stands ------------------------------------------------------------------------------------------------


def active_of(state: m.LiveFlow, task: str) -> m.ActiveTask | None:
    for active in state.active:
        if active.task == task:
            return active
    return None


def scope_of(state: m.LiveFlow, task: str) -> m.ActiveTask | None:
    """The innermost active composite task around `task`; None is the flow's own scope."""
    found = None
    size = 0
    for active in state.active:
        around = active.task
        length = len(around)
        if size < length < len(task) and task[length] == "/" and task.startswith(around):
            found, size = active, length
    return found


def scope_data(state: m.LiveFlow, task: str) -> bytes:
    """The raw input of `task` were it performed now: the output of the task before it in its scope."""
    scope = scope_of(state, task)
    if scope is None:
        return state.data
    if task.startswith("/fork/", len(scope.task)):
        return scope.input
    return scope.data


def collected(active: m.ActiveTask) -> bytes:
    """The natural output of a run: its branches' outputs or its events, in their order, or its data."""
    if not active.results:
        return active.data
    shown = [result for result in active.results if not result.key.startswith(_UNTIL)]
    if not active.subscriptions:
        shown.sort(key=lambda result: int(result.key))
    return b"[" + b",".join([result.value for result in shown]) + b"]"


def consumed(active: m.ActiveTask) -> list[m.Result]:
    """The events of a listen that are part of its output."""
    return [result for result in active.results if not result.key.startswith(_UNTIL)]


def armed(compensations: tuple[m.Compensation, ...]) -> Changes:
    """The data that the next compensation gets: what the task it undoes got and gave."""
    if not compensations:
        return {"compensations": ()}
    last = compensations[-1]
    data = b'{"input":' + last.input + b',"output":' + last.output + b"}"
    return {"compensations": compensations, "data": data}


def _own(state: m.LiveFlow, event: m.Event) -> m.ActiveTask:
    found = active_of(state, event.task or "")
    if found is None:
        raise BrokenLog(f"Expected {event.task} to be active at event {event.sequence} of {event.flow_id}")
    return found


def _changed(state: m.LiveFlow, own: m.ActiveTask, **changes: Any) -> Changes:
    new = _replace(own, **changes)
    return {"active": tuple([new if other is own else other for other in state.active])}


# -- beginning ----------------------------------------------------------------------------------------------------------


def _entered(state: m.LiveFlow, event: m.Event, transformed: m.Payload | None, **fields: Any) -> Changes:
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
        **fields,
    )
    return {"active": (*state.active, entered), "runs": state.runs | {task: event.run}}


def _started(state: m.LiveFlow, event: m.Event, body: m.TaskStarted) -> Changes:
    return _entered(
        state,
        event,
        body.input,
        deadline=body.deadline,
        due=body.due,
        purpose=body.purpose,
        items=None if body.items is None else inline(body.items),
    )


def _scheduled(state: m.LiveFlow, event: m.Event, body: m.TaskScheduled) -> Changes:
    purpose = "heartbeat" if body.due else ""
    own = active_of(state, event.task or "")
    if own is not None:  # another attempt of a call that went silent or was given up
        return _changed(state, own, attempt=event.attempt, due=body.due, purpose=purpose)
    return _entered(
        state,
        event,
        body.input,
        deadline=body.deadline,
        due=body.due,
        purpose=purpose,
        queue=body.queue,
    )


def _subflow(state: m.LiveFlow, event: m.Event, body: m.SubflowStarted) -> Changes:
    return _entered(state, event, body.input, deadline=body.deadline, child=body.child)


def _listening(state: m.LiveFlow, event: m.Event, body: m.ListenStarted) -> Changes:
    return _entered(state, event, body.input, deadline=body.deadline, subscriptions=body.subscriptions)


# -- while it is active -------------------------------------------------------------------------------------------------


def _iterated(state: m.LiveFlow, event: m.Event, body: m.TaskIterated) -> Changes:
    own = _own(state, event)
    if own.items is not None:
        return _changed(state, own, index=body.index)
    return _changed(state, own, index=body.index, data=consumed(own)[body.index].value)


def _iteration_completed(state: m.LiveFlow, event: m.Event, body: m.TaskIterationCompleted) -> Changes:
    own = _own(state, event)
    output = own.data if body.output is None else inline(body.output)
    target = consumed(own)[body.index]
    results = tuple([_replace(r, value=output) if r is target else r for r in own.results])
    changes = _changed(state, own, results=results)
    if body.context is not None:
        changes["context"] = inline(body.context)
    return changes


def _consumed(state: m.LiveFlow, event: m.Event, body: m.EventConsumed) -> Changes:
    own = _own(state, event)
    key, value = str(body.filter), inline(body.event)
    if body.read == "":
        key, value = _UNTIL + key, b"null"
    elif body.read != "envelope":
        value = _read(value, body.read)
    results = (*own.results, m.Result(key, value))
    keys = own.keys if body.keys is None else body.keys
    return _changed(state, own, results=results, keys=keys) | {"steps": 0}


def _read(event: bytes, form: str) -> bytes:
    envelope = orjson.loads(event)
    if "data_base64" in envelope:
        return orjson.dumps(envelope["data_base64"])
    data = orjson.dumps(envelope.get("data"))
    return data if form == "data" else orjson.dumps(data.decode())


def _retried(state: m.LiveFlow, event: m.Event, body: m.TaskRetried) -> Changes:
    own = _own(state, event)
    if own.queue:  # a call that went silent or was given up: waits to be scheduled again
        return _changed(state, own, attempt=event.attempt, due=0, purpose="parked")
    due, purpose = body.due, "retry"
    if due <= event.time:
        due, purpose = body.deadline, "attempt" if body.deadline else ""
    return _changed(
        state,
        own,
        attempt=event.attempt,
        due=due,
        purpose=purpose,
        data=own.input,
        retrying_since=own.retrying_since or event.time,
    )


def _caught(state: m.LiveFlow, event: m.Event, body: m.TaskCaught) -> Changes:
    error = {field: getattr(body.error, field) for field in body.error.__struct_fields__}
    own = _own(state, event)
    return _changed(state, own, error=orjson.dumps(error), data=own.input, due=0, purpose="")


def _progressed(state: m.LiveFlow, event: m.Event, body: m.TaskProgressed) -> Changes:
    own = _own(state, event)
    return _changed(state, own, due=body.due)


def _fired(state: m.LiveFlow, event: m.Event, body: m.TimerFired) -> Changes:
    if event.task is None:
        return {"deadline": 0, "steps": 0}
    own = _own(state, event)
    if body.purpose == "timeout":
        return _changed(state, own, deadline=0) | {"steps": 0}
    purpose = "attempt" if body.next else ""
    return _changed(state, own, due=body.next, purpose=purpose) | {"steps": 0}


def _nothing(_: m.LiveFlow, __: m.Event, ___: Any) -> Changes:
    return {}


# -- ending -------------------------------------------------------------------------------------------------------------


def _completed(state: m.LiveFlow, event: m.Event, body: m.TaskCompleted) -> Changes:
    task = event.task or ""
    own = active_of(state, task)
    if body.output is not None:
        output = inline(body.output)
    elif body.result is not None:
        output = inline(body.result)
    else:
        output = scope_data(state, task) if own is None else collected(own)
    if own is not None and len(state.active) == 1 and state.fate is None:  # nothing around it: the usual call
        changes: Changes = {"active": (), "data": output}
    else:
        changes = _left(state, task, own, event.run, output, body.branch)
    changes["steps"] = state.steps + 1 if event.actor.kind == "engine" else 0
    if body.context is not None:
        changes["context"] = inline(body.context)
    if body.compensable:
        got = scope_data(state, task) if own is None else own.input
        undo = m.Compensation(task, event.run, got, output)
        changes["compensations"] = (*state.compensations, undo)
    return changes


def _skipped(state: m.LiveFlow, event: m.Event, _: m.TaskSkipped) -> Changes:
    task = event.task or ""
    changes: Changes = {"steps": state.steps + 1}
    scope = scope_of(state, task)
    if scope is not None and task.startswith("/fork/", len(scope.task)):
        changes |= _given(state, scope, None, task, scope.input)
    elif _undoes(state, task):
        changes |= armed(state.compensations[:-1])
    return changes


def _gone(state: m.LiveFlow, event: m.Event, _: m.TaskFaulted | m.TaskCancelled) -> Changes:
    return _left(state, event.task or "", active_of(state, event.task or ""), event.run, None)


def _left(
    state: m.LiveFlow,
    task: str,
    own: m.ActiveTask | None,
    run: int,
    output: bytes | None,
    branch: str | None = None,
) -> Changes:
    """A run is over; `output` is None when it gave none, `branch` is the case a switch chose."""
    changes: Changes = {}
    if own is None:
        changes["runs"] = state.runs | {task: run}
    scope = scope_of(state, task)
    if _undoes(state, task):
        changes |= armed(state.compensations[:-1])
    elif output is not None and scope is None:
        changes["data"] = output
    if output is not None and scope is not None:
        changes |= _given(state, scope, own, task, output, branch)
    elif own is not None:
        changes["active"] = tuple([other for other in state.active if other is not own])
    return changes


def _given(
    state: m.LiveFlow,
    scope: m.ActiveTask,
    own: m.ActiveTask | None,
    task: str,
    output: bytes,
    branch: str | None = None,
) -> Changes:
    """`scope` takes the output of its child `task`, whose run `own` (if it was active) is over."""
    at = len(scope.task)
    if task.startswith("/extensions/", at):
        new = scope
    elif task.startswith("/fork/", at):
        number = task[at + len("/fork/branches/") :].split("/", 1)[0]
        new = _replace(scope, data=output, results=(*scope.results, m.Result(number, output)))
    elif branch is not None and task[at:] == "/extended":  # remembered until the extensions after it are done
        new = _replace(scope, data=output, purpose=branch)
    else:
        new = _replace(scope, data=output)
    return {"active": tuple([new if other is scope else other for other in state.active if other is not own])}


def _undoes(state: m.LiveFlow, task: str) -> bool:
    """Whether `task` is the compensation that is being performed."""
    return (
        state.fate is not None
        and bool(state.compensations)
        and task == state.compensations[-1].task + _COMPENSATE
    )


FOLDS: Final[dict[type, Callable[[m.LiveFlow, m.Event, Any], Changes]]] = {
    m.TaskScheduled: _scheduled,
    m.TaskStarted: _started,
    m.TaskSkipped: _skipped,
    m.TaskCompleted: _completed,
    m.TaskFaulted: _gone,
    m.TaskCancelled: _gone,
    m.TaskIterated: _iterated,
    m.TaskIterationCompleted: _iteration_completed,
    m.TaskRetried: _retried,
    m.TaskCaught: _caught,
    m.TaskProgressed: _progressed,
    m.TimerFired: _fired,
    m.SubflowStarted: _subflow,
    m.ListenStarted: _listening,
    m.EventConsumed: _consumed,
    m.EventEmitted: _nothing,
    m.DecisionMade: _nothing,
}
