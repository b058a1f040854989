"""A flow that goes on from a moment of the past: its own (rolled back), or another flow's (run again).

A moment is the state between two decisions, when every token of the flow waits. What waited then is performed again, as
new runs, so that nothing that is still under way elsewhere can answer for it; the composites around it are entered again as they
were, their clocks put forward by the time that has passed. What happened since is undone first, by the compensations that
were recorded since, the newest first; then the context, the data and the loops are those of the moment.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from engine.core import scopes
from engine.core.migrating import Unmovable, moves
from engine.core.moments import Unrestorable, again, entered, moment, past_of, runs_of, wanted_by
from engine.core.names import kind_of
from engine.dsl.model import Definition, Listen
from schemas import messages as m

if TYPE_CHECKING:
    from engine.core.interpret import Interpreter

__all__ = ["Unrestorable", "begin", "check", "moment", "restore", "roll_back"]


def check(definition: Definition, past: m.LiveFlow, then: Definition | None) -> dict[str, str]:
    """Whether a flow of `definition` can go on from `past`, which ran under `then`.

    Gives what stands elsewhere: pointer then -> pointer now. Raises Unrestorable.
    """
    if past.fate is not None:
        raise Unrestorable("Expected a moment at which the flow went forward but it was being undone")
    moved: dict[str, str] = {}
    if past.definition_hash != definition.hash:
        if then is None or then.hash != past.definition_hash:
            raise Unrestorable(f"Expected {past.definition}, under which the flow ran then, to be published")
        try:
            moved = moves(past, then, definition, entered(past))
        except Unmovable as problem:
            raise Unrestorable(str(problem)) from None
    for active in entered(past):
        if isinstance(definition.tasks[moved.get(active.task, active.task)], Listen):
            raise Unrestorable(
                f"Expected a moment outside of the tasks that {active.task} performs for an event"
            )
    return moved


def roll_back(it: Interpreter, body: m.RollBackFlow, then: Definition | None) -> None:
    """Undoes what was completed since the moment, as far as this decision comes. Raises Unrestorable."""
    rec = it.recording
    live = rec.live
    if live.fate is not None:
        raise Unrestorable("Expected a flow that is not being undone but its compensations are under way")
    if body.restore.flow_id != live.flow_id:
        raise Unrestorable(f"Expected a moment of {live.flow_id} but found one of {body.restore.flow_id}")
    past = moment(body.restore)
    if past.sequence > live.sequence:
        raise Unrestorable(f"Expected a moment up to event {live.sequence} but found {past.sequence}")
    moved = check(it.definition, past, then)
    kept = [msgspec.structs.replace(u, task=moved.get(u.task, u.task)) for u in past.compensations]
    if list(live.compensations[: len(kept)]) != kept:
        raise Unrestorable(
            "Expected what was completed before the moment to stand but some of it was undone since"
        )
    rec.emit(m.FlowRollingBack(body.restore, moved, len(kept), body.reason))
    scopes.cancel_all(it)


def restore(it: Interpreter) -> None:
    """All is undone: the flow goes on from the moment."""
    fate = it.recording.live.fate
    assert fate is not None
    _restored(it, *wanted_by(fate))


def begin(it: Interpreter, wanted: m.Restore, then: Definition | None) -> None:
    """A flow that has just started goes on as another one stood."""
    if wanted.sequence == 0:
        it.recording.emit(m.FlowRestored(wanted))
        it.agenda.append(it.definition.first)
        return
    _restored(it, wanted, check(it.definition, moment(wanted), then))


def _restored(it: Interpreter, wanted: m.Restore, moved: dict[str, str]) -> None:
    past = past_of(wanted, moved)
    runs = runs_of(it.recording.live, past)
    active = tuple(
        [
            m.ActiveRun(a.task, runs.get(a.task, 0) + 1, a.attempt, kind_of(it.definition.tasks[a.task]))
            for a in entered(past)
        ]
    )
    ready = again(past)
    it.recording.emit(m.FlowRestored(wanted, moved, active, ready))
    it.agenda.extend(ready)
