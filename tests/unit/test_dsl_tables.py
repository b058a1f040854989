"""Decision tables: what they refuse, what they decide, and what they say about every rule."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.dsl.checks import Checks
from engine.dsl.errors import ExpressionError
from engine.dsl.source import Source
from engine.dsl.tables import EXPLANATION_BYTES_MAX, Decider, compile_table
from engine.dsl.tables_cells import CellProblem, parse_cell

AVAILABLE = frozenset({"context", "input", "authorization"})
RISK: dict[str, Any] = {
    "name": "risk",
    "hitPolicy": "first",
    "inputs": [
        {"name": "amount", "expression": "${ .amount }", "type": "number"},
        {"name": "tier", "expression": ".customer.tier"},
    ],
    "outputs": [
        {"name": "level", "type": "string", "values": ["high", "low"]},
        {"name": "limit", "default": 0},
    ],
    "rules": [
        {"name": "large", "when": ["> 1000", "-"], "then": {"level": "high"}},
        {"when": {"tier": "gold, platinum"}, "then": ["low", "${ .amount * 2 }"]},
        {"when": ["[0..100)", "not(gold)"], "then": ["low", "${ $context.limit }"]},
    ],
}


def problems(table: Any, available: frozenset[str] = AVAILABLE) -> list[str]:
    checks = Checks(Source({}), None)
    compile_table(checks, table, "/do/0/risk/with", available)
    return [str(problem) for problem in checks.problems]


def compiled(table: Any, language: str = "jq") -> Decider:
    checks = Checks(Source({}), None)
    checks.language = language
    _, _, decide = compile_table(checks, table, "/do/0/risk/with", AVAILABLE)
    assert [str(problem) for problem in checks.problems] == []
    return decide


def table(policy: str, rules: list[Any], **more: Any) -> dict[str, Any]:
    return {
        "hitPolicy": policy,
        "inputs": [{"name": "n"}],
        "outputs": [{"name": "out"}],
        "rules": rules,
        **more,
    }


def matches(cell: Any, value: Any, wanted: str = "any") -> bool:
    test = parse_cell(cell, wanted).test
    return True if test is None else test(value, {})


@pytest.mark.parametrize(
    ("cell", "inside", "outside"),
    [
        ("-", [None, 1, "x"], []),
        ("", [None, 1], []),
        (5, [5, 5.0], [True, "5", 6, None]),
        (1, [1], [True]),
        (True, [True], [1, "true"]),
        (None, [None], [0, False, ""]),
        ("gold", ["gold"], ["silver", None]),
        ('"5"', ["5"], [5]),
        ('"a, b"', ["a, b"], ["a"]),
        ("5", [5], ["5"]),
        ("true", [True], ["true", 1]),
        ("null", [None], ["null"]),
        ("[1..5]", [1, 3.5, 5], [0, 5.1, True, "3", None]),
        ("(1..5)", [1.1, 4], [1, 5]),
        ("]1..5[", [1.1, 4], [1, 5]),
        ("(1..5]", [5], [1]),
        ("[2024-01-01..2024-12-31]", ["2024-06-01"], ["2025-01-01", 5]),
        ("< 10", [9, -1], [10, True, "9"]),
        (">= 3", [3], [2]),
        (">= 2024-01-01", ["2024-01-01T00:00:00Z"], ["2023-12-31"]),
        ("!= gold", ["silver", None, 1], ["gold"]),
        ("a, b", ["a", "b"], ["c", None]),
        ("< 3, [10..20], 99", [2, 15, 99], [3, 50]),
        (["a", 5, "[7..8]"], ["a", 5, 7], ["5", 9]),
        ("not(a, b)", ["c", None, 1], ["a", "b"]),
        ("not([1..5])", [0, "x"], [3]),
        ("not(-)", [], [1, None]),
        ("not([0..1), 5)", [1, 2], [0, 5]),
        ("not((1..5)), 3", [1, 3], [2]),
        ('["a,b".."c"]', ["b"], ["a", "d"]),
        ("nothing", ["nothing"], ["x"]),
    ],
)
def test_a_cell_matches_what_it_says(cell: Any, inside: list[Any], outside: list[Any]) -> None:
    assert [value for value in inside if not matches(cell, value)] == []
    assert [value for value in outside if matches(cell, value)] == []


def test_text_of_a_string_column_is_text_even_when_it_looks_like_a_number() -> None:
    assert matches("12, true", "12", "string")
    assert matches("12, true", "true", "string")
    assert not matches("12", 12, "string")


@pytest.mark.parametrize(
    ("cell", "wanted", "wish"),
    [
        ("[5..1]", "any", "first end is not above"),
        ("(1..1)", "any", "holds a value"),
        ("[1..b]", "any", "two numbers or two texts"),
        ("[1..2..3]", "any", "two ends"),
        ("a,,b", "any", "both sides of a comma"),
        ('"open', "any", "closed quotes"),
        ("< true", "any", "to compare with"),
        (">", "any", "a literal"),
        ("not(1..5)", "any", "within brackets"),
        ("not(a", "any", "closed quotes and parentheses"),
        ("gold", "number", "type number"),
        (True, "string", "type string"),
        ({"a": 1}, "any", "an object"),
        ("not(" * 10 + "a" + ")" * 10, "any", "not(…)"),
    ],
)
def test_a_cell_that_makes_no_sense_is_refused(cell: Any, wanted: str, wish: str) -> None:
    with pytest.raises(CellProblem, match=wish.replace("(", r"\(").replace(")", r"\)")):
        parse_cell(cell, wanted)


def test_the_explanation_names_what_matched_and_the_first_cell_that_failed() -> None:
    output, explanation = compiled(RISK)(
        {"amount": 50, "customer": {"tier": "basic"}}, {"context": {"limit": 7}}
    )
    assert output == {"level": "low", "limit": 7}
    assert explanation == {
        "table": "risk",
        "hitPolicy": "first",
        "inputs": {"amount": 50, "tier": "basic"},
        "matched": [3],
        "chosen": [3],
        "rules": [
            {
                "rule": 1,
                "name": "large",
                "matched": False,
                "failed": {"input": "amount", "cell": "> 1000", "value": 50},
            },
            {
                "rule": 2,
                "matched": False,
                "failed": {"input": "tier", "cell": "gold, platinum", "value": "basic"},
            },
            {"rule": 3, "matched": True},
        ],
    }


def test_the_first_rule_wins_and_a_missing_output_has_its_default() -> None:
    output, explanation = compiled(RISK)({"amount": 5000, "customer": {"tier": "gold"}}, {})
    assert output == {"level": "high", "limit": 0}
    assert (explanation["matched"], explanation["chosen"]) == ([1, 2], [1])


def test_what_a_table_reads_are_the_arguments_of_its_expressions() -> None:
    checks = Checks(Source({}), None)
    name, reads, _ = compile_table(checks, RISK, "/do/0/risk/with", AVAILABLE)
    assert (name, reads) == ("risk", frozenset({"context"}))


RULES = [
    {"when": ["> 0"], "then": [1]},
    {"name": "ten", "when": ["> 10"], "then": [2]},
    {"when": ["> 20"], "then": [2]},
]


def test_unique_faults_when_several_rules_match_and_names_them() -> None:
    decide = compiled(table("unique", RULES))
    assert decide({"n": 5}, {})[0] == {"out": 1}
    with pytest.raises(ExpressionError, match=r"at most one rule.*rule 1 and rule 2 \(ten\)"):
        decide({"n": 15}, {})


def test_any_faults_when_the_outputs_differ() -> None:
    decide = compiled(table("any", [RULES[1], RULES[2]]))
    assert decide({"n": 25}, {})[0] == {"out": 2}
    with pytest.raises(ExpressionError, match="equal outputs"):
        compiled(table("any", RULES))({"n": 25}, {})


def test_priority_takes_the_most_important_output() -> None:
    found = compiled(table("priority", RULES, outputs=[{"name": "out", "values": [2, 1]}]))({"n": 25}, {})
    assert found[0] == {"out": 2}
    assert found[1]["chosen"] == [2]


@pytest.mark.parametrize(
    ("aggregator", "some", "none"),
    [
        ("list", [{"out": 1}, {"out": 2}, {"out": 2}], []),
        ("sum", {"out": 5}, {"out": None}),
        ("min", {"out": 1}, {"out": None}),
        ("max", {"out": 2}, {"out": None}),
        ("count", {"out": 3}, {"out": 0}),
    ],
)
def test_collect_aggregates(aggregator: str, some: Any, none: Any) -> None:
    decide = compiled(table("collect", RULES, aggregator=aggregator))
    assert decide({"n": 25}, {})[0] == some
    assert decide({"n": 0}, {})[0] == none


@pytest.mark.parametrize("policy", ["unique", "first", "any"])
def test_without_a_match_the_defaults_stand_in(policy: str) -> None:
    assert compiled(table(policy, RULES))({"n": 0}, {})[0] is None
    given = table(policy, RULES, outputs=[{"name": "out", "default": 9}])
    assert compiled(given)({"n": 0}, {})[0] == {"out": 9}


def test_an_input_of_another_type_faults() -> None:
    with pytest.raises(ExpressionError, match="type number for the input amount of the decision table risk"):
        compiled(RISK)({"amount": "50", "customer": {}}, {})


def test_an_output_that_an_expression_gives_is_checked() -> None:
    given = table("first", [{"then": ["${ .n }"]}], outputs=[{"name": "out", "values": [1, 2]}])
    assert compiled(given)({"n": 2}, {})[0] == {"out": 2}
    with pytest.raises(ExpressionError, match="one of the values of the output out but rule 1 gives 3"):
        compiled(given)({"n": 3}, {})


def test_a_cell_may_be_an_expression_on_its_input() -> None:
    decide = compiled(table("first", [{"when": ["${ . > $context.low }"], "then": [1]}]))
    assert decide({"n": 5}, {"context": {"low": 4}})[0] == {"out": 1}
    assert decide({"n": 3}, {"context": {"low": 4}})[0] is None
    with pytest.raises(
        ExpressionError, match="The cell n of rule 1 of the decision table risk: Expected true or"
    ):
        compiled(table("first", [{"when": ["${ 5 }"], "then": [1]}]))({"n": 3}, {})


def dependent() -> dict[str, Any]:
    return {
        "name": "price",
        "inputs": [{"name": "risk", "expression": "$decisions.risk.level"}],
        "outputs": [{"name": "price"}],
        "rules": [{"when": ["high"], "then": [100]}, {"when": ["low"], "then": ["${ $decisions.age.n }"]}],
        "tables": [
            {
                "name": "risk",
                "inputs": [{"name": "age", "expression": "${ $decisions.age.n }"}],
                "outputs": [{"name": "level"}],
                "rules": [{"when": ["< 25"], "then": ["high"]}, {"when": [">= 25"], "then": ["low"]}],
            },
            {
                "name": "age",
                "inputs": [{"name": "born"}],
                "outputs": [{"name": "n"}],
                "rules": [{"then": ["${ 2026 - .born }"]}],
            },
        ],
    }


def test_tables_are_decided_in_the_order_they_depend_on_each_other() -> None:
    output, explanation = compiled(dependent())({"born": 1990}, {})
    assert output == {"price": 36}
    assert [one["table"] for one in explanation["decisions"]] == ["age", "risk"]
    assert compiled(dependent())({"born": 2010}, {})[0] == {"price": 100}


def test_tables_that_depend_on_each_other_in_a_circle_are_refused() -> None:
    given = dependent()
    given["tables"][1]["inputs"][0]["expression"] = "$decisions.risk.level"
    (found,) = problems(given)
    assert found.startswith("Expected tables that do not depend on themselves but found")


def test_requires_names_tables_or_holds_them() -> None:
    given = dependent()
    given["requires"] = given.pop("tables")
    assert compiled(given)({"born": 1990}, {})[0] == {"price": 36}
    given["requires"].append("rizk")
    (found,) = problems(given)
    assert "did you mean 'risk'?" in found


@pytest.mark.parametrize(
    ("change", "wish"),
    [
        ({"hitPolicy": "fist"}, "did you mean 'first'?"),
        ({"aggregator": "sum"}, "an aggregator with the hit policy collect only"),
        ({"rulez": []}, "requires, tables but found 'rulez'"),
        ({"rules": []}, "at least one rule but found none at /do/0/risk/with/rules"),
        ({"outputs": []}, "at least one output"),
        ({"inputs": [{"name": "n"}, {"name": "n"}]}, "inputs of different names"),
        ({"inputs": [{"name": "1 x"}]}, "a name of at most 64"),
        ({"inputs": [{"name": "n", "type": "nummer"}]}, "did you mean 'number'?"),
        ({"inputs": [{"name": "n", "expression": "${ .a + }"}]}, "Expected a jq expression"),
        ({"rules": [{"when": ["1", "2"], "then": [1]}]}, "one value for each of the 1 inputs"),
        ({"rules": [{"when": {"m": 1}, "then": [1]}]}, "an input (n) but found 'm'"),
        ({"rules": [{"when": ["[5..1]"], "then": [1]}]}, "at /do/0/risk/with/rules/0/when/0"),
        ({"rules": [{"when": ["1"]}]}, "Expected the property 'then' but it is missing"),
        ({"rules": [{"when": ["1"], "then": {}}]}, "Expected the property 'out' but it is missing"),
        (
            {"rules": [{"when": ["1"], "then": ["${ $nope }"]}]},
            "but found $nope at /do/0/risk/with/rules/0/then/0",
        ),
        ({"outputs": [{"name": "out", "type": "string"}]}, "type string for the output out but found 1"),
        ({"outputs": [{"name": "out", "values": [7]}]}, "one of the values of the output out but found 1"),
        ({"hitPolicy": "priority"}, "an output with values"),
        ({"inputs": [{"name": "n", "expression": "$authorization.scheme"}]}, "$authorization"),
        ({"inputs": [{"name": "n", "expression": "$decisions.x"}]}, "but found $decisions"),
    ],
)
def test_a_table_with_a_mistake_is_refused_with_its_place(change: dict[str, Any], wish: str) -> None:
    found = problems({**table("first", [{"when": ["1"], "then": [1]}]), **change})
    assert any(wish in one for one in found), found


@pytest.mark.parametrize("value", [None, "x", [], 5, {}, {"inputs": 5, "outputs": "x", "rules": {"a": 1}}])
def test_what_is_no_table_is_refused_without_a_trace(value: Any) -> None:
    assert problems(value)


@settings(max_examples=200)
@given(
    st.dictionaries(
        st.sampled_from(
            ["name", "hitPolicy", "inputs", "outputs", "rules", "tables", "requires", "aggregator"]
        ),
        st.recursive(
            st.none() | st.integers() | st.text(max_size=6) | st.just("${ .x }"),
            lambda inner: (
                st.lists(inner, max_size=3)
                | st.dictionaries(
                    st.sampled_from(["name", "when", "then", "expression", "values", "type", "default"]),
                    inner,
                )
            ),
        ),
    )
)
def test_no_document_makes_the_compiler_fail(value: Any) -> None:
    problems(value)


def test_the_explanation_of_a_large_table_is_bounded() -> None:
    rules = [{"name": "é" * 500, "when": ["é" * 500 + str(n)], "then": [n]} for n in range(1000)]
    output, explanation = compiled(table("first", rules))({"n": "ü" * 5000}, {})
    assert output is None
    assert len(orjson.dumps(explanation)) <= EXPLANATION_BYTES_MAX
    assert len(explanation["rules"]) == 1000
    assert explanation["rules"][999]["failed"]["input"] == "n"
    assert any("at most 1000 rules" in one for one in problems(table("first", [*rules, {"then": [1]}])))


# -- against a naive reference -----------------------------------------------------------------------------------

BOUNDS = st.integers(-3, 8)
ATOMS = st.one_of(
    BOUNDS.map(lambda n: (str(n), lambda v: num(v) and v == n)),
    st.sampled_from("abc").map(lambda c: (c, lambda v: v == c)),
    st.tuples(st.sampled_from(["<", "<=", ">", ">="]), BOUNDS).map(
        lambda p: (f"{p[0]} {p[1]}", lambda v: num(v) and ordered(p[0], v, p[1]))
    ),
    st.tuples(st.sampled_from("[("), BOUNDS, st.integers(1, 4), st.sampled_from(")]")).map(
        lambda p: (
            f"{p[0]}{p[1]}..{p[1] + p[2]}{p[3]}",
            lambda v: (
                num(v)
                and (v >= p[1] if p[0] == "[" else v > p[1])
                and (v <= p[1] + p[2] if p[3] == "]" else v < p[1] + p[2])
            ),
        )
    ),
)
LISTS = st.lists(ATOMS, min_size=1, max_size=3).map(
    lambda parts: (", ".join(p[0] for p in parts), lambda v: any(p[1](v) for p in parts))
)
CELLS = st.one_of(
    st.just(("-", lambda _v: True)), LISTS, LISTS.map(lambda p: (f"not({p[0]})", lambda v: not p[1](v)))
)
VALUES = st.integers(-4, 9) | st.sampled_from(["a", "b", "c", "d", None, True, 2.5])


def num(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def ordered(symbol: str, left: Any, right: Any) -> bool:
    return bool({"<": left < right, "<=": left <= right, ">": left > right, ">=": left >= right}[symbol])


def reference(policy: str, outs: list[int]) -> Any:
    """What the table must give, from the outputs of the rules that match; "fault" where it must fault."""
    if policy == "collect":
        return [{"out": out} for out in outs]
    if not outs:
        return None
    if (policy == "unique" and len(outs) > 1) or (policy == "any" and len(set(outs)) > 1):
        return "fault"
    return {"out": max(outs) if policy == "priority" else outs[0]}


@settings(max_examples=300)
@given(
    st.sampled_from(["unique", "first", "any", "priority", "collect"]),
    st.lists(st.tuples(CELLS, CELLS, st.integers(0, 2)), min_size=1, max_size=6),
    st.lists(st.tuples(VALUES, VALUES), min_size=1, max_size=4),
)
def test_a_table_decides_as_a_naive_reading_of_it(policy: str, rules: Any, inputs: Any) -> None:
    decide = compiled(
        {
            "hitPolicy": policy,
            "inputs": [{"name": "x"}, {"name": "y", "expression": "${ .y }"}],
            "outputs": [{"name": "out", "values": [2, 1, 0]}],
            "rules": [{"when": [a[0], b[0]], "then": [out]} for a, b, out in rules],
        }
    )
    for x, y in inputs:
        matched = [n for n, (a, b, _) in enumerate(rules) if a[1](x) and b[1](y)]
        expected = reference(policy, [rules[n][2] for n in matched])
        try:
            output, explanation = decide({"x": x, "y": y}, {})
        except ExpressionError:
            assert expected == "fault"
            continue
        assert output == expected
        assert explanation["matched"] == [n + 1 for n in matched]
        for n, ((first, _, _), rule) in enumerate(zip(rules, explanation["rules"], strict=True)):
            assert rule["matched"] is (n in matched)
            if n not in matched:
                assert rule["failed"]["input"] == ("y" if first[1](x) else "x")
