"""A rebuilt flow as JSON and as lines for people. Pure.

Payloads are spliced as the very bytes of the log; what is no JSON (only a damaged log can hold that) is shown as text.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import msgspec
import orjson

from engine.core.evolve import FlowState
from engine.runtime.records import timestamp
from projections import history
from projections.copying import Unstorable
from projections.logged import Logged
from replay.flow import Rebuilt
from schemas import messages as m

_CUT: Final = 2000
_LAST_MOMENT: Final = 253_402_300_799_999_999  # the end of the year 9999


def document(rebuilt: Rebuilt) -> dict[str, Any]:
    """The state with its events, ready for msgspec.json.encode."""
    return {**state(rebuilt), "events": [_event(logged) for logged in rebuilt.logged]}


def state(rebuilt: Rebuilt) -> dict[str, Any]:
    """The state alone."""
    live, found, last = rebuilt.live, rebuilt.state, rebuilt.logged[-1].event
    ended = isinstance(found, m.EndedFlow)
    body = last.body
    return {
        "id": live.flow_id,
        "definition": live.definition,
        "definition_hash": live.definition_hash.hex(),
        "engine_version": live.engine_version,
        "status": found.status,
        "sequence": found.sequence,
        "events_in_log": rebuilt.events_in_log,
        "head": rebuilt.head.hex(),
        "started_at": timestamp(live.started_at),
        "updated_at": timestamp(last.time),
        "ended_at": timestamp(last.time) if ended else None,
        "waits": _waits(found),
        "parent": None if live.parent is None else _fields(live.parent),
        "deadline": _moment(live.deadline),
        "active": [] if ended else [_active(task) for task in live.active],
        "ready": [] if ended else list(live.ready),
        "compensations": [{"task": undo.task, "run": undo.run} for undo in live.compensations],
        "fate": None if live.fate is None else raw(live.fate),
        "parked": 0 if ended else len(live.parked),
        "input": raw(live.input),
        "data": raw(live.data),
        "context": raw(live.context),
        "output": raw(_inline(body.output)) if isinstance(body, m.FlowCompleted) else None,
        "error": _error(body.error) if isinstance(body, m.FlowFaulted) else None,
        "reason": _reason(rebuilt),
        "rejections": [_rejection(refused) for refused in rebuilt.rejections],
        "until": None if rebuilt.until is None else str(rebuilt.until),
        "read": {
            "by": rebuilt.way,
            "why": rebuilt.why or None,
            "partition": rebuilt.partition,
            "records": rebuilt.records_read,
        },
    }


def lines(rebuilt: Rebuilt) -> Iterator[str]:
    shown = document(rebuilt)
    live = rebuilt.live
    later = rebuilt.events_in_log - rebuilt.state.sequence
    facts = {
        "flow": shown["id"],
        "definition": shown["definition"],
        "status": shown["status"],
        "sequence": f"{shown['sequence']}" + (f" ({later} later events in the log)" if later else ""),
        "started": shown["started_at"],
        "as of": shown["updated_at"],
        "waits": "for events, times or people alone" if shown["waits"] else None,
        "parent": None if live.parent is None else f"{live.parent.flow_id} {live.parent.task}",
        "deadline": shown["deadline"],
        "active": ", ".join(_named(task) for task in live.active) if shown["active"] else "none",
        "ready": ", ".join(shown["ready"]) or None,
        "parked": f"{shown['parked']} commands" if shown["parked"] else None,
        "input": _text(shown["input"]),
        "data": _text(shown["data"]),
        "context": _text(shown["context"]),
        "output": _text(shown["output"]),
        "error": _text(shown["error"]),
        "reason": shown["reason"],
        "head": shown["head"],
        "read": _way(rebuilt),
    }
    for name, value in facts.items():
        if value is not None:
            yield f"{name:<11} {value}"
    for refused in shown["rejections"]:
        yield f"{'refused':<11} {refused['time']} {refused['command']}: {refused['reason']}"
    yield ""
    yield f"{'#':>5} {'time':<27} {'event':<22} {'task':<32} {'run':>3} {'by':<16} why"
    for event in shown["events"]:
        actor = event["actor"]
        who = f"{actor['kind']} {actor['id']}".strip()
        run = event["run"] or ""
        yield (
            f"{event['sequence']:>5} {event['time']:<27} {event['kind']:<22} {event['task'] or '':<32} {run:>3} "
            f"{who:<16} {event['cause']['command_id']}"
        )


def raw(value: bytes) -> msgspec.Raw | str:
    """JSON bytes to be spliced as they are."""
    try:
        orjson.loads(value)
    except orjson.JSONDecodeError:
        return value.decode("utf-8", "replace")
    return msgspec.Raw(value)


def _inline(payload: m.Payload) -> bytes:
    return payload if isinstance(payload, bytes) else orjson.dumps({"claim": payload.uri})


def _way(rebuilt: Rebuilt) -> str:
    how = "by the index" if rebuilt.way == "index" else f"by a full scan of its partition, {rebuilt.why}"
    return f"from Kafka, {how}: {rebuilt.records_read} records of partition {rebuilt.partition}"


def _active(task: m.ActiveTask) -> dict[str, Any]:
    """What every task has, then what only some have."""
    some = {
        "due": _moment(task.due),
        "due_for": task.purpose if task.due else None,
        "deadline": _moment(task.deadline),
        "iteration": task.index if task.index >= 0 else None,
        "error": None if task.error is None else raw(task.error),
        "child": task.child or None,
        "queue": task.queue or None,
        "filters": [s.filter for s in task.subscriptions] or None,
        "keys": None if task.keys is None else raw(task.keys),
        "results": [{"key": r.key, "value": raw(r.value)} for r in task.results] or None,
    }
    return {
        "task": task.task,
        "run": task.run,
        "attempt": task.attempt,
        "started_at": timestamp(task.started_at),
        "input": raw(task.input),
        "data": raw(task.data),
    } | {name: value for name, value in some.items() if value is not None}


def _named(task: m.ActiveTask) -> str:
    about = [f"run {task.run}"]
    if task.attempt > 1:
        about.append(f"attempt {task.attempt}")
    if task.index >= 0:
        about.append(f"iteration {task.index}")
    if task.due:
        about.append(f"{task.purpose} until {_moment(task.due)}")
    if task.child:
        about.append(f"flow {task.child}")
    return f"{task.task} ({', '.join(about)})"


def _waits(state: FlowState) -> bool:
    """Whether a running flow waits for events, times and people, and no worker or other flow has a task of it."""
    if not isinstance(state, m.LiveFlow) or state.status != "running" or state.ready or not state.active:
        return False
    return not any(task.queue or task.child for task in state.active)


def _reason(rebuilt: Rebuilt) -> str | None:
    """Why the flow is cancelled or suspended."""
    if rebuilt.state.status not in ("cancelled", "suspended"):
        return None
    bodies = (logged.event.body for logged in reversed(rebuilt.logged))
    said = next((b for b in bodies if isinstance(b, m.FlowCancelled | m.FlowSuspended)), None)
    return None if said is None else said.reason


def _moment(microseconds: int) -> str | None:
    """When something is due; 0: never. A time no calendar can show is shown as the last one."""
    return timestamp(min(microseconds, _LAST_MOMENT)) if microseconds else None


def _fields(struct: m.Parent) -> dict[str, Any]:
    return {name: getattr(struct, name) for name in struct.__struct_fields__}


def _error(error: m.Error) -> dict[str, Any]:
    return {name: value for name in error.__struct_fields__ if (value := getattr(error, name)) is not None}


def _rejection(refused: m.Rejection) -> dict[str, Any]:
    return {
        "time": timestamp(refused.time),
        "command": refused.command,
        "code": refused.code,
        "reason": refused.reason,
        "task": refused.task,
        "command_id": refused.cause.command_id,
    }


def _event(logged: Logged) -> dict[str, Any]:
    event = logged.event
    try:
        body: Any = raw(history.body_json(event.body))
    except Unstorable as problem:
        body = str(problem)
    return {
        "sequence": event.sequence,
        "time": timestamp(event.time),
        "kind": event.kind,
        "task": event.task,
        "run": event.run,
        "attempt": event.attempt,
        "actor": {"kind": event.actor.kind, "id": event.actor.id},
        "cause": {
            "command_id": event.cause.command_id,
            "partition": event.cause.partition,
            "offset": event.cause.offset,
        },
        "partition": logged.partition,
        "offset": logged.offset,
        "body": body,
    }


def _text(value: object) -> str | None:
    if value is None:
        return None
    text = value if isinstance(value, str) else msgspec.json.encode(value).decode()
    return text if len(text) <= _CUT else f"{text[:_CUT]} … ({len(text)} characters; all with --json)"
