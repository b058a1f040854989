"""Refusing definitions: every problem of a bad one is said, each with its place."""

from __future__ import annotations

from typing import Any

import pytest

from engine.dsl.compile import compile_definition
from engine.dsl.errors import DefinitionError, Problem
from engine.dsl.source import parse
from engine.errors import InputError

HEAD = "document: {dsl: '1.0.3', namespace: test, name: sample, version: '1.0.0'}\n"


def problems(text: str | bytes | dict[str, Any]) -> list[Problem]:
    with pytest.raises(DefinitionError) as caught:
        compile_definition(text)
    assert str(caught.value) == "\n".join(str(problem) for problem in caught.value.problems)
    return caught.value.problems


def messages(text: str | bytes | dict[str, Any]) -> list[str]:
    return [problem.message for problem in problems(text)]


def task(body: str) -> str:
    """A definition of one task, `x`, whose body begins in line 4, six columns in."""
    indented = "\n".join(f"      {line}" for line in body.splitlines())
    return f"{HEAD}do:\n  - x:\n{indented}\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            task("call: f") + "use: {authentications: {a: {certificate: {}}}}",
            "certificate authentication at /use/authentications/a/certificate (line 5) is not supported yet",
        ),
        (
            task("call: f") + "evaluate: {language: xpath}",
            "the expression language 'xpath' at /evaluate/language (line 5) is not supported yet",
        ),
        (
            task("call: f") + "input: {schema: {format: 'avro:1', document: {}}}",
            "schema format 'avro:1' at /input/schema/format (line 5) is not supported yet",
        ),
    ],
)
def test_a_construct_not_supported_yet_is_refused_with_its_line(text: str, message: str) -> None:
    assert messages(text) == [message]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (
            "{}",
            "Expected exactly one of call, do, emit, for, fork, listen, raise, run, set, switch, try, wait but found none",
        ),
        ("set: {a: 1}\ncall: f", "but found call and set at /do/0/x (line 3)"),
        (
            "set: {a: 1}\nfoo: 1",
            "Expected one of set, if, input, output, export, timeout, then, metadata but found 'foo'",
        ),
        ("set: {}", "Expected at least one property to set but found none at /do/0/x/set (line 4)"),
        ("set: [1]", "Expected an expression or an object but found a list at /do/0/x/set (line 4)"),
        ("set: hello there", "Expected a jq expression but"),
        (
            "set:\n  a: ${ .b | }",
            "Expected a jq expression but expected term at its end at /do/0/x/set/a (line 5)",
        ),
        ("set:\n  a: ['${ now }']", "depends on its data alone but found now at /do/0/x/set/a/0 (line 5)"),
        ("set: {a: 1}\nif: true", "Expected an expression (text) but found true at /do/0/x/if (line 5)"),
        (
            "set: {a: 1}\nif: $input.a",
            "Expected one of $context, $runtime, $task, $workflow but found $input",
        ),
        ("set: {a: 1}\ninput: {from: $output}", "but found $output at /do/0/x/input/from (line 5)"),
        ("set: {a: 1}\noutput: {as: $output}", "but found $output at /do/0/x/output/as (line 5)"),
        ("set: {a: 1}\nexport: {as: [1]}", "Expected an expression or an object but found a list"),
        (
            "set: {a: 1}\nexport: {from: .a}",
            "Expected one of schema, as but found 'from' at /do/0/x/export (line 5)",
        ),
        (
            "set: {a: 1}\nthen: y",
            "or the name of a task of the same scope but found 'y' at /do/0/x/then (line 5)",
        ),
        ("set: {a: 1}\nthen: 1", "Expected a flow directive or a task's name but found the number 1"),
        ("set: {a: 1}\nmetadata: x", "Expected an object but found 'x' at /do/0/x/metadata (line 5)"),
        ("set: {a: 1}\ninput: {schema: {document: 1}}", "Expected a JSON Schema (an object) but found 1"),
        ("set: {a: 1}\ninput: {schema: {}}", "Expected the property 'document' but it is missing"),
        (
            "call: 5",
            "Expected the name of a worker's function but found the number 5 at /do/0/x/call (line 4)",
        ),
        ("call: f\nwith: .a", "Expected an object but found '.a' at /do/0/x/with (line 5)"),
        ("call: f\nmetadata: {queue: Bad Queue}", "Expected a queue name such as default"),
        ("do: []", "Expected a list of tasks but found an empty list at /do/0/x/do (line 4)"),
        (
            "do:\n  - y: {set: {a: 1}, then: x}",
            "of the same scope but found 'x' at /do/0/x/do/0/y/then (line 5)",
        ),
        ("do:\n  - y: {set: {a: 1}}\n  - y: {set: {a: 1}}", "'y' again at /do/0/x/do/1/y (line 6)"),
        ("do:\n  - a: {set: .}\n    b: {set: .}", "but found an object of 2 at /do/0/x/do/0 (line 5)"),
        ("switch: []", "Expected a list of cases but found an empty list"),
        (
            "switch:\n  - a: {when: .b}",
            "Expected the property 'then' but it is missing at /do/0/x/switch/0/a (line 5)",
        ),
        (
            "switch:\n  - a: {then: end}\n  - b: {then: end}",
            "Expected at most one default case but found 'b' without 'when' at /do/0/x/switch/1/b (line 6)",
        ),
        ("switch:\n  - a: {when: .b, then: z}", "but found 'z' at /do/0/x/switch/0/a/then (line 5)"),
        ("raise: {}", "Expected the property 'error' but it is missing at /do/0/x/raise (line 4)"),
        ("raise: {error: gone}", "Expected the name of an error of use.errors but found 'gone'"),
        ("raise: {error: {type: https://a.b}}", "Expected the property 'status' but it is missing"),
        (
            "raise: {error: {type: nope, status: 1}}",
            "Expected an absolute URI or an expression but found 'nope'",
        ),
        ("raise: {error: {type: https://a.b, status: '4'}}", "Expected a whole number but found '4'"),
        (
            "raise: {error: {type: https://a.b, status: 4, instance: x}}",
            "Expected a JSON pointer or an expression",
        ),
        ("raise: {error: {type: https://a.b, status: 4, title: 5}}", "Expected text but found the number 5"),
    ],
)
def test_a_wrong_task_is_refused_with_its_place(body: str, message: str) -> None:
    found = messages(task(body))
    assert len(found) == 1
    assert message in found[0]


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        (
            "'1.0.0'",
            "1.0",
            "Expected a semantic version such as '1.0.0', in quotes, but found the number 1.0",
        ),
        ("'1.0.0'", "'1.0'", "but found '1.0' at /document/version (line 1)"),
        ("'1.0.0'", "'01.0.0'", "but found '01.0.0' at /document/version (line 1)"),
        ("'1.0.0'", "'1.0.0-01'", "but found '1.0.0-01'"),
        (
            "'1.0.3'",
            "'2.0.0'",
            "Expected a DSL version 1.0.x in quotes but found '2.0.0' at /document/dsl (line 1)",
        ),
        ("sample", "a_b", "Expected a name of at most 63 letters, digits and '-' but found 'a_b'"),
        ("sample", "a" * 64, "Expected a name of at most 63 letters"),
        ("sample", "'a\n\n'", "Expected a name of at most 63 letters"),
        (
            "namespace: test, ",
            "",
            "Expected the property 'namespace' but it is missing at /document (line 1)",
        ),
        ("name: sample", "name: sample, foo: 1", "but found 'foo' at /document (line 1)"),
        (
            "name: sample",
            "name: sample, tags: x",
            "Expected an object but found 'x' at /document/tags (line 1)",
        ),
        (
            "name: sample",
            "name: sample, title: 1",
            "Expected text but found the number 1 at /document/title (line 1)",
        ),
        ("name: sample", "name: sample, metadata: {queue: 1}", "Expected a queue name such as default"),
        (
            "do:",
            "foo: 1\ndo:",
            "Expected one of document, input, use, do, output, evaluate, timeout, schedule but found 'foo' at /",
        ),
        (
            "do:",
            "evaluate: {mode: lax}\ndo:",
            "Expected strict or loose but found 'lax' at /evaluate/mode (line 2)",
        ),
        (
            "do:",
            "input: {from: $context}\ndo:",
            "Expected one of $runtime, $secrets, $workflow but found $context at /input/from",
        ),
        (
            "do:",
            "output: {as: $input}\ndo:",
            "Expected one of $context, $runtime, $workflow but found $input",
        ),
        (
            "do:",
            "use: {errors: {a: {type: https://a.b}}}\ndo:",
            "'status' but it is missing at /use/errors/a (line 2)",
        ),
    ],
)
def test_a_wrong_document_is_refused_with_its_place(before: str, after: str, message: str) -> None:
    found = messages(task("call: f").replace(before, after))
    assert len(found) == 1
    assert message in found[0]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "do: []",
            [
                "'document' but it is missing at / (line 1)",
                "Expected a list of tasks but found an empty list",
            ],
        ),
        (HEAD, ["Expected the property 'do' but it is missing at / (line 1)"]),
        ("[1]", ["Expected an object but found a list at / (line 1)"]),
        ("just text", ["Expected an object but found 'just text' at / (line 1)"]),
        (HEAD + "do: {x: {set: {a: 1}}}", ["Expected a list of tasks but found an object at /do (line 2)"]),
        (HEAD + "do: [5]", ["the task's name, but found the number 5 at /do/0 (line 2)"]),
        (HEAD + "do: [{x: 5}]", ["Expected a task (an object) but found the number 5 at /do/0/x (line 2)"]),
    ],
)
def test_a_document_of_the_wrong_shape_is_refused(text: str, expected: list[str]) -> None:
    found = messages(text)
    assert len(found) == len(expected)
    for message, part in zip(found, expected, strict=True):
        assert part in message


