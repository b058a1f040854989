"""What every log is read into: cases with their entries, in the order of the log. Pure."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Any, Final

import msgspec

from flowtrail.errors import InputError

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_ZONE: Final = re.compile(r"[+-]\d{4}$")


class Entry(msgspec.Struct):
    """One event of a case. `time` and `ended` are microseconds since the Unix epoch; None: it has not ended, or at once."""

    activity: str
    time: int
    ended: int | None
    attributes: dict[str, Any]
    is_open: bool = False


class Case(msgspec.Struct):
    id: str
    attributes: dict[str, Any]
    entries: list[Entry]


def microseconds(text: str, place: str) -> int:
    """Of an ISO 8601 time; without a zone it is taken for UTC. Raises InputError."""
    given = text.strip()
    if _ZONE.search(given) and "T" in given:
        given = f"{given[:-2]}:{given[-2:]}"
    try:
        found = datetime.fromisoformat(given)
        since = (found if found.tzinfo else found.replace(tzinfo=UTC)) - _EPOCH
    except (ValueError, OverflowError):
        raise InputError(
            f"Expected a time such as 2026-01-31T12:00:00Z but found {text[:100]!r} in {place}"
        ) from None
    return (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds
