"""AsyncAPI over HTTP: a message is one request; a subscription reads answers, event streams and lists of messages.

An answer of `text/event-stream` or of lines of JSON gives its messages as they come; one of JSON gives its items, or
itself. When an answer ends before the subscription does, it is asked for again after AGAIN_S, a stream from its last
event on. The method is the operation's binding: POST by default for a message, GET for a subscription.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Mapping
from typing import Any, Final

import httpx2

from engine.tasks import problems
from engine.tasks.asyncapi_documents import Place
from engine.tasks.asyncapi_messages import Received, bytes_of, header_text, payload_of
from engine.tasks.authentication import Authorization
from engine.tasks.configured import configured
from engine.tasks.connections import check, client, exchange, failures
from engine.tasks.http import METHOD, is_json, shown

AGAIN_S: Final = 1.0
_LINES: Final = ("application/x-ndjson", "application/jsonl", "application/json-seq")
_ACCEPT: Final = "text/event-stream, application/x-ndjson, application/json;q=0.9"


async def publish(
    place: Place, authorization: Authorization | None, payload: Any, headers: Mapping[str, Any]
) -> None:
    method, uri = _method(place, "POST"), _uri(place)
    sent = {"content-type": "application/json"}
    sent |= {str(name).lower(): header_text(value) for name, value in headers.items() if value is not None}
    if authorization is not None:
        sent = authorization.headers | sent
    answer = await exchange(
        method,
        uri,
        headers=sent,
        content=None if payload is None else bytes_of(payload, sent),
        auth=None if authorization is None else authorization.auth,
    )
    if not 200 <= answer.status < 300:
        raise _refusal(method, uri, answer.status)


@contextlib.asynccontextmanager
async def subscribed(
    place: Place, authorization: Authorization | None
) -> AsyncIterator[AsyncIterator[Received]]:
    uri = _uri(place)
    check(uri)
    messages = _messages(_method(place, "GET"), uri, authorization)
    try:
        yield messages
    finally:
        await messages.aclose()


async def _messages(method: str, uri: str, authorization: Authorization | None) -> Any:
    last = ""
    while True:
        headers = {"accept": _ACCEPT, **({} if authorization is None else authorization.headers)}
        if last:
            headers["last-event-id"] = last
        patience = httpx2.Timeout(
            configured().http_connect_s, read=None
        )  # the next message may take its time
        request = client().build_request(method, uri, headers=headers, timeout=patience)
        auth = None if authorization is None else authorization.auth
        with failures(f"{method} {problems.place(uri)}"):
            response = await client().send(request, stream=True, auth=auth or httpx2.Auth())
            try:
                if not 200 <= response.status_code < 300:
                    raise _refusal(method, uri, response.status_code)
                async for identifier, received in _parts(response):
                    last = identifier or last
                    yield received
            finally:
                await response.aclose()
        await asyncio.sleep(AGAIN_S)


async def _parts(response: httpx2.Response) -> AsyncIterator[tuple[str, Received]]:
    """Each message with its event's id, if it has one."""
    most = configured().http_response_bytes_max
    kind = response.headers.get("content-type", "").partition(";")[0].strip().lower()
    shared = shown(dict(response.headers))
    if kind == "text/event-stream":
        try:
            async for event in httpx2.EventSource(response, most):
                data = event.data.encode()
                headers = {"event": event.event, **({"id": event.id} if event.id else {})}
                yield event.id, Received(payload_of(data), headers, len(data))
        except httpx2.SSEError:
            raise _too_large(most) from None
    elif kind in _LINES:
        async for line in _lines(response, most):
            yield "", Received(payload_of(line), shared, len(line))
    else:
        content = b"".join([chunk async for chunk in _bounded(response, most)])
        payload = payload_of(content)
        if is_json(kind) and isinstance(payload, list):
            for item in payload:
                yield "", Received(item, shared, len(json.dumps(item)))
        elif content:
            yield "", Received(payload, shared, len(content))


async def _lines(response: httpx2.Response, most: int) -> AsyncIterator[bytes]:
    rest = b""
    async for chunk in response.aiter_bytes():
        *lines, rest = (rest + chunk).split(b"\n")
        if len(rest) > most:
            raise _too_large(most)
        for line in lines:
            if content := line.strip(b"\x1e \r"):
                yield content
    if content := rest.strip(b"\x1e \r"):
        yield content


async def _bounded(response: httpx2.Response, most: int) -> AsyncIterator[bytes]:
    size = 0
    async for chunk in response.aiter_bytes():
        size += len(chunk)
        if size > most:
            raise _too_large(most)
        yield chunk


def _too_large(most: int) -> Exception:
    return problems.communication(f"Expected an answer of at most {most} bytes but it is larger")


def _method(place: Place, default: str) -> str:
    bound = place.binding(place.operation, "method") or default
    if not isinstance(bound, str) or METHOD.fullmatch(bound) is None:
        raise problems.configuration(
            f"Expected an HTTP method in the operation's binding but found {str(bound)[:32]!r}"
        )
    return bound.upper()


def _uri(place: Place) -> str:
    address = place.address if place.address.startswith("/") or not place.address else f"/{place.address}"
    return f"{place.protocol}://{place.host}{place.path}{address}"


def _refusal(method: str, uri: str, status: int) -> Exception:
    return problems.communication(
        f"Expected a status from 200 to 299 of {method} {problems.place(uri)} but it is {status}", status
    )
