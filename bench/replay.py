"""What replay costs on a log of many flows: proving it, rebuilding one flow, making the read models again.

The commands are run as a user runs them, each a process of its own. While the read models are made again, flows keep
arriving and a reader keeps reading; a read that fails is counted.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg

from bench.installation import Installation, definition_of
from bench.load import Ends, Starter
from bench.throughput import await_projections, drive

_ARRIVING = 10
_EVERY_S = 0.1


def run(flows: int = 10_000, tasks: int = 3) -> dict[str, Any]:
    with Installation() as installation:
        installation.publish(definition_of(tasks))
        starter, ends = Starter(installation.kafka), Ends(installation.kafka)
        drive(starter, ends, "flow", flows)
        ends.close()
        await_projections(installation, flows)
        log = _flowtrail(installation, "replay", "verify", "--all", "--no-read-model", "--json")
        both = _flowtrail(installation, "replay", "verify", "--all", "--json")
        flow = f"flow-{flows // 2}"
        by_index = _seconds(installation, "replay", "flow", flow, "--json")
        by_scan = _seconds(installation, "replay", "flow", flow, "--no-index", "--json")
        idle = _flowtrail(installation, "projections", "rebuild", "--rate", "0", "--json")
        with _going_on(installation, starter) as meanwhile:
            busy = _flowtrail(installation, "projections", "rebuild", "--rate", "0", "--json")
    return {
        "flows": flows,
        "events": log["events"],
        "verify_events_per_second": log["events_per_second"],
        "verify_with_read_model_events_per_second": both["events_per_second"],
        "one_flow_seconds": {"by_index": by_index, "by_scan": by_scan},
        "rebuild_records_per_second": idle["records_per_second"],
        "rebuild_while_flows_arrive": {
            "records_per_second": busy["records_per_second"],
            "projector_held_seconds": busy["held_seconds"],
            "equal": all(table["sha256"] == table["rebuilt_sha256"] for table in busy["tables"].values()),
            **meanwhile,
        },
    }


def _flowtrail(installation: Installation, *words: str) -> Any:
    done = subprocess.run(
        [sys.executable, "-m", "cli.main", *words],
        env=os.environ | installation.environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(
            f"Expected {' '.join(words)} to end with 0 but {done.returncode}: {done.stderr[-500:]}"
        )
    return json.loads(done.stdout)


def _seconds(installation: Installation, *words: str) -> float:
    """Of the whole process, its start included."""
    began = time.perf_counter()
    _flowtrail(installation, *words)
    return round(time.perf_counter() - began, 2)


@contextmanager
def _going_on(installation: Installation, starter: Starter) -> Iterator[dict[str, float]]:
    told = {"arrived_per_second": 0.0, "reads": 0, "failed_reads": 0}
    stop = threading.Event()

    def arrive() -> None:
        began, count = time.monotonic(), 0
        while not stop.wait(max(0.0, began + count / _ARRIVING * _EVERY_S - time.monotonic())):
            for _ in range(_ARRIVING):
                starter.start(f"late-{count}", "bench/line@1.0.0", b'{"order":1}')
                count += 1
            starter.flush()
        told["arrived_per_second"] = round(count / (time.monotonic() - began), 1)

    def read() -> None:
        with psycopg.connect(installation.postgres, autocommit=True) as connection:
            while not stop.wait(0.01):
                try:
                    connection.execute(
                        "SELECT status FROM flowtrail.flows WHERE flow_id = 'flow-1'", prepare=True
                    )
                    told["reads"] += 1
                except psycopg.Error:
                    told["failed_reads"] += 1

    threads = [threading.Thread(target=arrive), threading.Thread(target=read)]
    for thread in threads:
        thread.start()
    try:
        yield told
    finally:
        stop.set()
        for thread in threads:
            thread.join()
