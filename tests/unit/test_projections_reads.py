"""The read side without a database: cursors, filters, "same as before", and the migrations' rules."""

from __future__ import annotations

import re
from typing import Any

import pytest

from engine.errors import InputError
from projections import migrations, queries
from projections.dataflow import Step, fill
from projections.statements import statements


def step(task: str, begun: int | None, ended: int | None, status: str = "completed", **given: str) -> Step:
    return Step(
        task=task,
        status=status,
        begun=begun,
        ended=ended,
        input=given.get("input"),
        result=given.get("result"),
        output=given.get("output"),
    )


def test_a_task_without_an_input_got_the_output_of_the_one_before() -> None:
    steps = [
        step("/do/0/a", None, 2, output="A"),
        step("/do/1/b", 3, 4, result="B"),
        step("/do/2/c", None, 5),
        step("/do/3/d", 6, None, "scheduled"),
    ]
    fill("IN", steps)
    assert [(s.input, s.output) for s in steps] == [("IN", "A"), ("A", "B"), ("B", "B"), ("B", None)]


def test_the_last_task_of_a_composite_gives_its_output_to_the_composite() -> None:
    outer = step("/do/0/o", 2, 6, input="CUT")
    inner = step("/do/0/o/do/0/a", 3, 4, result="A", output="A2")
    skipped = step("/do/0/o/do/1/s", None, 5, "skipped")
    after = step("/do/1/b", None, 7)
    fill("IN", [after, skipped, inner, outer])
    assert (inner.input, outer.output, after.input, after.output) == ("CUT", "A2", "A2", "A2")
    assert (skipped.input, skipped.output) == ("A2", "A2")


def test_a_faulted_task_has_an_input_and_no_output() -> None:
    faulted = step("/do/0/a", 2, 3, "faulted")
    fill("IN", [faulted])
    assert (faulted.input, faulted.output) == ("IN", None)


@pytest.mark.parametrize("cursor", ["", "%", "e30", "WzFd", "x" * 5, "bnVsbA"])
def test_a_cursor_that_no_page_gave_is_refused(cursor: str) -> None:
    with pytest.raises(InputError, match="Expected the cursor of a page"):
        queries.list_flows(cursor=cursor)
    with pytest.raises(InputError, match="Expected the cursor of a page"):
        queries.rejections(cursor=cursor)


@pytest.mark.parametrize("limit", [0, -1, 1001])
def test_a_limit_out_of_range_is_refused(limit: int) -> None:
    with pytest.raises(InputError, match=f"Expected a limit from 1 to 1000 but found {limit}"):
        queries.list_flows(limit=limit)


@pytest.mark.parametrize("definition", ["", "acme", "/x", "acme/", "@1"])
def test_a_definition_without_namespace_and_name_is_refused(definition: str) -> None:
    with pytest.raises(InputError, match="Expected namespace/name"):
        queries.durations(definition)


def test_every_question_has_its_statement_with_the_parameters_it_gives() -> None:
    asks: list[queries.Ask[Any]] = [
        queries.get_flow("f"),
        queries.list_flows(),
        queries.tasks_of("f"),
        queries.history_of("f"),
        queries.rejections(),
        queries.rejection_of_command("f", "c"),
        queries.unreadable(),
        queries.count_unreadable(),
        queries.count_broken(),
        queries.count_healings(),
        queries.healings(),
        queries.positions("t"),
        queries.positions_of_flow("f"),
        queries.ended_among(["f"]),
        queries.rejected_among(["f"]),
        queries.counts_by_status("a/b"),
        queries.counts_by_branch("a/b"),
        queries.durations("a/b"),
    ]
    known = statements("reads")
    assert {ask.statement for ask in asks} == set(known)
    for ask in asks:
        named = set(re.findall(rb"%\((\w+)\)s", known[ask.statement]))
        assert named == {name.encode() for name in ask.parameters}


def test_released_migrations_are_numbered_without_a_gap() -> None:
    assert [m.number for m in migrations.released()] == list(range(1, len(migrations.released()) + 1))


def test_a_database_migrated_by_a_newer_program_is_refused() -> None:
    with pytest.raises(InputError, match="migrated by a newer Flowtrail"):
        migrations._compare({99: ("later", b"")}, migrations.released())


def test_an_edited_migration_is_refused_with_the_remedy() -> None:
    with pytest.raises(InputError, match=r"0001_x\.sql .* was edited .* put the change into a new file"):
        migrations._compare({1: ("x", b"\1" * 32)}, (migrations.Migration(1, "x", "SELECT 1"),))
