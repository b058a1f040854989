"""try, catch, retry, timeouts and compensation: who takes an error, when it is tried again, what is undone."""

from __future__ import annotations

import pytest

from schemas import messages as m
from tests.flows import Run, definition

TIMEOUT = "https://serverlessworkflow.io/spec/1.0.0/errors/timeout"
DOWN = m.Error("https://x/down", 503, "Down")
A = "/do/0/t/try/0/a"


def trying(catch: str, body: str = "a: {call: f}") -> Run:
    run = Run(
        definition(f"do: [{{t: {{try: [{{{body}}}], catch: {catch}}}}}, {{after: {{set: '${{ . }}'}}}}]")
    )
    run.start({"n": 1})
    return run


def test_a_caught_error_is_handled_by_the_catch_s_tasks() -> None:
    run = trying(
        "{errors: {with: {status: 503}}, as: problem, do: [{h: {set: {was: '${ $problem.title }'}}}]}"
    )
    run.fail(A, DOWN)
    assert run.output == {"was": "Down"}
    assert run.kinds[3:6] == ["TaskFaulted", "TaskCaught", "TaskCompleted"]
    run.verify()


def test_the_error_is_called_error_by_default_and_names_its_task() -> None:
    run = trying("{do: [{h: {set: {at: '${ $error.instance }', status: '${ $error.status }'}}}]}")
    run.fail(A, DOWN)
    assert run.output == {"at": A, "status": 503}


@pytest.mark.parametrize(
    "catch",
    [
        "{errors: {with: {status: 500}}, do: [{h: {set: {x: 1}}}]}",
        "{errors: {with: {status: 503, type: 'https://x/other'}}, do: [{h: {set: {x: 1}}}]}",
        "{when: $error.status == 500, do: [{h: {set: {x: 1}}}]}",
        "{exceptWhen: $error.status == 503, do: [{h: {set: {x: 1}}}]}",
    ],
)
def test_an_error_that_the_catch_does_not_take_goes_on(catch: str) -> None:
    run = trying(catch)
    run.fail(A, DOWN)
    assert run.error == m.Error("https://x/down", 503, "Down", None, A)
    run.verify()


@pytest.mark.parametrize("prefix", ["dsl/errors/types", "errors/types", "spec/1.0.0/errors"])
def test_older_names_of_the_standard_types_are_caught(prefix: str) -> None:
    kind = f"https://serverlessworkflow.io/{prefix}/communication"
    text = f"do: [{{t: {{try: [{{c: {{call: f}}}}], catch: {{errors: {{with: {{type: {kind}}}}}}}}}}}]"
    run = Run(definition(text))
    run.start({})
    run.fail("/do/0/t/try/0/c", m.Error("https://serverlessworkflow.io/spec/1.0.0/errors/communication", 404))
    assert run.kinds[-1] == "FlowCompleted"
    run.verify()


def test_a_catch_without_tasks_swallows_the_error() -> None:
    run = trying("{errors: {with: {status: 503}}}")
    run.fail(A, DOWN)
    assert run.output == {"n": 1}


def test_the_outer_catch_takes_what_the_inner_one_leaves() -> None:
    run = Run(
        definition(
            """
do:
  - outer:
      try:
        - inner: {try: [{r: {raise: {error: {type: https://x/e, status: 418}}}}], catch: {errors: {with: {status: 1}}}}
      catch: {do: [{h: {set: {status: '${ $error.status }'}}}]}
"""
        )
    )
    run.start({})
    assert run.output == {"status": 418}
    run.verify()


def test_an_error_in_the_catch_s_tasks_is_not_caught_by_it() -> None:
    run = trying("{do: [{again: {raise: {error: {type: https://x/second, status: 500}}}}]}")
    run.fail(A, DOWN)
    assert run.error.type == "https://x/second"
    run.verify()


@pytest.mark.parametrize(
    ("backoff", "delays"),
    [("constant", [2, 2, 2]), ("linear", [2, 4, 6]), ("exponential", [2, 4, 8])],
)
def test_retries_wait_by_their_back_off_and_end_at_the_limit(backoff: str, delays: list[int]) -> None:
    retry = f"{{delay: {{seconds: 2}}, backoff: {{{backoff}: {{}}}}, limit: {{attempt: {{count: 3}}}}}}"
    run = trying(f"{{retry: {retry}}}")
    for number, delay in enumerate(delays, 1):
        run.fail(A, DOWN, run=number)
        assert run.advance(delay - 0.1) == []
        assert run.advance(0.2) == ["retry"]
    run.fail(A, DOWN, run=4)
    assert run.error.status == 503
    run.verify()


def test_a_retry_that_succeeds_goes_on_and_starts_from_the_input() -> None:
    run = trying(
        "{retry: {delay: PT1S, limit: {attempt: {count: 5}}}}", "a: {call: f, output: {as: '{got: .}'}}"
    )
    run.fail(A, DOWN)
    run.advance(1)
    run.complete(A, 5, run=2)
    assert run.output == {"got": 5}
    assert [s.event.attempt for s in run.log if s.event.task == "/do/0/t"] == [1, 2, 2, 2]
    run.verify()


def test_a_used_up_retry_performs_the_catch_s_tasks() -> None:
    run = trying("{retry: {limit: {attempt: {count: 1}}}, do: [{h: {set: {gave: up}}}]}")
    run.fail(A, DOWN)
    run.fail(A, DOWN, run=2)
    assert run.output == {"gave": "up"}
    run.verify()


def test_retry_conditions_choose_what_is_retried() -> None:
    run = trying("{retry: {when: $error.status == 500, limit: {attempt: {count: 3}}}}")
    run.fail(A, DOWN)
    assert run.error.status == 503


