"""The arguments of the functions every runtime has: http, openapi, grpc, asyncapi, mcp, a2a, and of run's processes.

One shape each, and the places where an authentication may stand in it. What a worker gets is this object evaluated;
nothing is renamed or defaulted here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Final

from engine.dsl.checks import Checks, described
from engine.dsl.model import Json
from engine.dsl.shapes import (
    URI,
    Shape,
    anything,
    boolean,
    both,
    duration,
    exactly_one,
    is_expression,
    listing,
    mapping,
    one_of,
    open_record,
    record,
    scalar,
    text,
    text_or,
    whole,
)

BUILTIN: Final = ("http", "openapi", "grpc", "asyncapi", "mcp", "a2a")
PROCESSES: Final = ("container", "script", "shell")
TEMPLATED: Final = re.compile(r"\{([^{}]*)\}")

_HOST: Final = re.compile(r"[a-zA-Z0-9](?:[a-zA-Z0-9.-]{0,253}[a-zA-Z0-9])?")
_URI_TEXT: Final = text("a URI with a scheme, or an expression", URI)
_ENDPOINT_OBJECT: Final = record(("uri",), uri=_URI_TEXT, authentication=anything)


def endpoint(checks: Checks, value: Json, pointer: str) -> None:
    """A URI template, an expression, or `{uri, authentication}`."""
    if isinstance(value, str):
        _URI_TEXT(checks, value, pointer)
    elif isinstance(value, dict):
        _ENDPOINT_OBJECT(checks, value, pointer)
    else:
        checks.expected("an endpoint (a URI, an expression or an object)", described(value), pointer)


_RESOURCE: Final = record(("endpoint",), name=text(), endpoint=endpoint)
_OUTPUT: Final = one_of("raw", "content", "response")
_PROTOCOLS_ASYNC: Final = (
    "amqp",
    "amqp1",
    "anypointmq",
    "googlepubsub",
    "http",
    "ibmmq",
    "jms",
    "kafka",
    "mercure",
    "mqtt",
    "mqtt5",
    "nats",
    "pulsar",
    "redis",
    "sns",
    "solace",
    "sqs",
    "stomp",
    "ws",
)
_A2A: Final = (
    "message/send",
    "message/stream",
    "tasks/get",
    "tasks/list",
    "tasks/cancel",
    "tasks/resubscribe",
    "tasks/pushNotificationConfig/set",
    "tasks/pushNotificationConfig/get",
    "tasks/pushNotificationConfig/list",
    "tasks/pushNotificationConfig/delete",
    "agent/getAuthenticatedExtendedCard",
)
_MCP: Final = (
    "tools/list",
    "tools/call",
    "prompts/list",
    "prompts/get",
    "resources/list",
    "resources/read",
    "resources/templates/list",
)
_CONSUME: Final = both(
    open_record(
        {
            "amount": whole(1, 1_000_000),
            "for": duration,
            "while": text("an expression"),
            "until": text("an expression"),
        }
    ),
    exactly_one(("amount", "while", "until")),
)
_SUBSCRIPTION: Final = record(("consume",), filter=text("an expression"), consume=_CONSUME, foreach=anything)
_TRANSPORT: Final = both(
    record(
        http=record(("endpoint",), endpoint=endpoint, headers=mapping(scalar)),
        stdio=record(("command",), command=text(), arguments=listing(scalar), environment=mapping(scalar)),
        options=mapping(scalar),
    ),
    exactly_one(("http", "stdio")),
)


def _agent(checks: Checks, value: Json, pointer: str) -> None:
    if isinstance(value, dict) and not {"agentCard", "server"} & set(value):
        checks.expected("agentCard or server", "none of them", pointer)


ARGUMENTS: Final[Mapping[str, Shape]] = {
    "http": record(
        ("method", "endpoint"),
        method=text(),
        endpoint=endpoint,
        headers=mapping(scalar),
        body=anything,
        query=mapping(),
        output=_OUTPUT,
        redirect=boolean,
    ),
    "openapi": record(
        ("document", "operationId"),
        document=_RESOURCE,
        operationId=text(),
        parameters=mapping(),
        authentication=anything,
        output=_OUTPUT,
        redirect=boolean,
    ),
    "grpc": record(
        ("proto", "service", "method"),
        proto=_RESOURCE,
        service=record(
            ("name", "host"),
            name=text(),
            host=text("a host name", _HOST),
            port=whole(0, 65535),
            authentication=anything,
        ),
        method=text(),
        arguments=mapping(),
    ),
    "asyncapi": both(
        record(
            ("document",),
            document=_RESOURCE,
            channel=text(),
            operation=text(),
            server=record(("name",), name=text(), variables=mapping()),
            protocol=one_of(*_PROTOCOLS_ASYNC),
            message=record(payload=anything, headers=mapping()),
            subscription=_SUBSCRIPTION,
            authentication=anything,
        ),
        exactly_one(("operation", "channel"), ("message", "subscription")),
    ),
    "mcp": record(
        ("method", "transport"),
        protocolVersion=text(),
        method=one_of(*_MCP),
        parameters=text_or(mapping()),
        timeout=duration,
        transport=_TRANSPORT,
        client=record(("name", "version"), name=text(), version=text()),
    ),
    "a2a": both(
        record(
            ("method",),
            method=one_of(*_A2A),
            agentCard=_RESOURCE,
            server=endpoint,
            parameters=text_or(mapping()),
        ),
        _agent,
    ),
}

_AUTHENTICATED: Final = (
    ("authentication",),
    ("endpoint", "authentication"),
    ("document", "endpoint", "authentication"),
    ("proto", "endpoint", "authentication"),
    ("service", "authentication"),
    ("agentCard", "endpoint", "authentication"),
    ("server", "authentication"),
    ("transport", "http", "endpoint", "authentication"),
    ("source", "endpoint", "authentication"),
)
_ENDPOINTS: Final = (
    ("endpoint",),
    ("document", "endpoint"),
    ("proto", "endpoint"),
    ("agentCard", "endpoint"),
    ("server",),
    ("transport", "http", "endpoint"),
    ("source", "endpoint"),
)


def authentications(arguments: Json) -> Iterator[tuple[tuple[str, ...], Json]]:
    """The paths at which `arguments` have an authentication, and what stands there."""
    for path in _AUTHENTICATED:
        node = arguments
        for step in path:
            node = node.get(step) if isinstance(node, dict) else None
        if node is not None:
            yield path, node


def template_names(arguments: Json) -> tuple[str, ...]:
    """The names that the URI templates of `arguments` expand."""
    names: dict[str, None] = {}
    for path in _ENDPOINTS:
        node = arguments
        for step in path:
            node = node.get(step) if isinstance(node, dict) else None
        uri = node.get("uri") if isinstance(node, dict) else node
        if isinstance(uri, str) and not is_expression(uri):
            names |= dict.fromkeys(TEMPLATED.findall(uri))
    return tuple(names)


def replaced(value: Json, path: tuple[str, ...], by: Json) -> Json:
    """A copy of `value` with `by` at `path`; what lies beside the path is shared."""
    if not path:
        return by
    return {**value, path[0]: replaced(value[path[0]], path[1:], by)}


# -- processes ----------------------------------------------------------------------------------------------------


def _arguments(checks: Checks, value: Json, pointer: str) -> None:
    """A list of arguments, or a mapping of names to them."""
    (mapping() if isinstance(value, dict) else listing(scalar))(checks, value, pointer)


def _lifetime(checks: Checks, value: Json, pointer: str) -> None:
    if not isinstance(value, dict):
        return
    eventually = value.get("cleanup") == "eventually"
    if eventually and "after" not in value:
        checks.missing("after", pointer)
    elif not eventually and "after" in value:
        checks.expected("'after' only with the cleanup eventually", "another cleanup", pointer)


_SCRIPT: Final = both(
    record(
        ("language",),
        language=one_of("js", "javascript", "python"),
        code=text(),
        source=_RESOURCE,
        stdin=text(),
        arguments=_arguments,
        environment=mapping(scalar),
    ),
    exactly_one(("code", "source")),
)
RUNS: Final[Mapping[str, Shape]] = {
    "container": record(
        ("image",),
        image=text(),
        name=text(),
        command=text(),
        ports=mapping(),
        volumes=mapping(),
        environment=mapping(scalar),
        stdin=text(),
        arguments=listing(scalar),
        lifetime=both(
            record(("cleanup",), cleanup=one_of("always", "never", "eventually"), after=duration),
            _lifetime,
        ),
        pullPolicy=one_of("ifNotPresent", "always", "never"),
    ),
    "script": _SCRIPT,
    "shell": record(
        ("command",),
        command=text(),
        stdin=text(),
        arguments=_arguments,
        environment=mapping(scalar),
    ),
}
RETURNS: Final = ("stdout", "stderr", "code", "all", "none")
