"""The API's Prometheus metrics (docs/metrics.md lists them; a test compares). Routes are templates, never paths."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

REQUESTS = Counter("flowtrail_api_requests_total", "Requests answered", ["method", "route", "status"])
SECONDS = Histogram(
    "flowtrail_api_request_seconds",
    "Request to answer, waits included",
    ["method", "route"],
    buckets=(0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60),
)
IN_FLIGHT = Gauge("flowtrail_api_in_flight", "Requests being answered")
PRODUCED = Counter("flowtrail_api_produced_total", "Records acknowledged by Kafka, by topic", ["topic"])
PRODUCE_FAILURES = Counter(
    "flowtrail_api_produce_failures_total", "Records that Kafka did not acknowledge, by topic", ["topic"]
)
WAITERS = Gauge("flowtrail_api_waiters", "Requests that wait for a flow to end or for a position")
REFUSED_KEYS = Counter("flowtrail_api_refused_keys_total", "Requests refused for their API key", ["why"])
