"""Logs of whole flows as an engine writes them, as records, for the tests of replay."""

from __future__ import annotations

from collections.abc import Iterable

from msgspec.structs import replace

from engine.dsl.model import Definition
from engine.runtime.topics import partition_of
from projections.logged import Record
from schemas import messages as m
from schemas.codec import encode_event, encode_rejection
from schemas.registry import newest
from tests.flows import Run, definition

PARTITIONS = 4
ORDER = definition(
    """
do:
- prepare: {set: {n: "${ .n + 1 }", text: "${ .text }"}}
- route:
    switch:
    - gold: {when: .n > 10, then: charge}
    - rest: {then: charge}
- charge: {call: charge, export: {as: "${ $context + {paid: true} }"}}
- ship: {call: ship}
""",
    name="order",
)
REASON = "Expected a running flow but it has ended"


class Definitions:
    """Some definitions by id."""

    def __init__(self, *of: Definition) -> None:
        self._of = {one.id: one for one in of}

    def find(self, reference: str) -> Definition | None:
        return self._of.get(reference)


def order(flow_id: str, *, n: int = 1, text: str = "a", end: bool = True) -> Run:
    """A flow of 8 events; 6 without its end."""
    run = Run(ORDER, flow_id)
    run.start({"n": n, "text": text})
    run.complete("/do/2/charge", {"n": n, "amount": 12.50})
    if end:
        run.complete("/do/3/ship", {"sent": [1, 2]})
    return run


def event(value: bytes, flow_id: str, partition: int | None = None) -> Record:
    at = partition_of(flow_id, PARTITIONS) if partition is None else partition
    return Record(at, -1, flow_id.encode(), value, newest("event").fingerprint)


def records(run: Run) -> list[Record]:
    return [event(stored.value, run.flow_id) for stored in run.log]


def rejection(flow_id: str, reason: str = REASON) -> Record:
    partition = partition_of(flow_id, PARTITIONS)
    cause = m.Cause(f"again-{flow_id}", partition, 77)
    refused = m.Rejection(
        flow_id, 1_700_000_000_500_000, m.Actor("user", "ada"), cause, "CancelFlow", "flow-ended", reason
    )
    return Record(partition, -1, flow_id.encode(), encode_rejection(refused), newest("rejection").fingerprint)


def with_body(run: Run, sequence: int, body: m.EventBody) -> bytes:
    """Event `sequence` with another body, everything else as it was."""
    return encode_event(replace(run.log[sequence - 1].event, body=body))


def placed(found: Iterable[Record]) -> list[Record]:
    """The records with the offsets a topic would give them."""
    ends: dict[int, int] = {}
    result = []
    for record in found:
        offset = ends.get(record.partition, 0)
        ends[record.partition] = offset + 1
        result.append(Record(record.partition, offset, record.key, record.value, record.fingerprint))
    return result
