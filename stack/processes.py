"""Processes of ours, told apart from others that got the same pid later.

Invariant: nothing is signalled unless its pid *and* its start time are those that were recorded, so a stale
file never stops a stranger's process.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

from stack.errors import Refused

# The kernel counts from boot, and the time of boot moves when the clock is corrected. No pid comes round again
# within two seconds.
START_TOLERANCE_S = 2.0
POLL_S = 0.02


@dataclass(frozen=True)
class Identity:
    """One process: `started` is its start in seconds since the epoch."""

    pid: int
    started: float

    @classmethod
    def of(cls, pid: int) -> Identity | None:
        """None when it has ended."""
        try:
            return cls(pid, psutil.Process(pid).create_time())
        except psutil.Error:
            return None

    def alive(self) -> bool:
        try:
            process = psutil.Process(self.pid)
            same = abs(process.create_time() - self.started) < START_TOLERANCE_S
            return same and bool(process.status() != psutil.STATUS_ZOMBIE)
        except psutil.Error:
            return False

    def send(self, number: int) -> None:
        if self.alive():
            try:
                os.kill(self.pid, number)
            except ProcessLookupError:
                pass
            except PermissionError:
                raise Refused(
                    f"Expected to be allowed to stop process {self.pid} but it is another user's"
                ) from None


def stop(identity: Identity, number: int = signal.SIGTERM, deadline_s: float = 20.0) -> bool:
    """Ask with `number`, wait, and kill its process group after the deadline. True when it ended as asked."""
    identity.send(number)
    if wait_ended(identity, deadline_s):
        return True
    kill_group(identity)
    wait_ended(identity, 5.0)
    return False


def wait_ended(identity: Identity, deadline_s: float) -> bool:
    end = time.monotonic() + deadline_s
    while identity.alive():
        if time.monotonic() > end:
            return False
        time.sleep(POLL_S)
    return True


def kill_group(identity: Identity) -> None:
    """SIGKILL, to its whole group when it leads one, as every child of ours does."""
    if not identity.alive():
        return
    with contextlib.suppress(ProcessLookupError, PermissionError):
        if os.getpgid(identity.pid) == identity.pid:
            os.killpg(identity.pid, signal.SIGKILL)
        else:
            os.kill(identity.pid, signal.SIGKILL)


def with_argument(argument: str) -> Iterator[Identity]:
    """Every process that has `argument` on its command line: how an unrecorded leftover is found."""
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.pid != os.getpid() and argument in process.cmdline():
                yield Identity(process.pid, process.create_time())


def tail(log: Path, lines: int = 12) -> str:
    """The last lines of a log, for the message about a process that ended; not the frames of Java's traces."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - 16_384))
            text = file.read().decode(errors="replace")
    except OSError:
        return "(no log)"
    told = [line for line in text.splitlines() if not line.startswith("\tat ")]
    return "\n".join(f"  | {line}" for line in told[-lines:]) or "  | (the log is empty)"
