"""The permit definition and its worker, run in memory by the core alone, without a server."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from flowtrail import TaskContext
from flowtrail.functions import Failure

from engine.dsl.compile import compile_definition
from engine.dsl.model import Definition
from engine.dsl.source import parse
from examples.permit.expected import count_branches
from examples.permit.generate import write_log
from examples.permit.worker import compute_penalty, compute_term, worker
from examples.permit.xes import CaseInput, read_cases
from schemas import messages as m
from tests.flows import Run

SOURCE = Path(__file__).parents[2] / "examples/permit/permit.yaml"


@pytest.fixture(scope="module")
def permit() -> Definition:
    return compile_definition(parse(SOURCE.read_text()))


def performed(permit: Definition, case: CaseInput) -> tuple[Run, int]:
    """The flow of a case, its tasks performed by the worker's functions, and how many there were."""
    run, tasks = Run(permit, case["case"]), 0
    run.start(case)
    while isinstance(run.state, m.LiveFlow):
        (scheduled,) = [s.event for s in run.log if isinstance(s.event.body, m.TaskScheduled)][-1:]
        body, active = scheduled.body, run.state.active[-1]
        assert isinstance(body, m.TaskScheduled)
        assert scheduled.task == active.task
        given = active.input if body.arguments is None else body.arguments
        assert isinstance(given, bytes)
        context = TaskContext(
            run.flow_id, active.task, active.run, active.attempt, permit.id, "permit", body.function
        )
        outcome = worker.functions[body.function].perform(given, context)
        if isinstance(outcome, Failure):
            error = m.Error(outcome.type, outcome.status, outcome.title, outcome.detail)
            run.send(m.FailTask(active.task, active.run, active.attempt, error))
        else:
            run.send(m.CompleteTask(active.task, active.run, active.attempt, outcome))
        tasks += 1
    return run, tasks


def branch(run: Run) -> str | None:
    chosen = [s.event.body.branch for s in run.log if isinstance(s.event.body, m.TaskCompleted)]
    (only,) = [name for name in chosen if name is not None]
    return only


def counted(permit: Definition, cases: Iterable[CaseInput]) -> dict[str | None, int]:
    found: Counter[str | None] = Counter()
    for case in cases:
        run, tasks = performed(permit, case)
        assert run.log[-1].event.kind == "FlowCompleted", run.log[-1].event
        assert tasks >= 3
        found[branch(run)] += 1
    return dict(found)


def case_of(folder: Path, **changed: Any) -> CaseInput:
    write_log(folder / "log", 1)
    case = next(read_cases(folder / "log"))
    return case | {"department": "General", "channel": "Internet", "enddate": None} | changed  # type: ignore[return-value]


def test_every_real_case_completes_on_the_branch_counted_independently(
    permit: Definition, shared: Path
) -> None:
    path = shared / "data/receipt.xes.gz"
    assert counted(permit, read_cases(path)) == count_branches(path)


def test_generated_cases_take_the_branches_counted_independently(permit: Definition, tmp_path: Path) -> None:
    write_log(tmp_path / "log", 200)
    assert counted(permit, read_cases(tmp_path / "log")) == count_branches(tmp_path / "log")


def test_a_flow_replays_to_the_same_bytes(permit: Definition, tmp_path: Path) -> None:
    run, _ = performed(permit, case_of(tmp_path, channel="Desk"))
    run.verify()
    assert run.output["handling"]["decision"] == "granted"
    assert run.output["letter"]["deliver_by"] == "post"


def test_a_department_nobody_knows_faults_the_flow(permit: Definition, tmp_path: Path) -> None:
    run, _ = performed(permit, case_of(tmp_path, department="Lost and found"))
    assert run.error.status == 422
    assert run.error.title == "Nobody is responsible"
    assert "Lost and found" in (run.error.detail or "")


def test_a_case_that_was_never_received_faults_the_flow(permit: Definition, tmp_path: Path) -> None:
    run, _ = performed(permit, case_of(tmp_path, first_activity="T02 Check confirmation of receipt"))
    assert run.error.title == "Not received"


def test_a_short_case_gets_a_note_of_what_is_missing(permit: Definition, tmp_path: Path) -> None:
    run, _ = performed(permit, case_of(tmp_path, events=4))
    assert "2 of 6 steps are not recorded" in run.output["letter"]["text"]


def test_an_input_the_schema_refuses_faults_the_flow_at_its_start(permit: Definition, tmp_path: Path) -> None:
    run, tasks = performed(permit, case_of(tmp_path, startdate="yesterday"))
    assert tasks == 0
    assert run.error.status == 400
    assert "/startdate" in (run.error.detail or "")


def test_the_term_follows_the_statutory_periods() -> None:
    from datetime import UTC, datetime, timedelta

    start = datetime(2011, 1, 1, tzinfo=UTC)
    for days, procedure in ((56, "regular"), (98, "extended"), (182, "long")):
        assert compute_term(start, start + timedelta(days=days), None).procedure.startswith(procedure)
    late = compute_term(start, start + timedelta(days=56), start + timedelta(days=56, minutes=1))
    assert (late.days_left, late.days_late) == (0, 1)


@pytest.mark.parametrize(("days", "euros"), [(0, 0), (1, 20), (14, 280), (15, 310), (42, 1260), (400, 1260)])
def test_the_penalty_grows_in_three_steps_and_ends(days: int, euros: int) -> None:
    assert compute_penalty(days).penalty_euros == euros
