"""Who performs: up to `concurrency` jobs at once, sync ones in threads, async ones on one event loop.

The polling thread only hands jobs in, so that no function, however slow, delays Kafka's heartbeat or another job.
Threads are made when needed, at most `concurrency`, and are daemons: a function that never returns cannot keep the
process alive after the grace period. The limit holds for sync and async jobs together. Jobs of a higher rank are begun
first, but one job in LOWER_EVERY is taken from below, so that no rank starves. Knows no Kafka.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable, Coroutine, Iterable
from queue import SimpleQueue
from typing import Any, Final, Generic, Protocol, TypeVar

RANKS: Final = 3
LOWER_EVERY: Final = 8
_ORDERS: Final = ((0, 1, 2), (1, 2, 0), (2, 1, 0))
"""As usual, and for the turns of the second and of the third rank."""


class Job(Protocol):
    """What a crew must know of a job."""

    @property
    def is_async(self) -> bool: ...

    @property
    def dropped(self) -> bool:
        """True once the job's partition belongs to somebody else: it need not be started any more."""
        ...

    @property
    def rank(self) -> int:
        """0, 1 or 2; 0 goes first."""
        ...


J = TypeVar("J", bound=Job)


class Ranked(Generic[J]):
    """What waits, by rank. Not thread-safe."""

    def __init__(self) -> None:
        self._ranks: tuple[deque[J], ...] = tuple(deque() for _ in range(RANKS))
        self._taken = 0
        self._head: J | None = None

    def __len__(self) -> int:
        return sum(map(len, self._ranks)) + (self._head is not None)

    def extend(self, jobs: Iterable[J]) -> None:
        for job in jobs:
            self._ranks[job.rank].append(job)

    def clear(self) -> None:
        self._head = None
        for rank in self._ranks:
            rank.clear()

    def put_back(self, job: J) -> None:
        """What was taken and cannot be begun here comes first again."""
        self._head = job

    def take(self) -> J | None:
        """The next job that is worth starting. A turn nobody of a lower rank waits for goes to the usual order."""
        if (head := self._head) is not None:
            self._head = None
            return head
        self._taken += 1
        turn = 0
        if self._taken % LOWER_EVERY == 0:
            turn = 2 if self._taken % (2 * LOWER_EVERY) == 0 else 1
        for rank in _ORDERS[turn]:
            waiting = self._ranks[rank]
            while waiting:
                job = waiting.popleft()
                if not job.dropped:
                    return job
        return None


class Crew(Generic[J]):
    """`perform` and `perform_async` do one job each and must not raise."""

    def __init__(
        self,
        concurrency: int,
        perform: Callable[[J], None],
        perform_async: Callable[[J], Coroutine[Any, Any, None]],
    ) -> None:
        self._concurrency = concurrency
        self._perform = perform
        self._perform_async = perform_async
        self._lock = threading.Lock()
        self._idle = threading.Condition(self._lock)
        self._pending: Ranked[J] = Ranked()
        self._running = 0
        self._in_hands = 0
        self._hands: list[threading.Thread] = []
        self._work: SimpleQueue[J | None] = SimpleQueue()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._loop_thread: threading.Thread | None = None
        self._tasks: set[asyncio.Task[None]] = set()  # the loop itself holds tasks only weakly

    @property
    def running(self) -> int:
        return self._running

    def submit(self, jobs: Iterable[J]) -> None:
        with self._lock:
            self._pending.extend(jobs)
            self._start_what_fits()

    def drop_pending(self) -> int:
        """Forgets what was not started; gives their number."""
        with self._lock:
            dropped = len(self._pending)
            self._pending.clear()
            return dropped

    def wait(self, seconds: float) -> bool:
        """Waits until nothing runs; False when that took longer."""
        with self._lock:
            return self._idle.wait_for(lambda: self._running == 0, seconds)

    def close(self, seconds: float = 1.0) -> None:
        """Ends the threads that are free; those still in a function are left behind."""
        end = time.monotonic() + seconds
        for _ in self._hands:
            self._work.put(None)
        if self._loop is not None and self._loop_thread is not None:
            self._loop.call_soon_threadsafe(self._cancel_all)
            self._loop_thread.join(seconds)
            if not self._loop_thread.is_alive():
                self._loop.close()
        for hand in self._hands:
            hand.join(max(0.0, end - time.monotonic()))

    # -- handing out; the lock is held --------------------------------------------------------------------------

    def _start_what_fits(self) -> None:
        awaited: list[J] = []
        while self._running < self._concurrency and (job := self._pending.take()) is not None:
            self._running += 1
            if job.is_async:
                awaited.append(job)
            else:
                self._give_to_a_hand(job)
        if awaited:
            self._event_loop().call_soon_threadsafe(self._await_all, awaited)

    def _give_to_a_hand(self, job: J) -> None:
        self._in_hands += 1
        if len(self._hands) < self._in_hands:
            name = f"flowtrail-{len(self._hands) + 1}"
            hand = threading.Thread(target=self._be_a_hand, name=name, daemon=True)
            self._hands.append(hand)
            hand.start()
        self._work.put(job)

    def _event_loop(self) -> asyncio.AbstractEventLoop:
        if self._loop is None:
            self._loop = asyncio.new_event_loop()
            self._loop_thread = threading.Thread(
                target=self._loop.run_forever, name="flowtrail-loop", daemon=True
            )
            self._loop_thread.start()
        return self._loop

    # -- in the threads -----------------------------------------------------------------------------------------

    def _be_a_hand(self) -> None:
        while (job := self._work.get()) is not None:
            following: J | None = job
            while following is not None:
                self._perform(following)
                following = self._following()

    def _following(self) -> J | None:
        """Ends this hand's job; gives the next one when it is for a hand too, which saves a hop."""
        with self._lock:
            job = self._pending.take()
            if job is not None and not job.is_async:
                return job
            if job is not None:
                self._pending.put_back(job)
            self._in_hands -= 1
            self._ended()
            return None

    def _ended(self) -> None:
        self._running -= 1
        self._start_what_fits()
        if self._running == 0:
            self._idle.notify_all()

    # -- on the event loop --------------------------------------------------------------------------------------

    def _await_all(self, jobs: list[J]) -> None:
        for job in jobs:
            task = asyncio.get_running_loop().create_task(self._await_one(job))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _await_one(self, job: J) -> None:
        try:
            await self._perform_async(job)
        finally:
            with self._lock:
                self._ended()

    def _cancel_all(self) -> None:
        loop = asyncio.get_running_loop()
        for task in self._tasks:
            task.cancel()
        gathered = asyncio.gather(*self._tasks, return_exceptions=True)
        gathered.add_done_callback(lambda _: loop.stop())
