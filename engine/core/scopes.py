"""Scopes: entering a composite task, what happens when the last task in it is over, and ending runs from outside.

Which part of a composite a task stands in is read from its pointer (docs/architecture.md): `P/do/..`, `P/try/..`,
`P/catch/do/..`, `P/fork/branches/..`, `P/foreach/do/..`, `P/extended`, `P/extensions/N/before|after/..`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import orjson

from engine.core import catching, consuming, limiting
from engine.core.arguments import items_of
from engine.core.faults import Fault, expression_failed
from engine.core.folding import active_of, collected, scope_of
from engine.dsl.model import (
    Advice,
    Call,
    Directive,
    Do,
    Extended,
    For,
    Fork,
    Listen,
    Switch,
    Task,
    Try,
)
from schemas import messages as m

if TYPE_CHECKING:
    from engine.core.interpret import Interpreter


# -- entering -----------------------------------------------------------------------------------------------------------


def enter(it: Interpreter, task: Do | For | Fork | Try | Extended, run: int, raw: bytes, data: bytes) -> None:
    """Begins a composite task: records it and puts its first tasks on the agenda. May raise Fault."""
    rec = it.recording
    changed = None if data == raw else data
    deadline = it.deadline(task, raw, data)
    match task:
        case For():
            arguments = it.arguments.of(task.collection.reads, task, raw=raw, data=data)
            items = it.value_of(task.collection, rec.value(data), arguments, "for")
            if not isinstance(items, list):
                raise expression_failed(
                    "for", f"Expected a list to iterate over but found {str(items)[:100]}"
                )
            collection = it.bytes_of(task.collection, rec.value(data), arguments, "for")
            started = m.TaskStarted(changed, deadline, items=collection, kind="for")
            rec.emit(started, task.pointer, run, 1)
            iterate(it, _active(it, task), task)
        case Try():
            due = catching.attempt_end(it, task, raw, data)
            started = m.TaskStarted(changed, deadline, due, "attempt" if due else "", kind="try")
            rec.emit(started, task.pointer, run, 1)
            it.agenda.appendleft(task.first)
        case Fork():
            rec.emit(m.TaskStarted(changed, deadline, kind=task.kind), task.pointer, run, 1)
            it.agenda.extendleft(reversed(task.branches))
        case Extended():
            rec.emit(m.TaskStarted(changed, deadline, kind=task.kind), task.pointer, run, 1)
            _advise(it, task, _active(it, task), "before", task.before)
        case Do():
            rec.emit(m.TaskStarted(changed, deadline, kind=task.kind), task.pointer, run, 1)
            it.agenda.appendleft(task.first)


def _active(it: Interpreter, task: Task) -> m.ActiveTask:
    found = active_of(it.recording.live, task.pointer)
    assert found is not None
    return found


def iterate(it: Interpreter, own: m.ActiveTask, task: For) -> None:
    """Begins the next iteration, or ends the loop with the output of its last one. May raise Fault."""
    assert own.items is not None
    items, index = items_of(own.items), own.index + 1
    if index < len(items) and task.while_ is not None:
        given = {task.each: items[index], task.at: index}
        arguments = it.arguments.of(task.while_.reads, task, raw=own.raw_input, data=own.input, given=given)
        if not it.truth(task.while_, it.recording.value(own.data), arguments, "while"):
            index = len(items)
    if index >= len(items):
        it.leave(own, own.data)
        return
    it.recording.emit(m.TaskIterated(index), task.pointer, own.run, own.attempt)
    it.agenda.appendleft(task.first)


def _advise(
    it: Interpreter, task: Extended, own: m.ActiveTask, phase: str, advices: Iterable[Advice]
) -> None:
    """Performs the first of `advices` that applies; without one, what comes after this phase. May raise Fault."""
    described = it.arguments.extended(own, after=phase == "after")
    for advice in advices:
        if advice.when is not None:
            reads, value = advice.when.reads, it.recording.value(own.data)
            arguments = it.arguments.of(
                reads, task, raw=own.raw_input, data=own.input, given={"task": described}
            )
            if not it.truth(advice.when, value, arguments, "extension"):
                continue
        it.agenda.appendleft(advice.first)
        return
    if phase == "before":
        it.agenda.appendleft(task.inner)
    else:
        it.leave(own, own.data, _chosen(it, task, own))


def _chosen(it: Interpreter, task: Extended, own: m.ActiveTask) -> Directive | None:
    """Where the case that an extended switch chose leads to."""
    inner = it.definition.tasks[task.inner]
    if not own.purpose or not isinstance(inner, Switch):
        return None
    return next(case.then for case in inner.cases if case.name == own.purpose)


# -- leaving ------------------------------------------------------------------------------------------------------------


def leave(it: Interpreter, task: Task, directive: Directive, output: bytes) -> None:
    """`task` was the last of its scope, or said `exit` or `end`. `output` is its transformed output."""
    rec = it.recording
    if rec.live.fate is not None and task.pointer.endswith("/metadata/compensate"):
        catching.compensate(it)
        return
    if (scope := scope_of(rec.live, task.pointer)) is None:
        if directive == "end":
            it.agenda.clear()
        it.complete_flow()
        return
    outer = it.definition.tasks[scope.task]
    try:
        if directive == "end":
            _end_through(it, outer, scope)
        else:
            _leave_into(it, outer, scope, task, directive, output)
    except Fault as fault:
        catching.fault(it, outer, fault.error, None)


def _end_through(it: Interpreter, outer: Task, scope: m.ActiveTask) -> None:
    """`end`: the scope ends, and so do those around it and the flow; branches beside it are cancelled."""
    if isinstance(outer, Fork):
        cancel_within(it, scope.task)
        scope = active_of(it.recording.live, scope.task) or scope
    it.leave(scope, scope.data, "end")


def _leave_into(
    it: Interpreter,
    outer: Task,
    scope: m.ActiveTask,
    task: Task,
    directive: Directive,
    output: bytes,
) -> None:
    match outer:
        case For():
            iterate(it, scope, outer)
        case Fork():
            _joined(it, outer, scope, output)
        case Listen():
            consuming.iterated(it, outer, scope)
        case Extended():
            _advised(it, outer, scope, task, directive, output)
        case _:
            it.leave(scope, scope.data)


def _joined(it: Interpreter, outer: Fork, scope: m.ActiveTask, output: bytes) -> None:
    """A branch is over: the fork is when it was the first of a race, or the last of all."""
    if outer.compete:
        cancel_within(it, scope.task)
        it.leave(active_of(it.recording.live, scope.task) or scope, output)
    elif len(scope.results) == len(outer.branches):
        it.leave(scope, catching.small(collected(scope)))


def _advised(
    it: Interpreter,
    outer: Extended,
    scope: m.ActiveTask,
    task: Task,
    directive: Directive,
    output: bytes,
) -> None:
    if task.pointer == outer.inner:
        _advise(it, outer, scope, "after", outer.after)
        return
    before = any(_within(task.pointer, advice) for advice in outer.before)
    if before and directive == "exit":
        it.leave(scope, output)
        return
    advices = outer.before if before else outer.after
    number = next(n for n, advice in enumerate(advices) if _within(task.pointer, advice))
    _advise(it, outer, scope, "before" if before else "after", advices[number + 1 :])


def _within(pointer: str, advice: Advice) -> bool:
    """Whether the task at `pointer` is one of the advice's list."""
    return pointer.rsplit("/", 2)[0] == advice.first.rsplit("/", 2)[0]


