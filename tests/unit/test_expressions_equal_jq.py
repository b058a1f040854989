"""The ways to evaluate agree: the plain forms with jaq on arbitrary JSON, and the cost bound with what programs give."""

from __future__ import annotations

from typing import Any

import jaq
import orjson
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.dsl.bounds import _COST_MAX, is_linear
from engine.dsl.errors import ExpressionError
from engine.dsl.expressions import compile_expression
from engine.dsl.paths import plain
from engine.dsl.results import check_json
from engine.dsl.tokens import tokenize

NAMES = st.sampled_from(["a", "b", "and", "_x", "now"])
TEXTS = st.sampled_from(["", "a", "b", "é", "x", "ab", "Z", "😀", "\uffff", "1"])
NUMBERS = st.integers(-3, 3) | st.sampled_from(
    [2**53, 2**53 + 1, -(2**63), 2**64 - 1, 0.0, -0.0, 1.0, 0.1, -1.5, 1e15, 1e300, 9007199254740992.0]
)
LEAVES = st.none() | st.booleans() | NUMBERS | TEXTS
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES | TEXTS, inner, max_size=4),
    max_leaves=10,
)


@st.composite
def paths(draw: st.DrawFn) -> str:
    steps = draw(st.lists(st.tuples(st.integers(0, 3), NAMES, TEXTS), max_size=3))
    forms = [(f".{name}", f'["{text}"]', f'."{text}"', f'.["{name}"]')[form] for form, name, text in steps]
    root = draw(st.sampled_from(["", "$context"]))
    if root:
        return root + "".join(forms)
    program = "".join(forms)
    return program if program.startswith(".") else f".{program}"


@st.composite
def comparisons(draw: st.DrawFn) -> str:
    symbol = draw(st.sampled_from(["==", "!=", "<", "<=", ">", ">="]))
    numbers = st.integers(-3, 3) | st.sampled_from([0.1, 1.0, -1.5, 999999999999999])
    literal = draw(
        st.one_of(TEXTS, numbers, st.booleans(), st.none()).map(lambda v: orjson.dumps(v).decode())
    )
    space = draw(st.sampled_from(["", " ", "  "]))
    return f"{draw(paths())}{space}{symbol}{space}{literal}"


def outcome(program: str, value: Any, context: Any) -> Any:
    evaluate = plain(program)
    assert evaluate is not None, program
    try:
        return [evaluate(value, {"context": context})]
    except ExpressionError as problem:
        return ["failed", str(problem)]


def by_jaq(program: str, value: Any, context: Any) -> Any:
    try:
        return jaq.compile(program, vars=["context"]).run(value, vars={"context": context})
    except jaq.ExecutionError as problem:
        return ["failed", str(problem)]


def same(program: str, value: Any, context: Any) -> None:
    ours, theirs = outcome(program, value, context), by_jaq(program, value, context)
    if ours[:1] == ["failed"] and len(ours) == 2:
        assert theirs[:1] == ["failed"], (program, value, context, theirs)
        assert len(theirs) == 2
        return
    assert orjson.dumps(ours) == orjson.dumps(theirs), (program, value, context)


def is_json(value: Any) -> bool:
    try:
        check_json(value)
    except ExpressionError:
        return False
    return True


@given(paths(), VALUES, VALUES)
@settings(max_examples=150, deadline=None)
def test_a_plain_path_gives_what_jaq_gives(program: str, value: Any, context: Any) -> None:
    same(program, value, context)


@given(comparisons(), VALUES, VALUES)
@settings(max_examples=200, deadline=None)
def test_a_comparison_with_a_literal_gives_what_jaq_gives(program: str, value: Any, context: Any) -> None:
    same(program, value, context)


@given(st.sampled_from([".", "$context"]), st.data())
@settings(max_examples=150, deadline=None)
def test_a_leaf_is_ordered_beside_a_literal_as_jaq_orders_it(root: str, data: st.DataObject) -> None:
    program = data.draw(comparisons())
    symbol = next(s for s in ("==", "!=", "<=", ">=", "<", ">") if s in program)
    literal = program.rpartition(symbol)[2]
    leaf: Any = data.draw(LEAVES | st.just([]) | st.just({}))
    same(f"{root} {symbol} {literal.strip()}", leaf, leaf)


