"""Shapes: what the value of a property must look like, as values that can be composed.

A shape is told the value and where it stands, and notes what is wrong. Text written `${ … }` fits every shape, because
what it gives is only known when it is evaluated; whoever uses the result checks it then.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Final

from engine.dsl import durations
from engine.dsl.checks import Checks, described
from engine.dsl.errors import ExpressionError
from engine.dsl.expressions import is_marked
from engine.dsl.model import Json
from engine.dsl.source import escape

Shape = Callable[[Checks, Json, str], None]
"""(checks, value, pointer) -> None."""

URI: Final = re.compile(r"[A-Za-z][A-Za-z0-9+\-.]*://.*", re.DOTALL)


def is_expression(value: Json) -> bool:
    return isinstance(value, str) and is_marked(value)


def anything(_checks: Checks, _value: Json, _pointer: str) -> None:
    return None


def text(wish: str = "text", pattern: re.Pattern[str] | None = None) -> Shape:
    def check(checks: Checks, value: Json, pointer: str) -> None:
        if not is_expression(value):
            checks.text(value, pointer, wish, pattern)

    return check


def scalar(checks: Checks, value: Json, pointer: str) -> None:
    """Text, a number or a boolean: what stands in a header, a query or an environment variable."""
    if not isinstance(value, str | int | float):
        checks.expected("text, a number or a boolean", described(value), pointer)


def boolean(checks: Checks, value: Json, pointer: str) -> None:
    if not is_expression(value) and not isinstance(value, bool):
        checks.expected("true or false", described(value), pointer)


def whole(least: int, most: int) -> Shape:
    def check(checks: Checks, value: Json, pointer: str) -> None:
        if is_expression(value):
            return
        if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
            checks.expected(f"a whole number from {least} to {most}", described(value), pointer)

    return check


def one_of(*names: str) -> Shape:
    def check(checks: Checks, value: Json, pointer: str) -> None:
        if is_expression(value) or value in names:
            return
        name = value if isinstance(value, str) else None
        checks.expected(f"one of {', '.join(names)}", described(value), pointer, name=name, known=names)

    return check


def duration(checks: Checks, value: Json, pointer: str) -> None:
    if is_expression(value):
        return
    if isinstance(value, dict):
        found = checks.properties(value, pointer, tuple(durations.PARTS))
        if len(found) != len(value) or any(is_expression(part) for part in found.values()):
            return
    try:
        durations.read(value)
    except ExpressionError as problem:
        checks.refuse(problem.detail, pointer)


def mapping(of: Shape = anything) -> Shape:
    def check(checks: Checks, value: Json, pointer: str) -> None:
        if not is_expression(value):
            for name, item in checks.object(value, pointer).items():
                of(checks, item, f"{pointer}/{escape(name)}")

    return check


def listing(of: Shape = anything) -> Shape:
    def check(checks: Checks, value: Json, pointer: str) -> None:
        if is_expression(value):
            return
        if not isinstance(value, list):
            checks.expected("a list", described(value), pointer)
            return
        for index, item in enumerate(value):
            of(checks, item, f"{pointer}/{index}")

    return check


def record(required: tuple[str, ...] = (), **shapes: Shape) -> Shape:
    """An object of these properties and no others."""
    return open_record(shapes, required)


def open_record(shapes: Mapping[str, Shape], required: tuple[str, ...] = ()) -> Shape:
    """As `record`, for properties whose names are no identifiers."""

    def check(checks: Checks, value: Json, pointer: str) -> None:
        if is_expression(value):
            return
        found = checks.properties(value, pointer, tuple(shapes), required=required)
        for name, item in found.items():
            shapes[name](checks, item, f"{pointer}/{escape(name)}")

    return check


def exactly_one(*groups: tuple[str, ...]) -> Shape:
    """Of each group of properties, one is there."""

    def check(checks: Checks, value: Json, pointer: str) -> None:
        if not isinstance(value, dict):
            return
        for names in groups:
            given = [name for name in names if name in value]
            if len(given) != 1:
                found = " and ".join(given) or "none of them"
                checks.expected(f"exactly one of {', '.join(names)}", found, pointer)

    return check


def both(*shapes: Shape) -> Shape:
    def check(checks: Checks, value: Json, pointer: str) -> None:
        for shape in shapes:
            shape(checks, value, pointer)

    return check


def text_or(other: Shape) -> Shape:
    """Any text, or what `other` says."""

    def check(checks: Checks, value: Json, pointer: str) -> None:
        if not isinstance(value, str):
            other(checks, value, pointer)

    return check
