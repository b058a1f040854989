"""XES (IEEE 1849-2016), plain or gzip: a trace is a case, an event an entry.

Streams: memory holds one trace. The lifecycle is read where it says more than `complete`: a `start` and the `complete` of the same
activity (and instance) that follows it are one entry with a beginning and an end; any other transition is an entry of its own.
"""

from __future__ import annotations

import gzip
import xml.etree.ElementTree as ElementTree
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, Final, cast

from flowtrail.errors import InputError
from flowtrail.logs.cases import Case, Entry, microseconds

_NAME: Final = "concept:name"
_TIME: Final = "time:timestamp"
_STEP: Final = "lifecycle:transition"
_INSTANCE: Final = "concept:instance"


def read_xes(path: Path) -> Iterator[Case]:
    """Raises InputError."""
    for number, trace in enumerate(_traces(path), 1):
        yield _case(trace, number, path)


def opened(path: Path) -> IO[bytes]:
    """The file's bytes, unpacked when they are gzip."""
    stream = path.open("rb")
    magic = stream.read(2)
    stream.seek(0)
    return cast(IO[bytes], gzip.GzipFile(fileobj=stream)) if magic == b"\x1f\x8b" else stream


def _traces(path: Path) -> Iterator[ElementTree.Element]:
    try:
        with opened(path) as stream:
            # expat itself bounds what entities may grow to
            parser = ElementTree.iterparse(stream, events=("start", "end"))  # noqa: S314
            _, root = next(parser)
            if _tag(root) != "log":
                raise InputError(f"Expected an XES log in {path} but its root is <{_tag(root)}>")
            depth = 0
            for event, element in parser:
                depth += 1 if event == "start" else -1
                if event == "end" and depth == 0:
                    if _tag(element) == "trace":
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


def _tag(element: ElementTree.Element) -> str:
    return element.tag.rpartition("}")[2]


def _case(trace: ElementTree.Element, number: int, path: Path) -> Case:
    place = f"trace {number} of {path}"
    events: list[dict[str, Any]] = []
    attributes: dict[str, Any] = {}
    for child in trace:
        if _tag(child) == "event":
            events.append(_attributes(child, f"event {len(events) + 1} of {place}"))
        else:
            attributes |= _attribute(child, place)
    name = attributes.pop(_NAME, None)
    if name in (None, ""):
        raise InputError(f"Expected {_NAME} in every trace but {place} has none")
    return Case(str(name), attributes, _entries(events, place))


def _attributes(event: ElementTree.Element, place: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for child in event:
        found |= _attribute(child, place)
    for key in (_NAME, _TIME):
        if key not in found:
            raise InputError(f"Expected {key} in every event but {place} has none")
    return found


def _attribute(element: ElementTree.Element, place: str) -> dict[str, Any]:
    key, text, kind = element.get("key"), element.get("value"), _tag(element)
    if key is None:
        return {}
    if kind in ("list", "container"):
        members = element.iter()
        next(members)
        return {key: [one.get("value") for one in members if one.get("value") is not None]}
    if text is None:
        raise InputError(f"Expected the attribute {key} to have a value but it has none in {place}")
    try:
        match kind:
            case "int":
                return {key: int(text)}
            case "float":
                number = float(text)
                return {key: number if number - number == 0 else text}
            case "boolean":
                return {key: text.lower() in ("true", "1")}
            case _:
                return {key: text}
    except ValueError:
        raise InputError(f"Expected {key} to be a {kind} but found {text[:100]!r} in {place}") from None


def _entries(events: list[dict[str, Any]], place: str) -> list[Entry]:
    found: list[Entry] = []
    open_: dict[tuple[str, Any], list[Entry]] = {}
    for number, attributes in enumerate(events, 1):
        activity, at = str(attributes.pop(_NAME)), f"event {number} of {place}"
        time = microseconds(str(attributes.pop(_TIME)), at)
        step, key = str(attributes.get(_STEP, "complete")).lower(), (activity, attributes.get(_INSTANCE))
        if step == "complete" and open_.get(key):
            begun = open_[key].pop(0)
            begun.ended, begun.is_open = time, False
            begun.attributes |= attributes
            continue
        entry = Entry(activity, time, None, attributes, is_open=step == "start")
        if entry.is_open:
            open_.setdefault(key, []).append(entry)
        found.append(entry)
    return found
