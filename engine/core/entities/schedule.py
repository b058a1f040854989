"""Schedules: when the engine starts flows of the newest version of a definition by itself.

The flow's id is made of the due time, or of the events, so that a start which is repeated is recognised. What was
missed while nothing ran is made up for once, with the latest missed time. Invariant: of any two starts by time the
later one has the later due time, whatever the clock does, and none comes before its due time.
"""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import msgspec
import orjson
from cronsim import CronSim

from engine.core.effects import Effect
from engine.core.entities.correlation import identity_of
from engine.dsl import durations
from engine.dsl.errors import ExpressionError
from engine.dsl.model import Consumption, Definition, Duration, EventFilter, Json, Schedule
from schemas import messages as m

PREFIX: Final = "~schedule/"
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_SEEN_MAX: Final = 4096


class Group(msgspec.Struct):
    """Events that are to start one flow: [filter, event], and what their correlations have in common."""

    keys: dict[str, Any] = {}
    hits: list[tuple[int, Any]] = []


class Timetable(msgspec.Struct):
    """The state. `since` anchors the times; `last` is the due time of the latest start; `running` (after) its flow."""

    definition: str = ""
    since: int = 0
    last: int = 0
    due: int = 0
    running: str = ""
    groups: list[Group] = []
    seen: dict[str, int] = {}

    @property
    def empty(self) -> bool:
        return False

    def tell(
        self, key: str, message: dict[str, Any], definition: Definition | None, now: int, ttl_us: int
    ) -> list[Effect]:
        schedule = definition.schedule if definition is not None else None
        if (found := message.get("definition")) is not None:
            self._follow(found, message.get("published_at", now), schedule)
        elif (ended := message.get("ended")) is not None:
            if not self.running or self.running == ended:
                self.running = ""
                if schedule is not None and schedule.after is not None:
                    self.due = durations.due(schedule.after, now)
        elif (event := message.get("event")) is not None:
            if definition is None or schedule is None or schedule.on is None:
                return []
            return self._event(key, event, definition, schedule.on, now, ttl_us)
        elif "wake" not in message:
            raise ValueError("Expected definition, ended, event or wake in a schedule's message")
        if definition is None or schedule is None or not 0 < self.due <= now:
            return []
        return self._fire(key, definition, schedule, now)

    # -- by time ------------------------------------------------------------------------------------------------

    def _follow(self, definition: str, published_at: int, schedule: Schedule | None) -> None:
        """Keeps to another version from now on."""
        if definition == self.definition:
            return
        known = bool(self.definition)
        self.definition, self.since, self.groups = definition, published_at, []
        if schedule is None or schedule.on is not None:
            self.due = 0
        elif schedule.after is not None:
            if not self.running and not self.due:
                self.due = published_at if not known else max(published_at, self.last + 1)
        else:
            self.last = max(self.last, published_at)
            self.due = next_time(schedule, self.since, self.last)

    def _fire(self, key: str, definition: Definition, schedule: Schedule, now: int) -> list[Effect]:
        if schedule.after is not None:
            at, self.due = self.due, 0
        else:
            at = latest_time(schedule, self.since, self.due, now)
            self.due = next_time(schedule, self.since, at)
        self.last = at
        flow_id = flow_id_of(definition, stamp(at))
        parent = None
        if schedule.after is not None:
            self.running = flow_id
            parent = m.Parent(key, "", 0, 0)
        return [_start(flow_id, definition, b"{}", parent, now, m.Actor("timer", key))]

    # -- by events ----------------------------------------------------------------------------------------------

    def _event(
        self, key: str, event: Json, definition: Definition, on: Consumption, now: int, ttl_us: int
    ) -> list[Effect]:
        identity = identity_of(event)
        if identity in self.seen:
            return []
        numbers = [number for number, wanted in enumerate(on.filters) if _fits(wanted, event)]
        until = [] if on.until_events is None else list(on.until_events.filters)
        ends = [n for n, wanted in enumerate(until) if _fits(wanted, event)]
        if not numbers and not ends:
            return []
        self.seen = {seen: at for seen, at in self.seen.items() if at > now - ttl_us}
        while len(self.seen) >= _SEEN_MAX:
            del self.seen[next(iter(self.seen))]
        self.seen[identity] = now
        events = self._collected(on, event, numbers, ends)
        if not events:
            return []
        text = "\n".join(sorted(identity_of(one) for one in events))
        mark = hashlib.sha256(f"{key}\n{text}".encode()).hexdigest()[:16]
        actor = m.Actor("event", f"{event.get('source', '')}/{event.get('id', '')}"[:512])
        return [_start(f"{definition.name}-{mark}", definition, orjson.dumps(events), None, now, actor)]

    def _collected(self, on: Consumption, event: Json, numbers: list[int], ends: list[int]) -> list[Json]:
        """The events that start a flow now; none: more are waited for."""
        if on.mode == "all":
            return self._all(on, event, numbers)
        if on.until is None and on.until_events is None:
            return [event]
        if not self.groups:
            self.groups.append(Group({}, []))
        group = self.groups[0]
        group.hits += [(number, event) for number in numbers[:1]]
        group.hits += [(-1 - number, event) for number in ends]
        taken = [one for number, one in group.hits if number >= 0]
        if on.until_events is not None:
            marks = {number for number, _ in group.hits if number < 0}
            wanted = len(on.until_events.filters)
            enough = len(marks) == wanted if on.until_events.mode == "all" else bool(marks)
        else:
            assert on.until is not None
            try:
                enough = on.until.evaluate([one.get("data") for one in taken], {}) is True
            except ExpressionError:
                enough = False
        if not enough or not taken:
            return []
        self.groups = []
        return taken

    def _all(self, on: Consumption, event: Json, numbers: list[int]) -> list[Json]:
        for number in numbers:
            keys = _keys(on.filters[number], event)
            if keys is None:
                continue
            for group in self.groups:
                has = {hit for hit, _ in group.hits}
                if number in has or any(group.keys.get(name, value) != value for name, value in keys.items()):
                    continue
                break
            else:
                group = Group({}, [])
                self.groups.append(group)
            group.keys |= keys
            group.hits.append((number, event))
            if len(group.hits) == len(on.filters):
                self.groups.remove(group)
                return [one for _, one in sorted(group.hits, key=lambda hit: hit[0])]
            return []
        return []


