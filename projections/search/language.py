"""The query language, as structs that refuse what they do not know, and its translation to one statement. Pure.

    {"flows": {"name": "pick", "rules": "7", "status": "failed"},
     "where": [{"observation": {"candidate": "X", "kept": false, "reason": "price over cap"}}]}

All conditions of `where` must hold in the same version of a flow; each is met by one row (an observation, a step, a note, an
error). Texts are compared whole, `words` finds words. Values always travel as parameters; the SQL is put together from the pieces in
sql/queries/search.sql.
"""

from __future__ import annotations

import base64
import binascii
from datetime import datetime
from typing import Any, Final

import msgspec

from engine.errors import InputError
from projections.statements import statements

LIMIT_MAX: Final = 500
CONDITIONS_MAX: Final = 10
_SQL: Final = {name: body.decode() for name, body in statements("search").items()}


class Range(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Bounds of a number; those that are given must hold."""

    lt: float | None = None
    lte: float | None = None
    gt: float | None = None
    gte: float | None = None


class FlowsWhere(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`attributes`: equal values at the top of the flow's attributes. Times are [after, before)."""

    name: str | None = None
    id: str | None = None
    status: str | None = None
    rules: str | None = None
    attributes: dict[str, Any] = {}
    started_after: datetime | None = None
    started_before: datetime | None = None
    errors: bool | None = None
    linked_to: str | None = None


class StepWhere(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    name: str | None = None
    status: str | None = None
    attempt: int | None = None
    because: str | None = None
    because_words: str | None = None
    chosen: Any = msgspec.UNSET


class ObservationWhere(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    step: str | None = None
    candidate: str | None = None
    kept: bool | None = None
    reason: str | None = None
    reason_words: str | None = None
    score: float | Range | None = None


class NoteWhere(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    words: str
    level: str | None = None


class ErrorWhere(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    type: str | None = None
    words: str | None = None


class Condition(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One of the four; `no`: there must be no such row."""

    observation: ObservationWhere | None = None
    step: StepWhere | None = None
    note: NoteWhere | None = None
    error: ErrorWhere | None = None
    no: bool = False


class Query(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`text`: words in notes, reasons of observations and decisions, or errors, anywhere in the flow."""

    flows: FlowsWhere = FlowsWhere()
    where: list[Condition] = []
    text: str | None = None
    limit: int = 100
    cursor: str | None = None


class Statement(msgspec.Struct):
    """SQL with named parameters, and their values."""

    sql: bytes
    parameters: dict[str, Any]


class _Writing:
    """A WHERE clause in the making."""

    def __init__(self, parameters: dict[str, Any]) -> None:
        self.parameters = parameters
        self.parts: list[str] = []

    def add(self, sql: str, value: Any = None, *, when: bool | None = None) -> None:
        """Adds `sql`, whose `{}` is the parameter of `value`, unless there is nothing to compare with."""
        if (value is None) if when is None else not when:
            return
        name = f"p{len(self.parameters)}"
        self.parameters[name] = value
        self.parts.append(sql.replace("{}", f"%({name})s"))

    def __str__(self) -> str:
        return "".join(f" AND {part}" for part in self.parts)


def read_query(body: bytes) -> Query:
    """Raises InputError, with the place."""
    try:
        return msgspec.json.decode(body or b"{}", type=Query)
    except msgspec.DecodeError as problem:
        raise InputError(f"Expected a query but {problem}") from None


def search(project: str, query: Query) -> Statement:
    """The flows of `project`, newest first, one more than the page so that it is known whether others follow."""
    if not 1 <= query.limit <= LIMIT_MAX:
        raise InputError(f"Expected a limit from 1 to {LIMIT_MAX} but found {query.limit}")
    writing = conditions(project, query)
    if query.cursor is not None:
        at, flow_id, version = read_cursor(query.cursor)
        for name, value in (("at", at), ("flow", flow_id), ("of", version)):
            writing.parameters[f"after_{name}"] = value
        writing.parts.append(_SQL["after"])
    sql = _SQL["flows"].replace("{where}", str(writing))
    return Statement(sql.encode(), writing.parameters | {"limit": query.limit + 1})


def scoped(project: str, query: Query, statement: str, **more: Any) -> Statement:
    """An aggregation over what the query chooses: `statement` of search.sql, with the query's conditions in it."""
    writing = conditions(project, query)
    return Statement(_SQL[statement].replace("{where}", str(writing)).encode(), writing.parameters | more)


def conditions(project: str, query: Query) -> _Writing:
    """Raises InputError for a condition that says nothing, or too many."""
    if len(query.where) > CONDITIONS_MAX:
        raise InputError(f"Expected at most {CONDITIONS_MAX} conditions but found {len(query.where)}")
    writing = _Writing({"project": project})
    _flows(writing, query.flows)
    for number, condition in enumerate(query.where):
        writing.parts.append(_condition(writing.parameters, condition, number))
    if query.text is not None:
        writing.add(f"({_SQL['text']})", query.text)
    return writing


def _flows(writing: _Writing, where: FlowsWhere) -> None:
    writing.add("f.name = {}", where.name)
    writing.add('f.flow_id = {} COLLATE "C"', where.id)
    writing.add("f.status = {}", where.status)
    writing.add("f.rules = {}", where.rules)
    if where.attributes:
        writing.add("f.attributes @> {}::jsonb", msgspec.json.encode(where.attributes).decode())
    writing.add("f.first_at >= {}", where.started_after)
    writing.add("f.first_at < {}", where.started_before)
    if where.errors is not None:
        writing.add("(f.errors > 0) = {}", where.errors, when=True)
    if where.linked_to is not None:
        writing.add("f.links @> {}::jsonb", msgspec.json.encode([{"flow": where.linked_to}]).decode())


def _condition(parameters: dict[str, Any], condition: Condition, number: int) -> str:
    given = [
        (kind, where)
        for kind in ("observation", "step", "note", "error")
        if (where := getattr(condition, kind)) is not None
    ]
    if len(given) != 1:
        found = " and ".join(kind for kind, _ in given) or "none"
        raise InputError(
            f"Expected one of observation, step, note and error at /where/{number} but found {found}"
        )
    kind, where = given[0]
    writing = _Writing(parameters)
    _ROWS[kind](writing, where)
    if not writing.parts:
        raise InputError(f"Expected something to look for at /where/{number}/{kind} but found nothing")
    exists = _SQL[f"exists_{kind}"].replace("{where}", str(writing))
    return f"NOT {exists}" if condition.no else exists


def _observation(writing: _Writing, where: ObservationWhere) -> None:
    writing.add("o.candidate = {}", where.candidate)
    writing.add("o.step_name = {}", where.step)
    writing.add("o.kept = {}", where.kept, when=where.kept is not None)
    writing.add("o.reason = {}", where.reason)
    writing.add(_SQL["reason_words"], where.reason_words)
    if isinstance(where.score, Range):
        for name, sign in (("lt", "<"), ("lte", "<="), ("gt", ">"), ("gte", ">=")):
            writing.add(f"o.score {sign} {{}}", getattr(where.score, name))
    else:
        writing.add("o.score = {}", where.score)


def _step(writing: _Writing, where: StepWhere) -> None:
    writing.add("s.name = {}", where.name)
    writing.add("s.status = {}", where.status)
    writing.add("s.attempt = {}", where.attempt)
    writing.add("s.because = {}", where.because)
    writing.add(_SQL["because_words"], where.because_words)
    if where.chosen is not msgspec.UNSET:
        writing.add("s.chosen::jsonb = {}::jsonb", msgspec.json.encode(where.chosen).decode())


def _note(writing: _Writing, where: NoteWhere) -> None:
    writing.add(_SQL["note_words"], where.words)
    writing.add("n.level = {}", where.level)


def _error(writing: _Writing, where: ErrorWhere) -> None:
    writing.add("e.type = {}", where.type)
    writing.add(_SQL["error_words"], where.words)


_ROWS: Final[dict[str, Any]] = {"observation": _observation, "step": _step, "note": _note, "error": _error}


# -- pages --------------------------------------------------------------------------------------------------------------


def cursor_of(at: datetime, flow_id: str, version: int) -> str:
    return base64.urlsafe_b64encode(msgspec.json.encode((at, flow_id, version))).decode().rstrip("=")


def read_cursor(cursor: str) -> tuple[datetime, str, int]:
    """Raises InputError."""
    try:
        raw = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
        return msgspec.json.decode(raw, type=tuple[datetime, str, int])
    except (binascii.Error, ValueError, msgspec.DecodeError):
        raise InputError(
            f"Expected the cursor of a page that was answered before but found {cursor[:100]!r}"
        ) from None
