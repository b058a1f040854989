"""Documents that calls refer to: read from http(s) and file endpoints, and kept for a while.

    content = await fetch(arguments["document"]["endpoint"], given=arguments.get("__input__"))

A document from HTTP counts as fresh for FRESH_S and is then asked for again with its ETag; what was read with other
credentials is another document. Redirects are followed, without credentials once they leave the origin. Invariant: no
more than `http_document_bytes_max` bytes of one document are read, no more than KEPT documents kept.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import time
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote, urljoin, urlsplit

import httpx2

from engine.tasks import problems
from engine.tasks.authentication import authorize
from engine.tasks.configured import configured
from engine.tasks.connections import Answer, client, close, exchange, failures, new_client
from engine.tasks.networks import origin
from engine.tasks.uris import endpoint_of

__all__ = [
    "Answer",
    "client",
    "close",
    "exchange",
    "failures",
    "fetch",
    "fetch_blocking",
    "forget",
    "new_client",
]

FRESH_S: Final = 60.0
KEPT: Final = 64
REDIRECTS_MAX: Final = 5
_ACCEPT: Final = "application/json, application/yaml, text/plain, */*"


@dataclass(frozen=True)
class _Kept:
    content: bytes
    etag: str
    read_at: float


_documents: Final[OrderedDict[str, _Kept]] = OrderedDict()


async def fetch(endpoint: Any, authentication: Any = None, given: Mapping[str, Any] | None = None) -> bytes:
    """The bytes at `endpoint`: a URI or `{uri, authentication}`, whose own policy wins. Raises TaskError.

    `given` are the properties that the URI's template expands (a call's `__input__`).
    """
    uri, policy = endpoint_of(endpoint, given or {})
    policy = authentication if policy is None else policy
    if urlsplit(uri).scheme.lower() == "file":
        return await asyncio.to_thread(_file, uri)
    key = hashlib.sha256(json.dumps([uri, policy], sort_keys=True, default=str).encode()).hexdigest()
    kept = _documents.get(key)
    if kept is not None and time.monotonic() - kept.read_at < FRESH_S:
        _documents.move_to_end(key)
        return kept.content
    return await _read(uri, policy, key, kept)


def fetch_blocking(
    endpoint: Any, authentication: Any = None, given: Mapping[str, Any] | None = None
) -> bytes:
    """The same for functions that are not async."""

    async def once() -> bytes:
        try:
            return await fetch(endpoint, authentication, given)
        finally:
            await close()

    return asyncio.run(once())


def forget() -> None:
    """Drops every document kept."""
    _documents.clear()


async def _read(uri: str, policy: Any, key: str, kept: _Kept | None) -> bytes:
    condition = {"if-none-match": kept.etag} if kept is not None and kept.etag else {}
    answer = await _followed(uri, policy, condition)
    if answer.status == 304 and kept is not None:
        content, etag = kept.content, kept.etag
    elif 200 <= answer.status < 300:
        content, etag = answer.content, answer.headers.get("etag", "")
    else:
        detail = f"Expected the document at {problems.place(uri)} but the status is {answer.status}"
        raise problems.communication(detail, answer.status)
    _documents[key] = _Kept(content, etag, time.monotonic())
    _documents.move_to_end(key)
    while len(_documents) > KEPT:
        _documents.popitem(last=False)
    return content


async def _followed(uri: str, policy: Any, condition: Mapping[str, str]) -> Answer:
    authorization = await authorize(policy)
    here = uri
    for _ in range(REDIRECTS_MAX + 1):
        own = origin(urlsplit(here)) == origin(urlsplit(uri))
        headers: dict[str, str] = {"accept": _ACCEPT, **condition}
        auth: httpx2.Auth | None = None
        if authorization is not None and own:
            headers |= authorization.headers
            auth = authorization.auth
        answer = await exchange(
            "GET", here, headers=headers, auth=auth, limit=configured().http_document_bytes_max
        )
        location = answer.headers.get("location")
        if answer.status not in (301, 302, 303, 307, 308) or not location:
            return answer
        here = urljoin(here, location)
    raise problems.communication(
        f"Expected the document at {problems.place(uri)} but there are more than {REDIRECTS_MAX} redirects"
    )


def _file(uri: str) -> bytes:
    """`file:///a/b`, and `file://a/b`, whose host is the first part of the path as the specification's examples have it."""
    parts = urlsplit(uri)
    host = "" if parts.netloc in ("", "localhost") else f"/{parts.netloc}"
    path = Path(unquote(f"{host}/{parts.path.lstrip('/')}"))
    limit = configured().http_document_bytes_max
    try:
        place = _allowed(path)
        with place.open("rb") as file:
            content = file.read(limit + 1)
    except (OSError, ValueError) as problem:
        why = getattr(problem, "strerror", None) or "it cannot be a file's name"
        raise problems.configuration(f"Expected a file at {problems.place(uri)} but {why}") from None
    if len(content) > limit:
        raise problems.configuration(
            f"Expected a file of at most {limit} bytes at {problems.place(uri)} but it is larger"
        )
    return content


def _allowed(path: Path) -> Path:
    """Where `path` lies for this executor. Raises TaskError for what lies outside of its folder."""
    folder = configured().files_dir
    if not folder:
        return path
    root = Path(folder).resolve()
    for candidate in (path, root / str(path).lstrip("/")):
        place = candidate.resolve()
        if place.is_relative_to(root) and (candidate is not path or place.exists()):
            return place
    raise problems.authorization("Expected a file below FLOWTRAIL_FILES_DIR but its place is outside")
