"""`flowtrail export`: a flow, a range or the whole log as a file, raw (JSONL, Avro) or for other tools (Parquet, XES, OCEL).

A raw export holds the records themselves, so that `flowtrail import` gives the same hashes elsewhere; it is streamed in
the order of the log. What the other forms hold is made from events; they refuse what cannot be read, raw forms copy it and
say so. The log is bounded by its ends at the start. A file is whole or not there (files.py), so an interrupted export is
run again.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, Final, Literal, Protocol, cast, get_args

import msgspec
import orjson

from engine.errors import InputError
from engine.runtime.records import timestamp
from engine.runtime.topics import DEFINITIONS, EVENTS
from replay.exported import FORMAT, ExportWriter, Head, Kept, SchemaText
from replay.files import whole_file
from replay.flow import BrokenFlow
from replay.log import Spans, read_spans, scan_messages
from replay.selection import Selection, Taken, selected, spans_of
from schemas import messages as m
from schemas.codec import Undecodable, decode_definition
from schemas.registry import Schema, by_fingerprint, by_id

Format = Literal["jsonl", "avro", "parquet", "xes", "ocel"]
FORMATS: Final[tuple[str, ...]] = get_args(Format)
Progress = Callable[[int, int], None]


class Exported(msgspec.Struct, kw_only=True):
    """What an export took. `missing` are definitions that events name and no record of the log has."""

    file: str
    format: Format
    flows: int = 0
    ended: int = 0
    events: int = 0
    rejections: int = 0
    unreadable: int = 0
    definitions: int = 0
    missing: list[str] = msgspec.field(default_factory=list)
    sha256: str | None = None


class Sink(Protocol):
    """Where taken records go. `finish` is told what was counted and completes the file."""

    def take(self, taken: Taken) -> None: ...

    def finish(self, report: Exported) -> None: ...


def parse_format(given: str | None, out: Path) -> Format:
    """The format asked for, or what the file's name says. Raises InputError."""
    name = out.suffix.removeprefix(".").lower() if given is None else given
    if name not in FORMATS:
        found = f"a file {out.name}" if given is None else repr(given)
        raise InputError(f"Expected --format to be one of {', '.join(FORMATS)} but found {found}")
    return cast(Format, name)


def export(
    servers: str,
    prefix: str,
    selection: Selection,
    form: Format,
    out: Path,
    now: int,
    progress: Progress | None = None,
) -> Exported:
    """Writes `out`. Raises InputError for a flow that is not in the log, BrokenFlow for what only a raw form can hold."""
    make = _maker(form, servers, prefix)
    spans, partitions = spans_of(servers, prefix, selection)
    head = Head(
        version=FORMAT,
        topic=prefix + EVENTS,
        partitions=partitions,
        spans={str(p): span for p, span in spans.items()},
        selection=_described(selection),
        made_at=timestamp(now),
    )
    report = Exported(file=str(out), format=form)
    with whole_file(out) as stream:
        sink = make(stream, head)
        for taken in selected(servers, prefix, selection, spans, _counting(spans, progress)):
            _count(report, taken)
            if taken.logged is None and form not in ("jsonl", "avro"):
                text = f"Expected to read every record for {form} but the one at {taken.place} is unreadable"
                raise BrokenFlow(f"{text}: {taken.problem}; jsonl and avro hold it as it is")
            sink.take(taken)
        if selection.flow_id is not None and not report.events:
            text = (
                f"Expected flow {selection.flow_id} to be in the log but {prefix}{EVENTS} has no event of it"
            )
            raise InputError(text)
        sink.finish(report)
    return report


def _described(selection: Selection) -> dict[str, str]:
    if selection.flow_id is not None:
        return {"flow": selection.flow_id}
    times = {"since": selection.since, "until": selection.until}
    return {name: timestamp(time) for name, time in times.items() if time is not None}


