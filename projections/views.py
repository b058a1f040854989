"""What the read side returns: one struct a row, ready for `msgspec.json.encode`.

Payloads are `msgspec.Raw`, the very bytes that went in, so that an answer splices them unparsed. Times are
datetimes in UTC, hashes hexadecimal text. Nothing here knows Postgres.
"""

from __future__ import annotations

from datetime import datetime
from typing import Generic, TypeVar

import msgspec

from schemas import messages as m

T = TypeVar("T")


class FlowSummary(msgspec.Struct, kw_only=True):
    """A flow without its payloads. `sequence` is the event the row is as of, `head` that event's SHA-256.

    `status`: running, waiting (for events, times or people alone), suspended, compensating, completed, faulted, cancelled.
    """

    id: str
    definition: str
    namespace: str
    name: str
    version: str
    definition_hash: str
    status: str
    sequence: int
    head: str
    started_at: datetime
    updated_at: datetime
    ended_at: datetime | None
    started_by: m.Actor
    command_id: str
    trace: str | None
    reason: str | None
    partition: int
    first_offset: int
    last_offset: int
    engine_version: str | None
    error: msgspec.Raw | None


class Flow(FlowSummary, kw_only=True):
    """`transformed` is the input after `input.from`; `active` names the tasks that have begun and not ended.

    `parent_flow` and `parent_task`: who started it and waits for it. `deadline_at`: when it times out.
    `broken`: why its events in the log do not follow one another.
    """

    input: msgspec.Raw | None
    transformed: msgspec.Raw | None
    context: msgspec.Raw | None
    output: msgspec.Raw | None
    active: list[str]
    parent_flow: str | None = None
    parent_task: str | None = None
    deadline_at: datetime | None = None
    broken: str | None = None


class TaskView(msgspec.Struct, kw_only=True):
    """One attempt of one run of a task. `input` and `output` are filled in where the event said "same as before".

    `due_at`: when its wait, attempt, retry or heartbeat (`due_for`) ends, while it has not ended. `iteration`: the last
    one that began. `progress`: of its last heartbeat. `child`: its sub-flow.
    """

    task: str
    run: int
    attempt: int
    name: str
    kind: str | None
    queue: str | None
    function: str | None
    status: str
    sequence: int
    scheduled_sequence: int | None
    ended_sequence: int | None
    scheduled_at: datetime | None
    ended_at: datetime | None
    duration_ms: float | None
    ended_by: m.Actor | None
    input: msgspec.Raw | None
    arguments: msgspec.Raw | None
    result: msgspec.Raw | None
    output: msgspec.Raw | None
    error: msgspec.Raw | None
    branch: str | None
    deadline_at: datetime | None = None
    due_at: datetime | None = None
    due_for: str | None = None
    iteration: int | None = None
    progress: msgspec.Raw | None = None
    child: str | None = None
    priority: str | None = None


class HistoryEntry(msgspec.Struct, kw_only=True):
    """One event: who (`actor`), what (`kind`, `body`), when (`time`), why (`cause`), and its place in the log."""

    time: datetime
    flow_id: str
    sequence: int
    event_id: str
    kind: str
    ce_type: str
    task: str | None
    run: int
    attempt: int
    actor: m.Actor
    cause: m.Cause
    partition: int
    offset: int
    definition: str
    trace: str | None
    body: msgspec.Raw


class RejectionView(msgspec.Struct, kw_only=True):
    time: datetime
    flow_id: str
    command: str
    code: str
    reason: str
    task: str | None
    actor: m.Actor
    cause: m.Cause
    partition: int
    offset: int
    trace: str | None


class Unreadable(msgspec.Struct, kw_only=True):
    partition: int
    offset: int
    seen_at: datetime
    key: bytes | None
    value: bytes | None
    code: str
    reason: str


class Healing(msgspec.Struct):
    """A flow that was folded anew: the event that showed it, and what was found."""

    flow_id: str
    partition: int
    offset: int
    found: str
    healed_at: datetime


class PositionView(msgspec.Struct, kw_only=True):
    """`next_offset` of the events topic is the first not folded; commands up to `command_offset` have taken effect."""

    projection: str
    topic: str
    partition: int
    next_offset: int
    command_offset: int
    event_time: datetime | None
    updated_at: datetime


class BranchCount(msgspec.Struct):
    task: str
    branch: str
    flows: int


class Durations(msgspec.Struct):
    """Of ended flows, from the first event to the last. None where no flow has ended."""

    flows: int
    p50_ms: float | None
    p99_ms: float | None
    max_ms: float | None
    first_started_at: datetime | None
    last_ended_at: datetime | None


class Page(msgspec.Struct, Generic[T]):
    """`next_cursor` continues after the last item; None when there is no more."""

    items: list[T]
    next_cursor: str | None
