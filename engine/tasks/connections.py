"""One HTTP exchange within the operator's limits; every built-in function that speaks HTTP goes through here.

A pool of connections is kept for each event loop. Nothing is taken from the environment's proxy variables or .netrc,
redirects are not followed, and answers are read up to a limit of decoded bytes. Every failure becomes one of
problems.py; none of their texts holds a header, a body or a query.
"""

from __future__ import annotations

import asyncio
import contextlib
import weakref
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Any, Final
from urllib.parse import urlsplit

import httpcore2
import httpx2

from engine.tasks import problems
from engine.tasks.configured import configured
from engine.tasks.networks import PORTS, GuardedBackend, Refused, rewritten

CONNECTIONS_MAX: Final = 100
IDLE_S: Final = 30.0
_AGENT: Final = "flowtrail"


@dataclass(frozen=True)
class Answer:
    """What came back. `uri` and `request_headers` are those of the call, before any rewriting."""

    method: str
    uri: str
    request_headers: Mapping[str, str]
    status: int
    headers: httpx2.Headers
    content: bytes = field(repr=False)


_clients: Final[weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, httpx2.AsyncClient]] = (
    weakref.WeakKeyDictionary()
)


def client() -> httpx2.AsyncClient:
    """The running event loop's client; the rewrite rules are applied below it."""
    loop = asyncio.get_running_loop()
    found = _clients.get(loop)
    if found is None or found.is_closed:
        found = _clients[loop] = new_client()
    return found


def new_client(limit: int | None = None, **options: Any) -> httpx2.AsyncClient:
    """A client of its own within the operator's limits, for libraries that close what they are given.

    `limit` bounds the bytes of every answer, for libraries that read them whole; then none may be compressed.
    """
    settings = configured()
    given: dict[str, Any] = {
        "timeout": httpx2.Timeout(settings.http_read_s, connect=settings.http_connect_s),
        "follow_redirects": False,
        "trust_env": False,
        "transport": _Transport(limit),
        # flows share the client: what a server sets for one must not be sent for another
        "cookies": CookieJar(DefaultCookiePolicy(allowed_domains=[])),
        "headers": {"user-agent": _AGENT, "accept-encoding": "gzip, deflate"},
    }
    return httpx2.AsyncClient(**{**given, **options})


async def close() -> None:
    """Closes the running loop's connections."""
    found = _clients.pop(asyncio.get_running_loop(), None)
    if found is not None:
        await found.aclose()


async def exchange(
    method: str,
    uri: str,
    *,
    headers: Mapping[str, str] | None = None,
    content: bytes | None = None,
    auth: httpx2.Auth | None = None,
    limit: int | None = None,
) -> Answer:
    """Sends one request and reads its whole answer, whatever its status. Raises TaskError."""
    check(uri)
    bound = configured().http_response_bytes_max if limit is None else limit
    asked = f"{method} {problems.place(uri)}"
    with failures(asked):
        request = client().build_request(method, uri, headers=headers, content=content)
        response = await client().send(request, stream=True, auth=auth or httpx2.Auth())
        try:
            body = await _body(response, bound, asked)
        finally:
            await response.aclose()
    return Answer(method, uri, dict(headers or {}), response.status_code, response.headers, body)


def check(uri: str) -> None:
    """Raises TaskError unless `uri` is one of http or https with a host."""
    try:
        parts = urlsplit(uri)
        ok = parts.scheme.lower() in PORTS and bool(parts.hostname) and parts.port != 0
    except ValueError:
        ok = False
    if not ok:
        raise problems.configuration(f"Expected an http or https URI but found {problems.place(uri)!r}")


