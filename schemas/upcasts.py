"""How a record written under an older released schema becomes one of the next: one pure step a version.

`UPCASTS[(kind, n)]` turns the plain Avro data of version n into that of version n + 1. A step may fill in what the
old version did not say; it never drops what it did. Avro's own resolution is not used at run time: a step is plain to
read, and old records cost only their steps.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

Upcast = Callable[[dict[str, Any]], dict[str, Any]]

_NEW: Final[dict[str, dict[str, Any]]] = {
    "FlowStarted": {"parent": None, "deadline": 0},
    "TaskScheduled": {"deadline": 0, "due": 0, "priority": "normal", "reply": True},
    "TaskStarted": {"deadline": 0, "due": 0, "purpose": "", "items": None, "kind": "do"},
    "TaskCompleted": {"compensable": False},
    "StartFlow": {"parent": None},
    "CancelFlow": {"compensate": False},
    "FailTask": {"incident": False},
    "LiveFlow": {
        "parent": None,
        "deadline": 0,
        "ready": [],
        "steps": 0,
        "compensations": [],
        "fate": None,
        "parked": [],
    },
}
_NEW_ACTIVE: Final[dict[str, Any]] = {
    "due": 0,
    "purpose": "",
    "deadline": 0,
    "index": -1,
    "items": None,
    "results": [],
    "error": None,
    "child": "",
    "queue": "",
    "subscriptions": [],
    "keys": None,
    "retrying_since": 0,
}


def _body_2(record: dict[str, Any]) -> dict[str, Any]:
    """Events, commands and snapshots: what version 2 added to the bodies of version 1."""
    name, body = record["body"]
    body = body | _NEW.get(name.rsplit(".", 1)[1], {})
    if "active" in body:
        body["active"] = [active | _NEW_ACTIVE for active in body["active"]]
    return record | {"body": (name, body)}


def _task_2(record: dict[str, Any]) -> dict[str, Any]:
    return record | {"deadline": 0, "heartbeat": 0, "priority": "normal", "reply": True}


def _command_3(record: dict[str, Any]) -> dict[str, Any]:
    name, body = record["body"]
    return record | {"body": (name, body | {"restore": None})} if name.endswith(".StartFlow") else record


def _unchanged(record: dict[str, Any]) -> dict[str, Any]:
    return record


UPCASTS: Final[dict[tuple[str, int], Upcast]] = {
    ("event", 1): _body_2,
    ("command", 1): _body_2,
    ("snapshot", 1): _body_2,
    ("task", 1): _task_2,
    ("event", 2): _unchanged,  # version 3 has more kinds of bodies
    ("command", 2): _command_3,
}


def upcast(
    kind: str,
    version: int,
    newest: int,
    record: dict[str, Any],
    steps: dict[tuple[str, int], Upcast] = UPCASTS,
) -> dict[str, Any]:
    """`record` of `version`, as `newest` would have written it."""
    for step in range(version, newest):
        record = steps[(kind, step)](record)
    return record
