"""How long a partition with many live flows takes to load after a kill -9, and the memory it needs.

All flows lie in ONE partition: the worst case, since partitions load in parallel.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from bench.installation import Installation, definition_of
from bench.load import Starter
from engine.errors import AwayError


def run(flows: int) -> dict[str, Any]:
    with Installation(workers=0, partitions=1) as installation:
        installation.publish(definition_of(3))
        starter = Starter(installation.kafka)
        for i in range(flows):
            starter.start(
                f"live-{i}", "bench/line@1.0.0", b'{"order":%d,"customer":"gold","lines":[1,2,3]}' % i
            )
        starter.flush()
        log = installation.folder / "engine0.log"
        await_flows(installation, flows)
        before = installation.processes.resident_mib()["engine0"]
        loads = len(_loads(log))
        installation.processes.kill("engine0")
        began = time.monotonic()
        while len(found := _loads(log)) <= loads:
            if time.monotonic() - began > 120:
                raise AwayError("Expected the engine to load its partition within 120 s but it did not")
            time.sleep(0.05)
        total = time.monotonic() - began
        return {
            "live_flows": found[-1]["live"],
            "restore_seconds": found[-1]["seconds"],
            "kill_to_loaded_seconds": round(total, 2),
            "engine_mib_before": before,
            "engine_mib_after": installation.processes.resident_mib()["engine0"],
        }


def await_flows(installation: Installation, flows: int, timeout_s: float = 300) -> None:
    """Returns when the read model has as many flows. Raises AwayError."""
    import psycopg

    end = time.monotonic() + timeout_s
    with psycopg.connect(installation.postgres, autocommit=True) as connection:
        while time.monotonic() < end:
            row = connection.execute("SELECT count(*) FROM flowtrail.flows").fetchone()
            if row is not None and row[0] >= flows:
                return
            time.sleep(0.2)
    raise AwayError(f"Expected {flows} flows in the read model within {timeout_s:.0f} s but they are not")


def _loads(log: Path) -> list[dict[str, Any]]:
    lines = log.read_text().splitlines()
    return [json.loads(line) for line in lines if '"partition loaded"' in line]
