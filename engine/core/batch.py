"""One partition's batch of commands, decided in order against copies: what to write, and the states afterwards.

Pure, and all of the engine between two transactions: the runtime feeds it records, due timers and messages to
entities and writes its outcome, the simulation does the same in memory. States given are never changed; the changed
ones are in `overlay` (None: gone) and become the partition's states only after the transaction has committed.
Only records move the position: what a timer leads to names the position as it was.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

import msgspec
import orjson

from engine.core.decide import FLOW_ID, Decision, decide, other_of, park
from engine.core.effects import Dispatch, Effect, Emitted
from engine.core.entities.book import ENTITY_KEY, EVENT_TTL_US, Definitions, Page
from engine.core.entities.correlation import identity_of
from engine.core.evolve import FlowState, active_of
from engine.core.timers import due_commands, next_due
from engine.dsl.model import Definition
from schemas import messages as m
from schemas.codec import Undecodable, decode_command, encode_command

__all__ = ["Batch", "DeadLetter", "Definitions", "Dispatch", "Kept", "Record", "Written", "due_of"]

Kept = FlowState | m.Entity
"""What a partition keeps under a key: a flow's state, or an entity (its key begins with `~`)."""


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


Written = tuple[m.Event | m.Rejection, bytes | None]

_TIMER_COMMANDS_MAX: Final = 100
"""Timers of one flow that one batch fires at the most; the rest are due at once again."""


def due_of(kept: Kept | None) -> int:
    """When a flow or an entity wants to be woken; 0: never."""
    return kept.due if isinstance(kept, m.Entity) else next_due(kept)


