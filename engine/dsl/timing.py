"""What a document says about time: durations, timeouts, retry policies and schedules, checked and compiled.

A duration is constant (read here, once) or has an expression, which the core evaluates and reads with `durations.read`.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final

from cronsim import CronSim, CronSimError

from engine.dsl import durations
from engine.dsl.checks import Checks, described
from engine.dsl.errors import ExpressionError
from engine.dsl.events import compile_consumption
from engine.dsl.expressions import is_marked
from engine.dsl.model import Backoff, Duration, Json, Retry, Schedule

ANY_TIME: Final = datetime(2024, 1, 1, tzinfo=UTC)
NOTHING: Final[frozenset[str]] = frozenset()
_BACKOFFS: Final = ("constant", "linear", "exponential")


def compile_duration(
    checks: Checks, value: Json, pointer: str, available: frozenset[str] | None
) -> Duration | None:
    """A duration; with `available` None it must be constant."""
    if isinstance(value, str) and is_marked(value):
        if available is None:
            checks.expected("a constant duration", "an expression", pointer)
            return None
        return Duration(expression=checks.expression(value, pointer, available))
    if isinstance(value, dict):
        found = checks.properties(value, pointer, tuple(durations.PARTS))
        if len(found) != len(value):
            return None
        marked = [part for part in found.values() if isinstance(part, str) and is_marked(part)]
        if marked and available is not None:
            for name, part in found.items():
                if not (isinstance(part, str) and is_marked(part)):
                    _checked(checks, {name: part}, pointer)
            return Duration(expression=checks.template(value, pointer, available))
    return _checked(checks, value, pointer)


def _checked(checks: Checks, value: Json, pointer: str) -> Duration | None:
    try:
        return durations.read(value)
    except ExpressionError as problem:
        checks.refuse(problem.detail, pointer)
        return None


def compile_timeout(
    checks: Checks,
    value: Json,
    pointer: str,
    available: frozenset[str],
    reusable: Mapping[str, Json],
    used: set[tuple[str, str]],
) -> Duration | None:
    """The duration of an inline timeout, or of the one of use.timeouts that is named."""
    if isinstance(value, str):
        if value not in reusable:
            wish = "the name of a timeout of use.timeouts"
            checks.expected(wish, described(value), pointer, name=value, known=reusable)
            return None
        used.add(("timeouts", value))
        value, pointer = reusable[value], f"/use/timeouts/{value}"
    if not isinstance(value, dict):
        checks.expected("a timeout (an object) or the name of one", described(value), pointer)
        return None
    found = checks.properties(value, pointer, ("after",), required=("after",))
    if "after" not in found:
        return None
    return compile_duration(checks, found["after"], f"{pointer}/after", available)


def compile_retry(
    checks: Checks, value: Json, pointer: str, available: frozenset[str], variables: frozenset[str]
) -> Retry:
    """`variables` has the caught error's too; the durations do not depend on it."""
    known = ("when", "exceptWhen", "delay", "backoff", "limit", "jitter")
    found = checks.properties(value, pointer, known)
    limit = checks.properties(found.get("limit", {}), f"{pointer}/limit", ("attempt", "duration"))
    at = f"{pointer}/limit/attempt"
    attempt = checks.properties(limit.get("attempt", {}), at, ("count", "duration"))
    count = attempt.get("count")
    if count is not None and (not isinstance(count, int) or isinstance(count, bool) or count < 0):
        checks.expected("a whole number >= 0", described(count), f"{at}/count")
        count = None

    def duration(owner: Mapping[str, Json], name: str, place: str) -> Duration | None:
        if name not in owner:
            return None
        return compile_duration(checks, owner[name], f"{place}/{name}", available)

    return Retry(
        when=checks.expression(found["when"], f"{pointer}/when", variables) if "when" in found else None,
        except_when=checks.expression(found["exceptWhen"], f"{pointer}/exceptWhen", variables)
        if "exceptWhen" in found
        else None,
        delay=duration(found, "delay", pointer),
        backoff=_backoff(checks, found.get("backoff", {"constant": {}}), f"{pointer}/backoff"),
        count=count,
        attempt_limit=duration(attempt, "duration", at),
        limit=duration(limit, "duration", f"{pointer}/limit"),
        jitter=_jitter(checks, found["jitter"], f"{pointer}/jitter", available)
        if "jitter" in found
        else None,
    )


def _backoff(checks: Checks, value: Json, pointer: str) -> Backoff:
    found = checks.properties(value, pointer, _BACKOFFS)
    if isinstance(value, dict) and len(value) == len(found) != 1:
        given = " and ".join(found) or "none of them"
        checks.expected("exactly one of constant, linear, exponential", given, pointer)
    kind = next(iter(found), "constant")
    content = found.get(kind, {})
    if content is not None and checks.object(content, f"{pointer}/{kind}"):
        names = ", ".join(content)
        checks.warn(f"A {kind} back-off has no settings, so {names} has no effect", f"{pointer}/{kind}")
    return Backoff("linear" if kind == "linear" else "exponential" if kind == "exponential" else "constant")


def _jitter(
    checks: Checks, value: Json, pointer: str, available: frozenset[str]
) -> tuple[Duration, Duration] | None:
    found = checks.properties(value, pointer, ("from", "to"), required=("from", "to"))
    ends = [
        compile_duration(checks, found[name], f"{pointer}/{name}", available)
        for name in ("from", "to")
        if name in found
    ]
    if len(ends) < 2 or ends[0] is None or ends[1] is None:
        return None
    low, high = ends[0], ends[1]
    constant = low.expression is None and high.expression is None
    if constant and (low.months, low.microseconds) > (high.months, high.microseconds):
        checks.expected("'from' no longer than 'to'", "a longer one", pointer)
    return low, high


def compile_schedule(checks: Checks, value: Json, pointer: str) -> Schedule | None:
    known = ("every", "cron", "after", "on")
    found = checks.properties(value, pointer, known)
    if not isinstance(value, dict):
        return None
    if len(found) != 1:
        if len(value) == len(found):
            given = " and ".join(found) or "none of them"
            checks.expected(f"exactly one of {', '.join(known)}", given, pointer)
        return None
    name, content = next(iter(found.items()))
    at = f"{pointer}/{name}"
    match name:
        case "cron":
            return Schedule(cron=_cron(checks, content, at))
        case "on":
            return Schedule(on=compile_consumption(checks, content, at, NOTHING))
    duration = compile_duration(checks, content, at, None)
    if name == "every" and duration is not None and not duration.months and duration.microseconds <= 0:
        checks.expected("an interval longer than nothing", "none", at)
    return Schedule(every=duration) if name == "every" else Schedule(after=duration)


def _cron(checks: Checks, value: Json, pointer: str) -> str | None:
    text = checks.text(value, pointer, "a cron expression such as '0 0 * * *'")
    if not text:
        return None
    try:
        next(iter(CronSim(text, ANY_TIME)))
    except (CronSimError, StopIteration) as problem:
        reason = str(problem) or "no time matches it"
        checks.expected("a cron expression such as '0 0 * * *'", f"{text!r} ({reason})", pointer)
        return None
    return text
