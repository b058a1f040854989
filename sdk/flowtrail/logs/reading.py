"""Which reader a log takes: by what was asked for, or by the file's name."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from flowtrail.errors import InputError
from flowtrail.logs.cases import Case
from flowtrail.logs.ocel import read_ocel
from flowtrail.logs.tables import Mapping, read_csv, read_jsonl
from flowtrail.logs.xes import read_xes

FORMATS: Final = ("xes", "ocel", "csv", "jsonl", "otlp")
_SUFFIXES: Final = {
    ".xes": "xes",
    ".jsonocel": "ocel",
    ".json": "ocel",
    ".csv": "csv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
}


def format_of(path: Path, asked: str | None = None) -> str:
    """Raises InputError."""
    name = path.name.removesuffix(".gz")
    found = asked or _SUFFIXES.get(Path(name).suffix.lower())
    if found not in FORMATS:
        raise InputError(
            f"Expected a format, one of {', '.join(FORMATS)}, or a file named by one but found {asked or path.name!r}"
        )
    return found


def read_cases(
    path: Path,
    form: str | None = None,
    *,
    mapping: Mapping | None = None,
    object_type: str | None = None,
) -> Iterator[Case]:
    """The cases of a log. Raises InputError."""
    if not path.is_file():
        raise InputError(f"Expected an event log at {path} but there is no such file")
    match format_of(path, form):
        case "xes":
            return read_xes(path)
        case "ocel":
            return read_ocel(path, object_type)
        case "csv":
            return read_csv(path, mapping or Mapping())
        case "jsonl":
            return read_jsonl(path, mapping or Mapping())
        case other:
            raise InputError(f"Expected a log of cases but {other} is sent as it is")
