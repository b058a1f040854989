"""The file of a raw export: records of the log as they lie there, with what is needed to read and to check them.

Entries in order: one `Head`, then each schema before the first record written with it, records, definitions, one `Tail`
whose SHA-256 covers every entry before it. As JSONL an entry is a line (bytes in base64); as Avro container the head is
metadata (`flowtrail.export`). Invariant: both forms hold the same entries and give the same digest, and a file that was
cut, changed or is no export is refused with its place. Kafka is not known here.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, Final, Literal, Protocol

import fastavro
import msgspec
from fastavro.write import Writer as AvroWriter

from engine.errors import InputError
from schemas.registry import NAMESPACE

FORMAT: Final = 1
METADATA: Final = "flowtrail.export"
_AVRO_MAGIC: Final = b"Obj\x01"
_LINE_MAX: Final = 64 << 20


class Head(msgspec.Struct, frozen=True, tag_field="entry", tag="export"):
    """Where the records were read: `spans` are [first, end) of each partition; `selection` says which were asked for."""

    version: int
    topic: str
    partitions: int
    spans: dict[str, tuple[int, int]]
    selection: dict[str, str]
    made_at: str


class SchemaText(msgspec.Struct, frozen=True, tag_field="entry", tag="schema"):
    """A writer's schema. `fingerprint` is its CRC-64-AVRO in hexadecimal, as the records' header `schema` has it."""

    kind: str
    version: int
    fingerprint: str
    text: str


class Kept(msgspec.Struct, frozen=True, tag_field="entry", tag="record"):
    """A record as it lies in Kafka. `topic` is without prefix, `time` Kafka's own in milliseconds."""

    topic: Literal["events", "definitions"]
    partition: int
    offset: int
    time: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes | None], ...]

    @property
    def place(self) -> str:
        return f"{self.topic} partition {self.partition}, offset {self.offset}"

    @property
    def fingerprint(self) -> bytes | None:
        return dict(self.headers).get("schema")


class Tail(msgspec.Struct, frozen=True, tag_field="entry", tag="end"):
    records: int
    definitions: int
    sha256: str


Entry = Head | SchemaText | Kept | Tail

_encode: Final = msgspec.json.Encoder().encode
_decoder: Final = msgspec.json.Decoder(Entry)

_AVRO: Final[dict[str, Any]] = {
    "type": "record",
    "name": "ExportEntry",
    "namespace": NAMESPACE,
    "fields": [
        {
            "name": "schema",
            "type": [
                "null",
                {
                    "type": "record",
                    "name": "ExportedSchema",
                    "fields": [
                        {"name": "kind", "type": "string"},
                        {"name": "version", "type": "int"},
                        {"name": "fingerprint", "type": "string"},
                        {"name": "text", "type": "string"},
                    ],
                },
            ],
        },
        {
            "name": "record",
            "type": [
                "null",
                {
                    "type": "record",
                    "name": "ExportedRecord",
                    "fields": [
                        {"name": "topic", "type": "string"},
                        {"name": "partition", "type": "int"},
                        {"name": "offset", "type": "long"},
                        {"name": "time", "type": "long"},
                        {"name": "key", "type": ["null", "bytes"]},
                        {"name": "value", "type": ["null", "bytes"]},
                        {
                            "name": "headers",
                            "type": {
                                "type": "array",
                                "items": {
                                    "type": "record",
                                    "name": "ExportedHeader",
                                    "fields": [
                                        {"name": "name", "type": "string"},
                                        {"name": "value", "type": ["null", "bytes"]},
                                    ],
                                },
                            },
                        },
                    ],
                },
            ],
        },
        {
            "name": "end",
            "type": [
                "null",
                {
                    "type": "record",
                    "name": "ExportEnd",
                    "fields": [
                        {"name": "records", "type": "long"},
                        {"name": "definitions", "type": "long"},
                        {"name": "sha256", "type": "string"},
                    ],
                },
            ],
        },
    ],
}


# -- writing --------------------------------------------------------------------------------------------------------


class _Form(Protocol):
    """One of the two forms of the file."""

    def write(self, entry: SchemaText | Kept | Tail, encoded: bytes) -> None: ...

    def finish(self) -> None: ...


class _Lines:
    def __init__(self, out: IO[bytes], head: bytes) -> None:
        self._out = out
        self._out.write(head + b"\n")

    def write(self, entry: SchemaText | Kept | Tail, encoded: bytes) -> None:
        self._out.write(encoded + b"\n")

    def finish(self) -> None:
        pass


class _Container:
    def __init__(self, out: IO[bytes], head: bytes) -> None:
        schema = fastavro.parse_schema(_AVRO)
        self._writer: Any = AvroWriter(out, schema, codec="deflate", metadata={METADATA: head.decode()})

    def write(self, entry: SchemaText | Kept | Tail, encoded: bytes) -> None:
        fields = {name: getattr(entry, name) for name in entry.__struct_fields__}
        if isinstance(entry, Kept):
            fields["headers"] = [{"name": name, "value": value} for name, value in entry.headers]
        name = {SchemaText: "schema", Kept: "record", Tail: "end"}[type(entry)]
        self._writer.write({"schema": None, "record": None, "end": None, name: fields})

    def finish(self) -> None:
        self._writer.flush()