@contextlib.contextmanager
def failures(asked: str) -> Any:
    """What goes wrong below becomes a TaskError that tells `asked`, such as `GET https://host/path`."""
    try:
        yield
    except httpx2.TimeoutException as problem:
        raise problems.timeout(f"Expected an answer to {asked} but {_words(problem)}") from None
    except Refused as problem:
        raise problems.authorization(str(problem)) from None
    except httpx2.LocalProtocolError:
        raise problems.configuration(
            f"Expected {asked} to have headers that HTTP can carry but it has not"
        ) from None
    except httpx2.DecodingError:
        raise problems.communication(
            f"Expected an answer to {asked} that can be decoded but it cannot"
        ) from None
    except (httpx2.ConnectError, httpx2.ReadError, httpx2.RemoteProtocolError) as problem:
        detail = f"Expected an answer to {asked} but {_words(problem)}: {problem}"
        raise problems.communication(detail, problems.UNAVAILABLE) from None
    except (httpx2.HTTPError, httpx2.InvalidURL) as problem:
        detail = f"Expected an answer to {asked} but {_words(problem)}"
        raise problems.communication(detail, problems.UNAVAILABLE) from None
    except (UnicodeEncodeError, TypeError):
        raise problems.configuration(
            f"Expected {asked} to have headers of plain text but it has not"
        ) from None


async def _body(response: httpx2.Response, limit: int, asked: str) -> bytes:
    parts: list[bytes] = []
    size = 0
    async with contextlib.aclosing(response.aiter_bytes()) as chunks:
        async for chunk in chunks:
            size += len(chunk)
            if size > limit:
                raise problems.communication(
                    f"Expected an answer to {asked} of at most {limit} bytes but it is larger"
                )
            parts.append(chunk)
    return b"".join(parts)


def _words(problem: Exception) -> str:
    """ConnectTimeout -> connect timeout."""
    name = type(problem).__name__
    return "".join(f" {letter.lower()}" if letter.isupper() else letter for letter in name).strip()


class _Transport(httpx2.AsyncHTTPTransport):
    """Applies the rewrite rules to what is sent; the response keeps the request as it was."""

    def __init__(self, limit: int | None = None) -> None:
        settings = configured()
        self._limit = limit
        super().__init__(
            trust_env=False,
            proxy=settings.http_proxy or None,
            limits=httpx2.Limits(max_connections=CONNECTIONS_MAX, keepalive_expiry=IDLE_S),
        )
        self._rewrite = settings.http_rewrite
        if settings.http_private_networks == "deny" and not settings.http_proxy:
            self._pool = httpcore2.AsyncConnectionPool(
                ssl_context=httpx2.create_ssl_context(trust_env=False),
                max_connections=CONNECTIONS_MAX,
                keepalive_expiry=IDLE_S,
                network_backend=GuardedBackend(self._rewrite),
            )

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        response = await self._sent(request)
        if self._limit is not None:
            if response.headers.get("content-encoding", "identity") != "identity":
                await response.aclose()
                raise httpx2.DecodingError("Expected an answer that is not compressed", request=request)
            assert isinstance(response.stream, httpx2.AsyncByteStream)
            response.stream = _Bounded(response.stream, self._limit)
        return response

    async def _sent(self, request: httpx2.Request) -> httpx2.Response:
        uri = str(request.url)
        target = rewritten(uri, self._rewrite)
        if target == uri:
            return await super().handle_async_request(request)
        url = httpx2.URL(target)
        kept = [(name, value) for name, value in request.headers.raw if name.lower() != b"host"]
        sent = httpx2.Request(
            request.method,
            url,
            headers=[(b"host", url.netloc), *kept],
            stream=request.stream,
            extensions=request.extensions,
        )
        return await super().handle_async_request(sent)


class _Bounded(httpx2.AsyncByteStream):
    """A stream of at most `limit` bytes; more are an error of who sends them."""

    def __init__(self, stream: httpx2.AsyncByteStream, limit: int) -> None:
        self._stream, self._limit = stream, limit

    async def __aiter__(self) -> AsyncIterator[bytes]:
        size = 0
        async for chunk in self._stream:
            size += len(chunk)
            if size > self._limit:
                raise httpx2.RemoteProtocolError(f"the answer is larger than {self._limit} bytes")
            yield chunk

    async def aclose(self) -> None:
        await self._stream.aclose()
