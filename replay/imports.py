"""`flowtrail import`: a raw export's records written to the events topic of another installation, byte for byte.

The file is read twice: first whole, to check it and what the installation holds, then to write. Nothing is written unless
everything fits. Every written record carries the export's id (its SHA-256) and its number in headers beside the original
ones, so an import that was interrupted goes on where its last transaction ended, and a finished one writes nothing.

What is imported is history: engines skip it (engine/runtime/restore.py), because its causes are commands of another
installation. Invariant: values and keys are the bytes of the export, so hashes are the same and `replay verify` decides
them again alike, whatever the number of partitions. Memory: an id and a hash a flow of the export.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import msgspec
import orjson

from engine.core.decide import FLOW_ID
from engine.core.evolve import digest
from engine.dsl.compile import compile_definition
from engine.dsl.errors import DefinitionError
from engine.errors import InputError
from engine.runtime import kafka
from engine.runtime.records import IMPORT_HEADER
from engine.runtime.topics import DEFINITIONS, EVENTS, partition_of
from replay.export import definitions
from replay.exported import Head, Kept, SchemaText, Tail, encoded_size, read_export
from replay.log import read_spans, scan_messages
from replay.sending import Outgoing, Sender
from schemas import messages as m
from schemas.codec import Undecodable, decode_definition, decode_logged
from schemas.registry import by_fingerprint

NUMBER_HEADER: Final = "import.number"
_OWN_HEADERS: Final = frozenset({IMPORT_HEADER, NUMBER_HEADER, "src.topic", "src.partition", "src.offset"})
_RECORDS_MAX: Final = 1000
_BYTES_MAX: Final = 4 << 20
_TIME_END: Final = 2**53
Progress = Callable[[int, int], None]


class Imported(msgspec.Struct, kw_only=True):
    """`written` counts records of this run, `there` those an earlier run had written, `live` the flows without an end."""

    file: str
    import_id: str
    flows: int
    live: int
    records: int
    written: int = 0
    there: int = 0
    definitions: int = 0


class _Flow(msgspec.Struct):
    sequence: int
    head: bytes
    ended: bool


class _Checked(msgspec.Struct):
    """What the file holds, found whole and fit to be imported."""

    head: Head
    tail: Tail
    flows: dict[str, _Flow]
    keys: set[bytes]
    named: dict[str, bytes]
    definitions: dict[str, tuple[Kept, bytes]]
    scheduled: list[str]


def import_file(
    servers: str, prefix: str, path: Path, *, schedules: bool = False, progress: Progress | None = None
) -> Imported:
    """Raises InputError when the file is no whole export, or what it holds is already there from elsewhere."""
    checked = check(path)
    partitions = len(read_spans(servers, prefix + EVENTS))
    report = Imported(
        file=str(path),
        import_id=checked.tail.sha256,
        flows=len(checked.flows),
        live=sum(not flow.ended for flow in checked.flows.values()),
        records=checked.tail.records,
    )
    # an import that still runs is fenced first, so that it adds nothing to what is looked at now
    with Sender(servers, f"{prefix}import") as sender:
        missing = _missing_definitions(servers, prefix, checked)
        _check_schedules(checked, missing, schedules)
        report.there = _already_there(servers, prefix, checked)
        report.definitions = len(missing)
        sender.write([_definition(prefix, name, record) for name, record in sorted(missing.items())])
        for batch in _batches(path, report.there):
            sender.write([_placed(prefix, checked, number, record, partitions) for number, record in batch])
            report.written += len(batch)
            if progress is not None:
                progress(report.there + report.written, checked.tail.records)
    return report


# -- the file -------------------------------------------------------------------------------------------------------


def check(path: Path) -> _Checked:
    """Reads the whole file. Raises InputError where it cannot be imported, with the place."""
    head: Head | None = None
    tail: Tail | None = None
    found: _Checked | None = None
    for place, entry in read_export(path):
        match entry:
            case Head():
                head = entry
                found = _Checked(head, Tail(0, 0, ""), {}, set(), {}, {}, [])
            case SchemaText():
                _check_schema(entry, place)
            case Kept(topic="definitions"):
                assert found is not None
                _check_definition(found, entry, place)
            case Kept():
                assert found is not None
                _check_record(found, entry, place)
            case Tail():
                tail = entry
    assert found is not None  # read_export gives a head first and a tail last, or raises
    assert tail is not None
    found.tail = tail
    return found


def _check_schema(schema: SchemaText, place: str) -> None:
    try:
        known = by_fingerprint(bytes.fromhex(schema.fingerprint))
    except ValueError:
        raise InputError(f"Expected a fingerprint in hexadecimal at {place} but it is none") from None
    if known is None:
        raise InputError(
            f"Expected a schema this version knows but {place} is version {schema.version} of {schema.kind} "
            f"({schema.fingerprint}); import it with a newer Flowtrail"
        )


def _check_definition(found: _Checked, record: Kept, place: str) -> None:
    try:
        published = decode_definition(record.value or b"", record.fingerprint)
        document = orjson.loads(published.document)
        if not isinstance(document, dict):
            raise InputError(f"Expected a definition at {place} but its document is no object")
        compiled = compile_definition(document)
    except (Undecodable, DefinitionError, orjson.JSONDecodeError) as problem:
        raise InputError(f"Expected a definition at {place} but {problem}") from None
    if (compiled.id, compiled.hash) != (published.definition, published.hash):
        raise InputError(
            f"Expected {published.definition} to have the hash its record names but {place} has not"
        )
    found.definitions[compiled.id] = (record, compiled.hash)
    if compiled.schedule is not None:
        found.scheduled.append(compiled.id)


def _check_record(found: _Checked, record: Kept, place: str) -> None:
    where = f"{place} ({record.place})"
    if record.value is None:
        raise InputError(f"Expected an event or a rejection but {where} has no value")
    if not -1 <= record.time < _TIME_END:
        raise InputError(f"Expected a time in milliseconds but {where} has {record.time}")
    try:
        logged = decode_logged(record.value, record.fingerprint)
    except Undecodable as problem:
        raise InputError(f"Expected an event or a rejection but {where} is unreadable: {problem}") from None
    if record.key != logged.flow_id.encode() or not FLOW_ID.fullmatch(logged.flow_id):
        raise InputError(f"Expected the key to be the flow's id but {where} has {record.key!r}")
    found.keys.add(record.key)
    if isinstance(logged, m.Rejection):
        return
    before = found.flows.get(logged.flow_id)
    sequence, head = (1, b"") if before is None else (before.sequence + 1, before.head)
    if logged.sequence != sequence:
        raise InputError(
            f"Expected event {sequence} of {logged.flow_id} but {where} is event {logged.sequence}"
        )
    if logged.previous_hash != head:
        text = f"Expected event {sequence} of {logged.flow_id} to continue the chain of hashes"
        raise InputError(f"{text} but {where} does not")
    ended = isinstance(logged.body, m.FlowCompleted | m.FlowFaulted | m.FlowCancelled)
    found.flows[logged.flow_id] = _Flow(sequence, digest(record.value), ended)
    if found.named.setdefault(logged.definition, logged.definition_hash) != logged.definition_hash:
        raise InputError(f"Expected one {logged.definition} but {where} names another hash of it")


def _batches(path: Path, there: int) -> Iterator[list[tuple[int, Kept]]]:
    """The records from number `there` on, by transaction."""
    batch: list[tuple[int, Kept]] = []
    size = number = 0
    for _, entry in read_export(path):
        if not isinstance(entry, Kept) or entry.topic != "events":
            continue
        if number >= there:
            batch.append((number, entry))
            size += encoded_size(entry)
            if len(batch) >= _RECORDS_MAX or size >= _BYTES_MAX:
                yield batch
                batch, size = [], 0
        number += 1
    if batch:
        yield batch


# -- the installation -----------------------------------------------------------------------------------------------


def _missing_definitions(servers: str, prefix: str, checked: _Checked) -> dict[str, Kept]:
    """Those to be written. Raises InputError when a version is there with other content, or nowhere."""
    there: dict[str, bytes] = {}
    for _, published in definitions(servers, prefix):
        there.setdefault(published.definition, published.hash)
    for name, wanted in checked.named.items():
        held = there.get(name) or checked.definitions.get(name, (None, None))[1]
        if held is None:
            raise InputError(f"Expected definition {name} in the export or here but it is in neither")
        if held != wanted:
            raise InputError(
                f"Expected {name} to have the hash {wanted.hex()} but it is published here with {held.hex()}"
            )
    return {name: record for name, (record, _) in checked.definitions.items() if name not in there}


def _check_schedules(checked: _Checked, missing: dict[str, Kept], schedules: bool) -> None:
    starting = sorted(set(checked.scheduled) & missing.keys())
    if starting and not schedules:
        raise InputError(
            f"Expected definitions without a schedule but {starting[0]} has one, which would begin to start flows here; "
            "give --schedules where it shall"
        )


def _already_there(servers: str, prefix: str, checked: _Checked) -> int:
    """How many records an interrupted import of this export wrote. Raises InputError for a flow from elsewhere."""
    topic, own = prefix + EVENTS, checked.tail.sha256.encode()
    numbers = []
    for message in scan_messages(servers, topic, read_spans(servers, topic)):
        key = message.key()
        if key not in checked.keys:
            continue
        headers = kafka.headers_of(message)
        if headers.get(IMPORT_HEADER) == own:
            numbers.append(int(headers[NUMBER_HEADER]))
        elif _is_event(message.value(), headers.get("schema")):
            flow_id = key.decode("utf-8", "replace")
            place = f"partition {message.partition()}, offset {message.offset()}"
            raise InputError(f"Expected flow {flow_id} not to be in {topic} but it is ({place})")
    if sorted(numbers) != list(range(len(numbers))):
        raise InputError(f"Expected {topic} to hold the first records of this import but some are missing")
    return len(numbers)


def _is_event(value: bytes | None, fingerprint: bytes | None) -> bool:
    """Whether a flow is there; what is unreadable counts, a refused command alone does not."""
    try:
        return not isinstance(decode_logged(value or b"", fingerprint), m.Rejection)
    except Undecodable:
        return True


def _definition(prefix: str, name: str, record: Kept) -> Outgoing:
    return Outgoing(
        prefix + DEFINITIONS, None, name.encode(), record.value, list(record.headers), record.time
    )


def _placed(prefix: str, checked: _Checked, number: int, record: Kept, partitions: int) -> Outgoing:
    """Values, keys, headers and times stay; the partition is the flow's own here."""
    assert record.key is not None  # checked
    headers: list[tuple[str, str | bytes | None]] = [h for h in record.headers if h[0] not in _OWN_HEADERS]
    headers += [
        (IMPORT_HEADER, checked.tail.sha256.encode()),
        (NUMBER_HEADER, str(number).encode()),
        ("src.topic", checked.head.topic.encode()),
        ("src.partition", str(record.partition).encode()),
        ("src.offset", str(record.offset).encode()),
    ]
    partition = partition_of(record.key.decode(), partitions)
    return Outgoing(prefix + EVENTS, partition, record.key, record.value, headers, record.time)
