"""`POST /flows`: the request that becomes a StartFlow.

A start answers when the broker has the command; the engine decides it later. With an Idempotency-Key the flow's and
the command's ids are functions of that key, so that every repetition, after whatever crash, asks for the same flow
once: the engine takes a command id once, and the kept claim tells another request under the same key.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from api import bodies
from api.commanding import Accepted, appears, new_id, produce
from api.errors import Conflict, Invalid, TooLarge
from api.ports import Claim, Outcome
from api.positions import token
from api.wiring import Api, api_of, caller_of
from engine.core.decide import FLOW_ID, PAYLOAD_BYTES_MAX
from engine.dsl.model import Definition
from engine.errors import AwayError
from engine.runtime.topics import partition_of
from projections.queries import get_flow
from schemas import messages as m

WAIT_DEFAULT_S: Final = 30.0
WAIT_MAX_S: Final = 60.0
_KEY_LENGTH_MAX: Final = 255


class StartRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`definition` is namespace/name (its newest version) or namespace/name@version; `input` any JSON value."""

    definition: str
    input: msgspec.Raw = msgspec.field(default_factory=lambda: msgspec.Raw(b"{}"))
    id: str | None = None


@dataclass(frozen=True, slots=True)
class _Ids:
    flow: str
    command: str


# -- start ----------------------------------------------------------------------------------------------------------


async def start_flow(request: Request) -> Response:
    bodies.refuse_unknown(request, ("wait", "timeout"))
    waits = wait_of(request)
    api = api_of(request)
    body = await request.body()
    asked = bodies.json_body(body, bodies.media_type(request), StartRequest)
    data = bytes(asked.input)
    check_id(asked.id)
    definition = await resolve(api, asked.definition)
    check_input(definition, data)
    ids, fresh, repeated = await _ids(api, request, asked, body)
    if repeated is not None:
        accepted = repeated
    else:
        accepted = await _start(api, request, definition, ids, data)
        if not fresh and await appears(api, ids.flow):
            accepted = await _running(
                api, ids
            )  # a command done before has no consequences: its position never comes
    if waits is not None and (done := await _wait(api, accepted, waits)) is not None:
        return done
    headers = {"Location": f"/flows/{quote(accepted.id, safe=':')}"}
    return Response(msgspec.json.encode(accepted), 202, media_type=bodies.JSON, headers=headers)


def wait_of(request: Request) -> float | None:
    """How long the caller wants to wait for the flow's end, None when it does not."""
    timeout = bodies.number(request, "timeout", WAIT_DEFAULT_S, 0, WAIT_MAX_S)
    match request.query_params.get("wait"):
        case None:
            return None
        case "completed":
            return timeout
        case other:
            raise Invalid(f"Expected wait=completed but found wait={other[:100]}", slug="invalid-parameter")


async def resolve(api: Api, reference: str) -> Definition:
    """The definition a start names. One published a moment ago, by whichever process, is found."""
    found = api.ports.definitions.find(reference)
    if found is None:
        caught_up = await api.catching_up.get(None)
        found = api.ports.definitions.find(reference)
        if found is None and not caught_up:
            raise AwayError("Expected to have read every definition but Kafka does not answer")
    if found is None:
        raise Invalid(
            f"Expected a published definition but found {reference[:200]!r}", slug="unknown-definition"
        )
    return found


def check_id(flow_id: str | None) -> None:
    if flow_id is not None and FLOW_ID.fullmatch(flow_id) is None:
        raise Invalid(
            "Expected a flow id that begins with a letter or digit and has at most 128 of A-Z a-z 0-9 . _ : - "
            f"but found {flow_id[:200]!r}",
            slug="invalid-body",
            problems=[{"message": "Expected a flow id", "pointer": "/id"}],
        )


