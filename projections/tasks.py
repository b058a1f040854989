"""The read model `tasks`: one row an attempt of a run of a task. A pure fold.

As in flows.py, None means "as it was". A task performed within one event (set, switch, raise) has no beginning of its
own: only `ended_at`. Skips have run 0, so a task's row of run 0 tells of its last skip; history has every one.
"""

from __future__ import annotations

from functools import lru_cache

import msgspec

from projections.copying import NULL, harmless, inline, json_field, moment, number, words
from projections.logged import Logged, error_json
from schemas import messages as m

Key = tuple[str, str, int, int]


class TaskRow(msgspec.Struct):
    flow_id: str
    task: str
    run: int
    attempt: int
    definition: str
    status: str = ""
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


def key_of(event: m.Event) -> Key | None:
    """The row an event belongs to; None for events of the flow itself."""
    return None if event.task is None else (event.flow_id, event.task, event.run, event.attempt)


def fold(row: TaskRow | None, logged: Logged) -> TaskRow:
    """`row` after the event of a task; changes and returns `row` itself when there is one."""
    event = logged.event
    if row is None:
        row = TaskRow(event.flow_id, event.task or "", event.run, event.attempt, event.definition)
    row.sequence = event.sequence
    match event.body:
        case m.TaskScheduled() as body:
            row.kind, row.queue, row.function = "call", body.queue, body.function
            row.arguments = _bytes(body.arguments)
            _begin(row, event, "scheduled", body.input)
        case m.TaskStarted() as body:
            row.kind = "do"
            _begin(row, event, "running", body.input)
        case m.TaskCompleted() as body:
            row.result, row.output = _bytes(body.result), _bytes(body.output)
            if body.branch is not None:
                row.kind, row.branch = "switch", body.branch
            _end(row, event, "completed")
        case m.TaskFaulted() as body:
            row.result, row.error = _bytes(body.result), error_json(body.error)
            _end(row, event, "faulted")
        case m.TaskCancelled():
            _end(row, event, "cancelled")
        case m.TaskSkipped():
            _end(row, event, "skipped")
        case _:
            pass
    return row


def _bytes(payload: m.Payload | None) -> bytes | None:
    return None if payload is None else inline(payload)


def _begin(row: TaskRow, event: m.Event, status: str, given: m.Payload | None) -> None:
    row.status = status
    row.scheduled_sequence, row.scheduled_at = event.sequence, event.time
    row.input = _bytes(given)


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
        f"{words(row.function)}\t{row.status}\t{row.sequence}\t{number(row.scheduled_sequence)}\t"
        f"{number(row.ended_sequence)}\t{moment(row.scheduled_at)}\t{moment(row.ended_at)}\t{who}\t"
        f"{json_field(row.input)}\t{json_field(row.arguments)}\t{json_field(row.result)}\t"
        f"{json_field(row.output)}\t{json_field(row.error)}\t{words(row.branch)}\n"
    )
