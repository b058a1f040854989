"""Which tasks this worker performs now, on disk, so that a task that kills its worker is known afterwards.

A file a process in FLOWTRAIL_WORKER_STATE (default ~/.cache/flowtrail), mapped into memory: a slot a task, written before
its function is called and freed after it returned, without a system call or a lock; the pages outlive the process. A
process that dies leaves its file; the next one of the same queue on this machine adopts the files nobody holds locked:
each slot in use is one death. Without fsync: a process's death is survived, a machine's is not, which only means that
counting begins anew. Invariant: a missing, full or broken journal never keeps a worker from working.
"""

from __future__ import annotations

import fcntl
import hashlib
import logging
import mmap
import os
import uuid
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from flowtrail.heart import Key

log: Final = logging.getLogger("flowtrail.worker")

_SLOT_BYTES: Final = 256
_BYTES: Final = 4096 * _SLOT_BYTES
"""Of a journal. A task that finds no free slot is performed without one."""


def state_folder() -> Path:
    given = os.environ.get("FLOWTRAIL_WORKER_STATE", "")
    return Path(given) if given else Path.home() / ".cache" / "flowtrail"


class Journal:
    """Any thread may begin and end tasks. `deaths(key)` is how many processes died while they performed that attempt."""

    def __init__(self, queue: str, folder: Path | None = None) -> None:
        self._queue = queue
        self._deaths: defaultdict[bytes, list[int]] = defaultdict(list)
        self._open: dict[Key, int] = {}
        self._free: list[int] = []
        self._file: int | None = None
        self._path: Path | None = None
        self._pages: mmap.mmap | None = None
        try:
            self._begin(folder or state_folder())
        except (OSError, RuntimeError) as problem:  # RuntimeError: no home directory
            log.warning(
                "Expected to keep a journal of tasks but %s; a task that kills its worker is not noticed; "
                "set FLOWTRAIL_WORKER_STATE",
                problem,
            )

    def deaths(self, key: Key) -> int:
        return len(self._deaths.get(_text(key), ())) if self._deaths else 0

    def started(self, key: Key) -> None:
        """Each step is one of a list, a dict or a map, which no other thread can interrupt: no lock is needed."""
        if key in self._open:
            return  # delivered twice and performed twice at the same time
        try:
            at = self._free.pop()
        except IndexError:
            return
        self._open[key] = at
        self._write(at, _text(key))

    def ended(self, key: Key) -> None:
        if self._deaths:
            for at in self._deaths.pop(_text(key), ()):
                self._clear(at)
        at_or_none = self._open.pop(key, None)
        if at_or_none is not None:
            self._clear(at_or_none)

    def close(self) -> None:
        """The worker ended in order: what it still performs did not kill it. What others died of is kept."""
        self._free = []
        while self._open:
            self._clear(self._open.popitem()[1])
        if self._path is not None and not self._deaths:
            self._path.unlink(missing_ok=True)
        if self._pages is not None:
            self._pages.close()
            self._pages = None
        if self._file is not None:
            os.close(self._file)
            self._file = None

    # -- the file -----------------------------------------------------------------------------------------------

    def _begin(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with _locked(folder / f"{self._queue}.lock"):
            left: list[bytes] = []
            adopted = [path for path in folder.glob(f"{self._queue}@*.journal") if _adopt(path, left)]
            self._path = folder / f"{self._queue}@{uuid.uuid4().hex}.journal"
            self._file = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600)
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.ftruncate(self._file, _BYTES)
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(
                    self._file, 0, _BYTES
                )  # a full disk is found here, not as a fault in the map
            self._pages = mmap.mmap(self._file, _BYTES)
            self._free = list(range(_BYTES - _SLOT_BYTES, -1, -_SLOT_BYTES))
            for text in left[-len(self._free) // 2 :]:  # the other half is for what is performed now
                self._deaths[text].append(at := self._free.pop())
                self._write(at, text)
            for path in adopted:
                path.unlink()

    def _write(self, at: int, text: bytes) -> None:
        if (pages := self._pages) is not None:
            pages[at : at + _SLOT_BYTES] = text.ljust(_SLOT_BYTES, b"\0")

    def _clear(self, at: int) -> None:
        if (pages := self._pages) is not None:
            pages[at] = 0
            self._free.append(at)


def _adopt(path: Path, left: list[bytes]) -> bool:
    """Adds what the process of `path` died of to `left`; False while it lives."""
    file = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    else:
        content = path.read_bytes()
        slots = (content[at : at + _SLOT_BYTES] for at in range(0, len(content), _SLOT_BYTES))
        left.extend(slot.rstrip(b"\0") for slot in slots if slot[0])
        return True
    finally:
        os.close(file)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _text(key: Key) -> bytes:
    flow_id, task, run, attempt = key
    text = f"{flow_id}{task}#{run}.{attempt}".encode()  # a flow's id holds no slash
    return text if len(text) <= _SLOT_BYTES else b"sha256:" + hashlib.sha256(text).hexdigest().encode()
