"""What every route needs, made once per application: the ports, and what this process shares between requests."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

from starlette.requests import Request

from api.gathered import Gathered
from api.keyring import Caller, Keyring
from api.ports import Claim, Kept, Ports
from api.positions import Positions
from api.waiters import Waiters
from engine.runtime.topics import EVENTS
from engine.settings import Settings


@dataclass(frozen=True, slots=True)
class Api:
    settings: Settings
    ports: Ports
    keyring: Keyring
    waiters: Waiters
    positions: Positions
    claims: Gathered[Claim, Kept]
    starters: Gathered[str, str]
    catching_up: Gathered[None, bool]


def wire(settings: Settings, ports: Ports) -> Api:
    store, definitions = ports.store, ports.definitions

    async def claim(wanted: list[Claim]) -> Mapping[Claim, Kept]:
        # one row a key in one statement; two different requests under one key both see what was kept
        first = {(claim.key_id, claim.idempotency_key): claim for claim in reversed(wanted)}
        kept = await store.claim(list(first.values()))
        return {claim: kept[claim.key_id, claim.idempotency_key] for claim in wanted}

    async def started_by(flow_ids: list[str]) -> Mapping[str, str]:
        return await store.started_by(flow_ids)

    async def catch_up(_: list[None]) -> Mapping[None, bool]:
        return {None: await asyncio.to_thread(definitions.catch_up, 5.0)}

    return Api(
        settings=settings,
        ports=ports,
        keyring=Keyring(store, ports.pepper),
        waiters=Waiters(store.outcomes),
        positions=Positions(ports.reads, settings.topic_prefix + EVENTS, settings.partitions),
        claims=Gathered(claim),
        starters=Gathered(started_by),
        catching_up=Gathered(catch_up),
    )


def api_of(request: Request) -> Api:
    return cast("Api", request.app.state.api)


def caller_of(request: Request) -> Caller:
    """Who sent an authenticated request (edge.py)."""
    return cast("Caller", request.state.caller)
