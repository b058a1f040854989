"""Checking the parts of a document: every problem is noted with its place, and the compiler goes on.

A method that finds something wrong notes it and returns a stand-in, so that one pass finds everything; nothing built
from stand-ins ever leaves the room, because the compiler raises when there is any problem. What the specification
knows and this engine does not perform yet is refused as such, never ignored.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from difflib import get_close_matches
from typing import Any, Final

from engine.dsl.errors import Problem
from engine.dsl.expressions import ExpressionProblem, compile_expression, unmarked
from engine.dsl.model import Expression, Json, Schema, Template, Transform
from engine.dsl.results import shortened
from engine.dsl.sandbox import Sandbox
from engine.dsl.schemas import SchemaProblem, compile_schema
from engine.dsl.secrets import SEALED
from engine.dsl.source import Source, escape
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


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The name of `known` that somebody who wrote `name` may have meant."""
    folded = {one.casefold(): one for one in known if one != name}
    found = get_close_matches(name.casefold(), folded, 1, 0.6)
    return folded[found[0]] if found else None


class Checks:
    """What is known while one document is compiled. `problems` is in the order of finding.

    `secrets` are those the document declares; `carried` holds the sealed references that data may bring to a call.
    """

    def __init__(self, source: Source, sandbox: Sandbox | None) -> None:
        self.source = source
        self.sandbox = sandbox
        self.language = "jq"
        self.loose = False
        self.problems: list[Problem] = []
        self.warnings: list[Problem] = []
        self.secrets: frozenset[str] = frozenset()
        self.carried: set[str] = set()
        self._said: set[str] = set()
        self._silent = False
        self._expressions: dict[tuple[str, frozenset[str]], Expression | ExpressionProblem] = {}

    # -- noting -------------------------------------------------------------------------------------------------

    def expected(
        self,
        wish: str,
        found: str,
        pointer: str,
        *,
        at: str | None = None,
        name: str | None = None,
        known: Iterable[str] = (),
    ) -> None:
        """Notes `Expected wish but found …`. `at` names the part whose line is meant, when it is not `pointer`.

        The one of `known` nearest to `name` is offered.
        """
        meant = None if name is None else nearest(name, known)
        after = "" if meant is None else f"; did you mean {meant!r}?"
        self._note(f"Expected {wish} but found {found}", pointer, at, after)

    def missing(self, name: str, pointer: str) -> None:
        self._note(f"Expected the property {name!r} but it is missing", pointer)

    def unsupported(self, what: str, pointer: str, *, at: str | None = None) -> None:
        self._note(what, pointer, at, " is not supported yet")

    def refuse(self, message: str, pointer: str) -> None:
        """Notes a whole sentence that something else found wrong."""
        self._note(message, pointer)

    def warn(self, message: str, pointer: str) -> None:
        self._note(message, pointer, warning=True)

    @contextmanager
    def silently(self) -> Iterator[None]:
        """Notes nothing: what is compiled here was already checked where it is written."""
        before, self._silent = self._silent, True
        try:
            yield
        finally:
            self._silent = before

    def _note(
        self, before: str, pointer: str, at: str | None = None, after: str = "", *, warning: bool = False
    ) -> None:
        if self._silent:
            return
        found = self.source.place(pointer if at is None else at)
        line, column = (None, None) if found is None else found
        place = (pointer or "/") if line is None else f"{pointer or '/'} (line {line})"
        message = f"{before} at {place}{after}"
        if message not in self._said:
            self._said.add(message)
            into = self.warnings if warning else self.problems
            into.append(Problem(message, pointer, line, column))

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
                at = f"{pointer}/{escape(name)}"
                left = [one for one in known if one not in value]
                self.expected(f"one of {', '.join(known)}", repr(name), pointer, at=at, name=name, known=left)
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
                found = self._compile(text, available)
            except ExpressionProblem as problem:
                found = problem
            self._expressions[text, available] = found
        if isinstance(found, ExpressionProblem):
            raise found
        return found

    def _compile(self, text: str, available: frozenset[str]) -> Expression:
        if self.language == "cel":
            from engine.dsl.cel import compile_cel

            return compile_cel(unmarked(text).strip(), available - SEALED, self.sandbox)
        return compile_expression(text, available, self.sandbox, self.secrets)

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

    def template(
        self, value: Json, pointer: str, available: frozenset[str], sealed: set[str] | None = None
    ) -> Template:
        """`sealed` is given the sealed references that the template's expressions make."""

        def compiled(text: str) -> Expression:
            expression = self.compiled(text, available)
            if sealed is not None:
                sealed.update(expression.sealed)
            return expression

        return compile_template(value, pointer, compiled, self.refused, loose=self.loose)

    def constant(self, value: Json) -> Template:
        return Template(frozenset(), True, lambda _data, _arguments: value)

    def expression_or_template(
        self, value: Json, pointer: str, available: frozenset[str]
    ) -> Expression | Template:
        if isinstance(value, dict):
            return self.template(value, pointer, available, self.carried)
        if isinstance(value, str):
            expression = self.expression(value, pointer, available)
            self.carried |= expression.sealed
            return expression
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
        found = self.properties(value, pointer, ("format", "document", "resource"))
        given = found.get("format", "json")
        if given not in _FORMATS:
            if isinstance(given, str):
                self.unsupported(f"schema format {given!r}", f"{pointer}/format")
            else:
                self.expected("a schema format such as json", described(given), f"{pointer}/format")
            return None
        if "document" not in found:
            if "resource" in found:
                return self._unresolved(found["resource"], f"{pointer}/resource")
            if isinstance(value, dict):
                self.missing("document", pointer)
            return None
        try:
            return compile_schema(found["document"])
        except SchemaProblem as problem:
            self._note(str(problem), f"{pointer}/document")
            return None

    def _unresolved(self, value: Json, pointer: str) -> Schema | None:
        """An external schema that nobody put in place of its reference before publishing: no data are valid."""
        endpoint = self.properties(value, pointer, ("name", "endpoint"), required=("endpoint",)).get(
            "endpoint"
        )
        uri = endpoint.get("uri") if isinstance(endpoint, dict) else endpoint
        if not isinstance(uri, str):
            self.expected("an endpoint (a URI or an object)", described(uri), f"{pointer}/endpoint")
            return None
        self.warn(f"The schema {shortened(uri)} was not read, so no data will be valid", pointer)
        detail = (
            f"Expected the schema {shortened(uri)} within the definition but it was not read when published"
        )
        return Schema({}, lambda _value: detail)
