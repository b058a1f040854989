"""The read model `tasks`: one row an attempt of a run of a task. A pure fold.

As in flows.py, None means "as it was": the merge (sql/queries/writes.sql) keeps what is stored then, and facts of the
beginning stay those of the first event that told them. A task performed within one event (set, switch, raise) has no
beginning of its own: only `ended_at`. Skips have run 0, so a task's row of run 0 tells of its last skip; history has
every one. A retry ends the row of the attempt before as `retried` and begins another; a migration that moves a task ends
its row as `moved` and begins another at the new pointer.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final

import msgspec

from projections.copying import NULL, harmless, inline, json_field, later, moment, number, words
from projections.logged import Logged, error_json
from schemas import messages as m

Key = tuple[str, str, int, int]
_APPROVAL: Final = "approval"


class TaskRow(msgspec.Struct):
    flow_id: str
    task: str
    run: int
    attempt: int
    definition: str
    status: str | None = None
    sequence: int = 0
    kind: str | None = None
    queue: str | None = None
    function: str | None = None
    scheduled_sequence: int | None = None
    ended_sequence: int | None = None
    scheduled_at: int | None = None
    ended_at: int | None = None
    actor: m.Actor | None = None
    input: bytes | None = None
    arguments: bytes | None = None
    result: bytes | None = None
    output: bytes | None = None
    error: bytes | None = None
    branch: str | None = None
    deadline: int | None = None
    due: int | None = None
    due_for: str | None = None
    iteration: int | None = None
    progress: bytes | None = None
    child: str | None = None
    priority: str | None = None


def keys_of(event: m.Event) -> tuple[Key, ...]:
    """The rows an event belongs to; none for events of the flow itself."""
    if event.task is None:
        return _turned(event)
    key = (event.flow_id, event.task, event.run, event.attempt)
    if type(event.body) is m.TaskRetried:
        return (event.flow_id, event.task, event.run, event.attempt - 1), key
    return (key,)


def _turned(event: m.Event) -> tuple[Key, ...]:
    """The runs that go on elsewhere, and those that are entered again."""
    body = event.body
    if type(body) is not m.FlowMigrated and type(body) is not m.FlowRestored:
        return ()
    places = [(run, place) for run in body.active for place in (run.was, run.task) if place]
    return tuple([(event.flow_id, place, run.run, run.attempt) for run, place in places])


def fold(row: TaskRow | None, logged: Logged, key: Key) -> TaskRow:
    """The row of `key` after the event, one of `keys_of`; changes and returns `row` itself when there is one."""
    event = logged.event
    if row is None:
        row = TaskRow(*key, event.definition)
    row.sequence = event.sequence
    match event.body:
        case m.TaskCompleted() as body:
            row.result, row.output = _bytes(body.result), _bytes(body.output)
            if body.branch is not None:
                row.kind, row.branch = row.kind or "switch", body.branch
            _end(row, event, "completed")
        case m.TaskFaulted() as body:
            row.result, row.error = _bytes(body.result), error_json(body.error)
            _end(row, event, "faulted")
        case m.TaskCancelled():
            _end(row, event, "cancelled")
        case m.TaskSkipped():
            _end(row, event, "skipped")
        case m.FlowMigrated() as body if any(row.task == run.was for run in body.active):
            _end(row, event, "moved")
        case m.FlowMigrated() | m.FlowRestored() as body:
            run = next(one for one in body.active if (one.task, one.run) == (row.task, row.run))
            _facts(row, run.kind)
            waits = run.kind in ("wait", "listen", _APPROVAL)
            status = "scheduled" if run.kind == "call" else "waiting" if waits else "running"
            _begin(row, event, status, None)
        case m.TaskRetried() as body if row.attempt < event.attempt:
            row.error = error_json(body.error)
            _end(row, event, "retried")
        case _:
            _begun(row, event)
    return row


def _begun(row: TaskRow, event: m.Event) -> None:
    """How a run or an attempt begins; everything else goes on."""
    match event.body:
        case m.TaskScheduled() as body:
            approval = body.queue == "" and body.function == _APPROVAL
            _facts(row, _APPROVAL if approval else "call", body.queue, body.function, body.arguments)
            row.priority = None if body.priority == "normal" else body.priority
            _begin(row, event, "waiting" if approval else "scheduled", body.input)
            _until(row, body.deadline, body.due, "heartbeat")
        case m.TaskStarted() as body:
            _facts(row, body.kind)
            _begin(row, event, "waiting" if body.purpose == "wait" else "running", body.input)
            _until(row, body.deadline, body.due, body.purpose)
        case m.SubflowStarted() as body:
            _facts(row, "subflow", None, body.definition, body.arguments)
            row.child = body.child
            _begin(row, event, "running", body.input)
            _until(row, body.deadline)
        case m.ListenStarted() as body:
            _facts(row, "listen")
            _begin(row, event, "waiting", body.input)
            _until(row, body.deadline)
        case m.TaskRetried() as body:  # a try says when it begins; a call waits for a worker, or for a person
            at_once = 0 < body.due <= event.time
            _facts(row, "try" if body.due else "call")
            _begin(row, event, "running" if at_once else "waiting", None)
            _until(row, 0, *((body.deadline, "attempt") if at_once else (body.due, "retry")))
        case _:
            _going_on(row, event)


def _going_on(row: TaskRow, event: m.Event) -> None:
    match event.body:
        case m.TaskIterated() as body:
            row.iteration = body.index
        case m.TaskCaught() as body:
            row.error = error_json(body.error)
        case m.TaskProgressed() as body:
            row.progress = row.progress if body.progress is None else inline(body.progress)
            _until(row, 0, body.due, "heartbeat")
        case m.TimerFired() as body:
            if body.purpose == "retry":
                row.status = "running"
            _until(row, 0, body.next, "attempt")
        case m.EventEmitted():
            _facts(row, "emit")
        case m.DecisionMade() as body:
            _facts(row, "decision", None, body.table)
        case _:
            pass


def _facts(
    row: TaskRow,
    kind: str,
    queue: str | None = None,
    function: str | None = None,
    arguments: m.Payload | None = None,
) -> None:
    row.kind = row.kind or kind
    row.queue = queue if row.queue is None else row.queue
    row.function = row.function or function
    row.arguments = _bytes(arguments) if row.arguments is None else row.arguments


def _until(row: TaskRow, deadline: int, due: int = 0, due_for: str = "") -> None:
    """What was said before stays when nothing is said now."""
    row.deadline = deadline or row.deadline
    if due:
        row.due, row.due_for = due, due_for


def _bytes(payload: m.Payload | None) -> bytes | None:
    return None if payload is None else inline(payload)


def _begin(row: TaskRow, event: m.Event, status: str, given: m.Payload | None) -> None:
    row.status = status
    if row.scheduled_sequence is None:
        row.scheduled_sequence, row.scheduled_at = event.sequence, event.time
    row.input = _bytes(given) if row.input is None else row.input


def _end(row: TaskRow, event: m.Event, status: str) -> None:
    row.status = status
    row.ended_sequence, row.ended_at, row.actor = event.sequence, event.time, event.actor


@lru_cache(4096)
def _place(definition: str, task: str) -> tuple[str, str]:
    """The columns task and (definition, name): a task's name is the last part of its JSON pointer."""
    name = task.rpartition("/")[2].replace("~1", "/").replace("~0", "~")
    return words(task), f"{words(definition)}\t{words(name)}"


