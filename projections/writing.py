"""Records into rows: folded and written together, and what Postgres refuses found and kept aside.

Whoever reads the log calls this: the projector as it follows, a rebuild from the beginning. Invariant: every record is
folded into rows or kept in `unreadable`; one that Postgres refuses never stops the others.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import psycopg
import structlog

from projections.batch import Folded, fold_batch, refuse
from projections.logged import Record

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


def write_all(records: Sequence[Record], positions: dict[int, int], write: Callable[[Folded], bool]) -> bool:
    """Writes `records`, those of a partition in its order. What Postgres refuses is halved until the one record at fault
    is found. `write` moves `positions`.

    False when `write` says that somebody else moved the position: then none of the records after that may be written.
    """
    if not records:
        return True
    try:
        return write(fold_batch(records, positions))
    except _REFUSALS as problem:
        if len(records) == 1:
            log.error("record refused", partition=records[0].partition, offset=records[0].offset)
            reason = f"Expected to be stored but {type(problem).__name__}: {problem}"
            return write(refuse(records[0], positions, reason))
    middle = len(records) // 2
    return write_all(records[:middle], positions, write) and write_all(records[middle:], positions, write)
