"""Requests that turn a flow: back to a moment of its past, on to another version, or run again as another flow.

The moment's state is taken from the log and travels in the command; the engine judges it, and the answer waits for that: 200
when it was done, the refusal when it was not, 202 when that was not known in time. `dry_run=true` decides on a copy and says
what would happen; nothing is produced.
"""

from __future__ import annotations

import asyncio
import time
from typing import Annotated, Any, Final
from urllib.parse import quote

import msgspec
from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from api import bodies
from api.commanding import REASON_LENGTH_MAX, command_id_of, decided, new_id, produce
from api.errors import Conflict, Invalid, NotFound
from api.starting import check_id, check_input, resolve
from api.tasks import WAIT_DEFAULT_S, Timeout, payload
from api.wiring import Api, api_of
from engine.core.decide import Decision
from replay.flow import Log, UnknownFlow
from replay.turning import Find, last_migration, moment_of, plan, planned, state_of
from replay.whatif import Verdict, judge, stored
from schemas import messages as m

router: Final = APIRouter(tags=["turning"])

DryRun = Annotated[bool, Query(description="Say what would happen; produce nothing")]


_NULL: Final = b"null"


def _absent() -> msgspec.Raw:
    return msgspec.Raw(_NULL)


class RollbackRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`to`: an event's number, or a task. `data`: what the first task that is performed again gets instead."""

    to: int | str
    data: msgspec.Raw = msgspec.field(default_factory=_absent)
    reason: str | None = None


class RerunRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename={"from_": "from"}):
    """`from`: an event's number, or a task; without, from the beginning. `input`, `definition`: instead of the flow's."""

    from_: int | str | None = None
    input: msgspec.Raw = msgspec.field(default_factory=_absent)
    data: msgspec.Raw = msgspec.field(default_factory=_absent)
    definition: str | None = None
    id: str | None = None


class MigrateRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`definition`: the version to go on under; without, back to the one before the last migration.

    `accept_different`: also when the flow's past would have gone another way under it.
    """

    definition: str | None = None
    accept_different: bool = False
    reason: str | None = None


class Turned(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """`decided`: whether the engine has taken it, and not only the broker. `moment`: what was gone back to."""

    id: str
    definition: str
    command_id: str
    position: str
    decided: bool
    moment: dict[str, Any] | None = None
    origin: str | None = None


# -- back ---------------------------------------------------------------------------------------------------------------


@router.post("/flows/{flow_id}/rollback", summary="Undo what came after a moment, and go on from there")
async def roll_back(
    request: Request, flow_id: str, dry_run: DryRun = False, timeout: Timeout = WAIT_DEFAULT_S
) -> Response:
    api = api_of(request)
    asked = bodies.json_body(await request.body(), bodies.media_type(request), RollbackRequest)
    _check_reason(asked.reason)
    log = await _log(api, flow_id)
    state = _live(log)
    moment = moment_of(log, asked.to)
    data = payload(asked.data, "data") if bytes(asked.data) != _NULL else None
    body = m.RollBackFlow(moment.restore(data), asked.reason)
    if dry_run:
        return await _planned(api, log, body, {"moment": moment.shown()})
    return await _ask(request, state.definition, flow_id, body, timeout, moment=moment.shown())


# -- on -----------------------------------------------------------------------------------------------------------------


@router.post("/flows/{flow_id}/migrate", summary="Go on under another version of the definition")
async def migrate(
    request: Request, flow_id: str, dry_run: DryRun = False, timeout: Timeout = WAIT_DEFAULT_S
) -> Response:
    api = api_of(request)
    asked = bodies.json_body(await request.body() or b"{}", bodies.media_type(request), MigrateRequest)
    _check_reason(asked.reason)
    log = await _log(api, flow_id)
    state = _live(log)
    definition = await resolve(api, _wanted(log, asked.definition))
    verdict = await asyncio.to_thread(judge, definition, stored(log.logged))
    body = m.MigrateFlow(definition.id, asked.reason)
    if dry_run:
        said = {"definition": definition.id, "past": _verdict(verdict)}
        return await _planned(api, log, body, said)
    back = asked.definition is None
    if verdict.kind not in ("same", "needs") and not (back or asked.accept_different):
        raise Conflict(
            f"Expected the flow's past to be the same under {definition.id} but it is not at {verdict.at or 'its start'}: "
            f"{verdict.would}; accept_different goes on all the same",
            slug="past-differs",
        )
    return await _ask(request, definition.id, flow_id, body, timeout, was=state.definition)


def _wanted(log: Log, definition: str | None) -> str:
    if definition is not None:
        return definition
    last = last_migration(log)
    if last is None:
        raise Conflict(
            f"Expected a flow that was migrated but {log.flow_id} never was", slug="never-migrated"
        )
    return last.was


def _verdict(verdict: Verdict) -> dict[str, Any]:
    shown: dict[str, Any] = msgspec.to_builtins(verdict)
    return {name: value for name, value in shown.items() if value and name != "flow_id"}


# -- again --------------------------------------------------------------------------------------------------------------


@router.post("/flows/{flow_id}/rerun", summary="Start a linked flow with what was recorded up to a moment")
async def rerun(
    request: Request, flow_id: str, dry_run: DryRun = False, timeout: Timeout = WAIT_DEFAULT_S
) -> Response:
    api = api_of(request)
    asked = bodies.json_body(await request.body() or b"{}", bodies.media_type(request), RerunRequest)
    log = await _log(api, flow_id)
    first = log.logged[0].event
    if not isinstance(first.body, m.FlowStarted):
        raise Conflict(f"Expected a flow that has started but {flow_id} has not", slug="not-restorable")
    check_id(asked.id)
    of = state_of(log)
    definition = await resolve(api, asked.definition or of.definition)
    given = payload(asked.input, "an input") if bytes(asked.input) != _NULL else first.body.input
    assert isinstance(given, bytes)
    check_input(definition, given)
    data = payload(asked.data, "data") if bytes(asked.data) != _NULL else None
    if asked.from_ is None:
        restore, moment = m.Restore(flow_id, 0, b"", data), None
    else:
        found = moment_of(log, asked.from_)
        restore, moment = found.restore(data), found.shown()
    if data is not None and asked.from_ is None:
        raise Invalid("Expected data with `from` only but found it without", slug="invalid-body")
    body = m.StartFlow(definition.id, given, None, restore)
    command_id = command_id_of(request, flow_id, "rerun")
    new = asked.id or (command_id.partition("-")[0] if "-" in command_id else new_id())
    if dry_run:
        nobody = Log(flow_id=new, logged=[], rejections=[], way="index", why="", partition=0, records_read=0)
        return await _planned(api, nobody, body, {"definition": definition.id, "moment": moment})
    return await _ask(
        request, definition.id, new, body, timeout, command_id=command_id, moment=moment, origin=flow_id
    )


# -- all of them --------------------------------------------------------------------------------------------------------


async def _ask(
    request: Request,
    definition: str,
    flow_id: str,
    body: m.MigrateFlow | m.RollBackFlow | m.StartFlow,
    timeout: float,
    *,
    command_id: str | None = None,
    moment: dict[str, Any] | None = None,
    origin: str | None = None,
    was: str | None = None,
) -> Response:
    api = api_of(request)
    named = type(body).__name__.lower()
    command_id = command_id or command_id_of(request, flow_id, named)
    position = await produce(api, request, flow_id, command_id, body)
    done = await decided(api, flow_id, command_id, position, timeout)
    turned = Turned(
        id=flow_id,
        definition=definition,
        command_id=command_id,
        position=position,
        decided=done,
        moment=moment,
        origin=origin or was,
    )
    headers = {"Location": f"/flows/{quote(flow_id, safe=':')}"}
    return Response(
        msgspec.json.encode(turned), 200 if done else 202, media_type=bodies.JSON, headers=headers
    )


async def _planned(api: Api, log: Log, body: m.CommandBody, said: dict[str, Any]) -> Response:
    find: Find = api.ports.definitions.find

    def decide() -> Decision:
        return plan(log, body, find, time.time_ns() // 1000)

    decision = await asyncio.to_thread(decide)
    content = {"id": log.flow_id} | said | planned(decision)
    return Response(msgspec.json.encode(content), media_type=bodies.JSON)


async def _log(api: Api, flow_id: str) -> Log:
    try:
        return await api.ports.past.log(flow_id)
    except UnknownFlow as unknown:
        raise NotFound(str(unknown), slug="unknown-flow") from None


def _live(log: Log) -> m.LiveFlow:
    state = state_of(log)
    if not isinstance(state, m.LiveFlow):
        raise Conflict(f"Expected a running flow but flow {log.flow_id} is {state.status}", slug="flow-ended")
    return state


def _check_reason(reason: str | None) -> None:
    if reason is not None and len(reason) > REASON_LENGTH_MAX:
        raise Invalid(
            f"Expected a reason of at most {REASON_LENGTH_MAX} characters but found {len(reason)}",
            slug="invalid-body",
            problems=[{"message": "Expected a shorter reason", "pointer": "/reason"}],
        )
