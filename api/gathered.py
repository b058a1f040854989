"""Many callers, one query: what is asked while a query runs goes into the next one, without any fixed delay.

Alone, a caller waits for one round trip; a thousand at once cost a few. Each gets its own answer or the query's error.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable, Mapping
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Gathered(Generic[K, V]):
    """`load` answers many keys at once; a key missing in its answer gives None."""

    def __init__(self, load: Callable[[list[K]], Awaitable[Mapping[K, V]]], most: int = 500) -> None:
        self._load, self._most = load, most
        self._waiting: dict[K, asyncio.Future[V | None]] = {}
        self._task: asyncio.Task[None] | None = None

    async def get(self, key: K) -> V | None:
        future = self._waiting.get(key)
        if future is None:
            future = self._waiting[key] = asyncio.get_running_loop().create_future()
        if self._task is None:
            self._task = asyncio.create_task(self._run())
        return await asyncio.shield(future)  # a caller that goes away leaves the others their answer

    async def _run(self) -> None:
        try:
            while self._waiting:
                taken = {key: self._waiting.pop(key) for key in list(self._waiting)[: self._most]}
                await self._answer(taken)
        finally:
            self._task = None

    async def _answer(self, taken: dict[K, asyncio.Future[V | None]]) -> None:
        try:
            found = await self._load(list(taken))
        except Exception as problem:
            for future in taken.values():
                future.set_exception(problem)
                future.exception()  # nobody may be left to take it
        except asyncio.CancelledError:
            for future in taken.values():
                future.cancel()
            raise
        else:
            for key, future in taken.items():
                future.set_result(found.get(key))
