"""Messages to bytes and back: Confluent framing (00, four-byte id, Avro datum).

Pure. fastavro reads everything and writes what is rare; `writing.py` and `reading.py` know the hot records. Unions are given to
fastavro as (name, record) tuples, because it then skips guessing the branch. Readers identify the writer's schema by the record header `schema` (CRC-64-AVRO fingerprint) first, because
the log must outlive any registry, then by the framing. What cannot be read raises `Undecodable`, never anything else.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from typing import Any, Final

import fastavro

from schemas import messages as m
from schemas import reading, writing
from schemas.registry import NAMESPACE, Schema, by_fingerprint, by_id, newest, released
from schemas.upcasts import upcast

SCHEMA_HEADER: Final = "schema"
_SINGLE_OBJECT: Final = b"\xc3\x01"
_writer: Final = fastavro.schemaless_writer
_reader: Final = fastavro.schemaless_reader


class Undecodable(Exception):
    """The bytes are no message of this contract. `code` for programs; the text says what was expected."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(text)
        self.code = code


# -- payloads, errors and bodies ------------------------------------------------------------------------------------

_CLAIM: Final = f"{NAMESPACE}.Claim"


def _payload_out(payload: m.Payload | None) -> dict[str, Any] | None:
    if payload is None:
        return None
    if isinstance(payload, bytes):
        return {"json": payload}
    return {"json": (_CLAIM, {"uri": payload.uri, "sha256": payload.sha256, "size": payload.size})}


def _payload_in(data: dict[str, Any] | None) -> m.Payload | None:
    if data is None:
        return None
    value = data["json"]
    return value if isinstance(value, bytes) else m.Claim(**value)


