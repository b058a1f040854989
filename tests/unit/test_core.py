"""The core: given a definition and what happened, when a command comes, then these events."""

from __future__ import annotations

import hashlib
import json

import pytest

from engine.core.decide import PAYLOAD_BYTES_MAX
from schemas import messages as m
from tests.flows import Run, definition

VALIDATION = "https://serverlessworkflow.io/spec/1.0.0/errors/validation"
EXPRESSION = "https://serverlessworkflow.io/spec/1.0.0/errors/expression"
RUNTIME = "https://serverlessworkflow.io/spec/1.0.0/errors/runtime"

LINE = """
do:
  - a: {call: f}
  - b: {call: g}
"""


def test_a_flow_runs_its_tasks_in_order_and_ends() -> None:
    run = Run(definition(LINE))
    run.start({"x": 1})
    run.complete("/do/0/a", {"x": 2})
    run.complete("/do/1/b", {"x": 3})
    assert run.kinds == [
        "FlowStarted",
        "TaskScheduled",
        "TaskCompleted",
        "TaskScheduled",
        "TaskCompleted",
        "FlowCompleted",
    ]
    assert run.output == {"x": 3}
    assert isinstance(run.state, m.EndedFlow)
    run.verify()


def test_sequences_have_no_gap_and_each_event_names_the_hash_of_the_one_before() -> None:
    run = Run(definition(LINE))
    run.start({})
    run.complete("/do/0/a", 1)
    run.complete("/do/1/b", 2)
    head = b""
    for number, stored in enumerate(run.log, 1):
        assert stored.event.sequence == number
        assert stored.event.previous_hash == head
        head = hashlib.sha256(stored.value).digest()


def test_the_first_event_carries_the_actor_and_the_rest_the_engine() -> None:
    run = Run(definition(LINE))
    run.start({})
    run.complete("/do/0/a", 1)
    actors = [stored.event.actor for stored in run.log]
    assert actors == [
        m.Actor("user", "ada"),
        m.Actor("engine", ""),
        m.Actor("worker", "w1"),
        m.Actor("engine", ""),
    ]
    assert [stored.event.cause.command_id for stored in run.log] == ["c1", "c1", "c2", "c2"]


def test_the_same_start_command_twice_is_done_once() -> None:
    run = Run(definition(LINE))
    run.start({}, command_id="start")
    again = run.start({}, command_id="start")
    assert again.events == ()
    assert again.rejection is None


def test_another_start_of_a_flow_in_use_is_refused() -> None:
    run = Run(definition(LINE))
    run.start({})
    run.start({})
    assert run.rejected().code == "flow-exists"
    assert run.rejected().reason.startswith("Expected a flow id not in use but")


def test_an_ended_flow_refuses_another_start_and_every_result() -> None:
    run = Run(definition("do: [{a: {set: {x: 1}}}]"))
    run.start({}, command_id="one")
    assert run.start({}, command_id="one").rejection is None
    run.start({}, command_id="two")
    assert run.rejected().code == "flow-exists"
    run.complete("/do/0/a", 1)
    assert run.rejected().code == "flow-ended"


def test_an_unknown_definition_is_refused() -> None:
    run = Run(definition(LINE))
    run.start({}, known=False)
    assert run.rejected().code == "unknown-definition"
    assert "test/test@1.0.0" in run.rejected().reason


@pytest.mark.parametrize("body", [m.CancelFlow(), m.CompleteTask("/do/0/a", 1, 1, b"1")])
def test_a_command_for_a_flow_that_does_not_exist_is_refused(body: m.CommandBody) -> None:
    run = Run(definition(LINE))
    run.send(body)
    assert run.rejected().code == "unknown-flow"


def test_a_result_is_taken_once() -> None:
    run = Run(definition(LINE))
    run.start({})
    run.complete("/do/0/a", 1)
    run.complete("/do/0/a", 1)
    assert run.rejected().code == "task-not-active"
    run.complete("/do/1/b", 1, run=2)
    assert "run 1, attempt 1" in run.rejected().reason


def test_a_failed_task_faults_the_flow_with_the_error_and_its_place() -> None:
    run = Run(definition("do: [{outer: {do: [{a: {call: f}}]}}]"))
    run.start({})
    run.fail("/do/0/outer/do/0/a", m.Error(RUNTIME, 500, "Boom", "no luck"))
    assert run.tasks[-2:] == [("TaskFaulted", "a"), ("TaskFaulted", "outer")]
    assert run.error == m.Error(RUNTIME, 500, "Boom", "no luck", "/do/0/outer/do/0/a")
    run.verify()


