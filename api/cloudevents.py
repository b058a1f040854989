"""CloudEvents 1.0 as HTTP brings them (structured, batched, binary mode), and as a Kafka record in binary mode.

Pure. Judged strictly, because an event that a listen cannot match would be waited for in vain: what is wrong is said
with its place. Data stay the very bytes that came in, as far as the mode allows that.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable
from typing import Any, Final
from urllib.parse import unquote

import msgspec
import orjson

from api.bodies import JSON
from api.errors import InvalidEvent, TooLarge
from engine.core.decide import PAYLOAD_BYTES_MAX
from engine.runtime.cloudevents import headers_of
from schemas import messages as m

STRUCTURED: Final = "application/cloudevents+json"
BATCH: Final = "application/cloudevents-batch+json"
_VERSION: Final = "1.0"
_NAME: Final = re.compile(r"[a-z0-9]{1,64}")
_TIME: Final = re.compile(
    r"\d{4}-(0\d|1[0-2])-([0-2]\d|3[01])[Tt]([01]\d|2[0-3]):[0-5]\d:([0-5]\d|60)(\.\d+)?([Zz]|[+-]\d{2}:\d{2})"
)
_TEXT_LENGTH_MAX: Final = 4096
_REQUIRED: Final = ("id", "source", "type")
_OPTIONAL: Final = ("subject", "time", "datacontenttype", "dataschema")
_RAW: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])
_RAWS: Final = msgspec.json.Decoder(list[msgspec.Raw])


def read(headers: Iterable[tuple[str, str]], media_type: str, body: bytes) -> list[m.CloudEvent]:
    """The events of a request, at least one. `headers` are lower case. Raises InvalidEvent or TooLarge."""
    if media_type == BATCH:
        return _batch(body)
    if media_type == STRUCTURED:
        return [_structured(body, "")]
    return [_binary(headers, body)]


# -- structured -----------------------------------------------------------------------------------------------------


def _batch(body: bytes) -> list[m.CloudEvent]:
    try:
        raws = _RAWS.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as problem:
        raise InvalidEvent(f"Expected a JSON array of events but {_said(problem)}") from None
    if not raws:
        raise InvalidEvent("Expected at least one event but the array is empty")
    return [_structured(bytes(raw), f"/{number}") for number, raw in enumerate(raws)]


def _structured(body: bytes, place: str) -> m.CloudEvent:
    try:
        members = {name: bytes(raw) for name, raw in _RAW.decode(body).items()}
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as problem:
        raise InvalidEvent(
            f"Expected an event as a JSON object but {_said(problem)}{_at(place)}", place
        ) from None
    data, encoded = members.pop("data", None), members.pop("data_base64", None)
    if data is not None and encoded is not None:
        raise InvalidEvent(f"Expected data or data_base64 but found both{_at(place)}", place)
    attributes = {
        name: value
        for name, raw in members.items()
        if (value := _attribute(name, raw, f"{place}/{name}")) is not None
    }
    kind = attributes.get("datacontenttype", JSON)
    if encoded is not None:
        found = _decoded(encoded, place)
    elif data is None or data == b"null":
        found = None
    elif is_json(kind) or data[:1] != b'"':
        found = data
    else:
        found = msgspec.json.decode(data, type=str).encode()
    if found is not None and encoded is None:
        attributes.setdefault("datacontenttype", JSON)
    return _event(attributes, found, place)


def _attribute(name: str, raw: bytes, place: str) -> str | None:
    """An attribute's canonical text; None for null, which the specification treats as absent."""
    try:
        value: Any = msgspec.json.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError) as problem:
        raise InvalidEvent(f"Expected JSON but {_said(problem)} at {place}", place) from None
    match value:
        case None | str():
            return value
        case bool():
            return "true" if value else "false"
        case int() if -(2**31) <= value < 2**31:
            return str(value)
    raise InvalidEvent(
        f"Expected attribute {name} to be a text, an integer of 32 bits or a boolean but found {type(value).__name__} "
        f"at {place}",
        place,
    )


def _decoded(raw: bytes, place: str) -> bytes:
    try:
        return base64.b64decode(msgspec.json.decode(raw, type=str), validate=True)
    except (msgspec.DecodeError, binascii.Error, ValueError):
        raise InvalidEvent(
            f"Expected data_base64 to be Base64 but it is not{_at(place)}", f"{place}/data_base64"
        ) from None


