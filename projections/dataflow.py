"""Fills in what events leave out: a task's input or output that is "same as the data before".

Pure. The rules are those of engine/core/folding.py (raw input = output of the task before in the same scope; a branch
gets its fork's input; a retry and a catch begin with the try's input), walked over the tasks of one flow in the order of
their events. Rows keep what the log says; this runs when they are read. What only an event holds (the events a listen
consumed) stays None here: history has it.
"""

from __future__ import annotations

import msgspec


class Step(msgspec.Struct):
    """One attempt of a task run. `begun` and `ended` are sequence numbers; `begun` is None for a task performed within one event."""

    task: str
    status: str
    begun: int | None
    ended: int | None
    input: str | None
    result: str | None
    output: str | None
    kind: str | None = None


class _Scope(msgspec.Struct):
    """What an active task holds: its input, the output of its last child, its branches' outputs."""

    input: str | None
    data: str | None
    listens: bool = False
    catching: bool = False
    branches: dict[int, str | None] = {}


def fill(data: str | None, steps: list[Step]) -> None:
    """Sets `input` of every step, and `output` of those completed or skipped, starting from the flow's `data`."""
    moments = [(step.begun, 1, step) for step in steps if step.begun is not None]
    moments += [
        (step.ended, 0 if step.status == "retried" else 2, step) for step in steps if step.ended is not None
    ]
    scopes: dict[str, _Scope] = {}
    again: dict[str, str | None] = {}  # inputs of attempts that were retried
    top = data
    for _, order, step in sorted(moments, key=lambda moment: moment[:2]):
        around = _around(scopes, step.task)
        before = _before(scopes, around, step.task, top)
        if order != 1 and step.status == "retried":
            if (gone := scopes.pop(step.task, None)) is not None:
                again[step.task] = gone.input
            continue
        if step.begun is None or order == 1:
            given = again.pop(step.task, before)
            step.input = given if step.input is None else step.input
        if order == 1:
            scopes[step.task] = _Scope(step.input, step.input, step.kind == "listen")
            continue
        own = scopes.pop(step.task, None) if step.begun is not None else None
        if step.status == "skipped":
            step.output = before
        elif step.status == "completed" and step.output is None:
            step.output = step.result if step.result is not None else _natural(own, before)
        if step.status in ("completed", "skipped"):
            top = _give(scopes, around, step, top)


def _around(scopes: dict[str, _Scope], task: str) -> str | None:
    """The innermost active task around `task`."""
    found = [other for other in scopes if task.startswith(other + "/")]
    return max(found, key=len, default=None)


def _before(scopes: dict[str, _Scope], around: str | None, task: str, top: str | None) -> str | None:
    if around is None:
        return top
    scope = scopes[around]
    if task.startswith("/fork/", len(around)):
        return scope.input
    if task.startswith("/catch/", len(around)) and not scope.catching:
        scope.catching, scope.data = True, scope.input
    return scope.data


def _natural(own: _Scope | None, before: str | None) -> str | None:
    if own is None:
        return before
    if own.listens:
        return None
    if own.branches:
        parts = [own.branches[number] for number in sorted(own.branches)]
        return None if None in parts else "[" + ",".join(str(part) for part in parts) + "]"
    return own.data


def _give(scopes: dict[str, _Scope], around: str | None, step: Step, top: str | None) -> str | None:
    """The output becomes the data of the scope around it; gives the flow's own data afterwards."""
    if around is None:
        return step.output
    scope, at = scopes[around], len(around)
    if step.task.startswith("/fork/branches/", at):
        number = int(step.task[at + len("/fork/branches/") :].split("/", 1)[0])
        scope.branches = scope.branches | {number: step.output}
    if not step.task.startswith("/extensions/", at):
        scope.data = step.output
    return top
