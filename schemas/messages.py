"""The contract as Python types: what travels on the topics, one frozen struct a record.

Names, fields and order mirror the newest files of `avro/`; `codec.py` turns these into bytes and back. Nothing here decides
anything and nothing here knows Kafka. A payload is UTF-8 JSON as bytes, or a `Claim` that says where it is kept.
Times are microseconds since the Unix epoch (UTC).
"""

from __future__ import annotations

import msgspec

from schemas.bodies import (
    CLOUDEVENT_TYPES,
    EVENT_BODIES,
    CommandParked,
    DecisionMade,
    EventBody,
    EventConsumed,
    EventEmitted,
    FlowCancelled,
    FlowCompensating,
    FlowCompleted,
    FlowContinued,
    FlowFaulted,
    FlowMigrated,
    FlowRestored,
    FlowResumed,
    FlowRollingBack,
    FlowStarted,
    FlowSuspended,
    FlowYielded,
    ListenStarted,
    SubflowStarted,
    TaskCancelled,
    TaskCaught,
    TaskCompleted,
    TaskFaulted,
    TaskIterated,
    TaskIterationCompleted,
    TaskProgressed,
    TaskRetried,
    TaskScheduled,
    TaskSkipped,
    TaskStarted,
    TimerFired,
)
from schemas.commands import (
    COMMAND_BODIES,
    CancelFlow,
    CommandBody,
    CompleteTask,
    ContinueFlow,
    DeliverEvent,
    FailTask,
    FireTimer,
    HeartbeatTask,
    MigrateFlow,
    ResumeFlow,
    RollBackFlow,
    StartFlow,
    SuspendFlow,
    TellEntity,
)
from schemas.parts import (
    ActiveRun,
    Actor,
    ActorKind,
    Cause,
    Claim,
    Error,
    Parent,
    Payload,
    Restore,
    Subscription,
)

__all__ = [
    "CLOUDEVENT_TYPES",
    "COMMAND_BODIES",
    "EVENT_BODIES",
    "ActiveRun",
    "ActiveTask",
    "Actor",
    "ActorKind",
    "CancelFlow",
    "Cancellation",
    "Cause",
    "Claim",
    "CloudEvent",
    "Command",
    "CommandBody",
    "CommandParked",
    "Compensation",
    "CompleteTask",
    "ContinueFlow",
    "DecisionMade",
    "DeliverEvent",
    "EndedFlow",
    "Entity",
    "Error",
    "Event",
    "EventBody",
    "EventConsumed",
    "EventEmitted",
    "FailTask",
    "FireTimer",
    "FlowCancelled",
    "FlowCompensating",
    "FlowCompleted",
    "FlowContinued",
    "FlowFaulted",
    "FlowMigrated",
    "FlowRestored",
    "FlowResumed",
    "FlowRollingBack",
    "FlowStarted",
    "FlowSuspended",
    "FlowYielded",
    "HeartbeatTask",
    "ListenStarted",
    "LiveFlow",
    "Message",
    "MigrateFlow",
    "Parent",
    "Payload",
    "Position",
    "PublishedDefinition",
    "Rejection",
    "Restore",
    "Result",
    "ResumeFlow",
    "RollBackFlow",
    "Snapshot",
    "StartFlow",
    "SubflowStarted",
    "Subscription",
    "SuspendFlow",
    "Task",
    "TaskCancelled",
    "TaskCaught",
    "TaskCompleted",
    "TaskFaulted",
    "TaskIterated",
    "TaskIterationCompleted",
    "TaskProgressed",
    "TaskRetried",
    "TaskScheduled",
    "TaskSkipped",
    "TaskStarted",
    "TellEntity",
    "TimerFired",
]


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
    deadline: int = 0
    heartbeat: int = 0
    priority: str = "normal"
    reply: bool = True


class Cancellation(msgspec.Struct, frozen=True, gc=False):
    """A task that no worker need go on with."""

    flow_id: str
    task: str
    run: int
    attempt: int
    queue: str
    time: int


class CloudEvent(msgspec.Struct, frozen=True, gc=False):
    """A CloudEvents 1.0 event as the inbox and the outbox keep it; `data` in the form its content type says."""

    id: str
    source: str
    type: str
    subject: str | None = None
    time: str | None = None
    datacontenttype: str | None = None
    dataschema: str | None = None
    extensions: dict[str, str] = {}
    data: bytes | None = None


class PublishedDefinition(msgspec.Struct, frozen=True, gc=False):
    """One immutable version of a definition as the `definitions` topic keeps it (Avro record `Definition`)."""

    definition: str
    hash: bytes
    document: bytes
    source: str
    media_type: str
    published_at: int
    published_by: str


class Result(msgspec.Struct, frozen=True, gc=False):
    """The output of a finished branch (`key`: its pointer), or an event a listen consumed (`key`: its filter)."""

    key: str
    value: bytes


class ActiveTask(msgspec.Struct, frozen=True, gc=False):
    """One run of a task that is not over.

    `raw_input` is what it got, `input` what `input.from` made of it, `data` the output of its last child so far.
    `due`: when its wait, attempt, retry's delay or heartbeat (`purpose`) ends; `deadline`: when it times out (0: never).
    `items`: the collection of a for. `results`: outputs of finished branches, events consumed. `error`: what its catch
    handles (JSON). `child`: its sub-flow. `queue`: of its worker. `keys`: correlation values so far (JSON).
    """

    task: str
    run: int
    attempt: int
    started_at: int
    raw_input: bytes
    input: bytes
    data: bytes
    due: int = 0
    purpose: str = ""
    deadline: int = 0
    index: int = -1
    items: bytes | None = None
    results: tuple[Result, ...] = ()
    error: bytes | None = None
    child: str = ""
    queue: str = ""
    subscriptions: tuple[Subscription, ...] = ()
    keys: bytes | None = None
    retrying_since: int = 0


class Compensation(msgspec.Struct, frozen=True, gc=False):
    """A completed run of a task that names another one to undo it."""

    task: str
    run: int
    input: bytes
    output: bytes


class LiveFlow(msgspec.Struct, frozen=True, gc=False):
    """The state of a flow that has not ended; folded from its events, nothing else.

    `ready`: tasks to go on with after a yield. `steps`: tasks performed since somebody outside had a say.
    `fate`: how it ends when compensation is done (JSON of FlowCompensating). `parked`: commands kept for its resumption.
    """

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
    parent: Parent | None = None
    deadline: int = 0
    ready: tuple[str, ...] = ()
    steps: int = 0
    compensations: tuple[Compensation, ...] = ()
    fate: bytes | None = None
    parked: tuple[bytes, ...] = ()


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


class Entity(msgspec.Struct, frozen=True, gc=False):
    """A correlator, a schedule or a limiter (engine/core/entities): its JSON, and when it wants to be woken (0: never)."""

    key: str
    state: bytes
    due: int = 0


Snapshot = LiveFlow | EndedFlow | Position | Entity

Message = Event | Rejection | Command | Task | PublishedDefinition | Snapshot | Cancellation | CloudEvent
