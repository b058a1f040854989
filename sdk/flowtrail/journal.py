"""Which tasks this worker began and did not end, on disk, so that a task that kills its worker is known afterwards.

A file a process in FLOWTRAIL_WORKER_STATE (default ~/.cache/flowtrail): `+` and `-` lines, appended before a function is
called and after it returned, through a memory map: no system call a task, and the pages outlive the process. A process
that dies leaves its file; the next one of the same queue on this machine adopts
the files nobody holds locked. Without fsync: a process's death is survived, a machine's is not, which only means that
counting begins anew. Invariant: a missing or broken journal never keeps a worker from working.
"""

from __future__ import annotations

import fcntl
import logging
import mmap
import os
import threading
import uuid
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from flowtrail.heart import Key

log: Final = logging.getLogger("flowtrail.worker")

_BYTES: Final = 1024 * 1024
"""Of a journal; when it is full it is written anew with what still counts."""


def state_folder() -> Path:
    given = os.environ.get("FLOWTRAIL_WORKER_STATE", "")
    return Path(given) if given else Path.home() / ".cache" / "flowtrail"


class Journal:
    """Thread-safe. `deaths(key)` is how many processes died while they performed that attempt of a task."""

    def __init__(self, queue: str, folder: Path | None = None) -> None:
        self._queue = queue
        self._lock = threading.Lock()
        self._deaths: Counter[str] = Counter()
        self._open: set[str] = set()
        self._file: int | None = None
        self._path: Path | None = None
        self._pages: mmap.mmap | None = None
        self._size = 0
        try:
            self._begin(folder or state_folder())
        except (OSError, RuntimeError) as problem:  # RuntimeError: no home directory
            log.warning(
                "Expected to keep a journal of tasks but %s; a task that kills its worker is not noticed; "
                "set FLOWTRAIL_WORKER_STATE",
                problem,
            )

    def deaths(self, key: Key) -> int:
        return self._deaths[_text(key)] if self._deaths else 0

    def started(self, key: Key) -> None:
        with self._lock:
            self._open.add(text := _text(key))
            self._append("+", text)

    def ended(self, key: Key) -> None:
        with self._lock:
            self._open.discard(text := _text(key))
            self._deaths.pop(text, None)
            self._append("-", text)

    def close(self) -> None:
        """The worker ended in order: what it still performs did not kill it. What others died of is kept."""
        with self._lock:
            self._open.clear()
            self._rewrite()
            if self._file is not None:
                if self._path is not None and not self._deaths:
                    self._path.unlink(missing_ok=True)
                self._abandon()

    # -- the file; the lock is held -----------------------------------------------------------------------------

    def _begin(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with _locked(folder / f"{self._queue}.lock"):
            for left in folder.glob(f"{self._queue}@*.journal"):
                self._adopt(left)
            self._path = folder / f"{self._queue}@{uuid.uuid4().hex}.journal"
            self._file = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600)
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.ftruncate(self._file, _BYTES)
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(self._file, 0, _BYTES)  # a full disk is found here, not as a fault in the map
            self._pages = mmap.mmap(self._file, _BYTES)
            self._rewrite()

    def _adopt(self, path: Path) -> None:
        file = os.open(path, os.O_RDONLY)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return  # its process lives
        else:
            self._deaths.update(_unfinished(path.read_text("utf-8", "replace")))
            path.unlink()
        finally:
            os.close(file)

    def _append(self, sign: str, text: str) -> None:
        line = f"{sign}{text}\n".encode()
        if self._pages is None:
            return
        if self._size + len(line) > _BYTES:
            self._rewrite()
            return
        self._pages[self._size : self._size + len(line)] = line
        self._size += len(line)

    def _rewrite(self) -> None:
        """Only what counts: what others died of, and what is being performed."""
        if self._pages is None:
            return
        counting = [text for text, times in self._deaths.items() for _ in range(times)] + sorted(self._open)
        content = "".join(f"+{text}\n" for text in counting).encode()
        if len(content) > _BYTES // 2:
            log.warning("Expected to keep a journal of tasks but there are too many; going on without")
            self._abandon()
            return
        self._pages[:] = content + bytes(_BYTES - len(content))
        self._size = len(content)

    def _abandon(self) -> None:
        if self._pages is not None:
            self._pages.close()
            self._pages = None
        if self._file is not None:
            os.close(self._file)
            self._file = None


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _text(key: Key) -> str:
    flow_id, task, run, attempt = key
    return f"{flow_id}{task}#{run}.{attempt}".replace("\n", " ")  # a line each; a flow's id holds no slash


def _unfinished(content: str) -> Counter[str]:
    """How often each task was begun without an end. A line cut off by the death is a beginning that never happened."""
    found: Counter[str] = Counter()
    for line in content.split("\0", 1)[0].split("\n")[:-1]:
        if line.startswith("+"):
            found[line[1:]] += 1
        elif line.startswith("-"):
            found.pop(line[1:], None)
    return found
