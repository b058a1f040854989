"""What several records of the contract are made of: payloads, actors, causes, errors.

A payload is UTF-8 JSON as bytes, or a `Claim` that says where it is kept.
"""

from __future__ import annotations

from typing import Literal

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


class Parent(msgspec.Struct, frozen=True, gc=False):
    """The task run of another flow that a flow performs and answers. A schedule has the flow id `~schedule/...`."""

    flow_id: str
    task: str
    run: int
    attempt: int


class Subscription(msgspec.Struct, frozen=True, gc=False):
    """What a listen waits for: filter number, the correlator that knows it, the values it expects (JSON)."""

    filter: int
    key: str
    expected: bytes | None = None


class Restore(msgspec.Struct, frozen=True, gc=False):
    """A moment of a flow: after event `sequence` of its log (0: the beginning) it stood as `state` (a snapshot's value).

    `data`: what the first task that is performed again gets instead of what it got.
    """

    flow_id: str
    sequence: int
    state: bytes
    data: Payload | None = None


class ActiveRun(msgspec.Struct, frozen=True, gc=False):
    """A run that goes on; `was`: the task's JSON pointer before a migration."""

    task: str
    run: int
    attempt: int
    kind: str
    was: str = ""
