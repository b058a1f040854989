"""`call: a2a`: one request to an agent that speaks the Agent2Agent protocol.

Parameters and results have the protocol's JSON-RPC form of version 0.3, whose methods the specification names; what the
agent speaks (JSON-RPC or HTTP+JSON, 0.3 or 1.0) its card says, and the official SDK converts. An agent that is given by
`server` instead of a card is one of 0.3 over JSON-RPC. Credentials of the card's endpoint go to the agent only when it has
the card's origin. Every failure is a runtime error, as the specification wants it, but for time limits, wrong
configuration and what the operator does not allow. Invariant: no error tells what an agent wrote.
"""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, Final, cast
from urllib.parse import urlsplit

import httpx2
from a2a.client import Client, ClientConfig, ClientFactory
from a2a.client.card_resolver import parse_agent_card
from a2a.client.errors import A2AClientError
from a2a.compat.v0_3 import conversions
from a2a.compat.v0_3 import types as a2a
from a2a.types import a2a_pb2 as core
from a2a.utils.errors import JSON_RPC_ERROR_CODE_MAP, A2AError
from flowtrail.errors import TaskError
from google.protobuf.json_format import MessageToDict, ParseDict, ParseError  # type: ignore[import-untyped]
from pydantic import BaseModel, ValidationError

from engine.tasks import documents, problems
from engine.tasks.authentication import authorize
from engine.tasks.configured import configured
from engine.tasks.connections import check, failures, new_client
from engine.tasks.fetching import fetch
from engine.tasks.networks import Refused, origin
from engine.tasks.uris import INPUT, endpoint_of

_BINDINGS: Final = ["JSONRPC", "HTTP+JSON"]
_OLD: Final = "0.3"
_EXACT: Final = 2**53


@dataclass(frozen=True)
class _Method:
    """`request` checks the parameters, `outwards` makes the SDK's request of them, `send` performs it."""

    request: type[BaseModel]
    outwards: Callable[[Any], Any]
    send: Callable[[Client, Any], Awaitable[Any]]
    streams: bool = False


async def call(arguments: dict[str, Any]) -> Any:
    """The function `a2a`."""
    name = str(arguments.get("method", ""))
    if (method := _METHODS.get(name)) is None:
        raise problems.configuration(
            f"Expected a method of A2A ({', '.join(_METHODS)}) but found {name[:128]!r}"
        )
    request = _request(name, method, arguments.get("parameters"))
    card, policy = await _agent(arguments)
    interface = next((i for i in card.supported_interfaces if i.protocol_binding in _BINDINGS), None)
    if interface is None:
        raise problems.configuration(
            f"Expected an agent that speaks {' or '.join(_BINDINGS)} but its card names neither"
        )
    check(interface.url)
    authorization = await authorize(policy)
    headers = {"accept-encoding": "identity", "user-agent": "flowtrail"} | (
        {} if authorization is None else authorization.headers
    )
    auth = None if authorization is None else authorization.auth
    asked = f"{name} of {problems.place(interface.url)}"
    async with new_client(configured().http_response_bytes_max, headers=headers, auth=auth) as http:
        config = ClientConfig(
            streaming=method.streams,
            # httpx2 is httpx's successor: the same calls, exceptions of its own
            httpx_client=cast(Any, http),
            supported_protocol_bindings=_BINDINGS,
            accepted_output_modes=[],
        )
        try:
            return await method.send(ClientFactory(config).create(card), request)
        except Exception as problem:
            raise _error(problem, asked) from None


def _request(name: str, method: _Method, parameters: Any) -> Any:
    if parameters is not None and not isinstance(parameters, dict):
        raise problems.configuration(
            "Expected an object as parameters of an A2A call but found something else"
        )
    given = dict(parameters or {})
    if name.startswith("message/") and isinstance(message := given.get("message"), dict):
        given["message"] = {"messageId": str(uuid.uuid4()), "role": "user"} | message
    try:
        request = method.request.model_validate({"id": 0, "params": given})
        return method.outwards(request)
    except (ValidationError, ParseError, ValueError, TypeError) as problem:
        raise problems.configuration(
            f"Expected parameters of {name} as A2A {_OLD} has them but {_place_of(problem)}"
        ) from None


def _place_of(problem: Exception) -> str:
    """Where they are wrong; not what stands there, which may be confidential."""
    if isinstance(problem, ValidationError):
        first = problem.errors(include_url=False, include_input=False)[0]
        return f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
    return "they cannot be sent"


async def _agent(arguments: dict[str, Any]) -> tuple[core.AgentCard, Any]:
    """The agent's card, and the policy to authenticate by."""
    given = arguments.get(INPUT)
    given = given if isinstance(given, dict) else {}
    resource = arguments.get("agentCard")
    if resource is None:
        uri, policy = endpoint_of(arguments.get("server"), given)
        return _card_of(uri), policy
    endpoint = resource.get("endpoint") if isinstance(resource, dict) else None
    uri, policy = endpoint_of(endpoint, given)
    place = problems.place(uri)
    content = await fetch(endpoint, given=given)
    try:
        card = parse_agent_card(deepcopy(documents.parse(content, place)))  # it changes what it is given
    except (A2AError, A2AClientError, ParseError, ValueError, TypeError):
        raise problems.configuration(
            f"Expected an agent's card at {place} but found something else"
        ) from None
    urls = [interface.url for interface in card.supported_interfaces]
    ours = all(_same_origin(uri, url) for url in urls)
    return card, policy if ours else None


def _card_of(uri: str) -> core.AgentCard:
    return core.AgentCard(
        supported_interfaces=[
            core.AgentInterface(url=uri, protocol_binding="JSONRPC", protocol_version=_OLD)
        ],
        capabilities=core.AgentCapabilities(
            streaming=True, push_notifications=True, extended_agent_card=True
        ),
    )


