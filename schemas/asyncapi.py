"""The topics as an AsyncAPI 3 document: channels, messages with their Avro schemas, headers, who sends and who receives.

Pure; made from the registry, so it cannot differ from what is written. The names of topics are the engine's
(engine.runtime.topics), which this room may not import: a test compares the two.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from schemas import messages as m
from schemas.registry import Schema, newest, released

VERSION: Final = "3.0.0"
_AVRO: Final = "application/vnd.apache.avro;version=1.9.0"
_FLOW_KEY: Final = {
    "type": "string",
    "description": "flow id",
    "pattern": "^[A-Za-z0-9][A-Za-z0-9._:-]{0,127}$",
}
_A_WEEK_MS: Final = 7 * 24 * 3600 * 1000
_FOR_EVER: Final[dict[str, Any]] = {"cleanup.policy": ["delete"], "retention.ms": -1, "retention.bytes": -1}
_A_WEEK: Final[dict[str, Any]] = {"cleanup.policy": ["delete"], "retention.ms": _A_WEEK_MS}
_A_DAY: Final[dict[str, Any]] = {"cleanup.policy": ["delete"], "retention.ms": 24 * 3600 * 1000}
_COMPACTED: Final[dict[str, Any]] = {"cleanup.policy": ["compact"]}
_CLOUDEVENTS: Final = ("cloudevent", "cloudEventBinary", "cloudEventStructured")

# topic without prefix -> (what it is for, its messages, its configuration, what this application does with it)
TOPICS: Final[Mapping[str, tuple[str, tuple[str, ...], dict[str, Any], tuple[str, ...]]]] = {
    "commands": ("Requests: what somebody asks for", ("command",), _A_WEEK, ("receive",)),
    "events": (
        "The log: events and refused commands. Read it read_committed; offsets have gaps where transactions end",
        ("event", "rejection"),
        _FOR_EVER,
        ("send",),
    ),
    "tasks.{queue}": ("Next steps for the workers of one queue", ("task",), _A_WEEK, ("send",)),
    "cancellations": (
        "Tasks that the workers of their queue need not go on with",
        ("cancellation",),
        _A_DAY,
        ("send",),
    ),
    "inbox": (
        "CloudEvents for flows that listen and schedules that start flows. Every emitted event comes here too",
        _CLOUDEVENTS,
        _A_WEEK,
        ("send", "receive"),
    ),
    "outbox": ("CloudEvents that flows emitted", ("cloudEventBinary",), _A_WEEK, ("send",)),
    "definitions": ("Every version of every definition", ("definition",), _COMPACTED, ("send", "receive")),
    "state": ("A cache of the log, of no concern to others", ("snapshot",), _COMPACTED, ("send", "receive")),
    "commands.dlq": ("Commands that could not be read", ("deadLetter",), _FOR_EVER, ("send",)),
}

_BYTES: Final = {"type": "string", "contentEncoding": "base64"}
_CE_HEADERS: Final[dict[str, Any]] = {
    "content-type": {"type": "string", "description": "of the data"},
    "ce_specversion": {"const": "1.0"},
    "ce_id": {"type": "string"},
    "ce_source": {"type": "string"},
    "ce_type": {"type": "string"},
    "ce_subject": {"type": "string"},
    "ce_time": {"type": "string", "format": "date-time"},
    "ce_dataschema": {"type": "string"},
}
_TRACE: Final = {"traceparent": {"type": "string", "description": "W3C trace context, when there is one"}}


def document(
    prefix: str = "flowtrail.", partitions: int = 8, kafka: str | None = None, version: str = ""
) -> dict[str, Any]:
    """`kafka` is host:port of a broker; without it the document names no server."""
    described: dict[str, Any] = {
        "asyncapi": VERSION,
        "id": "urn:flowtrail",
        "info": {
            "title": "Flowtrail",
            "version": version or str(newest("event").version),
            "description": "Every record is Avro in Confluent's framing (00, four-byte schema id, datum) with the "
            "header `schema`, and keyed so that one flow lies in one partition of every topic (murmur2).",
            "license": {"name": "Apache-2.0"},
        },
        "defaultContentType": "application/avro",
        "channels": {_channel_id(topic): _channel(prefix, topic, partitions) for topic in TOPICS},
        "operations": _operations(),
        "components": {"messages": _messages()},
    }
    if kafka is not None:
        described["servers"] = {
            "kafka": {
                "host": kafka.partition(",")[0],
                "protocol": "kafka",
                "description": "One broker to begin with",
            }
        }
    return described


def _channel_id(topic: str) -> str:
    return {"tasks.{queue}": "tasks", "commands.dlq": "deadLetters"}.get(topic, topic)


def _channel(prefix: str, topic: str, partitions: int) -> dict[str, Any]:
    about, names, configuration, _ = TOPICS[topic]
    channel: dict[str, Any] = {
        "address": prefix + topic,
        "description": about,
        "messages": {name: {"$ref": f"#/components/messages/{name}"} for name in names},
        "bindings": {
            "kafka": {
                "partitions": partitions,
                "topicConfiguration": configuration,
                "bindingVersion": "0.5.0",
            }
        },
    }
    if "{queue}" in topic:
        about_queue = (
            "a queue's name, such as default; with .high or .low behind it for tasks of that priority"
        )
        channel["parameters"] = {"queue": {"description": about_queue}}
    return channel


def _operations() -> dict[str, Any]:
    operations: dict[str, Any] = {}
    for topic, (about, names, _, actions) in TOPICS.items():
        channel = _channel_id(topic)
        for action in actions:
            operations[f"{action}{channel[0].upper()}{channel[1:]}"] = {
                "action": action,
                "channel": {"$ref": f"#/channels/{channel}"},
                "summary": about.partition(".")[0],
                "messages": [{"$ref": f"#/channels/{channel}/messages/{name}"} for name in names],
            }
    return operations


# -- messages -------------------------------------------------------------------------------------------------------


def _messages() -> dict[str, Any]:
    found = {kind: _message(newest(kind)) for kind in sorted({schema.kind for schema in released()})}
    found["cloudEventBinary"] = {
        "name": "CloudEventBinary",
        "title": "A CloudEvent in binary mode: attributes are headers, the value is the data",
        "contentType": "application/json",
        "headers": _headers(_CE_HEADERS, ("ce_specversion", "ce_id", "ce_source", "ce_type")),
        "payload": {"description": "the data, in the form that content-type says"},
    }
    found["cloudEventStructured"] = {
        "name": "CloudEventStructured",
        "title": "A CloudEvent in structured mode: the value is its JSON format",
        "contentType": "application/cloudevents+json",
        "headers": _headers({"content-type": {"const": "application/cloudevents+json"}}),
        "payload": {"type": "object", "required": ["specversion", "id", "source", "type"]},
    }
    found["deadLetter"] = {
        "name": "DeadLetter",
        "title": "The original key and value of a command that could not be read",
        "contentType": "application/octet-stream",
        "headers": _headers(
            {
                "src.topic": {"type": "string"},
                "src.partition": {"type": "string"},
                "src.offset": {"type": "string"},
                "error.code": {"type": "string", "description": "a stable word for programs"},
                "error.message": {"type": "string", "description": "Expected ... but ..."},
            }
        ),
        "payload": {"type": "string", "description": "the bytes as they came"},
    }
    return found


def _message(schema: Schema) -> dict[str, Any]:
    raw = json.loads(schema.text)
    message = {
        "name": schema.name,
        "title": raw["name"],
        "summary": raw.get("doc", ""),
        "contentType": "application/avro",
        "headers": _schema_headers(schema),
        "payload": {"schemaFormat": _AVRO, "schema": raw},
        "bindings": {
            "kafka": {
                "key": _key_of(schema.kind),
                "schemaIdLocation": "payload",
                "schemaIdPayloadEncoding": "confluent",
                "bindingVersion": "0.5.0",
            }
        },
    }
    if schema.kind in ("cancellation", "command", "event", "rejection", "task"):
        message["correlationId"] = {"location": "$message.payload#/flow_id", "description": "the flow"}
    return message


def _key_of(kind: str) -> dict[str, Any]:
    match kind:
        case "definition":
            return {"type": "string", "description": "namespace/name@version"}
        case "snapshot":
            return {"type": "string", "description": "flow id, or @position"}
        case "cloudevent":
            return {"type": "string", "description": "any; of emitted events the subject or the flow id"}
    return _FLOW_KEY


def _headers(properties: dict[str, Any], required: tuple[str, ...] = ()) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(required or properties)}


def _schema_headers(schema: Schema) -> dict[str, Any]:
    fingerprint = {
        **_BYTES,
        "description": f"CRC-64-AVRO fingerprint of the writer's schema, 8 bytes; of this one {schema.fingerprint.hex()}",
    }
    properties: dict[str, Any] = {"schema": fingerprint}
    required: tuple[str, ...] = ("schema",)
    match schema.kind:
        case "event":
            types = [name for kind, name in m.CLOUDEVENT_TYPES.items() if kind != "Rejection"]
            properties |= {
                "content-type": {"const": "application/avro"},
                "ce_specversion": {"const": "1.0"},
                "ce_id": {"type": "string", "description": "flow id, '/', sequence"},
                "ce_source": {"type": "string"},
                "ce_type": {"type": "string", "enum": types},
                "ce_time": {"type": "string", "format": "date-time"},
            }
            required = tuple(properties)
            properties |= _TRACE
        case "rejection":
            properties["content-type"] = {"const": "application/avro"}
        case "command" | "task":
            properties |= _TRACE
    return _headers(properties, required)
