"""A moment in a flow's life, as `--until` and the API name it: after event number n, or at a time. Pure.

A number below a thousand million is a sequence number; a greater one is a time since the Unix epoch in seconds
(with or without a fraction), milliseconds or microseconds, told apart by its size. Any other text must be RFC 3339.
"""

from __future__ import annotations

import re
from datetime import datetime
from typing import Final

import msgspec

from engine.errors import InputError
from engine.runtime.records import timestamp

_NUMBER: Final = re.compile(r"[0-9]{1,17}(?:\.[0-9]{1,6})?")
_RFC3339: Final = re.compile(
    r"([0-9]{4}-[0-9]{2}-[0-9]{2})[Tt ]([0-9]{2}:[0-9]{2}:[0-9]{2})(?:\.([0-9]+))?([Zz]|[+-][0-9]{2}:[0-9]{2})"
)
_SEQUENCES: Final = 10**9
_MILLISECONDS: Final = 10**11  # in seconds that were the year 5138
_MICROSECONDS: Final = 10**14


class Moment(msgspec.Struct, frozen=True):
    """One of the two is set. `time` is in microseconds since the Unix epoch; an event of that very time is included."""

    sequence: int | None = None
    time: int | None = None

    def includes(self, sequence: int, time: int) -> bool:
        if self.sequence is not None:
            return sequence <= self.sequence
        return self.time is None or time <= self.time

    def __str__(self) -> str:
        return f"event {self.sequence}" if self.time is None else timestamp(self.time)


def parse_moment(text: str, name: str = "--until") -> Moment:
    """Raises InputError, which calls the moment `name`."""
    text = text.strip()
    if _NUMBER.fullmatch(text):
        return _number(text, name)
    if (match := _RFC3339.fullmatch(text)) is not None:
        day, clock, fraction, zone = match.groups()
        fraction = (fraction or "0")[:6].ljust(6, "0")
        try:
            found = datetime.fromisoformat(f"{day}T{clock}.{fraction}{zone.upper().replace('Z', '+00:00')}")
            return Moment(time=_microseconds(found))
        except (ValueError, OverflowError) as problem:
            raise InputError(f"Expected {name} to be a time that exists but {problem} ({text})") from None
    raise InputError(
        f"Expected {name} to be a sequence number, an RFC 3339 time with its zone (2026-01-31T12:00:00Z) "
        f"or seconds since the epoch but found {text[:100]!r}"
    )


def _number(text: str, name: str) -> Moment:
    whole, _, fraction = text.partition(".")
    number = int(whole)
    if number < _SEQUENCES:
        if fraction or number == 0:
            raise InputError(f"Expected {name} to be a sequence number, 1 or more, but found {text}")
        return Moment(sequence=number)
    if number < _MILLISECONDS:
        return Moment(time=number * 1_000_000 + int(fraction.ljust(6, "0") or 0))
    if fraction:
        raise InputError(f"Expected a fraction only after seconds in {name} but found {text}")
    return Moment(time=number * 1000 if number < _MICROSECONDS else number)


def _microseconds(found: datetime) -> int:
    epoch = datetime.fromisoformat("1970-01-01T00:00:00+00:00")
    since = found - epoch
    return (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds
