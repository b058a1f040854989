"""What FlowRestored and FlowRollingBack tell in words: the moment's data and composites instead of a snapshot's bytes. Pure."""

from __future__ import annotations

from collections import defaultdict
from typing import Any, Final

import msgspec

from engine.core.moments import entered, past_of
from projections.copying import inline
from schemas import messages as m

_Raw: Final = msgspec.Raw


def restored_past(body: m.FlowRestored) -> m.LiveFlow | None:
    """The state it restores; None: the flow's beginning."""
    return None if body.restore.sequence == 0 else past_of(body.restore, body.moved)


def rolling_back(body: m.FlowRollingBack) -> dict[str, Any]:
    shown: dict[str, Any] = {"restore": _restore(body.restore), "keep": body.keep}
    if body.moved:
        shown["moved"] = body.moved
    return shown if body.reason is None else shown | {"reason": body.reason}


def restored(body: m.FlowRestored) -> dict[str, Any]:
    """`scopes`: what each composite that is entered again held; `done`: what a compensation would undo."""
    shown: dict[str, Any] = {"restore": _restore(body.restore)}
    past = restored_past(body)
    if past is None:
        return shown
    if body.moved:
        shown["moved"] = body.moved
    done = defaultdict(list)
    for undo in past.compensations:
        done[undo.task].append({"input": _Raw(undo.input), "output": _Raw(undo.output)})
    return shown | {
        "ready": body.ready,
        "active": [{"task": a.task, "run": a.run, "attempt": a.attempt, "kind": a.kind} for a in body.active],
        "data": _Raw(past.data),
        "context": _Raw(past.context),
        "scopes": {active.task: _scope(active) for active in entered(past)},
        "done": done,
    }


def _restore(restore: m.Restore) -> dict[str, Any]:
    shown: dict[str, Any] = {"flow_id": restore.flow_id, "sequence": restore.sequence}
    return shown if restore.data is None else shown | {"data": _Raw(inline(restore.data))}


def _scope(active: m.ActiveTask) -> dict[str, Any]:
    shown: dict[str, Any] = {
        "input": _Raw(active.input),
        "data": _Raw(active.data),
        "catching": active.error is not None,
    }
    if active.results:
        shown["branches"] = {result.key: _Raw(result.value) for result in active.results}
    return shown