# -- ending from outside ------------------------------------------------------------------------------------------------


def cancel_within(it: Interpreter, pointer: str) -> None:
    """Cancels every run below `pointer`, the innermost first, and drops what was to be performed there."""
    prefix = pointer + "/"
    for active in sorted(it.recording.live.active, key=lambda a: -a.task.count("/")):
        if active.task.startswith(prefix):
            cancel(it, active)
    kept = [task for task in it.agenda if not task.startswith(prefix)]
    it.agenda.clear()
    it.agenda.extend(kept)
    ready = it.recording.live.ready
    if any(task.startswith(prefix) for task in ready):
        left = tuple([task for task in ready if not task.startswith(prefix)])
        it.recording.emit(m.FlowYielded(left))


def cancel_all(it: Interpreter) -> None:
    """Cancels every run of the flow, the youngest first."""
    for active in reversed(it.recording.live.active):
        cancel(it, active)
    it.agenda.clear()


def cancel(it: Interpreter, active: m.ActiveTask) -> None:
    it.recording.emit(m.TaskCancelled(), active.task, active.run, active.attempt)
    release(it, active, over=False)


def release(it: Interpreter, active: m.ActiveTask, *, over: bool) -> None:
    """Tells those who work for the run that it has ended: `over` when they said so themselves."""
    rec = it.recording
    if active.queue:
        task = it.definition.tasks[active.task]
        if isinstance(task, Call) and task.limits:
            limiting.release(it, task, active)
        if not over:
            silence(it, active)
    if active.child and not over:
        rec.ask("cancel", active.child, m.CancelFlow(f"{rec.command.flow_id} no longer waits for it"))
    if active.subscriptions:
        answer = {"flow": rec.command.flow_id, "task": active.task, "run": active.run}
        message = orjson.dumps({"unsubscribe": answer})
        for number, key in enumerate(dict.fromkeys(s.key for s in active.subscriptions)):
            rec.ask(f"unsubscribe{number}", key, m.TellEntity(message))


def silence(it: Interpreter, active: m.ActiveTask) -> None:
    """Tells workers to stop this attempt."""
    rec = it.recording
    rec.effects.append(
        m.Cancellation(rec.command.flow_id, active.task, active.run, active.attempt, active.queue, rec.now)
    )
