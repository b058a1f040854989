"""Commands that turn a flow, made from its log: the moment to go back to, and what the engine would do with them.

A moment is the end of a decision: everything waits then, and the state says for what. `plan` decides a command as the engine
would, against the flow as the log has it, and produces nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import pairwise
from typing import Any

import msgspec

from engine.core.decide import Decision, decide, other_of
from engine.core.evolve import FlowState, digest, evolve
from engine.core.moments import entered
from engine.core.names import names_of
from engine.core.redecide import Stored, groups
from engine.dsl.model import Definition
from engine.errors import InputError
from engine.runtime.records import timestamp
from replay.flow import Log, fold_until
from schemas import messages as m
from schemas.codec import encode_snapshot

Find = Callable[[str], Definition | None]

_BEGINNINGS = (m.TaskScheduled, m.TaskStarted, m.ListenStarted, m.SubflowStarted)


class Turning(msgspec.Struct, frozen=True):
    """A moment that was found: the state, and the time of its last event."""

    state: m.LiveFlow
    time: int

    def restore(self, data: bytes | None = None) -> m.Restore:
        return m.Restore(self.state.flow_id, self.state.sequence, encode_snapshot(self.state), data)

    def shown(self) -> dict[str, Any]:
        return {
            "sequence": self.state.sequence,
            "time": timestamp(self.time),
            "tasks": list(waiting(self.state)),
        }


def waiting(state: m.LiveFlow) -> tuple[str, ...]:
    """The tasks that are performed again when this moment is restored."""
    going_on = {active.task for active in entered(state)}
    return (*(a.task for a in state.active if a.task not in going_on), *state.ready)


def moment_of(log: Log, to: int | str) -> Turning:
    """The last end of a decision up to event `to`; or the one that began the last run of the task `to`.

    A task is named by its JSON pointer, by its name, or by its name behind those around it (`pay/charge`). Raises
    InputError, which names what could be meant.
    """
    found: Turning | None = None
    begun: dict[str, None] = {}
    last = 0
    for state, group in _moments(log):
        last = group[-1].event.sequence
        if isinstance(to, int) and last > to:
            break
        if not isinstance(state, m.LiveFlow) or state.fate is not None:
            continue
        tasks = [one.event.task for one in group if isinstance(one.event.body, _BEGINNINGS)]
        here = [task for task in tasks if task in waiting(state)]
        begun |= dict.fromkeys(task for task in here if task)
        if isinstance(to, int) or any(_means(to, task) for task in here):
            found = Turning(state, group[-1].event.time)
    if isinstance(to, int) and not 1 <= to <= max(last, len(log.logged)):
        raise InputError(f"Expected an event from 1 to {len(log.logged)} of {log.flow_id} but found {to}")
    if found is None:
        known = ", ".join(begun) or "none"
        raise InputError(
            f"Expected a task of {log.flow_id} that waited for somebody ({known[:1000]}) but found {to!r}"
        )
    return found


def _means(wanted: int | str, task: str | None) -> bool:
    if task is None or not isinstance(wanted, str):
        return False
    if wanted.startswith("/"):
        return wanted in (task, names_of(task))
    parts = wanted.split("/")
    return _names(task)[-len(parts) :] == parts


def _names(task: str) -> list[str]:
    """`/do/0/pay/try/1/charge` -> pay, charge: the names alone."""
    parts = task.split("/")
    return [name for number, name in pairwise(parts) if number.isdigit()]


def _moments(log: Log) -> Iterable[tuple[FlowState | None, list[Stored]]]:
    state: FlowState | None = None
    for group in groups([Stored(one.event, one.value) for one in log.logged]):
        for one in group:
            state = evolve(state, one.event, digest(one.value))
        yield state, group


def state_of(log: Log) -> FlowState:
    """The flow as it stands. Raises BrokenFlow."""
    return fold_until(log.flow_id, log.logged, None)[1]


def plan(log: Log, body: m.CommandBody, find: Find, now: int) -> Decision:
    """What the engine would decide now; nothing is produced."""
    state = state_of(log) if log.logged else None
    command = m.Command("plan", log.flow_id, now, m.Actor("user", "plan"), body)
    runs = state.definition if state is not None else body.definition if isinstance(body, m.StartFlow) else ""
    definition = find(runs)
    named = other_of(body)
    other = None if named is None else find(named)
    if definition is None:
        raise InputError(f"Expected definition {runs} to be published but it is not")
    return decide(definition, state, command, m.Cause("plan", 0, 0), now, other=other)


def planned(decision: Decision) -> dict[str, Any]:
    """A plan as JSON: what would be written, or why it would be refused."""
    if decision.rejection is not None:
        return {"possible": False, "code": decision.rejection.code, "reason": decision.rejection.reason}
    compensations: list[str] = []
    for recorded in decision.events:
        body = recorded.event.body
        if isinstance(body, m.FlowRollingBack):
            compensations = _compensations(decision, body)
    return {
        "possible": True,
        "events": [
            {"kind": recorded.event.kind, "task": recorded.event.task} for recorded in decision.events
        ],
        "compensations": compensations,
    }


def _compensations(decision: Decision, body: m.FlowRollingBack) -> list[str]:
    """The tasks that would be undone, newest first."""
    if not isinstance(decision.state, m.LiveFlow) or decision.state.fate is None:
        return []
    return [undo.task for undo in reversed(decision.state.compensations[body.keep :])]


def last_migration(log: Log) -> m.FlowMigrated | None:
    bodies = (one.event.body for one in reversed(log.logged))
    return next((body for body in bodies if isinstance(body, m.FlowMigrated)), None)
