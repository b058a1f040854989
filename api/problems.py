"""Errors to answers: RFC 9457 problem details for everything that is not a 2xx, 401 and 500 included.

A defect's text never leaves the process: the answer names it a defect, the log has the traceback. Under /registry the
members `error_code` and `message` are added, because that is where Confluent's clients look.
"""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, Final

import msgspec
import structlog
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from api.errors import ANSWERS, DOCUMENTED_AT, Invalid, MethodNotAllowed, NotFound, Refused
from engine.dsl.errors import DefinitionError

log = structlog.get_logger("flowtrail.api")

MEDIA_TYPE: Final = "application/problem+json"
RETRY_AFTER_S: Final = "1"


def answer(error: Exception, path: str) -> Response:
    """The answer to a request for `path` that ended with `error`."""
    error = _ours(error, path)
    status, slug, title = next((s, g, t) for kind, s, g, t in ANSWERS if isinstance(error, kind))
    extra: Mapping[str, Any] = {}
    detail: str | None = str(error)
    headers: dict[str, str] = {}
    if isinstance(error, Refused):
        slug, extra = error.slug or slug, error.extra
    elif isinstance(error, DefinitionError):
        detail = f"Expected a valid definition but found {len(error.problems)} problem(s)"
        extra = {"problems": [_place(p.message, p.pointer, p.line, p.column) for p in error.problems]}
    elif slug == "not-initialized":
        detail = "Expected the database to hold Flowtrail's tables but it does not; run: flowtrail admin init"
    if status == 500:
        log.error("defect", path=path, exc_info=error)
        detail = "Expected to answer this request but the API failed; its log says why"
    if status == 503:
        headers["Retry-After"] = RETRY_AFTER_S
    if status == 401:
        headers["WWW-Authenticate"] = 'Bearer realm="flowtrail", Basic realm="flowtrail"'
    if isinstance(error, MethodNotAllowed):
        headers["Allow"] = error.extra["allow"]
    return _render(status, slug, title, detail, path, extra, headers)


def _ours(error: Exception, path: str) -> Exception:
    """The framework's errors in this room's words."""
    if isinstance(error, RequestValidationError):
        return _parameters(error)
    if isinstance(error, HTTPException):
        match error.status_code:
            case 404:
                return NotFound(f"Expected a route of this API but found {path}", slug="unknown-route")
            case status if 400 <= status < 500:
                return Invalid(f"Expected a valid request but {error.detail}")
    return error


def _parameters(error: RequestValidationError) -> Invalid:
    places = []
    for one in error.errors():
        name = str(one["loc"][-1])
        found = "nothing" if one["type"] == "missing" else repr(one["input"])[:200]
        places.append({"message": f"{one['msg']} (found {found})", "parameter": name})
    text = "; ".join(f"{place['parameter']}: {place['message']}" for place in places)
    return Invalid(f"Expected valid parameters but found {text}", slug="invalid-parameter", problems=places)


def _place(message: str, pointer: str, line: int | None, column: int | None) -> dict[str, Any]:
    return {"message": message, "pointer": pointer, "line": line, "column": column}


def _render(
    status: int,
    slug: str,
    title: str,
    detail: str | None,
    path: str,
    extra: Mapping[str, Any],
    headers: dict[str, str],
) -> Response:
    problem: dict[str, Any] = {
        "type": DOCUMENTED_AT + slug,
        "title": title,
        "status": status,
        "detail": detail,
        "instance": path,
        **extra,
    }
    if path.startswith("/registry"):
        problem.setdefault("error_code", status)
        problem["message"] = detail or HTTPStatus(status).phrase
    body = msgspec.json.encode(problem)
    return Response(body, status, media_type=MEDIA_TYPE, headers=headers)
