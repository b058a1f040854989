"""One subprocess within bounds: its own process group, a time limit, output limits, and no way to outlive its task.

    ended = await supervised(["/bin/date"], name="the date", stdin=b"", environment={...}, folder=..., bounds=Bounds(60, 4096))

The group is killed when its leader has ended, at the deadline, when it writes too much, and when the awaiting coroutine
is cancelled; process_child.py, as its leader, also kills it when this process is killed. A process that leaves its group
on purpose (setsid) escapes that; whoever must rule it out enables containers only. Invariant: when `supervised` returns or
raises, the leader is dead and reaped.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import selectors
import signal
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final

from engine.tasks import problems
from engine.tasks.configured import configured

POLL_S: Final = 0.05
_CHUNK: Final = 65_536
_DRAIN_S: Final = 2.0
_threads: Final[list[ThreadPoolExecutor]] = []


@dataclass(frozen=True)
class Ended:
    """`code` is 128 + n for a process that signal n ended, as shells tell it."""

    code: int
    stdout: bytes
    stderr: bytes


@dataclass(frozen=True)
class Bounds:
    wall_s: float
    output_max: int


async def supervised(
    command: Sequence[str],
    *,
    name: str,
    stdin: bytes,
    environment: Mapping[str, str],
    folder: Path,
    bounds: Bounds,
) -> Ended:
    """Runs `command` to its end. `name` is what errors call it. Raises TaskError."""
    run = _Run(name, bounds)
    work = asyncio.get_running_loop().run_in_executor(
        _pool(), run.perform, command, stdin, dict(environment), folder
    )
    try:
        return await asyncio.shield(work)
    except asyncio.CancelledError:
        run.stop()
        with contextlib.suppress(Exception):
            await work
        raise


def _pool() -> ThreadPoolExecutor:
    """As many threads as tasks of both queues are performed at once: none waits for another one's process."""
    if not _threads:
        _threads.append(ThreadPoolExecutor(2 * configured().executor_concurrency, "flowtrail-process"))
    return _threads[0]


def _awaits(selector: selectors.BaseSelector, over: float | None) -> bool:
    """Whether there is something to read, or, from a process that goes on, to write."""
    pipes = selector.get_map().values()
    return any(key.events == selectors.EVENT_READ for key in pipes) or (over is None and len(pipes) > 0)


class _Run:
    """A process while it runs, in a thread of its own; `stop` may be called from any other."""

    def __init__(self, name: str, bounds: Bounds) -> None:
        self._name = name
        self._bounds = bounds
        self._lock = threading.Lock()
        self._stopped = False
        self._leader: int | None = None

    def perform(
        self, command: Sequence[str], stdin: bytes, environment: dict[str, str], folder: Path
    ) -> Ended:
        end = time.monotonic() + self._bounds.wall_s
        with self._lock:
            if self._stopped:
                raise problems.runtime(f"Expected {self._name} to run but it was cancelled")
            try:
                process = subprocess.Popen(
                    list(command),
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    cwd=folder,
                    env=environment,
                    start_new_session=True,
                )
            except (OSError, ValueError) as problem:
                why = getattr(problem, "strerror", None) or "its arguments hold what no process can be given"
                raise problems.configuration(f"Expected to start {self._name} but {why}") from None
            self._leader = process.pid
        try:
            outputs = self._exchange(process, stdin, end)
        finally:
            self.stop()
            code = process.wait()
            with self._lock:
                self._leader = None
            for pipe in (process.stdin, process.stdout, process.stderr):
                if pipe is not None:
                    with contextlib.suppress(OSError):
                        pipe.close()
        return Ended(128 - code if code < 0 else code, *outputs)

    def stop(self) -> None:
        """Kills the whole group. The leader is not reaped before, so the group's number is still its own."""
        with self._lock:
            self._stopped = True
            if self._leader is not None:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(self._leader, signal.SIGKILL)

    def _exchange(self, process: subprocess.Popen[bytes], stdin: bytes, end: float) -> tuple[bytes, bytes]:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        found = {process.stdout: bytearray(), process.stderr: bytearray()}
        rest = memoryview(stdin)
        with selectors.DefaultSelector() as selector:
            for pipe in found:
                os.set_blocking(pipe.fileno(), False)
                selector.register(pipe, selectors.EVENT_READ)
            os.set_blocking(process.stdin.fileno(), False)
            selector.register(process.stdin, selectors.EVENT_WRITE)
            over: float | None = None
            while _awaits(selector, over):
                now = time.monotonic()
                if over is None and self._is_over(process):
                    self.stop()  # what it left behind would keep the pipes open
                    over = now + _DRAIN_S
                if over is not None and now >= over:
                    break
                if over is None and now >= end:
                    raise problems.timeout(
                        f"Expected {self._name} to take at most {self._bounds.wall_s:g} s but it takes longer"
                    )
                for key, _ in selector.select(min(POLL_S, max(0.0, end - now)) if over is None else POLL_S):
                    if key.fileobj is process.stdin:
                        rest = self._write(selector, process.stdin, rest)
                    else:
                        self._read(selector, key.fileobj, found)
        while over is None and not self._is_over(process):  # it closed its outputs and goes on
            if time.monotonic() >= end:
                raise problems.timeout(
                    f"Expected {self._name} to take at most {self._bounds.wall_s:g} s but it takes longer"
                )
            time.sleep(POLL_S)
        return bytes(found[process.stdout]), bytes(found[process.stderr])

    @staticmethod
    def _is_over(process: subprocess.Popen[bytes]) -> bool:
        """Whether the leader has ended, without reaping it: until then nobody else gets its number."""
        return os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None

    @staticmethod
    def _write(selector: selectors.BaseSelector, pipe: IO[bytes], rest: memoryview) -> memoryview:
        try:
            rest = rest[os.write(pipe.fileno(), rest[:_CHUNK]) :] if rest else rest
        except BlockingIOError:
            return rest
        except BrokenPipeError:
            rest = rest[:0]  # it does not read its input, which is its own affair
        if not rest:
            selector.unregister(pipe)
            pipe.close()
        return rest

    def _read(self, selector: selectors.BaseSelector, pipe: Any, found: dict[IO[bytes], bytearray]) -> None:
        try:
            chunk = os.read(pipe.fileno(), _CHUNK)
        except BlockingIOError:
            return
        if not chunk:
            selector.unregister(pipe)
            return
        found[pipe] += chunk
        if len(found[pipe]) > self._bounds.output_max:
            raise problems.runtime(
                f"Expected {self._name} to write at most {self._bounds.output_max} bytes but it writes more"
            )
