"""`call: openapi`: an operation of an OpenAPI document, its parameters put where the document says.

Each parameter goes to the path, the query, a header, a cookie or a form; `body` is the request's body, and so are, when
there is none of that name, those properties of the body's schema that are given. A parameter that the operation does not
know is refused, as is one that is required and missing. The request itself is http.py's.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import quote

from engine.tasks import documents, problems
from engine.tasks.fetching import fetch
from engine.tasks.http import JSON_TYPE, Call, is_json, perform
from engine.tasks.uris import INPUT, endpoint_of, text_of

BODY: Final = "body"
FORM: Final = "application/x-www-form-urlencoded"
MULTIPART: Final = "multipart/form-data"
_JOINTS: Final = {
    "csv": ",",
    "ssv": " ",
    "tsv": "\t",
    "pipes": "|",
    "form": ",",
    "spaceDelimited": " ",
    "pipeDelimited": "|",
}


async def call(arguments: dict[str, Any]) -> Any:
    """The function `openapi`."""
    given = arguments.get(INPUT) or {}
    resource = arguments.get("document")
    endpoint = resource.get("endpoint") if isinstance(resource, dict) else None
    uri, _ = endpoint_of(endpoint, given)
    content = await fetch(endpoint, given=given)
    document = documents.parse(content, problems.place(uri))
    found = documents.operation(document, str(arguments.get("operationId", "")), problems.place(uri))
    parameters = arguments.get("parameters") or {}
    if not isinstance(parameters, dict):
        raise problems.configuration(
            "Expected an object as parameters of an openapi call but found something else"
        )
    asked = _Request(found, parameters)
    return await perform(
        Call(
            method=found.method,
            uri=documents.server_of(found, uri) + asked.path,
            headers=asked.headers,
            query=asked.query,
            body=asked.body,
            authentication=arguments.get("authentication"),
            output=arguments.get("output") or "content",
            redirect=arguments.get("redirect") is True,
        )
    )


class _Request:
    """Puts parameters into their places."""

    def __init__(self, found: documents.Operation, given: Mapping[str, Any]) -> None:
        self.found = found
        self.given = dict(given)
        self.path = found.path
        self.query: dict[str, Any] = {}
        self.headers: dict[str, Any] = {}
        self.body: Any = None
        self._cookies: list[str] = []
        self._form: dict[str, Any] = {}
        for parameter in found.parameters:
            self._place(parameter)
        self._keys()
        self._request_body()
        if self.given:
            unknown = ", ".join(repr(name[:64]) for name in sorted(self.given))
            raise problems.configuration(
                f"Expected parameters of operation {self._name} but it does not know {unknown}"
            )
        if self._cookies:
            self.headers["cookie"] = "; ".join(self._cookies)

    @property
    def _name(self) -> str:
        return repr(str(self.found.content.get("operationId"))[:128])

    def _place(self, parameter: Mapping[str, Any]) -> None:
        name, where = str(parameter.get("name")), parameter.get("in")
        value = self.given.pop(name, None)
        if value is None:
            if parameter.get("required") is True:
                raise problems.configuration(
                    f"Expected parameter {name!r} of operation {self._name} but it is missing"
                )
            return
        match where:
            case "path":
                self.path = self.path.replace("{" + name + "}", quote(_joined(value), safe=","))
            case "query":
                self.query |= _queried(name, value, parameter, old=self.found.old)
            case "header":
                self.headers[name] = _joined(value)
            case "cookie":
                self._cookies.append(f"{name}={quote(_joined(value))}")
            case "formData":
                self._form[name] = value
            case "body":
                self.body = value
            case _:
                raise problems.configuration(f"Expected parameter {name!r} in a known place of {self._name}")

    def _keys(self) -> None:
        """API keys of the document's security schemes may be given by the names under which they are sent."""
        document = self.found.document
        components = document.get("components")
        owner = document if self.found.old else components if isinstance(components, dict) else {}
        schemes = owner.get("securityDefinitions" if self.found.old else "securitySchemes")
        for scheme in (schemes if isinstance(schemes, dict) else {}).values():
            key = documents.resolved(document, scheme)
            if key.get("type") == "apiKey" and key.get("name") in self.given:
                self._place({"name": key["name"], "in": key.get("in")})

    def _request_body(self) -> None:
        found = self.found
        if found.old:
            declared = found.content.get("consumes") or found.document.get("consumes") or []
            kinds: Mapping[str, Any] = dict.fromkeys(map(str, declared if isinstance(declared, list) else ()))
            if self._form:
                kind = MULTIPART if MULTIPART in kinds and FORM not in kinds else FORM
                self._encode(self._form, kind)
            elif self.body is not None:
                self._encode(self.body, _preferred(kinds))
            return
        if "requestBody" not in found.content:
            return
        declared_body = documents.resolved(found.document, found.content["requestBody"])
        content = declared_body.get("content")
        kinds = content if isinstance(content, dict) else {}
        kind = _preferred(kinds)
        body = self.given.pop(BODY, None)
        if body is None:
            body = self._properties(kinds.get(kind))
        if body is None and declared_body.get("required") is True:
            raise problems.configuration(f"Expected the body of operation {self._name} but it is missing")
        if body is not None:
            self._encode(body, kind)

    def _properties(self, media: Any) -> dict[str, Any] | None:
        """Given values that are properties of the body's schema; None when there are none."""
        schema = media.get("schema") if isinstance(media, dict) else None
        if not isinstance(schema, dict):
            return None
        known = documents.resolved(self.found.document, schema).get("properties")
        names = [name for name in self.given if isinstance(known, dict) and name in known]
        return {name: self.given.pop(name) for name in names} or None

    def _encode(self, body: Any, kind: str) -> None:
        if kind == MULTIPART and isinstance(body, dict):
            boundary = uuid.uuid4().hex
            body, kind = _multipart(body, boundary), f"{MULTIPART}; boundary={boundary}"
        self.body = body
        self.headers["content-type"] = kind


