"""The text of a definition becomes JSON data with the place of each part.

YAML 1.2 (core schema: `on`, `yes` and `2024-01-01` are strings) or JSON, which is part of it. ruamel's pure parser
gives events; this module builds the data itself, because that is where limits and places are known. Invariant: what
comes out is JSON (string keys, finite 64-bit numbers, valid Unicode) and bounded in size and depth, whatever came in.
Aliases share one value, yet each use counts with its full size.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final, NoReturn

import orjson
from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.events import (
    AliasEvent,
    DocumentStartEvent,
    MappingEndEvent,
    MappingStartEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
    StreamEndEvent,
)
from ruamel.yaml.reader import ReaderError

from engine.dsl.errors import DefinitionError, Problem
from engine.dsl.model import Json
from engine.dsl.results import shortened

BYTES_MAX: Final = 1024 * 1024
EXPANDED_BYTES_MAX: Final = 2 * BYTES_MAX
"""What the texts of a document may be together when every alias is written out."""
NODES_MAX: Final = 50_000
DEPTH_MAX: Final = 64

_NULL: Final = frozenset({"", "~", "null", "Null", "NULL"})
_BOOL: Final = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_INT: Final = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT: Final = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")
_NOT_FINITE: Final = re.compile(r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)")
_TAG: Final = "tag:yaml.org,2002:"
_LONG_TAG: Final = re.compile(r"(?:^|[\s\[{,:?-])(!\S{1024})")
"""ruamel needs time quadratic in the length of a tag."""

_NOT_IN_YAML: Final = re.compile(r"[\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff]")
"""Characters that JSON strings may hold as they are, and that YAML refuses or takes for line breaks."""


@dataclass(frozen=True, slots=True)
class Source:
    """Data and places. `places` maps a pointer to (line, column), both from 1: of a property, where its key stands."""

    value: Json
    places: dict[str, tuple[int, int]] = field(default_factory=dict, repr=False)

    def place(self, pointer: str) -> tuple[int, int] | None:
        """The place of `pointer`, or of the nearest part around it that has one (data behind an alias has none)."""
        while (found := self.places.get(pointer)) is None and pointer:
            pointer = pointer.rpartition("/")[0]
        return found


def escape(part: str | int) -> str:
    """One reference token of a JSON pointer."""
    return str(part).replace("~", "~0").replace("/", "~1")


def parse(source: str | bytes) -> Source:
    """Reads `source`. Raises DefinitionError with the first problem: what follows it has no certain meaning."""
    text = _text(source)
    if _NOT_IN_YAML.search(text) is not None and _is_json(text):
        text = _NOT_IN_YAML.sub(lambda found: f"\\u{ord(found[0]):04x}", text)
    if (tag := _LONG_TAG.search(text)) is not None:
        line = text.count("\n", 0, tag.start(1)) + 1
        _refuse("Expected a tag of at most 1024 characters but found a longer one", "", line, 1)
    try:
        return _Builder(YAML(typ="safe", pure=True).parse(text)).build()
    except ReaderError as problem:
        line = text.count("\n", 0, problem.position) + 1
        _refuse(f"Expected readable text but found the character {problem.character!r}", "", line, 1)
    except MarkedYAMLError as problem:
        mark = problem.problem_mark or problem.context_mark
        detail = " ".join(str(part) for part in (problem.context, problem.problem) if part)
        line, column = (1, 1) if mark is None else (mark.line + 1, mark.column + 1)
        _refuse(f"Expected YAML or JSON but {detail}", "", line, column)
    except (YAMLError, ValueError, RecursionError) as problem:
        _refuse(f"Expected YAML or JSON but {problem}", "", 1, 1)


def _text(source: str | bytes) -> str:
    data = source.encode("utf-8", "surrogatepass") if isinstance(source, str) else source
    if len(data) > BYTES_MAX:
        _refuse(f"Expected at most {BYTES_MAX} bytes but found {len(data)}", "", 1, 1)
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as problem:
        line = data.count(b"\n", 0, problem.start) + 1
        _refuse(f"Expected UTF-8 but byte {problem.start} is {data[problem.start]:#04x}", "", line, 1)


def _is_json(text: str) -> bool:
    try:
        orjson.loads(text)
    except orjson.JSONDecodeError:
        return False
    return True


def _refuse(message: str, pointer: str, line: int, column: int) -> NoReturn:
    message = shortened(message)
    place = f"{pointer} (line {line}, column {column})" if pointer else f"line {line}, column {column}"
    raise DefinitionError([Problem(f"{message} at {place}", pointer, line, column)])


class _Builder:
    """Builds data from parser events, counting what it builds."""

    def __init__(self, events: Iterator[Any]) -> None:
        self.events = events
        self.places: dict[str, tuple[int, int]] = {}
        self.anchors: dict[str, tuple[Json, int, int, int]] = {}
        self.nodes = 0
        self.size = 0

    def build(self) -> Source:
        event = self.next()
        while not isinstance(event, DocumentStartEvent):
            if isinstance(event, StreamEndEvent):
                _refuse("Expected a definition but found nothing", "", 1, 1)
            event = self.next()
        value, _ = self.node(self.next(), "", 0)
        self.next()
        if isinstance(event := self.next(), DocumentStartEvent):
            self.refuse("Expected one document but found another", event, "")
        return Source(value, self.places)

    def next(self) -> Any:
        return next(self.events)

    def refuse(self, message: str, event: Any, pointer: str) -> NoReturn:
        _refuse(message, pointer, event.start_mark.line + 1, event.start_mark.column + 1)

    def node(self, event: Any, pointer: str, depth: int) -> tuple[Json, int]:
        """The value that begins with `event`, and how many levels deep it is."""
        if depth > DEPTH_MAX:
            self.refuse(f"Expected at most {DEPTH_MAX} levels but found more", event, pointer)
        self.places.setdefault(pointer, (event.start_mark.line + 1, event.start_mark.column + 1))
        self.count(1, event, pointer)
        if isinstance(event, AliasEvent):
            return self.alias(event, pointer, depth)
        before, size, levels = self.nodes, self.size, 0
        value: Json
        if isinstance(event, ScalarEvent):
            value = self.scalar(event, pointer)
            self.weigh(len(event.value), event, pointer)
        elif isinstance(event, MappingStartEvent):
            value, levels = self.mapping(event, pointer, depth)
        else:
            value, levels = self.sequence(event, pointer, depth)
        if event.anchor is not None:
            self.anchors[event.anchor] = (value, self.nodes - before, levels, self.size - size)
        return value, levels

    def count(self, nodes: int, event: Any, pointer: str) -> None:
        self.nodes += nodes
        if self.nodes > NODES_MAX:
            self.refuse(
                f"Expected at most {NODES_MAX} values, aliases expanded, but found more", event, pointer
            )

    def weigh(self, size: int, event: Any, pointer: str) -> None:
        self.size += size
        if self.size > EXPANDED_BYTES_MAX:
            wish = f"at most {EXPANDED_BYTES_MAX} characters, aliases expanded,"
            self.refuse(f"Expected {wish} but found more", event, pointer)

    def alias(self, event: AliasEvent, pointer: str, depth: int) -> tuple[Json, int]:
        known = self.anchors.get(event.anchor)
        if known is None:
            self.refuse(f"Expected an anchor before its alias but *{event.anchor} has none", event, pointer)
        value, nodes, levels, size = known
        self.count(nodes, event, pointer)
        self.weigh(size, event, pointer)
        if depth + levels > DEPTH_MAX:
            self.refuse(
                f"Expected at most {DEPTH_MAX} levels, aliases expanded, but found more", event, pointer
            )
        return value, levels

    def mapping(self, start: MappingStartEvent, pointer: str, depth: int) -> tuple[dict[str, Json], int]:
        self.collection_tag(start, "map", pointer)
        found: dict[str, Json] = {}
        levels = 0
        while not isinstance(event := self.next(), MappingEndEvent):
            key = self.key(event, pointer)
            at = f"{pointer}/{escape(key)}"
            if key in found:
                line = self.places[at][0]
                self.refuse(f"Expected each key once but {key!r} is also in line {line}", event, pointer)
            self.places[at] = (event.start_mark.line + 1, event.start_mark.column + 1)
            found[key], below = self.node(self.next(), at, depth + 1)
            levels = max(levels, below + 1)
        return found, levels

    def key(self, event: Any, pointer: str) -> str:
        self.count(1, event, pointer)
        value: Json = None
        if isinstance(event, AliasEvent):
            value = self.anchors.get(event.anchor, (None, 0, 0, 0))[0]
        elif isinstance(event, ScalarEvent):
            value = self.scalar(event, pointer)
            if event.anchor is not None:
                self.anchors[event.anchor] = (value, 0, 0, len(event.value))
            if value == "<<" and event.style is None:
                self.refuse(
                    "Expected a key but found a merge (<<), which YAML 1.2 does not have", event, pointer
                )
        if not isinstance(value, str):
            shown = event.value if isinstance(event, ScalarEvent) else "a collection"
            self.refuse(
                f"Expected a key that is a string but found {shown} (put it in quotes)", event, pointer
            )
        return value

    def sequence(self, start: SequenceStartEvent, pointer: str, depth: int) -> tuple[list[Json], int]:
        self.collection_tag(start, "seq", pointer)
        found: list[Json] = []
        levels = 0
        while not isinstance(event := self.next(), SequenceEndEvent):
            value, below = self.node(event, f"{pointer}/{len(found)}", depth + 1)
            found.append(value)
            levels = max(levels, below + 1)
        return found, levels

    def collection_tag(self, event: Any, wanted: str, pointer: str) -> None:
        tag = event.tag
        if tag is not None and str(tag) not in ("!", _TAG + wanted):
            self.refuse(f"Expected a JSON value but found one tagged {tag}", event, pointer)

    def scalar(self, event: ScalarEvent, pointer: str) -> Json:
        tag = None if event.tag is None else str(event.tag)
        if tag in ("!", _TAG + "str") or (tag is None and not event.implicit[0]):
            return self.string(event, pointer)
        value = self.plain(event, pointer)
        if tag is None:
            return value
        wanted = {"null": type(None), "bool": bool, "int": int, "float": float}.get(tag.removeprefix(_TAG))
        if wanted is float and type(value) is int:
            return float(value)
        if wanted is None or type(value) is not wanted:
            self.refuse(f"Expected a JSON value but found {event.value!r} tagged {tag}", event, pointer)
        return value

    def string(self, event: ScalarEvent, pointer: str) -> str:
        text: str = event.value
        if text.isascii():
            return text
        try:  # JSON writes characters beyond the 16-bit range as two escapes
            return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le")
        except UnicodeDecodeError:
            self.refuse("Expected Unicode text but found half of a surrogate pair", event, pointer)

    def plain(self, event: ScalarEvent, pointer: str) -> Json:
        text: str = event.value
        if text in _NULL:
            return None
        if text in _BOOL:
            return _BOOL[text]
        if _INT.fullmatch(text):
            number = int(text, {"0o": 8, "0x": 16}.get(text[:2], 10)) if len(text) < 24 else 1 << 64
            if not -(1 << 63) <= number < 1 << 64:
                self.refuse(f"Expected a number of at most 64 bits but found {text[:40]}", event, pointer)
            return number
        if _FLOAT.fullmatch(text) and math.isfinite(fraction := float(text)):
            return fraction
        if _FLOAT.fullmatch(text) or _NOT_FINITE.fullmatch(text):
            self.refuse(f"Expected a JSON value but found the number {text[:40]}", event, pointer)
        return self.string(event, pointer)
