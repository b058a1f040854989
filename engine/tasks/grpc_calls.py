"""`call: grpc`: one method of a service that a .proto file describes.

The arguments are the request message in protobuf's JSON form, the result is the answer in the same form with every field,
set or not; a method that streams its answers gives their list. A method that streams its requests gets one. TLS is spoken
on port 443, which is the default, and where a rewrite rule (https://host:port) leads; elsewhere plain text. Invariant: no
error tells what a message or the server's own text holds.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Final
from urllib.parse import urlsplit

import grpc  # type: ignore[import-untyped]
import httpcore2
from google.protobuf import json_format, message_factory  # type: ignore[import-untyped]
from google.protobuf.descriptor import MethodDescriptor  # type: ignore[import-untyped]
from google.protobuf.message import DecodeError, Message  # type: ignore[import-untyped]

from engine.tasks import problems
from engine.tasks.authentication import authorize
from engine.tasks.configured import configured
from engine.tasks.networks import PORTS, Refused, origin, public_address, rewritten, rules
from engine.tasks.protos import service_of
from engine.tasks.uris import INPUT

_STATUSES: Final = {
    grpc.StatusCode.CANCELLED: 499,
    grpc.StatusCode.INVALID_ARGUMENT: 400,
    grpc.StatusCode.NOT_FOUND: 404,
    grpc.StatusCode.ALREADY_EXISTS: 409,
    grpc.StatusCode.PERMISSION_DENIED: 403,
    grpc.StatusCode.RESOURCE_EXHAUSTED: 429,
    grpc.StatusCode.FAILED_PRECONDITION: 400,
    grpc.StatusCode.ABORTED: 409,
    grpc.StatusCode.OUT_OF_RANGE: 400,
    grpc.StatusCode.UNIMPLEMENTED: 501,
    grpc.StatusCode.UNAVAILABLE: problems.UNAVAILABLE,
    grpc.StatusCode.UNAUTHENTICATED: 401,
}
"""gRPC's statuses as HTTP tells them; the others are 500."""


async def call(arguments: dict[str, Any]) -> Any:
    """The function `grpc`."""
    service = arguments.get("service")
    service = service if isinstance(service, dict) else {}
    name, host = str(service.get("name", "")), str(service.get("host", ""))
    given = arguments.get(INPUT)
    described = await service_of(arguments.get("proto"), name, given if isinstance(given, dict) else {})
    method = described.methods_by_name.get(str(arguments.get("method", "")))
    if method is None:
        known = ", ".join(described.methods_by_name)
        raise problems.configuration(
            f"Expected a method of {described.full_name} ({known}) but found {str(arguments.get('method'))[:128]!r}"
        )
    request = _request(method, arguments.get("arguments"))
    metadata = await _metadata(service.get("authentication"))
    target, options, secure = await _target(host, service.get("port"))
    asked = f"{described.full_name}/{method.name} of {host}"
    channel = (
        grpc.aio.secure_channel(target, grpc.ssl_channel_credentials(), options)
        if secure
        else grpc.aio.insecure_channel(target, options)
    )
    async with channel:
        try:
            return await _perform(channel, method, request, metadata)
        except grpc.aio.AioRpcError as problem:
            raise _error(problem.code(), asked) from None
        except TimeoutError:
            raise _error(grpc.StatusCode.DEADLINE_EXCEEDED, asked) from None


def _request(method: MethodDescriptor, arguments: Any) -> Message:
    request = message_factory.GetMessageClass(method.input_type)()
    given = arguments if isinstance(arguments, dict) else {}
    try:
        json_format.ParseDict(given, request, descriptor_pool=method.containing_service.file.pool)
    except (json_format.ParseError, TypeError, ValueError) as problem:
        field = str(problem).partition(":")[0][:128]
        raise problems.configuration(
            f"Expected arguments in the JSON form of {method.input_type.full_name} but {field[:1].lower()}{field[1:]}"
        ) from None
    if missing := request.FindInitializationErrors():
        raise problems.configuration(
            f"Expected {', '.join(missing)[:256]} of {method.input_type.full_name} but nothing is given"
        )
    return request