def line(row: TaskRow) -> str:
    """`row` in COPY text format, in the order of copy_tasks (sql/queries/writes.sql). Raises Unstorable."""
    task, place = _place(row.definition, row.task)
    flow_id = row.flow_id if harmless(row.flow_id) else words(row.flow_id)
    actor = row.actor
    who = f"{NULL}\t{NULL}" if actor is None else f"{actor.kind}\t{words(actor.id)}"
    return (
        f"{flow_id}\t{task}\t{row.run}\t{row.attempt}\t{place}\t{row.kind or NULL}\t{words(row.queue)}\t"
        f"{words(row.function)}\t{row.status or NULL}\t{row.sequence}\t{number(row.scheduled_sequence)}\t"
        f"{number(row.ended_sequence)}\t{moment(row.scheduled_at)}\t{moment(row.ended_at)}\t{who}\t"
        f"{json_field(row.input)}\t{json_field(row.arguments)}\t{json_field(row.result)}\t"
        f"{json_field(row.output)}\t{json_field(row.error)}\t{words(row.branch)}\t{later(row.deadline)}\t"
        f"{later(row.due)}\t{words(row.due_for)}\t{number(row.iteration)}\t{json_field(row.progress)}\t"
        f"{words(row.child)}\t{words(row.priority)}\n"
    )
