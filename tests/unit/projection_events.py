"""A flow's log in the making: events with the right sequence, chain and offsets, for the tests of projections."""

from __future__ import annotations

from hashlib import sha256

from projections.logged import Logged, Record
from schemas import messages as m
from schemas.codec import encode_event

DEFINITION = "acme/orders@1.2.0"
ALICE = m.Actor("user", "alice")
WORKER = m.Actor("worker", "w-1")
ENGINE = m.Actor("engine", "")
START = 1_767_225_600_000_000  # 2026-01-01T00:00:00Z


class Trail:
    """Appends events of one flow to one partition. `gap` stands for the markers between transactions."""

    def __init__(self, flow_id: str = "f-1", partition: int = 3, offset: int = 10, time: int = START) -> None:
        self.flow_id, self.partition, self.offset, self.time = flow_id, partition, offset, time
        self.sequence = 0
        self.head = b""
        self.logged: list[Logged] = []

    def add(
        self,
        body: m.EventBody,
        task: str | None = None,
        run: int = 0,
        attempt: int = 0,
        *,
        actor: m.Actor = ENGINE,
        gap: int = 0,
        definition: str = DEFINITION,
        trace: str | None = None,
    ) -> Logged:
        self.sequence += 1
        self.time += 1_000
        self.offset += gap
        event = m.Event(
            flow_id=self.flow_id,
            sequence=self.sequence,
            time=self.time,
            actor=actor,
            cause=m.Cause(f"c-{self.flow_id}-{self.sequence}", self.partition, 100 + self.sequence),
            definition=definition,
            definition_hash=b"\x01" * 32,
            task=task,
            run=run,
            attempt=attempt,
            trace=trace,
            previous_hash=self.head,
            body=body,
        )
        value = encode_event(event)
        self.head = sha256(value).digest()
        self.logged.append(Logged(event, value, self.partition, self.offset))
        self.offset += 1
        return self.logged[-1]

    def order(self) -> Trail:
        """A whole flow: a set, a switch, one worker's task, the end."""
        self.add(
            m.FlowStarted(b'{"n":1}', transformed=b'{"n": 1, "x": []}', engine_version="0.1.0"), actor=ALICE
        )
        self.add(m.TaskCompleted(output=b'{"n":2}'), "/do/0/prepare", 1, 1)
        self.add(m.TaskCompleted(branch="gold"), "/do/1/route", 1, 1)
        self.add(m.TaskScheduled("default", "charge"), "/do/2/charge", 1, 1)
        self.add(
            m.TaskCompleted(result=b'{"paid":true}', context=b'{"c":1}'),
            "/do/2/charge",
            1,
            1,
            actor=WORKER,
            gap=2,
        )
        self.add(m.FlowCompleted(b'{"paid":true}'))
        return self

    def records(self) -> list[Record]:
        return [Record(e.partition, e.offset, e.event.flow_id.encode(), e.value, None) for e in self.logged]
