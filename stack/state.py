"""What runs in a data directory: `stack.json`, written atomically, and the lock that keeps two launchers apart.

The lock is the kernel's (flock): it ends with its process, however that ends, so it can never be stale. The
file may be: it is what the last launcher wrote, and each process in it is checked by pid and start time.
No secret is in it: the password of Postgres has a file of its own.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from stack.errors import Refused
from stack.processes import POLL_S, Identity

STATE_FILE = "stack.json"
LOCK_FILE = "stack.lock"
PHASES = ("starting", "ready", "stopped")


@dataclass(frozen=True)
class Recorded:
    """A process as the launcher last saw it; `pid` 0: between two runs, `port` 0: it listens on none."""

    name: str
    pid: int
    started: float
    port: int = 0
    restarts: int = 0

    @property
    def identity(self) -> Identity:
        return Identity(self.pid, self.started)


@dataclass(frozen=True)
class State:
    """`launcher` is the process that supervises the others."""

    launcher: Identity
    phase: str = "starting"
    ports: dict[str, int] = field(default_factory=dict)
    urls: dict[str, str] = field(default_factory=dict)
    processes: tuple[Recorded, ...] = ()


def read(data: Path) -> State | None:
    """None when there is none, or what is there is not ours to read (it is only ever a cache of what runs)."""
    try:
        found: dict[str, Any] = json.loads((data / STATE_FILE).read_text())
        return State(
            launcher=Identity(**found["launcher"]),
            phase=str(found["phase"]),
            ports={str(name): int(port) for name, port in found["ports"].items()},
            urls={str(name): str(url) for name, url in found["urls"].items()},
            processes=tuple(Recorded(**process) for process in found["processes"]),
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def write(data: Path, state: State) -> None:
    write_private(data / STATE_FILE, json.dumps(asdict(state), indent=2) + "\n")


def write_private(path: Path, text: str) -> None:
    """Whole or not at all, readable by the owner only."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.unlink(missing_ok=True)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


class Lock:
    """Held by the launcher of a data directory for as long as it lives."""

    def __init__(self, data: Path) -> None:
        self._path = data / LOCK_FILE
        self._descriptor: int | None = None

    def take(self, patience_s: float = 0.0) -> None:
        """Raises Refused when another process still has it after `patience_s`."""
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600)
        end = time.monotonic() + patience_s
        while not _try_lock(descriptor):
            if time.monotonic() < end:
                time.sleep(POLL_S)
                continue
            owner = os.pread(descriptor, 32, 0).decode(errors="replace").strip() or "unknown"
            os.close(descriptor)
            data = self._path.parent
            raise Refused(
                f"Expected nobody else to run the stack of {data} but process {owner} does; "
                f"`flowtrail down --data {data}` stops it, `flowtrail status --data {data}` shows it"
            )
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, str(os.getpid()).encode(), 0)
        self._descriptor = descriptor

    def release(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
