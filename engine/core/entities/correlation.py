"""Correlators: which flows wait for an event of one shape, and which events came before them.

Events are kept for a while and given to later subscriptions: of a keyed correlator (one for each set of expected values)
all of them, of another one those that came after the flow had started. An event is known by its source and id and comes
once, however often it is sent; a subscription gets it once, and a flow that took it (`taken`) never again. The flow
itself makes the final match. Invariant: at any time each subscription was sent every kept event that it may have.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any, Final

import msgspec
import orjson

from engine.core.effects import Effect
from engine.dsl.model import EventFilter, Json
from schemas import messages as m

PREFIX: Final = "~correlation/"

KEPT_BYTES_MAX: Final = 1 << 20
"""What the kept events of one correlator may take together; the oldest go first."""


def key_of(wanted: EventFilter, values: list[Json] | None) -> str:
    """The correlator of `wanted`: of its shape, and of the correlation's `values` where they are known beforehand."""
    if not values:
        return PREFIX + wanted.shape
    canonical = orjson.dumps(values, option=orjson.OPT_SORT_KEYS)
    return f"{PREFIX}{wanted.shape}/{hashlib.sha256(canonical).hexdigest()[:32]}"


def identity_of(event: dict[str, Any]) -> str:
    """What makes two events one: their source and id."""
    return hashlib.sha256(f"{event.get('source')}\0{event.get('id')}".encode()).hexdigest()[:24]


class Subscriber(msgspec.Struct, array_like=True):
    """One listen of one flow. `sent` is the serial of the last event it was given; `count`, how many."""

    flow: str
    task: str
    run: int
    filters: list[int]
    started_at: int
    sent: int = 0
    count: int = 0


class Kept(msgspec.Struct, array_like=True):
    """An event that came. `serial` counts the events of this correlator."""

    serial: int
    time: int
    identity: str
    event: str


class Correlator(msgspec.Struct):
    """The state; `tell` changes it and gives what follows."""

    serial: int = 0
    subscribers: list[Subscriber] = []
    events: list[Kept] = []
    taken: dict[str, list[str]] = {}

    @property
    def empty(self) -> bool:
        return not self.subscribers and not self.events

    def wake_at(self, ttl_us: int) -> int:
        """When the oldest event is no longer kept."""
        return self.events[0].time + ttl_us if self.events else 0

    def tell(self, message: dict[str, Any], keyed: bool, now: int, ttl_us: int) -> list[Effect]:
        self._forget(now - ttl_us)
        if (asked := message.get("subscribe")) is not None:
            return self._subscribe(asked, keyed, now)
        if (asked := message.get("unsubscribe")) is not None:
            at = (asked["flow"], asked["task"], asked["run"])
            self.subscribers = [one for one in self.subscribers if (one.flow, one.task, one.run) != at]
            return []
        if (asked := message.get("taken")) is not None:
            identities = self.taken.setdefault(asked["flow"], [])
            if asked["event"] not in identities and any(k.identity == asked["event"] for k in self.events):
                identities.append(asked["event"])
            return []
        if (event := message.get("event")) is not None:
            return self._event(event, now)
        if "wake" in message:
            return []
        raise ValueError("Expected subscribe, unsubscribe, taken, event or wake in a correlator's message")

    def _subscribe(self, asked: dict[str, Any], keyed: bool, now: int) -> list[Effect]:
        for known in self.subscribers:
            if (known.flow, known.task, known.run) == (asked["flow"], asked["task"], asked["run"]):
                if asked["filter"] not in known.filters:
                    known.filters.append(asked["filter"])
                return []
        one = Subscriber(asked["flow"], asked["task"], asked["run"], [asked["filter"]], asked["started_at"])
        self.subscribers.append(one)
        taken = self.taken.get(one.flow, ())
        missed = [
            kept
            for kept in self.events
            if (keyed or kept.time >= one.started_at) and kept.identity not in taken
        ]
        one.sent = self.serial
        return list(self._deliver(one, missed, now))

    def _event(self, event: dict[str, Any], now: int) -> list[Effect]:
        identity = identity_of(event)
        if any(kept.identity == identity for kept in self.events):
            return []
        self.serial += 1
        kept = Kept(self.serial, now, identity, orjson.dumps(event).decode())
        self.events.append(kept)
        while len(self.events) > 1 and sum(len(one.event) for one in self.events) > KEPT_BYTES_MAX:
            self.events.pop(0)
        effects: list[Effect] = []
        for one in self.subscribers:
            one.sent = self.serial
            effects += self._deliver(one, [kept], now)
        return effects

    def _deliver(self, one: Subscriber, events: Iterable[Kept], now: int) -> Iterable[Effect]:
        for kept in events:
            number = one.filters[one.count % len(one.filters)]
            one.count += 1
            yield m.Command(
                f"event:{kept.identity}:{one.task}:{one.run}:{number}",
                one.flow,
                now,
                m.Actor("event", _name_of(orjson.loads(kept.event))),
                m.DeliverEvent(one.task, one.run, number, kept.event.encode()),
            )

    def _forget(self, before: int) -> None:
        while self.events and self.events[0].time <= before:
            self.events.pop(0)
        if self.taken:
            kept = {one.identity for one in self.events}
            remaining = {flow: [i for i in ids if i in kept] for flow, ids in self.taken.items()}
            self.taken = {flow: ids for flow, ids in remaining.items() if ids}


def _name_of(event: dict[str, Any]) -> str:
    return f"{event.get('source', '')}/{event.get('id', '')}"[:512]
