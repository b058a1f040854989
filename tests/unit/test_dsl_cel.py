"""CEL: what may be published, what it gives, and that hostile programs harm nobody."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from engine.dsl.cel import MARK, compile_cel, evaluate_marked
from engine.dsl.compile import compile_definition
from engine.dsl.errors import ExpressionError
from engine.dsl.expressions import ExpressionProblem
from engine.dsl.model import Expression, Set, Switch
from engine.tasks.sandbox import ProcessSandbox

ROOT = Path(__file__).parents[2]
AVAILABLE = frozenset({"context", "input", "task"})
DATA: dict[str, Any] = {
    "n": 3,
    "text": "aaa",
    "list": [1, 2, 3],
    "object": {"z": 1, "b": 2, "q": 3},
    "lines": [{"price": 5}, {"price": 8}],
    "long": list(range(500)),
}


class InProcess:
    """The sandbox's port in this process, for programs that a test knows to be harmless."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def evaluate(self, program: str, names: tuple[str, ...], value: bytes, arguments: bytes) -> bytes:
        self.asked.append(program)
        return orjson.dumps(evaluate_marked(program, names, orjson.loads(value), orjson.loads(arguments)))


@pytest.fixture(scope="module")
def sandbox() -> Iterator[ProcessSandbox]:
    found = ProcessSandbox()
    yield found
    found.close()


def given(program: str, value: Any = DATA, **arguments: Any) -> Any:
    return compile_cel(program, AVAILABLE, InProcess()).evaluate(value, arguments)


@pytest.mark.parametrize(
    ("program", "result"),
    [
        ("data.n", 3),
        ("data.n + 1", 4),
        ("data.n > 2 && data.text == 'aaa'", True),
        ("data.n > 5 ? 'many' : 'few'", "few"),
        ("has(data.missing)", False),
        ("data.text + '-' + string(data.n)", "aaa-3"),
        ("2 in data.list", True),
        ("data.list.map(x, x * 2)", [2, 4, 6]),
        ("data.list.filter(x, x > 1)", [2, 3]),
        ("data.list.exists(x, x == 3) // a comment with .map(x, x)", True),
        ("data.object.map(k, k)", ["b", "q", "z"]),
        ("{'z': 1, 'a': [data.n]}", {"a": [3], "z": 1}),
        ("'a.map(b, c)' + data.text", "a.map(b, c)aaa"),
        ("data.list . map (x, '.map(' + string(x))", [".map(1", ".map(2", ".map(3"]),
        ("data.text.matches('^a+$')", True),
        ("data.lines.all(line, line.price < 10)", True),
        ("null", None),
        ("1.5", 1.5),
        ("9007199254740993", 9007199254740993),
        ("string(timestamp('2020-01-01T00:00:00Z') + duration('1h'))", "2020-01-01T01:00:00Z"),
    ],
)
def test_a_program_gives_a_json_value(program: str, result: Any) -> None:
    assert given(program) == result


def test_arguments_are_variables_of_their_names_and_only_those_read_are_needed() -> None:
    expression = compile_cel("context.limit > data.n && input.ok", AVAILABLE)
    assert expression.reads == {"context", "input"}
    assert expression.evaluate({"n": 1}, {"context": {"limit": 2}, "input": {"ok": True}}) is True


def test_a_variable_named_data_hides_the_value() -> None:
    expression = compile_cel("data", AVAILABLE | {"data"})
    assert expression.reads == {"data"}
    assert expression.evaluate(1, {"data": 2}) == 2


@pytest.mark.parametrize(
    ("program", "wish"),
    [
        ("", "found none"),
        ("data.", "Expected a CEL expression but"),
        ("1 == 1.0", "no matching overload"),
        ("nope.x", "undeclared reference"),
        ("$context.x", "Expected a CEL expression"),
        ("now()", "undeclared reference to 'now'"),
        ("data.ordered_()", "ordered_ is no function"),
        ("data." + "x" * 20000, "at most 16384 bytes"),
        ("+".join(["1"] * 2000), "recursion depth"),
        ("(" * 2000 + "1" + ")" * 2000, "Expected a CEL expression"),
        ("'open", "Expected a CEL expression"),
        ("\ud800", "Expected a CEL expression"),
    ],
)
def test_what_is_no_program_is_refused_when_published(program: str, wish: str) -> None:
    with pytest.raises(ExpressionProblem) as caught:
        compile_cel(program, AVAILABLE)
    assert wish in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("program", "wish"),
    [
        ("data.missing", "Key not found"),
        ("data.n / 0", "divide by zero"),
        ("data.text + 1", "No matching overloads"),
        ("9223372036854775807 + data.n", "overflow"),
        ("1.0 / 0.0", "gave inf"),
        ("b'a'", "bytes"),
        ("{1: 2}", "a key that is no text"),
        ("timestamp('2020-01-01T00:00:00Z')", "a timestamp"),
        ("duration('3s')", "a duration"),
        ("type(1)", "a type"),
    ],
)
def test_what_has_no_result_is_an_expression_error(program: str, wish: str) -> None:
    with pytest.raises(ExpressionError, match=wish):
        given(program)


