"""Reads an event log in XES (plain or gzip) into one input of permit.yaml a trace, in the order of the file.

Streams: what is kept in memory is one trace, however long the log is. Attributes keep their names and values; times
become UTC with milliseconds (the same moments, in a form that compares as text). Absent optional attributes are null.
Whatever cannot be read raises InputError with its place; no trace is left out in silence.
"""

from __future__ import annotations

import gzip
import re
import xml.etree.ElementTree as ElementTree
import zlib
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Final, TypedDict, cast

from flowtrail import InputError

CASE_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,99}")
"""What a case may be called: its name becomes the flow's id, with room for a prefix."""

_REQUIRED_TEXTS: Final = ("responsible", "department", "channel")
_REQUIRED_TIMES: Final = ("startdate", "deadline", "enddate_planned")


class CaseInput(TypedDict):
    """The input of one flow."""

    case: str
    responsible: str
    department: str
    group: str | None
    channel: str
    startdate: str
    deadline: str
    enddate_planned: str
    enddate: str | None
    events: int
    first_activity: str
    last_activity: str


def read_cases(path: Path) -> Iterator[CaseInput]:
    """Every case of the log. Raises InputError."""
    seen: set[str] = set()
    number = 0
    for trace in _traces(path):
        number += 1
        case = _case(trace, f"trace {number} of {path}")
        if case["case"] in seen:
            raise InputError(f"Expected every case once in {path} but found {case['case']} again")
        seen.add(case["case"])
        yield case
    if not number:
        raise InputError(f"Expected at least one trace in {path} but found none")


def _traces(path: Path) -> Iterator[ElementTree.Element]:
    """Each complete `trace` element; it is dropped when the next one is asked for."""
    try:
        with _opened(path) as stream:
            # expat itself bounds what entities may grow to
            parser = ElementTree.iterparse(stream, events=("start", "end"))  # noqa: S314
            _, root = next(parser)
            if _name(root) != "log":
                raise InputError(f"Expected an XES log in {path} but its root is <{_name(root)}>")
            depth = 0
            for event, element in parser:
                depth += 1 if event == "start" else -1
                if event == "end" and depth == 0:
                    if _name(element) == "trace":
                        yield element
                    root.clear()
    except ElementTree.ParseError as problem:
        line, column = problem.position
        text = str(problem).split(":")[0]
        raise InputError(
            f"Expected well-formed XML in {path} but {text} at line {line}, column {column + 1}"
        ) from None
    except (EOFError, zlib.error, gzip.BadGzipFile) as problem:
        raise InputError(f"Expected a whole gzip file at {path} but {problem}") from None
    except OSError as problem:
        raise InputError(f"Expected an event log at {path} but {problem.strerror or problem}") from None


def _opened(path: Path) -> IO[bytes]:
    stream = path.open("rb")
    magic = stream.read(2)
    stream.seek(0)
    return cast(IO[bytes], gzip.GzipFile(fileobj=stream)) if magic == b"\x1f\x8b" else stream


def _name(element: ElementTree.Element) -> str:
    return element.tag.rpartition("}")[2]


def _case(trace: ElementTree.Element, place: str) -> CaseInput:
    attributes: dict[str, str] = {}
    activities: list[str] = []
    for child in trace:
        if _name(child) == "event":
            activities.append(_activity(child, place))
        elif (key := child.get("key")) is not None:
            attributes[key] = child.get("value", "")
    name = _required(attributes, "concept:name", place)
    place = f"{name}, {place}"
    if not CASE_ID.fullmatch(name):
        raise InputError(
            f"Expected a case's name of letters, digits and . _ : - but found {name[:200]!r} in {place[-200:]}"
        )
    if not activities:
        raise InputError(f"Expected at least one event but found none in {place}")
    texts = {key: _required(attributes, key, place) for key in _REQUIRED_TEXTS}
    times = {key: _moment(_required(attributes, key, place), key, place) for key in _REQUIRED_TIMES}
    ended = attributes.get("enddate")
    return CaseInput(
        case=name,
        responsible=texts["responsible"],
        department=texts["department"],
        group=attributes.get("group"),
        channel=texts["channel"],
        startdate=times["startdate"],
        deadline=times["deadline"],
        enddate_planned=times["enddate_planned"],
        enddate=None if ended is None else _moment(ended, "enddate", place),
        events=len(activities),
        first_activity=activities[0],
        last_activity=activities[-1],
    )


def _activity(event: ElementTree.Element, place: str) -> str:
    for attribute in event:
        if attribute.get("key") == "concept:name":
            return attribute.get("value", "")
    raise InputError(f"Expected concept:name in every event but one has none in {place}")


def _required(attributes: dict[str, str], key: str, place: str) -> str:
    if not (value := attributes.get(key)):
        found = "it is empty" if key in attributes else "it is missing"
        raise InputError(f"Expected attribute {key} but {found} in {place}")
    return value


def _moment(text: str, key: str, place: str) -> str:
    try:
        moment = datetime.fromisoformat(text)
        if moment.tzinfo is None:
            raise ValueError("it has no zone")
        return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    except (ValueError, OverflowError):
        raise InputError(
            f"Expected {key} to be a time with its zone but found {text[:100]!r} in {place}"
        ) from None
