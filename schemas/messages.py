"""The contract as Python types: what travels on the topics, one frozen struct a record.

Names, fields and order mirror `avro/*-v1.avsc`; `codec.py` turns these into bytes and back. Nothing here decides
anything and nothing here knows Kafka. A payload is UTF-8 JSON as bytes, or a `Claim` that says where it is kept.
Times are microseconds since the Unix epoch (UTC).
"""

from __future__ import annotations

from typing import Final, Literal

import msgspec

ActorKind = Literal["user", "worker", "timer", "event", "engine"]


class Claim(msgspec.Struct, frozen=True, gc=False):
    """A large payload's place: `uri` in the object store, `sha256` of its bytes, `size` in bytes."""

    uri: str
    sha256: bytes
    size: int


Payload = bytes | Claim


class Actor(msgspec.Struct, frozen=True, gc=False):
    kind: ActorKind
    id: str


class Cause(msgspec.Struct, frozen=True, gc=False):
    """The command behind a decision, and its place in the `commands` topic."""

    command_id: str
    partition: int
    offset: int


class Error(msgspec.Struct, frozen=True, gc=False):
    """Problem details (RFC 9457) as the DSL describes errors; `instance` is the JSON pointer of the task."""

    type: str
    status: int
    title: str | None = None
    detail: str | None = None
    instance: str | None = None


# -- event bodies ---------------------------------------------------------------------------------------------------


class FlowStarted(msgspec.Struct, frozen=True, gc=False):
    input: Payload
    transformed: Payload | None = None
    engine_version: str = ""


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


class TaskStarted(msgspec.Struct, frozen=True, gc=False):
    input: Payload | None = None


class TaskSkipped(msgspec.Struct, frozen=True, gc=False):
    pass


class TaskCompleted(msgspec.Struct, frozen=True, gc=False):
    result: Payload | None = None
    output: Payload | None = None
    context: Payload | None = None
    branch: str | None = None


class TaskFaulted(msgspec.Struct, frozen=True, gc=False):
    error: Error
    result: Payload | None = None


class TaskCancelled(msgspec.Struct, frozen=True, gc=False):
    pass


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
)


class Event(msgspec.Struct, frozen=True, gc=False):
    """One event's envelope. `task`, `run` and `attempt` are None, 0, 0 for events of the flow itself."""

    flow_id: str
    sequence: int
    time: int
    actor: Actor
    cause: Cause
    definition: str
    definition_hash: bytes
    task: str | None
    run: int
    attempt: int
    trace: str | None
    previous_hash: bytes
    body: EventBody

    @property
    def event_id(self) -> str:
        return f"{self.flow_id}/{self.sequence}"

    @property
    def kind(self) -> str:
        return type(self.body).__name__


class Rejection(msgspec.Struct, frozen=True, gc=False):
    """A command's recorded refusal: `code` for programs, `reason` ("Expected ... but ...") for people."""

    flow_id: str
    time: int
    actor: Actor
    cause: Cause
    command: str
    code: str
    reason: str
    task: str | None = None
    trace: str | None = None


# -- commands -------------------------------------------------------------------------------------------------------


class StartFlow(msgspec.Struct, frozen=True, gc=False):
    definition: str
    input: Payload


class CompleteTask(msgspec.Struct, frozen=True, gc=False):
    task: str
    run: int
    attempt: int
    output: Payload


class FailTask(msgspec.Struct, frozen=True, gc=False):
    task: str
    run: int
    attempt: int
    error: Error


class CancelFlow(msgspec.Struct, frozen=True, gc=False):
    reason: str | None = None


CommandBody = StartFlow | CompleteTask | FailTask | CancelFlow


class Command(msgspec.Struct, frozen=True, gc=False):
    command_id: str
    flow_id: str
    time: int
    actor: Actor
    body: CommandBody
    trace: str | None = None

    @property
    def kind(self) -> str:
        return type(self.body).__name__


# -- tasks, definitions, snapshots ----------------------------------------------------------------------------------


class Task(msgspec.Struct, frozen=True, gc=False):
    """One attempt of one run of a task, for a worker of the queue whose topic it travels on."""

    flow_id: str
    definition: str
    task: str
    run: int
    attempt: int
    function: str
    arguments: Payload
    time: int
    trace: str | None = None


class PublishedDefinition(msgspec.Struct, frozen=True, gc=False):
    """One immutable version of a definition as the `definitions` topic keeps it (Avro record `Definition`)."""

    definition: str
    hash: bytes
    document: bytes
    source: str
    media_type: str
    published_at: int
    published_by: str


class ActiveTask(msgspec.Struct, frozen=True, gc=False):
    """One run of a task that is not over.

    `raw_input` is what it got, `input` what `input.from` made of it, `data` the output of its last child so far.
    """

    task: str
    run: int
    attempt: int
    started_at: int
    raw_input: bytes
    input: bytes
    data: bytes


class LiveFlow(msgspec.Struct, frozen=True, gc=False):
    """The state of a flow that has not ended; folded from its events, nothing else."""

    flow_id: str
    definition: str
    definition_hash: bytes
    engine_version: str
    start_command_id: str
    status: str
    sequence: int
    head: bytes
    started_at: int
    updated_at: int
    input: bytes
    data: bytes
    context: bytes
    active: tuple[ActiveTask, ...] = ()
    runs: dict[str, int] = {}


class EndedFlow(msgspec.Struct, frozen=True, gc=False):
    """What is kept of an ended flow for a window of time, so that a repeated StartFlow is recognised."""

    flow_id: str
    definition: str
    start_command_id: str
    status: str
    sequence: int
    ended_at: int


class Position(msgspec.Struct, frozen=True, gc=False):
    """`offset` of the last command of a partition whose consequences are in the log."""

    offset: int
    time: int


Snapshot = LiveFlow | EndedFlow | Position

Message = Event | Rejection | Command | Task | PublishedDefinition | Snapshot

EVENT_BODIES: Final[tuple[type, ...]] = EventBody.__args__
COMMAND_BODIES: Final[tuple[type, ...]] = CommandBody.__args__

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
    "Rejection": "io.flowtrail.command.rejected.v1",
}
