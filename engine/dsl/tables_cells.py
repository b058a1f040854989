"""The cells of a decision table: from what the author wrote to a test of one input's value.

A cell is parsed once, when the definition is compiled; a test costs a comparison or two. Comparing follows JSON and
never converts: a number is compared with numbers only, text with text only (dates as ISO 8601 text order rightly),
true is no number. A value of another kind does not match, and `not(…)` of such a cell does. Pure.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

import orjson

from engine.dsl.model import Json
from engine.dsl.results import shortened

Test = Callable[[Json, Mapping[str, Json]], bool]
"""(the input's value, arguments) -> whether the cell matches. Only a cell with an expression reads the arguments."""

TYPES: Final = ("string", "number", "integer", "boolean", "any")
DEPTH_MAX: Final = 8
PARTS_MAX: Final = 1000
CELL_CHARACTERS_MAX: Final = 16 * 1024

_NUMBER: Final = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")
_COMPARISON: Final = re.compile(r"(<=|>=|!=|==|=|<|>)(.*)", re.DOTALL)
_RANGE: Final = re.compile(r"([\[(\]])(.*)([\])\[])", re.DOTALL)
_QUOTED: Final = r'"(?:[^"\\]|\\.)*"'
_END: Final = rf'(?:{_QUOTED}|(?!\.\.)[^,\[\]()"])*'
_UNIT: Final = re.compile(rf"{_QUOTED}|[\[(\]]{_END}\.\.{_END}[\])\[]", re.DOTALL)
"""What no comma divides: text in quotes, and a range."""
_OPERATORS: Final[Mapping[str, Callable[[Json, Json], bool]]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_WORDS: Final[Mapping[str, Json]] = {"true": True, "false": False, "null": None}


class CellProblem(Exception):
    """`wish` and `found` of an "Expected … but found …"."""

    def __init__(self, wish: str, found: str) -> None:
        super().__init__(f"Expected {wish} but found {found}")
        self.wish = wish
        self.found = found


@dataclass(frozen=True, slots=True)
class Cell:
    """`text` is what is shown of it in an explanation. `test` None: any value matches."""

    text: str
    test: Test | None = field(repr=False)


def same(left: Json, right: Json) -> bool:
    """JSON's equality: 1 equals 1.0, but true is not 1, at any depth."""
    if isinstance(left, bool) or isinstance(right, bool):
        return left is right
    if isinstance(left, int | float) and isinstance(right, int | float):
        return left == right
    if type(left) is not type(right):
        return False
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(same(value, right[key]) for key, value in left.items())
    if isinstance(left, list):
        return len(left) == len(right) and all(map(same, left, right))
    return bool(left == right)


def fits_type(value: Json, wanted: str) -> bool:
    match wanted:
        case "string":
            return isinstance(value, str)
        case "number":
            return isinstance(value, int | float) and not isinstance(value, bool)
        case "integer":
            return not isinstance(value, bool) and (
                isinstance(value, int) or (isinstance(value, float) and value.is_integer())
            )
        case "boolean":
            return isinstance(value, bool)
    return True


def written(value: Json) -> str:
    """A cell as a person may read it."""
    return value if isinstance(value, str) else orjson.dumps(value).decode()


def parse_cell(value: Json, wanted: str) -> Cell:
    """Any cell but an expression. `wanted` is the input's type. Raises CellProblem."""
    text = written(value)
    if len(text) > CELL_CHARACTERS_MAX:
        raise CellProblem(f"a cell of at most {CELL_CHARACTERS_MAX} characters", f"{len(text)} characters")
    if isinstance(value, dict):
        raise CellProblem("a literal, a range, a comparison, a list or an expression", "an object")
    if isinstance(value, list):
        return Cell(text, _any_of([_item(one, wanted) for one in value]))
    if isinstance(value, str):
        return Cell(text, _parse(value, wanted, 0))
    return Cell(text, _equal(_typed(value, wanted)))


def _item(value: Json, wanted: str) -> Test | None:
    """An item of a JSON list: a literal, or text that may be any cell."""
    if isinstance(value, dict | list):
        raise CellProblem(
            "a list of literals", "an object" if isinstance(value, dict) else "a list within it"
        )
    return _parse(value, wanted, 1) if isinstance(value, str) else _equal(_typed(value, wanted))


def _parse(text: str, wanted: str, depth: int) -> Test | None:
    text = text.strip()
    if text in ("", "-"):
        return None
    if depth > DEPTH_MAX:
        raise CellProblem(f"at most {DEPTH_MAX} not(…) within each other", "more")
    parts = _split(text)
    if len(parts) > 1:
        if len(parts) > PARTS_MAX:
            raise CellProblem(f"at most {PARTS_MAX} parts", str(len(parts)))
        if any(not part.strip() for part in parts):
            raise CellProblem("a literal on both sides of a comma", repr(shortened(text)))
        return _any_of([_parse(part, wanted, depth + 1) for part in parts])
    if text.startswith("not(") and text.endswith(")"):
        return _not(_parse(text[4:-1], wanted, depth + 1))
    if (found := _COMPARISON.fullmatch(text)) is not None:
        return _comparison(found[1], _literal(found[2], wanted), text)
    if (found := _RANGE.fullmatch(text)) is not None and ".." in found[2]:
        return _range(found[1], found[2], found[3], wanted)
    return _equal(_literal(text, wanted))


def _split(text: str) -> list[str]:
    """The parts between commas that stand in no quotes, no range and no parentheses."""
    parts: list[str] = []
    begin = index = depth = 0
    while index < len(text):
        sign = text[index]
        if (unit := _UNIT.match(text, index)) is not None:
            index = unit.end()
            continue
        depth += {"(": 1, ")": -1}.get(sign, 0)
        if sign == '"' or depth < 0:
            raise CellProblem("closed quotes and parentheses (or text in quotes)", repr(shortened(text)))
        if sign == "," and depth == 0:
            parts.append(text[begin:index])
            begin = index + 1
        index += 1
    if depth:
        raise CellProblem("closed quotes and parentheses (or text in quotes)", repr(shortened(text)))
    return [*parts, text[begin:]]


def _literal(text: str, wanted: str) -> Json:
    """A literal as text: JSON in quotes, a number, true, false, null; all else is the text itself."""
    text = text.strip()
    if not text:
        raise CellProblem("a literal", "nothing")
    if text.startswith('"'):
        try:
            return _typed(orjson.loads(text), wanted)
        except orjson.JSONDecodeError:
            raise CellProblem('text in quotes such as "a, b"', repr(shortened(text))) from None
    if all(map(_NUMBER.fullmatch, parts := text.split(".."))) and len(parts) == 2:
        raise CellProblem("a range within brackets such as [1..5]", repr(shortened(text)))
    if wanted == "string":
        return None if text == "null" else text
    if text in _WORDS:
        return _typed(_WORDS[text], wanted)
    if _NUMBER.fullmatch(text):
        return _typed(orjson.loads(text), wanted)
    return _typed(text, wanted)


def _typed(value: Json, wanted: str) -> Json:
    """null may stand in any column: it is the input that is missing."""
    if value is not None and not fits_type(value, "number" if wanted == "integer" else wanted):
        raise CellProblem(
            f"a literal of the input's type {wanted}", repr(shortened(orjson.dumps(value).decode()))
        )
    return value


def _equal(literal: Json) -> Test:
    if literal is None or isinstance(literal, bool):
        return lambda value, _arguments: value is literal
    if isinstance(literal, str):
        return lambda value, _arguments: value == literal
    return lambda value, _arguments: value == literal and type(value) is not bool


def _comparison(symbol: str, literal: Json, text: str) -> Test:
    if symbol in ("=", "=="):
        return _equal(literal)
    if symbol == "!=":
        return _not(_equal(literal))
    compare = _OPERATORS[symbol]
    if isinstance(literal, str):
        return lambda value, _arguments: type(value) is str and compare(value, literal)
    if isinstance(literal, bool) or literal is None:
        raise CellProblem("a number or text to compare with", repr(shortened(text)))
    return lambda value, _arguments: type(value) in (int, float) and compare(value, literal)


def _range(left: str, inner: str, right: str, wanted: str) -> Test:
    parts = inner.split("..")
    shown = repr(shortened(f"{left}{inner}{right}"))
    if len(parts) != 2:
        raise CellProblem("a range of two ends such as [1..5]", shown)
    low, high = (_literal(part, wanted) for part in parts)
    texts = isinstance(low, str) and isinstance(high, str)
    if not texts and not (fits_type(low, "number") and fits_type(high, "number")):
        raise CellProblem("two numbers or two texts as the ends of a range", shown)
    if low > high:
        raise CellProblem("a range whose first end is not above its last", shown)
    above = operator.le if left == "[" else operator.lt
    below = operator.le if right == "]" else operator.lt
    if low == high and not (left == "[" and right == "]"):
        raise CellProblem("a range that holds a value", shown)
    if texts:
        return lambda value, _arguments: type(value) is str and above(low, value) and below(value, high)
    return lambda value, _arguments: type(value) in (int, float) and above(low, value) and below(value, high)


def _not(test: Test | None) -> Test:
    if test is None:
        return lambda _value, _arguments: False
    return lambda value, arguments: not test(value, arguments)


def _any_of(tests: list[Test | None]) -> Test | None:
    if any(test is None for test in tests):
        return None
    found = tuple(test for test in tests if test is not None)
    return lambda value, arguments: any(test(value, arguments) for test in found)
