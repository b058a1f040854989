"""What each kind of task does when it is performed: complete at once, enter a scope, or begin to wait for somebody."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from engine.core import consuming, durable, limiting, scopes
from engine.core.arguments import moment
from engine.core.effects import Dispatch, Emitted
from engine.core.faults import Fault, expression_failed
from engine.core.folding import active_of
from engine.dsl.errors import ExpressionError
from engine.dsl.model import (
    Approval,
    Call,
    Decide,
    Directive,
    Do,
    Emit,
    Extended,
    For,
    Fork,
    Listen,
    Raise,
    Set,
    Subflow,
    Switch,
    Task,
    Try,
    Wait,
)
from engine.dsl.secrets import MARKS
from schemas import messages as m

if TYPE_CHECKING:
    from engine.core.interpret import Interpreter

_FLOW_ID_MAX: Final = 128
_ATTRIBUTES: Final = ("id", "source", "type", "subject", "time", "datacontenttype", "dataschema")


# -- starting -----------------------------------------------------------------------------------------------------------


def start(it: Interpreter, task: Task, raw: bytes, data: bytes) -> None:
    """Performs `task`, whose condition held, on its transformed input `data`. May raise Fault."""
    run = it.recording.live.runs.get(task.pointer, 0) + 1
    _STARTS[type(task)](it, task, run, raw, data)


def _changed(raw: bytes, data: bytes) -> bytes | None:
    return None if data == raw else data


def _choose(it: Interpreter, task: Switch, raw: bytes, data: bytes) -> tuple[str | None, Directive]:
    """The first case that holds, or the default one; without either the flow goes on by the task's `then`."""
    default: tuple[str | None, Directive] = (None, task.then)
    for case in task.cases:
        if case.when is None:
            default = (case.name, case.then)
            continue
        arguments = it.arguments.of(case.when.reads, task, raw=raw, data=data)
        if it.truth(case.when, it.recording.value(data), arguments, f"switch case {case.name}"):
            return case.name, case.then
    return default


def _raised(it: Interpreter, task: Raise, raw: bytes, data: bytes) -> Fault:
    arguments = it.arguments.of(task.error.reads, task, raw=raw, data=data)
    error = it.value_of(task.error, it.recording.value(data), arguments, "raise")
    kind, status = error.get("type"), error.get("status")
    if not isinstance(kind, str) or not isinstance(status, int) or isinstance(status, bool):
        return expression_failed(
            "raise", f"Expected a type and a whole status but found {kind!r}, {status!r}"
        )
    title, detail = error.get("title"), error.get("detail")
    return Fault(
        m.Error(
            kind,
            status,
            None if title is None else str(title),
            None if detail is None else str(detail),
            error.get("instance"),
        )
    )


def _decide(it: Interpreter, task: Decide, run: int, raw: bytes, data: bytes) -> None:
    rec = it.recording
    arguments = it.arguments.of(task.reads, task, raw=raw, data=data)
    try:
        output, explanation = task.decide(rec.value(data), arguments)
        made = rec.bytes_of(output)
        explained = rec.bytes_of(explanation)
    except ExpressionError as problem:
        raise expression_failed(f"decision {task.table}", str(problem)) from None
    rec.emit(m.DecisionMade(task.table, explained), task.pointer, run, 1)
    it.complete(task, run, 1, raw, data, made)


