"""When a flow wants to be woken, and by which commands. Pure: reads the state alone.

Due times are part of the state, so a timer is as durable as the log and needs no record of its own. The partition's
owner keeps the earliest due time of each flow, waits, and feeds `due_commands` to `decide`; a timer that became
meaningless meanwhile decides to nothing.
"""

from __future__ import annotations

from typing import Final

from engine.core.evolve import FlowState
from schemas import messages as m

AT_ONCE: Final = 1
"""The due time of a flow whose long decision yielded."""

TIMER: Final = m.Actor("timer", "")


def next_due(state: FlowState | None) -> int:
    """The earliest due time of the flow in microseconds since the Unix epoch; 0: it waits for no timer."""
    if not isinstance(state, m.LiveFlow) or state.status == "suspended":
        return 0
    if state.ready:
        return AT_ONCE
    earliest = state.deadline
    for active in state.active:
        for due in (active.due, active.deadline):
            if due and (not earliest or due < earliest):
                earliest = due
    return earliest


def due_commands(state: FlowState | None, now: int) -> list[m.Command]:
    """What to feed to `decide` at `now`, earliest first."""
    if not isinstance(state, m.LiveFlow) or not 0 < next_due(state) <= now:
        return []
    if state.ready:
        return [_command(state, m.ContinueFlow(), f"timer:continue:{state.sequence}", now)]
    found: list[m.FireTimer] = []
    if 0 < state.deadline <= now:
        found.append(m.FireTimer(None, 0, 0, "timeout", state.deadline))
    for active in state.active:
        at = (active.task, active.run, active.attempt)
        if 0 < active.due <= now:
            found.append(m.FireTimer(*at, active.purpose, active.due))
        if 0 < active.deadline <= now:
            found.append(m.FireTimer(*at, "timeout", active.deadline))
    found.sort(key=lambda timer: timer.due)
    return [_command(state, body, _id(body), now) for body in found]


def _id(timer: m.FireTimer) -> str:
    return f"timer:{timer.purpose}:{timer.due}:{timer.task or ''}"


def _command(state: m.LiveFlow, body: m.CommandBody, command_id: str, now: int) -> m.Command:
    return m.Command(command_id, state.flow_id, now, TIMER, body)
