"""Which correlators and schedules an event of the inbox is for. Pure.

Every filter that any published definition listens with counts, because flows of old versions may still wait; of
schedules those of the newest versions. A keyed filter's correlator is named by the values that its correlations find in
the event; an event without them is for nobody who listens with that filter.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import msgspec
import orjson

from engine.core.consuming import filters_of
from engine.core.entities import schedule
from engine.core.entities.correlation import identity_of, key_of
from engine.dsl.errors import ExpressionError
from engine.dsl.model import Definition, EventFilter, Json, Listen
from schemas import messages as m


class Routes(msgspec.Struct, frozen=True):
    """`shapes`: one filter of each shape; `starting`: key and filters of each schedule that waits for events."""

    shapes: tuple[EventFilter, ...]
    starting: tuple[tuple[str, tuple[EventFilter, ...]], ...]

    def of(self, event: dict[str, Any], now: int) -> Iterator[m.Command]:
        """The commands that tell `event` (JSON format); their ids are the same each time."""
        actor = m.Actor("event", f"{event['source']}/{event['id']}"[:512])
        message = m.TellEntity(orjson.dumps({"event": event}))
        identity = identity_of(event)
        for key in self._keys(event):
            yield m.Command(f"event:{identity}:{key}", key, now, actor, message)

    def _keys(self, event: dict[str, Any]) -> Iterator[str]:
        for wanted in self.shapes:
            if not _holds(wanted, event):
                continue
            if not wanted.correlate or any(one.expect is None for one in wanted.correlate):
                yield key_of(wanted, None)
            elif (values := _values(wanted, event)) is not None:
                yield key_of(wanted, values)
        for key, filters in self.starting:
            if any(_holds(wanted, event) for wanted in filters):
                yield key


def routes(every: Iterable[Definition], newest: Iterable[Definition]) -> Routes:
    shapes: dict[str, EventFilter] = {}
    for definition in every:
        for task in definition.tasks.values():
            if isinstance(task, Listen):
                for wanted in filters_of(task.to):
                    shapes.setdefault(wanted.shape, wanted)
    starting = tuple(
        (f"{schedule.PREFIX}{one.namespace}/{one.name}", filters_of(one.schedule.on))
        for one in newest
        if one.schedule is not None and one.schedule.on is not None
    )
    return Routes(tuple(shapes.values()), starting)


def _holds(wanted: EventFilter, event: dict[str, Any]) -> bool:
    try:
        return wanted.fixed(event)
    except ExpressionError:
        return False


def _values(wanted: EventFilter, event: dict[str, Any]) -> list[Json] | None:
    values: list[Json] = []
    for correlation in wanted.correlate:
        try:
            value = correlation.from_.evaluate(event, {})
        except ExpressionError:
            return None
        if value is None:
            return None
        values.append(value)
    return values
