"""The bodies of events: what can happen to a flow, past tense, one frozen struct a kind.

Order and fields are those of the union `body` in the newest `avro/event-v*.avsc`.
"""

from __future__ import annotations

from typing import Final

import msgspec

from schemas.parts import ActiveRun, Error, Parent, Payload, Restore, Subscription


class FlowStarted(msgspec.Struct, frozen=True, gc=False):
    input: Payload
    transformed: Payload | None = None
    engine_version: str = ""
    parent: Parent | None = None
    deadline: int = 0


class FlowCompleted(msgspec.Struct, frozen=True, gc=False):
    output: Payload


class FlowFaulted(msgspec.Struct, frozen=True, gc=False):
    error: Error


class FlowCancelled(msgspec.Struct, frozen=True, gc=False):
    reason: str | None = None


class FlowSuspended(msgspec.Struct, frozen=True, gc=False):
    """The flow is parked as an incident: deciding `command` (its stored bytes) failed by a defect."""

    reason: str
    command: bytes


class CommandParked(msgspec.Struct, frozen=True, gc=False):
    command: bytes


class TaskScheduled(msgspec.Struct, frozen=True, gc=False):
    queue: str
    function: str
    input: Payload | None = None
    arguments: Payload | None = None
    deadline: int = 0
    due: int = 0
    priority: str = "normal"
    reply: bool = True


class TaskStarted(msgspec.Struct, frozen=True, gc=False):
    """A composite task was entered, or a wait began (`due`). `items` is the collection of a for."""

    input: Payload | None = None
    deadline: int = 0
    due: int = 0
    purpose: str = ""
    items: Payload | None = None
    kind: str = "do"


class TaskSkipped(msgspec.Struct, frozen=True, gc=False):
    pass


class TaskCompleted(msgspec.Struct, frozen=True, gc=False):
    result: Payload | None = None
    output: Payload | None = None
    context: Payload | None = None
    branch: str | None = None
    compensable: bool = False


class TaskFaulted(msgspec.Struct, frozen=True, gc=False):
    error: Error
    result: Payload | None = None


class TaskCancelled(msgspec.Struct, frozen=True, gc=False):
    pass


class TaskIterated(msgspec.Struct, frozen=True, gc=False):
    """Iteration `index` (0, 1, ...) of a for, or of a listen's foreach, begins."""

    index: int


class TaskIterationCompleted(msgspec.Struct, frozen=True, gc=False):
    """Iteration `index` of a listen's foreach is over."""

    index: int
    output: Payload | None = None
    context: Payload | None = None


class TaskRetried(msgspec.Struct, frozen=True, gc=False):
    """The attempt named in the envelope begins at `due`."""

    error: Error
    due: int = 0
    deadline: int = 0


class TaskCaught(msgspec.Struct, frozen=True, gc=False):
    error: Error


class TaskProgressed(msgspec.Struct, frozen=True, gc=False):
    """A worker's heartbeat; the next one is expected by `due`."""

    progress: Payload | None = None
    due: int = 0


class TimerFired(msgspec.Struct, frozen=True, gc=False):
    """`purpose`: wait, retry, attempt, timeout or heartbeat. `next`: when the attempt that begins times out."""

    purpose: str
    due: int = 0
    next: int = 0


class SubflowStarted(msgspec.Struct, frozen=True, gc=False):
    child: str
    definition: str
    input: Payload | None = None
    arguments: Payload | None = None
    deadline: int = 0
    reply: bool = True


class ListenStarted(msgspec.Struct, frozen=True, gc=False):
    input: Payload | None
    deadline: int
    subscriptions: tuple[Subscription, ...]


class EventConsumed(msgspec.Struct, frozen=True, gc=False):
    """A CloudEvent (JSON format) that matched filter number `filter`; `keys` are the correlation values so far."""

    filter: int
    event: Payload
    read: str = "data"
    keys: bytes | None = None


class EventEmitted(msgspec.Struct, frozen=True, gc=False):
    event: Payload


class DecisionMade(msgspec.Struct, frozen=True, gc=False):
    table: str
    explanation: Payload


class FlowYielded(msgspec.Struct, frozen=True, gc=False):
    """The decision had grown long; it goes on at the tasks `ready` in another one."""

    ready: tuple[str, ...]


class FlowContinued(msgspec.Struct, frozen=True, gc=False):
    pass


class FlowResumed(msgspec.Struct, frozen=True, gc=False):
    reason: str | None = None


