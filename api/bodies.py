"""Request bodies and query parameters: read strictly, refused with their place. Media types are judged here."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Any, Final, TypeVar

import msgspec
import orjson
from starlette.requests import Request

from api.errors import Invalid, UnsupportedMedia

T = TypeVar("T")

JSON: Final = "application/json"
YAML: Final = "application/yaml"
_YAMLS: Final = frozenset({YAML, "application/x-yaml", "text/yaml", "text/x-yaml"})
_ANY: Final = frozenset({"", "text/plain", "application/octet-stream", "application/x-www-form-urlencoded"})
_AT: Final = re.compile(r" - at `(?:key in )?\$(?P<path>.*)`$")
_TRACEPARENT: Final = re.compile(r"[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")


def media_type(request: Request) -> str:
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


def json_body(body: bytes, given: str, kind: type[T]) -> T:
    """`body` as `kind`; `given` is its media type. Raises UnsupportedMedia or Invalid."""
    if given not in ("", JSON) and not given.endswith("+json"):
        raise UnsupportedMedia(f"Expected a body of {JSON} but found {given}")
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.ValidationError as problem:
        found = _AT.search(str(problem))
        pointer = "" if found is None else re.sub(r"\.|\[(\d+|\.\.\.)\]", r"/\1", found["path"])
        message = _AT.sub("", str(problem)).replace("`", "")
        raise Invalid(
            f"Expected a valid request but {_lower(message)} at {pointer or 'the top'}",
            slug="invalid-body",
            problems=[{"message": message, "pointer": pointer}],
        ) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as problem:
        raise malformed(body, str(problem)) from None


def check_json(data: bytes, what: str) -> Any:
    """The value of `data`. Raises Invalid with line and column."""
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError as problem:
        raise _malformed(what, problem) from None


def malformed(body: bytes, otherwise: str) -> Invalid:
    """Why `body` is no JSON, with its place where that is known."""
    if not body:
        return Invalid("Expected a JSON body but found nothing", slug="malformed-json")
    try:
        orjson.loads(body)
    except orjson.JSONDecodeError as problem:
        return _malformed("a JSON body", problem)
    return Invalid(f"Expected a JSON body but {otherwise}", slug="malformed-json")


def _malformed(what: str, problem: orjson.JSONDecodeError) -> Invalid:
    place = {"message": problem.msg, "pointer": "", "line": problem.lineno, "column": problem.colno}
    return Invalid(
        f"Expected {what} but {_lower(problem.msg)} (line {problem.lineno}, column {problem.colno})",
        slug="malformed-json",
        problems=[place],
    )


def _lower(text: str) -> str:
    return text[:1].lower() + text[1:]


def definition_media_type(given: str, body: bytes) -> str:
    """`application/yaml` or `application/json`: what the caller says, else what the text looks like."""
    if given == JSON or given.endswith("+json"):
        return JSON
    if given in _YAMLS:
        return YAML
    if given not in _ANY:
        raise UnsupportedMedia(f"Expected a body of {YAML} or {JSON} but found {given}")
    return JSON if body.lstrip()[:1] == b"{" else YAML


def traceparent(request: Request) -> str | None:
    """The caller's W3C trace context; a malformed one is ignored, as that specification demands."""
    value = request.headers.get("traceparent", "")
    return value if _TRACEPARENT.fullmatch(value) and not value.startswith("ff") else None


def refuse_unknown(request: Request, known: Collection[str]) -> None:
    """A misspelt filter would silently answer something else. Raises Invalid."""
    unknown = sorted(set(request.query_params) - set(known))
    if unknown:
        expected = ", ".join(sorted(known)) or "no parameters"
        raise Invalid(f"Expected {expected} but found {', '.join(unknown)[:200]}", slug="invalid-parameter")


def number(request: Request, name: str, otherwise: float, least: float, most: float) -> float:
    """A query parameter as a number. Raises Invalid."""
    text = request.query_params.get(name)
    if text is None:
        return otherwise
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not least <= value <= most:
        raise Invalid(
            f"Expected {name} to be a number from {least:g} to {most:g} but found {text[:100]!r}",
            slug="invalid-parameter",
        )
    return value
