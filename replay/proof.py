"""The proof of a part of the log: every record readable and in its place, every flow what deciding again gives.

Takes records in the order of each partition and proves a flow when it ends, or at the end of the part; then its
events are let go, so that memory holds the events of flows that live and the ids of those that ended. Flows that are
right go to `Compared`, which compares them with the read model. Knows neither Kafka nor Postgres.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, Protocol

from msgspec.structs import replace

from engine.core.batch import Definitions
from engine.core.evolve import digest
from engine.core.redecide import Difference, Find, Stored, verify_flow
from engine.runtime.topics import partition_of
from projections.logged import Logged, Record
from replay.claims import Claim, claims_of, prove, prove_own
from replay.findings import Finding, LogReport
from replay.flow import Log
from schemas import messages as m
from schemas.codec import Undecodable, decode_logged

_ENDS: Final = (m.FlowCompleted, m.FlowFaulted, m.FlowCancelled)


class Compared(Protocol):
    """Told of everything the log holds that is right."""

    def flow(self, flow_id: str, logged: list[Logged]) -> None: ...

    def rejection(self, rejection: m.Rejection, record: Record) -> None: ...

    def unreadable(self, record: Record) -> None: ...


class Proof:
    """`partitions` is the topic's number of partitions. Call `take` for every record, then `finish`."""

    def __init__(self, definitions: Definitions, partitions: int, compared: Compared | None = None) -> None:
        self.report = LogReport()
        self.different: set[str] = set()
        self._definitions = definitions
        self._partitions = partitions
        self._compared = compared
        self._open: dict[str, list[Logged]] = {}
        self._proved: dict[str, int] = {}
        self.claims: list[Claim] = []

    def take(self, record: Record) -> None:
        try:
            if record.value is None:
                raise Undecodable("no-value", "Expected an event but found a record without a value")
            found = decode_logged(record.value, record.fingerprint)
        except Undecodable as problem:
            self._unreadable(record, str(problem))
            return
        if isinstance(found, m.Rejection):
            self._rejection(found, record)
        else:
            self._event(Logged(found, record.value, record.partition, record.offset), record.key)

    def finish(self) -> LogReport:
        """Proves the flows that have not ended, up to their last event."""
        while self._open:
            self._prove(*self._open.popitem())
        self.report.verified = sum(flow_id not in self.different for flow_id in self._proved)
        return self.report

    # -- records ----------------------------------------------------------------------------------------------------

    def _unreadable(self, record: Record, text: str) -> None:
        flow_id = (record.key or b"").decode("utf-8", "replace")
        self._find(Finding(flow_id, "unreadable", text, None, record.partition, record.offset))
        if self._compared is not None:
            self._compared.unreadable(record)

    def _rejection(self, rejection: m.Rejection, record: Record) -> None:
        self.report.rejections += 1
        place = (None, record.partition, record.offset)
        if record.key != rejection.flow_id.encode():
            self._find(Finding(rejection.flow_id, "key", _key_text(rejection.flow_id, record.key), *place))
        elif (text := self._astray(rejection.flow_id, record.partition)) is not None:
            self._find(Finding(rejection.flow_id, "partition", text, *place))
        if self._compared is not None:
            self._compared.rejection(rejection, record)

    def _event(self, logged: Logged, key: bytes | None) -> None:
        self.report.events += 1
        event = logged.event
        flow_id = event.flow_id
        if key != flow_id.encode():
            self._find_at(logged, "key", _key_text(flow_id, key))
        flow = self._open.get(flow_id)
        if flow is None or flow[0].partition != logged.partition:
            if (astray := self._astray(flow_id, logged.partition)) is not None:
                self._find_at(logged, "partition", astray)
                return
            if flow_id in self._proved:
                last = self._proved[flow_id]
                text = f"Expected no event after the flow's end (event {last}) but found {event.kind}"
                self._find_at(logged, "sequence", text)
                return
            flow = self._open[flow_id] = []
            self.report.flows += 1
        flow.append(logged)
        if isinstance(event.body, _ENDS):
            self._prove(flow_id, self._open.pop(flow_id))

    def _astray(self, flow_id: str, partition: int) -> str | None:
        home = partition_of(flow_id, self._partitions)
        return None if home == partition else f"Expected partition {home} but found {partition}"

    # -- flows ------------------------------------------------------------------------------------------------------

    def _prove(self, flow_id: str, logged: list[Logged]) -> None:
        self._proved[flow_id] = logged[-1].event.sequence
        try:
            difference = _difference(self._definitions.find, [Stored(one.event, one.value) for one in logged])
        except Exception as defect:  # only bytes that no engine wrote can make the core raise
            text = f"Expected the flow to be decided again but {type(defect).__name__}: {defect}"
            difference = Difference(flow_id, logged[0].event.sequence, "decision", text)
        if difference is None:
            self._claimed(logged)
            if self._compared is not None and flow_id not in self.different:
                self._compared.flow(flow_id, logged)
        elif difference.kind == "sequence":
            at = _first_broken(logged)
            self._find_at(logged[at], "sequence", difference.text + _how_broken(logged, at))
        else:
            at = max(0, min(difference.sequence, len(logged)) - 1)
            self._find_at(logged[at], difference.kind, difference.text)

    def _claimed(self, logged: list[Logged]) -> None:
        """Moments of its own past are proved at once; those of others wait for whoever can read their logs."""
        for claim in claims_of(logged):
            if not claim.is_own:
                self.claims.append(claim)
                continue
            stored = [Stored(one.event, one.value) for one in logged]
            if (finding := prove_own(claim, stored)) is not None:
                self._find(finding)

    def prove_claims(self, read: Callable[[str], Log]) -> LogReport:
        """After `finish`: the moments of other flows, whose logs `read` gives. Raises AwayError."""
        for claim in self.claims:
            if (finding := prove(claim, read)) is not None:
                self.report.verified -= claim.flow_id not in self.different
                self._find(finding)
        self.claims.clear()
        return self.report

    def _find_at(self, logged: Logged, kind: str, text: str) -> None:
        event = logged.event
        self._find(Finding(event.flow_id, kind, text, event.sequence, logged.partition, logged.offset))

    def _find(self, finding: Finding) -> None:
        self.report.add(finding)
        self.different.add(finding.flow_id)


