"""CEL, for definitions that declare `evaluate.language: cel`: from a program's text to an Expression. Pure.

CEL has no `.`: the value is the variable `data` (unless the author named a variable so), each runtime argument is a
variable of its own name. The library gives errors as values, and keeps objects in no order: so results are checked
and their keys sorted, and what goes through an object with a macro gets its keys in order (`ordered_` is inserted
before each macro). Invariant: a program gives the same result in every process. The language has no clock, no
randomness and no recursion; programs whose cost grows with more than the size of their data (macros, `matches`,
many concatenations) are evaluated in the sandbox.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from itertools import pairwise
from typing import Any, Final

import orjson
from cel_expr_python import cel  # type: ignore[import-untyped]

from engine.dsl.errors import ExpressionError
from engine.dsl.expressions import ExpressionProblem
from engine.dsl.model import Evaluate, Expression, Json
from engine.dsl.results import check_json, shortened
from engine.dsl.sandbox import Sandbox

MARK: Final = "#cel\n"
"""What a program of this language begins with when it is given to the sandbox; a jq program there never does."""

PROGRAM_BYTES_MAX: Final = 16 * 1024
_PLUS_MAX: Final = 16
_NAMES_MAX: Final = 32
_VALUE: Final = "data"
_MACROS: Final = frozenset({"all", "exists", "exists_one", "existsOne", "filter", "map"})
_ORDERED: Final = "ordered_"
_TOKEN: Final = re.compile(
    r"""(?P<space>\s+|//[^\n]*)"""
    r"""|(?P<text>[rRbB]{0,2}(?:\"{3}.*?(?<!\\)\"{3}|'{3}.*?(?<!\\)'{3}))"""
    r"""|(?P<raw>(?:[rR][bB]?|[bB][rR])(?:"[^"\n]*"|'[^'\n]*'))"""
    r"""|(?P<plain>[bB]?(?:"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*'))"""
    r"""|(?P<name>[A-Za-z_][A-Za-z0-9_]*)|(?P<sign>.)""",
    re.DOTALL,
)
_NO_JSON: Final = "Expected a JSON value but the expression gave"


def compile_cel(text: str, available: frozenset[str], sandbox: Sandbox | None = None) -> Expression:
    """Compiles `text`, without its mark, for a place where the arguments `available` exist. Raises ExpressionProblem."""
    program = text.strip()
    if not program:
        raise ExpressionProblem("Expected an expression but found none")
    if len(program.encode("utf-8", "surrogatepass")) > PROGRAM_BYTES_MAX:
        raise ExpressionProblem(f"Expected an expression of at most {PROGRAM_BYTES_MAX} bytes but found more")
    known = available | {_VALUE}
    _compiled(program, known)  # what the author wrote, so that no message shows what is inserted
    ordered, names, bounded = _prepared(program)
    reads = (names & known) - ({_VALUE} - available)
    evaluate = (
        _in_process(_compiled(ordered, known), reads)
        if bounded
        else _in_sandbox(ordered, tuple(sorted(reads)), sandbox)
    )
    return Expression(text, frozenset(reads), evaluate)


def evaluate_marked(program: str, names: tuple[str, ...], value: Json, arguments: Mapping[str, Json]) -> Json:
    """What the sandbox's process does with a program that begins with MARK. Raises ExpressionError."""
    try:
        compiled = _cached(program.removeprefix(MARK), names)
    except ExpressionProblem as problem:
        raise ExpressionError(str(problem)) from None
    return _result(compiled, {_VALUE: value, **arguments})


@lru_cache(256)
def _cached(program: str, names: tuple[str, ...]) -> cel.Expression:
    return _compiled(program, frozenset(names) | {_VALUE})


def _compiled(program: str, known: frozenset[str]) -> cel.Expression:
    try:
        return _environment(known).compile(program)
    except Exception as problem:
        raise ExpressionProblem(f"Expected a CEL expression but {_reason(str(problem))}") from None


@lru_cache(64)
def _environment(known: frozenset[str]) -> cel.Env:
    dyn, listed = cel.Type.DYN, cel.Type.List(cel.Type.DYN)
    ordered = cel.FunctionDecl(
        _ORDERED,
        [
            cel.Overload(
                f"{_ORDERED}{kind}", return_type=listed, parameters=[given], is_member=True, impl=_order
            )
            for kind, given in (("map", cel.Type.Map(dyn, dyn)), ("list", listed))
        ],
    )
    return cel.NewEnv(variables=dict.fromkeys(sorted(known), dyn), functions=[ordered])


