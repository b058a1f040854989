"""`call: http`: one request, its answer as the flow asked for it.

`perform` is shared with openapi.py, which only builds another `Call`. The body is JSON unless the content type says text,
a form or bytes. A status outside of 200-299 (with `redirect`, 200-399) is a communication error of that status; redirects
are not followed, they are told. In an answer given whole, headers that carry credentials are left out.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import urlencode

from flowtrail.secrets import unseal

from engine.tasks import problems
from engine.tasks.authentication import Authorization, authorize
from engine.tasks.connections import Answer, exchange
from engine.tasks.uris import INPUT, endpoint_of, text_of, with_query

OUTPUTS: Final = ("raw", "content", "response")
JSON_TYPE: Final = "application/json"
_SURROGATE: Final = re.compile(rb"\\u[dD][89a-fA-F]")
METHOD: Final = re.compile(r"[A-Za-z][A-Za-z-]{0,31}")
_CREDENTIALS: Final = re.compile(r"auth|cookie|token|secret|api[-_]?key|password|credential", re.IGNORECASE)


@dataclass(frozen=True)
class Call:
    """A request to make, everything evaluated, nothing encoded yet. `body` is None when there is none."""

    method: str
    uri: str
    headers: Mapping[str, Any] = field(default_factory=dict)
    query: Mapping[str, Any] = field(default_factory=dict)
    body: Any = None
    authentication: Any = None
    output: str = "content"
    redirect: bool = False


async def call(arguments: dict[str, Any]) -> Any:
    """The function `http`."""
    given = _mapping(arguments, INPUT)
    uri, policy = endpoint_of(arguments.get("endpoint"), given)
    return await perform(
        Call(
            method=str(arguments.get("method", "")),
            uri=uri,
            headers=_mapping(arguments, "headers"),
            query=_mapping(arguments, "query"),
            body=arguments.get("body"),
            authentication=policy,
            output=arguments.get("output") or "content",
            redirect=arguments.get("redirect") is True,
        )
    )


async def perform(asked: Call) -> Any:
    """Sends `asked` and gives what its `output` names. Raises TaskError."""
    if METHOD.fullmatch(asked.method) is None:
        raise problems.configuration(f"Expected an HTTP method but found {asked.method[:32]!r}")
    if asked.output not in OUTPUTS:
        raise problems.configuration(
            f"Expected one of {', '.join(OUTPUTS)} as output but found {str(asked.output)[:32]!r}"
        )
    authorization = await authorize(asked.authentication)
    uri, headers, content = request_of(asked, authorization)
    auth = None if authorization is None else authorization.auth
    answer = await exchange(asked.method.upper(), uri, headers=headers, content=content, auth=auth)
    end = 400 if asked.redirect else 300
    if not 200 <= answer.status < end:
        raise problems.communication(
            f"Expected a status from 200 to {end - 1} of {answer.method} {problems.place(uri)} but it is {answer.status}",
            answer.status,
        )
    return result_of(answer, asked.output)


def request_of(asked: Call, authorization: Authorization | None) -> tuple[str, dict[str, str], bytes | None]:
    """URI, headers and content as they are sent."""
    parts = None if authorization is None else authorization.parts
    if authorization is not None and authorization.auth is not None:
        parts = None  # a digest's parameter is known after the server's challenge only
    headers = {
        str(name).lower(): text_of(value)
        for name, value in unseal(dict(asked.headers), parts).items()
        if value is not None
    }
    if authorization is not None:
        headers = authorization.headers | headers
    query = unseal(dict(asked.query), parts)
    content = None
    if asked.body is not None:
        headers.setdefault("content-type", JSON_TYPE)
        content = encode(unseal(asked.body, parts), headers["content-type"])
    headers.setdefault("accept", "application/json, */*;q=0.8")
    return with_query(unseal(asked.uri, parts), query), headers, content


def encode(body: Any, content_type: str) -> bytes:
    """`body` for `content_type`: text as it is unless JSON is asked for; a form from an object; the rest as JSON."""
    kind = content_type.partition(";")[0].strip().lower()
    if not is_json(kind):
        if isinstance(body, str):
            return body.encode("utf-8", "replace")
        if kind == "application/x-www-form-urlencoded" and isinstance(body, dict):
            pairs = [
                (name, text_of(item))
                for name, value in body.items()
                for item in (value if isinstance(value, list) else [value])
            ]
            return urlencode(pairs).encode()
    return json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")


def result_of(answer: Answer, output: str) -> Any:
    """What the flow gets."""
    if output == "raw":
        return base64.b64encode(answer.content).decode()
    if output == "content":
        return content_of(answer)
    return {
        "request": {
            "method": answer.method,
            "uri": _without_credentials(answer.uri),
            "headers": shown(answer.request_headers),
        },
        "statusCode": answer.status,
        "headers": shown(dict(answer.headers)),
        "content": content_of(answer),
    }


def content_of(answer: Answer) -> Any:
    """JSON as its value, text as text, anything else in base 64; null when there is nothing."""
    if not answer.content:
        return None
    content_type = answer.headers.get("content-type", "")
    kind = content_type.partition(";")[0].strip().lower()
    if is_json(kind):
        try:
            return json_of(answer.content)
        except ValueError:
            place = problems.place(answer.uri)
            raise problems.communication(
                f"Expected JSON from {place}, as its type says, but found none"
            ) from None
    if kind.startswith("text/") or kind.endswith(("+xml", "/xml")) or kind in _TEXTS:
        charset = re.search(r"charset=\"?([\w-]+)", content_type, re.IGNORECASE)
        try:
            return answer.content.decode(charset[1] if charset else "utf-8", "replace")
        except LookupError:
            return answer.content.decode("utf-8", "replace")
    return base64.b64encode(answer.content).decode()


def json_of(content: bytes) -> Any:
    """The value of `content`. Raises ValueError for what is no JSON; NaN and half of a surrogate pair are none either."""
    try:
        found = json.loads(content, parse_constant=_no_number)
        if _SURROGATE.search(content) is not None:
            json.dumps(found, ensure_ascii=False).encode()
    except RecursionError:
        raise ValueError("Expected JSON but it is nested too deeply") from None
    return found


def _no_number(name: str) -> Any:
    raise ValueError(f"Expected a number but found {name}")


_TEXTS: Final = ("application/yaml", "application/x-yaml", "application/javascript", "application/graphql")


def is_json(kind: str) -> bool:
    return kind == JSON_TYPE or kind.endswith("+json")


def shown(headers: Mapping[str, str]) -> dict[str, str]:
    """Outcomes are kept in the log for ever: what looks like a credential does not go there."""
    return {name: value for name, value in headers.items() if _CREDENTIALS.search(name) is None}


def _without_credentials(uri: str) -> str:
    """The same for the values of a query."""
    rest, mark, query = uri.partition("?")
    pairs = [pair.partition("=") for pair in query.split("&")]
    kept = "&".join(name if _CREDENTIALS.search(name) else name + sign + value for name, sign, value in pairs)
    return rest + mark + kept


def _mapping(arguments: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = arguments.get(name)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise problems.configuration(f"Expected an object as {name} but found a {type(value).__name__}")
    return value