def _count(report: Exported, taken: Taken) -> None:
    logged = taken.logged
    if logged is None:
        report.unreadable += 1
    elif isinstance(logged, m.Rejection):
        report.rejections += 1
    else:
        report.events += 1
        report.flows += logged.sequence == 1
        report.ended += isinstance(logged.body, m.FlowCompleted | m.FlowFaulted | m.FlowCancelled)


def _counting(spans: Spans, progress: Progress | None) -> Callable[[int], None]:
    total, read = sum(end - first for first, end in spans.values()), 0

    def passed(records: int) -> None:
        nonlocal read
        read += records
        if progress is not None:
            progress(min(read, total), total)

    return passed


def _maker(form: Format, servers: str, prefix: str) -> Callable[[IO[bytes], Head], Sink]:
    """Makes the sink; what a form needs is looked for here, before anything is read or written. Raises InputError."""
    match form:
        case "xes":
            from replay.xes import Xes

            return lambda out, head: Xes(out, head.topic)
        case "ocel":
            from replay.ocel import Ocel

            return lambda out, _: Ocel(out)
        case "parquet":
            from replay.parquet import Events, pyarrow

            pyarrow()
            return lambda out, _: Events(out)
        case "jsonl" | "avro":
            return lambda out, head: RawSink(ExportWriter(out, form, head), servers, prefix)


# -- raw ------------------------------------------------------------------------------------------------------------


class RawSink:
    """Records as they lie in the log; the definitions they name are added at the end."""

    def __init__(self, writer: ExportWriter, servers: str, prefix: str) -> None:
        self._writer = writer
        self._servers = servers
        self._prefix = prefix
        self._schemas: set[bytes] = set()
        self._named: dict[str, bytes] = {}

    def take(self, taken: Taken) -> None:
        if isinstance(taken.logged, m.Event):
            self._named[taken.logged.definition] = taken.logged.definition_hash
        self._write(kept("events", taken.message))

    def finish(self, report: Exported) -> None:
        found: dict[str, Kept] = {}
        for record, definition in definitions(self._servers, self._prefix):
            if self._named.get(definition.definition) == definition.hash:
                found.setdefault(definition.definition, record)
        for name in sorted(found):
            self._write(found[name])
        report.missing = sorted(self._named.keys() - found.keys())
        report.definitions = len(found)
        report.sha256 = self._writer.finish().sha256

    def _write(self, record: Kept) -> None:
        schema = _schema_of(record)
        if schema is not None and schema.fingerprint not in self._schemas:
            self._schemas.add(schema.fingerprint)
            self._writer.write(schema_text(schema))
        self._writer.write(record)


def _schema_of(record: Kept) -> Schema | None:
    """The schema the record was written with: by its header, or else by Confluent's framing."""
    if (fingerprint := record.fingerprint) is not None:
        return by_fingerprint(fingerprint)
    value = record.value or b""
    return by_id(int.from_bytes(value[1:5], "big")) if len(value) > 5 and value[0] == 0 else None


def schema_text(schema: Schema) -> SchemaText:
    text = orjson.dumps(orjson.loads(schema.text)).decode()
    return SchemaText(schema.kind, schema.version, schema.fingerprint.hex(), text)


def kept(topic: Literal["events", "definitions"], message: Any) -> Kept:
    headers = tuple((name, _bytes(value)) for name, value in message.headers() or ())
    time = message.timestamp()[1]
    return Kept(topic, message.partition(), message.offset(), time, message.key(), message.value(), headers)


def _bytes(value: str | bytes | None) -> bytes | None:
    return value.encode() if isinstance(value, str) else value


def definitions(servers: str, prefix: str) -> list[tuple[Kept, m.PublishedDefinition]]:
    """Every readable record of the definitions topic; of a version that was published twice the first counts."""
    topic = prefix + DEFINITIONS
    found = []
    for message in scan_messages(servers, topic, read_spans(servers, topic)):
        record = kept("definitions", message)
        try:
            if record.value is not None:
                found.append((record, decode_definition(record.value, record.fingerprint)))
        except Undecodable:  # every node ignores it, too
            continue
    return found
