"""A rebuilt flow as JSON and as lines for people. Pure.

Payloads are spliced as the very bytes of the log; what is no JSON (only a damaged log can hold that) is shown as text.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import msgspec
import orjson

from engine.runtime.records import timestamp
from projections import history
from projections.copying import Unstorable
from projections.logged import Logged
from replay.flow import Rebuilt
from schemas import messages as m

_CUT: Final = 2000


def document(rebuilt: Rebuilt) -> dict[str, Any]:
    """Ready for msgspec.json.encode."""
    live, state, last = rebuilt.live, rebuilt.state, rebuilt.logged[-1].event
    ended = isinstance(state, m.EndedFlow)
    body = last.body
    return {
        "id": live.flow_id,
        "definition": live.definition,
        "definition_hash": live.definition_hash.hex(),
        "engine_version": live.engine_version,
        "status": state.status,
        "sequence": state.sequence,
        "events_in_log": rebuilt.events_in_log,
        "head": rebuilt.head.hex(),
        "started_at": timestamp(live.started_at),
        "updated_at": timestamp(last.time),
        "ended_at": timestamp(last.time) if ended else None,
        "active": [] if ended else [_active(task) for task in live.active],
        "input": raw(live.input),
        "data": raw(live.data),
        "context": raw(live.context),
        "output": raw(_inline(body.output)) if isinstance(body, m.FlowCompleted) else None,
        "error": _error(body.error) if isinstance(body, m.FlowFaulted) else None,
        "reason": body.reason if isinstance(body, m.FlowCancelled | m.FlowSuspended) else None,
        "rejections": [_rejection(refused) for refused in rebuilt.rejections],
        "until": None if rebuilt.until is None else str(rebuilt.until),
        "read": {
            "by": rebuilt.way,
            "why": rebuilt.why or None,
            "partition": rebuilt.partition,
            "records": rebuilt.records_read,
        },
        "events": [_event(logged) for logged in rebuilt.logged],
    }


def lines(rebuilt: Rebuilt) -> Iterator[str]:
    shown = document(rebuilt)
    later = rebuilt.events_in_log - rebuilt.state.sequence
    facts = {
        "flow": shown["id"],
        "definition": shown["definition"],
        "status": shown["status"],
        "sequence": f"{shown['sequence']}" + (f" ({later} later events in the log)" if later else ""),
        "started": shown["started_at"],
        "as of": shown["updated_at"],
        "active": ", ".join(f"{t['task']} (run {t['run']})" for t in shown["active"]) or "none",
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
    yield f"{'#':>5} {'time':<27} {'event':<14} {'task':<32} {'run':>3} {'by':<16} why"
    for event in shown["events"]:
        actor = event["actor"]
        who = f"{actor['kind']} {actor['id']}".strip()
        run = event["run"] or ""
        yield (
            f"{event['sequence']:>5} {event['time']:<27} {event['kind']:<14} {event['task'] or '':<32} {run:>3} "
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
    return {
        "task": task.task,
        "run": task.run,
        "attempt": task.attempt,
        "started_at": timestamp(task.started_at),
        "input": raw(task.input),
        "data": raw(task.data),
    }


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
