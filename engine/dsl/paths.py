"""The commonest expressions, without jq: `.a.b`, `$context.a["b"]`, and comparisons of those with a literal.

jaq converts its whole input, so a path into a large value costs what the value costs; these cost well under a
microsecond. Invariant, proved by tests against jaq on arbitrary JSON: same results, and an error exactly where jaq
has one. What is not certainly equal is not done here: `plain` gives None and jaq does it.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping
from typing import Any, Final

import orjson

from engine.dsl.errors import ExpressionError
from engine.dsl.model import Evaluate, Json
from engine.dsl.results import shortened

_STEP: Final = r'(?:\.[A-Za-z_][A-Za-z0-9_]*|\.?\["[^"\\\x00-\x1f]*"\]|\."[^"\\\x00-\x1f]*")'
_PATH: Final = rf'(?:\$[A-Za-z_][A-Za-z0-9_]*{_STEP}*|(?:\.[A-Za-z_][A-Za-z0-9_]*|\.\["[^"\\\x00-\x1f]*"\]|\."[^"\\\x00-\x1f]*"){_STEP}*|\.)'
_LITERAL: Final = r'(?:"[^"\\\x00-\x1f]*"|-?(?:0|[1-9][0-9]{0,14})(?:\.[0-9]{1,15})?|true|false|null)'
_IS_PATH: Final = re.compile(_PATH)
_COMPARISON: Final = re.compile(rf"(?P<path>{_PATH})\s*(?P<op>==|!=|<=|>=|<|>)\s*(?P<literal>{_LITERAL})")
_JOINED: Final = re.compile(rf"{_COMPARISON.pattern}\s*(?:(?P<joint>and|or)\s+|\Z)")
_STEPS: Final = re.compile(r'\.([A-Za-z_][A-Za-z0-9_]*)|\.?\["([^"]*)"\]|\."([^"]*)"')
_JOINED_MAX: Final = 8
_OPERATORS: Final[Mapping[str, Callable[[Any, Any], bool]]] = {
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_RANKS: Final[Mapping[type, int]] = {type(None): 0, bool: 1, int: 2, float: 2, str: 3, list: 4, dict: 5}
"""jq orders null < booleans < numbers < strings < arrays < objects."""


def plain(program: str) -> Evaluate | None:
    """How to evaluate `program` without jq, or None when it is not one of the plain forms."""
    program = program.strip(" \t\r\n")
    if _IS_PATH.fullmatch(program):
        return _path(program)
    comparisons: list[Evaluate] = []
    joints: set[str] = set()
    position = 0
    while position < len(program):
        found = _JOINED.match(program, position)
        if found is None or len(comparisons) == _JOINED_MAX:
            return None
        comparisons.append(_comparison(_path(found["path"]), found["op"], orjson.loads(found["literal"])))
        joints.add(found["joint"] or "")
        position = found.end()
        if found["joint"] is None:
            break
        if position == len(program):
            return None
    if len(comparisons) == 1:
        return comparisons[0]
    joints.discard("")
    if not comparisons or len(joints) != 1:
        return None
    return _joined(tuple(comparisons), joints == {"and"})


def _path(program: str) -> Evaluate:
    steps = tuple(name or bracketed or quoted for name, bracketed, quoted in _STEPS.findall(program))
    if not program.startswith("$"):
        return _from_value(steps)
    found = re.match(r"\$([A-Za-z0-9_]+)", program)
    assert found is not None
    return _from_argument(found[1], steps)


def _from_value(steps: tuple[str, ...]) -> Evaluate:
    if not steps:
        return lambda value, _arguments: value
    if len(steps) == 1:
        step = steps[0]

        def one(value: Json, _arguments: Mapping[str, Json]) -> Json:
            return value.get(step) if type(value) is dict else _absent(value, step)

        return one

    def many(value: Json, _arguments: Mapping[str, Json]) -> Json:
        for step in steps:
            value = value.get(step) if type(value) is dict else _absent(value, step)
        return value

    return many


def _from_argument(name: str, steps: tuple[str, ...]) -> Evaluate:
    def evaluate(value: Json, arguments: Mapping[str, Json]) -> Json:
        value = arguments[name]
        for step in steps:
            value = value.get(step) if type(value) is dict else _absent(value, step)
        return value

    return evaluate


def _absent(value: Json, step: str) -> Json:
    if value is None:
        return None
    shown = shortened(orjson.dumps(value).decode())
    raise ExpressionError(f'cannot index {shown} with "{step}"')


def _comparison(path: Evaluate, symbol: str, literal: Json) -> Evaluate:
    compare, kind, rank = _OPERATORS[symbol], type(literal), _RANKS[type(literal)]
    numeric, unequal = rank == 2, {"==": False, "!=": True}.get(symbol)

    def evaluate(value: Json, arguments: Mapping[str, Json]) -> Json:
        found = path(value, arguments)
        found_kind = type(found)
        if found_kind is kind and literal is not None:
            return compare(found, literal)
        found_rank = _RANKS[found_kind]
        if numeric and found_rank == 2:  # an integer beside a fraction: jq compares both as fractions
            return compare(float(found), float(literal))
        return compare(found_rank, rank) if unequal is None or found_rank == rank else unequal

    return evaluate


def _joined(comparisons: tuple[Evaluate, ...], conjunction: bool) -> Evaluate:
    def evaluate(value: Json, arguments: Mapping[str, Json]) -> Json:
        for comparison in comparisons:
            if comparison(value, arguments) is not conjunction:
                return not conjunction
        return conjunction

    return evaluate
