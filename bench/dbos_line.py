"""The same line of tasks on DBOS Transact: workflow of N steps, its state in Postgres. Run by bench.compare.

Prints one JSON object last. Needs the dependency group `bench`.
"""

from __future__ import annotations

import json
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from dbos import DBOS, DBOSConfig

POSTGRES, FLOWS, TASKS, THREADS = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])


@DBOS.step()
def step(order: dict[str, Any]) -> dict[str, Any]:
    return order


@DBOS.workflow()
def line(order: dict[str, Any]) -> dict[str, Any]:
    for _ in range(TASKS):
        order = step(order)
    return order


def main() -> None:
    config: DBOSConfig = {
        "name": "bench",
        "system_database_url": POSTGRES,
        "log_level": "ERROR",
    }
    DBOS(config=config)
    DBOS.launch()
    order = {"order": 12345, "amount": 12.5, "customer": "gold"}
    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(lambda _: line(order), range(20)))
        began = time.perf_counter()
        list(pool.map(lambda _: line(order), range(FLOWS)))
        took = time.perf_counter() - began
    DBOS.destroy()
    print(json.dumps({"flows": FLOWS, "seconds": round(took, 2), "flows_per_second": round(FLOWS / took, 1)}))


if __name__ == "__main__":
    main()
