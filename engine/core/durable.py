"""Durations: when something that begins at a moment ends, in the flow's own time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from engine.core.faults import expression_failed
from engine.dsl import durations
from engine.dsl.errors import ExpressionError
from engine.dsl.model import Duration, Json, Task

if TYPE_CHECKING:
    from engine.core.interpret import Interpreter


def reads_of(duration: Duration) -> frozenset[str]:
    return frozenset() if duration.expression is None else duration.expression.reads


def due_of(duration: Duration, value: Json, arguments: Mapping[str, Json], since: int, where: str) -> int:
    """When `duration`, begun at `since` (microseconds since the Unix epoch), ends. Raises Fault."""
    try:
        if duration.expression is not None:
            duration = durations.read(duration.expression.evaluate(value, arguments))
        return durations.due(duration, since)
    except ExpressionError as problem:
        raise expression_failed(where, str(problem)) from None


def end_of(
    it: Interpreter, duration: Duration, task: Task, raw: bytes, data: bytes, since: int, where: str
) -> int:
    """The same for a duration of `task`, whose expressions see its input. Raises Fault."""
    arguments = it.arguments.of(reads_of(duration), task, raw=raw, data=data)
    return due_of(duration, it.recording.value(data), arguments, since, where)
