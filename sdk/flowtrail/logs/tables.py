"""CSV and JSON lines: one event a row, which columns mean what a mapping says.

Rows of a case may lie anywhere, so memory holds the log. Rows keep the order of the file where their times are equal.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import msgspec
import orjson

from flowtrail.errors import InputError
from flowtrail.logs.cases import Case, Entry, microseconds
from flowtrail.logs.xes import opened

_GUESSES: Final = {
    "case": ("case", "case_id", "caseid", "case:concept:name", "case id"),
    "activity": ("activity", "concept:name", "event", "task"),
    "time": ("time", "timestamp", "time:timestamp", "complete timestamp", "start"),
}
csv.field_size_limit(16 * 1024 * 1024)


class Mapping(msgspec.Struct, frozen=True):
    """Names of columns. `ended`: when the activity ended, if the log knows. Empty: found by the usual names."""

    case: str = ""
    activity: str = ""
    time: str = ""
    ended: str = ""
    separator: str = ","


def read_csv(path: Path, mapping: Mapping) -> Iterator[Case]:
    """Raises InputError."""
    with opened(path) as stream:
        text = io.TextIOWrapper(stream, "utf-8-sig", newline="")
        try:
            rows = csv.DictReader(text, delimiter=mapping.separator)
            columns = _columns(list(rows.fieldnames or ()), mapping, path)
            yield from _cases(((rows.line_num, row) for row in rows), columns, path)
        except UnicodeDecodeError as problem:
            raise InputError(f"Expected UTF-8 in {path} but {problem}") from None
        except csv.Error as problem:
            raise InputError(f"Expected CSV in {path} but {problem}") from None


def read_jsonl(path: Path, mapping: Mapping) -> Iterator[Case]:
    """Raises InputError."""
    with opened(path) as stream:
        rows = _objects(stream, path)
        first = next(rows, None)
        if first is None:
            raise InputError(f"Expected at least one event in {path} but found none")
        columns = _columns(list(first[1]), mapping, path)

        def whole() -> Iterator[tuple[int, dict[str, Any]]]:
            yield first
            yield from rows

        yield from _cases(whole(), columns, path)


def _objects(stream: Any, path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, line in enumerate(stream, 1):
        if not line.strip():
            continue
        try:
            found = orjson.loads(line)
        except orjson.JSONDecodeError as problem:
            raise InputError(f"Expected JSON but {problem} in line {number} of {path}") from None
        if not isinstance(found, dict):
            raise InputError(f"Expected an object but found {str(found)[:100]} in line {number} of {path}")
        yield number, found


def _columns(names: list[str], mapping: Mapping, path: Path) -> Mapping:
    found: dict[str, str] = {"ended": mapping.ended}
    lower = {name.lower(): name for name in names if name}
    for part, guesses in _GUESSES.items():
        wanted = getattr(mapping, part)
        name = wanted if wanted else next((lower[guess] for guess in guesses if guess in lower), "")
        if name not in names:
            raise InputError(
                f"Expected a column for the {part} of {path}, one of {', '.join(names)[:500]}, but found {name!r}"
            )
        found[part] = name
    if mapping.ended and mapping.ended not in names:
        raise InputError(f"Expected the column {mapping.ended} in {path} but found {', '.join(names)[:500]}")
    return Mapping(**found)


def _cases(rows: Iterator[tuple[int, dict[str, Any]]], columns: Mapping, path: Path) -> Iterator[Case]:
    cases: dict[str, list[Entry]] = {}
    used = {columns.case, columns.activity, columns.time, columns.ended}
    for number, row in rows:
        place = f"line {number} of {path}"
        case, activity, time = (row.get(name) for name in (columns.case, columns.activity, columns.time))
        if case in (None, "") or activity in (None, "") or time in (None, ""):
            raise InputError(
                f"Expected a case, an activity and a time but found {case!r}, {activity!r}, {time!r} in {place}"
            )
        ended = row.get(columns.ended) if columns.ended else None
        attributes = {
            name: value
            for name, value in row.items()
            if name and name not in used and value not in (None, "")
        }
        entry = Entry(
            str(activity),
            microseconds(str(time), place),
            None if ended in (None, "") else microseconds(str(ended), place),
            attributes,
        )
        cases.setdefault(str(case), []).append(entry)
    for case, entries in cases.items():
        yield Case(case, {}, sorted(entries, key=lambda entry: entry.time))
