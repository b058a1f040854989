"""One flow rebuilt from the log alone, as it stands or as it stood at a moment.

The read model is asked only where the flow's records lie (the index); every fact comes from the log. The index is
not trusted: where it does not lead to a whole, unbroken chain the flow's partition is scanned, and the answer says
which way was taken. What a fold drops when a flow ends (data, context) is kept from the state before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Literal

import msgspec
import psycopg

from engine.core.decide import FLOW_ID
from engine.core.evolve import BrokenLog, FlowState, digest, evolve
from engine.errors import AwayError, FlowtrailError, InputError
from engine.runtime.topics import EVENTS, partition_of
from projections import queries
from projections.logged import Logged, Record
from projections.readers import SyncReader
from replay.log import Span, read_spans, scan
from replay.moment import Moment
from schemas import messages as m
from schemas.codec import Undecodable, decode_logged

Way = Literal["index", "scan"]
Positions = Callable[[str], list[tuple[int, int, int]]]
"""(partition, offset, sequence) of a flow's events. Raises AwayError."""


class UnknownFlow(InputError):
    """No event of it is in the log."""


class BrokenFlow(FlowtrailError):
    """The log's records of a flow do not fold: found wrong, not a defect of the reader."""

    exit_code = 1


class Rebuilt(msgspec.Struct, kw_only=True):
    """`live` is the last state before an end, `state` the state after `logged[-1]`, the last event included."""

    live: m.LiveFlow
    state: FlowState
    head: bytes
    logged: list[Logged]
    events_in_log: int
    rejections: list[m.Rejection]
    until: Moment | None
    way: Way
    why: str
    partition: int
    records_read: int


class _Found(msgspec.Struct):
    """What a reading of the log gave of one flow."""

    logged: list[Logged]
    rejections: list[m.Rejection]
    records_read: int = 0

    def count(self, records: int) -> None:
        self.records_read += records


def index_of(postgres: str) -> Positions:
    """The index in the read model at `postgres`."""

    def positions(flow_id: str) -> list[tuple[int, int, int]]:
        with SyncReader(postgres) as reader:
            try:
                return reader.ask(queries.positions_of_flow(flow_id))
            except psycopg.Error as problem:  # such as a database without tables
                raise AwayError(f"Expected an index in Postgres but {problem}") from None

    return positions


class Log(msgspec.Struct, kw_only=True):
    """What the log holds of one flow, in order, and how it was found."""

    flow_id: str
    logged: list[Logged]
    rejections: list[m.Rejection]
    way: Way
    why: str
    partition: int
    records_read: int


def read_flow(servers: str, prefix: str, flow_id: str, index: Positions | None = None) -> Log:
    """Raises UnknownFlow when the log has no event of it, InputError, AwayError, BrokenFlow for what cannot be read."""
    if not FLOW_ID.fullmatch(flow_id):
        raise InputError(f"Expected a flow id matching {FLOW_ID.pattern} but found {flow_id[:200]!r}")
    topic = prefix + EVENTS
    spans = read_spans(servers, topic)
    partition = partition_of(flow_id, len(spans))
    span = spans[partition]
    found, why = _by_index(servers, topic, flow_id, partition, span, index)
    way: Way = "index"
    if found is None:
        way, found = "scan", _read(servers, topic, flow_id, partition, span)
    if not found.logged:
        raise _unknown(flow_id, topic, partition, found.rejections)
    return Log(
        flow_id=flow_id,
        logged=found.logged,
        rejections=found.rejections,
        way=way,
        why=why,
        partition=partition,
        records_read=found.records_read,
    )


def rebuild(
    servers: str, prefix: str, flow_id: str, until: Moment | None = None, index: Positions | None = None
) -> Rebuilt:
    """Raises InputError for a flow that is not in the log or not yet at `until`, BrokenFlow when its events do not fold."""
    return rebuilt_at(read_flow(servers, prefix, flow_id, index), until)


def rebuilt_at(log: Log, until: Moment | None = None) -> Rebuilt:
    """Raises InputError when the flow was not yet at `until`, BrokenFlow when its events do not fold."""
    live, state, head, kept = fold_until(log.flow_id, log.logged, until)
    return Rebuilt(
        live=live,
        state=state,
        head=head,
        logged=kept,
        events_in_log=len(log.logged),
        rejections=log.rejections,
        until=until,
        way=log.way,
        why=log.why,
        partition=log.partition,
        records_read=log.records_read,
    )


