"""Idempotency keys are not kept for ever: the API's processes delete old ones, a few at a time.

What is forgotten is only that a key came before with another body: the ids a key leads to are functions of it, and a
flow that exists is found by its id (starting.py).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

import structlog

from api.ports import Store

log = structlog.get_logger("flowtrail.api")

KEPT_DAYS: Final = 30
_AT_ONCE: Final = 5_000
_EVERY_S: Final = 3600.0
_PAUSE_S: Final = 1.0


async def forget_old_claims(store: Store, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep) -> None:
    """Until it is cancelled. A database that is away is tried again in the next round."""
    while True:
        try:
            deleted = await store.forget_claims(KEPT_DAYS, _AT_ONCE)
        except Exception as problem:  # housekeeping must not end; whoever needs the database is told there
            log.warning("old idempotency keys were not deleted", why=str(problem))
            deleted = 0
        if deleted:
            log.info("old idempotency keys deleted", count=deleted)
        await sleep(_PAUSE_S if deleted == _AT_ONCE else _EVERY_S)