def _difference(find: Find, stored: list[Stored]) -> Difference | None:
    """The first difference. A broken chain is followed to the event that was altered: deciding again names it."""
    _, found = verify_flow(find, stored)
    if not found or found[0].kind != "chain":
        return found[0] if found else None
    at = _first_broken(stored)
    head = digest(stored[at - 1].value) if at else b""
    linked = Stored(replace(stored[at].event, previous_hash=head), stored[at].value)
    _, again = verify_flow(find, [*stored[:at], linked])
    if (
        not again or again[0].sequence > at
    ):  # a result somebody reported can be altered so that all follows from it
        return replace(found[0], text=f"{found[0].text}: event {at} or this one was altered")
    return replace(again[0], text=f"{again[0].text}; event {at + 1} holds another hash of it")


def _key_text(flow_id: str, key: bytes | None) -> str:
    return f"Expected the record's key to be its flow id {flow_id} but found {key!r}"


def _first_broken(logged: Sequence[Logged | Stored]) -> int:
    """The first record that does not follow the one before it."""
    head = b""
    for at, one in enumerate(logged):
        if one.event.sequence != at + 1 or one.event.previous_hash != head:
            return at
        head = digest(one.value)
    return len(logged) - 1


def _how_broken(logged: list[Logged], at: int) -> str:
    value, sequence = logged[at].value, logged[at].event.sequence
    for earlier in logged[:at]:
        if earlier.value == value:
            return f": a copy of the record at offset {earlier.offset}"
    if sequence > at + 1:
        late = next((one for one in logged[at:] if one.event.sequence == at + 1), None)
        if late is None:
            return f": event {at + 1} is not in the log"
        return f": event {at + 1} follows at offset {late.offset}, out of order"
    return ""
