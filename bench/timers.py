"""What pending timers cost beside their flows.

`run` measures the timers' entries alone, in one process and without servers: a timer is an entry in the partition's heap
and no record of its own. `engine` asks a real engine: the same number of flows that wait for a worker, then that wait an
hour, each on an installation of its own; memory, and the processor time that waiting takes.
"""

from __future__ import annotations

import time
import tracemalloc
from typing import Any

from bench.installation import Installation
from bench.load import Starter
from bench.restore import await_flows
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


_CALLING = "  - hold: {call: step}\n"
_WAITING = "  - hold: {wait: PT1H}\n"
_HEAD = "document: {dsl: '1.0.3', namespace: bench, name: hold, version: '1.0.0', metadata: {queue: bench}}\ndo:\n"
_IDLE_S = 20


def engine(count: int) -> dict[str, Any]:
    """Engine memory with `count` flows that wait for a worker and for a timer, and what 20 s of waiting cost."""
    calling, waiting = _held(count, _CALLING), _held(count, _WAITING)
    return {
        "flows": count,
        "engine_mib_calling": calling["mib"],
        "engine_mib_waiting": waiting["mib"],
        "timers_mib": round(waiting["mib"] - calling["mib"], 1),
        "idle_cpu_percent_calling": calling["cpu"],
        "idle_cpu_percent_waiting": waiting["cpu"],
    }


def _held(count: int, task: str) -> dict[str, float]:
    with Installation(workers=0) as installation:
        installation.publish(_HEAD + task)
        starter = Starter(installation.kafka)
        for number in range(count):
            starter.start(f"held-{number}", "bench/hold@1.0.0", b'{"order":%d}' % number)
        starter.flush()
        await_flows(installation, count)
        time.sleep(5)
        before = installation.processes.cpu_seconds()["engine0"]
        time.sleep(_IDLE_S)
        spent = installation.processes.cpu_seconds()["engine0"] - before
        return {
            "mib": installation.processes.resident_mib()["engine0"],
            "cpu": round(spent / _IDLE_S * 100, 1),
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
