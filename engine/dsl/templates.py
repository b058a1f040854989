"""JSON values some of whose strings are expressions: what `set`, `with`, `from: {…}` and an error's fields hold.

Strict mode: a string is an expression when it is written `${ … }` as a whole, and text otherwise. Loose mode: every
string is tried as an expression, and is text where it is none or where its evaluation fails. What is marked `${ … }`
must be an acceptable expression in both modes, because its author said so. Keys are never expressions. Parts without
an expression are shared between all results.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from engine.dsl.errors import ExpressionError
from engine.dsl.expressions import ExpressionProblem, is_marked
from engine.dsl.model import Evaluate, Expression, Json, Template
from engine.dsl.source import escape

Compile = Callable[[str], Expression]
"""Compiles an expression for the place of the template. Raises ExpressionProblem."""

Report = Callable[[ExpressionProblem, str], None]
"""Told of each unacceptable expression and its pointer."""


def compile_template(
    value: Json, pointer: str, compiled: Compile, report: Report, *, loose: bool
) -> Template:
    """Compiles `value`, found at `pointer`."""
    compiler = _Compiler(compiled, report, loose)
    evaluate = compiler.part(value, pointer)
    if evaluate is None:
        return Template(frozenset(), True, lambda _data, _arguments: value)
    return Template(frozenset(compiler.reads), False, evaluate)


class _Compiler:
    def __init__(self, compiled: Compile, report: Report, loose: bool) -> None:
        self.compiled = compiled
        self.report = report
        self.loose = loose
        self.reads: set[str] = set()

    def part(self, value: Json, pointer: str) -> Evaluate | None:
        """How to evaluate `value`, or None when it is constant."""
        if isinstance(value, str):
            return self.text(value, pointer)
        if isinstance(value, dict):
            made = {key: self.part(item, f"{pointer}/{escape(key)}") for key, item in value.items()}
            if any(made.values()):
                return _object(tuple((key, value[key], evaluate) for key, evaluate in made.items()))
        elif isinstance(value, list):
            items = [self.part(item, f"{pointer}/{index}") for index, item in enumerate(value)]
            if any(items):
                return _array(tuple(zip(value, items, strict=True)))
        return None

    def text(self, text: str, pointer: str) -> Evaluate | None:
        marked = is_marked(text)
        if not marked and not self.loose:
            return None
        try:
            expression = self.compiled(text)
        except ExpressionProblem as problem:
            if marked:
                self.report(problem, pointer)
            return None
        self.reads |= expression.reads
        return _or_text(expression) if self.loose else expression.evaluate


def _object(parts: tuple[tuple[str, Json, Evaluate | None], ...]) -> Evaluate:
    def evaluate(data: Json, arguments: Mapping[str, Json]) -> Json:
        return {key: constant if part is None else part(data, arguments) for key, constant, part in parts}

    return evaluate


def _array(parts: tuple[tuple[Json, Evaluate | None], ...]) -> Evaluate:
    def evaluate(data: Json, arguments: Mapping[str, Json]) -> Json:
        return [constant if part is None else part(data, arguments) for constant, part in parts]

    return evaluate


def _or_text(expression: Expression) -> Evaluate:
    def evaluate(data: Json, arguments: Mapping[str, Json]) -> Json:
        try:
            return expression.evaluate(data, arguments)
        except ExpressionError:
            return expression.source

    return evaluate
