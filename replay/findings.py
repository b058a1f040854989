"""What a verification finds: differences of the log, differences of the read model, and their sum over processes. Pure."""

from __future__ import annotations

from typing import Any, Final

import msgspec

KEPT_MAX: Final = 1000
"""Findings of each sort that are kept with their text; more are only counted."""


class Finding(msgspec.Struct, frozen=True):
    """Where the log is not what it claims to be.

    `kind`: unreadable, key, partition, sequence, chain, cause, decision, moment; `sequence` and the place are those of the
    record at which it shows.
    """

    flow_id: str
    kind: str
    text: str
    sequence: int | None
    partition: int
    offset: int

    def __str__(self) -> str:
        at = "" if self.sequence is None else f" event {self.sequence}"
        return (
            f"{self.flow_id}{at} [partition {self.partition}, offset {self.offset}] {self.kind}: {self.text}"
        )


class RowFinding(msgspec.Struct, frozen=True):
    """Where a row of the read model is not what the log folds to. `key` is the row's, as text; `row` that of a table."""

    flow_id: str
    table: str
    key: str
    text: str

    def __str__(self) -> str:
        return f"{self.table} {self.key}: {self.text}"


class LogReport(msgspec.Struct):
    """Counts of a part of the log, and what differs there. `different_count` may exceed what is kept."""

    flows: int = 0
    events: int = 0
    rejections: int = 0
    verified: int = 0
    different_count: int = 0
    different: list[Finding] = msgspec.field(default_factory=list)

    def add(self, finding: Finding) -> None:
        self.different_count += 1
        if len(self.different) < KEPT_MAX:
            self.different.append(finding)

    def merge(self, other: LogReport) -> None:
        _merge(self, other)


class ReadModelReport(msgspec.Struct):
    """`checked` counts flows whose rows were compared, `rows` the rows; `behind` the records not projected in time."""

    checked: int = 0
    rows: int = 0
    behind: int = 0
    unreadable: int = 0
    different_count: int = 0
    different: list[RowFinding] = msgspec.field(default_factory=list)

    def add(self, finding: RowFinding) -> None:
        self.different_count += 1
        if len(self.different) < KEPT_MAX:
            self.different.append(finding)

    def merge(self, other: ReadModelReport) -> None:
        _merge(self, other)


def _merge(report: Any, other: Any) -> None:
    for name in report.__struct_fields__:
        setattr(report, name, getattr(report, name) + getattr(other, name))
    del report.different[KEPT_MAX:]


class Report(msgspec.Struct, kw_only=True):
    """A whole verification. `read_model` is None when it was not compared."""

    flows: int
    events: int
    rejections: int
    verified: int
    different_count: int
    different: list[Finding]
    read_model: ReadModelReport | None
    seconds: float
    events_per_second: float
    processes: int

    @property
    def right(self) -> bool:
        model = self.read_model
        return self.different_count == 0 and (model is None or not (model.different_count or model.behind))
