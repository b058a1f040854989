"""In-memory twins of the ports: the whole API in one process without a server, for tests of it and of its callers.

They keep the same promises (ports.py). `away` makes each behave as if its server did not answer.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, TypeVar, cast

from api.ports import Claim, Kept, Outcome, PendingApproval, Ports, StoredKey
from engine.dsl.compile import compile_definition
from engine.dsl.model import Definition
from engine.errors import AwayError
from engine.runtime.definitions import version_key
from engine.runtime.topics import DEFINITIONS, partition_of
from projections import views
from projections.queries import Ask
from replay.flow import Log, UnknownFlow
from schemas import messages as m
from schemas.codec import decode_definition

T = TypeVar("T")


def _answering(away: bool, server: str) -> None:
    if away:
        raise AwayError(f"Expected {server} to answer but it is away")


@dataclass
class MemoryReads:
    """`flows` answers get_flow; any other question is answered by `answers[statement](parameters)`."""

    flows: dict[str, views.Flow] = field(default_factory=dict)
    positions: dict[int, views.PositionView] = field(default_factory=dict)
    answers: dict[str, Callable[[dict[str, Any]], Any]] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    away: bool = False

    async def ask(self, ask: Ask[T]) -> T:
        _answering(self.away, "Postgres")
        self.asked.append(ask.statement)
        if ask.statement == "get_flow":
            return cast("T", self.flows.get(ask.parameters["flow_id"]))
        if ask.statement == "positions":
            return cast("T", list(self.positions.values()))
        if ask.statement in self.answers:
            return cast("T", self.answers[ask.statement](ask.parameters))
        return ask.answer([])


@dataclass
class MemoryStore:
    keys: dict[str, StoredKey] = field(default_factory=dict)
    claims: dict[tuple[str, str], Claim] = field(default_factory=dict)
    definitions: dict[str, bytes] = field(default_factory=dict)
    old_claims: set[tuple[str, str]] = field(default_factory=set)
    pending: list[PendingApproval] = field(default_factory=list)
    starters: dict[str, str] = field(default_factory=dict)
    outcomes_of: dict[str, Outcome] = field(default_factory=dict)
    looks: int = 0
    away: bool = False

    async def key(self, key_id: str) -> StoredKey | None:
        _answering(self.away, "Postgres")
        self.looks += 1
        return self.keys.get(key_id)

    async def key_used(self, key_id: str) -> None:
        _answering(self.away, "Postgres")

    async def claim(self, claims: Sequence[Claim]) -> dict[tuple[str, str], Kept]:
        _answering(self.away, "Postgres")
        kept = {}
        for claim in claims:
            key = (claim.key_id, claim.idempotency_key)
            fresh = key not in self.claims
            first = self.claims.setdefault(key, claim)
            kept[key] = Kept(first.request_hash, first.flow_id, first.command_id, fresh)
        return kept

    async def forget_claims(self, days: int, most: int) -> int:
        _answering(self.away, "Postgres")
        old = list(self.old_claims)[:most]
        for key in old:
            self.old_claims.discard(key)
            self.claims.pop(key, None)
        return len(old)

    async def claim_definition(self, definition: str, digest: bytes) -> bytes:
        _answering(self.away, "Postgres")
        return self.definitions.setdefault(definition, digest)

    async def started_by(self, flow_ids: Sequence[str]) -> dict[str, str]:
        _answering(self.away, "Postgres")
        return {flow_id: self.starters[flow_id] for flow_id in flow_ids if flow_id in self.starters}

    async def outcomes(self, flow_ids: Sequence[str], command_ids: Sequence[str]) -> list[Outcome]:
        _answering(self.away, "Postgres")
        return [self.outcomes_of[flow_id] for flow_id in flow_ids if flow_id in self.outcomes_of]

    async def approvals(
        self, flow_id: str | None, definition: str | None, after: tuple[datetime, str, str] | None, limit: int
    ) -> list[PendingApproval]:
        _answering(self.away, "Postgres")
        found = [
            one
            for one in sorted(self.pending, key=_order)
            if flow_id in (None, one.flow_id)
            and definition in (None, one.definition, one.definition.split("@")[0])
            and (after is None or _order(one) > after)
        ]
        return found[:limit]

    async def check(self) -> None:
        _answering(self.away, "Postgres")


def _order(pending: PendingApproval) -> tuple[datetime, str, str]:
    return pending.since, pending.flow_id, pending.task


@dataclass
class MemoryDefinitions:
    records: dict[str, m.PublishedDefinition] = field(default_factory=dict)
    compiled: dict[str, Definition] = field(default_factory=dict)
    away: bool = False

    def add(self, record: m.PublishedDefinition) -> None:
        self.records.setdefault(record.definition, record)
        self.compiled.setdefault(record.definition, compile_definition(record.document))

    def find(self, reference: str) -> Definition | None:
        if "@" in reference:
            return self.compiled.get(reference)
        same = [record for record in self.all() if record.definition.split("@")[0] == reference]
        return self.compiled[same[-1].definition] if same else None

    def published(self, definition_id: str) -> m.PublishedDefinition | None:
        return self.records.get(definition_id)

    def all(self) -> list[m.PublishedDefinition]:
        return sorted(
            self.records.values(),
            key=lambda r: (r.definition.split("@")[0], version_key(r.definition.split("@")[1])),
        )

    def queues(self) -> set[str]:
        return {q for d in self.compiled.values() for t in d.tasks.values() if (q := getattr(t, "queue", ""))}

    def catch_up(self, timeout_s: float = 10.0) -> bool:
        return not self.away


@dataclass
class MemoryLog:
    """`sent` keeps (topic, key, value, headers); definitions arrive at `definitions` at once."""

    definitions: MemoryDefinitions
    partitions: int = 8
    sent: list[tuple[str, str, bytes | None, list[tuple[str, bytes]]]] = field(default_factory=list)
    away: bool = False

    async def send(
        self, topic: str, key: str, value: bytes | None, headers: list[tuple[str, bytes]]
    ) -> tuple[int, int]:
        _answering(self.away, "Kafka")
        partition = partition_of(key, self.partitions)
        offset = sum(
            1 for t, k, _, _ in self.sent if (t, partition_of(k, self.partitions)) == (topic, partition)
        )
        self.sent.append((topic, key, value, headers))
        if topic == DEFINITIONS and value is not None:
            self.definitions.add(decode_definition(value))
        return partition, offset

    def check(self, timeout_s: float) -> None:
        _answering(self.away, "Kafka")


@dataclass
class MemoryPast:
    """`logs` by flow."""

    logs: dict[str, Log] = field(default_factory=dict)
    away: bool = False

    async def log(self, flow_id: str) -> Log:
        _answering(self.away, "Kafka")
        if flow_id not in self.logs:
            raise UnknownFlow(f"Expected flow {flow_id} to be in the log but it has no event of it")
        return self.logs[flow_id]


@dataclass
class MemoryQueues:
    made: set[str] = field(default_factory=set)
    away: bool = False

    def ensure(self, queues: Collection[str]) -> None:
        _answering(self.away, "Kafka")
        self.made |= set(queues)


@dataclass
class Memory:
    """All of them, wired."""

    reads: MemoryReads = field(default_factory=MemoryReads)
    store: MemoryStore = field(default_factory=MemoryStore)
    definitions: MemoryDefinitions = field(default_factory=MemoryDefinitions)
    queues: MemoryQueues = field(default_factory=MemoryQueues)
    past: MemoryPast = field(default_factory=MemoryPast)
    pepper: bytes = b"a pepper for tests"
    log: MemoryLog = field(init=False)

    def __post_init__(self) -> None:
        self.log = MemoryLog(self.definitions)

    def ports(self) -> Ports:
        return Ports(self.reads, self.store, self.log, self.definitions, self.queues, self.past, self.pepper)
