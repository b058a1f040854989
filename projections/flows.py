"""The read model `flows`: one row a flow. A pure fold.

`fold(row, logged)` folds one event into what a batch changes of one flow; None in a field means "as it was", so the
row needs not be read before it is written. The merge (sql/queries/writes.sql) takes first facts (`started_at`,
`input`, who started it) from the first row only; what is stored must stand at event `follows`. That a running flow
waits follows from its tasks and is told when it is read (sql/queries/reads.sql).
"""

from __future__ import annotations

from functools import lru_cache
from hashlib import sha256

import msgspec

from projections.copying import NULL, harmless, hexed, inline, json_field, later, moment, number, words
from projections.logged import Logged, error_json
from projections.restored import restored_past
from schemas import messages as m


class FlowRow(msgspec.Struct):
    """`flow_id` to `first_offset` are facts of the first event seen; the others, of the events since."""

    flow_id: str
    definition: str
    definition_hash: bytes
    started_at: int
    actor: m.Actor
    command_id: str
    trace: str | None
    partition: int
    first_offset: int
    last_offset: int = -1
    sequence: int = 0
    updated_at: int = 0
    head: bytes = b""  # the stored value of the last event; its hash is taken once a batch, in `line`
    status: str | None = None
    ended_at: int | None = None
    engine_version: str | None = None
    input: bytes | None = None
    transformed: bytes | None = None
    context: bytes | None = None
    output: bytes | None = None
    error: bytes | None = None
    reason: str | None = None
    parent: m.Parent | None = None
    deadline: int | None = None
    follows: int = 0  # the event that must be stored already, and its hash
    follows_head: bytes = b""


def fold(row: FlowRow | None, logged: Logged) -> FlowRow:
    """`row` after the event; changes and returns `row` itself when there is one."""
    event = logged.event
    if row is None:
        row = FlowRow(
            event.flow_id,
            event.definition,
            event.definition_hash,
            event.time,
            event.actor,
            event.cause.command_id,
            event.trace,
            logged.partition,
            logged.offset,
            follows=event.sequence - 1,
            follows_head=event.previous_hash,
        )
    row.last_offset = logged.offset
    row.sequence = event.sequence
    row.updated_at = event.time
    row.head = logged.value
    match event.body:
        case m.TaskCompleted(context=context) | m.TaskIterationCompleted(context=context):
            if context is not None:
                row.context = inline(context)
        case m.FlowStarted() as body:
            row.status = "running"
            row.engine_version = body.engine_version
            row.input = inline(body.input)
            row.transformed = None if body.transformed is None else inline(body.transformed)
            row.parent, row.deadline = body.parent, body.deadline or None
        case m.FlowCompleted(output=output):
            row.status, row.ended_at, row.output = "completed", event.time, inline(output)
        case m.FlowFaulted(error=error):
            row.status, row.ended_at, row.error = "faulted", event.time, error_json(error)
        case m.FlowCancelled(reason=reason):
            row.status, row.ended_at = "cancelled", event.time
            row.reason = row.reason if reason is None else reason
        case m.FlowSuspended(reason=reason):
            row.status, row.reason = "suspended", reason
        case m.FlowResumed(reason=reason):
            row.status, row.reason = "running", reason or ""
        case m.FlowCompensating():
            row.status = "compensating"
        case m.FlowMigrated() | m.FlowRollingBack() | m.FlowRestored():
            _turn(row, event)
        case _:
            pass
    return row


def _turn(row: FlowRow, event: m.Event) -> None:
    """Another definition, or another moment."""
    match event.body:
        case m.FlowMigrated():
            row.definition, row.definition_hash = event.definition, event.definition_hash
        case m.FlowRollingBack(reason=reason):
            row.status, row.reason = "compensating", reason or ""
        case m.FlowRestored() as body:
            past = restored_past(body)
            row.status = "running"
            row.context = row.context if past is None else past.context
        case _:
            pass


@lru_cache(4096)
def _definition(definition: str) -> str:
    """Its four columns: the whole, namespace, name, version."""
    name, _, version = definition.partition("@")
    namespace, _, name = name.rpartition("/")
    return "\t".join(words(part) for part in (definition, namespace, name, version))


def _origin(row: FlowRow) -> str:
    parent = row.parent
    if parent is None:
        return f"{NULL}\t{NULL}\t{later(row.deadline)}"
    return f"{words(parent.flow_id)}\t{words(parent.task)}\t{later(row.deadline)}"


def line(row: FlowRow) -> str:
    """`row` in COPY text format, in the order of copy_flows (sql/queries/writes.sql). Raises Unstorable."""
    actor, trace = row.actor, row.trace
    names = f"{row.flow_id}\t{_definition(row.definition)}"
    who = f"{actor.kind}\t{actor.id}\t{row.command_id}\t{NULL if trace is None else trace}"
    if not harmless(f"{row.flow_id}{actor.id}{row.command_id}{trace}"):
        names = f"{words(row.flow_id)}\t{_definition(row.definition)}"
        who = f"{actor.kind}\t{words(actor.id)}\t{words(row.command_id)}\t{words(trace)}"
    return (
        f"{names}\t{hexed(row.definition_hash)}\t{words(row.engine_version)}\t{row.status or NULL}\t{row.sequence}\t"
        f"{hexed(sha256(row.head).digest())}\t{moment(row.started_at)}\t{moment(row.updated_at)}\t"
        f"{moment(row.ended_at)}\t{who}\t{json_field(row.input)}\t{json_field(row.transformed)}\t"
        f"{json_field(row.context)}\t{json_field(row.output)}\t{json_field(row.error)}\t{words(row.reason)}\t"
        f"{number(row.partition)}\t{row.first_offset}\t{row.last_offset}\t{_origin(row)}\n"
    )
