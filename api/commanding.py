"""Requests that become commands for a flow that is there: cancel, suspend, resume; and how any command is produced.

A command is answered when the broker has it; the engine decides it later, and what it refuses is among the rejections.
`decided` waits for that, for whoever wants to know at once.
"""

from __future__ import annotations

import asyncio
import hashlib
import secrets
import time
from typing import Final, Literal

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from api import bodies
from api.errors import Behind, Conflict, Invalid, NotFound, Refused
from api.positions import read_tokens, token
from api.wiring import Api, api_of, caller_of
from engine.core.decide import FLOW_ID
from engine.runtime.topics import COMMANDS
from projections.queries import get_flow, history_of, rejection_of_command
from schemas import messages as m
from schemas.codec import SCHEMA_HEADER, encode_command
from schemas.registry import newest

REASON_LENGTH_MAX: Final = 1000
_KEY_LENGTH_MAX: Final = 255
_APPEAR_S: Final = 1.0
_APPEAR_PAUSE_S: Final = 0.01
_FINGERPRINT: Final = newest("command").fingerprint
_CONFLICTS: Final = frozenset(
    {
        "flow-exists",
        "flow-ended",
        "task-not-active",
        "flow-suspended",
        "flow-not-suspended",
        "not-migratable",
        "not-restorable",
    }
)

Verb = Literal["cancel", "suspend", "resume"]


class ReasonRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    reason: str | None = None


class CancelRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`compensate`: undo completed tasks that name a compensation first."""

    reason: str | None = None
    compensate: bool = False


class Accepted(msgspec.Struct, frozen=True):
    """`position` is what a read's min_position takes to see this command's consequences."""

    id: str
    definition: str
    command_id: str
    position: str


# -- producing ------------------------------------------------------------------------------------------------------


async def produce(api: Api, request: Request, flow_id: str, command_id: str, body: m.CommandBody) -> str:
    """Produces the command in the caller's name; its position once the broker has it."""
    trace = bodies.traceparent(request)
    command = m.Command(
        command_id=command_id,
        flow_id=flow_id,
        time=time.time_ns() // 1000,
        actor=m.Actor("user", caller_of(request).id),
        body=body,
        trace=trace,
    )
    headers = [(SCHEMA_HEADER, _FINGERPRINT)]
    if trace is not None:
        headers.append(("traceparent", trace.encode()))
    return token(*await api.ports.log.send(COMMANDS, flow_id, encode_command(command), headers))


def new_id() -> str:
    """32 hexadecimal digits that sort by time (to the millisecond), 80 bits of them random."""
    return f"{time.time_ns() // 1_000_000:012x}{secrets.token_hex(10)}"


def command_id_of(request: Request, of: str, verb: str) -> str:
    """A function of the Idempotency-Key when there is one, so that a repeated request is one command. Raises Invalid."""
    key = request.headers.get("idempotency-key")
    if key is None:
        return new_id()
    if not 1 <= len(key) <= _KEY_LENGTH_MAX or not key.isprintable():
        raise Invalid(
            f"Expected an Idempotency-Key of 1 to {_KEY_LENGTH_MAX} printable characters but found {key[:100]!r}",
            slug="invalid-parameter",
        )
    derived = hashlib.sha256(f"{caller_of(request).id}\0{of}\0{key}".encode()).hexdigest()[:32]
    return f"{derived}-{verb}"


async def decided(api: Api, flow_id: str, command_id: str, position: str, timeout_s: float) -> bool:
    """True once the command took effect, False when that took too long. Raises the engine's refusal."""
    try:
        await api.positions.reached(read_tokens(position, api.positions.partitions), timeout_s)
    except Behind:
        return False
    refused = await api.ports.reads.ask(rejection_of_command(flow_id, command_id))
    if refused is not None and not await _had_effect(api, flow_id, command_id):
        raise refusal(refused.code, refused.reason)
    return True


async def _had_effect(api: Api, flow_id: str, command_id: str) -> bool:
    """A request repeated after a lost answer is refused the second time; what counts is what it did the first time."""
    after = 0
    while events := await api.ports.reads.ask(history_of(flow_id, after_sequence=after)):
        if any(event.cause.command_id == command_id for event in events):
            return True
        after = events[-1].sequence
    return False


def refusal(code: str, reason: str) -> Refused:
    """A rejection as an answer: its code is the problem's."""
    if code == "unknown-flow":
        return NotFound(reason, slug=code)
    return (Conflict if code in _CONFLICTS else Invalid)(reason, slug=code)


async def see_position(api: Api, wanted: str | None) -> None:
    """Waits until the read model is as new as `wanted`, when that is given."""
    if wanted is not None:
        await api.positions.reached(read_tokens(wanted, api.positions.partitions))


# -- flows ----------------------------------------------------------------------------------------------------------


async def ask_of_flow(request: Request, flow_id: str, verb: Verb) -> Response:
    """A flow started a moment ago may not be in the read model yet: it is waited for before it is called unknown."""
    api = api_of(request)
    asked = _asked(await request.body(), bodies.media_type(request), verb)
    flow = await api.ports.reads.ask(get_flow(flow_id))
    if flow is None and FLOW_ID.fullmatch(flow_id) is not None and await appears(api, flow_id):
        flow = await api.ports.reads.ask(get_flow(flow_id))
    if flow is None:
        raise unknown_flow(flow_id)
    if flow.ended_at is not None:
        raise Conflict(f"Expected a running flow but flow {flow_id} is {flow.status}", slug="flow-ended")
    command_id = command_id_of(request, flow_id, verb)
    position = await produce(api, request, flow_id, command_id, asked)
    accepted = Accepted(flow_id, flow.definition, command_id, position)
    return Response(msgspec.json.encode(accepted), 202, media_type=bodies.JSON)


def _asked(body: bytes, media_type: str, verb: Verb) -> m.CancelFlow | m.SuspendFlow | m.ResumeFlow:
    kind: type[CancelRequest | ReasonRequest] = CancelRequest if verb == "cancel" else ReasonRequest
    asked = bodies.json_body(body or b"{}", media_type, kind)
    if asked.reason is not None and len(asked.reason) > REASON_LENGTH_MAX:
        raise Invalid(
            f"Expected a reason of at most {REASON_LENGTH_MAX} characters but found {len(asked.reason)}",
            slug="invalid-body",
            problems=[{"message": "Expected a shorter reason", "pointer": "/reason"}],
        )
    match asked:
        case CancelRequest():
            return m.CancelFlow(asked.reason, asked.compensate)
        case _ if verb == "suspend":
            return m.SuspendFlow(asked.reason)
    return m.ResumeFlow(asked.reason)


async def appears(api: Api, flow_id: str) -> bool:
    """Whether the read model knows the flow, now or in a moment."""
    loop = asyncio.get_running_loop()
    end = loop.time() + _APPEAR_S
    while await api.starters.get(flow_id) is None:
        if loop.time() > end:
            return False
        await asyncio.sleep(_APPEAR_PAUSE_S)
    return True


def unknown_flow(flow_id: str) -> NotFound:
    return NotFound(
        f"Expected a flow but found none with id {flow_id[:200]!r}; one started a moment ago is seen with "
        "min_position=<position of its start>",
        slug="unknown-flow",
    )
