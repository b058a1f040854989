"""Tasks that somebody completes from outside, by their token: results, failures, heartbeats.

With `wait=decided` the answer says what the engine made of it: 200 when it took effect, the
refusal's code when it did not, 202 when that was not known in time. A token is never looked up here: the engine knows
best which attempt is active.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal

import msgspec
from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from api import bodies
from api.commanding import command_id_of, decided, produce
from api.errors import TooLarge
from api.tokens import TaskPlace, read_token
from api.wiring import api_of
from engine.core.decide import PAYLOAD_BYTES_MAX
from schemas import messages as m

router: Final = APIRouter(tags=["tasks"])

_RUNTIME: Final = "https://serverlessworkflow.io/spec/1.0.0/errors/runtime"
WAIT_DEFAULT_S: Final = 10.0
_WAIT_MAX_S: Final = 60.0

Wait = Annotated[Literal["decided"] | None, Query(description="`decided`: answer what the engine made of it")]
Timeout = Annotated[float, Query(ge=0, le=_WAIT_MAX_S, description="How long to wait, in seconds")]


class CompleteRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`output` is the task's result, any JSON value."""

    output: msgspec.Raw = msgspec.field(default_factory=lambda: msgspec.Raw(b"null"))


class TaskProblem(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The error the flow sees, as the definition language describes errors."""

    type: Annotated[str, msgspec.Meta(min_length=1, max_length=2000)] = _RUNTIME
    status: Annotated[int, msgspec.Meta(ge=100, le=599)] = 500
    title: Annotated[str, msgspec.Meta(max_length=1000)] | None = None
    detail: Annotated[str, msgspec.Meta(max_length=8192)] | None = None


class FailRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`incident`: a person has to look, the flow is suspended instead of faulted."""

    error: TaskProblem
    incident: bool = False


class HeartbeatRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    progress: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


class TaskAnswered(msgspec.Struct, frozen=True):
    """`decided`: the command took effect; else it is on its way, and `position` is where to look."""

    flow_id: str
    task: str
    run: int
    attempt: int
    command_id: str
    position: str
    decided: bool


@router.post("/tasks/{token}/complete", summary="Complete a task from outside", status_code=202)
async def complete(
    request: Request, token: str, wait: Wait = None, timeout: Timeout = WAIT_DEFAULT_S
) -> Response:
    place = read_token(token)
    asked = bodies.json_body(await request.body() or b"{}", bodies.media_type(request), CompleteRequest)
    body = m.CompleteTask(place.task, place.run, place.attempt, payload(asked.output, "an output"))
    return await ask_of_task(request, place, body, "complete", wait, timeout)


@router.post("/tasks/{token}/fail", summary="Fail a task from outside", status_code=202)
async def fail(
    request: Request, token: str, wait: Wait = None, timeout: Timeout = WAIT_DEFAULT_S
) -> Response:
    place = read_token(token)
    asked = bodies.json_body(await request.body(), bodies.media_type(request), FailRequest)
    said = asked.error
    error = m.Error(said.type, said.status, said.title, said.detail, place.task)
    body = m.FailTask(place.task, place.run, place.attempt, error, asked.incident)
    return await ask_of_task(request, place, body, "fail", wait, timeout)


@router.post("/tasks/{token}/heartbeat", summary="Say that a task is alive", status_code=202)
async def heartbeat(
    request: Request, token: str, wait: Wait = None, timeout: Timeout = WAIT_DEFAULT_S
) -> Response:
    place = read_token(token)
    asked = bodies.json_body(await request.body() or b"{}", bodies.media_type(request), HeartbeatRequest)
    progress = (
        None if isinstance(asked.progress, msgspec.UnsetType) else payload(asked.progress, "a progress")
    )
    body = m.HeartbeatTask(place.task, place.run, place.attempt, progress)
    return await ask_of_task(request, place, body, "heartbeat", wait, timeout)


def payload(raw: msgspec.Raw, what: str) -> bytes:
    """The very bytes, checked. Raises Invalid or TooLarge."""
    data = bytes(raw)
    if len(data) > PAYLOAD_BYTES_MAX:
        raise TooLarge(
            f"Expected {what} of at most {PAYLOAD_BYTES_MAX} bytes but found {len(data)}",
            slug="payload-too-large",
        )
    bodies.check_json(data, f"{what} in JSON")
    return data


async def ask_of_task(
    request: Request, place: TaskPlace, body: m.CommandBody, verb: str, wait: str | None, timeout_s: float
) -> Response:
    api = api_of(request)
    command_id = command_id_of(request, f"{place.flow_id}{place.task}#{place.run}.{place.attempt}", verb)
    position = await produce(api, request, place.flow_id, command_id, body)
    done = wait is not None and await decided(api, place.flow_id, command_id, position, timeout_s)
    answered = TaskAnswered(*place, command_id, position, done)
    return Response(msgspec.json.encode(answered), 200 if done else 202, media_type=bodies.JSON)
