"""What `metadata` of a call or run settles: queue, priority, heartbeat, attempts, concurrency and rate limits."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from engine.dsl.checks import described
from engine.dsl.expressions import is_marked
from engine.dsl.model import Expression, Json, Limit, Template
from engine.dsl.scopes import IN_TASK, QUEUE, QUEUE_WISH, Spot
from engine.dsl.timing import compile_duration

if TYPE_CHECKING:
    from engine.dsl.tasks import TaskCompiler

PRIORITIES: Final = ("high", "normal", "low")


def call_settings(
    compiler: TaskCompiler, metadata: dict[str, Json], spot: Spot, function: str, queue: str
) -> dict[str, Any]:
    """The fields of Call that metadata sets; `queue` unless it names another."""
    checks, place = compiler.checks, f"{spot.place}/metadata"
    settings: dict[str, Any] = {"queue": queue}
    if "queue" in metadata:
        settings["queue"] = checks.text(metadata["queue"], f"{place}/queue", QUEUE_WISH, QUEUE)
    if "priority" in metadata:
        priority = metadata["priority"]
        if priority in PRIORITIES:
            settings["priority"] = priority
        else:
            wanted = priority if isinstance(priority, str) else None
            wish = f"one of {', '.join(PRIORITIES)}"
            checks.expected(wish, described(priority), f"{place}/priority", name=wanted, known=PRIORITIES)
    if "heartbeat" in metadata:
        at = f"{place}/heartbeat"
        settings["heartbeat"] = compile_duration(checks, metadata["heartbeat"], at, spot.available(IN_TASK))
    if "attempts" in metadata:
        settings["attempts"] = _count(compiler, metadata["attempts"], f"{place}/attempts")
    limits = _limits(compiler, metadata, spot, f"{settings['queue']}:{function}")
    return settings if not limits else {**settings, "limits": limits}


def _count(compiler: TaskCompiler, value: Json, place: str) -> int:
    if isinstance(value, int) and not isinstance(value, bool) and value >= 1:
        return value
    compiler.checks.expected("a whole number >= 1", described(value), place)
    return 1


def _limits(compiler: TaskCompiler, metadata: dict[str, Json], spot: Spot, name: str) -> tuple[Limit, ...]:
    checks, place = compiler.checks, f"{spot.place}/metadata"
    limits: list[Limit] = []
    if "concurrency" in metadata:
        value, at = metadata["concurrency"], f"{place}/concurrency"
        if not isinstance(value, dict):
            value = {"limit": value}
        found = checks.properties(value, at, ("limit", "key"), required=("limit",))
        count = _count(compiler, found.get("limit", 1), at)
        limits.append(Limit(name, _key(compiler, found, spot, at), concurrency=count))
    if "rateLimit" in metadata:
        value, at = metadata["rateLimit"], f"{place}/rateLimit"
        found = checks.properties(value, at, ("limit", "per", "key"), required=("limit", "per"))
        count = _count(compiler, found.get("limit", 1), f"{at}/limit")
        per = None
        if "per" in found:
            per = compile_duration(checks, found["per"], f"{at}/per", None)
        if per is not None and (per.months or not per.microseconds):
            checks.expected("a duration of some days or less", "months or nothing", f"{at}/per")
        limits.append(
            Limit(name, _key(compiler, found, spot, at), rate=count, per=per.microseconds if per else 1)
        )
    if len(limits) == 2 and _written_key(metadata["rateLimit"]) == _written_key(metadata["concurrency"]):
        both = Limit(name, limits[0].key, limits[0].concurrency, limits[1].rate, limits[1].per)
        return (both,)
    return tuple(limits)


def _written_key(limit: Json) -> Json:
    return limit.get("key") if isinstance(limit, dict) else None


def _key(
    compiler: TaskCompiler, found: dict[str, Json], spot: Spot, place: str
) -> Expression | Template | None:
    if "key" not in found:
        return None
    key = found["key"]
    if isinstance(key, str) and is_marked(key):
        return compiler.checks.expression(key, f"{place}/key", spot.available(IN_TASK))
    return compiler.checks.template(key, f"{place}/key", spot.available(IN_TASK))
