"""Runtime expressions: which may be published, where they run, and what they give."""

from __future__ import annotations

import threading
from typing import Any

import jaq
import orjson
import pytest

from engine.dsl.bounds import GUARD, REFUSED, is_linear
from engine.dsl.errors import ExpressionError
from engine.dsl.expressions import ExpressionProblem, compile_expression
from engine.dsl.model import Expression
from engine.dsl.results import single
from engine.dsl.tokens import tokenize

AVAILABLE = frozenset({"context", "input", "task"})


class ThreadSandbox:
    """The port in this process: for programs that a test knows to be harmless. Remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, tuple[str, ...], bytes, bytes]] = []

    def evaluate(self, program: str, names: tuple[str, ...], value: bytes, arguments: bytes) -> bytes:
        self.asked.append((program, names, value, arguments))
        found = jaq.compile(program, vars=names).run(orjson.loads(value), vars=orjson.loads(arguments))
        return orjson.dumps(single(found))


def compiled(program: str) -> Expression:
    return compile_expression(program, AVAILABLE, None)


def refusal(program: str) -> str:
    with pytest.raises(ExpressionProblem) as caught:
        compiled(program)
    return str(caught.value)


@pytest.mark.parametrize(
    "program",
    [
        ".now",
        ".input.env?",
        "{now: 1}",
        "{now}",
        "{a: .b | .c, now: .d}",
        "{a: (1 | 2), now}",
        '{"now": 1}.now',
        '"now env \\(.now)"',
        '.["halt"]',
        "# now\n.a # halt",
        "1 as $now | $now",
        "0 | gmtime | mktime",
        '0 | strftime("%Y")',
        '@text "env \\(.a)"',
        "{input, debug: .x}",
    ],
)
def test_a_refused_name_is_fine_where_it_is_no_call(program: str) -> None:
    compiled(program)


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_a_call_of_what_reads_the_world_is_refused(name: str) -> None:
    for program in (
        name,
        f"{name}(1)",
        f"[{name}]",
        f"{{a: {name}}}",
        f'"x\\({name})"',
        f"1 | {name}",
        f".a[{name}]",
    ):
        refusal(program)


@pytest.mark.parametrize(
    "program",
    [
        "{a: if (1),now,2 then 3 else 4 end}",
        "{a: label $x | 1,now}",
        "{a: label $x | 1,now,2}",
        "{a: def f: 1,now,2; f}",
        "{a: 1 as $x | 2, now, 3}",
        "{(now): 1}",
        "def now: 1; now",
        "def f: now; f",
        ".a as {now: $x} | now",
        "reduce .[] as $x (now; .)",
        "try now",
        "..now",
        "1 # x\\\n | now",
        'import "a" as b; 1',
        'include "a"; 1',
    ],
)
def test_a_call_hidden_from_a_careless_reader_is_refused(program: str) -> None:
    refusal(program)


@pytest.mark.parametrize("name", sorted(REFUSED - {"import", "include", "module", "__loc__"}))
def test_should_a_refused_name_get_past_the_tokens_it_fails_instead_of_working(name: str) -> None:
    with pytest.raises(jaq.ExecutionError, match="is not available"):
        jaq.compile(GUARD + name).run(None)


@pytest.mark.parametrize(
    ("program", "message"),
    [
        ("", "Expected an expression but found none"),
        (" ${  } ", "Expected an expression but found none"),
        (".a |", "Expected a jq expression but expected term at its end"),
        ("nonsense", "undefined filter at 'nonsense'"),
        (".a == =", "Expected a jq expression"),
        ("$output.a", "Expected one of $context, $input, $task but found $output"),
        ("$foo", "but found $foo"),
        ("$ENV.PATH", "found $ENV"),
        ("$__loc__", "found $__loc__"),
        ("(" * 100 + "1" + ")" * 100, "at most 64 levels"),
        ("|".join(["."] * 2000), "at most 500 operators"),
        ("-" * 600 + "1", "at most 500 operators"),
        (f'"{"x" * 17_000}"', "at most 16384 bytes"),
        ("(1", "Expected every bracket closed"),
        ('"a', "Expected every string closed"),
        ("(1]", "Expected brackets in pairs"),
        (".a \x00", "Expected a jq expression but found '\\x00'"),
        ("${ .a } and ${ .b }", "Expected brackets in pairs"),
    ],
)
def test_a_wrong_expression_is_refused_with_a_reason(program: str, message: str) -> None:
    assert message in refusal(program)


def test_secrets_are_refused_where_they_are_not_available() -> None:
    assert "Expected $secrets only in the arguments of a call or run" in refusal("$secrets.token")


def test_the_largest_permitted_program_compiles_on_a_small_stack() -> None:
    programs = ["+".join(["."] * 500), "|".join(["."] * 500), "-" * 500 + "1", "(" * 64 + "1" + ")" * 64]
    failures: list[BaseException] = []

    def compile_all() -> None:
        try:
            for program in programs:
                compiled(program)
        except BaseException as problem:
            failures.append(problem)

    before = threading.stack_size(1 << 20)
    try:
        thread = threading.Thread(target=compile_all)
        thread.start()
        thread.join()
    finally:
        threading.stack_size(before)
    assert failures == []


@pytest.mark.parametrize(
    ("program", "value", "result"),
    [
        (".", {"b": 1, "a": 2}, {"b": 1, "a": 2}),
        ("${ .a.b }", {"a": {"b": 7}}, 7),
        (".missing.deeper", {}, None),
        ("$context.kind", None, "gold"),
        ("$context + {x: .x}", {"x": 1}, {"kind": "gold", "n": 3, "x": 1}),
        ("{ids: [$input, .id]}", {"id": 2}, {"ids": [9, 2]}),
        ("[.items[] | select(.n > 1) | .n] | add", {"items": [{"n": 1}, {"n": 2}, {"n": 3}]}, 5),
        ('if .a then "x" else "y" end', {"a": None}, "y"),
        ("empty", {}, None),
        (".items[] | select(. > 9)", {"items": [1]}, None),
        ('"\\(.a)-\\(.b)"', {"a": 1, "b": [2]}, "1-[2]"),
    ],
)
def test_an_expression_gives_what_jq_gives(program: str, value: Any, result: Any) -> None:
    expression = compile_expression(program, AVAILABLE, ThreadSandbox())
    found = expression.evaluate(value, {"context": {"kind": "gold", "n": 3}, "input": 9})
    assert found == result
    assert orjson.dumps(found) == orjson.dumps(result)


@pytest.mark.parametrize(
    ("program", "value", "detail"),
    [
        (".a", 1, 'cannot index 1 with "a"'),
        (".a.b", {"a": [1]}, 'cannot index [1] with "b"'),
        ("[.a, .b] | first(.[])", {}, "needs the expression sandbox"),
        ("{a: 1} | error", None, '{"a":1}'),
        ("if .a then 1 else error(.b) end", {"b": "no"}, "no"),
        (".a / 0", {"a": 0}, "Expected a JSON value but the expression gave nan"),
        (".a / 0", {"a": 1}, "Expected a JSON value but the expression gave inf"),
        ("[[{x: (.a / 0)}]]", {"a": 0}, "gave nan"),
        (".a + .a", {"a": 2**63}, "Expected a number of at most 64 bits"),
        ("{} | .[1] = 2", None, "the key 1 is not a string"),
    ],
)
def test_an_expression_without_a_json_result_is_an_error(program: str, value: Any, detail: str) -> None:
    with pytest.raises(ExpressionError) as caught:
        compiled(program).evaluate(value, {})
    assert detail in str(caught.value)
    assert caught.value.detail == str(caught.value)


def test_more_than_one_result_is_an_error() -> None:
    with pytest.raises(ExpressionError, match="Expected one result but the expression gave 2"):
        single([1, 2])


def test_an_error_never_repeats_large_data() -> None:
    with pytest.raises(ExpressionError) as caught:
        compiled(".a").evaluate(["x" * 100_000], {})
    assert len(str(caught.value)) < 300


def test_an_expression_reads_only_the_arguments_it_names() -> None:
    assert compiled(".a").reads == frozenset()
    assert compiled('"$context" + .a # $input').reads == frozenset()
    assert compiled("$context.a + $task.name").reads == {"context", "task"}
    assert compiled("1 as $input | $input").reads == frozenset()


def test_the_sandbox_is_given_the_guarded_program_and_the_arguments_it_reads() -> None:
    sandbox = ThreadSandbox()
    expression = compile_expression(".a * $input", AVAILABLE, sandbox)
    assert expression.evaluate({"a": 2}, {"input": 3, "context": {"hidden": True}}) == 6
    assert sandbox.asked == [(GUARD + ".a * $input", ("input",), b'{"a":2}', b'{"input":3}')]


@pytest.mark.parametrize(
    "program",
    [
        ".a + 1",
        ". + {a: 1}",
        "$context + .",
        '.amount > 1000 and .kind == "x" or .z',
        '.a // "x"',
        ".items | length",
        "map(.x) | add",
        "[.items[].price] | add",
        "[.items[] | select(.x > 1) | .y] | length",
        '"\\(.a)-\\(.b)"',
        ".price * 1.21",
        "2 * .a",
        ".items | map({a, b: .c}) | sort_by(.a) | first",
        "with_entries(select(.value != null))",
        ".a as $x | .b + $x",
        ".a |= . + 1",
        'if .a > 1 then "x" elif .b then .c else null end',
    ],
)
def test_everyday_programs_run_in_process(program: str) -> None:
    assert is_linear(program, tokenize(program))


@pytest.mark.parametrize(
    "program",
    [
        "def f: f; f",
        "[range(1e9)]",
        "..",
        "recurse",
        "limit(1; repeat(.))",
        "until(. > 9; . + 1)",
        "while(true; .)",
        "reduce .[] as $x (0; . + $x)",
        ".a * .b",
        '"a" * 1000000000',
        ". * 3 as $x | $x",
        "combinations",
        '"[" | fromjson',
        "tonumber",
        'test("(a{50}){50}b")',
        "[.,.]|" * 12 + ".",
        "tojson|" * 6 + ".",
        "sort|" * 20 + ".",
        "map($context)",
        "[.[] | $context]",
        "[.[] + .b]",
        ".[] + .[]",
        ".[]",
        "map(map(.))",
        "(1,2) + (3,4)",
        "{a: if true,true then 1 else 1 end, b: 1}",
        "[if true,true then 1 else 1 end]",
        f'map("{"x" * 250}")',
        "join(.a)",
        "first(range(9))",
        "@base64",
    ],
)
def test_what_is_not_provably_linear_runs_in_the_sandbox(program: str) -> None:
    assert not is_linear(program, tokenize(program))
    with pytest.raises(ExpressionError, match="needs the expression sandbox"):
        compiled(program).evaluate(None, {"context": None})
