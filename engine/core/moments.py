"""What a moment of the past is, and what going on from it changes in a state: the fold's side of restoring.py. Pure."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

import msgspec
import orjson

from engine.core.folding import inline, scope_of
from schemas import messages as m
from schemas.codec import Undecodable, decode_snapshot

Changes = dict[str, Any]

_replace = msgspec.structs.replace


class Unrestorable(Exception):
    """The moment cannot be restored; the text says why ("Expected ... but ...")."""


def moment(restore: m.Restore) -> m.LiveFlow:
    """The state a command or an event carries. Raises Unrestorable."""
    try:
        found = decode_snapshot(restore.state)
    except Undecodable as problem:
        raise Unrestorable(f"Expected the state of a flow but {problem}") from None
    if not isinstance(found, m.LiveFlow):
        raise Unrestorable(f"Expected the state of a live flow but found a {type(found).__name__}")
    if (found.flow_id, found.sequence) != (restore.flow_id, restore.sequence):
        raise Unrestorable(
            f"Expected the state of {restore.flow_id} after event {restore.sequence} but found that of "
            f"{found.flow_id} after event {found.sequence}"
        )
    return found


# -- what goes on, what begins again ------------------------------------------------------------------------------------


def _is_entered(past: m.LiveFlow, active: m.ActiveTask) -> bool:
    """A composite goes on: something in it waited, was to be performed next, or is to be tried again."""
    within = active.task + "/"
    return (
        active.purpose == "retry"
        or any(other.task.startswith(within) for other in past.active)
        or any(pointer.startswith(within) for pointer in past.ready)
    )


def entered(past: m.LiveFlow) -> list[m.ActiveTask]:
    return [active for active in past.active if _is_entered(past, active)]


def again(past: m.LiveFlow) -> tuple[str, ...]:
    """The tasks to perform: those that waited, then those that a long decision had left."""
    return (*(a.task for a in past.active if not _is_entered(past, a)), *past.ready)


# -- folding ------------------------------------------------------------------------------------------------------------


def runs_of(live: m.LiveFlow, past: m.LiveFlow) -> dict[str, int]:
    """No run's number is given twice, whatever is restored."""
    return live.runs | {task: max(run, live.runs.get(task, 0)) for task, run in past.runs.items()}


def relocated(state: m.LiveFlow, moved: Mapping[str, str]) -> Changes:
    """What changes when the tasks the state knows have other pointers."""

    def now(task: str) -> str:
        return moved.get(task, task)

    return {
        "active": tuple([_replace(active, task=now(active.task)) for active in state.active]),
        "runs": {now(task): run for task, run in state.runs.items()},
        "ready": tuple([now(task) for task in state.ready]),
        "compensations": tuple([_replace(undo, task=now(undo.task)) for undo in state.compensations]),
    }


def past_of(restore: m.Restore, moved: Mapping[str, str]) -> m.LiveFlow:
    """The moment with the pointers of now. Raises Unrestorable."""
    past = moment(restore)
    past = _replace(past, **relocated(past, moved)) if moved else past
    return past if restore.data is None else _given(past, inline(restore.data))


def _given(past: m.LiveFlow, data: bytes) -> m.LiveFlow:
    """The first task that is performed again gets `data`."""
    task = next(iter(again(past)), "")
    scope = scope_of(past, task)
    if scope is None:
        return _replace(past, data=data)
    changed = _replace(scope, **{"input" if task.startswith("/fork/", len(scope.task)) else "data": data})
    return _replace(past, active=tuple([changed if one is scope else one for one in past.active]))


def rolling_back(body: m.FlowRollingBack) -> bytes:
    """The flow's fate while it is undone."""
    wanted = body.restore
    data = None if wanted.data is None else inline(wanted.data).decode()
    moment_of = {
        "flow_id": wanted.flow_id,
        "sequence": wanted.sequence,
        "state": base64.b64encode(wanted.state).decode(),
        "data": data,
    }
    return orjson.dumps({"restore": moment_of, "moved": body.moved, "keep": body.keep})


def wanted_by(fate: bytes) -> tuple[m.Restore, dict[str, str]]:
    """The moment to restore once all is undone, and what stands elsewhere since."""
    found = orjson.loads(fate)
    of = found["restore"]
    data = None if of["data"] is None else of["data"].encode()
    return m.Restore(of["flow_id"], of["sequence"], base64.b64decode(of["state"]), data), found["moved"]


def restored(state: m.LiveFlow, event: m.Event, body: m.FlowRestored) -> Changes:
    """What FlowRestored changes. Raises Unrestorable for what no engine has written."""
    if body.restore.sequence == 0:
        return {}
    past = past_of(body.restore, body.moved)
    shift = event.time - past.updated_at
    runs = runs_of(state, past)
    active = []
    for one, run in zip(entered(past), body.active, strict=True):
        runs[one.task] = run.run
        active.append(_put_forward(one, run.run, shift))
    return {
        "status": "running",
        "data": past.data,
        "context": past.context,
        "active": tuple(active),
        "runs": runs,
        "ready": (),
        "steps": 0,
        "compensations": past.compensations if body.restore.flow_id == state.flow_id else (),
        "fate": None,
        "parked": (),
    }


def _put_forward(one: m.ActiveTask, run: int, shift: int) -> m.ActiveTask:
    return _replace(
        one,
        run=run,
        due=one.due and one.due + shift,
        deadline=one.deadline and one.deadline + shift,
        retrying_since=one.retrying_since and one.retrying_since + shift,
    )