def test_a_cancelled_flow_cancels_its_active_tasks() -> None:
    run = Run(definition("do: [{outer: {do: [{a: {call: f}}]}}]"))
    run.start({})
    run.cancel("not needed")
    assert run.kinds[-3:] == ["TaskCancelled", "TaskCancelled", "FlowCancelled"]
    assert run.log[-1].event.body == m.FlowCancelled("not needed")
    run.verify()


def test_a_task_gets_its_transformed_input_and_its_arguments() -> None:
    run = Run(definition("do: [{a: {call: f, input: {from: .order}, with: {id: '${ .id }', fixed: 1}}}]"))
    run.start({"order": {"id": 7}})
    body = run.log[-1].event.body
    assert isinstance(body, m.TaskScheduled)
    assert (body.input, body.arguments) == (b'{"id":7}', b'{"id":7,"fixed":1}')
    run.complete("/do/0/a", {"ok": True})
    run.verify()


def test_output_and_export_are_transformed_in_order() -> None:
    run = Run(
        definition("""
do:
  - a:
      call: f
      output: {as: '{sum: (.n + $input.n)}'}
      export: {as: '{kept: $output.sum, was: $context.n, raw: $task.output.n}'}
  - b: {set: '${ {data: ., context: $context} }'}
""")
    )
    run.start({"n": 1})
    run.complete("/do/0/a", {"n": 2})
    assert run.output == {"data": {"sum": 3}, "context": {"kept": 3, "was": 1, "raw": 2}}
    run.verify()


def test_the_flow_s_input_and_output_are_transformed() -> None:
    run = Run(
        definition(
            "input: {from: .order}\noutput: {as: '{result: .x, raw: $workflow.input}'}\ndo: [{a: {set: {x: '${ .id }'}}}]"
        )
    )
    run.start({"order": {"id": 3}})
    assert run.output == {"result": 3, "raw": {"order": {"id": 3}}}
    run.verify()


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("input: {schema: {document: {type: object, required: [id]}}}\ndo: [{a: {set: {x: 1}}}]", "/input"),
        ("do: [{a: {set: {x: 1}, input: {schema: {document: {type: string}}}}}]", "/do/0/a"),
        ("do: [{a: {set: {x: 1}, output: {schema: {document: {type: string}}}}}]", "/do/0/a"),
        ("do: [{a: {set: {x: 1}, export: {schema: {document: {type: string}}}}}]", "/do/0/a"),
        ("output: {schema: {document: {type: string}}}\ndo: [{a: {set: {x: 1}}}]", "/output"),
    ],
)
def test_data_that_a_schema_refuses_fault_the_flow(text: str, place: str) -> None:
    run = Run(definition(text))
    run.start({"y": 1})
    assert (run.error.type, run.error.status, run.error.instance) == (VALIDATION, 400, place)
    assert run.error.detail is not None
    assert run.error.detail.startswith("Expected")
    run.verify()


def test_a_worker_s_result_that_the_schema_refuses_is_kept_in_the_fault() -> None:
    run = Run(definition("do: [{a: {call: f, output: {schema: {document: {type: string}}}}}]"))
    run.start({})
    run.complete("/do/0/a", {"not": "a string"})
    faulted = run.log[-2].event.body
    assert isinstance(faulted, m.TaskFaulted)
    assert faulted.result == b'{"not": "a string"}'
    run.verify()


def test_an_expression_that_fails_faults_the_flow() -> None:
    run = Run(definition("do: [{a: {set: {x: '${ .n + {} }'}}}]"))
    run.start({"n": 1})
    assert (run.error.type, run.error.status, run.error.instance) == (EXPRESSION, 400, "/do/0/a")
    run.verify()


def test_a_skipped_task_passes_its_input_on_and_its_then_does_not_apply() -> None:
    run = Run(definition("do: [{a: {if: .no, set: {x: 1}, then: end}}, {b: {set: {y: '${ . }'}}}]"))
    run.start({"no": False})
    assert run.output == {"y": {"no": False}}
    assert run.tasks == [("TaskSkipped", "a"), ("TaskCompleted", "b")]
    run.verify()


@pytest.mark.parametrize(("color", "branch", "output"), [("red", "red", "R"), ("blue", "other", "O")])
def test_a_switch_takes_the_first_case_that_holds(color: str, branch: str, output: str) -> None:
    run = Run(
        definition("""
do:
  - pick:
      switch:
        - other: {then: o}
        - red: {when: .color == "red", then: r}
  - r: {set: {x: R}, then: end}
  - o: {set: {x: O}}
""")
    )
    run.start({"color": color})
    body = run.log[1].event.body
    assert isinstance(body, m.TaskCompleted)
    assert body.branch == branch
    assert run.output == {"x": output}
    run.verify()


def test_a_switch_without_a_matching_case_goes_on() -> None:
    run = Run(definition("do: [{s: {switch: [{a: {when: .no, then: end}}]}}, {b: {set: {x: 1}}}]"))
    run.start({"no": None})
    assert run.output == {"x": 1}


