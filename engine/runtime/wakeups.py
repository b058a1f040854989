"""When to wake what: a heap of (due, key) whose entries may be out of date, and the due time that counts for each key.

Arming a key again leaves its old entry in the heap; it is recognised when it comes up, and the heap is made anew when
it is mostly such entries. So memory follows the number of keys that wait, not how often they changed their mind.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable
from typing import Final

_SLACK: Final = 256


class Wakeups:
    """Times are microseconds since the Unix epoch; 0 means never. Not thread-safe."""

    __slots__ = ("_armed", "_heap")

    def __init__(self, due: Iterable[tuple[str, int]] = ()) -> None:
        self._armed: dict[str, int] = {key: at for key, at in due if at}
        self._heap: list[tuple[int, str]] = []
        self._rebuild()

    def __len__(self) -> int:
        return len(self._armed)

    def arm(self, key: str, due: int) -> None:
        """`key` is to be woken at `due` and at no other time; 0: not at all."""
        if not due:
            self._armed.pop(key, None)
        elif self._armed.get(key) != due:
            self._armed[key] = due
            heapq.heappush(self._heap, (due, key))
        if len(self._heap) > 2 * len(self._armed) + _SLACK:
            self._rebuild()

    @property
    def next(self) -> int:
        """The earliest due time; 0: nothing waits."""
        while self._heap and self._armed.get(self._heap[0][1]) != self._heap[0][0]:
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else 0

    def take(self, now: int, most: int) -> list[str]:
        """Up to `most` keys that are due, earliest first; they wait no longer."""
        taken: list[str] = []
        while len(taken) < most and 0 < self.next <= now:
            _, key = heapq.heappop(self._heap)
            del self._armed[key]
            taken.append(key)
        return taken

    def _rebuild(self) -> None:
        self._heap = [(due, key) for key, due in self._armed.items()]
        heapq.heapify(self._heap)
