"""One seeded run: clients, engine nodes and workers act in random order while nodes crash, freeze and swap partitions.

After every committed step the partition's state topic, the owner's memory and a fresh fold of the log must be equal;
at the end every flow must have ended once, with an unbroken chain that decides to the same bytes again.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from engine.core.batch import Batch, Kept, Record, due_of
from engine.core.entities.routing import Routes, routes
from engine.core.evolve import FlowState, digest, evolve
from engine.core.redecide import Stored as StoredEvent
from engine.core.redecide import verify_flow
from engine.dsl.model import Definition
from engine.runtime.cloudevents import document_of
from engine.runtime.rebuild import rebuild
from engine.runtime.records import POSITION_KEY, Produce, records_of
from engine.runtime.restore import Restored, Told
from engine.runtime.topics import COMMANDS, INBOX, partition_of
from engine.simulation.log import Fenced, PartitionLog, Stored
from schemas import messages as m
from schemas.codec import (
    Undecodable,
    decode_command,
    decode_logged,
    decode_snapshot,
    decode_task,
    encode_command,
)

PARTITIONS = 3
_RUNTIME_ERROR = "https://serverlessworkflow.io/spec/1.0.0/errors/runtime"


class Broken(Exception):
    """An invariant does not hold. The text names it; the seed repeats it."""


class Published:
    """Definitions by id and by name."""

    def __init__(self, definitions: list[Definition]) -> None:
        self._by_reference: Mapping[str, Definition] = {d.id: d for d in definitions} | {
            d.id.split("@")[0]: d for d in definitions
        }

    def find(self, reference: str) -> Definition | None:
        return self._by_reference.get(reference)


@dataclass(slots=True)
class Owner:
    """A node's hold on a partition: a zombie keeps one too, with an epoch that was overtaken."""

    node: int
    epoch: int
    states: dict[str, Kept]
    position: int


@dataclass(slots=True)
class Counts:
    crashes: int = 0
    fenced: int = 0
    uncertain: int = 0
    rebalances: int = 0
    duplicates: int = 0
    fired: int = 0
    steps: int = 0


