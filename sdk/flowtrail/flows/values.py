"""Traced values: what stands in a flow function for data that exist only when the flow runs.

A Value is a jq expression on the flow's data and the sources it reads. Attributes, keys and operators give further
Values; whatever would need the datum itself (`if`, `for`, `len`, text) is refused with the name of what to use instead.
Nothing here records a step. Data of a flow: `{"input": …, "<step>": <its result>, …}`, handed from task to task.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final, NoReturn

import msgspec

from flowtrail.errors import InputError

_IDENTIFIER: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
WORDS: Final = frozenset(
    [
        "and",
        "or",
        "not",
        "if",
        "then",
        "elif",
        "else",
        "end",
        "as",
        "def",
        "reduce",
        "foreach",
        "try",
        "catch",
        "label",
        "import",
        "include",
        "null",
        "true",
        "false",
    ]
)


class Source:
    """Where data come from: the input, a step's result, a loop's item. `block` is the block of steps that knows it.

    `used` tells whether anything reads it: a result nobody reads is not kept.
    """

    __slots__ = ("block", "name", "used")

    def __init__(self, name: str, block: object) -> None:
        self.name = name
        self.block = block
        self.used = False


class Value:
    """Every attribute that does not begin with `_` is a property of the datum."""

    __slots__ = ("_atom", "_sources", "_text")
    _text: str
    _sources: frozenset[Source]
    _atom: bool

    def __init__(self, text: str, sources: frozenset[Source], atom: bool = True) -> None:
        self._text = text
        self._sources = sources
        self._atom = atom

    # -- parts --------------------------------------------------------------------------------------------------

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return self[name]

    def __getitem__(self, key: Any) -> Any:
        owner = "" if self._text == "." else _atom(self)
        if isinstance(key, str) and _IDENTIFIER.fullmatch(key) and key not in WORDS:
            return Value(f"{owner}.{key}", self._sources)
        if isinstance(key, slice):
            raise InputError("Expected one index of a traced value but found a slice")
        found, sources = expression(key)
        return Value(f"{owner or '.'}[{found}]", self._sources | sources)

    def __setattr__(self, name: str, value: Any) -> None:
        if name not in Value.__slots__:
            _refuse(f"its {name} was set", "build a new dict")
        object.__setattr__(self, name, value)

    # -- operators ----------------------------------------------------------------------------------------------

    def __add__(self, other: Any) -> Any:
        return combined(self, "+", other)

    def __radd__(self, other: Any) -> Any:
        return combined(other, "+", self)

    def __sub__(self, other: Any) -> Any:
        return combined(self, "-", other)

    def __rsub__(self, other: Any) -> Any:
        return combined(other, "-", self)

    def __mul__(self, other: Any) -> Any:
        return combined(self, "*", other)

    def __rmul__(self, other: Any) -> Any:
        return combined(other, "*", self)

    def __truediv__(self, other: Any) -> Any:
        return combined(self, "/", other)

    def __rtruediv__(self, other: Any) -> Any:
        return combined(other, "/", self)

    def __neg__(self) -> Any:
        return combined(0, "-", self)

    def __eq__(self, other: object) -> Any:
        return combined(self, "==", other)

    def __ne__(self, other: object) -> Any:
        return combined(self, "!=", other)

    def __lt__(self, other: Any) -> Any:
        return combined(self, "<", other)

    def __le__(self, other: Any) -> Any:
        return combined(self, "<=", other)

    def __gt__(self, other: Any) -> Any:
        return combined(self, ">", other)

    def __ge__(self, other: Any) -> Any:
        return combined(self, ">=", other)

    def __and__(self, other: Any) -> Any:
        return combined(self, "and", other)

    def __rand__(self, other: Any) -> Any:
        return combined(other, "and", self)

    def __or__(self, other: Any) -> Any:
        return combined(self, "or", other)

    def __ror__(self, other: Any) -> Any:
        return combined(other, "or", self)

    __hash__ = None  # type: ignore[assignment]

    # -- what needs the datum itself ----------------------------------------------------------------------------

    def __bool__(self) -> NoReturn:
        _refuse("Python asked whether it is true", "use when(condition, then, otherwise), & and |, not_(…)")

    def __iter__(self) -> Iterator[Any]:
        _refuse("Python iterated over it", "use each(items, function)")

    def __len__(self) -> int:
        _refuse("Python asked for its length", "use size(value)")

    def __contains__(self, item: object) -> bool:
        _refuse("Python asked what it contains", "use when(…) with comparisons")

    def __int__(self) -> int:
        _refuse("Python made a number of it", "compute in a task")

    __index__ = __int__

    def __float__(self) -> float:
        _refuse("Python made a number of it", "compute in a task")

    def __str__(self) -> str:
        _refuse("Python made text of it", "put texts together with +")

    def __format__(self, _: str) -> str:
        _refuse("Python made text of it", "put texts together with +")

    def __call__(self, *_: Any, **__: Any) -> NoReturn:
        _refuse("Python called it", "call a function that is a task")

    def __repr__(self) -> str:
        return f"<value {self._text}>"


def _refuse(found: str, instead: str) -> NoReturn:
    wish = "Expected a traced value to be handed on (it exists only when the flow runs)"
    raise InputError(f"{wish} but {found}; {instead}")


def combined(left: Any, operator: str, right: Any) -> Value:
    (first, some), (second, others) = operand(left), operand(right)
    return Value(f"{first} {operator} {second}", some | others, atom=False)


def not_(value: Any) -> Any:
    """`not`, also of a traced value."""
    return Value(f"{_atom(value)} | not", value._sources, atom=False) if is_traced(value) else not value


def size(value: Any) -> Any:
    """`len`, also of a traced value."""
    return Value(f"{_atom(value)} | length", value._sources, atom=False) if is_traced(value) else len(value)


def default(value: Any, other: Any) -> Any:
    """`value`, or `other` where it is None (absent)."""
    if not is_traced(value):
        return other if value is None else value
    found, sources = expression(other)
    text = f"if {value._text} == null then {found} else {value._text} end"
    return Value(f"({text})", value._sources | sources)


def is_traced(value: Any) -> bool:
    return isinstance(value, Value)


# -- writing --------------------------------------------------------------------------------------------------------


def template(value: Any) -> tuple[Any, frozenset[Source]]:
    """`value` as it stands in a document: constants as they are, traced parts as `${ … }`."""
    value = _plain(value)
    if isinstance(value, Value):
        return f"${{ {value._text} }}", value._sources
    if isinstance(value, Mapping):
        parts = {_key(name): template(part) for name, part in value.items()}
        return {name: made for name, (made, _) in parts.items()}, _union(s for _, s in parts.values())
    if isinstance(value, list | tuple):
        items = [template(part) for part in value]
        return [made for made, _ in items], _union(s for _, s in items)
    if isinstance(value, str) and value.strip().startswith("${"):
        return f"${{ {_constant(value)} }}", frozenset()
    _constant(value)
    return value, frozenset()


def expression(value: Any) -> tuple[str, frozenset[Source]]:
    """A jq program for `value`, traced or not, and what it reads."""
    value = _plain(value)
    if isinstance(value, Value):
        return value._text, value._sources
    if isinstance(value, Mapping):
        parts = {_key(name): operand(part) for name, part in value.items()}
        text = ", ".join(f"{_constant(name)}: {made}" for name, (made, _) in parts.items())
        return f"{{{text}}}", _union(s for _, s in parts.values())
    if isinstance(value, list | tuple):
        items = [operand(part) for part in value]
        return f"[{', '.join(made for made, _ in items)}]", _union(s for _, s in items)
    return _constant(value), frozenset()


def operand(value: Any) -> tuple[str, frozenset[Source]]:
    """As `expression`, ready to stand beside an operator."""
    text, sources = expression(value)
    simple = not isinstance(value, Value) or value._atom
    return (text if simple and not text.startswith("-") else f"({text})"), sources


def _atom(value: Value) -> str:
    return value._text if value._atom else f"({value._text})"


def _union(sets: Iterator[frozenset[Source]]) -> frozenset[Source]:
    return frozenset().union(*sets)


def _key(name: Any) -> str:
    if not isinstance(name, str):
        raise InputError(f"Expected the names of a dict to be text but found {name!r}")
    return name


def _constant(value: Any) -> str:
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError):
        raise InputError(f"Expected data that JSON can hold but found {value!r}") from None


def _plain(value: Any) -> Any:
    """Records as dicts, dates and the like as JSON has them; what may hold traced values stays as it is."""
    if value is None or isinstance(value, Value | str | bool | int | float | list | tuple | Mapping):
        return value
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if isinstance(value, msgspec.Struct):
        return msgspec.structs.asdict(value)
    try:
        return msgspec.to_builtins(value)
    except (TypeError, ValueError):
        raise InputError(f"Expected data that JSON can hold but found {value!r}") from None
