"""OpenAPI documents: read from JSON or YAML, references followed, one operation found and where its servers are.

Versions 2.0 and 3.x. Only references within the document are followed. What is read is kept parsed, by its content.
Pure but for that memory; fetching is the caller's.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urljoin, urlsplit

import yaml

from engine.tasks import problems

METHODS: Final = ("get", "put", "post", "delete", "options", "head", "patch", "trace", "query")
KEPT: Final = 16
_REFERENCES_MAX: Final = 32
_DEPTH_MAX: Final = 200
_LOADER: Final = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

_parsed: Final[OrderedDict[bytes, dict[str, Any]]] = OrderedDict()


@dataclass(frozen=True)
class Operation:
    """One operation; `parameters` are those of its path and its own, references followed."""

    document: Mapping[str, Any]
    method: str
    path: str
    item: Mapping[str, Any]
    content: Mapping[str, Any]
    parameters: tuple[Mapping[str, Any], ...]

    @property
    def old(self) -> bool:
        """Whether the document's version is 2.0."""
        return "swagger" in self.document


def parse(content: bytes, place: str) -> dict[str, Any]:
    """The document in `content`. Raises TaskError (configuration) that names `place`."""
    key = hashlib.sha256(content).digest()
    if key in _parsed:
        _parsed.move_to_end(key)
        return _parsed[key]
    try:
        _check_size(content)
        found = yaml.load(content, Loader=_LOADER)  # noqa: S506 - a safe loader; JSON is YAML
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError, ValueError):
        found = None
    if not isinstance(found, dict):
        raise problems.configuration(
            f"Expected JSON or YAML of an object at {place} but found something else"
        )
    _parsed[key] = found
    while len(_parsed) > KEPT:
        _parsed.popitem(last=False)
    return found


def _check_size(content: bytes) -> None:
    """libyaml's composer recurses on the C stack, and merge keys multiply: both end the process. Raises ValueError."""
    depth = 0
    for event in yaml.parse(content, Loader=_LOADER):
        match event:
            case yaml.MappingStartEvent() | yaml.SequenceStartEvent():
                depth += 1
                if depth > _DEPTH_MAX:
                    raise ValueError("Expected a document of less depth")
            case yaml.MappingEndEvent() | yaml.SequenceEndEvent():
                depth -= 1
            case yaml.ScalarEvent(value="<<", implicit=(True, _)):
                raise ValueError("Expected a document without merge keys")


def operation(document: Mapping[str, Any], name: str, place: str) -> Operation:
    """The operation whose operationId is `name`. Raises TaskError (configuration)."""
    version = str(document.get("openapi") or document.get("swagger") or "")
    if not version.startswith(("2.", "3.")):
        raise problems.configuration(
            f"Expected an OpenAPI document of version 2.0 or 3.x at {place} but its version is {version[:16]!r}"
        )
    for path, item, method, content in _operations(document):
        if content.get("operationId") == name:
            both = [*_list(item, "parameters"), *_list(content, "parameters")]
            unique: dict[tuple[Any, Any], Mapping[str, Any]] = {}
            for found in both:
                parameter = resolved(document, found)
                unique[parameter.get("name"), parameter.get("in")] = parameter
            return Operation(document, method, path, item, content, tuple(unique.values()))
    raise problems.configuration(
        f"Expected operation {name[:128]!r} in the document at {place} but it has none"
    )


def resolved(document: Mapping[str, Any], value: Any) -> Mapping[str, Any]:
    """`value`, or what its `$ref` leads to. Raises TaskError (configuration)."""
    for _ in range(_REFERENCES_MAX):
        if not isinstance(value, dict):
            break
        reference = value.get("$ref")
        if not isinstance(reference, str):
            return value
        if not reference.startswith("#/"):
            raise problems.configuration(
                f"Expected references within the OpenAPI document but found {reference[:128]!r}"
            )
        value = document
        for part in reference[2:].split("/"):
            name = part.replace("~1", "/").replace("~0", "~")
            value = value.get(name) if isinstance(value, dict) else None
    raise problems.configuration(
        "Expected references of the OpenAPI document to lead to objects but one does not"
    )


def server_of(found: Operation, document_uri: str) -> str:
    """The URI that the operation's path is appended to. Raises TaskError (configuration)."""
    uri = _old_server(found.document, document_uri) if found.old else _server(found)
    uri = urljoin(document_uri, uri)
    if urlsplit(uri).scheme not in ("http", "https"):
        raise problems.configuration(
            f"Expected the OpenAPI document to name an http or https server but found {problems.place(uri)!r}"
        )
    return uri.rstrip("/")


def _old_server(document: Mapping[str, Any], document_uri: str) -> str:
    read_from = urlsplit(document_uri)
    schemes = [scheme for scheme in _list(document, "schemes") if scheme in ("http", "https")]
    scheme = schemes[0] if schemes else read_from.scheme
    if read_from.scheme in schemes and "host" not in document:
        scheme = read_from.scheme
    if scheme not in ("http", "https"):
        scheme = "https"
    host = document.get("host") or (read_from.netloc if read_from.scheme in ("http", "https") else "")
    if not host:
        raise problems.configuration("Expected a host in the OpenAPI document but there is none")
    return f"{scheme}://{host}{document.get('basePath') or ''}"


def _server(found: Operation) -> str:
    for owner in (found.content, found.item, found.document):
        for server in _list(owner, "servers"):
            if not isinstance(server, dict):
                continue
            uri = str(server.get("url", "/"))
            variables = server.get("variables")
            for name, variable in (variables if isinstance(variables, dict) else {}).items():
                default = variable.get("default", "") if isinstance(variable, dict) else ""
                uri = uri.replace("{" + str(name) + "}", str(default))
            return uri
    return "/"


def _operations(
    document: Mapping[str, Any],
) -> Iterator[tuple[str, Mapping[str, Any], str, Mapping[str, Any]]]:
    paths = document.get("paths")
    for path, value in (paths if isinstance(paths, dict) else {}).items():
        item = resolved(document, value) if isinstance(value, dict) else {}
        for method in METHODS:
            content = item.get(method)
            if isinstance(content, dict):
                yield str(path), item, method, content


def _list(owner: Mapping[str, Any], name: str) -> list[Any]:
    value = owner.get(name)
    return value if isinstance(value, list) else []