@dataclass(slots=True)
class World:
    """`run()` raises Broken when the engine is wrong. Everything random comes from `seed`."""

    seed: int
    definitions: list[Definition]
    inputs: list[tuple[str, bytes]]
    flows: int = 12
    rng: random.Random = field(init=False)
    logs: list[PartitionLog] = field(init=False)
    owners: dict[int, Owner] = field(default_factory=dict)
    zombies: list[tuple[int, Owner]] = field(default_factory=list)
    delivered: dict[int, int] = field(default_factory=dict)
    counts: Counts = field(default_factory=Counts)
    clock: int = 1_700_000_000_000_000
    published: Published = field(init=False)
    inbox: list[dict[str, Any]] = field(default_factory=list)
    routed: int = 0
    routes: Routes = field(init=False)

    def __post_init__(self) -> None:
        self.rng = random.Random(self.seed)
        self.logs = [PartitionLog() for _ in range(PARTITIONS)]
        self.published = Published(self.definitions)
        self.routes = routes(self.definitions, self.definitions)

    # -- the run ------------------------------------------------------------------------------------------------

    def run(self) -> Counts:
        starts = [self._start_command(i) for i in range(self.flows)]
        for partition in range(PARTITIONS):
            self._take_over(partition)
        while starts or self._busy():
            self.counts.steps += 1
            if self.counts.steps > 20_000:
                raise Broken(f"seed {self.seed}: flows do not end")
            self._tick()
            choice = self.rng.random()
            if starts and choice < 0.2:
                self._send(starts.pop())
            elif choice < 0.25:
                self._route()
            elif choice < 0.6:
                self._engine_step(self.rng.randrange(PARTITIONS))
            elif choice < 0.9:
                self._worker_step(self.rng.randrange(PARTITIONS))
            elif choice < 0.95:
                self._rebalance(self.rng.randrange(PARTITIONS))
            else:
                self._zombie_step()
        self._check_end()
        return self.counts

    def _tick(self) -> None:
        """Clocks of real machines jump, also backwards."""
        self.clock += self.rng.choice((0, 1, 500, 3_000_000, -1_000_000))

    def _busy(self) -> bool:
        return any(
            self.owners[p].position + 1 < len(log.commands)
            or self.delivered.get(p, 0) < len(log.tasks)
            or any(isinstance(kept, m.LiveFlow) and due_of(kept) for kept in self.owners[p].states.values())
            for p, log in enumerate(self.logs)
        ) or self.routed < len(self.inbox)

    # -- clients ------------------------------------------------------------------------------------------------

    def _start_command(self, number: int) -> m.Command:
        reference, data = self.rng.choice(self.inputs)
        return m.Command(
            f"start-{number}",
            f"flow-{number}",
            self.clock,
            m.Actor("user", "u"),
            m.StartFlow(reference, data),
        )

    def _route(self) -> None:
        """The inbox's reader: at least once, so that it may read again what it has read."""
        if self.routed == len(self.inbox):
            return
        event = self.inbox[self.routed]
        for command in self.routes.of(event, self.clock):
            log = self.logs[partition_of(command.flow_id, PARTITIONS)]
            log.send_command(command.flow_id.encode(), encode_command(command))
        self.routed += self.rng.random() < 0.8

    def _deliver(self, shared: list[Produce]) -> None:
        """What a transaction wrote to the partitions of others."""
        for topic, key, value, headers in shared:
            assert key is not None
            if topic == COMMANDS:
                assert value is not None
                self.logs[partition_of(key.decode(), PARTITIONS)].send_command(key, value)
            elif topic == INBOX:
                self.inbox.append(document_of(value, dict(headers)))

    def _send(self, command: m.Command) -> None:
        event = {"specversion": "1.0", "id": command.flow_id, "source": "/sim", "type": "go"}
        self.inbox += [event | {"data": {"flow": command.flow_id}}] * self.rng.choice((1, 2))
        log = self.logs[partition_of(command.flow_id, PARTITIONS)]
        value = encode_command(command)
        for _ in range(1 + (self.rng.random() < 0.15)):
            log.send_command(command.flow_id.encode(), value)
        if self.rng.random() < 0.05:
            log.send_command(command.flow_id.encode(), b"\x00garbage")
        if self.rng.random() < 0.05:
            cancel = m.Command(
                f"cancel-{command.flow_id}",
                command.flow_id,
                self.clock,
                m.Actor("user", "u"),
                m.CancelFlow("x"),
            )
            log.send_command(command.flow_id.encode(), encode_command(cancel))

    # -- nodes --------------------------------------------------------------------------------------------------

    def _take_over(self, partition: int) -> None:
        """Fence, then read: the order the protocol demands."""
        log = self.logs[partition]
        epoch = log.fence()
        if self.rng.random() < 0.1:
            log.state.clear()  # the state topic is a cache and may be deleted
        states, position = self._restore(log)
        if log.position is None and position >= 0:
            restored = Restored(states, position, True, _told(log, position))
            self._deliver(log.commit(epoch, list(rebuild(restored, partition, self.published, self.clock))))
            states = restored.states
        self.owners[partition] = Owner(self.rng.randrange(3), epoch, states, position)

    def _restore(self, log: PartitionLog) -> tuple[dict[str, Kept], int]:
        if log.position is None:
            return _fold(log)
        states: dict[str, Kept] = {}
        offset = -1
        for value in log.state.values():
            found = decode_snapshot(value)
            match found:
                case m.Position():
                    offset = found.offset
                case m.Entity():
                    states[found.key] = found
                case _:
                    states[found.flow_id] = found
        return states, offset

    def _engine_step(self, partition: int) -> None:
        owner, log = self.owners[partition], self.logs[partition]
        taken = log.commands[owner.position + 1 :][: self.rng.choice((1, 2, 10))]
        due = [key for key, kept in owner.states.items() if 0 < due_of(kept) <= self.clock]
        if not taken and not due:
            return
        batch = self._decide(partition, owner, taken, due[: self.rng.choice((1, 10))])
        records = list(records_of(batch, "", self.clock))
        fate = self.rng.random()
        if fate < 0.06:  # killed before the commit: nothing is there
            self.counts.crashes += 1
            self._take_over(partition)
            return
        self._deliver(log.commit(owner.epoch, records))
        if fate < 0.12:  # committed, and killed (or told nothing) before the memory changed
            self.counts.uncertain += 1
            self._take_over(partition)
        else:
            self.counts.fired += batch.fired
            for key, kept in batch.overlay.items():
                if kept is None:
                    del owner.states[key]
                else:
                    owner.states[key] = kept
            owner.position = batch.last_offset
        self._check(partition)

    def _decide(self, partition: int, owner: Owner, taken: list[Stored], due: list[str]) -> Batch:
        batch = Batch(partition, owner.states, self.published, owner.position)
        for stored in taken:
            batch.apply(Record(stored.offset, stored.key, stored.value), self.clock)
        for key in due:
            batch.fire(key, self.clock)
        batch.close()
        self.counts.duplicates += batch.duplicates
        return batch

    def _rebalance(self, partition: int) -> None:
        """The partition moves while its old owner is frozen: that one wakes up later and must not write."""
        self.counts.rebalances += 1
        self.zombies.append((partition, self.owners[partition]))
        self._take_over(partition)

    def _zombie_step(self) -> None:
        if not self.zombies:
            return
        partition, zombie = self.zombies.pop(self.rng.randrange(len(self.zombies)))
        log = self.logs[partition]
        taken = log.commands[zombie.position + 1 :][:5]
        if not taken:
            return
        batch = self._decide(partition, zombie, taken, [])
        try:
            log.commit(zombie.epoch, list(records_of(batch, "", self.clock)))
        except Fenced:
            self.counts.fenced += 1
            return
        raise Broken(f"seed {self.seed}: a zombie wrote partition {partition}")

    # -- workers ------------------------------------------------------------------------------------------------

    def _worker_step(self, partition: int) -> None:
        """Performs a task at least once: perhaps again, perhaps an old one, perhaps failing."""
        log = self.logs[partition]
        at = self.delivered.get(partition, 0)
        if at >= len(log.tasks):
            return
        window = min(len(log.tasks), at + 3)
        self._report(decode_task(log.tasks[self.rng.randrange(window)].value))  # out of order, or again
        self._report(decode_task(log.tasks[at].value))
        self.delivered[partition] = at + 1

    def _report(self, task: m.Task) -> None:
        # a function's outcome depends on its task only, as two runs of one worker's would
        outcome = random.Random(f"{self.seed}{task.flow_id}{task.task}{task.run}").random()
        body: m.CommandBody
        if outcome < 0.06:
            body = m.FailTask(
                task.task, task.run, task.attempt, m.Error(_RUNTIME_ERROR, 500, "Boom", "it failed")
            )
        elif outcome < 0.08:
            body = m.CompleteTask(task.task, task.run, task.attempt, b"{not json")
        else:
            body = m.CompleteTask(task.task, task.run, task.attempt, _result(task, outcome))
        actor = m.Actor("worker", "w")
        command_id = f"{task.flow_id}{task.task}#{task.run}.{task.attempt}"
        command = m.Command(command_id, task.flow_id, self.clock, actor, body)
        log = self.logs[partition_of(task.flow_id, PARTITIONS)]  # a limiter hands over in its own partition
        log.send_command(task.flow_id.encode(), encode_command(command))

    # -- invariants ---------------------------------------------------------------------------------------------

    def _check(self, partition: int) -> None:
        log, owner = self.logs[partition], self.owners[partition]
        folded, _ = _fold(log)
        if folded != {key: kept for key, kept in owner.states.items() if not isinstance(kept, m.Entity)}:
            raise Broken(f"seed {self.seed}: memory of partition {partition} is not what its log folds to")
        if POSITION_KEY in log.state:
            stored, position = self._restore(log)
            if position != owner.position:
                raise Broken(f"seed {self.seed}: position {position} is not {owner.position}")
            if any(owner.states.get(key) != kept for key, kept in stored.items()):
                raise Broken(f"seed {self.seed}: the state topic is not what the log folds to")

    def _check_end(self) -> None:
        for partition, log in enumerate(self.logs):
            self._check(partition)
            flows: dict[str, list[StoredEvent]] = {}
            for stored in log.events:
                logged = decode_logged(stored.value)
                if isinstance(logged, m.Event):
                    if isinstance(logged.body, m.TimerFired) and logged.time < logged.body.due:
                        raise Broken(f"seed {self.seed}: a timer of {logged.flow_id} fired early")
                    flows.setdefault(logged.flow_id, []).append(StoredEvent(logged, stored.value))
            for flow_id, events in flows.items():
                state, differences = verify_flow(self.published.find, events)
                if differences:
                    raise Broken(f"seed {self.seed}: {differences[0]}")
                if not isinstance(state, m.EndedFlow):
                    raise Broken(f"seed {self.seed}: {flow_id} did not end: {state}")
        begun = {s.key.decode() for log in self.logs for s in log.events}
        lost = {f"flow-{number}" for number in range(self.flows)} - begun
        if lost:
            raise Broken(f"seed {self.seed}: {sorted(lost)} are not in the log")


def _result(task: m.Task, outcome: float) -> bytes:
    assert isinstance(task.arguments, bytes)
    return b'{"n":%d,"given":' % int(outcome * 1000) + task.arguments + b"}"


def _told(log: PartitionLog, position: int) -> list[Told]:
    found: list[Told] = []
    for stored in log.commands[: position + 1]:
        try:
            command = decode_command(stored.value)
        except Undecodable:
            continue
        if isinstance(command.body, m.TellEntity):
            found.append(Told(command.flow_id, command.body.message, command.time))
    return found


def _fold(log: PartitionLog) -> tuple[dict[str, Kept], int]:
    states: dict[str, FlowState] = {}
    last = -1
    for stored in log.events:
        logged = decode_logged(stored.value)
        last = max(last, logged.cause.offset)
        if isinstance(logged, m.Event):
            before = None if logged.sequence == 1 else states.get(logged.flow_id)
            states[logged.flow_id] = evolve(before, logged, digest(stored.value))
    return dict(states), last
