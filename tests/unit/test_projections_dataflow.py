""" "Same as before", filled in when rows are read, is what the engine itself had: every task of whole flows."""

from __future__ import annotations

import json

import pytest

from engine.core.evolve import FlowState, active_of, evolve, inline, scope_data
from engine.core.folding import collected
from projections import history, tasks
from projections.dataflow import Happening, Step, Turn, fill
from schemas import messages as m
from tests.flows import Run
from tests.unit.whole_flows import every, logged

RUNS = every()
_HAPPENINGS = m.EventConsumed | m.TaskIterated | m.TaskIterationCompleted


def steps_of(run: Run) -> dict[tuple[str, int, int], Step]:
    """The rows of the flow's tasks as the read side has them."""
    rows: dict[tasks.Key, tasks.TaskRow] = {}
    happened: dict[tuple[str | None, int], list[Happening]] = {}
    for one in logged(run):
        event = one.event
        for key in tasks.keys_of(event):
            rows[key] = tasks.fold(rows.get(key), one, key)
        if isinstance(event.body, _HAPPENINGS):
            body = history.body_json(event.body).decode()
            happened.setdefault((event.task, event.run), []).append(
                Happening(event.sequence, event.kind, body)
            )
    return {
        key[1:]: Step(
            task=row.task,
            status=row.status or "",
            begun=row.scheduled_sequence,
            ended=row.ended_sequence,
            input=None if row.input is None else row.input.decode(),
            result=None if row.result is None else row.result.decode(),
            output=None if row.output is None else row.output.decode(),
            happened=happened.get((row.task, row.run), []) if row.kind == "listen" else [],
        )
        for key, row in rows.items()
    }


def turns_of(run: Run) -> list[Turn]:
    events = [one.event for one in run.log]
    return [
        Turn(event.sequence, event.kind, history.body_json(event.body).decode())
        for event in events
        if isinstance(event.body, m.FlowMigrated | m.FlowRestored)
    ]


Known = dict[tuple[str, int, int], tuple[str, str | None]]


def known_to_the_engine(run: Run) -> Known:
    """(input, output) of every attempt, taken from the states between the events."""
    found: Known = {}
    state: FlowState | None = None
    for stored in run.log:
        event, before = stored.event, state
        state = evolve(state, event, b"")
        if isinstance(event.body, m.FlowRestored) and isinstance(state, m.LiveFlow):
            found |= {(a.task, a.run, a.attempt): (a.input.decode(), None) for a in state.active}
        if event.task is None or not isinstance(before, m.LiveFlow):
            continue
        key = (event.task, event.run, event.attempt)
        own = active_of(before, event.task)
        raw = scope_data(before, event.task)
        output = None
        match event.body:
            case m.TaskSkipped():
                output = raw
            case m.TaskCompleted() as body:
                output = raw if own is None else collected(own)
                output = output if body.result is None else inline(body.result)
                output = output if body.output is None else inline(body.output)
        after = active_of(state, event.task) if isinstance(state, m.LiveFlow) else None
        given = after or own
        found[key] = (
            (raw if given is None else given.input).decode(),
            None if output is None else output.decode(),
        )
    return found


@pytest.mark.parametrize("run", RUNS, ids=lambda run: run.flow_id)
def test_inputs_and_outputs_are_those_the_engine_had(run: Run) -> None:
    body = run.log[0].event.body
    assert isinstance(body, m.FlowStarted)
    steps = steps_of(run)
    fill(inline(body.transformed or body.input).decode(), list(steps.values()), turns_of(run))
    found = {key: (step.input, step.output) for key, step in steps.items()}
    assert found == known_to_the_engine(run)


def test_the_flows_hold_every_event_that_a_decision_gives() -> None:
    kinds = {kind for run in RUNS for kind in run.kinds}
    assert {body.__name__ for body in m.EVENT_BODIES} - kinds == {"CommandParked", "FlowCancelled"}


def test_a_listen_whose_first_events_are_unknown_is_left_alone() -> None:
    late = Happening(5, "TaskIterated", json.dumps({"index": 3}))
    step = Step("/do/0/l", "completed", 2, 6, None, None, None, [late])
    fill("1", [step])
    assert (step.input, step.output) == ("1", "[]")
