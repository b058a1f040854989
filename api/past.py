"""A flow's past: its state at any moment, what changed between two, and which event gave each value.

Answered from the log alone (replay/), in threads: the read model only tells where the flow's records lie. What ended can
change no more, so logs of ended flows are kept for the next question. Nothing here waits for a projection.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from typing import Annotated, Any, Final

import msgspec
from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from api import bodies
from api.errors import NotFound
from api.wiring import api_of
from replay import past
from replay.flow import Log, UnknownFlow, index_of, is_over, read_flow
from replay.moment import Moment, parse_moment

router: Final = APIRouter(tags=["past"])

_AT_ONCE: Final = 4
_KEPT_FLOWS: Final = 32
_KEPT_EVENTS: Final = 5_000

When = Annotated[
    str | None, Query(max_length=64, description="A sequence number or an RFC 3339 time; without: now")
]


class KafkaPast:
    """The port `Past` over real servers: at most a few logs are read at the same time."""

    def __init__(self, kafka: str, prefix: str, postgres: str) -> None:
        self._read: Callable[[str], Log] = lambda flow_id: read_flow(
            kafka, prefix, flow_id, index_of(postgres)
        )
        self._turns = asyncio.Semaphore(_AT_ONCE)
        self._kept: OrderedDict[str, Log] = OrderedDict()

    async def log(self, flow_id: str) -> Log:
        kept = self._kept.get(flow_id)
        if kept is not None:
            self._kept.move_to_end(flow_id)
            return kept
        async with self._turns:
            found = await asyncio.to_thread(self._read, flow_id)
        if is_over(found) and len(found.logged) <= _KEPT_EVENTS:
            self._kept[flow_id] = found
            while len(self._kept) > _KEPT_FLOWS:
                self._kept.popitem(last=False)
        return found


@router.get("/flows/{flow_id}/states/{moment}", summary="The flow as it stood after an event, or at a time")
async def state_of_flow(request: Request, flow_id: str, moment: str) -> Response:
    at = parse_moment(moment, "the moment")
    return await _answer(request, flow_id, lambda log: past.state_at(log, at))


@router.get("/flows/{flow_id}/blame", summary="The event that gave each value of the flow's data")
async def blame_of_flow(
    request: Request,
    flow_id: str,
    path: Annotated[str, Query(max_length=1000, description="A JSON pointer, such as /context/amount")] = "",
    at: When = None,
) -> Response:
    moment = _moment(at, "at")
    return await _answer(request, flow_id, lambda log: past.blame(log, path, moment))


@router.get("/flows/{flow_id}/changes", summary="What changed between two moments, and by which event")
async def changes_of_flow(
    request: Request,
    flow_id: str,
    since: Annotated[str, Query(max_length=64, description="A sequence number or an RFC 3339 time")],
    until: When = None,
) -> Response:
    one, other = parse_moment(since, "since"), _moment(until, "until")
    return await _answer(request, flow_id, lambda log: past.difference(log, one, other))


def _moment(text: str | None, name: str) -> Moment | None:
    return None if text is None else parse_moment(text, name)


async def _answer(request: Request, flow_id: str, ask: Callable[[Log], dict[str, Any]]) -> Response:
    try:
        log = await api_of(request).ports.past.log(flow_id)
    except UnknownFlow as unknown:
        raise NotFound(str(unknown), slug="unknown-flow") from None
    content = await asyncio.to_thread(lambda: msgspec.json.encode(ask(log)))
    return Response(content, media_type=bodies.JSON)
