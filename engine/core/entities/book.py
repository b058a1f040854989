"""Entities as a partition keeps them: opened, told, closed again. The one place that knows which key is what.

An `Entity` of the contract is bytes; a `Page` is the same, opened for the length of a batch, so that a thousand
messages to one correlator cost one reading and one writing of its state. Pure: time and definitions come in.
"""

from __future__ import annotations

import re
from typing import Any, Final, Protocol

import msgspec
import orjson

from engine.core.effects import Effect
from engine.core.entities import correlation, limiter, schedule
from engine.core.entities.correlation import Correlator
from engine.core.entities.limiter import Limiter
from engine.core.entities.schedule import Timetable
from engine.dsl.model import Definition
from schemas import messages as m

ENTITY_KEY: Final = re.compile(r"~(correlation|schedule|limiter)/[\x21-\x7e ]{1,512}")
EVENT_TTL_US: Final = 3600 * 1_000_000


class Definitions(Protocol):
    """The published definitions a node knows."""

    def find(self, reference: str) -> Definition | None:
        """By `namespace/name@version`, or by `namespace/name` the newest version."""
        ...


class Page:
    """One entity, open. Raises ValueError for what is no message of it; then nothing has changed."""

    __slots__ = ("_state", "_ttl_us", "key")

    def __init__(self, key: str, stored: bytes | None, ttl_us: int = EVENT_TTL_US) -> None:
        self.key = key
        self._ttl_us = ttl_us
        kind: type[Correlator | Limiter | Timetable]
        if key.startswith(correlation.PREFIX):
            kind = Correlator
        elif key.startswith(limiter.PREFIX):
            kind = Limiter
        elif key.startswith(schedule.PREFIX):
            kind = Timetable
        else:
            raise ValueError(f"Expected the key of a correlator, limiter or schedule but found {key!r}")
        self._state = kind() if stored is None else msgspec.json.decode(stored, type=kind)

    def tell(self, message: bytes, definitions: Definitions, now: int) -> list[Effect]:
        try:
            found: Any = orjson.loads(message)
        except orjson.JSONDecodeError as problem:
            raise ValueError(f"Expected an entity's message in JSON but {problem}") from None
        if not isinstance(found, dict):
            raise ValueError("Expected an entity's message to be a JSON object")
        state = self._state
        before = msgspec.json.encode(state) if "wake" not in found and "event" not in found else None
        try:
            match state:
                case Correlator():
                    return state.tell(found, self.key.count("/") > 1, now, self._ttl_us)
                case Limiter():
                    return state.tell(found, now)
                case Timetable():
                    name = self.key.removeprefix(schedule.PREFIX)
                    return state.tell(self.key, found, definitions.find(name), now, self._ttl_us)
        except (KeyError, TypeError, AttributeError) as problem:
            if before is not None:
                self._state = msgspec.json.decode(before, type=type(state))
            raise ValueError(
                f"Expected an entity's message but {type(problem).__name__}: {problem}"
            ) from None

    def close(self) -> m.Entity | None:
        """What to keep; None: nothing."""
        if self._state.empty:
            return None
        return m.Entity(self.key, msgspec.json.encode(self._state), self.due)

    @property
    def due(self) -> int:
        """When it wants to hear {"wake": due}; 0: never."""
        if isinstance(self._state, Correlator):
            return self._state.wake_at(self._ttl_us)
        return self._state.due


def apply(
    key: str,
    state: bytes | None,
    message: bytes,
    definitions: Definitions,
    now: int,
    ttl_us: int = EVENT_TTL_US,
) -> tuple[bytes | None, int, list[Effect]]:
    """One message on its own: the state afterwards (None: gone), when to wake it, and what follows."""
    page = Page(key, state, ttl_us)
    effects = page.tell(message, definitions, now)
    kept = page.close()
    return (None, 0, effects) if kept is None else (kept.state, kept.due, effects)
