"""What pending timers cost beside their flows: the states are made first, then the timers' entries are measured alone.

In one process and without servers: a timer is an entry in the partition's heap and no record of its own.
"""

from __future__ import annotations

import time
import tracemalloc
from typing import Any

from engine.core.batch import due_of
from engine.runtime.wakeups import Wakeups
from schemas import messages as m


def run(count: int) -> dict[str, Any]:
    states = {f"flow-{i}": _waiting(f"flow-{i}", 1_700_000_000_000_000 + i) for i in range(count)}
    tracemalloc.start()
    timers = Wakeups((key, due_of(state)) for key, state in states.items())
    size, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    began = time.perf_counter()
    for key, state in states.items():  # each flow changes its mind twice, as retries do
        timers.arm(key, due_of(state) + 1)
        timers.arm(key, due_of(state))
    changed = time.perf_counter() - began
    began = time.perf_counter()
    taken = 0
    while found := timers.take(1 << 60, 500):
        taken += len(found)
    return {
        "timers": count,
        "mib": round(size / (1 << 20), 1),
        "bytes_a_timer": round(size / count),
        "arm_microseconds": round(changed / count / 2 * 1e6, 2),
        "take_microseconds": round((time.perf_counter() - began) / taken * 1e6, 2),
    }


def _waiting(flow_id: str, due: int) -> m.LiveFlow:
    active = m.ActiveTask("/do/0/w", 1, 1, 0, b"{}", b"{}", b"{}", due=due, purpose="wait")
    return m.LiveFlow(
        flow_id=flow_id,
        definition="bench/wait@1.0.0",
        definition_hash=b"",
        engine_version="",
        start_command_id="",
        status="running",
        sequence=2,
        head=b"",
        started_at=0,
        updated_at=0,
        input=b"{}",
        data=b"{}",
        context=b"{}",
        active=(active,),
    )
