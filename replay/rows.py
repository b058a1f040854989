"""Rows as the log folds them and rows as Postgres has them, both in COPY's text format, compared byte for byte. Pure.

The folds are the projections' own, and so are the columns: they are read from the projector's COPY statements, so that
a column added there is compared here. Two things COPY writes otherwise than the projector: fractions of a second
(selected in full here) and three control characters (escaped on both sides here).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

import msgspec

from projections import flows, history, tasks
from projections.copying import Unstorable
from projections.logged import Logged
from projections.statements import statements
from replay.findings import RowFinding

_COLUMNS: Final = re.compile(r"\((.*?)\)", re.DOTALL)
_VALUE_MAX: Final = 300
_NULL: Final = "\\N"
_NOT_STORED: Final = ("follows", "follows_head")
"""What a batch tells of where it begins."""


class Table(msgspec.Struct, frozen=True):
    name: str
    columns: tuple[str, ...]
    key: tuple[int, ...]

    @property
    def select(self) -> str:
        """The columns as they are to be selected."""
        return ", ".join(_selected(column) for column in self.columns)


def _selected(column: str) -> str:
    if column.strip('"') == "time" or column.endswith("_at"):
        return f"to_char({column} AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS.US') || '+00'"
    return column


def _table(name: str, *key: str) -> Table:
    match = _COLUMNS.search(statements("writes")[f"copy_{name}"].decode())
    assert match is not None
    columns = tuple(column for word in match[1].split(",") if (column := word.strip()) not in _NOT_STORED)
    return Table(name, columns, tuple(columns.index(column) for column in key))


FLOWS: Final = _table("flows", "flow_id")
TASKS: Final = _table("tasks", "flow_id", "task", "run", "attempt")
HISTORY: Final = _table("history", "flow_id", "sequence", "event_offset")
REJECTIONS: Final = _table("rejections", "partition", "event_offset")


class Expected(msgspec.Struct):
    """Lines a table, each ending with a newline; and the offsets of events that no read model can hold."""

    flows: list[str]
    tasks: list[str]
    history: list[str]
    unstorable: list[int]


def fold(logged: list[Logged]) -> Expected:
    """The rows of one flow."""
    flow: flows.FlowRow | None = None
    performed: dict[tasks.Key, tasks.TaskRow] = {}
    found = Expected([], [], [], [])
    for one in logged:
        try:
            line = history.line(one)
        except Unstorable:
            found.unstorable.append(one.offset)
            continue
        flow = flows.fold(flow, one)
        for key in tasks.keys_of(one.event):
            performed[key] = tasks.fold(performed.get(key), one, key)
        found.history.append(line)
    found.flows = [] if flow is None else [flows.line(flow)]
    found.tasks = [tasks.line(row) for row in performed.values()]
    return found


def as_copied(lines: list[str]) -> list[str]:
    """The projector's lines as COPY TO writes them, without newlines at their ends."""
    text = "".join(lines)
    if "\b" in text or "\f" in text or "\v" in text:
        text = text.replace("\b", "\\b").replace("\f", "\\f").replace("\v", "\\v")
    return text.split("\n")[:-1]


def differences(table: Table, expected: list[str], found: list[str]) -> Iterator[RowFinding]:
    """Compares rows in any order. Lines without newlines."""
    if sorted(expected) == sorted(found):
        return
    wanted = {_key(table, line): line for line in expected}
    seen: set[tuple[str, ...]] = set()
    for line in found:
        key = _key(table, line)
        if key in seen:
            yield _finding(table, line, "Expected one row but found another of the same key")
        elif (right := wanted.get(key)) is None:
            yield _finding(table, line, "Expected no row, the log has no such record, but found one")
        elif right != line:
            yield _finding(table, line, _columns_that_differ(table, right, line))
        seen.add(key)
    for key, line in wanted.items():
        if key not in seen:
            yield _finding(table, line, "Expected a row but found none")


def _key(table: Table, line: str) -> tuple[str, ...]:
    fields = line.split("\t")
    return tuple(fields[at] for at in table.key)


def _finding(table: Table, line: str, text: str) -> RowFinding:
    fields = line.split("\t")
    return RowFinding(
        flow_id=fields[table.columns.index("flow_id")],
        table=table.name,
        key=" ".join(fields[at] for at in table.key),
        text=text,
    )


def _columns_that_differ(table: Table, right: str, line: str) -> str:
    pairs = zip(table.columns, right.split("\t"), line.split("\t"), strict=True)
    return "; ".join(
        f"Expected {column} {_value(wanted)} but found {_value(found)}"
        for column, wanted, found in pairs
        if wanted != found
    )


def _value(field: str) -> str:
    if field == _NULL:
        return "null"
    return repr(field if len(field) <= _VALUE_MAX else f"{field[:_VALUE_MAX]} … ({len(field)} characters)")
