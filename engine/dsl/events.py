"""Event filters: which CloudEvents a listen or a schedule waits for.

An event is its JSON format: attributes beside `data`. A constant text matches an equal value or, where it has the signs
of a regular expression, a value that matches as a whole (a linear-time engine: no event can make it slow). An
expression is evaluated with the attribute's value as `.`: true or false is the verdict, any other result is compared.
Objects match when all their properties do; what an event has beyond them is not looked at. An expression that has no
result for an event does not match it.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import jsonschema_rs
import orjson

from engine.dsl.checks import Checks, described
from engine.dsl.errors import ExpressionError
from engine.dsl.expressions import is_marked
from engine.dsl.model import Consumption, Correlation, EventFilter, Expression, Json
from engine.dsl.shapes import URI, text
from engine.dsl.source import escape

FROM_EVENT: Final[frozenset[str]] = frozenset()
"""A correlation's `from` has the event and nothing else: it is evaluated before any flow is known."""

_PATTERN_BYTES_MAX: Final = 1 << 20
_PATTERN_SIGNS: Final = re.compile(r"[\\*+?^$|\[\](){}]")
_ABSENT: Final = object()
_TEXTS: Final = ("id", "source", "type", "time", "subject", "datacontenttype", "dataschema")
_URIS: Final = ("source", "dataschema")
_URI: Final = text("a URI with a scheme, or an expression", URI)
_MODES: Final = ("one", "any", "all")
_NEVER: Final = ("false", "${false}", "${ false }")

Step = str | int


@dataclass(slots=True)
class _Parts:
    """What a filter asks for: `fixed` of values at paths, `open` by expressions on values at paths."""

    fixed: list[tuple[tuple[Step, ...], Callable[[Any], bool]]] = field(default_factory=list)
    open: list[tuple[tuple[Step, ...], Expression]] = field(default_factory=list)


def compile_filter(
    checks: Checks, value: Json, pointer: str, available: frozenset[str]
) -> EventFilter | None:
    found = checks.properties(value, pointer, ("with", "correlate"), required=("with",))
    if "with" not in found:
        return None
    at = f"{pointer}/with"
    attributes = checks.object(found["with"], at)
    if found["with"] == {}:
        checks.expected("at least one attribute", "none", at)
    parts = _Parts()
    for name, wanted in attributes.items():
        if name in _TEXTS:
            (_URI if name in _URIS else text())(checks, wanted, f"{at}/{name}")
        _read(checks, wanted, f"{at}/{escape(name)}", available, (name,), parts)
    correlate = _correlations(checks, found.get("correlate", {}), f"{pointer}/correlate", available)
    return _filter(parts, attributes, correlate, checks.language)


def every_event() -> EventFilter:
    """The filter of `any: []`."""
    return _filter(_Parts(), {}, (), "jq")


def _filter(
    parts: _Parts, attributes: Mapping[str, Json], correlate: tuple[Correlation, ...], language: str
) -> EventFilter:
    correlations = [[one.name, one.from_.source, one.expect is not None] for one in correlate]
    canonical = orjson.dumps([language, attributes, correlations], option=orjson.OPT_SORT_KEYS)
    fixed, opened = tuple(parts.fixed), tuple(parts.open)
    return EventFilter(
        shape=hashlib.sha256(canonical).hexdigest(),
        fixed=lambda event: all(holds(_at(event, path)) for path, holds in fixed),
        reads=frozenset().union(*(expression.reads for _, expression in opened)),
        fits=lambda event, arguments: all(
            _fits(expression, _at(event, path), arguments) for path, expression in opened
        ),
        correlate=correlate,
    )


def _read(
    checks: Checks,
    value: Json,
    pointer: str,
    available: frozenset[str],
    path: tuple[Step, ...],
    parts: _Parts,
) -> None:
    if isinstance(value, str):
        if is_marked(value):
            parts.open.append((path, checks.expression(value, pointer, available)))
        else:
            parts.fixed.append((path, _text(value)))
    elif isinstance(value, dict):
        parts.fixed.append((path, lambda found: isinstance(found, dict)))
        for name, wanted in value.items():
            _read(checks, wanted, f"{pointer}/{escape(name)}", available, (*path, name), parts)
    elif isinstance(value, list):
        count = len(value)
        parts.fixed.append((path, lambda found: isinstance(found, list) and len(found) == count))
        for index, wanted in enumerate(value):
            _read(checks, wanted, f"{pointer}/{index}", available, (*path, index), parts)
    else:
        parts.fixed.append((path, lambda found: same(found, value)))