_PAYLOADS: Final = {
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


def _struct_out(value: Any) -> Any:
    return None if value is None else {name: getattr(value, name) for name in value.__struct_fields__}


def _parent_in(data: dict[str, Any] | None) -> m.Parent | None:
    return None if data is None else m.Parent(**data)


def _maybe_error_in(data: dict[str, Any] | None) -> m.Error | None:
    return None if data is None else m.Error(**data)


def _restore_out(value: m.Restore | None) -> dict[str, Any] | None:
    if value is None:
        return None
    out: dict[str, Any] = _struct_out(value)
    return out | {"data": _payload_out(value.data)}


def _restore_in(data: dict[str, Any] | None) -> m.Restore | None:
    return None if data is None else m.Restore(**data | {"data": _payload_in(data["data"])})


def _runs_in(data: list[dict[str, Any]]) -> tuple[m.ActiveRun, ...]:
    return tuple(m.ActiveRun(**item) for item in data)


def _structs_out(values: Any) -> list[Any]:
    return [_struct_out(value) for value in values]


def _subscriptions_in(data: list[dict[str, Any]]) -> tuple[m.Subscription, ...]:
    return tuple(m.Subscription(**item) for item in data)


_TRAVELS: Final[dict[str, tuple[Callable[[Any], Any] | None, Callable[[Any], Any] | None]]] = {
    **dict.fromkeys(_PAYLOADS, (_payload_out, _payload_in)),
    "error": (_struct_out, _maybe_error_in),
    "parent": (_struct_out, _parent_in),
    "subscriptions": (_structs_out, _subscriptions_in),
    "ready": (list, tuple),
    "restore": (_restore_out, _restore_in),
    "active": (_structs_out, _runs_in),
}
"""How a field of a body travels: (outwards, inwards); None leaves it as it is."""

_Plan = tuple[tuple[str, Callable[[Any], Any] | None, Callable[[Any], Any] | None], ...]


def _plan(body: type) -> _Plan:
    """How each field of a body travels: (name, outwards, inwards); None leaves it as it is."""
    fields: tuple[str, ...] = body.__struct_fields__  # type: ignore[attr-defined]
    return tuple((name, *_TRAVELS.get(name, (None, None))) for name in fields)


_BODIES: Final[dict[type, tuple[str, _Plan]]] = {
    body: (f"{NAMESPACE}.{body.__name__}", _plan(body)) for body in (*m.EVENT_BODIES, *m.COMMAND_BODIES)
}
_BODY_OF_NAME: Final[dict[str, tuple[type, _Plan]]] = {
    name: (body, plan) for body, (name, plan) in _BODIES.items()
}


def _body_out(body: Any) -> tuple[str, dict[str, Any]]:
    name, plan = _BODIES[type(body)]
    return name, {
        field: getattr(body, field) if out is None else out(getattr(body, field)) for field, out, _ in plan
    }


def _body_in(tagged: tuple[str, dict[str, Any]]) -> Any:
    name, data = tagged
    body, plan = _BODY_OF_NAME[name]
    return body(**{field: data[field] if back is None else back(data[field]) for field, _, back in plan})


# -- framing --------------------------------------------------------------------------------------------------------


def _frame(schema: Schema) -> bytes:
    return b"\0" + schema.id.to_bytes(4, "big")


def _write(schema: Schema, frame: bytes, record: dict[str, Any]) -> bytes:
    out = io.BytesIO()
    out.write(frame)
    _writer(out, schema.parsed, record)
    return out.getvalue()


def _identify(value: bytes, fingerprint: bytes | None) -> tuple[Schema, int]:
    """The writer's schema and where the datum begins."""
    if fingerprint is not None and (schema := by_fingerprint(fingerprint)) is not None:
        return schema, (10 if value[:2] == _SINGLE_OBJECT else 5)
    if len(value) > 5 and value[0] == 0:
        if (schema := by_id(int.from_bytes(value[1:5], "big"))) is not None:
            return schema, 5
        raise Undecodable(
            "unknown-schema",
            f"Expected a schema id of this contract but found {int.from_bytes(value[1:5], 'big')}",
        )
    if value[:2] == _SINGLE_OBJECT:
        if (schema := by_fingerprint(value[2:10])) is not None:
            return schema, 10
        raise Undecodable(
            "unknown-schema", f"Expected a fingerprint of this contract but found {value[2:10].hex()}"
        )
    raise Undecodable(
        "unknown-framing",
        f"Expected Confluent framing (00 and a schema id) but found {value[:8].hex() or 'nothing'}",
    )


def _read(value: bytes, fingerprint: bytes | None, kinds: Sequence[str]) -> tuple[str, dict[str, Any]]:
    schema, start = _identify(value, fingerprint)
    if schema.kind not in kinds:
        raise Undecodable(
            "unexpected-record", f"Expected a record of {' or '.join(kinds)} but found a {schema.kind}"
        )
    data = io.BytesIO(value)
    data.seek(start)
    try:
        record: Any = _reader(
            data, schema.parsed, None, return_record_name=True, return_record_name_override=True
        )
        if data.read(1):
            raise Undecodable("trailing-bytes", f"Expected the {schema.kind} to end but bytes follow it")
        latest = newest(schema.kind).version
        if schema.version != latest:
            record = upcast(schema.kind, schema.version, latest, record)
        return schema.kind, record
    except Undecodable:
        raise
    except Exception as problem:  # fastavro raises whatever it stumbles over
        raise Undecodable(
            "undecodable", f"Expected a {schema.kind} but its bytes do not decode: {type(problem).__name__}"
        ) from None


# -- events and rejections ------------------------------------------------------------------------------------------

_EVENT: Final = newest("event")
_EVENT_2: Final = next(s for s in released() if (s.kind, s.version) == ("event", 2))
"""Its bodies are the first of version 3, in the same form."""
_EVENT_FRAME: Final = _frame(_EVENT)
_REJECTION: Final = newest("rejection")
_REJECTION_FRAME: Final = _frame(_REJECTION)
_COMMAND: Final = newest("command")
_COMMAND_FRAME: Final = _frame(_COMMAND)
_TASK: Final = newest("task")
_TASK_FRAME: Final = _frame(_TASK)
_DEFINITION: Final = newest("definition")
_DEFINITION_FRAME: Final = _frame(_DEFINITION)
_SNAPSHOT: Final = newest("snapshot")
_SNAPSHOT_FRAME: Final = _frame(_SNAPSHOT)
_CANCELLATION: Final = newest("cancellation")
_CANCELLATION_FRAME: Final = _frame(_CANCELLATION)
_CLOUDEVENT: Final = newest("cloudevent")
_CLOUDEVENT_FRAME: Final = _frame(_CLOUDEVENT)


def encode_event(event: m.Event) -> bytes:
    return _EVENT_FRAME + writing.event(event)


def encoder_like(value: bytes) -> Callable[[m.Event], bytes]:
    """What encodes events under the schema of the stored event `value`: deciding an old log again gives its old bytes."""
    schema, _ = _identify(value, None)
    if schema is _EVENT:
        return encode_event
    frame = _frame(schema)
    return lambda event: _write(schema, frame, _event_out(event))


def _event_out(event: m.Event) -> dict[str, Any]:
    """Plain data for fastavro, which leaves out what the writer's schema does not know."""
    record = {name: getattr(event, name) for name in event.__struct_fields__}
    return record | {
        "event_id": event.event_id,
        "actor": _struct_out(event.actor),
        "cause": _struct_out(event.cause),
        "body": _body_out(event.body),
    }


def _event_in(record: dict[str, Any]) -> m.Event:
    return m.Event(
        flow_id=record["flow_id"],
        sequence=record["sequence"],
        time=record["time"],
        actor=m.Actor(**record["actor"]),
        cause=m.Cause(**record["cause"]),
        definition=record["definition"],
        definition_hash=record["definition_hash"],
        task=record["task"],
        run=record["run"],
        attempt=record["attempt"],
        trace=record["trace"],
        previous_hash=record["previous_hash"],
        body=_body_in(record["body"]),
    )


def encode_rejection(rejection: m.Rejection) -> bytes:
    return _write(
        _REJECTION,
        _REJECTION_FRAME,
        {
            "flow_id": rejection.flow_id,
            "time": rejection.time,
            "actor": {"kind": rejection.actor.kind, "id": rejection.actor.id},
            "cause": {
                "command_id": rejection.cause.command_id,
                "partition": rejection.cause.partition,
                "offset": rejection.cause.offset,
            },
            "command": rejection.command,
            "code": rejection.code,
            "reason": rejection.reason,
            "task": rejection.task,
            "trace": rejection.trace,
        },
    )


def decode_logged(value: bytes, fingerprint: bytes | None = None) -> m.Event | m.Rejection:
    """A record of the `events` topic. Raises Undecodable."""
    schema, start = _identify(value, fingerprint)
    usual = reading.event(value, start) if schema is _EVENT or schema is _EVENT_2 else None
    if usual is not None:
        return usual
    kind, record = _read(value, fingerprint, ("event", "rejection"))
    if kind == "event":
        return _event_in(record)
    return m.Rejection(**record | {"actor": m.Actor(**record["actor"]), "cause": m.Cause(**record["cause"])})


def decode_event(value: bytes, fingerprint: bytes | None = None) -> m.Event:
    """Raises Undecodable."""
    schema, start = _identify(value, fingerprint)
    usual = reading.event(value, start) if schema is _EVENT or schema is _EVENT_2 else None
    if usual is not None:
        return usual
    return _event_in(_read(value, fingerprint, ("event",))[1])


# -- commands and tasks ---------------------------------------------------------------------------------------------


def encode_command(command: m.Command) -> bytes:
    return _write(
        _COMMAND,
        _COMMAND_FRAME,
        {
            "command_id": command.command_id,
            "flow_id": command.flow_id,
            "time": command.time,
            "actor": {"kind": command.actor.kind, "id": command.actor.id},
            "trace": command.trace,
            "body": _body_out(command.body),
        },
    )


def decode_command(value: bytes, fingerprint: bytes | None = None) -> m.Command:
    """Raises Undecodable."""
    schema, start = _identify(value, fingerprint)
    if schema is _COMMAND and (usual := reading.command(value, start)) is not None:
        return usual
    record = _read(value, fingerprint, ("command",))[1]
    return m.Command(
        command_id=record["command_id"],
        flow_id=record["flow_id"],
        time=record["time"],
        actor=m.Actor(**record["actor"]),
        trace=record["trace"],
        body=_body_in(record["body"]),
    )


def encode_task(task: m.Task) -> bytes:
    return _TASK_FRAME + writing.task(task)


def decode_task(value: bytes, fingerprint: bytes | None = None) -> m.Task:
    record = _read(value, fingerprint, ("task",))[1]
    record["arguments"] = _payload_in(record["arguments"])
    return m.Task(**record)


# -- definitions and snapshots --------------------------------------------------------------------------------------


def encode_definition(definition: m.PublishedDefinition) -> bytes:
    record = {field: getattr(definition, field) for field in definition.__struct_fields__}
    return _write(_DEFINITION, _DEFINITION_FRAME, record)


def decode_definition(value: bytes, fingerprint: bytes | None = None) -> m.PublishedDefinition:
    return m.PublishedDefinition(**_read(value, fingerprint, ("definition",))[1])


def encode_cancellation(cancellation: m.Cancellation) -> bytes:
    return _write(_CANCELLATION, _CANCELLATION_FRAME, _struct_out(cancellation))


def decode_cancellation(value: bytes, fingerprint: bytes | None = None) -> m.Cancellation:
    return m.Cancellation(**_read(value, fingerprint, ("cancellation",))[1])


def encode_cloudevent(event: m.CloudEvent) -> bytes:
    return _write(_CLOUDEVENT, _CLOUDEVENT_FRAME, _struct_out(event))


def decode_cloudevent(value: bytes, fingerprint: bytes | None = None) -> m.CloudEvent:
    return m.CloudEvent(**_read(value, fingerprint, ("cloudevent",))[1])


def _active_in(record: dict[str, Any], flow_input: bytes) -> m.ActiveTask:
    if record["raw_input"] is None:
        record["raw_input"] = flow_input
    transformed = record["raw_input"] if record["input"] is None else record["input"]
    record["input"] = transformed
    record["data"] = transformed if record["data"] is None else record["data"]
    record["results"] = tuple(m.Result(**result) for result in record["results"])
    record["subscriptions"] = _subscriptions_in(record["subscriptions"])
    return m.ActiveTask(**record)


def encode_snapshot(body: m.Snapshot) -> bytes:
    return _SNAPSHOT_FRAME + writing.snapshot(body)


def decode_snapshot(value: bytes, fingerprint: bytes | None = None) -> m.Snapshot:
    name, record = _read(value, fingerprint, ("snapshot",))[1]["body"]
    match name.rsplit(".", 1)[1]:
        case "LiveFlow":
            record["active"] = tuple(_active_in(task, record["input"]) for task in record["active"])
            for name in ("data", "context"):
                record[name] = record["input"] if record[name] is None else record[name]
            record["parent"] = _parent_in(record["parent"])
            record["ready"] = tuple(record["ready"])
            record["compensations"] = tuple(m.Compensation(**undo) for undo in record["compensations"])
            record["parked"] = tuple(record["parked"])
            return m.LiveFlow(**record)
        case "EndedFlow":
            return m.EndedFlow(**record)
        case "Position":
            return m.Position(**record)
        case "Entity":
            return m.Entity(**record)
        case other:
            raise Undecodable("unexpected-record", f"Expected a snapshot but found a {other}")
