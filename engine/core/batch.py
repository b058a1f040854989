"""One partition's batch of commands, decided in order against copies: what to write, and the states afterwards.

Pure, and all of the engine between two transactions: the runtime feeds it records and writes its outcome, the
simulation does the same in memory. States given are never changed; the changed ones are in `overlay` and become
the partition's states only after the transaction has committed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import msgspec

from engine.core.decide import FLOW_ID, Decision, decide, park
from engine.core.evolve import FlowState
from engine.dsl.model import Definition
from schemas import messages as m
from schemas.codec import Undecodable, decode_command


class Definitions(Protocol):
    """The published definitions a node knows."""

    def find(self, reference: str) -> Definition | None:
        """By `namespace/name@version`, or by `namespace/name` the newest version."""
        ...


class Record(msgspec.Struct, frozen=True, gc=False):
    """One record of the `commands` topic. `fingerprint` is its `schema` header, when it has one."""

    offset: int
    key: bytes | None
    value: bytes | None
    fingerprint: bytes | None = None


class DeadLetter(msgspec.Struct, frozen=True, gc=False):
    """A record that is no command; kept with its original bytes."""

    record: Record
    code: str
    reason: str


class Dispatch(msgspec.Struct, frozen=True, gc=False):
    """A task for a worker of `queue`."""

    queue: str
    task: m.Task


Written = tuple[m.Event | m.Rejection, bytes | None]


class Batch:
    """Decides records one after the other. `written` keeps events and rejections in log order."""

    __slots__ = (
        "_definitions",
        "_states",
        "dead_letters",
        "dispatches",
        "duplicates",
        "last_offset",
        "overlay",
        "parked",
        "partition",
        "size",
        "written",
    )

    def __init__(self, partition: int, states: Mapping[str, FlowState], definitions: Definitions) -> None:
        self.partition = partition
        self._states = states
        self._definitions = definitions
        self.overlay: dict[str, FlowState] = {}
        self.written: list[Written] = []
        self.dispatches: list[Dispatch] = []
        self.dead_letters: list[DeadLetter] = []
        self.duplicates = 0
        self.parked: list[str] = []
        self.last_offset = -1
        self.size = 0

    def apply(self, record: Record, now: int) -> None:
        """Decides one record at `now` (microseconds since the Unix epoch)."""
        self.last_offset = record.offset
        self.size += 1
        try:
            command = self._command(record)
        except Undecodable as problem:
            self.dead_letters.append(DeadLetter(record, problem.code, str(problem)))
            return
        cause = m.Cause(command.command_id, self.partition, record.offset)
        flow_id = command.flow_id
        state = self.overlay.get(flow_id) or self._states.get(flow_id)
        definition = self._definition(state, command)
        assert record.value is not None
        try:
            if _parked(state, command):
                assert isinstance(state, m.LiveFlow)
                decision = park(definition, state, command, record.value, cause, now, "")
            else:
                decision = decide(definition, state, command, cause, now)
        except Exception as defect:  # a defect stops one flow, never the partition
            decision = self._incident(definition, state, command, record.value, cause, now, defect)
        self._take(flow_id, decision, definition)

    def _command(self, record: Record) -> m.Command:
        if record.value is None:
            raise Undecodable("no-value", "Expected a command but found a record without a value")
        command = decode_command(record.value, record.fingerprint)
        if not FLOW_ID.fullmatch(command.flow_id):
            raise Undecodable(
                "flow-id",
                f"Expected a flow id matching {FLOW_ID.pattern} but found {command.flow_id[:200]!r}",
            )
        if record.key is None or record.key != command.flow_id.encode():
            raise Undecodable(
                "key",
                f"Expected the record's key to be its flow id {command.flow_id} but found {record.key!r}",
            )
        return command

    def _definition(self, state: FlowState | None, command: m.Command) -> Definition | None:
        if isinstance(state, m.LiveFlow):
            found = self._definitions.find(state.definition)
            return found if found is not None and found.hash == state.definition_hash else None
        body = command.body
        return self._definitions.find(body.definition) if isinstance(body, m.StartFlow) else None

    def _incident(
        self,
        definition: Definition | None,
        state: FlowState | None,
        command: m.Command,
        stored: bytes,
        cause: m.Cause,
        now: int,
        defect: Exception,
    ) -> Decision:
        if isinstance(state, m.EndedFlow):
            raise defect
        reason = f"Expected the command to be decided but {type(defect).__name__}: {defect}"[:2000]
        self.parked.append(reason)
        return park(definition, state, command, stored, cause, now, reason)

    def _take(self, flow_id: str, decision: Decision, definition: Definition | None) -> None:
        if decision.rejection is not None:
            self.written.append((decision.rejection, None))
            return
        if not decision.events:
            self.duplicates += 1
            return
        assert decision.state is not None
        self.overlay[flow_id] = decision.state
        for recorded in decision.events:
            self.written.append((recorded.event, recorded.value))
            if isinstance(recorded.event.body, m.TaskScheduled):
                self.dispatches.append(_dispatch(recorded.event, recorded.event.body, decision.state))


def _parked(state: FlowState | None, command: m.Command) -> bool:
    """A suspended flow keeps what its workers report, in order, for its resumption."""
    return (
        isinstance(state, m.LiveFlow)
        and state.status == "suspended"
        and isinstance(command.body, m.CompleteTask | m.FailTask)
    )


def _dispatch(event: m.Event, body: m.TaskScheduled, state: FlowState) -> Dispatch:
    """The task message of a TaskScheduled event. It is the last event of its decision: the task is active."""
    assert isinstance(state, m.LiveFlow)
    assert event.task is not None
    arguments = body.arguments
    if arguments is None:
        arguments = next(active.input for active in state.active if active.task == event.task)
    return Dispatch(
        body.queue,
        m.Task(
            flow_id=event.flow_id,
            definition=event.definition,
            task=event.task,
            run=event.run,
            attempt=event.attempt,
            function=body.function,
            arguments=arguments,
            time=event.time,
            trace=event.trace,
        ),
    )
