"""The task a function performs now: who it is, whether anybody still waits for it, and its heartbeats.

    from flowtrail import current_task, heartbeat

Both work anywhere below a task's function, in its thread or its coroutine; a thread the function starts itself needs
the context handed over (contextvars.copy_context). A heartbeat is only noted here; heart.py decides when it is sent.
Invariant: once `is_cancelled` is true it stays so, and no outcome of the task is sent.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar, Token
from typing import Any, Final

from flowtrail.errors import Cancelled, InputError
from flowtrail.functions import TaskContext
from flowtrail.payload import NotJson, to_json
from flowtrail.tokens import token_of
from flowtrail.wire import Task

_current: ContextVar[CurrentTask] = ContextVar("current_task")
UNREPORTED: Final = -1.0
"""What `beat_at` is before the first heartbeat."""


_changing = threading.Lock()
"""Guards what is seldom: heartbeats noted, cancellations and coroutines. One for all tasks: a lock a task costs more."""


class CurrentTask:
    """`context` says which task, `token` completes it from elsewhere, `deadline` is Unix time in seconds or None.

    `is_cancelled` is true when nobody waits for the outcome any more: the flow was cancelled or the task's time is up.
    """

    __slots__ = (
        "_awaited", "_event", "beat_at", "context", "deadline", "has_news", "is_cancelled", "key", "progress", "task",
    )  # fmt: skip

    def __init__(self, task: Task, context: TaskContext) -> None:
        self.task = task
        self.context = context
        self.key = (task.flow_id, task.task, task.run, task.attempt)
        self.deadline = task.deadline / 1e6 if task.deadline else None
        self.is_cancelled = False
        self.beat_at = UNREPORTED
        self.progress: bytes | None = None
        self.has_news = False
        self._event: threading.Event | None = None
        self._awaited: tuple[asyncio.AbstractEventLoop, asyncio.Task[Any]] | None = None

    @property
    def cancelled(self) -> threading.Event:
        """Set when `is_cancelled`; for functions that wait."""
        with _changing:
            if self._event is None:
                self._event = threading.Event()
                if self.is_cancelled:
                    self._event.set()
            return self._event

    @property
    def token(self) -> str:
        return token_of(self.task.flow_id, self.task.task, self.task.run, self.task.attempt)

    def heartbeat(self, progress: Any = None) -> None:
        """Notes that the task is alive and how far it is (JSON). Raises Cancelled when nobody waits for it any more."""
        if self.is_cancelled:
            raise Cancelled(f"Expected somebody to wait for task {self.context.task} but it was cancelled")
        try:
            said = None if progress is None else to_json(progress, "a heartbeat's progress")
        except NotJson as problem:
            raise InputError(str(problem)) from None
        with _changing:
            self.progress = said if said is not None else self.progress
            self.has_news = True

    def take_news(self) -> tuple[bool, bytes | None]:
        """Whether something was noted since the last call, and the newest progress."""
        with _changing:
            news, self.has_news = self.has_news, False
            return news, self.progress

    def cancel(self) -> None:
        """Any thread. A coroutine is cancelled at its next await, a sync function at its next heartbeat."""
        with _changing:
            self.is_cancelled = True
            if self._event is not None:
                self._event.set()
            awaited = self._awaited
        if awaited is not None:
            loop, task = awaited
            loop.call_soon_threadsafe(task.cancel)

    @contextmanager
    def entered(self) -> Iterator[None]:
        """`current_task` is this one meanwhile."""
        kept = enter(self)
        try:
            yield
        finally:
            leave(kept)

    @contextmanager
    def awaited(self) -> Iterator[None]:
        """As `entered`, in a coroutine that `cancel` is to interrupt. Raises CancelledError when it is too late."""
        coroutine = asyncio.current_task()
        assert coroutine is not None
        with _changing:
            if self.is_cancelled:
                raise asyncio.CancelledError
            self._awaited = (asyncio.get_running_loop(), coroutine)
        try:
            with self.entered():
                yield
        finally:
            with _changing:
                self._awaited = None


def enter(current: CurrentTask) -> Token[CurrentTask]:
    """`current_task` is `current` until `leave`; a context manager costs a microsecond more, a task."""
    return _current.set(current)


def leave(kept: Token[CurrentTask]) -> None:
    _current.reset(kept)


def current_task() -> CurrentTask:
    """The task being performed here. Raises InputError outside of one."""
    found = _current.get(None)
    if found is None:
        raise InputError("Expected to be called within a task's function but no task is performed here")
    return found


def heartbeat(progress: Any = None) -> None:
    """`current_task().heartbeat(progress)`."""
    current_task().heartbeat(progress)
