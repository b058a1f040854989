"""From an AsyncAPI document to where messages go: server, address and bindings of one channel or operation.

Versions 2.x (channels) and 3.x (operations). Which of the two sides of the document we are is the task's word: a message
is published, a subscription consumes. Pure; only references within the document are followed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from engine.tasks import problems
from engine.tasks.documents import resolved
from engine.tasks.uris import text_of

PROTOCOLS: Final = ("kafka", "kafka-secure", "http", "https")
"""Those that this installation speaks."""

_VARIABLE: Final = re.compile(r"\{([^{}]+)\}")
_CORRELATION: Final = re.compile(r"\$message\.(header|payload)#(/.*)")

Json = Mapping[str, Any]


@dataclass(frozen=True)
class Place:
    """`host` is host:port of the server (several with commas for Kafka), `path` what follows it in a URI."""

    protocol: str
    host: str
    path: str
    address: str
    channel: Json = field(default_factory=dict)
    operation: Json = field(default_factory=dict)
    schemes: frozenset[str] = frozenset()
    correlation: str = "$message.header#/correlationId"

    @property
    def secure(self) -> bool:
        return self.protocol in ("kafka-secure", "https")

    @property
    def is_kafka(self) -> bool:
        return self.protocol.startswith("kafka")

    def binding(self, owner: Json, name: str) -> Any:
        """The member `name` of what `owner` binds to this protocol; of a schema what it fixes."""
        bindings = owner.get("bindings")
        bound = bindings.get("kafka" if self.is_kafka else "http") if isinstance(bindings, dict) else None
        value = bound.get(name) if isinstance(bound, dict) else None
        if not isinstance(value, dict):
            return value
        options = value.get("enum")
        first = options[0] if isinstance(options, list) and options else None
        return value.get("const", value.get("default", first))


def place_of(document: Json, arguments: Json, uri: str) -> Place:
    """Where the call's messages go to or come from. Raises TaskError (configuration)."""
    version = str(document.get("asyncapi", ""))
    if version.startswith("3."):
        channel, operation, address = _operation(document, str(arguments.get("operation", "")))
    elif version.startswith("2."):
        channel, operation, address = _channel(document, arguments)
    else:
        raise problems.configuration(
            f"Expected an AsyncAPI document of version 2.x or 3.x at {problems.place(uri)} but its version is {version[:16]!r}"
        )
    if _VARIABLE.search(address):
        raise problems.configuration(f"Expected an address without parameters but found {address[:128]!r}")
    server = _server(document, channel, arguments)
    given = arguments.get("server")
    variables = given.get("variables") if isinstance(given, dict) else None
    host, path = _host(document, server, variables if isinstance(variables, dict) else {})
    return Place(
        protocol=str(server.get("protocol", "")).lower(),
        host=host,
        path=path,
        address=address,
        channel=channel,
        operation=operation,
        schemes=frozenset(_schemes(document, (*_list(server, "security"), *_list(operation, "security")))),
        correlation=_correlation(document, channel, operation),
    )


def _operation(document: Json, name: str) -> tuple[Json, Json, str]:
    operation = _member(document, document.get("operations"), name, "an operation")
    channel = resolved(document, operation.get("channel"))
    address = channel.get("address")
    if not isinstance(address, str):
        reference = operation["channel"].get("$ref", "") if isinstance(operation["channel"], dict) else ""
        address = reference.rpartition("/")[2].replace("~1", "/").replace("~0", "~")
    return channel, operation, address


def _channel(document: Json, arguments: Json) -> tuple[Json, Json, str]:
    """In version 2 `publish` is what others publish to the application: the operation for our message."""
    name = str(arguments.get("channel", ""))
    channel = _member(document, document.get("channels"), name, "a channel")
    kind = "publish" if "message" in arguments else "subscribe"
    operation = channel.get(kind)
    if not isinstance(operation, dict):
        raise problems.configuration(f"Expected channel {name[:128]!r} to have a {kind} but it has none")
    return channel, operation, name


def _server(document: Json, channel: Json, arguments: Json) -> Json:
    servers = document.get("servers")
    given = arguments.get("server")
    if isinstance(given, dict):
        return _member(document, servers, str(given.get("name", "")), "a server")
    wanted = str(arguments.get("protocol") or "")
    accepted = (wanted, f"{wanted}-secure", f"{wanted}s") if wanted else PROTOCOLS
    found = []
    for server in _servers(document, servers if isinstance(servers, dict) else {}, channel):
        protocol = str(server.get("protocol", "")).lower()
        if protocol in accepted and protocol in PROTOCOLS:
            return server
        found.append(protocol)
    wish = f"of protocol {wanted}" if wanted else f"of one of the protocols {', '.join(PROTOCOLS)}"
    raise problems.configuration(
        f"Expected a server {wish}, which this executor speaks, but found {', '.join(found) or 'none'}"
    )


