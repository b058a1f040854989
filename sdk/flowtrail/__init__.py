"""Flowtrail's SDK: start flows and perform their tasks.

    from flowtrail import Client, Worker

`Client` talks to the API; `Worker` performs tasks of one queue, taken from Kafka. Both need only the API's URL
(FLOWTRAIL_API_URL) and a key (FLOWTRAIL_API_KEY): brokers, topics and schemas are learnt from the API. Names that are
not listed here are internal.
"""

from flowtrail.client import Client, Flow
from flowtrail.errors import (
    ApiError,
    FlowtrailError,
    InputError,
    TaskError,
    Unreachable,
    WaitTimeout,
)
from flowtrail.functions import TaskContext
from flowtrail.worker import Worker

__all__ = [
    "ApiError",
    "Client",
    "Flow",
    "FlowtrailError",
    "InputError",
    "TaskContext",
    "TaskError",
    "Unreachable",
    "WaitTimeout",
    "Worker",
]
