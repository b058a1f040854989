"""Requests that wait for a flow to end. However many wait, one query at a time asks for all of them.

The queries follow each other quickly while somebody has just begun to wait (most flows take milliseconds) and slowly
when all have waited long. A Postgres that is away ends no wait: the waiters' own time does.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final

import structlog

from api.metrics import WAITERS
from api.ports import Outcome
from engine.errors import FlowtrailError

log = structlog.get_logger("flowtrail.api")

QUICK_PAUSE_S: Final = 0.005
SLOW_PAUSE_S: Final = 0.02
AWAY_PAUSE_S: Final = 0.5
_QUICK_FOR_S: Final = 0.5

Outcomes = Callable[[Sequence[str], Sequence[str]], Awaitable[list[Outcome]]]


@dataclass(eq=False, slots=True)
class _Waiter:
    flow_id: str
    command_id: str | None
    since: float
    future: asyncio.Future[Outcome | None]


class Waiters:
    def __init__(self, outcomes: Outcomes) -> None:
        self._outcomes = outcomes
        self._waiting: dict[str, set[_Waiter]] = {}
        self._task: asyncio.Task[None] | None = None
        self._released = False

    async def ended(self, flow_id: str, command_id: str | None, timeout_s: float) -> Outcome | None:
        """How the flow ended or (its start being `command_id`) was refused; None when the time was over before."""
        if self._released or timeout_s <= 0:
            return None
        loop = asyncio.get_running_loop()
        waiter = _Waiter(flow_id, command_id, loop.time(), loop.create_future())
        self._waiting.setdefault(flow_id, set()).add(waiter)
        WAITERS.inc()
        if self._task is None:
            self._task = asyncio.create_task(self._poll())
        try:
            async with asyncio.timeout(timeout_s):
                return await waiter.future
        except TimeoutError:
            return None
        finally:
            WAITERS.dec()
            self._forget(waiter)

    def release(self) -> None:
        """Ends every wait, as if its time were over: the process stops."""
        self._released = True
        for waiters in self._waiting.values():
            for waiter in waiters:
                if not waiter.future.done():
                    waiter.future.set_result(None)

    def _forget(self, waiter: _Waiter) -> None:
        waiters = self._waiting.get(waiter.flow_id, set())
        waiters.discard(waiter)
        if not waiters:
            self._waiting.pop(waiter.flow_id, None)

    async def _poll(self) -> None:
        try:
            while self._waiting:
                try:
                    pause = await self._look()
                except FlowtrailError as problem:
                    log.warning("cannot look for ended flows, retrying", problem=str(problem))
                    pause = AWAY_PAUSE_S
                await asyncio.sleep(pause)
        finally:
            self._task = None

    async def _look(self) -> float:
        waiters = [waiter for some in self._waiting.values() for waiter in some]
        commands = [waiter.command_id for waiter in waiters if waiter.command_id is not None]
        for outcome in await self._outcomes(list(self._waiting), commands):
            for waiter in self._waiting.get(outcome.flow_id, ()):
                if _concerns(outcome, waiter) and not waiter.future.done():
                    waiter.future.set_result(outcome)
        newest = max(waiter.since for waiter in waiters)
        quick = asyncio.get_running_loop().time() - newest < _QUICK_FOR_S
        return QUICK_PAUSE_S if quick else SLOW_PAUSE_S


def _concerns(outcome: Outcome, waiter: _Waiter) -> bool:
    """Who started the flow waits for that very start: when another one won, its own refusal is its outcome."""
    if waiter.command_id is None:
        return outcome.code is None
    return outcome.command_id == waiter.command_id
