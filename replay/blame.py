"""Who changed what: a flow's events folded with, for each value of its document, the event that last changed it.

The document of a flow at a moment is `{status, input, data, context}` and, at its end, `output` or `error`; places in it are
JSON pointers (RFC 6901). A change is told at the highest place that changed as a whole: a new object is one change, not
one for each of its parts. Pure. What is remembered is the document and one node for each place that differs in age from
what is around it, never the events.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Final

import msgspec
import orjson

from engine.core.evolve import BrokenLog, FlowState, digest, evolve, inline
from engine.runtime.records import timestamp
from projections.logged import Logged
from replay.flow import broken
from schemas import messages as m

ABSENT: Final = object()
"""What stands where there is nothing."""


class Blamed(msgspec.Struct, frozen=True):
    """The event that gave a value, and who caused it."""

    sequence: int
    time: int
    kind: str
    task: str | None
    run: int
    actor: m.Actor
    command_id: str

    def shown(self) -> dict[str, Any]:
        return {
            "sequence": self.sequence,
            "time": timestamp(self.time),
            "kind": self.kind,
            "task": self.task,
            "run": self.run,
            "actor": {"kind": self.actor.kind, "id": self.actor.id},
            "command_id": self.command_id,
        }


class _Node(msgspec.Struct, frozen=True):
    """`by` gave the value as a whole; `parts` are the members that changed since (also those that went)."""

    by: Blamed
    parts: dict[str, _Node]

    def newest(self) -> Blamed:
        return max((self.by, *(part.newest() for part in self.parts.values())), key=lambda by: by.sequence)


class Change(msgspec.Struct, frozen=True):
    """`before` and `after` are JSON values, or ABSENT."""

    pointer: str
    before: Any
    after: Any
    by: Blamed

    def shown(self) -> dict[str, Any]:
        values = {"before": self.before, "after": self.after}
        return {
            "path": self.pointer,
            **{n: v for n, v in values.items() if v is not ABSENT},
            "by": self.by.shown(),
        }


class Folded:
    """A flow's document, and who gave each of its values; `take` every event in order."""

    def __init__(self) -> None:
        self.state: FlowState | None = None
        self.document: dict[str, Any] = {}
        self.newest: Blamed | None = None
        self._live: m.LiveFlow | None = None
        self._root: _Node | None = None
        self._parsed: dict[str, tuple[bytes, Any]] = {}

    def take(self, logged: Logged) -> None:
        """Raises BrokenFlow."""
        event = logged.event
        if event.previous_hash != (self.state.head if isinstance(self.state, m.LiveFlow) else b""):
            raise broken(logged, f"the chain of hashes breaks at event {event.sequence}")
        try:
            self.state = evolve(self.state, event, digest(logged.value))
        except BrokenLog as problem:
            raise broken(logged, str(problem)) from None
        if isinstance(self.state, m.LiveFlow):
            self._live = self.state
        after = self._document(event)
        by = Blamed(
            event.sequence,
            event.time,
            event.kind,
            event.task,
            event.run,
            event.actor,
            event.cause.command_id,
        )
        before, self.document, self.newest = self.document, after, by
        self._root = _Node(by, {}) if self._root is None else _updated(self._root, before, after, by)

    def blame(self, pointer: str = "") -> Iterator[Change]:
        """Every value at or below `pointer` that has no parts, with who gave it; `before` is ABSENT."""
        value, node = self._at(pointer)
        if value is not ABSENT and node is not None:
            yield from _leaves(pointer, value, node, node.by)

    def changes_since(self, before: dict[str, Any]) -> Iterator[Change]:
        """What differs from the document `before`, with the newest event that made it so."""
        if self._root is not None:
            yield from _changes("", before, self.document, self._root, self._root.by)

    def _at(self, pointer: str) -> tuple[Any, _Node | None]:
        value: Any = self.document
        node = self._root
        for name in _names(pointer):
            value = _member(value, name)
            if node is not None:
                node = node.parts.get(name, _Node(node.by, {}))
        return value, node

    def _document(self, event: m.Event) -> dict[str, Any]:
        live, state = self._live, self.state
        assert live is not None
        assert state is not None
        found = {
            "status": state.status,
            "input": self._value("input", live.input),
            "data": self._value("data", live.data),
            "context": self._value("context", live.context),
        }
        match event.body:
            case m.FlowCompleted(output=output):
                found["output"] = self._value("output", inline(output))
            case m.FlowFaulted(error=error):
                found["error"] = {name: getattr(error, name) for name in error.__struct_fields__}
        return found

    def _value(self, name: str, data: bytes) -> Any:
        """Parsed once while the bytes stay the same."""
        known = self._parsed.get(name)
        if known is not None and known[0] == data:
            return known[1]
        value = orjson.loads(data)
        self._parsed[name] = (data, value)
        return value


