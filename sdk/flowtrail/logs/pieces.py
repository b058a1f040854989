"""A case as a trail's recorder would have sent it: the flow, a step an entry, and their ends (docs/trails.md). Pure."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from typing import Any, Final

from flowtrail.logs.cases import Case

_FLOW_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,127}")


def flow_id_of(case: str, prefix: str = "") -> str:
    """The case's own name where it can be one; another is told by its hash, and kept as the attribute `case`."""
    wanted = f"{prefix}{case}"
    if _FLOW_ID.fullmatch(wanted):
        return wanted
    kept = re.sub(r"[^A-Za-z0-9._:-]+", "-", wanted).strip("-._:")[:80]
    return f"{kept or 'case'}-{hashlib.sha256(wanted.encode()).hexdigest()[:12]}"


def pieces_of(case: Case, name: str, prefix: str = "") -> Iterator[dict[str, Any]]:
    """In order; `number` counts from 1 without a gap. A case without entries has no time to begin at: it gives nothing."""
    if not case.entries:
        return
    flow = flow_id_of(case.id, prefix)
    begun = min(entry.time for entry in case.entries)
    over = max(max(entry.time, entry.ended or entry.time) for entry in case.entries)
    attributes = case.attributes if flow == f"{prefix}{case.id}" else case.attributes | {"case": case.id}
    number = 1
    yield _piece(flow, number, begun, "flow-started", name=name, attributes=_clean(attributes))
    for place, entry in enumerate(case.entries, 1):
        step = f"{place:06d}"
        number += 1
        told = {"step": step, "name": entry.activity, "attributes": _clean(entry.attributes)}
        yield _piece(flow, number, entry.time, "step-started", **told)
        if entry.is_open:
            continue
        number += 1
        ended = entry.time if entry.ended is None else entry.ended
        yield _piece(flow, number, max(ended, entry.time), "step-ended", step=step, status="completed")
    yield _piece(flow, number + 1, over, "flow-ended", status="completed")


def _piece(flow: str, number: int, time: int, kind: str, **members: Any) -> dict[str, Any]:
    return {"flow": flow, "number": number, "time": time, "kind": kind, **members}


def _clean(attributes: dict[str, Any]) -> dict[str, Any]:
    """Text that Postgres can search: a NUL character becomes U+2400, its picture."""
    return {
        key.replace("\0", "␀"): value.replace("\0", "␀") if isinstance(value, str) else value
        for key, value in attributes.items()
    }
