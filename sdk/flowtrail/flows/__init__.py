"""Definitions written in Python: a typed function is traced once and becomes a document of the definition language.

    from flowtrail import each, flow, parallel, task, when

The function runs when the document is made, never in the engine: what it is given are traced values (values.py), and
calls of tasks, `when`, `each` and the like leave steps behind (tracing.py). See docs/authoring.md.
"""

from flowtrail.flows.control import (
    attempt,
    call,
    each,
    emit,
    let,
    listen,
    parallel,
    raise_error,
    wait,
    when,
)
from flowtrail.flows.definition import FlowFunction, flow, functions_of, register
from flowtrail.flows.tasks import Retry, Task, task
from flowtrail.flows.values import Value, default, not_, size

__all__ = [
    "FlowFunction",
    "Retry",
    "Task",
    "Value",
    "attempt",
    "call",
    "default",
    "each",
    "emit",
    "flow",
    "functions_of",
    "let",
    "listen",
    "not_",
    "parallel",
    "raise_error",
    "register",
    "size",
    "task",
    "wait",
    "when",
]
