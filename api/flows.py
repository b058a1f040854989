"""Reads: flows, their tasks and history, rejections. Payloads go out as the very bytes that came in.

Every answer says in the header Flowtrail-Position what it is as of, and waits for `min_position` when asked to.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any, Final, Literal

import msgspec
from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from api import bodies
from api.commanding import ask_of_flow, see_position, unknown_flow
from api.errors import Invalid
from api.pages import cut
from api.starting import WAIT_MAX_S, wait_of
from api.wiring import Api, api_of
from engine.runtime.topics import partition_of
from projections import queries
from projections.queries import LIMIT_MAX

router: Final = APIRouter(tags=["flows"])

Status = Literal[
    "running", "waiting", "suspended", "compensating", "completed", "faulted", "cancelled", "unknown"
]
Limit = Annotated[int, Query(ge=1, le=LIMIT_MAX, description="Items of a page at the most")]
Cursor = Annotated[str | None, Query(max_length=1000, description="`next` of the page before")]
MinPosition = Annotated[
    str | None,
    Query(
        max_length=4000, description="Wait (10 s at the most) until the read model is as new as this position"
    ),
]


def _json(content: Any, headers: dict[str, str]) -> Response:
    return Response(msgspec.json.encode(content), media_type=bodies.JSON, headers=headers)


async def get_flow(request: Request) -> Response:
    """One flow. A bare route: reads and waits are the hottest requests after starts."""
    bodies.refuse_unknown(request, ("wait", "timeout", "min_position"))
    flow_id: str = request.path_params["flow_id"]
    api, waits = api_of(request), wait_of(request)
    await see_position(api, request.query_params.get("min_position"))
    if waits is not None:
        await api.waiters.ended(flow_id, None, waits)
    headers = await _as_of(api, flow_id)
    flow = await api.ports.reads.ask(queries.get_flow(flow_id))
    if flow is None:
        raise unknown_flow(flow_id)
    return _json(flow, headers)


async def _as_of(api: Api, flow_id: str) -> dict[str, str]:
    return await api.positions.header(partition_of(flow_id, api.positions.partitions))


@router.get("/flows", summary="List flows, newest first")
async def list_flows(
    request: Request,
    status: Status | None = None,
    definition: Annotated[
        str | None, Query(description="namespace/name or namespace/name@version", max_length=300)
    ] = None,
    namespace: Annotated[str | None, Query(max_length=100)] = None,
    name: Annotated[str | None, Query(max_length=100)] = None,
    version: Annotated[str | None, Query(max_length=100)] = None,
    id_prefix: Annotated[str | None, Query(max_length=128)] = None,
    parent: Annotated[
        str | None,
        Query(max_length=300, description="Its sub-flows; ~schedule/namespace/name: what it started"),
    ] = None,
    started_after: Annotated[datetime | None, Query(description="With a time zone, included")] = None,
    started_before: Annotated[datetime | None, Query(description="With a time zone, excluded")] = None,
    cursor: Cursor = None,
    limit: Limit = 100,
    min_position: MinPosition = None,
) -> Response:
    api = api_of(request)
    for given, when in (("started_after", started_after), ("started_before", started_before)):
        if when is not None and when.tzinfo is None:
            raise Invalid(
                f"Expected {given} with a time zone but found {when.isoformat()}", slug="invalid-parameter"
            )
    ask = queries.list_flows(
        status=status,
        definition=definition,
        namespace=namespace,
        name=name,
        version=version,
        id_prefix=id_prefix,
        parent=parent,
        started_after=started_after,
        started_before=started_before,
        cursor=cursor,
        limit=limit,
    )
    await see_position(api, min_position)
    headers = await api.positions.header()
    page = await api.ports.reads.ask(ask)
    return _json({"flows": page.items, "next": page.next_cursor}, headers)


@router.get("/flows/{flow_id}/tasks", summary="The tasks of a flow, in the order they began")
async def tasks_of_flow(
    request: Request,
    flow_id: str,
    cursor: Cursor = None,
    limit: Limit = LIMIT_MAX,
    min_position: MinPosition = None,
) -> Response:
    api = api_of(request)
    await see_position(api, min_position)
    headers = await _as_of(api, flow_id)
    tasks = await api.ports.reads.ask(queries.tasks_of(flow_id))
    if not tasks:
        await _must_exist(api, flow_id)
    items, following = cut(tasks, cursor, limit)
    return _json({"tasks": items, "next": following}, headers)


@router.get("/flows/{flow_id}/history", summary="Every event of a flow: who, what, when, why")
async def history_of_flow(
    request: Request,
    flow_id: str,
    cursor: Annotated[int, Query(ge=0, description="`next` of the page before: a sequence")] = 0,
    limit: Limit = LIMIT_MAX,
    min_position: MinPosition = None,
) -> Response:
    api = api_of(request)
    await see_position(api, min_position)
    headers = await _as_of(api, flow_id)
    events = await api.ports.reads.ask(queries.history_of(flow_id, after_sequence=cursor, limit=limit))
    if not events:
        await _must_exist(api, flow_id)
    following = str(events[-1].sequence) if len(events) == limit else None
    return _json({"events": events, "next": following}, headers)


@router.post("/flows/{flow_id}/cancel", summary="Ask for the end of a flow", status_code=202)
async def cancel(request: Request, flow_id: str) -> Response:
    return await ask_of_flow(request, flow_id, "cancel")


@router.post("/flows/{flow_id}/suspend", summary="Ask a flow to pause", status_code=202)
async def suspend(request: Request, flow_id: str) -> Response:
    return await ask_of_flow(request, flow_id, "suspend")


@router.post("/flows/{flow_id}/resume", summary="Ask a suspended flow to go on", status_code=202)
async def resume(request: Request, flow_id: str) -> Response:
    return await ask_of_flow(request, flow_id, "resume")


@router.get("/rejections", summary="Refused commands, newest first")
async def rejections(
    request: Request,
    flow_id: Annotated[str | None, Query(max_length=128)] = None,
    code: Annotated[str | None, Query(max_length=100)] = None,
    cursor: Cursor = None,
    limit: Limit = 100,
    min_position: MinPosition = None,
) -> Response:
    api = api_of(request)
    ask = queries.rejections(flow_id=flow_id, code=code, cursor=cursor, limit=limit)
    await see_position(api, min_position)
    headers = await api.positions.header()
    page = await api.ports.reads.ask(ask)
    return _json({"rejections": page.items, "next": page.next_cursor}, headers)


async def _must_exist(api: Api, flow_id: str) -> None:
    if await api.ports.reads.ask(queries.get_flow(flow_id)) is None:
        raise unknown_flow(flow_id)


WAIT_PARAMETERS: Final[Sequence[dict[str, Any]]] = (
    {
        "name": "wait",
        "in": "query",
        "description": "`completed`: answer when the flow has ended, however it ended",
        "schema": {"type": "string", "enum": ["completed"]},
    },
    {
        "name": "timeout",
        "in": "query",
        "description": "How long to wait, in seconds",
        "schema": {"type": "number", "minimum": 0, "maximum": WAIT_MAX_S, "default": 30},
    },
)
