"""Given/when/then for the core: a flow driven by commands, each decided on what the last one left.

`Run` keeps the log a real partition would hold, so every scenario can also be replayed and compared.
"""

from __future__ import annotations

import json
from typing import Any

from engine.core.decide import Decision, decide
from engine.core.evolve import FlowState
from engine.core.redecide import Stored, verify_flow
from engine.dsl.compile import compile_definition
from engine.dsl.model import Definition
from engine.dsl.source import parse
from schemas import messages as m

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
        self.last: Decision | None = None
        self.now = 1_700_000_000_000_000
        self.sent = 0

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
        cause = m.Cause(command.command_id, 0, self.sent)
        self.last = decide(self.definition if known else None, self.state, command, cause, self.now)
        self.state = self.last.state
        self.log += [Stored(r.event, r.value) for r in self.last.events]
        return self.last

    def start(self, data: Any = None, **how: Any) -> Decision:
        return self.send(m.StartFlow(self.definition.id, json.dumps(data).encode()), actor=USER, **how)

    def complete(self, task: str, output: Any, run: int = 1, attempt: int = 1) -> Decision:
        return self.send(m.CompleteTask(task, run, attempt, json.dumps(output).encode()))

    def fail(self, task: str, error: m.Error, run: int = 1, attempt: int = 1) -> Decision:
        return self.send(m.FailTask(task, run, attempt, error))

    def cancel(self, reason: str | None = None) -> Decision:
        return self.send(m.CancelFlow(reason), actor=USER)

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
        state, differences = verify_flow(self.definition, self.log)
        assert differences == []
        assert state == self.state
