"""Compiling definitions: what comes out of a good one."""

from __future__ import annotations

import copy
import os
from pathlib import Path
from typing import Any

import orjson
import pytest

from engine.dsl.compile import compile_definition
from engine.dsl.errors import DefinitionError
from engine.dsl.model import Call, Definition, Do, Raise, Set, Switch, Transform
from engine.dsl.source import parse

HEAD = "document: {dsl: '1.0.3', namespace: test, name: sample, version: '1.0.0'}\n"

ORDER = (
    HEAD
    + """input:
  schema: {document: {type: object, required: [amount]}}
  from: .order
use:
  errors:
    tooMuch: {type: https://example.com/too-much, status: 422, title: '${ "Too much: \\(.amount)" }'}
do:
  - route:
      if: .amount > 0
      switch:
        - large: {when: .amount > 1000, then: refuse}
        - other: {then: work}
  - refuse:
      raise: {error: tooMuch}
  - work:
      input: {from: {amount: '${ .amount }', fixed: 1}}
      do:
        - charge:
            call: charge-card
            with: {amount: '${ .amount }', trace: '${ $workflow.id }'}
            metadata: {queue: money}
        - note/1:
            set: {charged: true}
            export: {as: '$context + .'}
            then: exit
      then: end
output: {as: '{total: .amount}'}
"""
)


def task(body: str) -> str:
    """A definition of one task, `x`, whose body begins in line 4, six columns in."""
    indented = "\n".join(f"      {line}" for line in body.splitlines())
    return f"{HEAD}do:\n  - x:\n{indented}\n"


# -- good definitions ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def order() -> Definition:
    return compile_definition(ORDER)


def test_tasks_are_named_by_pointer_in_the_order_of_the_document(order: Definition) -> None:
    assert list(order.tasks) == [
        "/do/0/route",
        "/do/1/refuse",
        "/do/2/work",
        "/do/2/work/do/0/charge",
        "/do/2/work/do/1/note~11",
    ]
    assert order.first == "/do/0/route"
    assert order.id == "test/sample@1.0.0"
    assert order.title is None


def test_a_task_knows_its_scope_and_what_follows(order: Definition) -> None:
    work, charge, note = (order.tasks[p] for p in list(order.tasks)[2:])
    assert isinstance(work, Do)
    assert work.first == charge.pointer
    assert (work.scope, work.next, work.then) == ("", None, "end")
    assert (charge.scope, charge.next, charge.then) == (work.pointer, note.pointer, "continue")
    assert (note.scope, note.next, note.then, note.name) == (work.pointer, None, "exit", "note/1")


def test_directives_become_pointers(order: Definition) -> None:
    route = order.tasks["/do/0/route"]
    assert isinstance(route, Switch)
    assert [(case.name, case.when is None, case.then) for case in route.cases] == [
        ("large", False, "/do/1/refuse"),
        ("other", True, "/do/2/work"),
    ]
    assert route.condition is not None
    assert route.condition.evaluate({"amount": 5}, {}) is True


def test_a_call_has_its_function_queue_and_arguments(order: Definition) -> None:
    charge = order.tasks["/do/2/work/do/0/charge"]
    assert isinstance(charge, Call)
    assert (charge.function, charge.queue) == ("charge-card", "money")
    assert charge.arguments is not None
    assert charge.arguments.reads == {"workflow"}
    assert charge.arguments.evaluate({"amount": 3}, {"workflow": {"id": "f1"}}) == {
        "amount": 3,
        "trace": "f1",
    }
    assert charge.definition["call"] == "charge-card"


def test_transforms_have_their_schema_and_expression(order: Definition) -> None:
    assert order.input.schema is not None
    assert order.input.schema.problem({}) == "Expected the property 'amount' but it is missing at /"
    assert order.input.expression is not None
    assert order.input.expression.evaluate({"order": 1}, {}) == 1
    work, note = order.tasks["/do/2/work"], order.tasks["/do/2/work/do/1/note~11"]
    assert work.input.expression is not None
    assert work.input.expression.evaluate({"amount": 2, "x": 1}, {}) == {"amount": 2, "fixed": 1}
    assert work.output == Transform()
    assert note.export.expression is not None
    assert note.export.expression.evaluate({"a": 1}, {"context": {"b": 2}}) == {"b": 2, "a": 1}
    assert isinstance(note, Set)
    assert note.value.evaluate({}, {}) == {"charged": True}


def test_a_raise_by_name_evaluates_the_reusable_error(order: Definition) -> None:
    refuse = order.tasks["/do/1/refuse"]
    assert isinstance(refuse, Raise)
    assert refuse.error.evaluate({"amount": 7}, {}) == {
        "type": "https://example.com/too-much",
        "status": 422,
        "title": "Too much: 7",
    }


