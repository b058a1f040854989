"""A flow's past as JSON: its state at a moment, what changed between two, and who gave each value.

What the command line prints with --json and the API answers. Everything is folded from the flow's records in the log.
"""

from __future__ import annotations

from typing import Any

from engine.errors import InputError
from replay.blame import Folded
from replay.flow import Log, rebuilt_at
from replay.moment import Moment
from replay.showing import state


def state_at(log: Log, until: Moment | None) -> dict[str, Any]:
    """Raises InputError, BrokenFlow."""
    return state(rebuilt_at(log, until))


def blame(log: Log, pointer: str = "", until: Moment | None = None) -> dict[str, Any]:
    """Every value at or below `pointer` with the event that gave it. Raises InputError, BrokenFlow."""
    if pointer and not pointer.startswith("/"):
        raise InputError(f"Expected a JSON pointer such as /data/amount but found {pointer[:200]!r}")
    folded = _folded(log, until)
    assert folded.state is not None
    values = [
        {"path": found.pointer, "value": found.after, "by": found.by.shown()}
        for found in folded.blame(pointer)
    ]
    if not values:
        raise InputError(f"Expected a value at {pointer} of flow {log.flow_id} but there is none then")
    return {"id": log.flow_id, "sequence": folded.state.sequence, "values": values}


def difference(log: Log, one: Moment, other: Moment | None) -> dict[str, Any]:
    """What is different at the later of the two moments, and by which event. Raises InputError, BrokenFlow."""
    before, after = _folded(log, one), _folded(log, other)
    assert before.state is not None
    assert after.state is not None
    if before.state.sequence > after.state.sequence:
        before, after = after, before
    assert before.state is not None
    assert after.state is not None
    first, last = before.state.sequence, after.state.sequence
    return {
        "id": log.flow_id,
        "from": first,
        "to": last,
        "changes": [change.shown() for change in after.changes_since(before.document)],
        "events": [
            {"sequence": e.event.sequence, "kind": e.event.kind, "task": e.event.task}
            for e in log.logged[first:last]
        ],
    }


def _folded(log: Log, until: Moment | None) -> Folded:
    kept = log.logged if until is None else rebuilt_at(log, until).logged
    folded = Folded()
    for one in kept:
        folded.take(one)
    return folded