def _emit(it: Interpreter, task: Emit, run: int, raw: bytes, data: bytes) -> None:
    """Publishes a CloudEvent, which is the task's output; what the author left out is filled in from the flow."""
    rec = it.recording
    arguments = it.arguments.of(task.event.reads, task, raw=raw, data=data)
    given = it.value_of(task.event, rec.value(data), arguments, "emit")
    event: dict[str, Any] = {"specversion": "1.0"}
    defaults = {
        "id": f"{rec.live.flow_id}/{rec.live.sequence + 1}",
        "source": f"/flowtrail/{it.definition.namespace}/{it.definition.name}",
        "type": "io.flowtrail.emitted.v1",
        "time": moment(rec.now)["iso8601"],
    }
    for name, value in (defaults | given).items():
        if name == "data":
            continue
        if not isinstance(value, str | int | float | bool):
            raise expression_failed("emit", f"Expected the attribute {name} to be text but found {value!r}")
        event[name] = value if name not in _ATTRIBUTES else str(value)
    if "data" in given:
        event["data"] = given["data"]
    try:
        encoded = rec.bytes_of(event)
    except ExpressionError as problem:
        raise expression_failed("emit", str(problem)) from None
    rec.emit(m.EventEmitted(encoded), task.pointer, run, 1)
    rec.effects.append(Emitted(_cloud_event(rec, event), event.get("subject") or rec.live.flow_id))
    it.complete(task, run, 1, raw, data, encoded)


def _cloud_event(rec: Any, event: dict[str, Any]) -> m.CloudEvent:
    extensions = {
        name: value if isinstance(value, str) else rec.bytes_of(value).decode()
        for name, value in event.items()
        if name not in (*_ATTRIBUTES, "specversion", "data")
    }
    data = rec.bytes_of(event["data"]) if "data" in event else None
    known = {name: event[name] for name in _ATTRIBUTES if name in event}
    if data is not None:
        known.setdefault("datacontenttype", "application/json")
    return m.CloudEvent(**known, extensions=extensions, data=data)


def _wait(it: Interpreter, task: Wait, run: int, raw: bytes, data: bytes) -> None:
    rec = it.recording
    due = durable.end_of(it, task.duration, task, raw, data, rec.now, "wait")
    deadline = it.deadline(task, raw, data)
    started = m.TaskStarted(_changed(raw, data), deadline, due, "wait", kind="wait")
    rec.emit(started, task.pointer, run, 1)
    if due <= rec.now:
        active = active_of(rec.live, task.pointer)
        assert active is not None
        it.leave(active, active.data)


# -- tasks of others ----------------------------------------------------------------------------------------------------


def _call(it: Interpreter, task: Call, run: int, raw: bytes, data: bytes) -> None:
    rec = it.recording
    given = None
    if task.arguments is not None:
        arguments = it.arguments.of(task.arguments.reads, task, raw=raw, data=data)
        made = it.bytes_of(task.arguments, rec.value(data), arguments, "with")
        given = None if made == data else made
    elif task.check_input is not None and any(mark in data for mark in MARKS):
        try:
            task.check_input(rec.value(data))
        except ExpressionError as problem:
            raise expression_failed("with", str(problem)) from None
    due = 0
    if task.heartbeat is not None:
        due = durable.end_of(it, task.heartbeat, task, raw, data, rec.now, "heartbeat")
    scheduled = m.TaskScheduled(
        task.queue,
        task.function,
        _changed(raw, data),
        given,
        it.deadline(task, raw, data),
        due,
        task.priority,
        task.wait,
    )
    rec.emit(scheduled, task.pointer, run, 1)
    active = active_of(rec.live, task.pointer)
    assert active is not None
    hand_over(it, task, active, data if given is None else given)
    if not task.wait:
        it.leave(active, active.input)


def schedule_again(it: Interpreter, task: Call, active: m.ActiveTask) -> None:
    """Another attempt of a call whose worker went silent, or that was given up and is resumed."""
    rec = it.recording
    arguments = active.input
    if task.arguments is not None:
        found = it.arguments.of(task.arguments.reads, task, raw=active.raw_input, data=active.input)
        arguments = it.bytes_of(task.arguments, rec.value(active.input), found, "with")
    due = 0
    if task.heartbeat is not None:
        due = durable.end_of(it, task.heartbeat, task, active.raw_input, active.input, rec.now, "heartbeat")
    given = None if arguments == active.input else arguments
    scheduled = m.TaskScheduled(
        task.queue, task.function, None, given, active.deadline, due, task.priority, task.wait
    )
    rec.emit(scheduled, task.pointer, active.run, active.attempt)
    again = active_of(rec.live, task.pointer)
    assert again is not None
    hand_over(it, task, again, arguments)