def test_the_hash_is_that_of_the_content_not_of_the_text(order: Definition) -> None:
    document = parse(ORDER).value
    from_json = compile_definition(orjson.dumps(document, option=orjson.OPT_INDENT_2))
    from_data = compile_definition(document)
    from_log = compile_definition(orjson.loads(orjson.dumps(document, option=orjson.OPT_SORT_KEYS)))
    assert order.hash == from_json.hash == from_data.hash == from_log.hash
    assert len(order.hash) == 32
    changed = copy.deepcopy(document)
    changed["document"]["title"] = "Another"
    assert compile_definition(changed).hash != order.hash


def test_a_queue_comes_from_the_task_then_the_document_then_is_the_default() -> None:
    def queue(text: str) -> str:
        found = compile_definition(text).tasks["/do/0/x"]
        assert isinstance(found, Call)
        return found.queue

    assert queue(task("call: f")) == "default"
    with_queue = task("call: f").replace("version: '1.0.0'", "version: '1.0.0', metadata: {queue: all}")
    assert queue(with_queue) == "all"
    assert queue(with_queue.replace("call: f", "call: f\n      metadata: {queue: own.1}")) == "own.1"


@pytest.mark.parametrize(
    ("value", "data", "result"),
    [
        ("{a: '${ .x }', b: [1, '${ .x }', {c: text}]}", {"x": 5}, {"a": 5, "b": [1, 5, {"c": "text"}]}),
        (
            "{a: .x, b: 'Hello ${ .x }', c: '  ${ .x }  '}",
            {"x": 5},
            {"a": ".x", "b": "Hello ${ .x }", "c": 5},
        ),
        ("${ .x }", {"x": [1]}, [1]),
        (".x", {"x": [1]}, [1]),
        ("{z: 1, a: '${ .x }', m: null}", {"x": True}, {"z": 1, "a": True, "m": None}),
    ],
)
def test_in_strict_mode_only_a_marked_string_is_an_expression(value: str, data: Any, result: Any) -> None:
    found = compile_definition(task(f"set: {value}")).tasks["/do/0/x"]
    assert isinstance(found, Set)
    assert orjson.dumps(found.value.evaluate(data, {})) == orjson.dumps(result)


def test_in_loose_mode_every_string_is_tried_and_text_stays_text() -> None:
    body = (
        "set: {a: .x, b: circle, c: Hello you, d: '.x.y', e: '${ .x }', f: now, g: https://a.b/c, h: '$foo', "
        "i: '${ .x.y }'}"
    )
    found = compile_definition(task(body) + "evaluate: {mode: loose}\n").tasks["/do/0/x"]
    assert isinstance(found, Set)
    assert found.value.evaluate({"x": 5}, {}) == {
        "a": 5,
        "b": "circle",
        "c": "Hello you",
        "d": ".x.y",
        "e": 5,
        "f": "now",
        "g": "https://a.b/c",
        "h": "$foo",
        "i": "${ .x.y }",
    }


def test_a_template_without_expressions_is_constant() -> None:
    found = compile_definition(task("set: {a: [1, {b: x}]}")).tasks["/do/0/x"]
    assert isinstance(found, Set)
    assert found.value.reads == frozenset()
    assert getattr(found.value, "constant") is True  # noqa: B009


@pytest.mark.parametrize("version", ["0.0.0", "1.2.3-alpha.1+build.5", "10.20.30", "1.0.0-0a", "1.0.0--"])
def test_a_semantic_version_is_accepted(version: str) -> None:
    assert compile_definition(task("call: f").replace("'1.0.0'", f"'{version}'")).version == version


# -- the specification's own examples -----------------------------------------------------------------------------

_SHARED = Path(os.environ.get("FLOWTRAIL_SHARED", Path(__file__).resolve().parents[3] / "shared"))
EXAMPLES = _SHARED / "spec" / "examples"


@pytest.mark.skipif(not EXAMPLES.is_dir(), reason="the specification is not on this machine")
def test_every_example_of_the_specification_compiles() -> None:
    files = sorted(EXAMPLES.glob("*.yaml"))
    refused = {}
    for path in files:
        try:
            compile_definition(path.read_bytes())
        except DefinitionError as problem:
            refused[path.stem] = [p.message for p in problem.problems]
    assert refused == {}
    assert len(files) >= 44


@pytest.mark.parametrize("data", [None, 1, "text", [], [1]])
def test_data_that_is_no_object_is_refused_as_a_definition(data: Any) -> None:
    with pytest.raises(DefinitionError, match="Expected an object but found"):
        compile_definition(data)