def _order(items: Any) -> Any:
    """A list as it is; an object's keys in order, by kind first because keys need not be text."""
    if hasattr(items, "keys"):
        return sorted(items.keys(), key=lambda key: (type(key).__name__, key))
    return list(items)


def _prepared(program: str) -> tuple[str, frozenset[str], bool]:
    """(`program` with its macros' ranges in order, names that may be variables, whether its cost is bounded)."""
    tokens = [(found.lastgroup, found[0]) for found in _TOKEN.finditer(program)]
    parts: list[str] = []
    names: list[str] = []
    bounded, plus = True, 0
    meaningful = [index for index, (kind, _) in enumerate(tokens) if kind != "space"]
    after = dict(pairwise(meaningful))
    before = ""
    for index, (kind, text) in enumerate(tokens):
        if kind == "name":
            follower = tokens[after[index]][1] if index in after else ""
            if before == ".":
                if follower == "(" and text in _MACROS:
                    bounded = False
                    parts.append(f"{_ORDERED}().")
            else:
                names.append(text)
            if text == "matches" and follower == "(":
                bounded = False
            if text == _ORDERED:
                raise ExpressionProblem(f"Expected a CEL expression but {_ORDERED} is no function of it")
        plus += text == "+"
        parts.append(text)
        if kind != "space":
            before = text
    bounded = bounded and plus <= _PLUS_MAX and len(names) <= _NAMES_MAX
    return "".join(parts), frozenset(names), bounded


def _reason(message: str) -> str:
    """What the library says, in one line: without its codes and its drawing."""
    line = next((one for one in message.splitlines() if one.strip()), "it is none")
    line = re.sub(r"^(?:[A-Z_]+: )?(?:ERROR: )?(?:<input>:(-?\d+):(-?\d+): )?", "", line)
    return shortened(line.replace(" (in container '')", "").replace("[INVALID_ARGUMENT]", "").strip())


def _in_process(compiled: cel.Expression, reads: frozenset[str]) -> Evaluate:
    names = tuple(sorted(reads))

    def evaluate(value: Json, arguments: Mapping[str, Json]) -> Json:
        return _result(compiled, {_VALUE: value, **{name: arguments[name] for name in names}})

    return evaluate


def _in_sandbox(program: str, names: tuple[str, ...], sandbox: Sandbox | None) -> Evaluate:
    marked = MARK + program

    def evaluate(value: Json, arguments: Mapping[str, Json]) -> Json:
        if sandbox is None:
            raise ExpressionError(f"The expression {shortened(program)} needs the expression sandbox")
        try:
            data = orjson.dumps(value)
            given = orjson.dumps({name: arguments[name] for name in names})
        except TypeError as problem:  # nested deeper than orjson writes
            raise ExpressionError(f"Expected data that JSON can hold but {problem}") from None
        return orjson.loads(sandbox.evaluate(marked, names, data, given))

    return evaluate


def _result(compiled: cel.Expression, variables: dict[str, Json]) -> Json:
    try:
        found = compiled.eval(data=variables)
        kind = found.type().name()
        value = found.plain_value()
    except MemoryError:
        raise
    except Exception as problem:
        raise ExpressionError(f"CEL failed: {_reason(str(problem))}") from None
    if kind in ("ERROR", "UNKNOWN"):
        raise ExpressionError(_reason(str(value)))
    try:
        result = _json(value)
    except RecursionError:
        raise ExpressionError(f"{_NO_JSON} one that is nested too deeply") from None
    check_json(result)
    return result


def _json(value: Any) -> Json:
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, list):
        return [_json(one) for one in value]
    if isinstance(value, dict):
        if any(not isinstance(key, str) for key in value):
            raise ExpressionError(f"{_NO_JSON} an object with a key that is no text")
        return {key: _json(value[key]) for key in sorted(value)}
    kind = {"bytearray": "bytes", "datetime": "a timestamp", "timedelta": "a duration"}.get(
        type(value).__name__, "a type"
    )
    raise ExpressionError(f"{_NO_JSON} {kind}; string(…) makes text of it")
