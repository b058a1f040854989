"""Durations: read from ISO 8601 text or an object of parts, and added to a time.

Pure. Years and months are months of the calendar (UTC), everything else is exact microseconds; a fraction of a month
counts as that part of 30 days. `due` never gives a time before `now`, because no part may be negative.
"""

from __future__ import annotations

import calendar
import re
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Final

from engine.dsl.errors import ExpressionError
from engine.dsl.model import Duration, Json
from engine.dsl.results import shortened

PARTS: Final = {
    "days": 86_400_000_000,
    "hours": 3_600_000_000,
    "minutes": 60_000_000,
    "seconds": 1_000_000,
    "milliseconds": 1000,
}
"""Microseconds of each part of a duration object."""

MONTHS_MAX: Final = 12_000
MICROSECONDS_MAX: Final = 366_000 * PARTS["days"]
_NUMBER: Final = r"(?:[0-9]{1,15}(?:[.,][0-9]{1,9})?)"
_ISO: Final = re.compile(
    rf"P(?!\Z)(?:(?P<years>{_NUMBER})Y)?(?:(?P<months>{_NUMBER})M)?(?:(?P<weeks>{_NUMBER})W)?(?:(?P<days>{_NUMBER})D)?"
    rf"(?:T(?=[0-9])(?:(?P<hours>{_NUMBER})H)?(?:(?P<minutes>{_NUMBER})M)?(?:(?P<seconds>{_NUMBER})S)?)?"
)
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def read(value: Json) -> Duration:
    """A duration from its JSON form. Raises ExpressionError that says what was expected."""
    if isinstance(value, str):
        return _from_text(value)
    if isinstance(value, dict) and value:
        return _from_parts(value)
    found = "an empty object" if value == {} else shortened(repr(value))
    raise ExpressionError(
        f"Expected an ISO 8601 duration such as PT15M, or an object such as {{minutes: 15}}, but found {found}"
    )


def due(duration: Duration | Json, now: int) -> int:
    """`now` (microseconds since 1970) plus `duration`, which has no expression. Raises ExpressionError."""
    if not isinstance(duration, Duration):
        duration = read(duration)
    if duration.expression is not None:
        raise ExpressionError("Expected an evaluated duration but found an expression")
    if not duration.months:
        return now + duration.microseconds
    at = _EPOCH + timedelta(microseconds=now)
    count = at.year * 12 + at.month - 1 + duration.months
    year, month = count // 12, count % 12 + 1
    if year > 9999:
        raise ExpressionError(f"Expected a time before the year 10000 but found the year {year}")
    day = min(at.day, calendar.monthrange(year, month)[1])
    moved = at.replace(year=year, month=month, day=day) - _EPOCH
    return moved // timedelta(microseconds=1) + duration.microseconds


def _from_text(text: str) -> Duration:
    found = _ISO.fullmatch(text.strip())
    if found is None:
        raise ExpressionError(
            f"Expected an ISO 8601 duration such as PT15M but found {shortened(repr(text))}"
        )
    parts = {name: Decimal((part or "0").replace(",", ".")) for name, part in found.groupdict().items()}
    months = parts["years"] * 12 + parts["months"]
    whole = int(months)
    parts["days"] += parts["weeks"] * 7 + (months - whole) * 30
    exact = sum((parts[name] * PARTS[name] for name in ("days", "hours", "minutes", "seconds")), Decimal(0))
    return _bounded(whole, int(exact))


def _from_parts(value: dict[str, Json]) -> Duration:
    total = 0
    for name, count in value.items():
        if name not in PARTS:
            raise ExpressionError(f"Expected one of {', '.join(PARTS)} in a duration but found {name!r}")
        if not isinstance(count, int) or isinstance(count, bool) or count < 0:
            raise ExpressionError(
                f"Expected a whole number >= 0 of {name} but found {shortened(repr(count))}"
            )
        total += count * PARTS[name]
    return _bounded(0, total)


def _bounded(months: int, microseconds: int) -> Duration:
    if months > MONTHS_MAX or microseconds > MICROSECONDS_MAX:
        raise ExpressionError("Expected a duration of at most 1000 years but found a longer one")
    return Duration(months, microseconds)
