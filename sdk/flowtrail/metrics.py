"""The worker's Prometheus metrics, in prometheus_client's default registry. docs/metrics.md lists them.

Label `function` holds registered names only ("unknown" for others), so that no record can create a time series.
"""

from __future__ import annotations

import logging
from functools import cache
from typing import Final

from prometheus_client import Counter, Gauge, Histogram, start_http_server

from flowtrail.errors import InputError

TASKS: Final = Counter(
    "flowtrail_worker_tasks_total", "Tasks performed, by function and outcome.", ["function", "outcome"]
)
SECONDS: Final = Histogram(
    "flowtrail_worker_task_seconds",
    "Time a function took.",
    ["function"],
    buckets=(0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300),
)
IN_FLIGHT: Final = Gauge("flowtrail_worker_in_flight", "Tasks being performed now.", ["queue"])
BUFFERED: Final = Gauge(
    "flowtrail_worker_buffered", "Tasks taken whose results are not acknowledged yet.", ["queue"]
)
REDELIVERED: Final = Counter(
    "flowtrail_worker_redelivered_total",
    "Tasks this process had taken before (after a rebalance).",
    ["queue"],
)
UNREADABLE: Final = Counter(
    "flowtrail_worker_unreadable_total",
    "Records of the queue that are no task; logged and passed over.",
    ["queue"],
)


@cache
def _children(function: str, outcome: str) -> tuple[Counter, Histogram]:
    return TASKS.labels(function, outcome), SECONDS.labels(function)


def observe(function: str, outcome: str, seconds: float) -> None:
    """One task is over: `outcome` is completed, failed, cancelled or pending (somebody else completes it)."""
    count, histogram = _children(function, outcome)
    count.inc()
    histogram.observe(seconds)


def serve(port: int, host: str = "127.0.0.1") -> None:
    """Serves /metrics in a thread of its own until the process ends."""
    try:
        start_http_server(port, host)
    except OSError as problem:
        raise InputError(f"Expected port {port} to be free for metrics but {problem.strerror}") from None
    logging.getLogger("flowtrail.worker").info("metrics on http://%s:%d/metrics", host, port)
