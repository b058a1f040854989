"""What many flows have in common: paths, variants, times, heat, queues, recommendations; driven and recorded alike.

Answers are as of the read model, with an ETag of their content, so that a page that asks again gets 304 when nothing changed.
"""

from __future__ import annotations

import hashlib
from datetime import datetime
from typing import Annotated, Any, Final

import msgspec
from fastapi import APIRouter, Depends, Query, Request
from starlette.responses import Response

from api import bodies
from api.errors import Invalid
from api.wiring import Api, api_of
from projections.analysis import asks
from projections.analysis.asks import Scope, scope_of
from projections.analysis.recommending import recommend

router: Final = APIRouter(tags=["analysis"])

Limit = Annotated[int, Query(ge=1, le=asks.LIMIT_MAX)]


def _scope(
    name: Annotated[
        str, Query(max_length=300, description="namespace/name[@version]; of recorded flows: their name")
    ],
    source: Annotated[str, Query(max_length=10, description="flows (driven) or trails (recorded)")] = "flows",
    project: Annotated[str, Query(max_length=100, description="Of recorded flows")] = "default",
    version: Annotated[str | None, Query(max_length=100, description="Or the version of the rules")] = None,
    since: Annotated[datetime | None, Query(description="Flows that began then or later")] = None,
    until: Annotated[datetime | None, Query(description="Flows that began before then")] = None,
) -> Scope:
    for given, when in (("since", since), ("until", until)):
        if when is not None and when.tzinfo is None:
            raise Invalid(
                f"Expected {given} with a time zone but found {when.isoformat()}", slug="invalid-parameter"
            )
    return scope_of(source, name, project, version, since, until)


Of = Annotated[Scope, Depends(_scope)]


@router.get("/analysis/graph", summary="Which step directly follows which, how often, after how long")
async def graph(request: Request, scope: Of) -> Response:
    return _answer(request, await _ask(request, asks.graph(scope)))


@router.get("/analysis/variants", summary="The paths that flows took, the most frequent first")
async def variants(request: Request, scope: Of, limit: Limit = 100) -> Response:
    return _answer(request, await _ask(request, asks.variants(scope, limit)))


@router.get("/analysis/steps", summary="How long each step works and waits: percentiles right to 1 %")
async def steps(request: Request, scope: Of) -> Response:
    found = await _ask(request, asks.durations(scope))
    return _answer(request, {"steps": [one.shown() for one in found]})


@router.get("/analysis/heat", summary="Runs of each step by weekday and hour (UTC)")
async def heat(request: Request, scope: Of) -> Response:
    return _answer(request, {"cells": await _ask(request, asks.heat(scope))})


@router.get("/analysis/rework", summary="Steps that are done again in the same flow")
async def rework(request: Request, scope: Of) -> Response:
    return _answer(request, {"steps": await _ask(request, asks.rework(scope))})


@router.get("/analysis/cases", summary="How many flows, and how long they take; beside the period before")
async def cases(request: Request, scope: Of) -> Response:
    before = scope.before()
    found = {"now": await _ask(request, asks.cases(scope)), "before": None}
    if before is not None:
        found["before"] = await _ask(request, asks.cases(before))
    return _answer(request, found)


@router.get("/analysis/throughput", summary="Flows begun, ended and failed by time")
async def throughput(
    request: Request,
    scope: Of,
    bucket: Annotated[str, Query(max_length=10, description="minute, hour, day or week")] = "hour",
    limit: Limit = asks.LIMIT_MAX,
) -> Response:
    return _answer(request, {"buckets": await _ask(request, asks.throughput(scope, bucket, limit))})


@router.get("/analysis/queues", summary="What workers of each queue did, and how busy they are at least")
async def queues(request: Request, scope: Of) -> Response:
    return _answer(request, {"queues": await _ask(request, asks.queues(scope))})


@router.get("/analysis/recommendations", summary="What to do, with the evidence")
async def recommendations(request: Request, scope: Of) -> Response:
    before = scope.before()
    found = recommend(
        await _ask(request, asks.durations(scope)),
        await _ask(request, asks.queues(scope)),
        await _ask(request, asks.rework(scope)),
        await _ask(request, asks.cases(scope)),
        None if before is None else await _ask(request, asks.cases(before)),
    )
    return _answer(request, {"recommendations": found})


async def _ask(request: Request, ask: Any) -> Any:
    api: Api = api_of(request)
    return await api.ports.reads.ask(ask)


def _answer(request: Request, content: Any) -> Response:
    body = msgspec.json.encode(content)
    tag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
    headers = {"ETag": tag, "Cache-Control": "private, no-cache"}
    if request.headers.get("if-none-match") == tag:
        return Response(status_code=304, headers=headers)
    return Response(body, media_type=bodies.JSON, headers=headers)
