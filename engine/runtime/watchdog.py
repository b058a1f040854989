"""Ends the process (70) when a partition stands still although it has work, or a rebalance never ends.

Faust only logs such states. Time in which the broker does not answer does not count: waiting is right then.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any, Final

import structlog
from faust.types import TP

from engine.runtime.ownership import Ownership, leave

log = structlog.get_logger("flowtrail.watchdog")

_EVERY_S: Final = 2.0


class Watchdog:
    """Looks every two seconds; `limit_s` is how long no progress is endured."""

    def __init__(self, app: Any, ownership: Ownership, servers: str, topic: str, limit_s: float) -> None:
        self._app = app
        self._servers = servers
        self._ownership = ownership
        self._topic = topic
        self._limit_s = limit_s
        self._suspects: dict[int, tuple[float, int]] = {}
        self._rebalancing_for = 0.0

    async def run(self) -> None:
        while True:
            await asyncio.sleep(_EVERY_S)
            try:
                if not await self._broker_answers():
                    self._suspects.clear()
                    self._rebalancing_for = 0.0
                    continue
                self._look(time.monotonic())
            except asyncio.CancelledError:
                raise
            except Exception as problem:
                log.info("could not look", problem=f"{type(problem).__name__}: {problem}")

    async def _broker_answers(self) -> bool:
        for server in self._servers.split(","):
            host, _, port = server.rpartition(":")
            try:
                _, writer = await asyncio.wait_for(asyncio.open_connection(host, int(port)), 1.0)
            except (OSError, TimeoutError):
                continue
            writer.close()
            return True
        return False

    def _look(self, now: float) -> None:
        self._rebalancing_for = self._rebalancing_for + _EVERY_S if self._app.rebalancing else 0.0
        if self._rebalancing_for > self._limit_s + 10:
            leave(f"Expected the rebalance to end but it lasts {self._rebalancing_for:.0f} s")
        for tp in self._app.consumer.assignment():
            number = tp.partition
            position = self._behind(tp)
            if position is None:
                self._suspects.pop(number, None)
                continue
            since, at = self._suspects.setdefault(number, (now, position))
            if position != at:
                self._suspects[number] = (now, position)
            elif now - since > self._limit_s:
                leave(
                    f"Expected partition {number} to progress but it stands at {position} for {now - since:.0f} s"
                )

    def _behind(self, tp: TP) -> int | None:
        """The position of a partition that has work, None for one that has none."""
        owned = self._ownership.partitions.get(tp.partition)
        if owned is None or not owned.ready:
            return -2
        if owned.behind or self._app.consumer.thread.unread(tp):
            return owned.position
        return None
