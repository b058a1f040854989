"""A partition's owner: its states, its position, its timers, its writer, and the loop that decides and writes.

The loop runs in the application's event loop; deciding and writing run in the partition's own thread, one batch at a
time, on copies: states and position change only after the commit has returned. What arrives meanwhile is one batch
the next time, so batches grow with the load by themselves; `slots` bounds how many commits run at once, for the same
reason. Timers that are due and schedules whose definition is new go into the same transactions as waiting commands.
Nothing but `ProducerLost` may leave the thread; anything else is a defect and ends the process (70).
"""

from __future__ import annotations

import asyncio
import collections
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, TypeVar

import msgspec
import orjson
import structlog

from engine.core.batch import Batch, Definitions, Kept, Record, due_of
from engine.core.entities import schedule
from engine.dsl.model import Definition
from engine.errors import AwayError
from engine.runtime import metrics, records, topics
from engine.runtime.rebuild import rebuild
from engine.runtime.restore import restore
from engine.runtime.wakeups import Wakeups
from engine.runtime.writer import ProducerLost, Writer
from schemas import messages as m

log = structlog.get_logger("flowtrail.partition")

QUEUED_MAX: Final = 4
"""Fetched batches that may wait before the consumer is told to pause this partition."""
_FORGET_EVERY_S_MAX: Final = 30.0
_FORGET_MAX: Final = 5000
_LOOK_EVERY_S: Final = 1.0
"""The wall clock may jump: nobody sleeps longer than this without looking at it."""
_TIMERS_MAX: Final = 500
"""Flows whose timers fire in one transaction."""
_SNOOZE_US: Final = 1_000_000
"""When a timer that could change nothing now (its definition is not known here yet) is tried again."""

T = TypeVar("T")


class Watched(msgspec.Struct):
    """Where definitions are looked up, and whether a look-up failed (then the topic is read to its end first)."""

    inner: Any
    missed: bool = False

    def find(self, reference: str) -> Definition | None:
        found: Definition | None = self.inner.find(reference)
        if found is None:
            self.missed = True
        return found


class Limits(msgspec.Struct, frozen=True):
    """`records_max` commands a transaction; ended flows are remembered for `window_us` microseconds."""

    records_max: int = 2000
    window_us: int = 24 * 3600 * 1_000_000
    event_ttl_us: int = 3600 * 1_000_000

    @property
    def forget_every_s(self) -> float:
        return min(_FORGET_EVERY_S_MAX, self.window_us / 4_000_000)


