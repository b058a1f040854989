"""Cataloged functions and external schemas, put into the document before it is published.

What is published must stand on its own: a node compiles it without reading anything. So `resolve` asks the caller's
`read` for each resource that the document names and writes it into a copy: functions as use.functions under the text
of their call (`log:1.0.0@global` or a URI), schemas as `document` beside their format. This module reads nothing.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Final

from engine.dsl.errors import DefinitionError, Problem
from engine.dsl.model import Json
from engine.dsl.results import shortened
from engine.dsl.source import Source, escape, parse

Read = Callable[[str], str | bytes | None]
"""Gives the text at a URI; None when it is not one this reader knows (another host's, say: the call then fails when
performed, with a warning when compiled); raises OSError or LookupError when it should know it and cannot read it.
Functions of the default catalog are asked for as `catalog:/functions/NAME/VERSION/function.yaml`, those of a catalog
whose endpoint is a folder without a scheme by that relative path."""

DEFAULT: Final = "catalog:"
_CATALOGED: Final = re.compile(r"(?P<name>[^:@/]+):(?P<version>[^:@/]+)@(?P<catalog>[^@/]+)")
_URI: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://\S+")
_GITHUB: Final = re.compile(r"https://github\.com/([^/]+)/([^/]+)/(?:tree|blob)/([^/]+)/(.*)")
_GITLAB: Final = re.compile(r"(https://gitlab\.com/.+?)/-/(?:tree|blob)/(.*)")
_LEVELS_MAX: Final = 8


def is_cataloged(name: str) -> bool:
    """Whether a call names a function of a catalog, or one by its URI."""
    return _CATALOGED.fullmatch(name) is not None or _URI.fullmatch(name) is not None or "@" in name


def catalog_of(name: str) -> str | None:
    """The catalog of `name:version@catalog`; None for a URI."""
    found = _CATALOGED.fullmatch(name)
    if found is not None:
        return found["catalog"]
    return None if "://" in name else name.rpartition("@")[2]


def resolve_document(document: Mapping[str, Json], read: Read) -> dict[str, Json]:
    """`document` with what it names put into it. Raises DefinitionError."""
    return dict(resolve(Source(dict(document)), read).value)


def resolve(source: Source, read: Read) -> Source:
    """As `resolve_document`, with the places of the text: nothing that was there moves. Raises DefinitionError."""
    if not isinstance(source.value, dict):
        return source
    resolver = _Resolver(source, read)
    document = resolver.schemas(source.value, "")
    resolver.functions(document, 0)
    if resolver.problems:
        raise DefinitionError(resolver.problems)
    if resolver.found:
        use = document.get("use")
        use = dict(use) if isinstance(use, dict) else {}
        own = use.get("functions")
        use["functions"] = {**(own if isinstance(own, dict) else {}), **resolver.found}
        document = {**document, "use": use}
    return Source(document, source.places)


class _Resolver:
    def __init__(self, source: Source, read: Read) -> None:
        self.source = source
        self.read = read
        self.found: dict[str, Json] = {}
        self.problems: list[Problem] = []
        use = source.value.get("use")
        use = use if isinstance(use, dict) else {}
        catalogs, functions = use.get("catalogs"), use.get("functions")
        self.catalogs: Mapping[str, Json] = catalogs if isinstance(catalogs, dict) else {}
        self.own: Mapping[str, Json] = functions if isinstance(functions, dict) else {}

    def functions(self, node: Json, level: int) -> None:
        for name, pointer in list(_calls(node, "")):
            if name in self.found or name in self.own:
                continue
            uri = self.uri(name)
            if uri is None or (text := self.text(uri, pointer)) is None:
                continue
            function = self.parsed(text, uri, pointer)
            if function is None:
                continue
            if level == _LEVELS_MAX:
                self.refuse(f"Expected functions nested at most {_LEVELS_MAX} deep but found more", pointer)
                return
            self.found[name] = self.schemas(function, pointer)
            self.functions(function, level + 1)

    def uri(self, name: str) -> str | None:
        """Where the function is, or None when no catalog says (the compiler notes that)."""
        cataloged = _CATALOGED.fullmatch(name)
        if cataloged is None:
            return raw(name) if _URI.fullmatch(name) else None
        catalog = cataloged["catalog"]
        path = f"functions/{cataloged['name']}/{cataloged['version']}/function.yaml"
        if catalog in self.catalogs:
            content = self.catalogs[catalog]
            endpoint = content.get("endpoint") if isinstance(content, dict) else None
            root = endpoint.get("uri") if isinstance(endpoint, dict) else endpoint
            return raw(f"{root.rstrip('/')}/{path}") if isinstance(root, str) else None
        return f"{DEFAULT}/{path}" if catalog == "default" else None

    def schemas(self, node: Json, pointer: str) -> Json:
        """`node` with the schemas that name a resource made inline, where the reader has it."""
        if isinstance(node, list):
            return [self.schemas(item, f"{pointer}/{index}") for index, item in enumerate(node)]
        if not isinstance(node, dict):
            return node
        made = {name: self.schemas(item, f"{pointer}/{escape(name)}") for name, item in node.items()}
        schema = made.get("schema")
        if isinstance(schema, dict) and "resource" in schema and "document" not in schema:
            at = f"{pointer}/schema/resource"
            resource = schema["resource"]
            endpoint = resource.get("endpoint") if isinstance(resource, dict) else None
            uri = endpoint.get("uri") if isinstance(endpoint, dict) else endpoint
            if isinstance(uri, str) and (text := self.text(raw(uri), at)) is not None:
                document = self.parsed(text, uri, at)
                if document is not None:
                    kept = {name: item for name, item in schema.items() if name != "resource"}
                    made["schema"] = {**kept, "document": document}
        return made

    def text(self, uri: str, pointer: str) -> str | bytes | None:
        try:
            return self.read(uri)
        except (OSError, LookupError) as problem:
            reason = problem.strerror if isinstance(problem, OSError) else None
            self.refuse(
                f"Expected to read {shortened(uri)} but {reason or problem or 'it is not there'}", pointer
            )
            return None

    def parsed(self, text: str | bytes, uri: str, pointer: str) -> dict[str, Json] | None:
        try:
            value = parse(text).value
        except DefinitionError as error:
            self.refuse(f"{error.problems[0].message} of {shortened(uri)}, needed", pointer)
            return None
        if isinstance(value, dict):
            return value
        self.refuse(f"Expected an object in {shortened(uri)} but found something else, needed", pointer)
        return None

    def refuse(self, message: str, pointer: str) -> None:
        line, column = self.source.place(pointer) or (None, None)
        place = (pointer or "/") if line is None else f"{pointer or '/'} (line {line})"
        self.problems.append(Problem(f"{message} at {place}", pointer, line, column))


def raw(uri: str) -> str:
    """The machine-readable text behind the page that GitHub or GitLab shows for `uri`."""
    if (found := _GITHUB.fullmatch(uri)) is not None:
        owner, repository, branch, path = found.groups()
        return f"https://raw.githubusercontent.com/{owner}/{repository}/refs/heads/{branch}/{path}"
    if (found := _GITLAB.fullmatch(uri)) is not None:
        return f"{found[1]}/-/raw/{found[2]}"
    return uri


def _calls(node: Json, pointer: str) -> Iterator[tuple[str, str]]:
    """The cataloged functions that `node` calls, and where."""
    if isinstance(node, dict):
        name = node.get("call")
        if isinstance(name, str) and is_cataloged(name):
            yield name, f"{pointer}/call"
        for key, item in node.items():
            yield from _calls(item, f"{pointer}/{escape(key)}")
    elif isinstance(node, list):
        for index, item in enumerate(node):
            yield from _calls(item, f"{pointer}/{index}")