def test_all_problems_are_reported_in_the_order_of_the_document() -> None:
    text = (
        "document: {dsl: '1.0.0', namespace: n, name: n, version: '1'}\n"
        "do:\n  - a: {fork: {}}\n  - b: {set: '${ now }'}\n  - c: {do: [{d: {call: http}}], then: nowhere}\n"
        "schedule: {}\n"
    )
    assert [(problem.pointer, problem.line) for problem in problems(text)] == [
        ("/document/version", 1),
        ("/do/0/a/fork", 3),
        ("/do/1/b/set", 4),
        ("/do/2/c/then", 5),
        ("/do/2/c/do/0/d", 5),
        ("/schedule", 6),
    ]


def test_a_problem_of_data_without_text_has_a_pointer_and_no_line() -> None:
    document = parse(task("fork: {}")).value
    (problem,) = problems(document)
    assert problem.message == "Expected the property 'branches' but it is missing at /do/0/x/fork"
    assert (problem.line, problem.column) == (None, None)


@pytest.mark.parametrize("bad", [{1: 2}, {"a": float("nan")}, {"a": b"x"}, {"a": object()}])
def test_data_that_json_cannot_hold_are_refused(bad: dict[Any, Any]) -> None:
    assert "Expected a document that JSON can hold but" in messages(bad)[0]


def test_too_many_expressions_are_refused_in_time() -> None:
    entries = ", ".join(f"k{i}: '${{ .a{i} + 1 }}'" for i in range(1001))
    assert "Expected at most 1000 different expressions" in messages(task(f"set: {{{entries}}}"))[0]


def test_a_definition_error_is_the_callers_mistake() -> None:
    with pytest.raises(InputError) as caught:
        compile_definition("")
    assert caught.value.exit_code == 2