# -- binary ---------------------------------------------------------------------------------------------------------


def _binary(headers: Iterable[tuple[str, str]], body: bytes) -> m.CloudEvent:
    attributes: dict[str, str] = {}
    for name, value in headers:
        if name.startswith("ce-"):
            attributes[name.removeprefix("ce-")] = _unquoted(name, value)
        elif name == "content-type":
            attributes["datacontenttype"] = value
    if "specversion" not in attributes:
        raise InvalidEvent(
            f"Expected an event: {STRUCTURED}, {BATCH}, or the headers ce-specversion, ce-id, ce-source and ce-type "
            "but found none of these"
        )
    return _event(attributes, body or None, "")


def _unquoted(name: str, value: str) -> str:
    try:
        return unquote(value, errors="strict")
    except UnicodeDecodeError:
        raise InvalidEvent(
            f"Expected header {name[:100]} to be percent-encoded UTF-8 but it is not"
        ) from None


# -- all ------------------------------------------------------------------------------------------------------------


def _event(attributes: dict[str, str], data: bytes | None, place: str) -> m.CloudEvent:
    version = attributes.pop("specversion", None)
    if version != _VERSION:
        raise InvalidEvent(
            f"Expected specversion {_VERSION} but found {_found(version)}{_at(place)}", f"{place}/specversion"
        )
    for name in _REQUIRED:
        if not attributes.get(name):
            raise InvalidEvent(
                f"Expected attribute {name} but it is missing or empty{_at(place)}", f"{place}/{name}"
            )
    for name, value in attributes.items():
        _check(name, value, f"{place}/{name}")
    kind = attributes.get("datacontenttype")
    if data is not None:
        _check_data(kind, data, place)
    known = {name: attributes.pop(name, None) for name in (*_REQUIRED, *_OPTIONAL)}
    return m.CloudEvent(**known, extensions=attributes, data=data)  # type: ignore[arg-type]


def _check(name: str, value: str, place: str) -> None:
    if _NAME.fullmatch(name) is None:
        raise InvalidEvent(
            f"Expected attributes' names of a-z and 0-9 but found {name[:100]!r} at {place[:200]}",
            place[:200],
        )
    if len(value) > _TEXT_LENGTH_MAX or any(ord(c) < 0x20 or 0x7F <= ord(c) < 0xA0 for c in value):
        raise InvalidEvent(
            f"Expected attribute {name} to be at most {_TEXT_LENGTH_MAX} printable characters but it is not at {place}",
            place,
        )
    if name == "time" and _TIME.fullmatch(value) is None:
        raise InvalidEvent(f"Expected time as RFC 3339 has it but found {value[:100]!r} at {place}", place)


def _check_data(kind: str | None, data: bytes, place: str) -> None:
    if len(data) > PAYLOAD_BYTES_MAX:
        raise TooLarge(
            f"Expected data of at most {PAYLOAD_BYTES_MAX} bytes but found {len(data)}{_at(place)}",
            slug="payload-too-large",
        )
    if is_json(kind or JSON):
        try:
            orjson.loads(data)
        except orjson.JSONDecodeError as problem:
            raise InvalidEvent(
                f"Expected data in JSON but {_said(problem)}{_at(place)}", f"{place}/data"
            ) from None


def is_json(media_type: str) -> bool:
    plain = media_type.partition(";")[0].strip().lower()
    return plain == JSON or plain.endswith("+json") or plain == "text/json"


def _said(problem: Exception) -> str:
    text = str(problem).replace("`", "") or type(problem).__name__
    return text[:1].lower() + text[1:]


def _found(value: str | None) -> str:
    return "none" if value is None else repr(value[:100])


def _at(place: str) -> str:
    return f" at {place}" if place else ""


# -- as a record ----------------------------------------------------------------------------------------------------


def record_of(event: m.CloudEvent) -> tuple[str, bytes | None, list[tuple[str, bytes]]]:
    """Key, value and headers (Kafka protocol binding, binary mode). One subject's events stay in their order."""
    headers = [
        (name, value.encode() if isinstance(value, str) else value)
        for name, value in headers_of(event)
        if value is not None
    ]
    key = event.extensions.get("partitionkey") or event.subject or event.source
    return key, event.data, headers
