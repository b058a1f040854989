"""What waits for a person: the approvals of running flows, and the answers to them.

An answer is judged by the engine against the approval's form, so the request waits for that: 200 when it was taken, the
refusal (`invalid-answer`, `task-not-active`) when it was not, 202 when that was not known in time.
"""

from __future__ import annotations

import base64
import binascii
from datetime import datetime
from typing import Annotated, Final

import msgspec
from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from api import bodies
from api.commanding import see_position
from api.errors import Invalid
from api.ports import PendingApproval
from api.tasks import WAIT_DEFAULT_S, Timeout, ask_of_task, payload
from api.tokens import TaskPlace, read_token, token_of
from api.wiring import api_of
from projections.queries import LIMIT_MAX, split_definition
from schemas import messages as m

router: Final = APIRouter(tags=["approvals"])

_Cursor = tuple[datetime, str, str]


class ApprovalView(msgspec.Struct, frozen=True, kw_only=True):
    """`request` is what the definition says to people: title, assignees, description, ..."""

    token: str
    flow_id: str
    definition: str
    task: str
    name: str
    run: int
    attempt: int
    since: datetime
    request: msgspec.Raw | None


class AnswerRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`answer` is what the approval's form asks for; it becomes the task's result."""

    answer: msgspec.Raw


@router.get("/approvals", summary="What waits for a person, oldest first")
async def approvals(
    request: Request,
    flow_id: Annotated[str | None, Query(max_length=128)] = None,
    definition: Annotated[
        str | None, Query(description="namespace/name or namespace/name@version", max_length=300)
    ] = None,
    cursor: Annotated[str | None, Query(max_length=1000, description="`next` of the page before")] = None,
    limit: Annotated[int, Query(ge=1, le=LIMIT_MAX, description="Items of a page at the most")] = 100,
    min_position: Annotated[str | None, Query(max_length=4000)] = None,
) -> Response:
    api = api_of(request)
    if definition is not None:
        split_definition(definition)
    after = None if cursor is None else _read(cursor)
    await see_position(api, min_position)
    headers = await api.positions.header()
    found = await api.ports.store.approvals(flow_id, definition, after, limit + 1)
    following = _write(found[limit - 1]) if len(found) > limit else None
    content = {"approvals": [_shown(pending) for pending in found[:limit]], "next": following}
    return Response(msgspec.json.encode(content), media_type=bodies.JSON, headers=headers)


@router.post("/approvals/{token}", summary="Answer an approval", status_code=200)
async def answer(request: Request, token: str, timeout: Timeout = WAIT_DEFAULT_S) -> Response:
    place = read_token(token)
    asked = bodies.json_body(await request.body(), bodies.media_type(request), AnswerRequest)
    body = m.CompleteTask(place.task, place.run, place.attempt, payload(asked.answer, "an answer"))
    return await ask_of_task(request, place, body, "answer", "decided", timeout)


def _shown(pending: PendingApproval) -> ApprovalView:
    place = TaskPlace(pending.flow_id, pending.task, pending.run, pending.attempt)
    return ApprovalView(
        token=token_of(place),
        flow_id=pending.flow_id,
        definition=pending.definition,
        task=pending.task,
        name=pending.name,
        run=pending.run,
        attempt=pending.attempt,
        since=pending.since,
        request=None if pending.request is None else msgspec.Raw(pending.request.encode()),
    )


def _write(last: PendingApproval) -> str:
    key = msgspec.json.encode((last.since, last.flow_id, last.task))
    return base64.urlsafe_b64encode(key).decode().rstrip("=")


def _read(cursor: str) -> _Cursor:
    try:
        raw = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
        found: _Cursor = msgspec.json.decode(raw, type=_Cursor)
        return found
    except (binascii.Error, ValueError, msgspec.DecodeError):
        raise Invalid(
            f"Expected the cursor of a page that was answered before but found {cursor[:100]!r}",
            slug="invalid-parameter",
        ) from None
