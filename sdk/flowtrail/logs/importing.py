"""Sends a log to the API as trails: in batches, once each, and on from where it was cut off.

The producer of the pieces is the file's SHA-256, so that the same file twice is the same pieces twice, which count once. How many
pieces are acknowledged is kept beside the other state of the user (`state`), so that a run that was killed goes on there.
"""

from __future__ import annotations

import gzip
import hashlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import msgspec
import orjson

from flowtrail.errors import InputError
from flowtrail.logs.cases import Case
from flowtrail.logs.pieces import pieces_of
from flowtrail.logs.reading import format_of, read_cases
from flowtrail.logs.tables import Mapping
from flowtrail.transport import Api

PIECES_MAX: Final = 1000
BYTES_MAX: Final = 3 * 1024 * 1024
_HEADERS: Final = {"Content-Type": "application/json", "Content-Encoding": "gzip"}

Progress = Callable[[int], None]
"""Told how many events have been acknowledged so far."""


class Imported(msgspec.Struct):
    """`flows` and `events` are those of the log; `sent` and `duplicates` the pieces of this run; `empty` cases have no event."""

    flows: int = 0
    events: int = 0
    sent: int = 0
    duplicates: int = 0
    empty: int = 0


class _Batch(msgspec.Struct):
    pieces: list[bytes] = []
    size: int = 0
    events: int = 0


def digest_of(path: Path) -> str:
    """The SHA-256 of the file, in hexadecimal digits."""
    if not path.is_file():
        raise InputError(f"Expected an event log at {path} but there is no such file")
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def import_log(
    api: Api,
    path: Path,
    *,
    name: str | None = None,
    form: str | None = None,
    mapping: Mapping | None = None,
    object_type: str | None = None,
    prefix: str = "",
    state: Path | None = None,
    progress: Progress = lambda _: None,
) -> Imported:
    """Raises InputError for what cannot be read, ApiError, Unreachable."""
    digest = digest_of(path)
    if format_of(path, form) == "otlp":
        return _import_traces(api, path)
    named = name or path.name.removesuffix(".gz").rpartition(".")[0] or path.name
    producer = hashlib.sha256(f"{digest}\0{named}\0{prefix}".encode()).hexdigest()[:32]
    place = None if state is None else state / f"{producer}.json"
    done = _done(place)
    imported = Imported()
    cases = read_cases(path, form, mapping=mapping, object_type=object_type)
    seen = 0
    for batch in _batches(cases, named, prefix, imported):
        seen += len(batch.pieces)
        if seen > done:
            answer = _send(api, producer, batch)
            imported.sent += answer["accepted"] + answer["duplicates"]
            imported.duplicates += answer["duplicates"]
            _keep(place, seen)
        progress(imported.events)
    return imported


def _batches(cases: Iterator[Case], name: str, prefix: str, imported: Imported) -> Iterator[_Batch]:
    """The same for the same file, whatever was sent of it before."""
    batch = _Batch([])
    ids: set[str] = set()
    for case in cases:
        if case.id in ids:
            raise InputError(f"Expected every case once but found {case.id[:200]} again")
        ids.add(case.id)
        imported.flows += bool(case.entries)
        imported.empty += not case.entries
        imported.events += len(case.entries)
        for piece in pieces_of(case, name, prefix):
            encoded = orjson.dumps(piece)
            if batch.pieces and (len(batch.pieces) == PIECES_MAX or batch.size + len(encoded) > BYTES_MAX):
                yield batch
                batch = _Batch([])
            batch.pieces.append(encoded)
            batch.size += len(encoded) + 1
    if batch.pieces:
        yield batch


def _send(api: Api, producer: str, batch: _Batch) -> dict[str, int]:
    body = b'{"producer":"' + producer.encode() + b'","pieces":[' + b",".join(batch.pieces) + b"]}"
    packed = gzip.compress(body, 3, mtime=0)
    key = hashlib.sha256(packed).hexdigest()
    answer: dict[str, int] = api.json(
        "POST",
        "/trails",
        body=packed,
        headers=_HEADERS | {"Idempotency-Key": key},
        idempotent=True,
        timeout_s=60.0,
    )
    return answer


def _done(place: Path | None) -> int:
    if place is None:
        return 0
    try:
        return int(orjson.loads(place.read_bytes())["pieces"])
    except (OSError, ValueError, KeyError, TypeError):
        return 0  # what was sent before counts as duplicates


def _keep(place: Path | None, pieces: int) -> None:
    if place is None:
        return
    place.parent.mkdir(parents=True, exist_ok=True)
    part = place.with_suffix(".part")
    part.write_bytes(orjson.dumps({"pieces": pieces}))
    os.replace(part, place)  # noqa: PTH105 - atomic, and says so


def _import_traces(api: Api, path: Path) -> Imported:
    """OTLP in JSON, whole or one export request a line, as the collector's file exporter writes it."""
    imported = Imported()
    flows: set[str] = set()
    for number, request in _requests(path):
        for span in _spans(request, number, path):
            flows.add(str(span.get("traceId")))
            imported.events += 1
        answer: Any = api.json(
            "POST",
            "/v1/traces",
            body=orjson.dumps(request),
            headers={"Content-Type": "application/json"},
            idempotent=True,
            timeout_s=60.0,
        )
        rejected = (answer.get("partialSuccess") or {}).get("rejectedSpans", 0)
        if int(rejected):
            raise InputError(
                f"Expected every span to be taken but {rejected} were not, line {number} of {path}"
            )
        imported.sent += 1
    imported.flows = len(flows)
    return imported


def _requests(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    text = path.read_bytes()
    try:
        whole = orjson.loads(text)
        yield 1, whole
        return
    except orjson.JSONDecodeError:
        pass
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip():
            try:
                yield number, orjson.loads(line)
            except orjson.JSONDecodeError as problem:
                raise InputError(f"Expected JSON but {problem} in line {number} of {path}") from None


def _spans(request: Any, number: int, path: Path) -> Iterator[dict[str, Any]]:
    try:
        for resource in request["resourceSpans"]:
            for scope in resource.get("scopeSpans") or ():
                yield from scope.get("spans") or ()
    except (KeyError, TypeError, AttributeError):
        raise InputError(f"Expected resourceSpans but found none in line {number} of {path}") from None
