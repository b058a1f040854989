"""Fills in what events leave out: a task's input or output that is "same as the data before".

Pure. The rule is that of engine/core/evolve.py (raw input = output of the task before in the same scope), walked over
the tasks of one flow in the order of their events. Rows keep what the log says; this runs when they are read.
"""

from __future__ import annotations

import msgspec


class Step(msgspec.Struct):
    """One task run. `begun` and `ended` are sequence numbers; `begun` is None for a task performed within one event."""

    task: str
    status: str
    begun: int | None
    ended: int | None
    input: str | None
    result: str | None
    output: str | None


def fill(data: str | None, steps: list[Step]) -> None:
    """Sets `input` of every step, and `output` of those completed or skipped, starting from the flow's `data`."""
    moments = [(step.begun, 0, step) for step in steps if step.begun is not None]
    moments += [(step.ended, 1, step) for step in steps if step.ended is not None]
    scopes: dict[str, str | None] = {}
    top = data
    for _, ending, step in sorted(moments, key=lambda moment: moment[:2]):
        scope = _scope(scopes, step.task)
        before = top if scope is None else scopes[scope]
        if step.begun is None or not ending:
            step.input = before if step.input is None else step.input
        if not ending:
            scopes[step.task] = step.input
            continue
        own = scopes.pop(step.task, before) if step.begun is not None else before
        if step.status == "skipped":
            step.output = before
        elif step.status == "completed":
            if step.output is None:
                step.output = own if step.result is None else step.result
            if scope is None:
                top = step.output
            else:
                scopes[scope] = step.output


def _scope(scopes: dict[str, str | None], task: str) -> str | None:
    """The innermost active task around `task`."""
    around = [other for other in scopes if task.startswith(other + "/")]
    return max(around, key=len, default=None)
