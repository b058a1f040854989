"""Checking the parts of a document: every problem is noted with its place, and the compiler goes on.

A method that finds something wrong notes it and returns a stand-in, so that one pass finds everything; nothing built
from stand-ins ever leaves the room, because the compiler raises when there is any problem. What the specification
knows and this engine does not perform yet is refused as such, never ignored.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

from engine.dsl.errors import Problem
from engine.dsl.expressions import ExpressionProblem, compile_expression
from engine.dsl.model import Expression, Json, Schema, Template, Transform
from engine.dsl.results import shortened
from engine.dsl.sandbox import Sandbox
from engine.dsl.schemas import SchemaProblem, compile_schema
from engine.dsl.source import Source
from engine.dsl.templates import compile_template

EXPRESSIONS_MAX: Final = 1000
"""Different expressions of one definition: compiling one takes up to a millisecond on every node."""

_NOTHING: Final = Expression("null", frozenset(), lambda _value, _arguments: None)
_FORMATS: Final = ("json", "json:2020-12")


def described(value: Any) -> str:
    """A value in a message: short, and with its kind where that helps."""
    match value:
        case None:
            return "nothing"
        case bool():
            return "true" if value else "false"
        case str():
            return shortened(repr(value))
        case int() | float():
            return f"the number {value}"
        case dict():
            return "an object"
        case _:
            return "a list"


class Checks:
    """What is known while one document is compiled. `problems` is in the order of finding."""

    def __init__(self, source: Source, sandbox: Sandbox | None) -> None:
        self.source = source
        self.sandbox = sandbox
        self.loose = False
        self.problems: list[Problem] = []
        self._expressions: dict[tuple[str, frozenset[str]], Expression | ExpressionProblem] = {}

    # -- noting -------------------------------------------------------------------------------------------------

    def expected(self, wish: str, found: str, pointer: str, *, at: str | None = None) -> None:
        """Notes `Expected wish but found …`. `at` names the part whose line is meant, when it is not `pointer`."""
        self._note(f"Expected {wish} but found {found}", pointer, at)

    def missing(self, name: str, pointer: str) -> None:
        self._note(f"Expected the property {name!r} but it is missing", pointer)

    def unsupported(self, what: str, pointer: str, *, at: str | None = None) -> None:
        self._note(what, pointer, at, " is not supported yet")

    def _note(self, before: str, pointer: str, at: str | None = None, after: str = "") -> None:
        found = self.source.place(pointer if at is None else at)
        line, column = (None, None) if found is None else found
        place = (pointer or "/") if line is None else f"{pointer or '/'} (line {line})"
        self.problems.append(Problem(f"{before} at {place}{after}", pointer, line, column))

    # -- parts --------------------------------------------------------------------------------------------------

    def object(self, value: Json, pointer: str) -> dict[str, Json]:
        if isinstance(value, dict):
            return value
        self.expected("an object", described(value), pointer)
        return {}

    def properties(
        self,
        value: Json,
        pointer: str,
        known: Iterable[str],
        *,
        required: Iterable[str] = (),
        unsupported: Iterable[str] = (),
    ) -> dict[str, Json]:
        """`value` as an object of only `known` properties; the ones not supported yet and unknown ones are noted."""
        if not isinstance(value, dict):
            self.expected("an object", described(value), pointer)
            return {}
        known, unsupported = tuple(known), tuple(unsupported)
        for name in value:
            if name in unsupported:
                self.unsupported(name, f"{pointer}/{name}")
            elif name not in known:
                self.expected(f"one of {', '.join(known)}", repr(name), pointer, at=f"{pointer}/{name}")
        for name in required:
            if name not in value:
                self.missing(name, pointer)
        return {name: value[name] for name in known if name in value}

    def text(
        self, value: Json, pointer: str, wish: str = "text", pattern: re.Pattern[str] | None = None
    ) -> str:
        if isinstance(value, str) and (pattern is None or pattern.fullmatch(value)):
            return value
        self.expected(wish, described(value), pointer)
        return ""

    # -- expressions, templates, schemas ------------------------------------------------------------------------

    def compiled(self, text: str, available: frozenset[str]) -> Expression:
        """Compiles `text` once a definition. Raises ExpressionProblem."""
        found = self._expressions.get((text, available))
        if found is None:
            if len(self._expressions) >= EXPRESSIONS_MAX:
                raise ExpressionProblem(
                    f"Expected at most {EXPRESSIONS_MAX} different expressions but found more"
                )
            try:
                found = compile_expression(text, available, self.sandbox)
            except ExpressionProblem as problem:
                found = problem
            self._expressions[text, available] = found
        if isinstance(found, ExpressionProblem):
            raise found
        return found

    def refused(self, problem: ExpressionProblem, pointer: str) -> None:
        if problem.unsupported:
            self.unsupported(str(problem), pointer)
        else:
            self._note(str(problem), pointer)

    def expression(self, value: Json, pointer: str, available: frozenset[str]) -> Expression:
        """A property that is an expression as such, marked `${ … }` or not."""
        if not isinstance(value, str):
            self.expected("an expression (text)", described(value), pointer)
            return _NOTHING
        try:
            return self.compiled(value, available)
        except ExpressionProblem as problem:
            self.refused(problem, pointer)
            return _NOTHING

    def template(self, value: Json, pointer: str, available: frozenset[str]) -> Template:
        return compile_template(
            value, pointer, lambda text: self.compiled(text, available), self.refused, loose=self.loose
        )

    def expression_or_template(
        self, value: Json, pointer: str, available: frozenset[str]
    ) -> Expression | Template:
        if isinstance(value, dict):
            return self.template(value, pointer, available)
        if isinstance(value, str):
            return self.expression(value, pointer, available)
        self.expected("an expression or an object", described(value), pointer)
        return _NOTHING

    def transform(
        self, owner: Mapping[str, Json], name: str, form: str, pointer: str, available: frozenset[str]
    ) -> Transform:
        """The `input`, `output` or `export` (`name`) of `owner`; its expression is called `form`."""
        if name not in owner:
            return Transform()
        at = f"{pointer}/{name}"
        found = self.properties(owner[name], at, ("schema", form))
        schema = self.schema(found["schema"], f"{at}/schema") if "schema" in found else None
        expression = None
        if form in found:
            expression = self.expression_or_template(found[form], f"{at}/{form}", available)
        return Transform(schema, expression)

    def schema(self, value: Json, pointer: str) -> Schema | None:
        found = self.properties(value, pointer, ("format", "document"), unsupported=("resource",))
        given = found.get("format", "json")
        if given not in _FORMATS:
            if isinstance(given, str):
                self.unsupported(f"schema format {given!r}", f"{pointer}/format")
            else:
                self.expected("a schema format such as json", described(given), f"{pointer}/format")
            return None
        if "document" not in found:
            if isinstance(value, dict) and "resource" not in value:
                self.missing("document", pointer)
            return None
        try:
            return compile_schema(found["document"])
        except SchemaProblem as problem:
            self._note(str(problem), f"{pointer}/document")
            return None
