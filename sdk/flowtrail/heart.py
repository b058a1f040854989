"""What is being performed now: sends its heartbeats, ends what is past its deadline or was cancelled.

One thread beside the functions', so that neither a busy function nor a slow broker's consumer delays a beat. A task
that asks for heartbeats gets one each third of the time it allows, whether its function says anything or not: that
proves that the process is alive. Progress a function notes goes out with the next beat, at once when a third has passed;
for tasks that ask for none, at most once a second.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

from flowtrail.performing import CurrentTask

log: Final = logging.getLogger("flowtrail.worker")

Key = tuple[str, str, int, int]
"""Flow, task, run, attempt."""

_TURN_S: Final = 0.05
_IDLE_S: Final = 0.5
_PROGRESS_EVERY_S: Final = 1.0
_REMEMBERED_MAX: Final = 10_000


class Heart:
    """`send(current, progress)` produces one heartbeat; it must not block for long."""

    def __init__(
        self,
        send: Callable[[CurrentTask, bytes | None], None],
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._send, self._clock, self._now = send, clock, now
        self._running: dict[Key, CurrentTask] = {}
        self._cancelled: OrderedDict[Key, None] = OrderedDict()
        self._wake = threading.Event()
        self._ending = False
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        self._thread = threading.Thread(target=self._run, name="flowtrail-heart", daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._ending = True
        self._wake.set()
        if self._thread is not None:
            self._thread.join(5)

    def begin(self, current: CurrentTask) -> bool:
        """False when the task need not be started: it was cancelled, or its deadline has passed."""
        current.beat_at = self._clock()  # the engine counts from when it handed out; the first third is ours
        key = current.key
        self._running[key] = current
        # No lock: a dict's steps are whole, and `cancel` puts before it looks, as here. One of the two sees the other.
        over = key in self._cancelled or (current.deadline is not None and current.deadline <= self._now())
        if over:
            self.end(current)
            current.cancel()
        elif current.task.heartbeat or current.deadline is not None:
            self._wake.set()
        return not over

    def end(self, current: CurrentTask) -> None:
        if (
            self._running.get(current.key) is current
        ):  # a task delivered twice is performed twice at the same time
            self._running.pop(current.key, None)

    def cancel(self, key: Key) -> bool:
        """True when the task was being performed; one that comes later is not started. One thread calls this."""
        self._cancelled[key] = None
        while len(self._cancelled) > _REMEMBERED_MAX:
            self._cancelled.popitem(last=False)
        current = self._running.get(key)
        if current is None:
            return False
        current.cancel()
        return True

    # -- the thread ---------------------------------------------------------------------------------------------

    def _run(self) -> None:
        while not self._ending:
            self._wake.wait(_TURN_S if self.turn() else _IDLE_S)
            self._wake.clear()

    def turn(self) -> bool:
        """One look at everything; whether anything running needs close attention."""
        running = list(self._running.values())
        at, now = self._clock(), self._now()
        close = False
        for current in running:
            if current.is_cancelled:
                continue
            if current.deadline is not None and now >= current.deadline:
                log.warning(
                    "task %s of flow %s ended: its time is up", current.task.task, current.task.flow_id
                )
                current.cancel()
                continue
            close = close or current.deadline is not None or current.task.heartbeat > 0
            self._beat(current, at)
        return close

    def _beat(self, current: CurrentTask, at: float) -> None:
        asked = current.task.heartbeat / 1e6
        if at - current.beat_at < (asked / 3 if asked else _PROGRESS_EVERY_S):
            return
        news, progress = current.take_news()
        if not asked and not news:
            return
        current.beat_at = at
        try:
            self._send(current, progress)
        except Exception as problem:  # one lost heartbeat is made up for by the next; the thread must go on
            log.warning("heartbeat of task %s not sent: %s", current.task.task, problem)
