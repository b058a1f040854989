"""Errors as a definition writes them: those it raises, and the filters of those it catches."""

from __future__ import annotations

import re
from typing import Final

from engine.dsl.checks import Checks, described
from engine.dsl.expressions import is_marked
from engine.dsl.model import Json, Template
from engine.dsl.shapes import URI

_JSON_POINTER: Final = re.compile(r"(?:/(?:[^~/]|~[01])*)*")
_FILTER: Final = ("type", "status", "instance", "title", "detail", "details")


def compile_error(checks: Checks, value: Json, pointer: str, available: frozenset[str]) -> Template:
    """An error to raise: `{type, status, instance?, title?, detail?}`; all but the status may be expressions."""
    known = ("type", "status", "instance", "title", "detail")
    found = checks.properties(value, pointer, known, required=("type", "status"))
    for name, wish, pattern in (
        ("type", "an absolute URI or an expression", URI),
        ("instance", "a JSON pointer or an expression", _JSON_POINTER),
        ("title", "text", None),
        ("detail", "text", None),
    ):
        given = found.get(name, "")
        if name in found and not (isinstance(given, str) and is_marked(given)):
            checks.text(given, f"{pointer}/{name}", wish, pattern)
    status = found.get("status", 0)
    if not isinstance(status, int) or isinstance(status, bool):
        checks.expected("a whole number", described(status), f"{pointer}/status")
    return checks.template(found, pointer, available)


def compile_error_filter(
    checks: Checks, value: Json, pointer: str, available: frozenset[str]
) -> Template | None:
    """`catch.errors`: the properties an error must have. `details` is the specification's other name of `detail`."""
    wanted = checks.properties(value, pointer, ("with",)).get("with")
    if wanted is None:
        return None
    at = f"{pointer}/with"
    found = checks.properties(wanted, at, _FILTER)
    if wanted == {}:
        checks.expected("at least one property of an error", "none", at)
    for name, given in found.items():
        if isinstance(given, str) and is_marked(given):
            continue
        if name == "status" and (not isinstance(given, int) or isinstance(given, bool)):
            checks.expected("a whole number", described(given), f"{at}/status")
        elif name != "status":
            checks.text(given, f"{at}/{name}")
    renamed = {"detail" if name == "details" else name: given for name, given in found.items()}
    return checks.template(renamed, at, available)
