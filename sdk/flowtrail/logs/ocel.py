"""OCEL 2.0 in JSON: the objects of one type are cases, the events that name them their entries.

An event of several such objects is an entry of each, as in every flattening of an object-centric log; related objects of other types
are attributes. Memory holds the file.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson

from flowtrail.errors import InputError
from flowtrail.logs.cases import Case, Entry, microseconds
from flowtrail.logs.xes import opened


def read_ocel(path: Path, object_type: str | None = None) -> Iterator[Case]:
    """Cases are the objects of `object_type`; without, of the only type there is. Raises InputError."""
    log = _log(path)
    types = Counter(str(one.get("type")) for one in log["objects"])
    chosen = object_type or (next(iter(types)) if len(types) == 1 else None)
    if chosen is None or chosen not in types:
        known = ", ".join(f"{name} ({count})" for name, count in sorted(types.items())) or "none"
        raise InputError(
            f"Expected the type of the objects that are cases, one of {known}, but found {object_type!r}"
        )
    kinds = {str(one["id"]): str(one.get("type")) for one in log["objects"]}
    entries: dict[str, list[Entry]] = defaultdict(list)
    for number, event in enumerate(log["events"], 1):
        for case, entry in _entries(event, number, kinds, chosen, path):
            entries[case].append(entry)
    for one in log["objects"]:
        if str(one.get("type")) == chosen:
            found = entries.get(str(one["id"]), [])
            yield Case(str(one["id"]), _latest(one), sorted(found, key=lambda entry: entry.time))


def _log(path: Path) -> dict[str, list[dict[str, Any]]]:
    try:
        with opened(path) as stream:
            log = orjson.loads(stream.read())
    except orjson.JSONDecodeError as problem:
        raise InputError(f"Expected JSON in {path} but {problem}") from None
    if not isinstance(log, dict) or not all(
        isinstance(log.get(part), list) for part in ("events", "objects")
    ):
        raise InputError(f"Expected an OCEL 2.0 log with events and objects in {path} but found none")
    for part in ("events", "objects"):
        for number, one in enumerate(log[part], 1):
            if not isinstance(one, dict) or "id" not in one:
                raise InputError(
                    f"Expected an id in each of the {part} of {path} but number {number} has none"
                )
    return log


def _entries(
    event: dict[str, Any], number: int, kinds: dict[str, str], chosen: str, path: Path
) -> Iterator[tuple[str, Entry]]:
    place = f"event {number} of {path}"
    if not isinstance(event.get("type"), str) or not isinstance(event.get("time"), str):
        raise InputError(f"Expected a type and a time but found {sorted(event)} in {place}")
    time = microseconds(event["time"], place)
    attributes = {str(one.get("name")): one.get("value") for one in event.get("attributes") or ()}
    related = [str(one.get("objectId")) for one in event.get("relationships") or ()]
    others: dict[str, list[str]] = defaultdict(list)
    for name in related:
        if kinds.get(name) != chosen:
            others[kinds.get(name, "object")].append(name)
    for case in dict.fromkeys(name for name in related if kinds.get(name) == chosen):
        yield case, Entry(event["type"], time, None, attributes | others | {"event": event["id"]})


def _latest(one: dict[str, Any]) -> dict[str, Any]:
    """Attributes change over time in OCEL: the last value of each."""
    given = sorted(one.get("attributes") or (), key=lambda attribute: str(attribute.get("time", "")))
    return {str(attribute.get("name")): attribute.get("value") for attribute in given}
