"""CloudEvents as records of inbox and outbox, and in their JSON format, which is what expressions read.

Understood are Avro records of this contract, the JSON format (content type application/cloudevents+json) and binary
mode (headers ce_*, the value is the data); written is binary mode. What is none of these raises Undecodable.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from typing import Any, Final

import orjson

from schemas import messages as m
from schemas.codec import Undecodable, decode_cloudevent

Header = tuple[str, str | bytes | None]

_JSON: Final = "application/json"
_STRUCTURED: Final = "application/cloudevents+json"
_VERSION: Final = "1.0"
_PREFIX: Final = "ce_"
_REQUIRED: Final = ("id", "source", "type")
_OPTIONAL: Final = ("subject", "time", "datacontenttype", "dataschema")


def headers_of(event: m.CloudEvent) -> list[Header]:
    """Of a record in binary mode (CloudEvents' Kafka protocol binding)."""
    attributes: dict[str, str | None] = {
        "specversion": _VERSION,
        "id": event.id,
        "source": event.source,
        "type": event.type,
        "subject": event.subject,
        "time": event.time,
        "dataschema": event.dataschema,
        **event.extensions,
    }
    headers: list[Header] = [
        (_PREFIX + name, value.encode()) for name, value in attributes.items() if value is not None
    ]
    if event.datacontenttype is not None:
        headers.append(("content-type", event.datacontenttype.encode()))
    return headers


def document_of(value: bytes | None, headers: Mapping[str, Any]) -> dict[str, Any]:
    """The event of a record in the JSON format. Raises Undecodable."""
    kind = _text(headers.get("content-type")) or ""
    if kind.partition(";")[0].strip().lower() == _STRUCTURED:
        return _structured(value)
    names = [name for name in headers if name.lower().startswith(_PREFIX)]
    if names:
        attributes = {name[len(_PREFIX) :].lower(): _text(headers[name]) for name in names}
        if kind:
            attributes["datacontenttype"] = kind
        return _with_data(attributes, value, kind or _JSON)
    if value is None:
        raise Undecodable("no-event", "Expected a CloudEvent but found a record without a value")
    fingerprint = headers.get("schema")
    event = decode_cloudevent(value, fingerprint if isinstance(fingerprint, bytes) else None)
    attributes = {"specversion": _VERSION, **event.extensions}
    for name in (*_REQUIRED, *_OPTIONAL):
        attributes[name] = getattr(event, name)
    return _with_data(attributes, event.data, event.datacontenttype or _JSON)


def _structured(value: bytes | None) -> dict[str, Any]:
    try:
        found = orjson.loads(value or b"")
    except orjson.JSONDecodeError as problem:
        raise Undecodable("event-not-json", f"Expected a CloudEvent in JSON but {problem}") from None
    if not isinstance(found, dict):
        raise Undecodable("event-not-json", "Expected a CloudEvent as a JSON object")
    return _checked({name: value for name, value in found.items() if value is not None or name == "data"})


def _with_data(attributes: dict[str, str | None], data: bytes | None, kind: str) -> dict[str, Any]:
    event: dict[str, Any] = {name: value for name, value in attributes.items() if value is not None}
    plain = kind.partition(";")[0].strip().lower()
    if data:
        if plain in (_JSON, "text/json") or plain.endswith("+json"):
            try:
                event["data"] = orjson.loads(data)
            except orjson.JSONDecodeError as problem:
                raise Undecodable(
                    "data-not-json", f"Expected the event's data in JSON but {problem}"
                ) from None
        else:
            event |= _other(plain, data)
    return _checked(event)


def _other(kind: str, data: bytes) -> dict[str, Any]:
    if kind.startswith("text/") or kind.endswith("xml"):
        try:
            return {"data": data.decode()}
        except UnicodeDecodeError:
            pass
    return {"data_base64": base64.b64encode(data).decode()}


def _checked(event: dict[str, Any]) -> dict[str, Any]:
    if event.get("specversion") != _VERSION:
        raise Undecodable(
            "event-version", f"Expected specversion {_VERSION} but found {event.get('specversion')!r}"
        )
    for name in _REQUIRED:
        found = event.get(name)
        if not isinstance(found, str) or not found:
            raise Undecodable("event-attribute", f"Expected attribute {name} as text but found {found!r}")
    if "data_base64" in event:
        try:
            base64.b64decode(event["data_base64"], validate=True)
        except (binascii.Error, TypeError, ValueError):
            raise Undecodable("event-data", "Expected data_base64 to be Base64") from None
    return event


def _text(found: Any) -> str | None:
    if isinstance(found, bytes):
        try:
            return found.decode()
        except UnicodeDecodeError:
            raise Undecodable(
                "event-attribute", f"Expected UTF-8 in the headers but found {found!r}"
            ) from None
    return found if isinstance(found, str) else None
