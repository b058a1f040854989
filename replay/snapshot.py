"""`replay snapshot`: the state of every flow at a cut of the log, a moment or its end, as JSONL, Avro or Parquet.

A lighter fold than flow.py's: each flow keeps its state and its last event, not its history. A flow's row is written when
it ends, when its next event lies after the cut, or at the end of the reading; memory holds the flows that live at the cut.
A flow whose records do not fold has no row; it is named in the report, which is then not right. The log is bounded by its
ends at the start.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, Final, Literal, Protocol, cast

import fastavro
import msgspec
from fastavro.write import Writer as AvroWriter

from engine.core.evolve import BrokenLog, FlowState, digest, evolve
from engine.errors import InputError
from engine.runtime.topics import EVENTS, partition_of
from projections.logged import Logged, Record
from replay.files import whole_file
from replay.flow import Rebuilt
from replay.log import Span, read_spans, scan
from replay.moment import Moment, parse_moment
from replay.parquet import STATES, Table, pyarrow
from replay.showing import state as shown_state
from schemas import messages as m
from schemas.codec import Undecodable, decode_logged
from schemas.registry import NAMESPACE

Format = Literal["jsonl", "avro", "parquet"]
METADATA: Final = "flowtrail.snapshot"
KEPT_MAX: Final = 1000
_AWAY: Final = ("events_in_log", "rejections", "until", "read")
"""Of a rebuilt flow's document, what a cut has nothing to say about."""

_TIME: Final = {"type": "long", "logicalType": "timestamp-micros"}
_AVRO: Final[dict[str, Any]] = {
    "type": "record",
    "name": "FlowState",
    "namespace": NAMESPACE,
    "fields": [
        {"name": "flow_id", "type": "string"},
        {"name": "definition", "type": "string"},
        {"name": "status", "type": "string"},
        {"name": "sequence", "type": "long"},
        {"name": "head", "type": "bytes"},
        {"name": "started_at", "type": _TIME},
        {"name": "updated_at", "type": _TIME},
        {"name": "ended_at", "type": ["null", _TIME]},
        {"name": "state", "type": "string"},
    ],
}


class Cut(msgspec.Struct, kw_only=True):
    """The report. `spans` are the offsets read, [first, end); `at` is None for the log's end."""

    file: str
    format: Format
    at: str | None
    spans: dict[str, tuple[int, int]]
    flows: int = 0
    live: int = 0
    events: int = 0
    broken: int = 0
    problems: list[str] = msgspec.field(default_factory=list)

    @property
    def right(self) -> bool:
        return not self.broken

    def add(self, problem: str) -> None:
        self.broken += 1
        if len(self.problems) < KEPT_MAX:
            self.problems.append(problem)


class _Flow(msgspec.Struct):
    """A flow that lives. `suspended` is the event that says why it rests."""

    live: m.LiveFlow
    last: Logged
    suspended: Logged | None = None


def parse_cut(text: str) -> Moment | None:
    """None for the log's end. Raises InputError."""
    if text.strip().lower() == "now":
        return None
    moment = parse_moment(text, "--at")
    if moment.time is None:
        raise InputError(f"Expected --at to be a time or now but found the sequence number {text}")
    return moment


