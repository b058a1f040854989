"""The read model `history`: every event, appended and never changed. Pure.

`body` is the event's body as a JSON object whose payloads are the very bytes of the log; bytes that are not JSON (a
parked command) are base64. What a later version of the contract added is left out at its default, so that an event
has one JSON, whichever version wrote it.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from projections import restored
from projections.copying import NULL, harmless, inline, json_field, moment, words
from projections.logged import Logged, error_json
from schemas import messages as m

_encode: Final = msgspec.json.Encoder().encode
_Raw: Final = msgspec.Raw
_PAYLOADS: Final = frozenset(
    {
        "input",
        "transformed",
        "output",
        "arguments",
        "result",
        "context",
        "items",
        "progress",
        "event",
        "explanation",
    }
)
_ALWAYS: Final = frozenset({"engine_version"})
"""Written at its default, too: the first version of the contract had it, and rows of that time say so."""
_JSON: Final = frozenset({"keys"})
"""Bytes that are JSON without being payloads."""
_FIELDS: Final[dict[type, tuple[tuple[str, bool, Any], ...]]] = {
    body: tuple(
        (f.name, f.name in _PAYLOADS, None if f.name in _ALWAYS else f.default)
        for f in msgspec.structs.fields(body)
    )
    for body in m.EVENT_BODIES
}


def body_json(body: m.EventBody) -> bytes:
    """The body as JSON; members that are absent or at their default are left out. Raises Unstorable for a claim."""
    if type(body) is m.FlowRestored:
        return _encode(restored.restored(body))
    if type(body) is m.FlowRollingBack:
        return _encode(restored.rolling_back(body))
    members: dict[str, Any] = {}
    for name, is_payload, default in _FIELDS[type(body)]:
        value = getattr(body, name)
        if value is None or value == default:
            continue
        if is_payload:
            value = _Raw(inline(value))
        elif name in _JSON:
            value = _Raw(value)
        elif type(value) is m.Error:
            value = _Raw(error_json(value))
        elif name == "was_hash":
            value = value.hex()
        elif name == "subscriptions":
            value = [_subscription(one) for one in value]
        members[name] = value
    return _encode(members)


def _subscription(one: m.Subscription) -> dict[str, Any]:
    shown: dict[str, Any] = {"filter": one.filter, "key": one.key}
    if one.expected is not None:
        shown["expected"] = _Raw(one.expected)
    return shown


def line(logged: Logged) -> str:
    """The event in COPY text format, in the order of copy_history (sql/queries/writes.sql). Raises Unstorable."""
    event = logged.event
    actor, cause, task, trace = event.actor, event.cause, event.task, event.trace
    flow_id, command_id, actor_id, definition = event.flow_id, cause.command_id, actor.id, event.definition
    if harmless(f"{flow_id}{command_id}{actor_id}{definition}{task}{trace}"):
        task = NULL if task is None else task
        trace = NULL if trace is None else trace
    else:
        flow_id, command_id, actor_id = words(flow_id), words(command_id), words(actor_id)
        definition, task, trace = words(definition), words(task), words(trace)
    return (
        f"{moment(event.time)}\t{flow_id}\t{event.sequence}\t{event.kind}\t{task}\t{event.run}\t{event.attempt}\t"
        f"{actor.kind}\t{actor_id}\t{command_id}\t{cause.partition}\t{cause.offset}\t{logged.partition}\t"
        f"{logged.offset}\t{definition}\t{trace}\t{json_field(body_json(event.body))}\n"
    )
