"""`/livez`, `/readyz`, `/metrics`: open to everybody, hence cheap. Readiness is judged at most once a second.

The process lives as long as it answers. It is ready when commands can be produced, the database is there and
migrated, and every definition published so far was read once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Final

import msgspec
from fastapi import APIRouter, Request
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.responses import Response

from api import bodies
from api.errors import DOCUMENTED_AT
from api.gathered import Gathered
from api.ports import Ports
from api.problems import MEDIA_TYPE, RETRY_AFTER_S
from engine.errors import FlowtrailError

router: Final = APIRouter(tags=["health"])
_CHECK_S: Final = 2.0
_FRESH_S: Final = 1.0


class Readiness:
    """Remembers the last judgement for a second; requests in between share it."""

    def __init__(self, ports: Ports) -> None:
        self._ports = ports
        self._loaded = False
        self._last: dict[str, str] = {}
        self._at = float("-inf")
        self._shared: Gathered[None, dict[str, str]] = Gathered(self._judge)

    async def checks(self) -> dict[str, str]:
        """What is needed -> `ok`, or why it is not."""
        if asyncio.get_running_loop().time() - self._at < _FRESH_S:
            return self._last
        return await self._shared.get(None) or {}

    async def _judge(self, _: list[None]) -> dict[None, dict[str, str]]:
        kafka, postgres, definitions = await asyncio.gather(
            _said(asyncio.to_thread(self._ports.log.check, _CHECK_S)),
            _said(self._ports.store.check()),
            _said(self._definitions()),
        )
        self._last = {"kafka": kafka, "postgres": postgres, "definitions": definitions}
        self._at = asyncio.get_running_loop().time()
        return {None: self._last}

    async def _definitions(self) -> None:
        if not self._loaded:
            self._loaded = await asyncio.to_thread(self._ports.definitions.catch_up, _CHECK_S)
        if not self._loaded:
            raise FlowtrailError("Expected to have read every definition but that is not so yet")


async def _said(check: Awaitable[None]) -> str:
    try:
        await check
    except Exception as problem:  # whatever it is, this process is not ready, and says why
        return str(problem) or type(problem).__name__
    return "ok"


@router.get("/livez", summary="Does this process answer?")
async def livez() -> Response:
    return Response(b'{"status":"ok"}', media_type=bodies.JSON)


@router.get("/readyz", summary="Can this process serve requests?")
async def readyz(request: Request) -> Response:
    readiness: Readiness = request.app.state.readiness
    checks = await readiness.checks()
    missing = [name for name, said in checks.items() if said != "ok"]
    if not missing:
        return Response(msgspec.json.encode({"status": "ok", "checks": checks}), media_type=bodies.JSON)
    problem = {
        "type": DOCUMENTED_AT + "not-ready",
        "title": "Not ready",
        "status": 503,
        "detail": f"Expected Kafka, Postgres and the definitions but missing: {', '.join(missing)}",
        "instance": "/readyz",
        "checks": checks,
    }
    headers = {"Retry-After": RETRY_AFTER_S}
    return Response(msgspec.json.encode(problem), 503, media_type=MEDIA_TYPE, headers=headers)


@router.get("/metrics", summary="Prometheus metrics")
async def metrics() -> Response:
    return Response(generate_latest(), headers={"Content-Type": CONTENT_TYPE_LATEST})
