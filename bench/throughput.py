"""Flows a second with one engine, one worker and the projections running."""

from __future__ import annotations

import sys
import time
from typing import Any

from bench.installation import Installation, definition_of
from bench.load import Ends, Starter
from engine.errors import AwayError


def run(
    flows: int, tasks: int, *, kafka_properties: dict[str, str] | None = None, warm: int = 2000
) -> dict[str, Any]:
    """Starts `flows` flows of `tasks` worker tasks at once; the clock runs from the first start to the last end.

    `warm` flows run before: a broker that just started spends its time compiling itself.
    """
    with Installation(kafka_properties=kafka_properties) as installation:
        installation.publish(definition_of(tasks))
        starter, ends = Starter(installation.kafka), Ends(installation.kafka)
        drive(starter, ends, "warm", warm)
        cpu_before = installation.processes.cpu_seconds()
        began = time.perf_counter()
        last = drive(starter, ends, "flow", flows)
        took = last - began
        cpu = {
            name: round(seconds - cpu_before.get(name, 0), 2)
            for name, seconds in installation.processes.cpu_seconds().items()
        }
        behind = await_projections(installation, flows + warm)
        ends.close()
        return {
            "flows": flows,
            "tasks": tasks,
            "seconds": round(took, 2),
            "flows_per_second": round(flows / took, 1),
            "events_per_second": round(flows * (2 + 2 * tasks) / took),
            "read_model_behind_seconds": round(behind, 2),
            "cpu_seconds": cpu,
            "resident_mib": installation.processes.resident_mib(),
        }


def drive(starter: Starter, ends: Ends, name: str, flows: int, timeout_s: float = 300) -> float:
    """Starts `flows` flows at once and waits for the end of all; when the last one ended (perf_counter)."""
    waiting = {f"{name}-{i}" for i in range(flows)}
    for flow_id in sorted(waiting):
        starter.start(flow_id, "bench/line@1.0.0", b'{"order":12345,"amount":12.5,"customer":"gold"}')
    starter.flush()
    last = time.perf_counter()
    give_up = time.monotonic() + timeout_s
    while waiting:
        for flow_id, at in ends.poll(0.05):
            waiting.discard(flow_id)
            last = at
        if time.monotonic() > give_up:
            raise AwayError(f"Expected every flow to end within {timeout_s:.0f} s but {len(waiting)} did not")
    return last


def await_projections(installation: Installation, flows: int) -> float:
    """How long after the last end the read model was complete."""
    import psycopg

    began = time.monotonic()
    with psycopg.connect(installation.postgres, autocommit=True) as connection:
        while True:
            row = connection.execute(
                "SELECT count(*) FROM flowtrail.flows WHERE status = 'completed'"
            ).fetchone()
            if row is not None and row[0] >= flows:
                return time.monotonic() - began
            if time.monotonic() - began > 120:
                print("the read model is not complete after 120 s", file=sys.stderr)
                return time.monotonic() - began
            time.sleep(0.05)