def hand_over(it: Interpreter, task: Call, active: m.ActiveTask, arguments: bytes) -> None:
    """Gives the task to the workers of its queue, through its limiters when it has any."""
    rec = it.recording
    message = m.Task(
        flow_id=rec.live.flow_id,
        definition=rec.live.definition,
        task=task.pointer,
        run=active.run,
        attempt=active.attempt,
        function=task.function,
        arguments=arguments,
        time=rec.now,
        trace=rec.command.trace,
        deadline=active.deadline,
        heartbeat=active.due - rec.now if active.due else 0,
        priority=task.priority,
        reply=task.wait,
    )
    if task.limits:
        limiting.acquire(it, task, active, message)
    else:
        rec.effects.append(Dispatch(task.queue, message))


def _subflow(it: Interpreter, task: Subflow, run: int, raw: bytes, data: bytes) -> None:
    rec = it.recording
    given = None
    if task.arguments is not None:
        arguments = it.arguments.of(task.arguments.reads, task, raw=raw, data=data)
        made = it.bytes_of(task.arguments, rec.value(data), arguments, "input")
        given = None if made == data else made
    child = _child_id(rec.live.flow_id, rec.live.sequence + 1)
    started = m.SubflowStarted(
        child, task.workflow, _changed(raw, data), given, it.deadline(task, raw, data), task.wait
    )
    rec.emit(started, task.pointer, run, 1)
    parent = m.Parent(rec.live.flow_id, task.pointer, run, 1) if task.wait else None
    rec.ask("start", child, m.StartFlow(task.workflow, data if given is None else given, parent))
    if not task.wait:
        active = active_of(rec.live, task.pointer)
        assert active is not None
        it.leave(active, active.input)


def _child_id(flow_id: str, sequence: int) -> str:
    """The flow id of a sub-flow: its parent's and the number of the event that starts it."""
    child = f"{flow_id}.{sequence}"
    return child if len(child) <= _FLOW_ID_MAX else hashlib.sha256(child.encode()).hexdigest()[:40]


def _set(it: Interpreter, task: Set, run: int, raw: bytes, data: bytes) -> None:
    arguments = it.arguments.of(task.value.reads, task, raw=raw, data=data)
    output = it.bytes_of(task.value, it.recording.value(data), arguments, "set")
    it.complete(task, run, 1, raw, data, output)


def _switch(it: Interpreter, task: Switch, run: int, raw: bytes, data: bytes) -> None:
    branch, directive = _choose(it, task, raw, data)
    it.complete(task, run, 1, raw, data, data, branch=branch, directive=directive)


def _raise(it: Interpreter, task: Raise, _run: int, raw: bytes, data: bytes) -> None:
    raise _raised(it, task, raw, data)


def _ask(it: Interpreter, task: Approval, run: int, raw: bytes, data: bytes) -> None:
    rec = it.recording
    arguments = it.arguments.of(task.request.reads, task, raw=raw, data=data)
    request = it.bytes_of(task.request, rec.value(data), arguments, "with")
    deadline = it.deadline(task, raw, data)
    scheduled = m.TaskScheduled("", "approval", _changed(raw, data), request, deadline)
    rec.emit(scheduled, task.pointer, run, 1)


_STARTS: Final[dict[type[Task], Callable[[Interpreter, Any, int, bytes, bytes], None]]] = {
    Set: _set,
    Switch: _switch,
    Raise: _raise,
    Emit: _emit,
    Decide: _decide,
    Wait: _wait,
    Call: _call,
    Approval: _ask,
    Subflow: _subflow,
    Listen: consuming.listen,
    **dict.fromkeys((Do, For, Fork, Try, Extended), scopes.enter),
}
