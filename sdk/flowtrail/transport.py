"""HTTP to the API: one connection pool, retries with full jitter, refusals as ApiError, silence as Unreachable.

A request is repeated only when that cannot do it twice: it is idempotent, or the connection was never made, or the
server says with 429 or 503 that it did nothing. A Retry-After that fits into the time left is honoured.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, Mapping
from typing import Any, Final, Self

import httpx2
import orjson

from flowtrail.errors import ApiError, InputError, Unreachable

DEFAULT_URL: Final = "http://127.0.0.1:8080"
_BACKOFF_FIRST_S: Final = 0.05
_BACKOFF_MAX_S: Final = 2.0


class Api:
    """Thread-safe. `retry_s` bounds how long a request goes on trying; 0 tries once."""

    def __init__(
        self,
        url: str | None = None,
        api_key: str | None = None,
        *,
        retry_s: float = 10.0,
        transport: httpx2.BaseTransport | None = None,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        self.url = (url or os.environ.get("FLOWTRAIL_API_URL") or DEFAULT_URL).rstrip("/")
        if not self.url.startswith(("http://", "https://")):
            raise InputError(
                f"Expected the API's URL to begin with http:// or https:// but found {self.url!r}"
            )
        key = os.environ.get("FLOWTRAIL_API_KEY", "") if api_key is None else api_key
        headers = {"Accept": "application/json", "User-Agent": "flowtrail-python"}
        if key:
            if not key.isascii() or not key.isprintable():
                raise InputError("Expected the API key to be printable ASCII but it is not")
            headers["Authorization"] = f"Bearer {key}"
        self._retry_s = retry_s
        self._sleep = sleep
        self._http = httpx2.Client(base_url=self.url, headers=headers, timeout=10.0, transport=transport)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._http.close()

    def json(self, method: str, path: str, **given: Any) -> Any:
        """The answer's JSON. Parameters as `request`."""
        response = self.request(method, path, **given)
        try:
            return orjson.loads(response.content)
        except orjson.JSONDecodeError:
            raise ApiError(
                502,
                {
                    "title": "Unexpected answer",
                    "detail": f"Expected JSON from {self.url}{path} but it is not",
                },
            ) from None

    def request(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, Any] | None = None,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        idempotent: bool | None = None,
        timeout_s: float = 10.0,
    ) -> httpx2.Response:
        """A 2xx answer. Raises ApiError or Unreachable. `idempotent` is assumed of GET only."""
        repeatable = method == "GET" if idempotent is None else idempotent
        params = {name: value for name, value in (query or {}).items() if value is not None}
        end = time.monotonic() + self._retry_s
        attempt = 0
        while True:
            pause = min(_BACKOFF_MAX_S, _BACKOFF_FIRST_S * 2**attempt) * random.random()  # noqa: S311 - jitter
            attempt += 1
            try:
                response = self._http.request(
                    method, path, params=params, content=body, headers=dict(headers or {}), timeout=timeout_s
                )
            except httpx2.TransportError as problem:
                unsent = isinstance(problem, (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout))
                if not (repeatable or unsent) or time.monotonic() + pause > end:
                    raise Unreachable(
                        f"Expected the API at {self.url} to answer but {_why(problem)}"
                    ) from None
            else:
                if response.is_success:
                    return response
                pause = max(pause, _retry_after(response))
                again = response.status_code in (429, 503) or (
                    repeatable and response.status_code in (502, 504)
                )
                if not again or time.monotonic() + pause > end:
                    raise _refusal(response)
            self._sleep(pause)


def _why(problem: httpx2.TransportError) -> str:
    if isinstance(problem, httpx2.TimeoutException):
        return "it took too long"
    return str(problem) or type(problem).__name__


def _retry_after(response: httpx2.Response) -> float:
    try:
        return max(0.0, float(response.headers.get("Retry-After", "0")))
    except ValueError:  # the HTTP-date form; our own back-off will do
        return 0.0


def _refusal(response: httpx2.Response) -> ApiError:
    try:
        problem = orjson.loads(response.content)
    except orjson.JSONDecodeError:
        problem = None
    if not isinstance(problem, dict):
        problem = {"title": f"HTTP status {response.status_code}", "detail": response.text[:500] or None}
    return ApiError(response.status_code, problem)
