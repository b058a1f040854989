"""Makes an event log of the real one's shape: the same attributes, drawn with its frequencies, from a fixed seed.

For machines that do not have the real log; whoever uses it says so. The same number of cases and seed give the same
bytes. Departments, channels, groups, terms, standings and lengths were counted in receipt.xes.gz.
"""

from __future__ import annotations

import gzip
import io
import random
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Final, TypeVar
from xml.sax.saxutils import quoteattr

T = TypeVar("T")

CASES: Final = 1434
SEED: Final = 1434

_CHANNELS: Final = {"Internet": 1250, "Desk": 109, "Post": 53, "e-mail": 21, "Intern": 1}
_DEPARTMENTS: Final = {"General": 1390, "Customer contact": 29, "Experts": 15}
_GROUPS: Final = {
    "": 825, "Group 5": 329, "Group 8": 227, "Group 2": 32, "Group 7": 9, "Group 11": 5, "Group 6": 5, "Group 10": 2,
}  # fmt: skip
_RESPONSIBLE: Final = {"Resource11": 336} | {
    f"Resource{i:02d}": 60 for i in (1, 2, 4, 5, 6, 7, 8, 9, 12, 13, 14)
}
_TERM_DAYS: Final = {56: 1130, 78: 60, 84: 40, 98: 90, 126: 30, 182: 14}
_STANDINGS: Final = {"in time": 952, "late": 377, "open": 105}
_LENGTHS: Final = {6: 1135, 1: 116, 10: 70, 8: 34, 5: 16, 4: 12, 12: 12, 9: 11, 3: 8}
_ACTIVITIES: Final = (
    "Confirmation of receipt",
    "T02 Check confirmation of receipt",
    "T04 Determine confirmation of receipt",
    "T05 Print and send confirmation of receipt",
    "T06 Determine necessity of stop advice",
    "T10 Determine necessity to stop indication",
    "T11 Create document X request unlicensed",
    "T12 Check document X request unlicensed",
    "T14 Determine document X request unlicensed",
    "T15 Print document X request unlicensed",
    "T16 Report reasons to hold request",
    "T20 Print report Y to stop indication",
)
_BEGIN: Final = datetime(2010, 10, 1, tzinfo=UTC)


def write_log(path: Path, cases: int = CASES, seed: int = SEED) -> None:
    """Writes `cases` traces to `path`, gzipped."""
    rng = random.Random(seed)
    text = io.StringIO()
    text.write('<?xml version="1.0" encoding="UTF-8"?>\n')
    text.write('<log xes.version="1.0" xmlns="http://www.xes-standard.org/">\n')
    for number in range(cases):
        _write_trace(text, rng, number)
    text.write("</log>\n")
    with path.open("wb") as raw, gzip.GzipFile("", "wb", fileobj=raw, mtime=0) as stream:
        stream.write(text.getvalue().encode())


def _write_trace(text: io.StringIO, rng: random.Random, number: int) -> None:
    start = _BEGIN + timedelta(seconds=rng.randrange(460 * 86_400), milliseconds=rng.randrange(1000))
    deadline = start + timedelta(days=_drawn(rng, _TERM_DAYS))
    standing = _drawn(rng, _STANDINGS)
    text.write("\t<trace>\n")
    _write(text, "date", "startdate", _local(start))
    _write(text, "string", "responsible", _drawn(rng, _RESPONSIBLE))
    _write(text, "date", "enddate_planned", _local(deadline + timedelta(milliseconds=10)))
    _write(text, "string", "department", _drawn(rng, _DEPARTMENTS))
    if standing == "in time":
        _write(text, "date", "enddate", _local(start + (deadline - start) * rng.uniform(0.05, 0.98)))
    elif standing == "late":
        _write(text, "date", "enddate", _local(deadline + timedelta(days=rng.uniform(0.1, 60))))
    if group := _drawn(rng, _GROUPS):
        _write(text, "string", "group", group)
    _write(text, "string", "concept:name", f"case-{10_000 + number}")
    _write(text, "date", "deadline", _local(deadline))
    _write(text, "string", "channel", _drawn(rng, _CHANNELS))
    at = start
    for activity in _ACTIVITIES[: _drawn(rng, _LENGTHS)]:
        at += timedelta(seconds=rng.randrange(1, 86_400))
        text.write("\t\t<event>\n")
        _write(text, "string", "concept:name", activity, "\t")
        _write(text, "date", "time:timestamp", _local(at), "\t")
        text.write("\t\t</event>\n")
    text.write("\t</trace>\n")


def _drawn(rng: random.Random, weights: dict[T, int]) -> T:
    return rng.choices(list(weights), list(weights.values()))[0]


def _local(moment: datetime) -> str:
    """As the municipality's systems wrote it: near enough to Dutch summer time without a zone database."""
    hours = 2 if 4 <= moment.month <= 10 else 1
    return moment.astimezone(timezone(timedelta(hours=hours))).isoformat(timespec="milliseconds")


def _write(text: io.StringIO, kind: str, key: str, value: str, indent: str = "") -> None:
    text.write(f"\t\t{indent}<{kind} key={quoteattr(key)} value={quoteattr(value)}/>\n")