@pytest.mark.parametrize(
    "program",
    [
        "data.list.all(x, x > 0)",
        "data.text.matches(data.text)",
        "+".join(["data.text"] * 20),
        f"[{'data,' * 40}]",
    ],
)
def test_programs_of_unbounded_cost_ask_the_sandbox(program: str) -> None:
    port = InProcess()
    compile_cel(program, AVAILABLE, port).evaluate(DATA, {})
    assert len(port.asked) == 1
    assert port.asked[0].startswith(MARK)
    with pytest.raises(ExpressionError, match="needs the expression sandbox"):
        compile_cel(program, AVAILABLE).evaluate(DATA, {})


def test_the_sandbox_evaluates_cel_beside_jq(sandbox: ProcessSandbox) -> None:
    def of(program: str) -> Expression:
        return compile_cel(program, AVAILABLE, sandbox)

    assert of("data.list.map(x, x + context.n)").evaluate(DATA, {"context": {"n": 1}}) == [2, 3, 4]
    assert sandbox.evaluate(".a", (), b'{"a":1}', b"{}") == b"1"
    with pytest.raises(ExpressionError, match="Key not found"):
        of("data.list.map(x, data.nope)").evaluate(DATA, {})


@pytest.mark.parametrize(
    "program",
    [
        "data.long.map(a, data.long.map(b, data.long.map(c, 1)))",
        "data.long.map(a, data.big + data.big + data.big + data.big)",
        "data.long.map(a, data)",
        "data.big.matches(data.big)",
    ],
)
def test_a_hostile_program_fails_and_the_sandbox_lives_on(sandbox: ProcessSandbox, program: str) -> None:
    value = {"long": DATA["long"], "big": "x" * 200_000}
    with pytest.raises(ExpressionError):
        compile_cel(program, AVAILABLE, sandbox).evaluate(value, {})
    assert compile_cel("data.list.all(x, x > 0)", AVAILABLE, sandbox).evaluate(DATA, {}) is True


def test_every_process_gives_the_same_bytes() -> None:
    program = (
        "import orjson; from engine.dsl.cel import MARK, evaluate_marked, compile_cel;"
        "value = {'m': {str(n * 7919 % 1000): n for n in range(50)}};"
        "inner = type('S', (), {'evaluate': staticmethod(lambda p, n, v, a: orjson.dumps("
        "evaluate_marked(p, n, orjson.loads(v), orjson.loads(a))))});"
        "e = compile_cel(\"{'k': data.m.map(k, k), 'm': data.m, 'f': data.m.filter(k, data.m[k] > 9)}\","
        " frozenset(), inner);"
        "print(orjson.dumps(e.evaluate(value, {})).decode())"
    )
    found = {
        subprocess.run(
            [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
        ).stdout
        for _ in range(3)
    }
    assert len(found) == 1


def test_a_definition_may_be_written_in_cel() -> None:
    definition = compile_definition(
        """
document: {dsl: 1.0.0, namespace: tests, name: cel, version: 1.0.0}
evaluate: {language: cel}
do:
  - choose:
      switch:
        - large: {when: data.amount > context.limit, then: mark}
        - default: {then: end}
  - mark:
      set: {total: '${ data.amount * 2 }', text: data.amount}
"""
    )
    switch, marked = definition.tasks["/do/0/choose"], definition.tasks["/do/1/mark"]
    assert isinstance(switch, Switch)
    assert isinstance(marked, Set)
    when = switch.cases[0].when
    assert when is not None
    assert when.evaluate({"amount": 5}, {"context": {"limit": 4}}) is True
    assert marked.value.evaluate({"amount": 5}, {}) == {"total": 10, "text": "data.amount"}
