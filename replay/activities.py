"""What process-mining tools are told of an event: the activity's name, its lifecycle step, values of any type. Pure.

A task's activity is its path of names (`/do/2/pay/try/do/0/charge` is `pay/charge`), because that is what a person reads
in a discovered model; the pointer stays beside it. An event of the flow itself is an activity of its own kind's name.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any, Final

import orjson

from schemas import messages as m

_TRANSITIONS: Final[dict[type, str]] = {
    m.FlowStarted: "start",
    m.FlowCompleted: "complete",
    m.FlowFaulted: "ate_abort",
    m.FlowCancelled: "pi_abort",
    m.FlowSuspended: "suspend",
    m.FlowResumed: "resume",
    m.TaskScheduled: "schedule",
    m.TaskStarted: "start",
    m.SubflowStarted: "start",
    m.ListenStarted: "start",
    m.TaskCompleted: "complete",
    m.TaskSkipped: "autoskip",
    m.TaskFaulted: "ate_abort",
    m.TaskCancelled: "pi_abort",
    m.TaskRetried: "reassign",
}
_STATUS: Final[dict[type, str]] = {
    m.FlowCompleted: "completed",
    m.FlowFaulted: "faulted",
    m.FlowCancelled: "cancelled",
}
Value = str | int | float | bool


def activity(event: m.Event) -> str:
    if event.task is None:
        return event.kind
    words = event.task.split("/")
    names = [word for before, word in pairwise(words) if before.isdigit()]
    if words[-2:] == ["metadata", "compensate"]:
        names.append("compensate")
    return "/".join(name.replace("~1", "/").replace("~0", "~") for name in names) or event.task


def transition(event: m.Event) -> str:
    """Of the standard lifecycle of XES; `unknown` for what it has no word for."""
    return _TRANSITIONS.get(type(event.body), "unknown")


def status_of(event: m.Event) -> str | None:
    """The flow's status where this event ends it."""
    return _STATUS.get(type(event.body))


def attributes(event: m.Event) -> dict[str, Value]:
    """What every event has, as plain values."""
    found: dict[str, Value] = {
        "kind": event.kind,
        "sequence": event.sequence,
        "actor": event.actor.id,
        "actor_kind": event.actor.kind,
        "command_id": event.cause.command_id,
    }
    if event.task is not None:
        found |= {"task": event.task, "run": event.run, "attempt": event.attempt}
    return found


def members(payload: m.Payload) -> dict[str, Value]:
    """The plain values among a payload's members; deeper ones are in the event's body."""
    if not isinstance(payload, bytes):
        return {}
    try:
        found: Any = orjson.loads(payload)
    except orjson.JSONDecodeError:
        return {}
    if not isinstance(found, dict):
        return {}
    return {name: value for name, value in found.items() if isinstance(value, str | int | float | bool)}