class Partition:
    """One owned partition. `stamp` and `fed` belong to the driver's check of fetched batches (driver.py)."""

    def __init__(
        self,
        number: int,
        writer: Writer,
        load: Callable[[], Any],
        queues: topics.Queues,
        definitions: Any,
        prefix: str,
        partitions: int,
        limits: Limits,
        slots: asyncio.Semaphore,
        on_lost: Callable[[Partition, ProducerLost], None],
        on_defect: Callable[[BaseException], None],
        on_full: Callable[[], None] = lambda: None,
        on_room: Callable[[], None] = lambda: None,
    ) -> None:
        self.number = number
        self.states: dict[str, Kept] = {}
        self.timers = Wakeups()
        self.position = -1
        self.stamp: int | None = None
        self.fed: int | None = None
        self.ready = False
        self.closed = False
        self.full = False
        self.progressed = time.monotonic()
        self.idle = asyncio.Event()
        self.idle.set()
        self._writer = writer
        self._load = load
        self._queues = queues
        self._definitions = definitions
        self._prefix = prefix
        self._partitions = partitions
        self._generation = -1
        self._limits = limits
        self._slots = slots
        self._on_lost, self._on_defect = on_lost, on_defect
        self._on_full, self._on_room = on_full, on_room
        self._queue: collections.deque[list[Record]] = collections.deque()
        self._wake = asyncio.Event()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=f"partition-{number}")
        self._task: asyncio.Task[None] | None = None
        self._live = 0
        self._ended: collections.deque[tuple[int, str]] = collections.deque()
        self._looked = time.monotonic()

    # -- life ---------------------------------------------------------------------------------------------------

    async def open(self) -> None:
        """Fences the former owner, loads the state, begins to work. Raises ProducerLost."""
        began = time.monotonic()
        self.idle.clear()
        try:
            restored = await self._in_thread(self._open)
        finally:
            self.idle.set()
        if self.closed:
            return
        self.states, self.position = restored.states, restored.position
        ended = [s for s in self.states.values() if isinstance(s, m.EndedFlow)]
        self._ended.extend(sorted((s.ended_at, s.flow_id) for s in ended))
        self._live = sum(isinstance(s, m.LiveFlow) for s in self.states.values())
        self.timers = Wakeups((key, due_of(kept)) for key, kept in self.states.items())
        self.ready = True
        self.progressed = time.monotonic()
        self._task = asyncio.ensure_future(self._run())
        took = time.monotonic() - began
        metrics.RESTORE.observe(took)
        self._measure()
        log.info(
            "partition loaded",
            partition=self.number,
            position=self.position,
            live=self._live,
            from_log=restored.from_log,
            seconds=round(took, 3),
        )

    def _open(self) -> Any:
        self._writer.open()
        try:
            restored = self._load()
            if restored.from_log:
                self._writer.write(rebuild(restored, self.number, self._definitions, _now()))
            return restored
        except ProducerLost:
            raise
        except Exception as problem:
            raise ProducerLost("read", f"{type(problem).__name__}: {problem}") from problem

    def feed(self, batch: list[Record]) -> None:
        """Takes a fetched batch; never blocks."""
        self._queue.append(batch)
        self._wake.set()
        if len(self._queue) >= QUEUED_MAX and not self.full:
            self.full = True
            self._on_full()

    def park(self) -> None:
        """Drops what was fetched: it will be fetched again after the next seek."""
        self._queue.clear()
        self.full = False
        self.stamp = None

    async def close(self, wait_s: float = 5.0) -> None:
        if self.closed:
            return
        self.closed, self.ready = True, False
        self._queue.clear()
        self._wake.set()
        try:
            await asyncio.wait_for(self.idle.wait(), wait_s)
            await asyncio.wait_for(self._in_thread(self._writer.close), wait_s)
        except TimeoutError:
            log.warning("partition closed while a call was still running", partition=self.number)
        self._thread.shutdown(wait=False)
        for gauge in (metrics.LIVE, metrics.ENDED, metrics.POSITION, metrics.PENDING):
            gauge.remove(str(self.number))

    @property
    def behind(self) -> bool:
        """Whether fetched commands still wait."""
        return bool(self._queue) or not self.idle.is_set()

    async def _in_thread(self, call: Callable[..., T], *given: Any) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, call, *given)

    # -- work ---------------------------------------------------------------------------------------------------

    async def _run(self) -> None:
        try:
            while not self.closed:
                if self._ended and time.monotonic() - self._looked > self._limits.forget_every_s:
                    await self._forget()
                if not self._queue and not self._due:
                    await self._await_work()
                else:
                    async with self._slots:
                        await self._step()
        except ProducerLost as lost:
            self.ready = False
            log.warning("producer lost", partition=self.number, reason=lost.reason, problem=str(lost))
            metrics.PRODUCERS_LOST.labels(lost.reason).inc()
            self._on_lost(self, lost)
        except (asyncio.CancelledError, GeneratorExit):
            raise
        except BaseException as defect:
            self._on_defect(defect)

    @property
    def _due(self) -> bool:
        """Whether a timer's time has come, or definitions were published."""
        return 0 < self.timers.next <= _now() or self._definitions.generation != self._generation

    async def _await_work(self) -> None:
        self._wake.clear()
        pause = min(_LOOK_EVERY_S, self._limits.forget_every_s)
        if due := self.timers.next:
            pause = min(pause, max(0.001, (due - _now()) / 1_000_000))
        try:
            await asyncio.wait_for(self._wake.wait(), pause)
        except TimeoutError:
            return

    def _take(self) -> list[Record]:
        """Everything that waits, up to the limit, without what was done before."""
        taken: list[Record] = []
        while self._queue and len(taken) < self._limits.records_max:
            taken.extend(record for record in self._queue.popleft() if record.offset > self.position)
        if self.full and len(self._queue) < QUEUED_MAX // 2:
            self.full = False
            self._on_room()
        return taken

    async def _step(self) -> None:
        batch_records = self._take()
        keys = self.timers.take(_now(), _TIMERS_MAX)
        news, generation = self._news()
        if self.closed or not (batch_records or keys or news):
            self._generation = generation
            return
        self.idle.clear()
        try:
            batch = await self._in_thread(self._work, batch_records, keys, news)
            self._commit(batch, keys)
            self._generation = generation
        finally:
            self.idle.set()

    def _news(self) -> tuple[list[tuple[str, bytes]], int]:
        """What to tell this partition's schedules, when definitions were published since the last look."""
        generation: int = self._definitions.generation
        found: list[tuple[str, bytes]] = []
        if generation == self._generation:
            return found, generation
        for definition in self._definitions.newest():
            key = f"{schedule.PREFIX}{definition.namespace}/{definition.name}"
            if definition.schedule is None and key not in self.states:
                continue
            if topics.partition_of(key, self._partitions) == self.number:
                record = self._definitions.published(definition.id)
                told = {"definition": definition.id, "published_at": record.published_at}
                found.append((key, orjson.dumps(told)))
        return found, generation

    def _work(self, batch_records: list[Record], keys: list[str], news: list[tuple[str, bytes]]) -> Batch:
        """In the partition's thread: decides completely, then writes in one transaction."""
        began = time.perf_counter()
        watched = Watched(self._definitions)
        batch = self._decide(batch_records, keys, news, watched)
        if watched.missed:  # perhaps published a moment ago: nothing was written yet, so decide again
            self._definitions.catch_up(5.0)
            batch = self._decide(batch_records, keys, news, watched)
        decided = time.perf_counter()
        if batch.dispatches:
            try:
                self._queues.ensure({topics.queue_topic(d.queue, d.task.priority) for d in batch.dispatches})
            except AwayError as away:
                raise ProducerLost("away", str(away)) from None
        self._writer.write(records.records_of(batch, self._prefix, _now()))
        metrics.DECISION.inc(decided - began)
        metrics.TRANSACTION.observe(time.perf_counter() - decided)
        return batch

    def _decide(
        self,
        batch_records: list[Record],
        keys: list[str],
        news: list[tuple[str, bytes]],
        definitions: Definitions,
    ) -> Batch:
        batch = Batch(self.number, self.states, definitions, self.position, self._limits.event_ttl_us)
        for record in batch_records:
            batch.apply(record, _now())
        for key, message in news:
            batch.tell(key, message, _now())
        for key in keys:
            batch.fire(key, _now())
        batch.close()
        return batch

    def _commit(self, batch: Batch, keys: list[str]) -> None:
        """The transaction is in the log: now it is true here too."""
        for key, kept in batch.overlay.items():
            known = self.states.get(key)
            self._live += isinstance(kept, m.LiveFlow) - isinstance(known, m.LiveFlow)
            if kept is None:
                self.states.pop(key, None)
            else:
                self.states[key] = kept
            self.timers.arm(key, due_of(kept))
            if isinstance(kept, m.EndedFlow):
                self._ended.append((kept.ended_at, key))
        for key in keys:
            due = due_of(self.states.get(key))
            self.timers.arm(key, max(due, _now() + _SNOOZE_US) if key in batch.stuck else due)
        self.position = batch.last_offset
        self.progressed = time.monotonic()
        self._count(batch)
        self._measure()

    async def _forget(self) -> None:
        """Drops ended flows whose window is over, from the state topic and from memory."""
        self._looked = time.monotonic()
        before = _now() - self._limits.window_us
        gone: list[str] = []
        while self._ended and self._ended[0][0] < before and len(gone) < _FORGET_MAX:
            gone.append(self._ended.popleft()[1])
        if not gone or self.closed:
            return
        self.idle.clear()
        try:
            await self._in_thread(self._writer.write, [records.forget(flow_id) for flow_id in gone])
            for flow_id in gone:
                self.states.pop(flow_id, None)
        finally:
            self.idle.set()
        self._measure()

    # -- measuring ----------------------------------------------------------------------------------------------

    def _count(self, batch: Batch) -> None:
        rejected = 0
        kinds: collections.Counter[str] = collections.Counter()
        for logged, _ in batch.written:
            if isinstance(logged, m.Event):
                kinds[type(logged.body).__name__] += 1
            else:
                rejected += 1
        for kind, count in kinds.items():
            metrics.EVENTS.labels(kind).inc(count)
        total = rejected + batch.duplicates + len(batch.dead_letters)
        decided = batch.size - total
        for outcome, count in (
            ("decided", decided),
            ("rejected", rejected),
            ("duplicate", batch.duplicates),
            ("dead_letter", len(batch.dead_letters)),
        ):
            if count:
                metrics.COMMANDS.labels(outcome).inc(count)
        for dispatch in batch.dispatches:
            metrics.TASKS.labels(dispatch.queue).inc()
        if batch.size:
            metrics.BATCH.observe(batch.size)
        metrics.TIMERS.inc(batch.fired)
        if batch.failures:
            log.error("entities did not understand", partition=self.number, reasons=batch.failures[:5])
        if batch.parked:
            metrics.INCIDENTS.inc(len(batch.parked))
            log.error(
                "flows parked", partition=self.number, reasons=batch.parked[:5], count=len(batch.parked)
            )

    def _measure(self) -> None:
        label = str(self.number)
        metrics.LIVE.labels(label).set(self._live)
        metrics.ENDED.labels(label).set(len(self._ended))
        metrics.PENDING.labels(label).set(len(self.timers))
        metrics.POSITION.labels(label).set(self.position)


def _now() -> int:
    """Microseconds since the Unix epoch (UTC)."""
    return time.time_ns() // 1000


def owned(
    number: int,
    servers: str,
    prefix: str,
    partitions: int,
    queues: topics.Queues,
    definitions: Any,
    limits: Limits,
    slots: asyncio.Semaphore,
    **callbacks: Any,
) -> Partition:
    """A partition with a real writer and a real state topic, not yet open."""
    writer = Writer(servers, prefix, number, partitions)
    return Partition(
        number,
        writer,
        lambda: restore(servers, prefix, number),
        queues,
        definitions,
        prefix,
        partitions,
        limits,
        slots,
        **callbacks,
    )