def _same_origin(one: str, other: str) -> bool:
    try:
        return origin(urlsplit(one)) == origin(urlsplit(other))
    except ValueError:
        return False


def _error(problem: Exception, asked: str) -> Exception:
    match problem:
        case TaskError():
            return problem
        case Refused():
            return problems.authorization(str(problem))
        case httpx2.TimeoutException():
            return problems.timeout(f"Expected an answer to {asked} but there is none in time")
        case httpx2.HTTPStatusError():
            why = f"the status is {problem.response.status_code}"
        case A2AError() if type(problem) in JSON_RPC_ERROR_CODE_MAP:
            why = f"its error is {JSON_RPC_ERROR_CODE_MAP[type(problem)]} ({type(problem).__name__})"
        case NotImplementedError():
            why = "the agent's protocol or its card does not have the method"
        case A2AClientError():
            why = "the agent refused it"
        case httpx2.HTTPError():
            try:
                with failures(asked):
                    raise problem
            except TaskError as known:
                return problems.runtime(str(known.detail))
        case _:
            why = f"the agent gave something else ({type(problem).__name__})"
    return problems.runtime(f"Expected a result of {asked} but {why}")


# -- the methods --------------------------------------------------------------------------------------------------------


def _json(model: BaseModel) -> Any:
    return _whole(model.model_dump(by_alias=True, exclude_none=True, mode="json"))


def _whole(value: Any) -> Any:
    """The SDK keeps data and metadata in protobuf's Struct, which has no whole numbers: 3.0 was 3."""
    match value:
        case float() if value.is_integer() and abs(value) <= _EXACT:
            return int(value)
        case dict():
            return {name: _whole(member) for name, member in value.items()}
        case list():
            return [_whole(item) for item in value]
        case _:
            return value


async def _all(events: AsyncIterator[core.StreamResponse]) -> list[Any]:
    return [_json(conversions.to_compat_stream_response(event).result) async for event in events]


async def _send(client: Client, request: Any) -> Any:
    return (await _all(client.send_message(request)))[0]


async def _stream(client: Client, request: Any) -> Any:
    return await _all(client.send_message(request))


async def _subscribe(client: Client, request: Any) -> Any:
    return await _all(client.subscribe(request))


async def _get(client: Client, request: Any) -> Any:
    return _json(conversions.to_compat_task(await client.get_task(request)))


async def _cancel(client: Client, request: Any) -> Any:
    return _json(conversions.to_compat_task(await client.cancel_task(request)))


async def _list(client: Client, request: Any) -> Any:
    found = await client.list_tasks(request)
    told = MessageToDict(found, always_print_fields_with_no_presence=True)
    return {**told, "tasks": [_json(conversions.to_compat_task(task)) for task in found.tasks]}


async def _set_push(client: Client, request: Any) -> Any:
    found = await client.create_task_push_notification_config(request)
    return _json(conversions.to_compat_task_push_notification_config(found))


async def _get_push(client: Client, request: Any) -> Any:
    found = await client.get_task_push_notification_config(request)
    return _json(conversions.to_compat_task_push_notification_config(found))


async def _list_push(client: Client, request: Any) -> Any:
    found = await client.list_task_push_notification_configs(request)
    return [_json(conversions.to_compat_task_push_notification_config(one)) for one in found.configs]


async def _delete_push(client: Client, request: Any) -> Any:
    await client.delete_task_push_notification_config(request)


async def _extended_card(client: Client, request: Any) -> Any:
    card = await client.get_extended_agent_card(request)
    try:
        return _json(conversions.to_compat_agent_card(card))
    except A2AError:  # an agent of 1.0 alone has no card of 0.3
        return _whole(MessageToDict(card))


class _Listing(BaseModel):
    """0.3 over JSON-RPC has no such method: its parameters are those of 1.0."""

    params: dict[str, Any]


_METHODS: Final[dict[str, _Method]] = {
    "message/send": _Method(a2a.SendMessageRequest, conversions.to_core_send_message_request, _send),
    "message/stream": _Method(
        a2a.SendMessageRequest, conversions.to_core_send_message_request, _stream, streams=True
    ),
    "tasks/get": _Method(a2a.GetTaskRequest, conversions.to_core_get_task_request, _get),
    "tasks/list": _Method(_Listing, lambda asked: ParseDict(asked.params, core.ListTasksRequest()), _list),
    "tasks/cancel": _Method(a2a.CancelTaskRequest, conversions.to_core_cancel_task_request, _cancel),
    "tasks/resubscribe": _Method(
        a2a.TaskResubscriptionRequest, conversions.to_core_subscribe_to_task_request, _subscribe, streams=True
    ),
    "tasks/pushNotificationConfig/set": _Method(
        a2a.SetTaskPushNotificationConfigRequest,
        conversions.to_core_create_task_push_notification_config_request,
        _set_push,
    ),
    "tasks/pushNotificationConfig/get": _Method(
        a2a.GetTaskPushNotificationConfigRequest,
        conversions.to_core_get_task_push_notification_config_request,
        _get_push,
    ),
    "tasks/pushNotificationConfig/list": _Method(
        a2a.ListTaskPushNotificationConfigRequest,
        conversions.to_core_list_task_push_notification_config_request,
        _list_push,
    ),
    "tasks/pushNotificationConfig/delete": _Method(
        a2a.DeleteTaskPushNotificationConfigRequest,
        conversions.to_core_delete_task_push_notification_config_request,
        _delete_push,
    ),
    "agent/getAuthenticatedExtendedCard": _Method(
        a2a.GetAuthenticatedExtendedCardRequest,
        conversions.to_core_get_extended_agent_card_request,
        _extended_card,
    ),
}