def _text(wanted: str) -> Callable[[Any], bool]:
    """Equal; or, with a sign of a regular expression in it, a match of the whole text."""
    if _PATTERN_SIGNS.search(wanted) is None:
        return lambda found: found == wanted
    try:
        validator = jsonschema_rs.Draft202012Validator(
            {"type": "string", "pattern": f"^(?:{wanted})$"},
            offline=True,
            pattern_options=jsonschema_rs.RegexOptions(size_limit=_PATTERN_BYTES_MAX),
        )
    except (jsonschema_rs.ValidationError, ValueError):  # no regular expression, then: the text itself
        return lambda found: found == wanted
    return lambda found: found == wanted or (isinstance(found, str) and validator.is_valid(found))


def same(found: Any, wanted: Json) -> bool:
    """Equal as JSON: true is not 1."""
    if isinstance(found, bool) or isinstance(wanted, bool):
        return found is wanted
    if isinstance(wanted, dict | list):
        options = orjson.OPT_SORT_KEYS
        return found is not _ABSENT and orjson.dumps(found, option=options) == orjson.dumps(
            wanted, option=options
        )
    return bool(found == wanted)


def _at(value: Any, path: tuple[Step, ...]) -> Any:
    for step in path:
        if isinstance(step, str):
            value = value.get(step, _ABSENT) if isinstance(value, dict) else _ABSENT
        else:
            value = value[step] if isinstance(value, list) and step < len(value) else _ABSENT
    return value


def _fits(expression: Expression, found: Any, arguments: Mapping[str, Json]) -> bool:
    try:
        result = expression.evaluate(None if found is _ABSENT else found, arguments)
    except ExpressionError:
        return False
    return result if isinstance(result, bool) else found is not _ABSENT and same(found, result)


def _correlations(
    checks: Checks, value: Json, pointer: str, available: frozenset[str]
) -> tuple[Correlation, ...]:
    correlations: list[Correlation] = []
    for name, content in checks.object(value, pointer).items():
        at = f"{pointer}/{escape(name)}"
        found = checks.properties(content, at, ("from", "expect"), required=("from",))
        if "from" not in found:
            continue
        expect = None
        if "expect" in found:
            given = found["expect"]
            expect = (
                checks.expression(given, f"{at}/expect", available)
                if isinstance(given, str) and is_marked(given)
                else checks.constant(given)
            )
        correlations.append(
            Correlation(name, checks.expression(found["from"], f"{at}/from", FROM_EVENT), expect)
        )
    return tuple(correlations)


# -- strategies ---------------------------------------------------------------------------------------------------


def compile_consumption(
    checks: Checks, value: Json, pointer: str, available: frozenset[str], *, nested: bool = False
) -> Consumption | None:
    """An event consumption strategy; one `nested` in `until` has no `until` of its own."""
    found = checks.properties(value, pointer, _MODES if nested else (*_MODES, "until"))
    modes = [mode for mode in _MODES if mode in found]
    if not isinstance(value, dict):
        return None
    if len(modes) != 1:
        checks.expected("exactly one of one, any, all", " and ".join(modes) or "none of them", pointer)
        return None
    mode = modes[0]
    filters = _filters(checks, found[mode], f"{pointer}/{mode}", mode, available)
    if "until" in found and mode != "any":
        checks.warn(f"'until' has no effect beside {mode!r}", f"{pointer}/until")
    if mode == "one":
        return Consumption("one", filters)
    if mode == "all":
        return Consumption("all", filters)
    if "until" not in found:
        return Consumption("any", filters)
    return _until(checks, found["until"], f"{pointer}/until", filters, available)


def _filters(
    checks: Checks, value: Json, pointer: str, mode: str, available: frozenset[str]
) -> tuple[EventFilter, ...]:
    if mode == "one":
        one = compile_filter(checks, value, pointer, available)
        return () if one is None else (one,)
    if not isinstance(value, list):
        checks.expected("a list of event filters", described(value), pointer)
        return ()
    if not value and mode == "any":
        return (every_event(),)
    if not value:
        checks.expected("at least one event filter", "none", pointer)
    made = [compile_filter(checks, item, f"{pointer}/{index}", available) for index, item in enumerate(value)]
    return tuple(one for one in made if one is not None)


def _until(
    checks: Checks, value: Json, pointer: str, filters: tuple[EventFilter, ...], available: frozenset[str]
) -> Consumption:
    if value is False or (isinstance(value, str) and value.strip() in _NEVER):
        return Consumption("any", filters, forever=True)
    if isinstance(value, str):
        return Consumption("any", filters, until=checks.expression(value, pointer, available))
    if not isinstance(value, dict):
        checks.expected("an expression or an event consumption strategy", described(value), pointer)
        return Consumption("any", filters)
    nested = compile_consumption(checks, value, pointer, available, nested=True)
    return Consumption("any", filters, until_events=nested)
