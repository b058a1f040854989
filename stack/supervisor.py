"""Keeps child processes running: starts them, starts again what ends, stops them in reverse order.

One thread a child waits for its end; nothing polls. Each child leads a session of its own, so a Ctrl-C in the
terminal reaches the launcher only, and the launcher decides the order. Invariant: after `stop()` no child that
was ever started here is alive.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from stack.processes import Identity, kill_group

BACKOFF_FIRST_S = 0.2
BACKOFF_LAST_S = 10.0
HEALTHY_AFTER_S = 30.0
LOG_BYTES_MAX = 16 * 1024 * 1024


@dataclass(frozen=True)
class Child:
    """`account` is the (user id, group id) it runs as, None the launcher's. `prepare` runs before each start."""

    name: str
    argv: tuple[str, ...]
    log: Path
    environment: Mapping[str, str] | None = None
    folder: Path | None = None
    account: tuple[int, int] | None = None
    port: int = 0
    stop_signal: int = signal.SIGTERM
    stop_deadline_s: float = 20.0
    prepare: Callable[[], None] | None = None


@dataclass
class _Running:
    child: Child
    process: subprocess.Popen[bytes] | None = None
    identity: Identity | None = None
    restarts: int = 0
    failures: int = 0  # ends in a row before HEALTHY_AFTER_S
    last_exit: int | None = None
    stopping: threading.Event = field(default_factory=threading.Event)
    thread: threading.Thread | None = None


@dataclass(frozen=True)
class Status:
    """`identity` is None between an end and the next start."""

    child: Child
    identity: Identity | None
    restarts: int
    last_exit: int | None


class Supervisor:
    """`changed` is called from any thread after each start; `report` with one line about each end."""

    def __init__(
        self,
        changed: Callable[[], None] = lambda: None,
        report: Callable[[str], None] = lambda _: None,
        *,
        backoff_first_s: float = BACKOFF_FIRST_S,
        healthy_after_s: float = HEALTHY_AFTER_S,
    ) -> None:
        self._changed = changed
        self._report = report
        self._backoff_first_s = backoff_first_s
        self._healthy_after_s = healthy_after_s
        self._running: list[_Running] = []
        self._lock = threading.Lock()

    def start(self, child: Child) -> Identity:
        """Start a child and watch it from now on. Raises OSError when its program cannot be started at all."""
        running = _Running(child)
        self._launch(running)
        with self._lock:
            self._running.append(running)
        running.thread = threading.Thread(
            target=self._watch, args=(running,), name=f"watch-{child.name}", daemon=True
        )
        running.thread.start()
        self._changed()
        assert running.identity is not None
        return running.identity

    def statuses(self) -> list[Status]:
        with self._lock:
            return [Status(r.child, r.identity, r.restarts, r.last_exit) for r in self._running]

    def status(self, name: str) -> Status:
        return next(status for status in self.statuses() if status.child.name == name)

    def stop(self) -> None:
        """Stop every child, the last started first; each has its deadline, then SIGKILL."""
        while True:
            with self._lock:
                if not self._running:
                    return
                running = self._running[-1]
            self._stop_one(running)
            with self._lock:
                self._running.remove(running)

    def stop_child(self, name: str) -> None:
        """Stop one child for good."""
        with self._lock:
            running = next(r for r in self._running if r.child.name == name)
        self._stop_one(running)
        with self._lock:
            self._running.remove(running)

    def _launch(self, running: _Running) -> None:
        child = running.child
        if child.prepare is not None:
            child.prepare()
        _rotate(child.log)
        user, group = child.account or (None, None)
        with child.log.open("ab") as log:
            running.process = subprocess.Popen(
                child.argv,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=None if child.environment is None else dict(child.environment),
                cwd=child.folder,
                start_new_session=True,
                user=user,
                group=group,
                extra_groups=[] if child.account else None,
            )
        # A child that has ended already has no start time to read; its watcher handles the end.
        running.identity = Identity.of(running.process.pid) or Identity(running.process.pid, time.time())

    def _watch(self, running: _Running) -> None:
        while True:
            process = running.process
            assert process is not None
            started = time.monotonic()
            code = process.wait()
            with self._lock:
                running.last_exit, running.identity = code, None
            _sweep(process.pid)
            if running.stopping.is_set():
                return
            lived_s = time.monotonic() - started
            if not self._again(running, lived_s, code):
                return

    def _again(self, running: _Running, lived_s: float, code: int) -> bool:
        """Start the child again after its back-off. False when it was stopped instead."""
        running.failures = 0 if lived_s >= self._healthy_after_s else running.failures + 1
        while True:
            pause_s = min(self._backoff_first_s * 2 ** max(0, running.failures - 1), BACKOFF_LAST_S)
            self._report(f"{running.child.name} ended ({_ending(code)}), starting again in {pause_s:g} s")
            if running.stopping.wait(pause_s):
                return False
            failed: Exception | None = None
            with self._lock:
                if running.stopping.is_set():
                    return False
                try:
                    self._launch(running)
                except Exception as problem:  # the watcher must outlive whatever a start meets
                    failed = problem
            if failed is None:
                break
            self._report(f"{running.child.name} could not be started: {failed}")
            running.failures += 1
        running.restarts += 1
        self._changed()
        return True

    def _stop_one(self, running: _Running) -> None:
        with self._lock:  # no start can be under way once this is set
            running.stopping.set()
            process, identity = running.process, running.identity
        assert process is not None
        assert running.thread is not None
        if process.poll() is None:
            process.send_signal(running.child.stop_signal)
            try:
                process.wait(running.child.stop_deadline_s)
            except subprocess.TimeoutExpired:
                self._report(
                    f"{running.child.name} did not end within {running.child.stop_deadline_s:g} s: killed"
                )
                if identity is not None:
                    kill_group(identity)
                process.kill()
                process.wait()
        running.thread.join()


def _sweep(leader: int) -> None:
    """End what the child left in its group: the helpers of a killed process must not outlive it."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(leader, signal.SIGKILL)


def _ending(code: int) -> str:
    if code >= 0:
        return f"exit code {code}"
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"signal {-code}"


def _rotate(log: Path) -> None:
    """One older log is kept, so a child that ends again and again cannot fill the disk."""
    log.parent.mkdir(parents=True, exist_ok=True)
    if log.exists() and log.stat().st_size > LOG_BYTES_MAX:
        log.replace(log.with_name(log.name + ".1"))
