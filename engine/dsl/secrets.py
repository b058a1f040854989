"""Sealed references: what an expression gets instead of a secret.

A secret never enters the engine. `$secrets.db.password` evaluates to the text `⟦secret:db/password⟧`, which the worker
that performs the call replaces just before use. A program that reads a secret may therefore only place it: paths,
object and array construction, `+` and string interpolation. A secret that the definition does not declare is sealed
as `⟦secret:/name⟧`, which no worker can open: the call fails as forbidden. Data of callers may hold the same marks, so
arguments are refused when they hold a reference that their own expressions did not make.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Final

import orjson

from engine.dsl.errors import ExpressionError
from engine.dsl.model import Json, Template
from engine.dsl.source import escape
from engine.dsl.tokens import Token

SEALED: Final = frozenset({"secrets", "authorization"})
"""The runtime arguments that are sealed."""

OPENED: Final = "\u27e6"
CLOSED: Final = "\u27e7"
REFERENCE: Final = re.compile("\u27e6((?:secret|authorization):[^\u27e6\u27e7]*)\u27e7")
"""A sealed reference within a text; its first group is `secret:NAME/path/…` or `authorization:scheme|parameter`."""

MARKS: Final = (OPENED.encode(), rb"\u27e6", rb"\u27E6")
"""JSON without one of these bytes holds no sealed reference."""

_CONSTANTS: Final = frozenset({"null", "true", "false"})
_OPERATORS: Final = frozenset({".", "+", ",", ":"})
_AUTHORIZATION: Final = ("scheme", "parameter")


class SealProblem(Exception):
    """A program that does more with a secret than to place it."""


def sealed(kind: str, path: str) -> str:
    return f"{OPENED}{kind}:{path}{CLOSED}"


def secret(name: str, declared: frozenset[str], *path: str) -> str:
    """The sealed reference to a part of the secret `name`; parts are escaped as in JSON pointers."""
    parts = "/".join(escape(part) for part in (name, *path))
    return sealed("secret", parts if name in declared else f"/{parts}")


def sealed_values(tokens: list[Token], declared: frozenset[str]) -> tuple[dict[str, Json], frozenset[str]]:
    """The values of `$secrets` and `$authorization` with exactly the parts that the program reads. Raises SealProblem."""
    values: dict[str, Json] = {}
    references: set[str] = set()
    position = 0
    while position < len(tokens):
        token = tokens[position]
        position += 1
        if token.kind == "variable" and token.text.removeprefix("$") in SEALED:
            path, position = _path(tokens, position)
            reference = _reference(token.text, path, declared)
            references.add(reference)
            _place(values, (token.text.removeprefix("$"), *path), reference)
        else:
            _check(token)
    return values, frozenset(references)


def _reference(variable: str, path: list[str], declared: frozenset[str]) -> str:
    if variable == "$secrets":
        if not path:
            raise SealProblem("Expected $secrets with a secret's name but found it alone")
        return secret(path[0], declared, *path[1:])
    if len(path) != 1 or path[0] not in _AUTHORIZATION:
        raise SealProblem("Expected $authorization.scheme or $authorization.parameter but found another path")
    return sealed("authorization", path[0])


def _check(token: Token) -> None:
    match token.kind:
        case "operator" if token.text not in _OPERATORS:
            found = token.text
        case "name" if token.text not in _CONSTANTS:
            found = token.text
        case "format":
            found = token.text
        case _:
            return
    wish = "paths, objects, arrays, + and \\( ) in a program that reads a secret"
    raise SealProblem(f"Expected only {wish} but found {found}")


def _path(tokens: list[Token], position: int) -> tuple[list[str], int]:
    """The constant path that begins at `position`, and where it ends."""
    path: list[str] = []
    while position < len(tokens):
        kinds = [token.kind for token in tokens[position : position + 4]]
        texts = [token.text for token in tokens[position : position + 4]]
        if kinds[0] == "field":
            path.append(texts[0][1:])
            position += 1
        elif kinds[:3] == ["open", "string", "close"] and texts[0] == "[":
            path.append(_text(texts[1]))
            position += 3
        elif kinds == ["operator", "open", "string", "close"] and texts[:2] == [".", "["]:
            path.append(_text(texts[2]))
            position += 4
        elif kinds[:2] == ["operator", "string"] and texts[0] == ".":
            path.append(_text(texts[1]))
            position += 2
        else:
            if kinds[0] == "open" and texts[0] == "[":
                raise SealProblem("Expected a constant name after $secrets but found a computed one")
            break
    return path, position


def _text(written: str) -> str:
    try:
        return str(orjson.loads(f'"{written}"'))
    except orjson.JSONDecodeError:
        raise SealProblem(f"Expected a constant name but found {written!r}") from None


def _place(values: dict[str, Json], path: tuple[str, ...], reference: str) -> None:
    node: Any = values
    for part in path[:-1]:
        node = node.setdefault(part, {})
        if not isinstance(node, dict):
            raise SealProblem("Expected a secret as a whole or parts of it but found both")
    if node.setdefault(path[-1], reference) != reference:
        raise SealProblem("Expected a secret as a whole or parts of it but found both")


# -- arguments ----------------------------------------------------------------------------------------------------


def guarded(template: Template, own: frozenset[str] | set[str], carried: set[str]) -> Template:
    """`template`, which fails when its result holds a reference that is neither its `own` nor `carried` by data."""
    if template.constant:
        return template
    evaluate = template.evaluate

    def checked(value: Json, arguments: Mapping[str, Json]) -> Json:
        result = evaluate(value, arguments)
        _refuse_foreign(result, own, carried)
        return result

    return Template(template.reads, False, checked)


def input_check(carried: set[str]) -> Callable[[Json], None]:
    """For calls whose arguments are their input."""
    return lambda value: _refuse_foreign(value, frozenset(), carried)


def _refuse_foreign(result: Json, own: frozenset[str] | set[str], carried: set[str]) -> None:
    pending = [result]
    while pending:
        value = pending.pop()
        kind = type(value)
        if kind is str:
            if OPENED not in value:
                continue
            for found in REFERENCE.finditer(value):
                if found[0] not in own and found[0] not in carried:
                    raise ExpressionError(
                        f"Expected arguments without references to secrets but data hold {found[1]!r}"
                    )
        elif kind is dict:
            pending.extend(value.values())
        elif kind is list:
            pending.extend(value)
