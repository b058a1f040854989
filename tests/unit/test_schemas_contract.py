"""The released schemas: unedited, unique, readable; and the checks themselves."""

from __future__ import annotations

import io
import json
from typing import Any

import fastavro
import pytest

from schemas import messages as m
from schemas.codec import Undecodable, decode_command, encode_command
from schemas.compatibility import file_of, golden, golden_of, problems, resolves
from schemas.registry import Schema, by_fingerprint, by_id, load, newest, released
from schemas.upcasts import upcast


def test_no_released_file_was_edited_and_every_promise_holds() -> None:
    found = problems()
    assert found == [], "\n".join(found)


def test_the_golden_file_names_exactly_the_released_schemas() -> None:
    assert set(golden()) == {file_of(schema) for schema in released()}


@pytest.mark.parametrize("schema", released(), ids=file_of)
def test_a_schema_is_found_by_id_and_by_fingerprint(schema: Schema) -> None:
    assert by_id(schema.id) is schema
    assert by_fingerprint(schema.fingerprint) is schema
    assert 0 < schema.id < 2**31


@pytest.mark.parametrize("schema", released(), ids=file_of)
def test_the_newest_reader_resolves_every_released_writer(schema: Schema) -> None:
    assert resolves(json.loads(schema.text), json.loads(newest(schema.kind).text)) == []


def edited(schema: Schema) -> Schema:
    raw = json.loads(schema.text)
    raw["fields"].append({"name": "added", "type": ["null", "string"], "default": None})
    return load(json.dumps(raw), schema.kind, schema.version)


def test_an_edit_of_a_released_file_is_found_and_the_fix_is_printed() -> None:
    schemas = tuple(edited(s) if file_of(s) == "task-v1" else s for s in released())
    found = problems(schemas)
    assert len(found) == 1
    assert "schemas/avro/task-v1.avsc" in found[0]
    assert "git checkout -- schemas/avro/task-v1.avsc" in found[0]
    assert "schemas/avro/task-v2.avsc" in found[0]


def test_an_edit_of_a_default_is_found_although_the_fingerprint_does_not_see_it() -> None:
    command = newest("command")
    changed = load(command.text.replace('"default": null', '"default":  null', 1), "command", 1)
    assert changed.fingerprint == command.fingerprint
    found = problems(tuple(changed if s.kind == "command" else s for s in released()))
    assert any("command-v1.avsc" in problem for problem in found)


def test_a_removed_file_and_an_unlisted_one_are_found() -> None:
    without = tuple(s for s in released() if s.kind != "task")
    assert any("task-v1.avsc, which was released, but it is gone" in p for p in problems(without))
    listed = {name: value for name, value in golden().items() if name != "task-v1"}
    found = problems(released(), listed)
    assert len(found) == 1
    assert golden()["task-v1"]["fingerprint"] in found[0]


def test_two_schemas_with_one_id_are_found() -> None:
    twice = (*released(), released()[0])
    assert any("registry id" in problem for problem in problems(twice))


def versions(*fields: list[dict[str, Any]]) -> tuple[Schema, ...]:
    return tuple(
        load(json.dumps({"type": "record", "name": "Thing", "namespace": "t", "fields": of}), "thing", number)
        for number, of in enumerate(fields, 1)
    )


def checked(schemas: tuple[Schema, ...], steps: set[tuple[str, int]]) -> list[str]:
    return problems(schemas, {file_of(s): golden_of(s) for s in schemas}, steps)


def test_a_new_version_needs_defaults_and_a_step() -> None:
    first = [{"name": "a", "type": "int"}]
    good = versions(first, [*first, {"name": "b", "type": "string", "default": ""}])
    assert checked(good, {("thing", 1)}) == []
    assert checked(good, set()) == [
        "Expected a step from thing-v1 to thing-v2 in schemas/upcasts.py but there is none"
    ]
    bad = versions(first, [*first, {"name": "b", "type": "string"}])
    assert checked(bad, {("thing", 1)}) == [
        "Expected thing-v2 to read what thing-v1 wrote but b is new and has no default"
    ]


def test_a_gap_in_the_versions_is_found() -> None:
    first, _, third = versions(*([{"name": "a", "type": "int"}] for _ in range(3)))
    assert any(
        "Expected versions 1, 2, 3 ..." in problem for problem in checked((first, third), {("thing", 1)})
    )


def test_upcasts_chain_one_step_a_version() -> None:
    steps = {
        ("thing", 1): lambda r: {**r, "b": 1},
        ("thing", 2): lambda r: {**r, "c": r["b"] + 1},
    }
    assert upcast("thing", 1, 3, {"a": 0}, steps) == {"a": 0, "b": 1, "c": 2}
    assert upcast("thing", 2, 3, {"b": 5}, steps) == {"b": 5, "c": 6}
    assert upcast("thing", 3, 3, {"a": 0}, steps) == {"a": 0}


LEFT = {"type": "enum", "name": "E", "symbols": ["A", "B"]}
CASES: list[tuple[Any, Any, Any, bool]] = [
    ("int", "long", 1, True),
    ("long", "int", 1, False),
    ("string", "bytes", "x", True),
    ("int", "string", 1, False),
    ("int", ["null", "long"], 1, True),
    (["null", "int"], "int", 1, False),
    (["null", "int"], ["int", "null", "string"], None, True),
    ({"type": "array", "items": "int"}, {"type": "array", "items": "double"}, [1], True),
    ({"type": "map", "values": "int"}, {"type": "map", "values": "boolean"}, {"k": 1}, False),
    (LEFT, {**LEFT, "symbols": ["B", "A", "C"]}, "A", True),
    (LEFT, {**LEFT, "symbols": ["B"]}, "A", False),
    (LEFT, {**LEFT, "symbols": ["B"], "default": "B"}, "A", True),
    ({"type": "fixed", "name": "F", "size": 2}, {"type": "fixed", "name": "F", "size": 3}, b"ab", False),
]


def record(type_: Any) -> dict[str, Any]:
    return {"type": "record", "name": "R", "fields": [{"name": "f", "type": type_}]}


@pytest.mark.parametrize(("writer", "reader", "value", "good"), CASES)
def test_resolution_agrees_with_fastavro(writer: Any, reader: Any, value: Any, good: bool) -> None:
    assert (resolves(record(writer), record(reader)) == []) is good
    out = io.BytesIO()
    fastavro.schemaless_writer(out, fastavro.parse_schema(record(writer)), {"f": value})
    out.seek(0)
    if good:
        fastavro.schemaless_reader(
            out, fastavro.parse_schema(record(writer)), fastavro.parse_schema(record(reader))
        )


def test_a_recursive_schema_is_compared_once() -> None:
    tree = record(["null", {"type": "array", "items": "R"}])
    assert resolves(tree, tree) == []


def test_a_command_of_another_kind_or_of_garbage_is_undecodable() -> None:
    command = m.Command("c", "f", 1, m.Actor("user", "u"), m.StartFlow("a/b", b"{}"))
    assert decode_command(encode_command(command)) == command
    with pytest.raises(Undecodable, match=r"^Expected Confluent framing"):
        decode_command(b"garbage")
