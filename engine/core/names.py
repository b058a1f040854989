"""Tasks known again by their names: what stays the same when a definition moves a task to another place in a list. Pure."""

from __future__ import annotations

from engine.dsl.model import Approval, Definition, Subflow, Task


def names_of(pointer: str) -> str:
    """`/do/2/charge` -> `/do/charge`: the pointer without the places in lists, each of which a name follows."""
    parts = pointer.split("/")
    kept: list[str] = []
    at = 0
    while at < len(parts):
        if parts[at].isdigit() and at + 1 < len(parts):
            at += 1  # the name behind it is kept, whatever it looks like
        kept.append(parts[at])
        at += 1
    return "/".join(kept)


def place_of(definition: Definition, pointer: str) -> str | None:
    """The pointer, in `definition`, of the task that another version had at `pointer`; None: it has no such task."""
    if pointer in definition.tasks:
        return pointer
    wanted = names_of(pointer)
    return next((place for place in definition.tasks if names_of(place) == wanted), None)


def kind_of(task: Task) -> str:
    """What an event says a task is."""
    match task:
        case Approval():
            return "approval"
        case Subflow():
            return "subflow"
        case _:
            return task.kind
