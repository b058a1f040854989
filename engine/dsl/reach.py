"""Warnings: tasks that no path leads to, and a `switch` without a default case."""

from __future__ import annotations

from collections.abc import Mapping

from engine.dsl.checks import Checks
from engine.dsl.model import Extended, Raise, Switch, Task


def warn_unreachable(checks: Checks, tasks: Mapping[str, Task | None], places: Mapping[str, str]) -> None:
    """`places`: of the tasks of one scope, by pointer, in their order. Says nothing where a task has problems."""
    scope = [tasks.get(pointer) for pointer in places]
    if not scope or any(task is None for task in scope):
        return
    pending = [next(iter(places))]
    reached: set[str] = set()
    while pending:
        pointer = pending.pop()
        if pointer in reached or pointer not in places:
            continue
        reached.add(pointer)
        task = tasks[pointer]
        assert task is not None
        pending += following(tasks, task)
    for pointer, place in places.items():
        if pointer not in reached:
            name = getattr(tasks[pointer], "name", "")
            checks.warn(f"The task {name!r} is never reached", place)


def following(tasks: Mapping[str, Task | None], task: Task) -> list[str]:
    """The tasks of the same scope that may come next."""
    content = tasks.get(task.inner) if isinstance(task, Extended) else task
    directives: list[str] = []
    if isinstance(content, Switch):
        directives += [case.then for case in content.cases]
        if all(case.when is not None for case in content.cases):
            directives.append(task.then)
    elif not isinstance(content, Raise):
        directives.append(task.then)
    if task.condition is not None:
        directives.append("continue")
    found = [task.next if directive == "continue" else directive for directive in directives]
    return [pointer for pointer in found if pointer is not None]
