"""Flowtrail's SDK: start flows and perform their tasks.

    from flowtrail import Client, Worker

`Client` talks to the API; `Worker` performs tasks of one queue, taken from Kafka. Within a task's function
`current_task()` tells about it and `heartbeat(progress)` says that it is alive; `return PENDING` leaves its completion to
whoever has its token. `flow` and `task` write definitions in Python (docs/authoring.md). Client and Worker need only the API's URL
(FLOWTRAIL_API_URL) and a key (FLOWTRAIL_API_KEY): brokers, topics and schemas are learnt from the API. Names that are
not listed here are internal.
"""

from flowtrail.client import Client, Flow
from flowtrail.errors import (
    PENDING,
    ApiError,
    Cancelled,
    FlowtrailError,
    InputError,
    Pending,
    TaskError,
    Unreachable,
    WaitTimeout,
)
from flowtrail.flows import (
    FlowFunction,
    Retry,
    Task,
    Value,
    attempt,
    call,
    default,
    each,
    emit,
    flow,
    functions_of,
    let,
    listen,
    not_,
    parallel,
    raise_error,
    register,
    size,
    task,
    wait,
    when,
)
from flowtrail.functions import TaskContext
from flowtrail.performing import CurrentTask, current_task, heartbeat
from flowtrail.secrets import unseal
from flowtrail.worker import Worker

__all__ = [
    "PENDING",
    "ApiError",
    "Cancelled",
    "Client",
    "CurrentTask",
    "Flow",
    "FlowFunction",
    "FlowtrailError",
    "InputError",
    "Pending",
    "Retry",
    "Task",
    "TaskContext",
    "TaskError",
    "Unreachable",
    "Value",
    "WaitTimeout",
    "Worker",
    "attempt",
    "call",
    "current_task",
    "default",
    "each",
    "emit",
    "flow",
    "functions_of",
    "heartbeat",
    "let",
    "listen",
    "not_",
    "parallel",
    "raise_error",
    "register",
    "size",
    "task",
    "unseal",
    "wait",
    "when",
]
