"""Who is calling: checks presented keys against the store, with a short memory.

A key is looked up at most every few seconds, so a revocation takes effect within FRESH_S. While Postgres does not
answer, a key that was good is taken for STALE_S more; one never seen gets a 503, never a 401. The memory is bounded
and holds digests only.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from api import keys
from api.errors import Unauthorized
from api.metrics import REFUSED_KEYS
from api.ports import Store, StoredKey
from engine.errors import AwayError

FRESH_S: Final = 5.0
STALE_S: Final = 300.0
USED_EVERY_S: Final = 60.0
_REMEMBERED_MAX: Final = 10_000


@dataclass(frozen=True, slots=True)
class Caller:
    """`id` is the key's id: the actor in commands, and the owner of idempotency keys."""

    id: str
    name: str


@dataclass(frozen=True, slots=True)
class _Seen:
    key: StoredKey | None
    at: float


class Keyring:
    def __init__(self, store: Store, pepper: bytes, clock: Callable[[], float] = time.monotonic) -> None:
        self._store, self._pepper, self._clock = store, pepper, clock
        self._seen: OrderedDict[str, _Seen] = OrderedDict()
        self._noted: dict[str, float] = {}

    async def caller(self, presented: str | None) -> Caller:
        """Raises Unauthorized; AwayError when that cannot be told."""
        if presented is None:
            raise _refuse("none", "Expected an API key (Authorization: Bearer <key>) but found none")
        parts = keys.split(presented)
        if parts is None:
            raise _refuse("malformed", "Expected an API key of the form id.secret but found something else")
        key = await self._key(parts[0])
        if key is None or not keys.matches(self._pepper, parts[1], key.digest):
            raise _refuse("unknown", "Expected a valid API key but this one is not known")
        if key.revoked:
            raise _refuse("revoked", "Expected a valid API key but this one was revoked")
        await self._note_use(key)
        return Caller(key.key_id, key.name)

    async def _key(self, key_id: str) -> StoredKey | None:
        now = self._clock()
        seen = self._seen.get(key_id)
        if seen is not None and now - seen.at < FRESH_S:
            return seen.key
        try:
            key = await self._store.key(key_id)
        except AwayError:
            if seen is not None and seen.key is not None and now - seen.at < STALE_S:
                return seen.key
            raise
        self._seen[key_id] = _Seen(key, now)
        self._seen.move_to_end(key_id)
        while len(self._seen) > _REMEMBERED_MAX:
            self._seen.popitem(last=False)
        return key

    async def _note_use(self, key: StoredKey) -> None:
        """`last_used_at` is for people: once a minute is enough, and not writing it never refuses a request."""
        now = self._clock()
        if now - self._noted.get(key.key_id, float("-inf")) < USED_EVERY_S:
            return
        self._noted[key.key_id] = now
        last = key.last_used_at
        if last is None or (datetime.now(UTC) - last).total_seconds() > USED_EVERY_S:
            try:
                await self._store.key_used(key.key_id)
            except AwayError:
                del self._noted[key.key_id]


def _refuse(why: str, text: str) -> Unauthorized:
    REFUSED_KEYS.labels(why).inc()
    return Unauthorized(text)
