"""JSON Schemas in definitions: what they say about data, and which schemas are refused."""

from __future__ import annotations

from typing import Any

import pytest

from engine.dsl.schemas import SchemaProblem, compile_schema

ORDER = {
    "type": "object",
    "required": ["id"],
    "properties": {
        "id": {"type": "string", "maxLength": 5},
        "count": {"type": ["integer", "null"], "minimum": 1},
        "kind": {"enum": ["a", "b"]},
        "lines": {"type": "array", "items": {"$ref": "#/$defs/line"}},
    },
    "additionalProperties": False,
    "$defs": {"line": {"type": "object", "required": ["sku"]}},
}


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ({"id": "x", "count": None, "lines": [{"sku": 1}]}, None),
        ({}, "Expected the property 'id' but it is missing at /"),
        ([], "Expected object but found [] at /"),
        ({"id": 5}, "Expected string but found 5 at /id"),
        ({"id": "abcdef"}, 'Expected at most 5 characters but found "abcdef" at /id'),
        ({"id": "x", "count": "1"}, 'Expected integer or null but found "1" at /count'),
        ({"id": "x", "count": 0}, "Expected a number >= 1 but found 0 at /count"),
        ({"id": "x", "kind": "c"}, 'Expected one of ["a","b"] but found "c" at /kind'),
        ({"id": "x", "lines": [{"sku": 1}, {}]}, "Expected the property 'sku' but it is missing at /lines/1"),
        ({"id": "x", "z": 1, "y": 1}, "Expected no further property but found 'y', 'z' at /"),
        ({"id": 1, "count": 0}, "Expected a number >= 1 but found 0 at /count"),
    ],
)
def test_the_first_error_is_said_with_its_place(value: Any, problem: str | None) -> None:
    schema = compile_schema(ORDER)
    assert schema.problem(value) == problem
    assert schema.problem(value) == problem


def test_a_problem_of_large_data_is_short() -> None:
    problem = compile_schema({"type": "integer"}).problem("x" * 100_000)
    assert problem is not None
    assert len(problem) < 300


@pytest.mark.parametrize(
    ("schema", "message"),
    [
        ([1], "Expected a JSON Schema (an object) but found [1]"),
        ({"type": "strin"}, "Expected a JSON Schema but"),
        ({"$ref": "http://127.0.0.1:9/x.json"}, "Retrieval is disabled"),
        ({"$ref": "file:///etc/passwd"}, "Retrieval is disabled"),
        ({"$ref": "#/$defs/missing"}, "does not exist"),
        ({"pattern": "(?=a)b"}, 'is not a "regex"'),
        ({"$schema": "http://json-schema.org/draft-07/schema#"}, "Expected the JSON Schema dialect"),
        (
            {
                "$defs": {f"a{i}": {"anyOf": [{"$ref": f"#/$defs/a{i + 1}"}] * 2} for i in range(30)}
                | {"a30": {}},
                "$ref": "#/$defs/a0",
            },
            "references unfolded",
        ),
        (
            {
                "$defs": {f"a{i}": {"$ref": f"#/$defs/a{i + 1}"} for i in range(20_000)} | {"a20000": {}},
                "$ref": "#/$defs/a0",
            },
            "references unfolded",
        ),
    ],
)
def test_a_schema_that_cannot_be_used_safely_is_refused(schema: Any, message: str) -> None:
    with pytest.raises(SchemaProblem) as caught:
        compile_schema(schema)
    assert message in str(caught.value)


def test_a_schema_that_refers_to_itself_ends() -> None:
    tree = compile_schema({"type": "object", "properties": {"child": {"$ref": "#"}}, "required": ["v"]})
    assert tree.problem({"v": 1, "child": {"v": 2}}) is None
    assert tree.problem({"v": 1, "child": {}}) == "Expected the property 'v' but it is missing at /child"
    assert compile_schema({"allOf": [{"$ref": "#"}]}).problem(1) is None


def test_a_pattern_that_would_backtrack_is_answered_at_once() -> None:
    assert compile_schema({"pattern": "(a+)+$"}).problem("a" * 100_000 + "b") is not None
