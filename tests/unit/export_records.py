"""Records as Kafka hands them out, and sinks filled with them, for the tests of exports."""

from __future__ import annotations

import io
from collections.abc import Iterable
from typing import Any

from projections.logged import Record
from replay.export import Exported, Sink
from replay.selection import Taken
from schemas.codec import decode_logged
from tests.unit.replay_logs import placed

TIME = 1_700_000_000_000


class Message:
    """As much of Kafka's message as exports read."""

    def __init__(self, record: Record) -> None:
        self._record = record

    def partition(self) -> int:
        return self._record.partition

    def offset(self) -> int:
        return self._record.offset

    def key(self) -> bytes | None:
        return self._record.key

    def value(self) -> bytes | None:
        return self._record.value

    def headers(self) -> list[tuple[str, Any]]:
        return [("schema", self._record.fingerprint), ("ce_source", b"/flowtrail")]

    def timestamp(self) -> tuple[int, int]:
        return 1, TIME


def messages(records: Iterable[Record]) -> list[Message]:
    return [Message(record) for record in placed(records)]


def taken(records: Iterable[Record]) -> list[Taken]:
    return [
        Taken(message, decode_logged(message.value() or b"", message._record.fingerprint))
        for message in messages(records)
    ]


def filled(sink: Sink, out: io.BytesIO, records: Iterable[Record]) -> bytes:
    """What `sink`, which writes to `out`, makes of the records."""
    for one in taken(records):
        sink.take(one)
    sink.finish(Exported(file="", format="xes"))
    return out.getvalue()
