"""Given/when/then for the core: a flow driven by commands, each decided on what the last one left.

`Run` keeps the log a real partition would hold, so every scenario can also be replayed and compared.
"""

from __future__ import annotations

import json
from typing import Any

from engine.core.decide import Decision, decide, other_of
from engine.core.effects import Dispatch, Effect, Emitted
from engine.core.evolve import FlowState, digest, evolve
from engine.core.redecide import Stored, verify_flow
from engine.core.timers import due_commands, next_due
from engine.dsl.compile import compile_definition
from engine.dsl.model import Definition
from engine.dsl.source import parse
from schemas import messages as m
from schemas.codec import encode_snapshot

USER = m.Actor("user", "ada")
WORKER = m.Actor("worker", "w1")


def definition(body: str, name: str = "test", **document: Any) -> Definition:
    """A definition from its `do` (and what stands beside it), with a document block made up."""
    head = {"dsl": "1.0.3", "namespace": "test", "name": name, "version": "1.0.0"} | document
    return compile_definition(parse(f"document: {json.dumps(head)}\n{body}"))


class Run:
    """One flow. `events` is its log so far; `last` the last decision."""

    def __init__(self, of: Definition, flow_id: str = "f1") -> None:
        self.definition = of
        self.flow_id = flow_id
        self.state: FlowState | None = None
        self.log: list[Stored] = []
        self.decisions: list[list[Stored]] = []
        self.effects: list[Effect] = []
        self.last: Decision | None = None
        self.now = 1_700_000_000_000_000
        self.sent = 0
        self.published = {of.id: of}

    def send(
        self,
        body: m.CommandBody,
        *,
        actor: m.Actor = WORKER,
        command_id: str | None = None,
        known: bool = True,
    ) -> Decision:
        self.sent += 1
        self.now += 1000
        command = m.Command(command_id or f"c{self.sent}", self.flow_id, self.now, actor, body)
        return self._decide(command, known)

    def _decide(self, command: m.Command, known: bool = True) -> Decision:
        cause = m.Cause(command.command_id, 0, self.sent)
        other = self.published.get(other_of(command.body) or "")
        self.last = decide(
            self.definition if known else None, self.state, command, cause, self.now, other=other
        )
        self.state = self.last.state
        if isinstance(self.state, m.LiveFlow):
            self.definition = self.published[self.state.definition]
        if self.last.events:
            self.decisions.append([Stored(r.event, r.value) for r in self.last.events])
            self.log += self.decisions[-1]
        self.effects += self.last.effects
        return self.last

    def start(self, data: Any = None, **how: Any) -> Decision:
        return self.send(m.StartFlow(self.definition.id, json.dumps(data).encode()), actor=USER, **how)

    def complete(self, task: str, output: Any, run: int = 1, attempt: int = 1) -> Decision:
        return self.send(m.CompleteTask(task, run, attempt, json.dumps(output).encode()))

    def fail(self, task: str, error: m.Error, run: int = 1, attempt: int = 1) -> Decision:
        return self.send(m.FailTask(task, run, attempt, error))

    def migrate(self, to: Definition, reason: str | None = None) -> Decision:
        self.published[to.id] = to
        return self.send(m.MigrateFlow(to.id, reason), actor=USER)

    def moment(self, sequence: int, data: bytes | None = None) -> m.Restore:
        """The flow after that event, as a command carries it."""
        state: FlowState | None = None
        for stored in self.log[:sequence]:
            state = evolve(state, stored.event, digest(stored.value))
        assert isinstance(state, m.LiveFlow)
        return m.Restore(self.flow_id, sequence, encode_snapshot(state), data)

    def roll_back(self, sequence: int, reason: str | None = None) -> Decision:
        return self.send(m.RollBackFlow(self.moment(sequence), reason), actor=USER)

    def cancel(self, reason: str | None = None) -> Decision:
        return self.send(m.CancelFlow(reason), actor=USER)

    def advance(self, seconds: float) -> list[str]:
        """Lets time pass; every timer that becomes due meanwhile fires, in order. Gives the purposes that fired."""
        end = self.now + int(seconds * 1_000_000)
        fired = []
        while 0 < next_due(self.state) <= end:
            fired.append(self.tick())
        self.now = end
        return fired

    def tick(self) -> str:
        """The next timer fires, at its time; gives its purpose, or nothing when the flow waits for none."""
        due = next_due(self.state)
        if not due:
            return ""
        self.now = max(self.now, due)
        command = due_commands(self.state, self.now)[0]
        self.sent += 1
        self._decide(command)
        return command.body.purpose if isinstance(command.body, m.FireTimer) else "continue"

    def deliver(self, task: str, event: dict[str, Any], number: int = 0, run: int = 1) -> Decision:
        whole = {"specversion": "1.0", "id": f"e{self.sent}", "source": "/test"} | event
        body = m.DeliverEvent(task, run, number, json.dumps(whole).encode())
        return self.send(body, actor=m.Actor("event", "/test"))

    def dispatched(self) -> list[tuple[str, str, Any]]:
        """(queue, function, arguments) of each task handed to workers so far."""
        return [
            (e.queue, e.task.function, json.loads(e.task.arguments))  # type: ignore[arg-type]
            for e in self.effects
            if isinstance(e, Dispatch)
        ]

    def asked(self, kind: type) -> list[tuple[str, Any]]:
        """(flow id, body) of each command for others so far whose body is a `kind`."""
        return [
            (e.flow_id, e.body) for e in self.effects if isinstance(e, m.Command) and isinstance(e.body, kind)
        ]

    def emitted(self) -> list[m.CloudEvent]:
        return [e.event for e in self.effects if isinstance(e, Emitted)]

    def cancelled(self) -> list[str]:
        """Tasks that workers were told to stop."""
        return [e.task for e in self.effects if isinstance(e, m.Cancellation)]

    @property
    def waiting(self) -> list[str]:
        """Tasks that wait for somebody: the innermost active ones."""
        assert isinstance(self.state, m.LiveFlow), self.state
        active = [a.task for a in self.state.active]
        return [task for task in active if not any(other.startswith(task + "/") for other in active)]

    @property
    def kinds(self) -> list[str]:
        return [stored.event.kind for stored in self.log]

    @property
    def tasks(self) -> list[tuple[str, str]]:
        """(kind, last segment of the task's pointer) of each task event."""
        return [(s.event.kind, s.event.task.rsplit("/", 1)[1]) for s in self.log if s.event.task is not None]

    @property
    def output(self) -> Any:
        body = self.log[-1].event.body
        assert isinstance(body, m.FlowCompleted), body
        assert isinstance(body.output, bytes)
        return json.loads(body.output)

    @property
    def error(self) -> m.Error:
        body = self.log[-1].event.body
        assert isinstance(body, m.FlowFaulted), body
        return body.error

    def rejected(self) -> m.Rejection:
        assert self.last is not None
        assert self.last.rejection is not None
        return self.last.rejection

    def verify(self) -> None:
        """The log folds to the state and decides to the same bytes again."""
        state, differences = verify_flow(self.published.get, self.log)
        assert differences == []
        assert state == self.state
