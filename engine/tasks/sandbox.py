"""The expression sandbox: a child process in which programs that may never end, or eat all memory, run.

One long-lived child (sandbox_child.py) with an empty environment, an address-space limit and no file of ours but
its pipes. Invariant: whatever a program does, `evaluate` returns or raises ExpressionError within the deadline and
the next call works. A child that missed the deadline or died is replaced at the next call. Starting a child is not
part of the deadline. Calls are served one at a time: the sandbox is for the rare program, not for throughput.
"""

from __future__ import annotations

import os
import select
import signal
import struct
import subprocess
import sys
import threading
import time
import weakref
from pathlib import Path
from typing import IO, Final

import orjson

from engine.dsl.errors import ExpressionError

_HEADER: Final = struct.Struct("<BI")
_OK: Final = 0
_START_S: Final = 30.0
_ROOT: Final = str(Path(__file__).resolve().parents[2])
_CHUNK: Final = 1 << 16


class _Died(Exception):
    """The child ended; its return code tells how."""


class _Killed(Exception):
    """Somebody else ended the child."""


class _Late(Exception):
    """The deadline passed."""


class ProcessSandbox:
    """engine.dsl's Sandbox port over a child process. Thread-safe; starts lazily; `close` ends the child."""

    def __init__(self, deadline_ms: int = 1000, memory_bytes: int = 256 * 1024 * 1024) -> None:
        self.deadline_ms = deadline_ms
        self.memory_bytes = memory_bytes
        self._lock = threading.Lock()
        self._child: subprocess.Popen[bytes] | None = None
        self._finalizer: weakref.finalize[..., object] | None = None

    def evaluate(self, program: str, names: tuple[str, ...], value: bytes, arguments: bytes) -> bytes:
        parts = (program.encode(), orjson.dumps(names), value, arguments)
        request = b"".join(struct.pack("<I", len(part)) + part for part in parts)
        with self._lock:
            try:
                status, answer = self._ask(request)
            except _Killed:  # by the system or a person: not the program's doing
                try:
                    status, answer = self._ask(request)
                except _Killed:
                    raise ExpressionError("Expected a result but the sandbox was killed twice") from None
        if status == _OK:
            return answer
        raise ExpressionError(answer.decode("utf-8", "replace"))

    def _ask(self, request: bytes) -> tuple[int, bytes]:
        child = self._ready()
        try:
            return _exchange(child, request, time.monotonic() + self.deadline_ms / 1000)
        except _Late:
            self._end()
            raise ExpressionError(self._death(-signal.SIGALRM)) from None
        except _Died:
            code = child.wait()
            self._end()
            if -code in (signal.SIGKILL, signal.SIGTERM):
                raise _Killed from None
            raise ExpressionError(self._death(code)) from None

    def close(self) -> None:
        with self._lock:
            self._end()

    def _ready(self) -> subprocess.Popen[bytes]:
        """The running child, started when there is none."""
        if self._child is not None and self._child.poll() is None:
            return self._child
        self._end()
        start = (
            "import sys; sys.path.insert(0, sys.argv[1]); from engine.tasks.sandbox_child import main; main()"
        )
        limits = (str(self.memory_bytes), str(self.deadline_ms))
        child = subprocess.Popen(
            [sys.executable, "-I", "-c", start, _ROOT, *limits],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={},
            cwd="/",
            bufsize=0,
            start_new_session=True,  # Ctrl-C is for the engine to handle, not for its sandbox
        )
        self._child = child
        self._finalizer = weakref.finalize(self, _kill, child)
        try:
            _exchange(child, b"", time.monotonic() + _START_S)
        except (_Died, _Late):
            self._end()
            raise ExpressionError("Expected the expression sandbox to start but it did not") from None
        return child

    def _end(self) -> None:
        if self._finalizer is not None:
            self._finalizer()
        self._child = self._finalizer = None

    def _death(self, code: int) -> str:
        memory = f"{self.memory_bytes // (1024 * 1024)} MiB of memory"
        match -code:
            case signal.SIGSEGV | signal.SIGBUS:
                return f"Expected a result but the expression nests too deeply or needs more than {memory}"
            case signal.SIGABRT:
                return f"Expected a result within {memory} but the expression needs more"
            case signal.SIGALRM:
                return f"Expected a result within {self.deadline_ms} ms but the expression took longer"
        return f"Expected a result but the expression ended the sandbox ({code})"


def _kill(child: subprocess.Popen[bytes]) -> None:
    child.kill()
    child.wait()
    for stream in (child.stdin, child.stdout):
        if stream is not None:
            stream.close()


def _exchange(child: subprocess.Popen[bytes], request: bytes, deadline: float) -> tuple[int, bytes]:
    """Sends `request` and waits for its answer. An empty request waits for the greeting of a new child."""
    assert child.stdin is not None
    assert child.stdout is not None
    _write(child.stdin, request, deadline)
    status, size = _HEADER.unpack(_read(child.stdout, _HEADER.size, deadline))
    return status, _read(child.stdout, size, deadline)


def _write(stream: IO[bytes], data: bytes, deadline: float) -> None:
    descriptor, view = stream.fileno(), memoryview(data)
    os.set_blocking(descriptor, False)
    while view:
        _wait(descriptor, select.POLLOUT, deadline)
        try:
            view = view[os.write(descriptor, view[:_CHUNK]) :]
        except BlockingIOError:
            continue
        except OSError:
            raise _Died from None


def _read(stream: IO[bytes], size: int, deadline: float) -> bytes:
    descriptor, data = stream.fileno(), bytearray()
    while len(data) < size:
        _wait(descriptor, select.POLLIN, deadline)
        chunk = os.read(descriptor, min(size - len(data), _CHUNK))
        if not chunk:
            raise _Died
        data += chunk
    return bytes(data)


def _wait(descriptor: int, event: int, deadline: float) -> None:
    poller = select.poll()
    poller.register(descriptor, event)
    if not poller.poll(max(0.0, deadline - time.monotonic()) * 1000):
        raise _Late
