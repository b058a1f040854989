"""From the text of a runtime expression to something that can be evaluated.

Publish-time order: form and limits (tokens), refused names, jaq's own parser, the runtime arguments available at this
place. Three ways to evaluate, chosen once: without jq (paths), jq in this process (proven linear), jq in the sandbox.
Every way gives the same result for the same data. An argument that a program does not read is never passed.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import jaq
import orjson

from engine.dsl.bounds import GUARD, is_linear, refused
from engine.dsl.errors import ExpressionError
from engine.dsl.model import Evaluate, Expression, Json
from engine.dsl.paths import plain
from engine.dsl.results import shortened, single
from engine.dsl.sandbox import Sandbox
from engine.dsl.secrets import SEALED, SealProblem, sealed_values
from engine.dsl.tokens import FormError, tokenize


class ExpressionProblem(Exception):
    """An expression that no definition may contain at this place. `unsupported` when the DSL knows what it asks for."""

    def __init__(self, message: str, *, unsupported: bool = False) -> None:
        super().__init__(message)
        self.unsupported = unsupported


def is_marked(text: str) -> bool:
    """Whether `text` as a whole is written `${ … }`."""
    text = text.strip()
    return text.startswith("${") and text.endswith("}")


def unmarked(text: str) -> str:
    """The program within `${ … }`, or `text` itself when it is not marked."""
    return text.strip()[2:-1] if is_marked(text) else text


def compile_expression(
    text: str,
    available: frozenset[str],
    sandbox: Sandbox | None,
    secrets: frozenset[str] = frozenset(),
) -> Expression:
    """Compiles `text`, marked or not, for a place where the arguments `available` exist. Raises ExpressionProblem.

    `secrets` are those the definition declares. What is sealed is given here, so `reads` does not name it.
    """
    program = unmarked(text).strip()
    if not program:
        raise ExpressionProblem("Expected an expression but found none")
    try:
        tokens = tokenize(program)
    except FormError as problem:
        raise ExpressionProblem(str(problem)) from None
    if (name := refused(tokens)) is not None:
        raise ExpressionProblem(f"Expected an expression that depends on its data alone but found {name}")
    try:
        analysis = jaq.analyze(program)
    except jaq.CompileError as problem:
        raise ExpressionProblem(f"Expected a jq expression but {_reason(problem)}") from None
    _check_arguments(analysis.vars, available)
    names = tuple(sorted(analysis.vars))
    if (evaluate := plain(program)) is None:
        try:
            compiled = jaq.compile(GUARD + program, vars=names)
        except jaq.CompileError as problem:
            raise ExpressionProblem(f"Expected a jq expression but {_reason(problem)}") from None
        if is_linear(program, tokens):
            evaluate = _in_process(compiled, analysis)
        else:
            evaluate = _in_sandbox(program, names, sandbox)
    if SEALED.isdisjoint(names):
        return Expression(text, frozenset(names), evaluate)
    try:
        values, references = sealed_values(tokens, secrets)
    except SealProblem as problem:
        raise ExpressionProblem(str(problem)) from None
    return Expression(text, frozenset(names) - SEALED, _with(values, evaluate), references)


def _with(values: Mapping[str, Json], evaluate: Evaluate) -> Evaluate:
    return lambda value, arguments: evaluate(value, {**arguments, **values})


def _check_arguments(variables: Mapping[str, Any], available: frozenset[str]) -> None:
    for name in sorted(variables):
        if name not in available:
            if name in SEALED:
                wish = "only in the arguments of a call or run, in an authentication or in input.from"
                raise ExpressionProblem(f"Expected ${name} {wish} but found it")
            wanted = ", ".join(f"${known}" for known in sorted(available))
            wish = f"one of {wanted}" if wanted else "no runtime argument"
            raise ExpressionProblem(f"Expected {wish} but found ${name}")


def _reason(problem: jaq.CompileError) -> str:
    """What jaq says, in one line: its first line, and the part of the program that its drawing underlines."""
    lines = [line for line in str(problem).splitlines() if line.strip()]
    head = lines[0].removeprefix("Error: ") if lines else "it is none"
    for code, marks in pairwise(lines):
        if "┬" in marks:
            part = code[min(marks.index(mark) for mark in "─┬" if mark in marks) :]
            part = part[: len(marks.strip("┆ "))].strip()
            return shortened(f"{head} at {part!r}" if part else f"{head} at its end")
    return shortened(head)


def _in_process(compiled: jaq.Filter, analysis: jaq.Analysis) -> Evaluate:
    run, reads_input = compiled.run, analysis.reads_input
    wanted = tuple(
        (name, None if keys is None else tuple(sorted(keys))) for name, keys in sorted(analysis.vars.items())
    )

    def evaluate(value: Json, arguments: Mapping[str, Json]) -> Json:
        given = {name: _needed(arguments[name], keys) for name, keys in wanted}
        try:
            return single(run(value if reads_input else None, vars=given))
        except (jaq.JaqError, TypeError, ValueError) as problem:
            raise ExpressionError(shortened(str(problem))) from None
        except BaseException as problem:
            if type(problem).__module__ != "pyo3_runtime":
                raise
            raise ExpressionError(f"jq failed: {shortened(str(problem))}") from None  # a panic of jaq's own

    return evaluate


def _needed(argument: Json, keys: tuple[str, ...] | None) -> Json:
    """Only the keys that the program reads: jaq converts everything it is given."""
    if keys is None or type(argument) is not dict or len(argument) <= len(keys):
        return argument
    return {key: argument[key] for key in keys if key in argument}


def _in_sandbox(program: str, names: tuple[str, ...], sandbox: Sandbox | None) -> Evaluate:
    guarded = GUARD + program

    def evaluate(value: Json, arguments: Mapping[str, Json]) -> Json:
        if sandbox is None:
            raise ExpressionError(f"The expression {shortened(program)} needs the expression sandbox")
        try:
            data = orjson.dumps(value)
            given = orjson.dumps({name: arguments[name] for name in names})
        except TypeError as problem:  # nested deeper than orjson writes
            raise ExpressionError(f"Expected data that JSON can hold but {problem}") from None
        return orjson.loads(sandbox.evaluate(guarded, names, data, given))

    return evaluate