@given(st.lists(comparisons(), min_size=2, max_size=4), st.sampled_from([" and ", " or "]), VALUES, VALUES)
@settings(max_examples=80, deadline=None)
def test_joined_comparisons_give_what_jaq_gives(
    parts: list[str], joint: str, value: Any, context: Any
) -> None:
    same(joint.join(parts), value, context)


def test_mixed_joints_and_escapes_are_left_to_jaq() -> None:
    for program in (
        ".a == 1 and .b == 2 or .c == 3",
        '.a == "x\\n"',
        '.a == "\\(.b)"',
        ".a == 007",
        ".a == 1e3",
        ".a == 9007199254740993",
        ".a?",
        ".a[0]",
        ".[]",
        ". a",
        ".a == 1 and",
        ".a == .b",
    ):
        assert plain(program) is None, program


ATOMS = st.sampled_from(
    [
        ".",
        ".a",
        ".b.c",
        "$context",
        "$context.a",
        '"x"',
        "1",
        "[.a, .b]",
        "{a: ., b}",
        "length",
        "tojson",
        "keys",
        "add",
    ]
)


def _compound(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    pair = st.tuples(inner, inner)
    return st.one_of(
        pair.map(lambda p: f"{p[0]} | {p[1]}"),
        pair.map(lambda p: f"({p[0]}) + ({p[1]})"),
        pair.map(lambda p: f"[{p[0]}, {p[1]}]"),
        pair.map(lambda p: f"{{x: ({p[0]}), y: ({p[1]})}}"),
        pair.map(lambda p: f"{p[0]} as $v | [$v, ({p[1]})]"),
        pair.map(lambda p: f"({p[0]}) // ({p[1]})"),
        pair.map(lambda p: f"if {p[0]} then {p[1]} else . end"),
        pair.map(lambda p: f"[.items[] | {p[0]}, ({p[1]})]"),
        pair.map(lambda p: f"({p[0]}) * ({p[1]})"),
        inner.map(lambda p: f"map({p})"),
        inner.map(lambda p: f"try ({p}) catch ."),
        inner.map(lambda p: f'"\\({p})"'),
        inner.map(lambda p: f"[.items[] | {p}]"),
        inner.map(lambda p: f"({p}) * 3"),
        inner.map(lambda p: f".a |= ({p})"),
        inner.map(lambda p: f"[{p}][]"),
        inner.map(lambda p: f"with_entries({p})"),
    )


PROGRAMS = st.recursive(ATOMS, _compound, max_leaves=6)
DATA = st.sampled_from(
    [
        {"a": "\x01" * 20, "b": {"c": [1, 2, 3]}, "items": [{"a": 1}] * 8},
        [[1, "x"], {"a": [2]}],
        {"a": [[1]] * 5, "items": [[1], "y", {"b": {"c": '"' * 9}}]},
        "text",
        None,
    ]
)


@given(PROGRAMS, DATA, DATA)
@settings(max_examples=200, deadline=None)
def test_what_runs_in_process_never_gives_more_than_its_bound(program: str, value: Any, context: Any) -> None:
    if not is_linear(program, tokenize(program)):
        return
    try:
        results = jaq.compile(program, vars=["context"]).run(value, vars={"context": context})
    except jaq.JaqError:
        return
    given_bytes = len(orjson.dumps(value)) + len(orjson.dumps(context)) + len(program)
    assert len(results) <= 1
    assert len(repr(results)) <= _COST_MAX * given_bytes


@given(PROGRAMS, DATA, DATA)
@settings(max_examples=120, deadline=None)
def test_passing_only_what_is_read_changes_nothing(program: str, value: Any, context: Any) -> None:
    if not is_linear(program, tokenize(program)):
        return
    expression = compile_expression(program, frozenset({"context"}), None)
    expected = by_jaq(program, value, context)
    try:
        found = [expression.evaluate(value, dict.fromkeys(expression.reads, context))]
    except ExpressionError:
        assert expected[:1] == ["failed"] or not is_json(expected)
        return
    assert orjson.dumps(found) == orjson.dumps(expected or [None])
