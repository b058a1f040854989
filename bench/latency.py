"""Latency of one flow at a time: StartFlow sent to FlowCompleted seen, through the worker and back for each task.

A broker that just started runs interpreted code: unwarmed, the same flow takes markedly longer. So flows run first.
The breakdown comes from the log and the engine's metrics: where a task's way spends its time.
"""

from __future__ import annotations

import statistics
import time
import urllib.request
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from bench.installation import Installation, definition_of
from bench.load import Ends, Starter, all_commands, all_events
from engine.errors import AwayError


def run(flows: int = 300, tasks: int = 3, warm: int = 1000) -> dict[str, Any]:
    with Installation() as installation:
        installation.publish(definition_of(tasks))
        starter, ends = Starter(installation.kafka), Ends(installation.kafka)
        for i in range(warm):
            _one(starter, ends, f"warm-{i}")
        before = _transactions(installation.metrics["engine0"])
        found = sorted(_one(starter, ends, f"flow-{i}") for i in range(flows))
        after = _transactions(installation.metrics["engine0"])
        ends.close()
        breakdown = _breakdown(installation.kafka)
        breakdown["transaction"] = round((after[0] - before[0]) / (after[1] - before[1]) * 1000, 1)
    return {
        "flows": flows,
        "tasks": tasks,
        "warm_flows": warm,
        "p50_ms": round(statistics.median(found), 1),
        "p90_ms": round(found[int(flows * 0.9)], 1),
        "p99_ms": round(found[min(flows - 1, int(flows * 0.99))], 1),
        "max_ms": round(found[-1], 1),
        "breakdown_ms": breakdown,
    }


def _one(starter: Starter, ends: Ends, flow_id: str) -> float:
    began = time.perf_counter()
    starter.start(flow_id, "bench/line@1.0.0", b'{"order":12345}')
    give_up = time.monotonic() + 30
    while time.monotonic() < give_up:
        for ended, at in ends.poll(0.5):
            if ended == flow_id:
                return (at - began) * 1000
    raise AwayError(f"Expected flow {flow_id} to end within 30 s but it did not")


def _transactions(port: int) -> tuple[float, float]:
    """Seconds spent in transactions so far, and their number."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        text = answer.read().decode()
    sums = {
        sample.name: sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name.startswith("flowtrail_engine_transaction_seconds")
    }
    name = "flowtrail_engine_transaction_seconds"
    return sums[f"{name}_sum"], sums[f"{name}_count"]


def _breakdown(servers: str) -> dict[str, float]:
    """Medians over the measured flows' hops, in milliseconds, from the clocks of worker and engine (one machine).

    `command_to_decision`: a command was made, to its decision. `decision_to_result`: a task was scheduled, to its
    result being made by the worker; the transaction lies in it. `hop`: one decision to the next.
    """
    made = {command.command_id: command.time for command in all_commands(servers)}
    to_decision: list[float] = []
    to_result: list[float] = []
    hops: list[float] = []
    decided: dict[str, int] = {}
    for event, _, _ in all_events(servers):
        if not event.flow_id.startswith("flow-") or event.kind not in ("FlowStarted", "TaskCompleted"):
            continue
        command_made = made[event.cause.command_id]
        to_decision.append((event.time - command_made) / 1000)
        if (last := decided.get(event.flow_id)) is not None:
            to_result.append((command_made - last) / 1000)
            hops.append((event.time - last) / 1000)
        decided[event.flow_id] = event.time
    return {
        "command_to_decision": round(statistics.median(to_decision), 1),
        "decision_to_result": round(statistics.median(to_result), 1),
        "hop": round(statistics.median(hops), 1),
    }