async def _metadata(policy: Any) -> list[tuple[str, str]]:
    authorization = await authorize(policy)
    if authorization is None:
        return []
    if authorization.auth is not None:
        raise problems.configuration("Expected an authentication that gRPC can carry but found digest")
    if not all(value.isascii() and value.isprintable() for value in authorization.headers.values()):
        raise problems.configuration("Expected an authentication of plain text but it has other characters")
    return list(authorization.headers.items())


async def _target(host: str, port: Any) -> tuple[str, list[tuple[str, Any]], bool]:
    """Where to connect to, the channel's options, whether TLS is spoken."""
    settings = configured()
    try:
        number = int(port) if port else PORTS["https"]
        scheme = "https" if number == PORTS["https"] else "http"
        asked = f"{scheme}://{host}:{number}"
        place = urlsplit(rewritten(asked, settings.http_rewrite))
        scheme, host, number = origin(place)
    except (ValueError, TypeError):
        host = ""
    if not host:
        raise problems.configuration("Expected a host and a port of a gRPC service but found something else")
    options: list[tuple[str, Any]] = [
        ("grpc.max_receive_message_length", settings.http_response_bytes_max),
        ("grpc.enable_http_proxy", 0),
        ("grpc.enable_retries", 0),
        ("grpc.use_local_subchannel_pool", 1),
    ]
    address = host
    allowed = {origin(urlsplit(target))[1:] for _, target in rules(settings.http_rewrite)}
    if settings.http_private_networks == "deny" and (host, number) not in allowed:
        try:
            address = await public_address(host, number)
        except Refused as problem:
            raise problems.authorization(str(problem)) from None
        except httpcore2.ConnectError:
            raise problems.communication(
                f"Expected an address of {host} but there is none", problems.UNAVAILABLE
            ) from None
        options.append(("grpc.default_authority", f"{host}:{number}"))
        if scheme == "https":
            options.append(("grpc.ssl_target_name_override", host))
    address = f"[{address}]" if ":" in address else address
    return f"dns:///{address}:{number}", options, scheme == "https"


async def _perform(
    channel: grpc.aio.Channel, method: MethodDescriptor, request: Message, metadata: Sequence[tuple[str, str]]
) -> Any:
    settings = configured()
    time_s = settings.http_connect_s + settings.http_read_s
    path = f"/{method.containing_service.full_name}/{method.name}"
    several = (method.client_streaming, method.server_streaming)
    make = {
        (False, False): channel.unary_unary,
        (False, True): channel.unary_stream,
        (True, False): channel.stream_unary,
        (True, True): channel.stream_stream,
    }[several]
    function = make(path, request_serializer=lambda message: message.SerializeToString())
    sent: Any = iter((request,)) if method.client_streaming else request
    if not method.server_streaming:
        return _json(method, await function(sent, timeout=time_s, metadata=metadata))
    found: list[Any] = []
    size = 0
    stream = function(sent, metadata=metadata)
    try:
        while (message := await asyncio.wait_for(stream.read(), time_s)) is not grpc.aio.EOF:
            size += len(message)
            if size > settings.http_response_bytes_max:
                raise problems.communication(
                    f"Expected answers of at most {settings.http_response_bytes_max} bytes but they are larger"
                )
            found.append(_json(method, message))
    finally:
        stream.cancel()
    return found


def _json(method: MethodDescriptor, content: bytes) -> Any:
    """The answer in `content`. An Any within it must be of a type that the proto files have."""
    try:
        message = message_factory.GetMessageClass(method.output_type).FromString(content)
        return json_format.MessageToDict(
            message,
            always_print_fields_with_no_presence=True,
            descriptor_pool=method.containing_service.file.pool,
        )
    except (DecodeError, json_format.Error, TypeError, ValueError):
        raise problems.communication(
            f"Expected a {method.output_type.full_name} that JSON can tell but the answer is none"
        ) from None


def _error(code: grpc.StatusCode, asked: str) -> Exception:
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return problems.timeout(f"Expected an answer of {asked} in time but there is none")
    return problems.communication(
        f"Expected an answer of {asked} but its status is {code.name}", _STATUSES.get(code, 500)
    )