def test_exit_leaves_the_scope_and_end_leaves_them_all() -> None:
    text = """
do:
  - outer:
      do:
        - a: {set: {x: 1}, then: %s}
        - never: {set: {x: 2}}
      output: {as: '{outer: .x}'}
  - after: {set: {seen: '${ .outer }'}}
"""
    left = Run(definition(text % "exit"))
    left.start({})
    assert left.output == {"seen": 1}
    ended = Run(definition(text % "end"))
    ended.start({})
    assert ended.output == {"outer": 1}
    assert ended.tasks == [("TaskStarted", "outer"), ("TaskCompleted", "a"), ("TaskCompleted", "outer")]
    left.verify()
    ended.verify()


def test_a_loop_by_then_counts_its_runs() -> None:
    run = Run(
        definition("""
do:
  - work: {call: f}
  - again: {switch: [{more: {when: .left > 0, then: work}}]}
""")
    )
    run.start({"left": 2})
    run.complete("/do/0/work", {"left": 1}, run=1)
    run.complete("/do/0/work", {"left": 0}, run=2)
    assert run.output == {"left": 0}
    assert [s.event.run for s in run.log if s.event.kind == "TaskScheduled"] == [1, 2]
    run.verify()


def test_a_loop_that_waits_for_nobody_faults_its_flow() -> None:
    run = Run(definition("do: [{a: {set: {x: 1}, then: a}}]"))
    run.start({})
    assert set(run.advance(0)) == {"continue"}
    assert run.error.type == RUNTIME
    assert run.error.title == "Endless loop"
    run.verify()


def test_raise_faults_with_the_given_error() -> None:
    run = Run(
        definition(
            "do: [{a: {raise: {error: {type: 'https://x.test/e', status: 422, title: 'Bad ${x}', detail: '${ .why }'}}}}]"
        )
    )
    run.start({"why": "because"})
    assert run.error == m.Error("https://x.test/e", 422, "Bad ${x}", "because", "/do/0/a")
    run.verify()


def test_payloads_that_cannot_be_taken_are_refused_or_fault_the_task() -> None:
    run = Run(definition(LINE))
    run.send(m.StartFlow("test/test@1.0.0", b"{nonsense"))
    assert run.rejected().code == "payload-not-json"
    run.send(m.StartFlow("test/test@1.0.0", b'"' + b"x" * PAYLOAD_BYTES_MAX + b'"'))
    assert run.rejected().code == "payload-too-large"
    assert str(PAYLOAD_BYTES_MAX) in run.rejected().reason
    run.send(m.StartFlow("test/test@1.0.0", m.Claim("s3://x", b"", 1)))
    assert run.rejected().code == "payload-not-inline"
    run.start({})
    run.send(m.CompleteTask("/do/0/a", 1, 1, b"NaN"))
    assert run.error.title == "The task's result cannot be taken"
    run.verify()


def test_time_never_runs_backwards_within_a_flow() -> None:
    run = Run(definition(LINE))
    run.start({})
    run.now -= 5_000_000
    run.complete("/do/0/a", 1)
    times = [stored.event.time for stored in run.log]
    assert times == sorted(times)


def test_descriptors_are_what_the_specification_says() -> None:
    run = Run(
        definition(
            "do: [{a: {set: '${ {task: $task, workflow: ($workflow | del(.definition)), runtime: $runtime} }'}}]"
        )
    )
    run.start({"x": 1})
    found = run.output
    assert found["workflow"]["id"] == "f1"
    assert found["workflow"]["input"] == {"x": 1}
    assert found["workflow"]["startedAt"]["epoch"]["milliseconds"] == 1_700_000_000_001
    assert found["workflow"]["startedAt"]["iso8601"] == "2023-11-14T22:13:20.001000Z"
    assert found["task"]["name"] == "a"
    assert found["task"]["reference"] == "/do/0/a"
    assert found["runtime"]["name"] == "flowtrail"
    run.verify()


def test_verification_names_the_event_that_was_changed() -> None:
    from engine.core.redecide import Stored, verify_flow
    from schemas.codec import encode_event

    run = Run(definition(LINE))
    run.start({"x": 1})
    run.complete("/do/0/a", {"x": 2})
    import msgspec

    changed = msgspec.structs.replace(run.log[3].event, body=m.TaskScheduled("default", "other"))
    log = [*run.log[:3], Stored(changed, encode_event(changed))]
    _, differences = verify_flow(run.published.get, log)
    assert [(d.sequence, d.kind) for d in differences] == [(4, "decision")]
    swapped = [run.log[0], run.log[2], run.log[1]]
    _, differences = verify_flow(run.published.get, swapped)
    assert differences[0].kind == "sequence"
    json.dumps([str(d) for d in differences])
