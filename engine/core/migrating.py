"""A live flow that goes on under another version of its definition: whether it can, and what is another place then.

A task is known again by its name and those around it. What a flow waits for must mean the same under both versions; what
is over, or yet to come, may be anything. The run counters of tasks that the version does not have are kept, so that going
back is the same in the other direction.
"""

from __future__ import annotations

from collections.abc import Iterable

from engine.core.evolve import active_of
from engine.core.names import kind_of, names_of
from engine.core.recording import Recording
from engine.dsl.model import Call, Definition, Extended, Fork, Listen, Task
from schemas import messages as m


class Unmovable(Exception):
    """The flow cannot go on under that version; the text says why ("Expected ... but ...")."""


def migrate(recording: Recording, old: Definition, new: Definition, reason: str | None) -> None:
    """Records that the flow goes on under `new`. Raises Unmovable."""
    live = recording.live
    if old.hash == new.hash:
        raise Unmovable(f"Expected another definition than the flow's but {new.id} is {old.id}")
    moved = moves(live, old, new, live.active)
    active = tuple(
        [
            m.ActiveRun(moved[a.task], a.run, a.attempt, kind_of(new.tasks[moved[a.task]]), a.task)
            for a in live.active
            if a.task in moved
        ]
    )
    recording.definition_id, recording.definition_hash = new.id, new.hash
    recording.emit(m.FlowMigrated(old.id, old.hash, moved, active, reason))


def moves(
    live: m.LiveFlow, old: Definition, new: Definition, going_on: Iterable[m.ActiveTask]
) -> dict[str, str]:
    """The tasks of `live` that stand elsewhere in `new`: pointer before -> pointer now.

    Of its active tasks those in `going_on` must mean the same; the others need only be there. Raises Unmovable.
    """
    if (old.namespace, old.name) != (new.namespace, new.name):
        raise Unmovable(
            f"Expected another version of {old.namespace}/{old.name} but found {new.namespace}/{new.name}"
        )
    if live.fate is not None:
        raise Unmovable("Expected a flow that is not being undone but its compensations are under way")
    places = {names_of(pointer): pointer for pointer in new.tasks}
    for active in going_on:
        _same(active, old.tasks[active.task], _found(new, places, active.task))
    for pointer in (*(active.task for active in live.active), *live.ready):
        _found(new, places, pointer)
    for undo in live.compensations:
        if _found(new, places, undo.task).compensate is None:
            raise Unmovable(f"Expected {undo.task} to name what undoes it but in {new.id} it does not")
    known = [*live.runs, *(a.task for a in live.active), *live.ready, *(u.task for u in live.compensations)]
    found = {pointer: places.get(names_of(pointer), pointer) for pointer in known}
    return {was: now for was, now in found.items() if was != now}


def _found(new: Definition, places: dict[str, str], pointer: str) -> Task:
    place = places.get(names_of(pointer))
    if place is None:
        raise Unmovable(f"Expected {new.id} to have the task {names_of(pointer)} but it has none")
    return new.tasks[place]


def _same(active: m.ActiveTask, was: Task, now: Task) -> None:
    """What others hold of an active run must stay right. Raises Unmovable."""
    if type(was) is not type(now):
        raise Unmovable(f"Expected {active.task} to stay a {was.kind} but it is a {now.kind}")
    stays = was.pointer == now.pointer
    match was, now:
        case Call(), Call():
            if (was.function, was.queue, was.wait) != (now.function, now.queue, now.wait):
                raise Unmovable(
                    f"Expected {active.task}, which waits, to call {was.function} still but it calls {now.function}"
                )
            if _limits(was) != _limits(now):
                raise Unmovable(f"Expected {active.task}, which waits, to keep its limits but they differ")
            if was.limits and not stays:
                raise Unmovable(f"Expected {active.task}, which has limits and waits, to stay in its place")
        case Listen(), Listen():
            if not stays or was.definition != now.definition:
                raise Unmovable(f"Expected {active.task}, which listens, to stay as and where it is")
        case Fork(), Fork():
            if _names(was.branches) != _names(now.branches) or was.compete != now.compete:
                raise Unmovable(f"Expected {active.task}, which is under way, to keep its branches")
        case Extended(), Extended():
            if len(was.before) != len(now.before) or len(was.after) != len(now.after):
                raise Unmovable(f"Expected {active.task}, which is under way, to keep its extensions")
        case _:
            pass


def _limits(task: Call) -> list[tuple[str, int, int, int]]:
    return [(one.name, one.concurrency, one.rate, one.per) for one in task.limits]


def _names(pointers: tuple[str, ...]) -> list[str]:
    return [pointer.rsplit("/", 1)[1] for pointer in pointers]


def stale(live: m.LiveFlow, definition: Definition, pointer: str) -> m.ActiveTask | None:
    """The active run that a task's JSON pointer of an earlier version names: a worker may still know it by that."""
    if pointer in definition.tasks:
        return None
    wanted = names_of(pointer)
    found = next((a.task for a in live.active if names_of(a.task) == wanted), None)
    return None if found is None else active_of(live, found)