class Batch:
    """Decides records one after the other. `written` keeps events and rejections in log order."""

    __slots__ = (
        "_definitions",
        "_pages",
        "_states",
        "_ttl_us",
        "cancellations",
        "commands",
        "dead_letters",
        "dispatches",
        "duplicates",
        "emitted",
        "failures",
        "fired",
        "first_offset",
        "last_offset",
        "overlay",
        "parked",
        "partition",
        "size",
        "stuck",
        "written",
    )

    def __init__(
        self,
        partition: int,
        states: Mapping[str, Kept],
        definitions: Definitions,
        position: int = -1,
        event_ttl_us: int = EVENT_TTL_US,
    ) -> None:
        self.partition = partition
        self._states = states
        self._definitions = definitions
        self._ttl_us = event_ttl_us
        self._pages: dict[str, Page] = {}
        self.overlay: dict[str, Kept | None] = {}
        self.written: list[Written] = []
        self.dispatches: list[Dispatch] = []
        self.commands: list[m.Command] = []
        self.cancellations: list[m.Cancellation] = []
        self.emitted: list[Emitted] = []
        self.dead_letters: list[DeadLetter] = []
        self.duplicates = 0
        self.parked: list[str] = []
        self.failures: list[str] = []
        self.first_offset = self.last_offset = position
        self.size = 0
        self.fired = 0
        self.stuck: set[str] = set()

    # -- what comes in ------------------------------------------------------------------------------------------

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
        if isinstance(command.body, m.TellEntity):
            try:
                self._tell(command.flow_id, command.body.message, now)
            except ValueError as problem:
                self.dead_letters.append(DeadLetter(record, "entity-message", str(problem)))
            except Exception as defect:  # a defect stops one message, never the partition
                text = f"Expected the message to be taken but {type(defect).__name__}: {defect}"
                self.dead_letters.append(DeadLetter(record, "entity-defect", text))
        elif isinstance(command.body, m.FireTimer | m.ContinueFlow):
            self.written.append((_internal(command, cause, now), None))
        else:
            assert record.value is not None
            self._decide(command, record.value, cause, now)

    def fire(self, key: str, now: int) -> None:
        """Feeds what is due of a flow or an entity. `stuck` gets it when it is due as before: not to be asked at once again."""
        kept = self._entity(key) if key.startswith("~") else self._flow(key)
        if not 0 < due_of(kept) <= now:
            return
        if isinstance(kept, m.Entity):
            self.fired += 1
            self.tell(key, orjson.dumps({"wake": kept.due}), now)
            stuck = self._entity(key) == kept
        else:
            for command in due_commands(kept, now)[:_TIMER_COMMANDS_MAX]:
                if self._definition(kept, command) is None:
                    break
                self.fired += 1
                cause = m.Cause(command.command_id, self.partition, self.last_offset)
                self._decide(command, b"", cause, now)
            stuck = self._flow(key) is kept
        if stuck:
            self.stuck.add(key)

    def tell(self, key: str, message: bytes, now: int) -> None:
        """A message of the engine's own to an entity of this partition."""
        try:
            self._tell(key, message, now)
        except Exception as problem:  # bad, or a defect: neither stops the partition
            self.failures.append(f"{key}: {type(problem).__name__}: {problem}")

    def close(self) -> None:
        """Entities become bytes again; call it once, after everything was fed."""
        for key, page in self._pages.items():
            kept, before = page.close(), self._states.get(key)
            if kept != before:
                self.overlay[key] = kept

    # -- deciding -----------------------------------------------------------------------------------------------

    def _command(self, record: Record) -> m.Command:
        if record.value is None:
            raise Undecodable("no-value", "Expected a command but found a record without a value")
        command = decode_command(record.value, record.fingerprint)
        pattern = ENTITY_KEY if isinstance(command.body, m.TellEntity) else FLOW_ID
        if not pattern.fullmatch(command.flow_id):
            raise Undecodable(
                "flow-id",
                f"Expected a flow id matching {pattern.pattern} but found {command.flow_id[:200]!r}",
            )
        if record.key is None or record.key != command.flow_id.encode():
            raise Undecodable(
                "key",
                f"Expected the record's key to be its flow id {command.flow_id} but found {record.key!r}",
            )
        return command

    def _flow(self, flow_id: str) -> FlowState | None:
        found = self.overlay.get(flow_id) or self._states.get(flow_id)
        assert not isinstance(found, m.Entity)
        return found

    def _entity(self, key: str) -> m.Entity | None:
        page = self._pages.get(key)
        found = self._states.get(key) if page is None else page.close()
        return found if isinstance(found, m.Entity) else None

    def _definition(self, state: FlowState | None, command: m.Command) -> Definition | None:
        if isinstance(state, m.LiveFlow):
            found = self._definitions.find(state.definition)
            return found if found is not None and found.hash == state.definition_hash else None
        body = command.body
        return self._definitions.find(body.definition) if isinstance(body, m.StartFlow) else None

    def _other(self, body: m.CommandBody) -> Definition | None:
        found = other_of(body)
        return None if found is None else self._definitions.find(found)

    def _decide(self, command: m.Command, stored: bytes, cause: m.Cause, now: int) -> None:
        state = self._flow(command.flow_id)
        definition = self._definition(state, command)
        try:
            if _parked(state, command):
                assert isinstance(state, m.LiveFlow)
                decision = park(definition, state, command, stored, cause, now, "")
            else:
                decision = decide(definition, state, command, cause, now, other=self._other(command.body))
        except Exception as defect:  # a defect stops one flow, never the partition
            if isinstance(state, m.EndedFlow):
                raise
            reason = f"Expected the command to be decided but {type(defect).__name__}: {defect}"[:2000]
            self.parked.append(reason)
            stored = stored or encode_command(command)
            decision = park(definition, state, command, stored, cause, now, reason)
        self._take(command, state, decision)

    def _take(self, command: m.Command, before: FlowState | None, decision: Decision) -> None:
        if decision.rejection is not None:
            self.written.append((decision.rejection, None))
        elif not decision.events:
            self.duplicates += 1
            return
        else:
            assert decision.state is not None
            self.overlay[command.flow_id] = decision.state
            self.written += [(recorded.event, recorded.value) for recorded in decision.events]
            if isinstance(command.body, m.DeliverEvent | m.ResumeFlow):
                self._taken(before, decision)
        self._collect(decision.effects)

    def _taken(self, before: FlowState | None, decision: Decision) -> None:
        """Tells the correlators which events the flow took, so that no later listen of the flow gets them again."""
        if not isinstance(before, m.LiveFlow):
            return
        for event in (recorded.event for recorded in decision.events):
            if not isinstance(event.body, m.EventConsumed) or event.task is None:
                continue
            active = active_of(before, event.task)
            number = event.body.filter
            keys = [] if active is None else [s.key for s in active.subscriptions if s.filter == number]
            assert isinstance(event.body.event, bytes)
            identity = identity_of(orjson.loads(event.body.event))
            for key in keys:
                tell = m.TellEntity(orjson.dumps({"taken": {"flow": event.flow_id, "event": identity}}))
                actor = m.Actor("engine", event.flow_id)
                self.commands.append(m.Command(f"{event.event_id}:taken", key, event.time, actor, tell))

    def _tell(self, key: str, message: bytes, now: int) -> None:
        page = self._pages.get(key)
        if page is None:
            stored = self._states.get(key)
            page = Page(key, stored.state if isinstance(stored, m.Entity) else None, self._ttl_us)
        effects = page.tell(message, self._definitions, now)
        self._pages[key] = page
        self._collect(effects)

    def _collect(self, effects: Iterable[Effect]) -> None:
        for effect in effects:
            match effect:
                case m.Command():
                    self.commands.append(effect)
                case Dispatch():
                    self.dispatches.append(effect)
                case m.Cancellation():
                    self.cancellations.append(effect)
                case Emitted():
                    self.emitted.append(effect)


def _parked(state: FlowState | None, command: m.Command) -> bool:
    """A suspended flow keeps what others report, in order, for its resumption."""
    return (
        isinstance(state, m.LiveFlow)
        and state.status == "suspended"
        and isinstance(command.body, m.CompleteTask | m.FailTask | m.DeliverEvent)
    )


def _internal(command: m.Command, cause: m.Cause, now: int) -> m.Rejection:
    return m.Rejection(
        flow_id=command.flow_id,
        time=now,
        actor=command.actor,
        cause=cause,
        command=command.kind,
        code="internal-command",
        reason=f"Expected a command for a flow but found {command.kind}, which only the engine itself gives",
        trace=command.trace,
    )
