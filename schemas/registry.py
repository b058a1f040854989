"""Every released Avro schema, found by kind and version, by fingerprint, or by registry id.

A released file under `avro/` is never edited: its CRC-64-AVRO fingerprint (Avro specification, "Schema
Fingerprints") is what the log's records name, and the log outlives any registry. The id of Confluent's framing is
the first four bytes of that fingerprint with the sign bit cleared, so that it needs no registry to hand it out.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any, Final

import fastavro
from fastavro.schema import fingerprint, to_parsing_canonical_form

NAMESPACE: Final = "io.flowtrail.v1"

# kind -> topic's name without prefix; the registry's subject is "<topic>-value" (TopicNameStrategy) or the record's name
TOPIC_OF_KIND: Final[dict[str, str]] = {
    "event": "events",
    "rejection": "events",
    "command": "commands",
    "task": "tasks",
    "definition": "definitions",
    "snapshot": "state",
    "cancellation": "cancellations",
    "cloudevent": "inbox",
}


@dataclass(frozen=True, slots=True)
class Schema:
    kind: str
    version: int
    text: str
    parsed: Any
    fingerprint: bytes

    @property
    def id(self) -> int:
        """The id of Confluent's framing, 1 ... 2**31 - 1."""
        return int.from_bytes(self.fingerprint[:4], "big") & 0x7FFFFFFF

    @property
    def name(self) -> str:
        return str(self.parsed["name"])


def load(text: str, kind: str, version: int) -> Schema:
    raw = json.loads(text)
    canonical = to_parsing_canonical_form(raw)
    return Schema(
        kind=kind,
        version=version,
        text=text,
        parsed=fastavro.parse_schema(raw),
        fingerprint=bytes.fromhex(fingerprint(canonical, "CRC-64-AVRO")),
    )


@cache
def released() -> tuple[Schema, ...]:
    """All released schemas, by kind, then version."""
    found = []
    for file in resources.files("schemas").joinpath("avro").iterdir():
        if file.name.endswith(".avsc"):
            kind, version = file.name.removesuffix(".avsc").rsplit("-v", 1)
            found.append(load(file.read_text("utf-8"), kind, int(version)))
    return tuple(sorted(found, key=lambda schema: (schema.kind, schema.version)))


@cache
def newest(kind: str) -> Schema:
    return max((s for s in released() if s.kind == kind), key=lambda s: s.version)


@cache
def _by_fingerprint() -> dict[bytes, Schema]:
    return {s.fingerprint: s for s in released()}


@cache
def _by_id() -> dict[int, Schema]:
    return {s.id: s for s in released()}


def by_fingerprint(value: bytes) -> Schema | None:
    return _by_fingerprint().get(value)


def by_id(value: int) -> Schema | None:
    return _by_id().get(value)
