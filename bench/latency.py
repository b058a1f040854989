"""Latency of one flow at a time: StartFlow sent to FlowCompleted seen, through the worker and back for each task.

A broker that just started runs interpreted code: unwarmed, the same flow takes two thirds longer. So flows run first.
"""

from __future__ import annotations

import statistics
import time
from typing import Any

from bench.installation import Installation, definition_of
from bench.load import Ends, Starter
from engine.errors import AwayError


def run(flows: int = 300, tasks: int = 3, warm: int = 1000) -> dict[str, Any]:
    with Installation() as installation:
        installation.publish(definition_of(tasks))
        starter, ends = Starter(installation.kafka), Ends(installation.kafka)
        for i in range(warm):
            _one(starter, ends, f"warm-{i}")
        found = sorted(_one(starter, ends, f"flow-{i}") for i in range(flows))
        ends.close()
    return {
        "flows": flows,
        "tasks": tasks,
        "warm_flows": warm,
        "p50_ms": round(statistics.median(found), 1),
        "p90_ms": round(found[int(flows * 0.9)], 1),
        "p99_ms": round(found[min(flows - 1, int(flows * 0.99))], 1),
        "max_ms": round(found[-1], 1),
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