def test_a_total_duration_ends_the_retries() -> None:
    run = trying("{retry: {delay: {seconds: 10}, limit: {duration: {seconds: 15}}}}")
    run.fail(A, DOWN)
    assert run.advance(10) == ["retry"]
    run.fail(A, DOWN, run=2)
    assert run.error.status == 503


def test_jitter_is_drawn_from_the_flow_s_own_history() -> None:
    def due(flow_id: str) -> int:
        text = "do: [{t: {try: [{a: {call: f}}], catch: {retry: {delay: PT1S, jitter: {from: PT0S, to: PT9S}}}}}]"
        run = Run(definition(text), flow_id)
        run.start({})
        run.fail(A, DOWN)
        run.verify()
        assert isinstance(run.state, m.LiveFlow)
        return run.state.active[0].due - run.now

    assert due("f1") == due("f1")
    assert 1_000_000 <= due("f1") <= 10_000_000
    assert len({due(f"f{n}") for n in range(5)}) == 5


def test_an_attempt_that_takes_too_long_is_retried() -> None:
    run = trying("{retry: {limit: {attempt: {count: 1, duration: PT5S}}}}")
    assert run.advance(5) == ["attempt"]
    assert run.cancelled() == [A]
    run.complete(A, "done", run=2)
    assert run.output == "done"
    run.verify()


# -- timeouts -----------------------------------------------------------------------------------------------------------


def test_a_task_that_times_out_faults_with_the_spec_s_error_and_its_worker_is_told() -> None:
    run = Run(definition("do: [{a: {call: f, timeout: {after: {seconds: 3}}}}]"))
    run.start({})
    assert run.advance(3) == ["timeout"]
    assert (run.error.type, run.error.status, run.error.instance) == (TIMEOUT, 408, "/do/0/a")
    assert run.cancelled() == ["/do/0/a"]
    run.verify()


def test_a_timeout_can_be_caught() -> None:
    run = trying(
        "{errors: {with: {status: 408}}, do: [{h: {set: {late: true}}}]}",
        "a: {call: f, timeout: {after: PT1S}}",
    )
    run.advance(1)
    assert run.output == {"late": True}
    run.verify()


def test_a_composite_s_timeout_cancels_what_runs_in_it() -> None:
    run = Run(definition("do: [{d: {do: [{a: {call: f}}], timeout: {after: PT1S}}}]"))
    run.start({})
    run.advance(1)
    assert run.kinds[-4:] == ["TimerFired", "TaskCancelled", "TaskFaulted", "FlowFaulted"]
    run.verify()


def test_a_flow_that_times_out_faults() -> None:
    run = Run(definition("do: [{a: {call: f}}]\ntimeout: {after: {minutes: 1}}"))
    run.start({})
    assert run.advance(59) == []
    assert run.advance(1) == ["timeout"]
    assert (run.error.type, run.cancelled()) == (TIMEOUT, ["/do/0/a"])
    run.verify()


def test_a_task_that_ends_in_time_does_not_time_out() -> None:
    run = Run(definition("do: [{a: {call: f, timeout: {after: PT1S}}}, {b: {call: g}}]"))
    run.start({})
    run.complete("/do/0/a", 1)
    assert run.advance(10) == []


# -- compensation -------------------------------------------------------------------------------------------------------

TRIP = """
use:
  functions:
    undoHotel: {call: cancelHotel, with: {booking: '${ .output.id }'}}
do:
  - hotel: {call: bookHotel, metadata: {compensate: undoHotel}}
  - flight: {call: bookFlight, metadata: {compensate: {call: cancelFlight, with: {f: '${ .output.id }'}}}}
  - pay: {call: pay}
"""


def test_a_fault_undoes_what_was_completed_newest_first() -> None:
    run = Run(definition(TRIP))
    run.start({})
    run.complete("/do/0/hotel", {"id": "h1"})
    run.complete("/do/1/flight", {"id": "f1"})
    run.fail("/do/2/pay", DOWN)
    assert run.dispatched()[-1] == ("default", "cancelFlight", {"f": "f1"})
    run.complete("/do/1/flight/metadata/compensate", None)
    assert run.dispatched()[-1] == ("default", "cancelHotel", {"booking": "h1"})
    run.complete("/do/0/hotel/metadata/compensate", None)
    assert run.error == m.Error(DOWN.type, 503, "Down", None, "/do/2/pay")
    run.verify()


def test_a_compensation_that_fails_does_not_stop_the_others() -> None:
    run = Run(definition(TRIP))
    run.start({})
    run.complete("/do/0/hotel", {"id": "h1"})
    run.complete("/do/1/flight", {"id": "f1"})
    run.fail("/do/2/pay", DOWN)
    run.fail("/do/1/flight/metadata/compensate", DOWN)
    run.complete("/do/0/hotel/metadata/compensate", None)
    assert run.error.instance == "/do/2/pay"
    run.verify()


def test_a_cancellation_can_undo_too() -> None:
    run = Run(definition(TRIP))
    run.start({})
    run.complete("/do/0/hotel", {"id": "h1"})
    run.send(m.CancelFlow("changed my mind", compensate=True))
    run.complete("/do/0/hotel/metadata/compensate", None)
    assert run.kinds[-1] == "FlowCancelled"
    run.verify()


def test_a_caught_error_undoes_nothing() -> None:
    text = "do: [{h: {call: f, metadata: {compensate: {call: g}}}}, {t: {try: [{r: {raise: {error: {type: https://x/e, status: 1}}}}], catch: {}}}]"
    run = Run(definition(text))
    run.start({})
    run.complete("/do/0/h", {})
    assert run.kinds[-1] == "FlowCompleted"
    run.verify()