def _fits(wanted: EventFilter, event: Json) -> bool:
    try:
        return wanted.fixed(event) and wanted.fits(event, {}) and _keys(wanted, event) is not None
    except ExpressionError:
        return False


def _keys(wanted: EventFilter, event: Json) -> dict[str, Json] | None:
    """The event's correlation values; None when one is missing, or is not the expected one."""
    keys: dict[str, Json] = {}
    for correlation in wanted.correlate:
        try:
            value = correlation.from_.evaluate(event, {})
            expected = None if correlation.expect is None else correlation.expect.evaluate(None, {})
        except ExpressionError:
            return None
        if value is None or (expected is not None and expected != value):
            return None
        keys[correlation.name] = value
    return keys


def _start(
    flow_id: str, definition: Definition, given: bytes, parent: m.Parent | None, now: int, actor: m.Actor
) -> m.Command:
    body = m.StartFlow(definition.id, given, parent)
    return m.Command(f"schedule:{flow_id}", flow_id, now, actor, body)


def flow_id_of(definition: Definition, mark: str) -> str:
    """`name-mark`; the namespace counts as a short tag, so that equal names start flows of their own."""
    tag = hashlib.sha256(definition.namespace.encode()).hexdigest()[:6]
    return f"{definition.name}-{mark}-{tag}"


def stamp(at: int) -> str:
    """`at` (microseconds since the Unix epoch) as 20240131T235959123Z."""
    found = _EPOCH + timedelta(microseconds=at)
    return found.strftime("%Y%m%dT%H%M%S") + f"{found.microsecond // 1000:03d}Z"


# -- times --------------------------------------------------------------------------------------------------------------


def next_time(schedule: Schedule, since: int, after: int) -> int:
    """The first time later than `after`; 0: there is none."""
    if schedule.cron is not None:
        return _cron(schedule.cron, after, reverse=False)
    assert schedule.every is not None
    return _every(schedule.every, since, _count(schedule.every, since, after) + 1)


def latest_time(schedule: Schedule, since: int, due: int, now: int) -> int:
    """The latest time that is not later than `now`, at least `due`."""
    if schedule.cron is not None:
        return max(due, _cron(schedule.cron, now + 1, reverse=True))
    assert schedule.every is not None
    return max(due, _every(schedule.every, since, _count(schedule.every, since, now)))


def _every(every: Duration, since: int, count: int) -> int:
    return durations.due(Duration(every.months * count, every.microseconds * count), since)


def _count(every: Duration, since: int, at: int) -> int:
    """How many intervals have ended by `at`."""
    low, high = 0, 1
    while _every(every, since, high) <= at:
        low, high = high, high * 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if _every(every, since, middle) <= at else (low, middle)
    return low


def _cron(text: str, at: int, *, reverse: bool) -> int:
    seconds, rest = divmod(at, 1_000_000)
    moment = _EPOCH + timedelta(seconds=seconds)
    if reverse and rest:
        moment += timedelta(seconds=1)
    for found in CronSim(text, moment, reverse):
        return int((found - _EPOCH).total_seconds()) * 1_000_000
    return 0
