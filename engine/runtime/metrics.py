"""The engine's Prometheus metrics (docs/metrics.md lists them; a test compares). No flow id is ever a label."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram, start_http_server

COMMANDS = Counter("flowtrail_engine_commands_total", "Commands decided, by outcome", ["outcome"])
EVENTS = Counter("flowtrail_engine_events_total", "Events written, by kind", ["kind"])
TASKS = Counter("flowtrail_engine_tasks_total", "Tasks handed to workers, by queue", ["queue"])
TIMERS = Counter("flowtrail_engine_timers_total", "Timers of flows and wake-ups of entities fired")
PENDING = Gauge("flowtrail_engine_timers_pending", "Flows and entities that wait for a time", ["partition"])
INBOX = Counter("flowtrail_engine_inbox_events_total", "Records of the inbox, by outcome", ["outcome"])
INCIDENTS = Counter(
    "flowtrail_engine_incidents_total", "Flows parked because deciding a command failed by a defect"
)
BATCH = Histogram(
    "flowtrail_engine_batch_records",
    "Commands in one transaction",
    buckets=(1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000),
)
TRANSACTION = Histogram(
    "flowtrail_engine_transaction_seconds",
    "Begin to committed",
    buckets=(0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10),
)
DECISION = Counter("flowtrail_engine_decision_seconds_total", "Time spent deciding")
RESTORE = Histogram(
    "flowtrail_engine_restore_seconds",
    "Assignment of a partition to its state being loaded",
    buckets=(0.1, 0.25, 0.5, 1, 2, 5, 10, 30),
)
LIVE = Gauge("flowtrail_engine_live_flows", "Flows that have not ended, by partition", ["partition"])
ENDED = Gauge(
    "flowtrail_engine_remembered_flows",
    "Ended flows whose id is still remembered, by partition",
    ["partition"],
)
POSITION = Gauge(
    "flowtrail_engine_position", "Offset of the last command whose consequences are in the log", ["partition"]
)
PARTITIONS = Gauge("flowtrail_engine_partitions", "Partitions this engine owns and has loaded")
PRODUCERS_LOST = Counter(
    "flowtrail_engine_producers_lost_total", "Transactional producers given up, by reason", ["reason"]
)
STALE = Counter("flowtrail_engine_stale_batches_total", "Fetched batches refused because a seek came between")


def serve(host: str, port: int) -> None:
    """Opens /metrics; port 0 opens nothing."""
    if port:
        start_http_server(port, host)