def _servers(document: Json, servers: Json, channel: Json) -> Iterator[Json]:
    """Those of the channel, or all. Version 2 lists names, version 3 references."""
    of_channel = _list(channel, "servers")
    if not of_channel:
        yield from (resolved(document, server) for server in servers.values())
    for entry in of_channel:
        yield resolved(document, servers.get(entry) if isinstance(entry, str) else entry)


def _host(document: Json, server: Json, given: Json) -> tuple[str, str]:
    if str(server.get("protocol", "")).lower() not in PROTOCOLS:
        raise problems.configuration(
            f"Expected a server of one of the protocols {', '.join(PROTOCOLS)} but found {str(server.get('protocol'))[:32]!r}"
        )
    declared = server.get("variables")
    declared = declared if isinstance(declared, dict) else {}

    def one(found: re.Match[str]) -> str:
        name = found[1]
        variable = resolved(document, declared[name]) if name in declared else {}
        value = text_of(given[name]) if name in given else variable.get("default")
        options = _list(variable, "enum")
        if value is None or (options and value not in options):
            wish = f"one of {', '.join(map(str, options))}" if options else "a value"
            raise problems.configuration(
                f"Expected {wish} for the server's variable {name!r} but there is none"
            )
        return str(value)

    text = str(server.get("host") or server.get("url") or "") + str(server.get("pathname") or "")
    text = _VARIABLE.sub(one, text)
    host, slash, path = text.partition("://")[2].partition("/") if "://" in text else text.partition("/")
    if not host or "@" in host:
        raise problems.configuration("Expected the AsyncAPI server to have a host but it has none")
    return host, f"{slash}{path}".rstrip("/")


def _schemes(document: Json, entries: tuple[Any, ...]) -> Iterator[str]:
    """The types of the security schemes in `entries`: references or schemes (3), or `{name: [...]}` (2)."""
    components = document.get("components")
    declared = components.get("securitySchemes") if isinstance(components, dict) else None
    for entry in entries:
        if not isinstance(entry, dict):
            continue
        if "$ref" in entry or "type" in entry:
            yield str(resolved(document, entry).get("type", ""))
        else:
            for name in entry:
                scheme = declared.get(name) if isinstance(declared, dict) else None
                yield str(scheme.get("type", "")) if isinstance(scheme, dict) else ""


def _correlation(document: Json, channel: Json, operation: Json) -> str:
    """Where messages have their correlation id, as the first message that says it does."""
    own = operation.get("message")  # version 2: a message or {oneOf: [...]}
    messages = own.get("oneOf", [own]) if isinstance(own, dict) else _list(operation, "messages")
    of_channel = channel.get("messages")
    messages = [*messages, *(of_channel.values() if isinstance(of_channel, dict) else ())]
    for message in messages:
        found = resolved(document, message).get("correlationId") if isinstance(message, dict) else None
        location = resolved(document, found).get("location") if isinstance(found, dict) else None
        if isinstance(location, str) and _CORRELATION.fullmatch(location):
            return location
    return Place.correlation


def correlation_of(location: str, headers: Json, payload: Any) -> str | None:
    """The correlation id of a message."""
    found = _CORRELATION.fullmatch(location)
    if found is None:
        return None
    value: Any = headers if found[1] == "header" else payload
    for part in found[2][1:].split("/"):
        name = part.replace("~1", "/").replace("~0", "~")
        value = value.get(name) if isinstance(value, dict) else None
    return None if value is None or isinstance(value, dict | list) else text_of(value)


def _member(document: Json, owner: Any, name: str, wish: str) -> Json:
    if not isinstance(owner, dict) or name not in owner:
        known = ", ".join(map(str, owner))[:512] if isinstance(owner, dict) else ""
        raise problems.configuration(
            f"Expected {wish} of the AsyncAPI document ({known or 'it has none'}) but found {name[:128]!r}"
        )
    return resolved(document, owner[name])


def _list(owner: Json, name: str) -> list[Any]:
    value = owner.get(name)
    return value if isinstance(value, list) else []
