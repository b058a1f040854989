"""`POST /events`: CloudEvents from the world, for flows that listen and definitions that are started by events.

Each event becomes one record of the inbox; the answer comes when the broker has all of them. An event sent again
(same source and id) is recognised by the engine, so a request that broke may be repeated as it is.
"""

from __future__ import annotations

import asyncio
from typing import Final

import msgspec
from fastapi import APIRouter, Request
from starlette.responses import Response

from api import bodies
from api.cloudevents import read, record_of
from api.wiring import api_of
from engine.runtime.topics import INBOX

router: Final = APIRouter(tags=["events"])


class EventId(msgspec.Struct, frozen=True):
    source: str
    id: str


class EventsAccepted(msgspec.Struct, frozen=True):
    events: list[EventId]


@router.post("/events", summary="Publish CloudEvents: structured, batched or in binary mode", status_code=202)
async def publish_events(request: Request) -> Response:
    events = read(request.headers.items(), bodies.media_type(request), await request.body())
    log = api_of(request).ports.log
    await asyncio.gather(*(log.send(INBOX, *record_of(event)) for event in events))
    accepted = EventsAccepted([EventId(event.source, event.id) for event in events])
    return Response(msgspec.json.encode(accepted), 202, media_type=bodies.JSON)
