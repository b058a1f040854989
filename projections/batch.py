"""A batch of the log's records, folded: what to copy and merge into each table, and how far each partition moves.

Pure. All of the projector between Kafka and Postgres. A record that cannot be read or stored is kept in `unreadable`,
with its bytes and the reason; it never stops the others, and it never disappears.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from projections import flows, history, rejections, tasks
from projections.copying import Unstorable, hexed, words
from projections.logged import Logged, Record
from schemas import messages as m
from schemas.codec import Undecodable, decode_logged


class Move(msgspec.Struct):
    """Where a partition's position goes. `start` is where it must stand, or the rows were written already."""

    start: int
    next_offset: int
    command_offset: int = -1
    event_time: int | None = None


class Folded(msgspec.Struct):
    """Lines in COPY text format, a list a table. `months` are those of the history lines, as YYYY-MM."""

    flows: list[str]
    tasks: list[str]
    history: list[str]
    rejections: list[str]
    unreadable: list[str]
    moves: dict[int, Move]
    months: set[str]
    records: int


class _Folding:
    __slots__ = ("flows", "history", "moves", "records", "rejections", "tasks", "unreadable")

    def __init__(self, positions: dict[int, int]) -> None:
        self.moves = {partition: Move(offset, offset) for partition, offset in positions.items()}
        self.flows: dict[str, flows.FlowRow] = {}
        self.tasks: dict[tasks.Key, tasks.TaskRow] = {}
        self.history: list[str] = []
        self.rejections: list[str] = []
        self.unreadable: list[str] = []
        self.records = 0

    def take(self, record: Record) -> None:
        move = self.moves[record.partition]
        if record.offset < move.next_offset:
            return  # read before the last seek: folded already
        move.next_offset = record.offset + 1
        self.records += 1
        try:
            self._fold(record, move)
        except (Undecodable, Unstorable) as problem:
            self._keep(record, problem.code, str(problem))
        except Exception as defect:  # of this program: one record must not stop a partition
            self._keep(record, "defect", f"Expected the record to fold but {type(defect).__name__}: {defect}")

    def _fold(self, record: Record, move: Move) -> None:
        value = record.value
        if value is None:
            raise Undecodable("no-value", "Expected an event but found a record without a value")
        found = decode_logged(value, record.fingerprint)
        if isinstance(found, m.Rejection):
            self.rejections.append(rejections.line(found, record.partition, record.offset))
        else:
            # the line comes first: it refuses what cannot be stored, before any row has changed
            logged = Logged(found, value, record.partition, record.offset)
            line = history.line(logged)
            flow_id = found.flow_id
            self.flows[flow_id] = flows.fold(self.flows.get(flow_id), logged)
            for key in tasks.keys_of(found):
                self.tasks[key] = tasks.fold(self.tasks.get(key), logged, key)
            self.history.append(line)
        cause = found.cause
        if cause.partition == record.partition and cause.offset > move.command_offset:
            move.command_offset = cause.offset
        move.event_time = found.time

    def _keep(self, record: Record, code: str, reason: str) -> None:
        fields = (hexed(record.key), hexed(record.value), words(code), words(reason))
        self.unreadable.append(f"{record.partition}\t{record.offset}\t" + "\t".join(fields) + "\n")


def fold_batch(records: Iterable[Record], positions: dict[int, int]) -> Folded:
    """Folds `records`, those of each partition in the log's order; `positions`: partition -> first offset not folded."""
    folding = _Folding(positions)
    for record in records:
        folding.take(record)
    return Folded(
        flows=[flows.line(row) for row in folding.flows.values()],
        tasks=[tasks.line(row) for row in folding.tasks.values()],
        history=folding.history,
        rejections=folding.rejections,
        unreadable=folding.unreadable,
        moves={p: move for p, move in folding.moves.items() if move.next_offset != move.start},
        months={line[:7] for line in folding.history},
        records=folding.records,
    )


def refuse(record: Record, positions: dict[int, int], reason: str) -> Folded:
    """A batch of the one `record`, kept as unreadable: for what Postgres itself refused."""
    folding = _Folding({record.partition: positions[record.partition]})
    folding.moves[record.partition].next_offset = record.offset + 1
    folding.records = 1
    folding._keep(record, "refused", reason)
    return Folded([], [], [], [], folding.unreadable, folding.moves, set(), 1)
