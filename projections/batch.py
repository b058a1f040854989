"""A batch of the log's records, folded: what to copy and merge into each table, and how far each partition moves.

Pure. All of the projector between Kafka and Postgres. A record that cannot be read or stored is kept in `unreadable`,
with its bytes and the reason; it never stops the others, and it never disappears. An event that does not follow the one
before it makes its flow `broken`: one further on is folded all the same, one from before only kept in history. So rows
are the same however the log is cut into batches, once healing.py has seen that each flow's first event follows its row.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Iterable
from hashlib import sha256
from typing import Final

import msgspec

from projections import flows, history, rejections, tasks
from projections.copying import Unstorable, hexed, words
from projections.logged import Logged, Record
from schemas import messages as m
from schemas.codec import Undecodable, decode_logged

_DIRECT_MIN: Final = 200
"""So many new flows are worth copies of their own into the tables, instead of a merge."""


class Move(msgspec.Struct):
    """Where a partition's position goes. `start` is where it must stand, or the rows were written already."""

    start: int
    next_offset: int
    command_offset: int = -1
    event_time: int | None = None


class Broken(msgspec.Struct, frozen=True):
    """The first record of a flow that does not follow the one before it in the log."""

    flow_id: str
    partition: int
    offset: int
    found: str


class Healing(msgspec.Struct, frozen=True):
    """A flow whose rows were not what the log says up to `offset`, and are folded anew."""

    flow_id: str
    partition: int
    offset: int
    found: str


class Folded(msgspec.Struct):
    """Lines in COPY text format, a list a table. `months` are those of the history lines, as YYYY-MM.

    `flows` and `tasks` are merged into what is stored; `new_flows` and `new_tasks` are of flows that have no row. A batch
    is `torn` when a flow has events in two partitions: then each partition is a batch of its own.
    """

    moves: dict[int, Move]
    flows: list[str] = []
    tasks: list[str] = []
    new_flows: list[str] = []
    new_tasks: list[str] = []
    history: list[str] = []
    rejections: list[str] = []
    unreadable: list[str] = []
    broken: list[Broken] = []
    healed: list[Healing] = []
    months: set[str] = set()
    records: int = 0
    torn: bool = False