def fold(logged: Iterable[Logged]) -> Folded:
    """Raises BrokenFlow."""
    folded = Folded()
    for one in logged:
        folded.take(one)
    return folded


# -- values ---------------------------------------------------------------------------------------------------------


def _parts(value: Any) -> dict[str, Any] | None:
    """The members of an object or of a list that has any; None for what is a value by itself."""
    if isinstance(value, dict) and value:
        return value
    if isinstance(value, list) and value:
        return {str(index): item for index, item in enumerate(value)}
    return None


def _member(value: Any, name: str) -> Any:
    parts = _parts(value)
    return ABSENT if parts is None else parts.get(name, ABSENT)


def _same(one: Any, other: Any) -> bool:
    """As JSON: true is not 1."""
    if one is other:
        return True
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_same(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_same, one, other))
    return type(one) is type(other) and bool(one == other)


def _comparable(before: Any, after: Any) -> tuple[dict[str, Any], dict[str, Any]] | None:
    """The members of both, when they are of one kind and their members can differ by themselves."""
    some, others = _parts(before), _parts(after)
    if some is None or others is None or type(before) is not type(after):
        return None
    return some, others


def _updated(node: _Node, before: Any, after: Any, by: Blamed) -> _Node:
    if _same(before, after):
        return node
    both = _comparable(before, after)
    if both is None:
        return _Node(by, {})
    some, others = both
    parts = dict(node.parts)
    for name in some.keys() | others.keys():
        old, new = some.get(name, ABSENT), others.get(name, ABSENT)
        if new is ABSENT or old is ABSENT:
            parts[name] = _Node(by, {})
        elif not _same(old, new):
            parts[name] = _updated(parts.get(name, _Node(node.by, {})), old, new, by)
    return _Node(node.by, parts)


def _changes(pointer: str, before: Any, after: Any, node: _Node | None, around: Blamed) -> Iterator[Change]:
    if _same(before, after):
        return
    both = _comparable(before, after)
    if both is None:
        yield Change(pointer, before, after, around if node is None else node.newest())
        return
    some, others = both
    by = around if node is None else node.by
    for name in (*some, *(name for name in others if name not in some)):
        inner = None if node is None else node.parts.get(name)
        old, new = some.get(name, ABSENT), others.get(name, ABSENT)
        yield from _changes(f"{pointer}/{_escaped(name)}", old, new, inner, by)


def _leaves(pointer: str, value: Any, node: _Node | None, around: Blamed) -> Iterator[Change]:
    by = around if node is None else node.by
    parts = _parts(value)
    if parts is None:
        yield Change(pointer, ABSENT, value, by)
        return
    for name, part in parts.items():
        inner = None if node is None else node.parts.get(name)
        yield from _leaves(f"{pointer}/{_escaped(name)}", part, inner, by)


def _names(pointer: str) -> list[str]:
    return [part.replace("~1", "/").replace("~0", "~") for part in pointer.split("/")[1:]]


def _escaped(name: str) -> str:
    return name.replace("~", "~0").replace("/", "~1")
