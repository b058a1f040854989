"""Metrics of the projector, and the small server that shows them (docs/metrics.md)."""

from __future__ import annotations

from typing import Final

from prometheus_client import Counter, Gauge, Histogram, start_http_server

from engine.errors import InputError

_LABELS: Final = ["partition"]

LAG_EVENTS: Final = Gauge(
    "flowtrail_projection_lag_events", "records of the log that are not folded yet, by partition", _LABELS
)
LAG_SECONDS: Final = Gauge(
    "flowtrail_projection_lag_seconds",
    "age of the last folded event while records are waiting, else 0",
    _LABELS,
)
POSITION: Final = Gauge("flowtrail_projection_position", "first offset that is not folded yet", _LABELS)
ROWS: Final = Counter("flowtrail_projection_rows", "rows written, by table", ["table"])
EVENTS: Final = Counter("flowtrail_projection_events", "records of the log folded")
BATCH: Final = Histogram(
    "flowtrail_projection_batch_records",
    "records written in one transaction",
    buckets=(1, 2, 5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000),
)
TRANSACTION: Final = Histogram(
    "flowtrail_projection_transaction_seconds",
    "time of one transaction, folding excluded",
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5),
)
UNREADABLE: Final = Counter(
    "flowtrail_projection_unreadable", "records kept in flowtrail.unreadable because they cannot be folded"
)
CONFLICTS: Final = Counter(
    "flowtrail_projection_conflicts", "batches given up because another projector had written them"
)
RETRIES: Final = Counter("flowtrail_projection_retries", "times a server was away and work began again")
HEALED: Final = Counter(
    "flowtrail_projection_healed", "flows whose rows were not what the log says, folded anew from it"
)
BROKEN: Final = Counter(
    "flowtrail_projection_broken", "flows found whose events in the log do not follow one another"
)


def serve(host: str, port: int) -> None:
    """Shows /metrics on `port`; 0 opens none. Raises InputError when the port is taken."""
    if port == 0:
        return
    try:
        start_http_server(port, host)
    except OSError as problem:
        raise InputError(
            f"Expected FLOWTRAIL_METRICS_PORT {host}:{port} to be free but {problem.strerror}"
        ) from None
