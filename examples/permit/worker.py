"""Performs the tasks of permit.yaml: what a municipality's systems would do, as plain typed functions.

Deterministic: the same arguments give the same result, whenever and however often a task is performed. Terms are those
of the Dutch environmental permit act of 2010 (8 weeks, 6 more when extended, 26 for the long procedure); the penalty
for a late decision is that of the administrative law of the time (20, 30, then 40 euros a day, 42 days at the most).
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from flowtrail import TaskError, Worker

STEPS_EXPECTED: Final = 6
DESKS: Final = 4
ADVISERS: Final = {"Experts": "technical adviser", "Customer contact": "contact adviser"}
DELIVERY: Final = {"Internet": "portal", "e-mail": "e-mail", "Intern": "internal mail"}

worker = Worker("permit")


@dataclass(frozen=True)
class Completeness:
    complete: bool
    expected: int
    missing: int


@dataclass(frozen=True)
class Term:
    """`days_left` counts from the end, or from the start of a case that is still open."""

    procedure: str
    days: int
    days_left: int
    days_late: int


@dataclass(frozen=True)
class Handling:
    decision: str
    assigned_to: str
    penalty_euros: int = 0
    remind_at: datetime | None = None


@dataclass(frozen=True)
class Letter:
    deliver_by: str
    text: str


@worker.task("checkCompleteness")
def check_completeness(events: int, first_activity: str) -> Completeness:
    """Every application passes six steps; fewer recorded ones mean that something is missing."""
    if first_activity != "Confirmation of receipt":
        raise TaskError(
            "https://serverlessworkflow.io/spec/1.0.0/errors/validation",
            422,
            "Not received",
            f"Expected a case to begin with its confirmation of receipt but it began with {first_activity}",
        )
    missing = max(0, STEPS_EXPECTED - events)
    return Completeness(missing == 0, STEPS_EXPECTED, missing)


@worker.task("computeTerm")
def compute_term(startdate: datetime, deadline: datetime, enddate: datetime | None) -> Term:
    """The procedure that the time between start and deadline belongs to, and what is left of it."""
    days = _days(deadline - startdate)
    if days <= 56:
        procedure = "regular (8 weeks)"
    elif days <= 98:
        procedure = "extended (14 weeks)"
    else:
        procedure = "long (26 weeks)"
    left = days if enddate is None else _days(deadline - enddate)
    late = 0 if enddate is None or enddate <= deadline else max(1, _days(enddate - deadline))
    return Term(procedure, days, max(0, left), late)


@worker.task("assignAdviser")
def assign_adviser(department: str, responsible: str, days_left: int) -> Handling:
    urgency = "urgent advice" if days_left < 14 else "advice"
    return Handling(f"{urgency} of the {ADVISERS.get(department, 'adviser')}", responsible)


@worker.task("scanPapers")
def scan_papers(channel: str, case: str) -> str:
    """Where the papers of a case that did not come by the portal are kept: the shelf follows from its name."""
    return f"{channel.lower()}/{zlib.crc32(case.encode()) % 100:02d}/{case}.pdf"


@worker.task("assignDesk")
def assign_desk(group: str | None, responsible: str) -> Handling:
    desk = zlib.crc32((group or responsible).encode()) % DESKS + 1
    return Handling("granted", f"desk {desk}, {responsible}")


@worker.task("computePenalty")
def compute_penalty(days_late: int) -> Handling:
    counted = min(days_late, 42)
    euros = 20 * min(counted, 14) + 30 * min(max(counted - 14, 0), 14) + 40 * max(counted - 28, 0)
    return Handling(f"granted {days_late} days late", "legal affairs", penalty_euros=euros)


@worker.task("planReminder")
def plan_reminder(deadline: datetime, responsible: str) -> Handling:
    return Handling("pending", responsible, remind_at=deadline - timedelta(days=14))


@worker.task("draftLetter")
def draft_letter(case: str, channel: str, decision: str, term: str, supplement: str | None) -> Letter:
    note = f" Please note: {supplement}." if supplement else ""
    return Letter(DELIVERY.get(channel, "post"), f"Your application {case} ({term}) is {decision}.{note}")


def _days(time: timedelta) -> int:
    return round(time.total_seconds() / 86_400)
