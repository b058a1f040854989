"""Which offset of a partition may be committed: the end of the unbroken run of tasks that are over.

Tasks end in any order and offsets have gaps (transaction markers), so neither the highest offset that ended nor
counting will do. `done` may be called by any thread; `take` and `advance` by the polling thread only. Once `dropped`
(the partition was revoked) nothing of it is committed any more, whoever still works on its tasks.
"""

from __future__ import annotations

from collections import deque


class Offsets:
    """One assigned partition's tasks in hand."""

    __slots__ = ("_done", "_taken", "committed", "dropped", "next", "partition")

    def __init__(self, partition: int) -> None:
        self.partition = partition
        self.dropped = False
        self.next: int | None = None
        """The offset that a commit would carry, None before anything is over."""
        self.committed: int | None = None
        self._taken: deque[int] = deque()
        self._done: set[int] = set()

    def take(self, offset: int) -> None:
        self._taken.append(offset)

    def done(self, offset: int) -> None:
        self._done.add(offset)  # one set operation: atomic under the GIL, no lock needed

    def advance(self) -> int | None:
        """Moves over what is over; gives the offset to commit when it is ahead of the committed one."""
        taken, done = self._taken, self._done
        while taken and taken[0] in done:
            offset = taken.popleft()
            done.discard(offset)
            self.next = offset + 1
        return self.next if self.next != self.committed else None

    def __len__(self) -> int:
        """Tasks taken whose results are not acknowledged, or that stand behind such a one."""
        return len(self._taken)