def _preferred(kinds: Mapping[str, Any]) -> str:
    """The media type to send: JSON where it may be, else the first."""
    for kind in kinds:
        if is_json(kind.partition(";")[0].strip().lower()):
            return kind
    concrete = [kind for kind in kinds if "*" not in kind]
    return concrete[0] if concrete else JSON_TYPE


def _joined(value: Any, joint: str = ",") -> str:
    """A value of a path, a header or a cookie: lists and objects in the simple style."""
    if isinstance(value, list):
        return joint.join(map(_scalar, value))
    if isinstance(value, dict):
        return joint.join(f"{name}{joint}{_scalar(item)}" for name, item in value.items())
    return text_of(value)


def _scalar(value: Any) -> str:
    return json.dumps(value) if isinstance(value, dict | list) else text_of(value)


def _queried(name: str, value: Any, parameter: Mapping[str, Any], *, old: bool) -> dict[str, Any]:
    if "content" in parameter:
        return {name: json.dumps(value, ensure_ascii=False)}
    style = parameter.get("collectionFormat", "csv") if old else parameter.get("style", "form")
    exploded = style == "multi" if old else parameter.get("explode", style == "form") is True
    if isinstance(value, list):
        return {
            name: [_scalar(item) for item in value] if exploded else _joined(value, _JOINTS.get(style, ","))
        }
    if isinstance(value, dict):
        if style == "deepObject":
            return {f"{name}[{key}]": _scalar(item) for key, item in value.items()}
        if exploded:
            return {str(key): _scalar(item) for key, item in value.items()}
        return {name: _joined(value)}
    return {name: value}


def _multipart(fields: Mapping[str, Any], boundary: str) -> str:
    parts = []
    for name, value in fields.items():
        for item in value if isinstance(value, list) else [value]:
            quoted = name.replace('"', "%22").replace("\r", "%0D").replace("\n", "%0A")
            kind = f"Content-Type: {JSON_TYPE}\r\n" if isinstance(item, dict) else ""
            head = f'Content-Disposition: form-data; name="{quoted}"\r\n{kind}'
            parts.append(f"--{boundary}\r\n{head}\r\n{_scalar(item)}\r\n")
    return "".join(parts) + f"--{boundary}--\r\n"
