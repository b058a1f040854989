"""What every request passes, in this order: measured, answered for its errors, authenticated, limited in size.

One ASGI layer instead of four. Invariant: nothing but OPEN paths is reached without a good key, and no exception
leaves this module.
"""

from __future__ import annotations

import time
from typing import Final

from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api import keys, problems
from api.errors import Invalid, TooLarge
from api.metrics import IN_FLIGHT, REQUESTS, SECONDS
from api.wiring import Api

OPEN: Final = frozenset({"/livez", "/readyz", "/metrics", "/openapi.json"})
_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
BODY_BYTES_MAX: Final = 1024 * 1024 + 64 * 1024
"""A definition of 1 MiB (engine.dsl.source), a payload in its request, and some room."""


class Edge:
    def __init__(self, app: ASGIApp, api: Api) -> None:
        self._app, self._api = app, api

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begun = time.perf_counter()
        answer = _Answer(send)
        with IN_FLIGHT.track_inprogress():
            try:
                await self._pass(scope, receive, answer)
            except ClientDisconnect:
                answer.status = answer.status or 499
            except Exception as problem:  # the answer says whose fault it is, problems.py logs defects
                if answer.status:
                    raise  # too late for another answer: the server closes the connection
                await problems.answer(problem, scope["path"])(scope, receive, answer)
        route = getattr(scope.get("route"), "path", "unmatched")
        method = scope["method"] if scope["method"] in _METHODS else "other"
        REQUESTS.labels(method, route, answer.status).inc()
        SECONDS.labels(method, route).observe(time.perf_counter() - begun)

    async def _pass(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = Headers(scope=scope)
        if "\0" in scope["path"] or b"%00" in scope["query_string"]:
            raise Invalid("Expected text without NUL characters but found one", slug="invalid-parameter")
        if scope["path"] not in OPEN:
            presented = keys.presented(headers.get("authorization"), headers.get("x-api-key"))
            scope.setdefault("state", {})["caller"] = await self._api.keyring.caller(presented)
        await self._app(scope, _limited(headers, receive), send)


class _Answer:
    """Remembers the status on its way out."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.status = 0

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
        await self._send(message)


def _limited(headers: Headers, receive: Receive) -> Receive:
    """Raises TooLarge as soon as it is known, before the body is in memory."""
    length = headers.get("content-length", "")
    if length.isdigit() and int(length) > BODY_BYTES_MAX:
        raise _too_large(int(length))
    received = 0

    async def counted() -> Message:
        nonlocal received
        message = await receive()
        received += len(message.get("body", b""))
        if received > BODY_BYTES_MAX:
            raise _too_large(received)
        return message

    return counted


def _too_large(found: int) -> TooLarge:
    return TooLarge(f"Expected a body of at most {BODY_BYTES_MAX} bytes but found {found} or more")