class FlowCompensating(msgspec.Struct, frozen=True, gc=False):
    """Completed tasks are undone; then the flow faults with `error` or, without one, is cancelled for `reason`."""

    error: Error | None = None
    reason: str | None = None


class FlowMigrated(msgspec.Struct, frozen=True, gc=False):
    """The flow goes on under the envelope's definition. `moved`: pointers the state knows, before -> now."""

    was: str
    was_hash: bytes
    moved: dict[str, str] = {}
    active: tuple[ActiveRun, ...] = ()
    reason: str | None = None


class FlowRollingBack(msgspec.Struct, frozen=True, gc=False):
    """All compensations but the oldest `keep` are performed, then the moment is restored."""

    restore: Restore
    moved: dict[str, str] = {}
    keep: int = 0
    reason: str | None = None


class FlowRestored(msgspec.Struct, frozen=True, gc=False):
    """The flow goes on from a moment, its own or another flow's. `moved`: pointers of that moment, before -> now."""

    restore: Restore
    moved: dict[str, str] = {}
    active: tuple[ActiveRun, ...] = ()
    ready: tuple[str, ...] = ()


EventBody = (
    FlowStarted
    | FlowCompleted
    | FlowFaulted
    | FlowCancelled
    | FlowSuspended
    | CommandParked
    | TaskScheduled
    | TaskStarted
    | TaskSkipped
    | TaskCompleted
    | TaskFaulted
    | TaskCancelled
    | TaskIterated
    | TaskIterationCompleted
    | TaskRetried
    | TaskCaught
    | TaskProgressed
    | TimerFired
    | SubflowStarted
    | ListenStarted
    | EventConsumed
    | EventEmitted
    | DecisionMade
    | FlowYielded
    | FlowContinued
    | FlowResumed
    | FlowCompensating
    | FlowMigrated
    | FlowRollingBack
    | FlowRestored
)

EVENT_BODIES: Final[tuple[type, ...]] = EventBody.__args__

# The DSL's lifecycle event types (dsl-reference.md, Lifecycle Events); io.flowtrail.* where the DSL has none.
CLOUDEVENT_TYPES: Final[dict[str, str]] = {
    "FlowStarted": "io.serverlessworkflow.workflow.started.v1",
    "FlowCompleted": "io.serverlessworkflow.workflow.completed.v1",
    "FlowFaulted": "io.serverlessworkflow.workflow.faulted.v1",
    "FlowCancelled": "io.serverlessworkflow.workflow.cancelled.v1",
    "FlowSuspended": "io.serverlessworkflow.workflow.suspended.v1",
    "CommandParked": "io.flowtrail.command.parked.v1",
    "TaskScheduled": "io.serverlessworkflow.task.created.v1",
    "TaskStarted": "io.serverlessworkflow.task.started.v1",
    "TaskSkipped": "io.flowtrail.task.skipped.v1",
    "TaskCompleted": "io.serverlessworkflow.task.completed.v1",
    "TaskFaulted": "io.serverlessworkflow.task.faulted.v1",
    "TaskCancelled": "io.serverlessworkflow.task.cancelled.v1",
    "TaskIterated": "io.flowtrail.task.iterated.v1",
    "TaskIterationCompleted": "io.flowtrail.task.iteration-completed.v1",
    "TaskRetried": "io.serverlessworkflow.task.retried.v1",
    "TaskCaught": "io.flowtrail.task.caught.v1",
    "TaskProgressed": "io.flowtrail.task.progressed.v1",
    "TimerFired": "io.flowtrail.timer.fired.v1",
    "SubflowStarted": "io.serverlessworkflow.task.started.v1",
    "ListenStarted": "io.serverlessworkflow.workflow.correlation-started.v1",
    "EventConsumed": "io.flowtrail.event.consumed.v1",
    "EventEmitted": "io.flowtrail.event.emitted.v1",
    "DecisionMade": "io.flowtrail.decision.made.v1",
    "FlowYielded": "io.flowtrail.flow.yielded.v1",
    "FlowContinued": "io.flowtrail.flow.continued.v1",
    "FlowResumed": "io.serverlessworkflow.workflow.resumed.v1",
    "FlowCompensating": "io.flowtrail.flow.compensating.v1",
    "FlowMigrated": "io.flowtrail.flow.migrated.v1",
    "FlowRollingBack": "io.flowtrail.flow.rolling-back.v1",
    "FlowRestored": "io.flowtrail.flow.restored.v1",
    "Rejection": "io.flowtrail.command.rejected.v1",
}