class ExportWriter:
    """Writes entries, counts them, and ends the file by `finish`, which gives the tail."""

    def __init__(self, out: IO[bytes], form: Literal["jsonl", "avro"], head: Head) -> None:
        encoded = _encode(head)
        self._digest = hashlib.sha256(encoded)
        self._form: _Form = _Container(out, encoded) if form == "avro" else _Lines(out, encoded)
        self._counts = {"events": 0, "definitions": 0}

    def write(self, entry: SchemaText | Kept) -> None:
        encoded = _encode(entry)
        self._digest.update(encoded)
        self._form.write(entry, encoded)
        if isinstance(entry, Kept):
            self._counts[entry.topic] += 1

    def finish(self) -> Tail:
        tail = Tail(self._counts["events"], self._counts["definitions"], self._digest.hexdigest())
        self._form.write(tail, _encode(tail))
        self._form.finish()
        return tail


# -- reading --------------------------------------------------------------------------------------------------------


def read_export(path: Path) -> Iterator[tuple[str, Entry]]:
    """Every entry with its place in the file. Raises InputError where the file is no whole, unchanged export.

    What is wrong at the end is known at the end only: read once to check before believing anything.
    """
    try:
        with path.open("rb") as stream:
            magic = stream.read(len(_AVRO_MAGIC))
            stream.seek(0)
            entries = _from_container(stream, path) if magic == _AVRO_MAGIC else _from_lines(stream, path)
            yield from _checked(entries, path)
    except OSError as problem:
        raise InputError(f"Expected an export at {path} but {problem.strerror or problem}") from None


def _checked(entries: Iterator[tuple[str, Entry]], path: Path) -> Iterator[tuple[str, Entry]]:
    counts = {"events": 0, "definitions": 0}
    digest = hashlib.sha256()
    tail: Tail | None = None
    for number, (place, entry) in enumerate(entries):
        if tail is not None:
            raise InputError(f"Expected the export to end but {place} follows its end")
        if isinstance(entry, Head) != (number == 0):
            found = "a second head" if number else f"an entry {type(entry).__name__}"
            raise InputError(f"Expected an export to begin with its head and have one but {place} is {found}")
        if isinstance(entry, Head) and entry.version != FORMAT:
            raise InputError(f"Expected an export of form {FORMAT} but {path} has form {entry.version}")
        if isinstance(entry, Tail):
            tail = entry
            if (entry.records, entry.definitions) != (counts["events"], counts["definitions"]):
                text = f"{counts['events']} records and {counts['definitions']} definitions"
                raise InputError(
                    f"Expected {entry.records} records and {entry.definitions} definitions but {path} holds {text}"
                )
            if entry.sha256 != digest.hexdigest():
                raise InputError(
                    f"Expected {path} to have the SHA-256 {entry.sha256} over its entries but it was changed"
                )
        else:
            digest.update(_encode(entry))
            if isinstance(entry, Kept):
                counts[entry.topic] += 1
        yield place, entry
    if tail is None:
        raise InputError(f"Expected {path} to be a whole export but its end is missing")


def _from_lines(stream: IO[bytes], path: Path) -> Iterator[tuple[str, Entry]]:
    number = 0
    while line := stream.readline(_LINE_MAX):
        number += 1
        place = f"line {number} of {path}"
        try:
            yield place, _decoder.decode(line)
        except (msgspec.MsgspecError, UnicodeDecodeError) as problem:
            if number == 1:
                text = f"Expected an export of Flowtrail in {path} but its first line is no head of one"
                raise InputError(f"{text}: {problem}") from None
            raise InputError(f"Expected an entry of an export in {place} but {problem}") from None


def _from_container(stream: IO[bytes], path: Path) -> Iterator[tuple[str, Entry]]:
    number = 0
    try:
        container: Any = fastavro.reader(stream)
        head = container.metadata.get(METADATA)
        if head is None:
            raise InputError(f"Expected an export of Flowtrail in {path} but its metadata lack {METADATA}")
        yield f"the head of {path}", _decoder.decode(head)
        for found in container:
            number += 1
            yield f"entry {number} of {path}", _entry(found)
    except InputError:
        raise
    except Exception as problem:  # fastavro answers damaged bytes with many kinds of errors
        text = str(problem) or type(problem).__name__
        raise InputError(f"Expected an Avro container after entry {number} of {path} but {text}") from None


def _entry(found: dict[str, Any]) -> Entry:
    if (schema := found["schema"]) is not None:
        return SchemaText(**schema)
    if (end := found["end"]) is not None:
        return Tail(**end)
    record = found["record"]
    if record is None or record["topic"] not in ("events", "definitions"):
        raise InputError(f"Expected an entry of an export but found {json.dumps(found, default=str)[:200]}")
    headers = tuple((header["name"], header["value"]) for header in record["headers"])
    return Kept(**record | {"headers": headers})


def encoded_size(entry: Kept) -> int:
    """About how many bytes of Kafka's a record takes."""
    return len(entry.value or b"") + len(entry.key or b"") + 200