def fold_until(
    flow_id: str, logged: Iterable[Logged], until: Moment | None
) -> tuple[m.LiveFlow, FlowState, bytes, list[Logged]]:
    """The last live state, the state, its head and the events folded. Raises InputError, BrokenFlow."""
    state: FlowState | None = None
    live: m.LiveFlow | None = None
    head, kept, last = b"", [], None
    for one in logged:
        event = one.event
        if until is not None and not until.includes(event.sequence, event.time):
            break
        if event.previous_hash != head:
            raise broken(one, f"the chain of hashes breaks at event {event.sequence}")
        head = digest(one.value)
        try:
            state = evolve(state, event, head)
        except BrokenLog as problem:
            raise broken(one, str(problem)) from None
        live = state if isinstance(state, m.LiveFlow) else live
        kept.append(one)
        last = event
    if state is None or live is None or last is None:
        raise InputError(f"Expected a moment in the life of {flow_id} but {until} is before its first event")
    if until is not None and until.sequence is not None and last.sequence < until.sequence:
        raise InputError(
            f"Expected an event from 1 to {last.sequence} of {flow_id} but found {until.sequence}"
        )
    return live, state, head, kept


def broken(one: Logged, text: str) -> BrokenFlow:
    place = f"partition {one.partition}, offset {one.offset}"
    flow_id = one.event.flow_id
    return BrokenFlow(
        f"Expected the events of {flow_id} to fold but {text} ({place}); run: flowtrail replay verify {flow_id}"
    )


def _unknown(flow_id: str, topic: str, partition: int, rejections: list[m.Rejection]) -> UnknownFlow:
    text = f"Expected flow {flow_id} to be in the log but partition {partition} of {topic} has no event of it"
    if rejections:
        text += f"; it holds {len(rejections)} refused commands, the last: {rejections[-1].reason}"
    return UnknownFlow(text)


def _by_index(
    servers: str, topic: str, flow_id: str, partition: int, span: Span, index: Positions | None
) -> tuple[_Found | None, str]:
    """The flow by its positions, or None and why they do not serve."""
    if index is None:
        return None, "the index was not to be used"
    try:
        positions = index(flow_id)
    except AwayError:
        return None, "Postgres does not answer or has no index"
    offsets = [offset for place, offset, _ in positions if place == partition]
    if not offsets or not span[0] <= min(offsets) <= max(offsets) < span[1]:
        return None, "the index does not have the flow" if not offsets else "the index is of another log"
    found = _read(servers, topic, flow_id, partition, (min(offsets), max(offsets) + 1))
    if not is_over(found):  # the read model may be behind: what it has not seen lies further on
        later = _read(servers, topic, flow_id, partition, (max(offsets) + 1, span[1]))
        found.logged += later.logged
        found.rejections += later.rejections
        found.records_read += later.records_read
    if [one.event.sequence for one in found.logged] != list(range(1, len(found.logged) + 1)):
        return None, "the index does not lead to every event"
    return found, ""


def is_over(found: Log | _Found) -> bool:
    """Whether the last event is an end: nothing follows it."""
    ends = m.FlowCompleted | m.FlowFaulted | m.FlowCancelled
    return bool(found.logged) and isinstance(found.logged[-1].event.body, ends)


def _read(servers: str, topic: str, flow_id: str, partition: int, span: Span) -> _Found:
    found = _Found([], [])
    key = flow_id.encode()
    for record in scan(servers, topic, {partition: span}, key=key, passed=found.count):
        one = _decoded(record, flow_id)
        if isinstance(one, m.Rejection):
            found.rejections.append(one)
        elif one.flow_id == flow_id:
            assert record.value is not None
            found.logged.append(Logged(one, record.value, record.partition, record.offset))
    return found


def _decoded(record: Record, flow_id: str) -> m.Event | m.Rejection:
    problem = "it has no value"
    if record.value is not None:
        try:
            return decode_logged(record.value, record.fingerprint)
        except Undecodable as undecodable:
            problem = str(undecodable)
    raise BrokenFlow(
        f"Expected to read flow {flow_id} but the record at partition {record.partition}, offset {record.offset} is "
        f"unreadable: {problem}"
    )
