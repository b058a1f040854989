"""What the API needs of the world, as protocols; server.py provides them, tests put in-memory twins here.

An implementor raises AwayError when its server does not answer and nothing else that is not a defect; it recovers by
itself. No method blocks the event loop, except where it says that it blocks: those are called in a thread.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol, TypeVar

from engine.dsl.model import Definition
from projections.queries import Ask
from replay.flow import Log
from schemas import messages as m

T = TypeVar("T")


class Reads(Protocol):
    """The read models (projections.readers.Reader)."""

    async def ask(self, ask: Ask[T]) -> T: ...


@dataclass(frozen=True, slots=True)
class StoredKey:
    key_id: str
    digest: bytes
    name: str
    revoked: bool
    last_used_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Claim:
    """An idempotency key and what the request that brings it wants to start."""

    key_id: str
    idempotency_key: str
    request_hash: bytes
    flow_id: str
    command_id: str


@dataclass(frozen=True, slots=True)
class Kept:
    """What a claim's key stands for; `fresh` when this very claim was the first."""

    request_hash: bytes
    flow_id: str
    command_id: str
    fresh: bool


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a waited-for flow came to its end: it ended, or its start was refused (`code`, `reason`)."""

    flow_id: str
    command_id: str
    code: str | None = None
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class PendingApproval:
    """An approval nobody has answered. `request` is JSON."""

    flow_id: str
    task: str
    run: int
    attempt: int
    definition: str
    name: str
    since: datetime
    request: str | None


class Store(Protocol):
    """What Postgres keeps for the API (schema flowtrail_api), and look-ups over many flows at once."""

    async def key(self, key_id: str) -> StoredKey | None: ...

    async def key_used(self, key_id: str) -> None: ...

    async def claim(self, claims: Sequence[Claim]) -> dict[tuple[str, str], Kept]:
        """Keeps each claim unless its key was claimed before; (key id, idempotency key) -> what is kept."""

    async def forget_claims(self, days: int, most: int) -> int:
        """Deletes at most `most` claims older than `days`; how many it were."""

    async def claim_definition(self, definition: str, digest: bytes) -> bytes:
        """Keeps the hash of a version unless it has one; the hash that is kept."""

    async def started_by(self, flow_ids: Sequence[str]) -> dict[str, str]:
        """Flow id -> id of the command that started it, of those the read model knows."""

    async def outcomes(self, flow_ids: Sequence[str], command_ids: Sequence[str]) -> list[Outcome]:
        """Which of these flows have ended, and which of these commands were refused."""

    async def approvals(
        self, flow_id: str | None, definition: str | None, after: tuple[datetime, str, str] | None, limit: int
    ) -> list[PendingApproval]:
        """By (since, flow, task), those behind `after`. `definition` is namespace/name[@version]."""

    async def check(self) -> None:
        """Raises AwayError or InputError when the database cannot be used."""


class Commands(Protocol):
    """Kafka, for writing."""

    async def send(
        self, topic: str, key: str, value: bytes | None, headers: list[tuple[str, bytes]]
    ) -> tuple[int, int]:
        """(partition, offset) once the broker has acknowledged. `topic` without its prefix."""

    def check(self, timeout_s: float) -> None:
        """Blocks. Raises AwayError when commands cannot be produced."""


class Definitions(Protocol):
    """The published definitions (engine.runtime.definitions.DefinitionLog)."""

    def find(self, reference: str) -> Definition | None: ...

    def published(self, definition_id: str) -> m.PublishedDefinition | None: ...

    def all(self) -> list[m.PublishedDefinition]: ...

    def queues(self) -> set[str]: ...

    def catch_up(self, timeout_s: float = 10.0) -> bool:
        """Blocks until everything acknowledged before was read; False when that took too long."""


class Past(Protocol):
    """The log itself, one flow at a time."""

    async def log(self, flow_id: str) -> Log:
        """Raises UnknownFlow when the log has no event of it, BrokenFlow."""


class Queues(Protocol):
    def ensure(self, queues: Collection[str]) -> None:
        """Blocks. Makes the topics of these queues where they do not exist."""


@dataclass(frozen=True, slots=True)
class Ports:
    reads: Reads
    store: Store
    log: Commands
    definitions: Definitions
    queues: Queues
    past: Past
    pepper: bytes