def check_input(definition: Definition, data: bytes) -> None:
    if len(data) > PAYLOAD_BYTES_MAX:
        raise TooLarge(
            f"Expected an input of at most {PAYLOAD_BYTES_MAX} bytes but found {len(data)}",
            slug="payload-too-large",
        )
    value = bodies.check_json(data, "a JSON input")
    schema = definition.input.schema
    if schema is not None and (problem := schema.problem(value)) is not None:
        raise Invalid(
            f"Expected an input that {definition.id} accepts but: {problem}",
            slug="invalid-input",
            problems=[{"message": problem, "pointer": "/input"}],
        )


async def _ids(
    api: Api, request: Request, asked: StartRequest, body: bytes
) -> tuple[_Ids, bool, Accepted | None]:
    """The ids of this start, whether it comes for the first time; and what to answer when the flow runs already because
    the request is a repetition."""
    key = request.headers.get("idempotency-key")
    fresh = True
    if key is None:
        ids = _Ids(asked.id or new_id(), new_id())
    else:
        if not 1 <= len(key) <= _KEY_LENGTH_MAX or not key.isprintable():
            raise Invalid(
                f"Expected an Idempotency-Key of 1 to {_KEY_LENGTH_MAX} printable characters but found {key[:100]!r}",
                slug="invalid-parameter",
            )
        ids, fresh = await _claimed(api, caller_of(request).id, key, asked.id, body)
    if fresh and asked.id is None:
        return ids, True, None  # nobody can have started it
    starter = await api.starters.get(ids.flow)
    if starter is None:
        return ids, fresh, None
    if starter != ids.command:
        raise Conflict(f"Expected a flow id not in use but flow {ids.flow} exists", slug="flow-exists")
    return ids, fresh, await _running(api, ids)


async def _claimed(api: Api, key_id: str, key: str, flow_id: str | None, body: bytes) -> tuple[_Ids, bool]:
    derived = hashlib.sha256(f"{key_id}\0{key}".encode()).hexdigest()[:32]
    wanted = Claim(key_id, key, hashlib.sha256(body).digest(), flow_id or derived, f"{derived}-start")
    kept = await api.claims.get(wanted)
    assert kept is not None
    if kept.request_hash != wanted.request_hash:
        raise Invalid(
            "Expected the same request under the same Idempotency-Key but its body differs from the first",
            slug="idempotency-key-reused",
        )
    return _Ids(kept.flow_id, kept.command_id), kept.fresh


async def _running(api: Api, ids: _Ids) -> Accepted:
    """The first answer again. The read model knows the flow, so its present position is late enough."""
    flow = await api.ports.reads.ask(get_flow(ids.flow))
    assert flow is not None
    position = (await api.positions.now()).get(flow.partition, 0)
    return Accepted(ids.flow, flow.definition, ids.command, token(flow.partition, max(position, 0)))


async def _start(api: Api, request: Request, definition: Definition, ids: _Ids, data: bytes) -> Accepted:
    body = m.StartFlow(definition=definition.id, input=data)
    position = await produce(api, request, ids.flow, ids.command, body)
    return Accepted(ids.flow, definition.id, ids.command, position)


async def _wait(api: Api, accepted: Accepted, timeout_s: float) -> Response | None:
    """The ended flow, or None when the time is over. Raises Conflict or Invalid when the engine refused the start."""
    outcome = await api.waiters.ended(accepted.id, accepted.command_id, timeout_s)
    if outcome is None:
        return None
    if outcome.code is not None:
        raise refusal_of(outcome)
    flow = await api.ports.reads.ask(get_flow(accepted.id))
    headers = await api.positions.header(partition_of(accepted.id, api.positions.partitions))
    return Response(msgspec.json.encode(flow), 200, media_type=bodies.JSON, headers=headers)


def refusal_of(outcome: Outcome) -> Conflict | Invalid:
    text = outcome.reason or "Expected the engine to take the command but it refused it"
    if outcome.code == "flow-exists":
        return Conflict(text, slug="flow-exists")
    return Invalid(text, slug=outcome.code)
