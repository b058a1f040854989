"""Which partitions this process owns, and how it comes to own, keep, reload and lose them.

Invariants:
* a partition is loaded (fence, read, seek) before it works, and seeks with a new stamp whenever it was loaded;
* partitions kept over an eager rebalance stay loaded: a stale producer is fenced at its next commit, then reloads;
* a lost producer is replaced only after the coordinator has accepted a commit of ours (proof of membership): without
  it a woken zombie would fence the rightful owner. Whoever cannot prove it leaves the partition to the rebalance;
* nothing raises out of the agent or a handler: what cannot be handled ends the process with 70, for the supervisor.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from functools import partial
from typing import Any, Final

import structlog
from faust.types import TP

from engine.runtime import metrics
from engine.runtime.driver import Chunk, Positions
from engine.runtime.partition import Partition
from engine.runtime.writer import ProducerLost

log = structlog.get_logger("flowtrail.ownership")

EXIT_DEFECT: Final = 70
_TRIES: Final = 3
_PROOF_TRIES: Final = 40
_PROOF_PAUSE_S: Final = 0.25


def leave(why: BaseException | str) -> None:
    """Ends the process at once, with 70: the supervisor starts a new one, which restores what is true."""
    log.critical(
        "ending this process",
        why=repr(why) if isinstance(why, BaseException) else why,
        exc_info=isinstance(why, BaseException),
    )
    os._exit(EXIT_DEFECT)


class Ownership:
    """The partitions of one engine process. `make(number, ...)` gives a partition that is not open yet."""

    def __init__(self, app: Any, positions: Positions, topic: str, make: Callable[..., Partition]) -> None:
        self._app = app
        self._positions = positions
        self._topic = topic
        self._make = make
        self._generation = 0
        self._background: set[asyncio.Future[Any]] = set()
        self._refused_at: list[float] = []

    @property
    def partitions(self) -> dict[int, Partition]:
        found: dict[int, Partition] = self._positions.partitions  # type: ignore[assignment]
        return found

    # -- rebalances ---------------------------------------------------------------------------------------------

    async def revoked(self) -> None:
        """Before the group rebalances: fetched batches are dropped, running transactions may finish."""
        self._generation += 1
        for owned in self.partitions.values():
            owned.park()
        waits = [asyncio.ensure_future(owned.idle.wait()) for owned in self.partitions.values()]
        if waits:
            _, pending = await asyncio.wait(waits, timeout=5)
            for task in pending:
                task.cancel()

    async def assigned(self) -> None:
        """After the group rebalanced, before anything is fetched: loads what is new, closes what is gone."""
        try:
            mine = {tp.partition for tp in self._app.consumer.assignment() if tp.topic == self._topic}
            for number in [n for n in self.partitions if n not in mine]:
                self._spawn(self.partitions.pop(number).close())
            await asyncio.gather(*(self._own(number) for number in mine))
            metrics.PARTITIONS.set(len(mine))
            log.info("partitions assigned", partitions=sorted(mine))
        except BaseException as defect:
            leave(defect)

    async def close(self) -> None:
        await asyncio.gather(*(owned.close() for owned in list(self.partitions.values())))
        metrics.PARTITIONS.set(0)

    async def _own(self, number: int) -> None:
        known = self.partitions.get(number)
        if known is not None and known.ready:
            return
        if known is not None:
            await known.close()
        tp = TP(self._topic, number)
        for _ in range(_TRIES):
            made = self.partitions[number] = self._make(
                number,
                on_lost=self._on_lost,
                on_defect=leave,
                on_full=partial(self._full, tp),
                on_room=partial(self._room, tp),
            )
            try:
                await made.open()
                return
            except ProducerLost as lost:
                log.warning("partition not opened, trying again", partition=number, problem=str(lost))
                await made.close()
            if self.partitions.get(number) is not made:
                return
        leave(f"Expected to open partition {number} but {_TRIES} tries failed")

    def _full(self, tp: TP) -> None:
        self._app.consumer.on_buffer_full(tp)

    def _room(self, tp: TP) -> None:
        self._app.consumer.on_buffer_drop(tp)

    # -- reload in place ----------------------------------------------------------------------------------------

    def _on_lost(self, owned: Partition, lost: ProducerLost) -> None:
        self._spawn(self._reload(owned, lost))

    async def _reload(self, owned: Partition, lost: ProducerLost) -> None:
        # Step 1: drop the producer; Step 2: prove membership; Step 3: load again; Step 4: seek with a new stamp
        generation = self._generation
        try:
            await owned.close()
            if not await self._proved(owned, generation):
                log.info("reload left to the rebalance", partition=owned.number)
                return
            await self._own(owned.number)
            await self._seek(owned.number, generation)
            log.info("partition reloaded in place", partition=owned.number, reason=lost.reason)
        except asyncio.CancelledError:
            raise
        except BaseException as defect:
            leave(defect)

    async def _proved(self, owned: Partition, generation: int) -> bool:
        tp = TP(self._topic, owned.number)
        for _ in range(_PROOF_TRIES):
            if self._moved_on(generation) or self.partitions.get(owned.number) is not owned:
                return False
            try:
                await self._app.consumer.thread.claim({tp: max(owned.position + 1, 0)})
            except Exception as problem:
                self._refused(problem)
                await asyncio.sleep(_PROOF_PAUSE_S)
            else:
                return not self._moved_on(generation)
        leave(
            f"Expected the group to accept a commit of partition {owned.number} but it refused {_PROOF_TRIES} times"
        )
        return False

    def _refused(self, problem: Exception) -> None:
        """Two processes with one static id take the group's membership from each other: only one may live."""
        log.info("membership not proved yet", problem=f"{type(problem).__name__}: {problem}")
        now = time.monotonic()
        self._refused_at = [at for at in self._refused_at if now - at < 10]
        if type(problem).__name__ in ("UnknownMemberIdError", "FencedInstanceIdError"):
            self._refused_at.append(now)
        if len(self._refused_at) > 3 * max(1, len(self.partitions)):
            leave(
                "Expected to be the only process with this instance id but another one takes its membership"
            )

    def _moved_on(self, generation: int) -> bool:
        return self._generation != generation or bool(self._app.rebalancing)

    async def _seek(self, number: int, generation: int) -> None:
        owned = self.partitions.get(number)
        if self._generation != generation or owned is None or not owned.ready:
            return
        tp = TP(self._topic, number)
        async with self._positions.seeking:
            owned.stamp = next(self._positions.serial)
            owned.fed = owned.position + 1
            await self._app.consumer.thread.seek_wait({tp: owned.fed})
        self._app.consumer.on_buffer_drop(tp)

    # -- fetched batches ----------------------------------------------------------------------------------------

    def take(self, number: int, chunk: Chunk) -> None:
        """Hands a fetched batch to its partition, if it was fetched for the partition as it is now."""
        owned = self.partitions.get(number)
        if owned is None or not owned.ready or chunk.stamp is None or chunk.stamp != owned.stamp:
            metrics.STALE.inc()
            return
        if chunk.follows != owned.fed:
            log.error(
                "a fetched batch is missing, reloading",
                partition=number,
                expected=owned.fed,
                found=chunk.follows,
            )
            owned.park()
            owned.ready = False
            self._on_lost(owned, ProducerLost("gap", f"expected {owned.fed} but found {chunk.follows}"))
            return
        owned.fed = chunk.reaches
        owned.feed(chunk.records)

    def _spawn(self, work: Any) -> None:
        """Keeps a strong reference: the loop holds only weak ones, and a collected task just vanishes."""
        task = asyncio.ensure_future(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)
