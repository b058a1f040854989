"""The same three-task flow on Flowtrail and on DBOS, in one run on one machine; prints the ratio.

DBOS commits (and fsyncs) to Postgres at each step; Kafka by default acknowledges from the page cache. So Flowtrail is
measured twice: as it ships, and with Kafka fsyncing every message (`log.flush.interval.messages=1`).
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from bench import throughput
from engine.errors import FlowtrailError
from stack.embedded import Stack


def dbos(flows: int, tasks: int) -> dict[str, Any]:
    """DBOS on a Postgres of the same kind, at the best of a few thread counts."""
    folder = Path(tempfile.mkdtemp(prefix="flowtrail-dbos-"))
    try:
        with Stack(folder, ports="auto") as addresses:
            found = [_dbos_once(addresses.postgres, flows, tasks, threads) for threads in (4, 16)]
        return max(found, key=lambda f: float(f["flows_per_second"]))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _dbos_once(postgres: str, flows: int, tasks: int, threads: int) -> dict[str, Any]:
    script = Path(__file__).with_name("dbos_line.py")
    argv = [sys.executable, str(script), postgres, str(flows), str(tasks), str(threads)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if done.returncode:
        raise FlowtrailError(
            f"Expected DBOS to run but it ended with {done.returncode}: {done.stderr[-800:]}"
        )
    found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return found | {"threads": threads}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--flows", type=int, default=10_000)
    parser.add_argument("--dbos-flows", type=int, default=600)
    parser.add_argument("--tasks", type=int, default=3)
    given = parser.parse_args()
    theirs = dbos(given.dbos_flows, given.tasks)
    print("dbos", json.dumps(theirs), flush=True)
    ours = throughput.run(given.flows, given.tasks)
    print("flowtrail", json.dumps(ours), flush=True)
    flushed = throughput.run(given.flows, given.tasks, kafka_properties={"log.flush.interval.messages": "1"})
    print("flowtrail, every message flushed", json.dumps(flushed), flush=True)
    base = float(theirs["flows_per_second"])
    print(
        json.dumps(
            {
                "dbos_flows_per_second": base,
                "flowtrail_flows_per_second": ours["flows_per_second"],
                "ratio": round(ours["flows_per_second"] / base, 1),
                "flushed_flows_per_second": flushed["flows_per_second"],
                "flushed_ratio": round(flushed["flows_per_second"] / base, 1),
            }
        )
    )


if __name__ == "__main__":
    main()