class Folding:
    """Records on their way into rows. With `whole`, flows are folded from the beginning of the log.

    `without` are keys whose flows are folded elsewhere; of the flows `strays` only history is kept.
    """

    __slots__ = (
        "broken",
        "flows",
        "history",
        "moves",
        "records",
        "rejections",
        "strays",
        "tasks",
        "torn",
        "unreadable",
        "whole",
        "without",
    )

    def __init__(
        self,
        positions: dict[int, int],
        *,
        whole: bool = False,
        without: Container[bytes] = (),
        strays: Container[str] = (),
    ) -> None:
        self.whole, self.without, self.strays = whole, without, strays
        self.moves = {partition: Move(offset, offset) for partition, offset in positions.items()}
        self.flows: dict[str, flows.FlowRow] = {}
        self.tasks: dict[tasks.Key, tasks.TaskRow] = {}
        self.history: list[str] = []
        self.rejections: list[str] = []
        self.unreadable: dict[tuple[int, int], str] = {}
        self.broken: dict[str, Broken] = {}
        self.records = 0
        self.torn = False

    def take(self, record: Record) -> None:
        move = self.moves[record.partition]
        if record.offset < move.next_offset:
            return  # read before the last seek: folded already
        move.next_offset = record.offset + 1
        self.records += 1
        try:
            self._fold(record, move)
        except (Undecodable, Unstorable) as problem:
            self.keep(record, problem.code, str(problem))
        except Exception as defect:  # of this program: one record must not stop a partition
            self.keep(record, "defect", f"Expected the record to fold but {type(defect).__name__}: {defect}")

    def _fold(self, record: Record, move: Move) -> None:
        value = record.value
        if value is None:
            raise Undecodable("no-value", "Expected an event but found a record without a value")
        found = decode_logged(value, record.fingerprint)
        if isinstance(found, m.Rejection):
            line = rejections.line(found, record.partition, record.offset)
            if record.key not in self.without:
                self.rejections.append(line)
        else:
            # the line comes first: it refuses what cannot be stored, before any row has changed
            logged = Logged(found, value, record.partition, record.offset)
            line = history.line(logged)
            if record.key not in self.without:
                self._event(logged, record.key)
                self.history.append(line)
        cause = found.cause
        if cause.partition == record.partition and cause.offset > move.command_offset:
            move.command_offset = cause.offset
        move.event_time = found.time

    def _event(self, logged: Logged, key: bytes | None) -> None:
        event = logged.event
        flow_id = event.flow_id
        if key != flow_id.encode():
            text = f"Expected the record's key to be its flow id {flow_id} but found {key!r}"
            raise Undecodable("astray", text)
        if flow_id in self.strays:
            return
        row = self.flows.get(flow_id)
        if row is not None and row.partition != logged.partition:
            self.torn = True
        if (problem := self._break(row, event)) is not None:
            self.broken.setdefault(flow_id, Broken(flow_id, logged.partition, logged.offset, problem))
            if row is not None and event.sequence <= row.sequence:
                return
        self.flows[flow_id] = flows.fold(row, logged)
        for task in tasks.keys_of(event):
            self.tasks[task] = tasks.fold(self.tasks.get(task), logged, task)

    def _break(self, row: flows.FlowRow | None, event: m.Event) -> str | None:
        """Why `event` does not follow `row`. What is not folded here, but stored, is compared in Postgres."""
        if row is None:
            if self.whole and event.sequence != 1:
                return f"Expected event 1 but found event {event.sequence}"
            return None
        if event.sequence != row.sequence + 1:
            return f"Expected event {row.sequence + 1} but found event {event.sequence}"
        if event.previous_hash != sha256(row.head).digest():
            return (
                f"Expected event {event.sequence} to hold the hash of the one before it but it holds another"
            )
        return None

    def keep(self, record: Record, code: str, reason: str) -> None:
        fields = (hexed(record.key), hexed(record.value), words(code), words(reason))
        line = f"{record.partition}\t{record.offset}\t" + "\t".join(fields) + "\n"
        self.unreadable[record.partition, record.offset] = line

    def result(self, direct_min: int = _DIRECT_MIN) -> Folded:
        folded = Folded(
            moves={p: move for p, move in self.moves.items() if move.next_offset != move.start},
            history=self.history,
            rejections=self.rejections,
            unreadable=list(self.unreadable.values()),
            broken=list(self.broken.values()),
            months={line[:7] for line in self.history},
            records=self.records,
            torn=self.torn,
        )
        new = {flow_id for flow_id, row in self.flows.items() if row.follows == 0 or self.whole}
        if len(new) < direct_min:
            new = set()
        performed = Counter(key[0] for key in self.tasks if key[0] in new)
        for flow_id, row in self.flows.items():
            text = flows.line(row)[:-1]
            if flow_id in new:
                folded.new_flows.append(f"{text}\t{performed[flow_id]}\n")
            else:
                folded.flows.append(f"{text}\t{row.follows}\t{hexed(row.follows_head)}\n")
        for key, task in self.tasks.items():
            (folded.new_tasks if key[0] in new else folded.tasks).append(tasks.line(task))
        return folded


def fold_batch(records: Iterable[Record], positions: dict[int, int]) -> Folded:
    """Folds `records`, those of each partition in the log's order; `positions`: partition -> first offset not folded."""
    folding = Folding(positions)
    for record in records:
        folding.take(record)
    return folding.result()


def refuse(record: Record, positions: dict[int, int], reason: str) -> Folded:
    """A batch of the one `record`, kept as unreadable: for what Postgres itself refused."""
    folding = Folding({record.partition: positions[record.partition]})
    folding.moves[record.partition].next_offset = record.offset + 1
    folding.records = 1
    folding.keep(record, "refused", reason)
    return folding.result()
