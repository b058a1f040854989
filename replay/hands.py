"""Folds spans of the log into the second schema: a hand reads, folds and writes; what is much is shared with a helper.

While Postgres writes a batch the next one is folded. Each partition is folded by one hand, in its order; which one is
decided as they get free. A position that is written says that everything before it is. All hands share a lock that the
next rebuild waits for, so that none of a killed rebuild still writes.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import Final

import msgspec

from engine.errors import FlowtrailError
from projections.batch import Folded, Move, fold_batch
from projections.healing import Healer
from projections.logged import Record
from projections.store import PROJECTION, Store
from projections.writing import write_all
from replay.beside import NEW, TABLES
from replay.log import Span, scan

LOCK: Final = 0x466C6F7A
_RECORDS: Final = 10_000
"""Folded together: the more, the fewer rows are written again."""

Passed = Callable[[int], None]
Group = dict[int, Span]


class Target(msgspec.Struct, frozen=True):
    """Whose `projection` of the second schema is folded, into which of its tables; with `keys`, of these flows alone."""

    kafka: str
    postgres: str
    topic: str
    projection: str = PROJECTION
    tables: tuple[str, ...] = tuple(TABLES)
    keys: frozenset[bytes] | None = None


class Hand:
    """One connection. `healed` counts the flows that were folded anew."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._store = Store(target.postgres, target.topic, NEW, target.projection, target.tables)
        self._store.prepare()
        self._store.share_lock(LOCK)
        self._healer = Healer(target.kafka, target.topic, self._store)
        self._writer = ThreadPoolExecutor(1, "rebuild-writing")
        self._going_on: Future[None] | None = None

    def close(self) -> None:
        self._writer.shutdown()
        self._store.close()

    @property
    def healed(self) -> int:
        return self._healer.healed

    def positions(self, partitions: Iterable[int]) -> dict[int, int]:
        return self._store.positions(partitions)

    def fold(self, spans: Mapping[int, Span], rate: float, passed: Passed) -> None:
        """Exactly `spans`, at most `rate` records a second (0: as fast as it goes). `finish` awaits the last write."""
        began, done = time.monotonic(), 0
        at = {partition: start for partition, (start, _) in spans.items()}
        size = int(min(_RECORDS, max(500, rate or _RECORDS)))  # a low rate shall not come in bursts
        records = self._records(spans)
        while batch := list(islice(records, size)):
            folded = fold_batch(batch, at)
            before = dict(at)
            at |= {partition: move.next_offset for partition, move in folded.moves.items()}
            self._put(batch, before, folded)
            passed(len(batch))
            done += len(batch)
            if rate and (early := done / rate - (time.monotonic() - began)) > 0:
                time.sleep(early)
        ends = {p: Move(start, spans[p][1]) for p, start in at.items() if start < spans[p][1]}
        if ends:  # markers of transactions, and flows that are not among the keys
            self._put([], at, Folded(ends))

    def finish(self) -> None:
        """Returns when everything is written. Raises what writing raised."""
        if self._going_on is not None:
            self._going_on.result()

    def _records(self, spans: Mapping[int, Span]) -> Iterator[Record]:
        found = scan(self._target.kafka, self._target.topic, spans)
        keys = self._target.keys
        if self._target.projection == PROJECTION:
            yield from found
            return
        self.finish()
        aside = self._store.aside(spans)  # was copied, and is kept aside for good
        for record in found:
            if (keys is None or record.key in keys) and (record.partition, record.offset) not in aside:
                yield record

    def _put(self, batch: list[Record], at: dict[int, int], folded: Folded) -> None:
        self.finish()
        self._going_on = self._writer.submit(self._write, batch, at, folded)

    def _write(self, batch: list[Record], at: dict[int, int], folded: Folded) -> None:
        def write(folded: Folded) -> bool:
            if folded.moves and not self._store.apply(folded):
                return False
            at.update({partition: move.next_offset for partition, move in folded.moves.items()})
            return True

        if not (write_all(batch, at, write, self._healer, folded) if batch else write(folded)):
            raise FlowtrailError(f"Expected to write schema {NEW} alone but somebody moved its positions")


def fold_groups(hand: Hand, groups: deque[Group], rate: float, passed: Passed) -> None:
    """Folds groups until there are none; another thread may take some of them."""
    while True:
        try:
            group = groups.popleft()
        except IndexError:
            break
        hand.fold(group, rate, passed)
    hand.finish()


def share(spans: Mapping[int, Span], count: int) -> deque[Group]:
    """At most `count` groups of about the same size, the greatest partitions first."""
    groups: list[Group] = [{} for _ in range(min(count, len(spans)))]
    for partition in sorted(spans, key=lambda p: spans[p][0] - spans[p][1]):
        least = min(groups, key=lambda group: sum(end - start for start, end in group.values()))
        least[partition] = spans[partition]
    return deque(groups)
