"""One decision while it is being made: the events so far, the state they fold to, the values read.

`emit` seals an event (sequence, time, cause, hash chain), encodes it, and folds it at once. The first event of a
decision carries the command's actor, because it is the fact that actor reported; what the engine concludes from it
carries the engine's. `values` decodes JSON once per decision.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import msgspec
import orjson

from engine.core.effects import Effect
from engine.core.evolve import FlowState, digest, evolve
from engine.dsl.errors import ExpressionError
from engine.dsl.model import Definition
from schemas import messages as m
from schemas.codec import encode_event

ENGINE: Final = m.Actor("engine", "")
PAYLOAD_BYTES_MAX: Final = 262_144
"""Payloads above this travel as claims (docs/architecture.md); no expression may make a larger one."""

Encode = Callable[[m.Event], bytes]


class Recorded(msgspec.Struct, frozen=True, gc=False):
    """An event and its stored value."""

    event: m.Event
    value: bytes


class Recording:
    """Events of one decision in the making. `state` is None until a flow has begun."""

    __slots__ = (
        "_values",
        "cause",
        "command",
        "definition_hash",
        "definition_id",
        "effects",
        "encode",
        "events",
        "now",
        "parent",
        "state",
    )

    def __init__(
        self,
        definition: Definition | None,
        state: m.LiveFlow | None,
        command: m.Command,
        cause: m.Cause,
        now: int,
        encode: Encode = encode_event,
    ) -> None:
        self.state: FlowState | None = state
        self.command = command
        self.cause = cause
        self.now = now if state is None else max(now, state.updated_at)
        self.encode = encode
        self.events: list[Recorded] = []
        self.effects: list[Effect] = []
        self._values: dict[bytes, Any] = {}
        body = command.body
        self.parent = state.parent if state is not None else getattr(body, "parent", None)
        if state is not None:
            self.definition_id, self.definition_hash = state.definition, state.definition_hash
        elif definition is not None:
            self.definition_id, self.definition_hash = definition.id, definition.hash
        else:
            self.definition_id = body.definition if isinstance(body, m.StartFlow) else ""
            self.definition_hash = b""

    def emit(self, body: m.EventBody, task: str | None = None, run: int = 0, attempt: int = 0) -> None:
        """Appends the event `body` and folds it."""
        state = self.state
        event = m.Event(
            flow_id=self.command.flow_id,
            sequence=1 if state is None else state.sequence + 1,
            time=self.now,
            actor=ENGINE if self.events else self.command.actor,
            cause=self.cause,
            definition=self.definition_id,
            definition_hash=self.definition_hash,
            task=task,
            run=run,
            attempt=attempt,
            trace=self.command.trace,
            previous_hash=state.head if isinstance(state, m.LiveFlow) else b"",
            body=body,
        )
        value = self.encode(event)
        self.state = evolve(state, event, digest(value))
        self.events.append(Recorded(event, value))

    def ask(self, what: str, flow_id: str, body: m.CommandBody) -> None:
        """A command for another flow, or an entity; its id is derived from the last event, so a repetition is known."""
        last = self.events[-1].event.event_id
        actor = m.Actor("engine", self.command.flow_id)
        command = m.Command(f"{last}:{what}", flow_id, self.now, actor, body, self.command.trace)
        self.effects.append(command)

    @property
    def live(self) -> m.LiveFlow:
        assert isinstance(self.state, m.LiveFlow)
        return self.state

    def value(self, data: bytes) -> Any:
        """The JSON value of `data`, decoded once. Callers must not change it."""
        found = self._values.get(data, self)
        if found is self:
            found = self._values[data] = orjson.loads(data)
        return found

    def bytes_of(self, value: Any) -> bytes:
        """`value` as JSON bytes. Raises ExpressionError for what JSON cannot hold."""
        try:
            data = orjson.dumps(value)
        except (TypeError, ValueError) as problem:
            raise ExpressionError(f"Expected a JSON value but {problem}") from None
        if len(data) > PAYLOAD_BYTES_MAX:
            raise ExpressionError(
                f"Expected at most {PAYLOAD_BYTES_MAX} bytes but the result has {len(data)}"
            )
        self._values[data] = value
        return data
