"""The bodies of commands: what somebody can ask for, one frozen struct a kind."""

from __future__ import annotations

from typing import Final

import msgspec

from schemas.parts import Error, Parent, Payload, Restore


class StartFlow(msgspec.Struct, frozen=True, gc=False):
    """`restore`: the flow begins as another one stood at a moment."""

    definition: str
    input: Payload
    parent: Parent | None = None
    restore: Restore | None = None


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
    incident: bool = False


class CancelFlow(msgspec.Struct, frozen=True, gc=False):
    reason: str | None = None
    compensate: bool = False


class HeartbeatTask(msgspec.Struct, frozen=True, gc=False):
    task: str
    run: int
    attempt: int
    progress: Payload | None = None


class DeliverEvent(msgspec.Struct, frozen=True, gc=False):
    """A correlator found a CloudEvent (JSON format) for filter number `filter` of a listen."""

    task: str
    run: int
    filter: int
    event: Payload


class FireTimer(msgspec.Struct, frozen=True, gc=False):
    """The engine's own. `task` is None for the flow's timeout."""

    task: str | None
    run: int
    attempt: int
    purpose: str
    due: int


class ContinueFlow(msgspec.Struct, frozen=True, gc=False):
    """The engine's own: goes on where a long decision yielded."""


class SuspendFlow(msgspec.Struct, frozen=True, gc=False):
    reason: str | None = None


class ResumeFlow(msgspec.Struct, frozen=True, gc=False):
    reason: str | None = None


class TellEntity(msgspec.Struct, frozen=True, gc=False):
    """JSON for a correlator, a schedule or a limiter; the command's flow_id is its key and begins with `~`."""

    message: bytes


class MigrateFlow(msgspec.Struct, frozen=True, gc=False):
    """Go on under `definition`, another version of the same name."""

    definition: str
    reason: str | None = None


class RollBackFlow(msgspec.Struct, frozen=True, gc=False):
    """Undo what was completed since a moment of the flow, restore it, and go on from there."""

    restore: Restore
    reason: str | None = None


CommandBody = (
    StartFlow
    | CompleteTask
    | FailTask
    | CancelFlow
    | HeartbeatTask
    | DeliverEvent
    | FireTimer
    | ContinueFlow
    | SuspendFlow
    | ResumeFlow
    | TellEntity
    | MigrateFlow
    | RollBackFlow
)

COMMAND_BODIES: Final[tuple[type, ...]] = CommandBody.__args__
