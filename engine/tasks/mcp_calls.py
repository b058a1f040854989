"""`call: mcp`: one request to a Model Context Protocol server, over streamable HTTP or to a command's standard streams.

Each call is a session of its own: initialize, the request, the end. The result is the JSON-RPC result as the server gave
it; a tool that reports a failure in its result is no failure of the call. Every failure is a runtime error, as the
specification wants it, but for time limits and what the operator does not allow. A command runs within the limits of
run.shell, with its own environment. Invariant: no error tells what a server wrote.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import tempfile
import time
from collections.abc import AsyncIterator
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import mcp.types as types
from flowtrail.errors import TaskError
from mcp import ClientSession, MCPError, StdioServerParameters, stdio_client
from mcp.client.streamable_http import streamable_http_client
from pydantic import TypeAdapter, ValidationError

from engine.dsl import durations
from engine.dsl.errors import ExpressionError
from engine.tasks import problems
from engine.tasks.authentication import authorize
from engine.tasks.configured import configured
from engine.tasks.connections import check, new_client
from engine.tasks.networks import Refused
from engine.tasks.process_arguments import argv, environment_of, text
from engine.tasks.processes import guarded
from engine.tasks.uris import INPUT, endpoint_of, text_of

PROTOCOL: Final = "2025-06-18"
"""The version of the protocol unless a call names another one."""

_RESULT: Final = TypeAdapter(dict[str, Any])
_NAME: Final = "flowtrail"


class _Request(types.Request[Any, Any]):
    """A request whose parameters are passed on as they are."""


async def call(arguments: dict[str, Any]) -> Any:
    """The function `mcp`."""
    method = str(arguments.get("method", ""))
    parameters = arguments.get("parameters")
    if parameters is not None and not isinstance(parameters, dict):
        raise problems.configuration(
            "Expected an object as parameters of an MCP call but found something else"
        )
    info = _client(arguments)
    seconds = _seconds(arguments.get("timeout"))
    if _is_command(arguments):
        seconds = min(seconds, configured().run_wall_s)
    try:
        async with asyncio.timeout(seconds), _session(arguments, info) as session:
            await _initialize(session, info, str(arguments.get("protocolVersion") or PROTOCOL))
            return await session.send_request(_Request(method=method, params=parameters), _RESULT)
    except TimeoutError:
        raise problems.timeout(
            f"Expected an answer to {method} within {seconds:g} s but there is none"
        ) from None
    except Exception as problem:
        raise _error(problem, method) from None


def _client(arguments: dict[str, Any]) -> types.Implementation:
    client = arguments.get("client")
    client = client if isinstance(client, dict) else {}
    return types.Implementation(
        name=str(client.get("name") or _NAME),
        version=str(client.get("version") or version("flowtrail-server")),
    )


def _is_command(arguments: dict[str, Any]) -> bool:
    transport = arguments.get("transport")
    return isinstance(transport, dict) and isinstance(transport.get("stdio"), dict)


@contextlib.asynccontextmanager
async def _session(arguments: dict[str, Any], info: types.Implementation) -> AsyncIterator[ClientSession]:
    transport = arguments.get("transport")
    transport = transport if isinstance(transport, dict) else {}
    async with contextlib.AsyncExitStack() as stack:
        if _is_command(arguments):
            streams = await stack.enter_async_context(_command(transport["stdio"]))
        else:
            given = arguments.get(INPUT)
            http = transport.get("http")
            streams = await stack.enter_async_context(
                _http(http if isinstance(http, dict) else {}, given if isinstance(given, dict) else {})
            )
        read, write = streams
        yield await stack.enter_async_context(ClientSession(read, write, client_info=info))


@contextlib.asynccontextmanager
async def _http(transport: dict[str, Any], given: dict[str, Any]) -> AsyncIterator[Any]:
    uri, policy = endpoint_of(transport.get("endpoint"), given)
    check(uri)
    authorization = await authorize(policy)
    headers = {"accept-encoding": "identity", "user-agent": _NAME}
    if authorization is not None:
        headers |= authorization.headers
    own = transport.get("headers")
    headers |= {
        str(name).lower(): text_of(value) for name, value in (own if isinstance(own, dict) else {}).items()
    }
    most = configured().http_response_bytes_max
    auth = None if authorization is None else authorization.auth
    async with (
        new_client(most, headers=headers, auth=auth) as client,
        streamable_http_client(uri, http_client=client, max_sse_event_size=most) as streams,
    ):
        yield streams


@contextlib.asynccontextmanager
async def _command(transport: dict[str, Any]) -> AsyncIterator[Any]:
    settings = configured()
    if not settings.mcp_stdio:
        raise problems.configuration(
            "Expected MCP servers as commands to be enabled by FLOWTRAIL_MCP_STDIO but they are not on this executor"
        )
    command = [text(transport, "command"), *argv(transport.get("arguments"))]
    first, *rest = guarded(command, "data", settings.run_output_bytes_max)
    with (
        tempfile.TemporaryDirectory(prefix="flowtrail-mcp-", ignore_cleanup_errors=True) as folder,
        Path(os.devnull).open("w", encoding="utf-8") as nowhere,  # noqa: ASYNC230 - it opens at once
    ):
        server = StdioServerParameters(
            command=first,
            args=rest,
            env=environment_of(transport.get("environment")),
            cwd=folder,
        )
        async with stdio_client(server, nowhere) as streams:
            yield streams


async def _initialize(session: ClientSession, info: types.Implementation, protocol: str) -> None:
    """As the session's own, with the version that the call asks for."""
    params = types.InitializeRequestParams(
        protocol_version=protocol, capabilities=types.ClientCapabilities(), client_info=info
    )
    answer = await session.send_request(types.InitializeRequest(params=params), types.InitializeResult)
    session.adopt(answer)
    await session.send_notification(types.InitializedNotification())


def _seconds(duration: Any) -> float:
    if duration is None:
        settings = configured()
        return settings.http_connect_s + settings.http_read_s
    now = int(time.time() * 1e6)
    try:
        return (durations.due(duration, now) - now) / 1e6
    except ExpressionError as problem:
        raise problems.configuration(str(problem)) from None


def _error(problem: Exception, method: str) -> Exception:
    """What the flow gets for `problem`, which may be a group's only reason."""
    while isinstance(problem, ExceptionGroup):
        problem = problem.exceptions[0]
    match problem:
        case TaskError():
            return problem
        case Refused():
            return problems.authorization(str(problem))
        case TimeoutError():
            return problems.timeout(f"Expected an answer to {method} but there is none in time")
        case MCPError():
            why = f"its error is {problem.code}"
        case ValidationError():
            why = "the server gave something else"
        case _:
            why = type(problem).__name__
    return problems.runtime(f"Expected a result of {method} of the MCP server but {why}")
