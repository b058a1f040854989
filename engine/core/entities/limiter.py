"""Limiters: at most so many calls at once, at most so many in a stretch of time; the others wait in the order they came.

A permit is of one attempt of one task. It is held until it is given back; what is given back before it was asked for
(the two may overtake each other on their way through several limiters) is never granted. Invariant: no more permits are
held than `concurrency`, no more were granted within any `per` microseconds than `rate`, and whoever waits is granted as
soon as there is room.
"""

from __future__ import annotations

from base64 import b64decode
from typing import Any, Final

import msgspec
import orjson

from engine.core.effects import Dispatch, Effect
from schemas import messages as m
from schemas.codec import decode_task

PREFIX: Final = "~limiter/"

_RETURNED_KEPT_US: Final = 3600 * 1_000_000


class Limiter(msgspec.Struct):
    """The state. `held`: permits; `waiting`: questions, oldest first; `granted`: times within the last `per`."""

    time: int = 0
    concurrency: int = 0
    rate: int = 0
    per: int = 0
    held: list[str] = []
    waiting: list[dict[str, Any]] = []
    granted: list[int] = []
    returned: dict[str, int] = {}

    @property
    def empty(self) -> bool:
        return not self.held and not self.waiting and not self.granted and not self.returned

    @property
    def due(self) -> int:
        """When the rate has room again for whoever waits; otherwise, when this state can be forgotten."""
        ends = [at + self.per for at in self.granted[:1]]
        if self.waiting and (not self.concurrency or len(self.held) < self.concurrency):
            return ends[0] if ends else self.time + 1
        ends += [at + _RETURNED_KEPT_US for at in list(self.returned.values())[:1]]
        return 0 if self.held else min(ends, default=0)

    def tell(self, message: dict[str, Any], now: int) -> list[Effect]:
        self.time = now = max(now, self.time)
        self.granted = [at for at in self.granted if at + self.per > now]
        self.returned = {who: at for who, at in self.returned.items() if at + _RETURNED_KEPT_US > now}
        if (asked := message.get("acquire")) is not None:
            self._acquire(asked)
        elif (given := message.get("release")) is not None:
            self._release(_who(given), now)
        elif "wake" not in message:
            raise ValueError("Expected acquire, release or wake in a limiter's message")
        return self._grant(now)

    def _acquire(self, asked: dict[str, Any]) -> None:
        self.concurrency, self.rate, self.per = asked["concurrency"], asked["rate"], asked["per"]
        who = _who(asked)
        if who in self.held or who in self.returned or any(_who(other) == who for other in self.waiting):
            return
        self.waiting.append(asked)

    def _release(self, who: str, now: int) -> None:
        if who in self.held:
            self.held.remove(who)
            return
        left = [asked for asked in self.waiting if _who(asked) != who]
        if len(left) == len(self.waiting):
            self.returned[who] = now  # it overtook its question
        self.waiting = left

    def _grant(self, now: int) -> list[Effect]:
        effects: list[Effect] = []
        while self.waiting and self._room():
            asked = self.waiting.pop(0)
            self.held.append(_who(asked))
            if self.rate:
                self.granted.append(now)
            effects.append(_handed_on(asked, now))
        return effects

    def _room(self) -> bool:
        if self.concurrency and len(self.held) >= self.concurrency:
            return False
        return not self.rate or len(self.granted) < self.rate


def _who(asked: dict[str, Any]) -> str:
    return f"{asked['flow']}#{asked['at']}#{asked['run']}.{asked['attempt']}"


def _handed_on(asked: dict[str, Any], now: int) -> Effect:
    """The question goes to the next limiter, or the task to its queue."""
    further = asked.get("then") or []
    if not further:
        return Dispatch(asked["queue"], decode_task(b64decode(asked["task"])))
    stop = further[0]
    question = asked | {name: stop[name] for name in ("concurrency", "rate", "per")} | {"then": further[1:]}
    return m.Command(
        f"acquire:{_who(asked)}:{len(further)}",
        stop["key"],
        now,
        m.Actor("engine", asked["flow"]),
        m.TellEntity(orjson.dumps({"acquire": question})),
    )
