"""The benchmark's worker: one function that returns what it got, so that the engine is what is measured."""

from __future__ import annotations

from typing import Any

from flowtrail import Worker

worker = Worker("bench")


@worker.task("step")
def step(data: Any) -> Any:
    return data
