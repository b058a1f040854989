"""Records into rows: folded and written together, and what Postgres refuses found and kept aside.

Whoever reads the log calls this: the projector as it follows, a rebuild from the beginning. Invariant: every record is
folded into rows or kept in `unreadable`; one that Postgres refuses never stops the others, and a row that is not what
the log says is made again from it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import psycopg
import structlog

from projections.batch import Folded, fold_batch, refuse
from projections.healing import Healer
from projections.logged import Record
from projections.store import OutOfStep

log = structlog.get_logger("flowtrail.projections")

# what is the record's fault or this program's, never the server's: retrying would stop the partition for ever
_REFUSALS: Final = (
    psycopg.DataError,
    psycopg.IntegrityError,
    psycopg.errors.ProgramLimitExceeded,  # such as a flow id too long for an index
    ArithmeticError,
    TypeError,
    ValueError,
)


def write_all(
    records: Sequence[Record],
    positions: dict[int, int],
    write: Callable[[Folded], bool],
    healer: Healer,
    folded: Folded | None = None,
) -> bool:
    """Writes `records`, those of a partition in its order; `folded` is their batch, where there is one already. What
    Postgres refuses is halved until the one record at fault is found. `write` moves `positions`.

    False when `write` says that somebody else moved the position: then none of the records after that may be written.
    """
    if not records:
        return True
    try:
        return _write(records, positions, write, healer, folded or fold_batch(records, positions))
    except _REFUSALS as problem:
        if len(records) == 1:
            log.error("record refused", partition=records[0].partition, offset=records[0].offset)
            reason = f"Expected to be stored but {type(problem).__name__}: {problem}"
            return write(refuse(records[0], positions, reason))
    middle = len(records) // 2
    first, rest = records[:middle], records[middle:]
    return write_all(first, positions, write, healer) and write_all(rest, positions, write, healer)


def _write(
    records: Sequence[Record],
    positions: dict[int, int],
    write: Callable[[Folded], bool],
    healer: Healer,
    folded: Folded,
) -> bool:
    if folded.torn:
        partitions = sorted({record.partition for record in records})
        shares = ([record for record in records if record.partition == partition] for partition in partitions)
        return all(write_all(share, positions, write, healer) for share in shares)
    try:
        return write(folded)
    except OutOfStep as problem:
        return write(healer.heal(records, positions, problem))