def snapshot(
    servers: str,
    prefix: str,
    at: Moment | None,
    out: Path,
    *,
    live_only: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Cut:
    """Writes `out`. Raises InputError for a file whose ending is none of the three."""
    form = _format(out)
    if form == "parquet":
        pyarrow()
    topic = prefix + EVENTS
    spans = read_spans(servers, topic)
    cut = Cut(
        file=str(out),
        format=form,
        at=None if at is None else str(at),
        spans={str(p): span for p, span in spans.items()},
    )
    with whole_file(out) as stream:
        rows = _rows(form, stream, cut)
        records = scan(servers, topic, spans, passed=_counting(spans, progress))
        for rebuilt in fold(records, at, cut, len(spans)):
            ended = isinstance(rebuilt.state, m.EndedFlow)
            if not (ended and live_only):
                rows.add(rebuilt)
                cut.flows += 1
                cut.live += not ended
        rows.close()
    return cut


def _format(out: Path) -> Format:
    name = out.suffix.removeprefix(".").lower()
    if name not in ("jsonl", "avro", "parquet"):
        raise InputError(f"Expected --out to end with .jsonl, .avro or .parquet but found {out.name}")
    return cast(Format, name)


def _counting(spans: dict[int, Span], progress: Callable[[int, int], None] | None) -> Callable[[int], None]:
    total, read = sum(end - first for first, end in spans.values()), 0

    def passed(records: int) -> None:
        nonlocal read
        read += records
        if progress is not None:
            progress(min(read, total), total)

    return passed


# -- folding --------------------------------------------------------------------------------------------------------


def fold(records: Iterator[Record], at: Moment | None, cut: Cut, partitions: int) -> Iterator[Rebuilt]:
    """Every flow that folds, as it stood at the cut. What does not fold is added to `cut`."""
    flows: dict[str, _Flow] = {}
    past: set[str] = set()
    """Flows that are done with: their next event lies after the cut, or they do not fold."""
    for record in records:
        logged = _decoded(record, cut)
        if logged is None or logged.event.flow_id in past:
            continue
        event = logged.event
        before = flows.get(event.flow_id)
        if at is not None and not at.includes(event.sequence, event.time):
            past.add(event.flow_id)
            if before is not None:
                yield _rebuilt(flows.pop(event.flow_id), None)
            continue
        if record.partition != partition_of(event.flow_id, partitions):
            cut.add(f"{event.flow_id}: event {event.sequence} lies in {_place(logged)}")
            continue
        problem, state = _folded(None if before is None else before.live, logged)
        if state is None:
            cut.add(f"{event.flow_id}: {problem} ({_place(logged)})")
            past.add(event.flow_id)
            flows.pop(event.flow_id, None)
            continue
        cut.events += 1
        if isinstance(state, m.LiveFlow):
            flows[event.flow_id] = _kept(before, state, logged)
        elif before is not None:
            del flows[event.flow_id]
            before.last = logged
            yield _rebuilt(before, state)
    while flows:
        yield _rebuilt(flows.popitem()[1], None)


def _decoded(record: Record, cut: Cut) -> Logged | None:
    """The event; None for a rejection, and for what is unreadable: the event after it will not fold."""
    problem = "it has no value"
    if record.value is not None:
        try:
            found = decode_logged(record.value, record.fingerprint)
            if isinstance(found, m.Rejection):
                return None
            return Logged(found, record.value, record.partition, record.offset)
        except Undecodable as undecodable:
            problem = str(undecodable)
    flow_id = (record.key or b"").decode("utf-8", "replace")
    cut.add(f"{flow_id}: partition {record.partition}, offset {record.offset} is unreadable: {problem}")
    return None


def _folded(before: m.LiveFlow | None, logged: Logged) -> tuple[str, FlowState | None]:
    event = logged.event
    if event.previous_hash != (b"" if before is None else before.head):
        return f"the chain of hashes breaks at event {event.sequence}", None
    try:
        return "", evolve(before, event, digest(logged.value))
    except BrokenLog as problem:
        return str(problem), None


def _kept(before: _Flow | None, state: m.LiveFlow, logged: Logged) -> _Flow:
    suspended = None if before is None else before.suspended
    if isinstance(logged.event.body, m.FlowSuspended):
        suspended = logged
    elif state.status != "suspended":
        suspended = None
    return _Flow(state, logged, suspended)


def _rebuilt(flow: _Flow, ended: FlowState | None) -> Rebuilt:
    """What showing.py shows of; its history is the events a shown state needs."""
    reasons = [] if flow.suspended is None or flow.suspended is flow.last else [flow.suspended]
    return Rebuilt(
        live=flow.live,
        state=flow.live if ended is None else ended,
        head=digest(flow.last.value),
        logged=[*reasons, flow.last],
        events_in_log=flow.last.event.sequence,
        rejections=[],
        until=None,
        way="scan",
        why="",
        partition=flow.last.partition,
        records_read=0,
    )


def _place(logged: Logged) -> str:
    return f"partition {logged.partition}, offset {logged.offset}"


# -- rows -----------------------------------------------------------------------------------------------------------


class _Rows(Protocol):
    def add(self, rebuilt: Rebuilt) -> None: ...

    def close(self) -> None: ...


def document(rebuilt: Rebuilt) -> dict[str, Any]:
    """A flow's state as `replay flow --json` shows it, without what only a reading of its whole history knows."""
    found = shown_state(rebuilt)
    for name in _AWAY:
        del found[name]
    return found


def _row(rebuilt: Rebuilt) -> dict[str, Any]:
    live, last = rebuilt.live, rebuilt.logged[-1].event
    return {
        "flow_id": live.flow_id,
        "definition": live.definition,
        "status": rebuilt.state.status,
        "sequence": rebuilt.state.sequence,
        "head": rebuilt.head,
        "started_at": live.started_at,
        "updated_at": last.time,
        "ended_at": last.time if isinstance(rebuilt.state, m.EndedFlow) else None,
        "state": msgspec.json.encode(document(rebuilt)).decode(),
    }


class _Lines:
    def __init__(self, out: IO[bytes]) -> None:
        self._out = out

    def add(self, rebuilt: Rebuilt) -> None:
        self._out.write(msgspec.json.encode(document(rebuilt)) + b"\n")

    def close(self) -> None:
        pass


class _Container:
    def __init__(self, out: IO[bytes], cut: Cut) -> None:
        about = {METADATA: msgspec.json.encode({"at": cut.at, "spans": cut.spans}).decode()}
        schema = fastavro.parse_schema(_AVRO)
        self._writer: Any = AvroWriter(out, schema, codec="deflate", metadata=about)

    def add(self, rebuilt: Rebuilt) -> None:
        self._writer.write(_row(rebuilt))

    def close(self) -> None:
        self._writer.flush()


class _Table:
    def __init__(self, out: IO[bytes]) -> None:
        self._table = Table(out, STATES)

    def add(self, rebuilt: Rebuilt) -> None:
        self._table.add(_row(rebuilt))

    def close(self) -> None:
        self._table.close()


def _rows(form: Format, out: IO[bytes], cut: Cut) -> _Rows:
    match form:
        case "jsonl":
            return _Lines(out)
        case "avro":
            return _Container(out, cut)
        case "parquet":
            return _Table(out)
