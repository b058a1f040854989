"""Waiting for time, events, people, sub-flows and silent workers; and what wakes a flow again."""

from __future__ import annotations

import json

import pytest

from engine.core.timers import next_due
from schemas import messages as m
from schemas.codec import encode_command
from tests.flows import USER, WORKER, Run, definition


def started(text: str, data: object = None) -> Run:
    run = Run(definition(text))
    run.start({} if data is None else data)
    return run


# -- wait ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("duration", ["PT10S", "{seconds: 10}", "'${ \"PT\\(.n)S\" }'"])
def test_a_wait_ends_when_its_time_has_come_and_not_before(duration: str) -> None:
    run = started(f"do: [{{w: {{wait: {duration}}}}}]", {"n": 10})
    assert run.advance(9.999) == []
    assert run.advance(0.001) == ["wait"]
    assert run.output == {"n": 10}
    assert run.kinds == ["FlowStarted", "TaskStarted", "TimerFired", "TaskCompleted", "FlowCompleted"]
    assert run.log[2].event.actor.kind == "timer"
    run.verify()


def test_a_wait_of_no_time_does_not_wait() -> None:
    assert started("do: [{w: {wait: PT0S}}]").kinds[-1] == "FlowCompleted"


def test_a_timer_that_fires_twice_or_early_does_nothing() -> None:
    run = started("do: [{w: {wait: PT10S}}, {a: {call: f}}]")
    timer = m.FireTimer("/do/0/w", 1, 1, "wait", next_due(run.state))
    assert run.send(timer).events == ()
    run.advance(10)
    assert run.send(timer).events == ()
    assert run.waiting == ["/do/1/a"]


def test_parallel_waits_fire_in_the_order_of_time() -> None:
    run = started("do: [{f: {fork: {branches: [{a: {wait: PT3S}}, {b: {wait: PT1S}}, {c: {wait: PT2S}}]}}}]")
    assert run.advance(5) == ["wait"] * 3
    fired = [s.event.task for s in run.log if s.event.kind == "TimerFired"]
    assert [str(task)[-1] for task in fired] == ["b", "c", "a"]
    run.verify()


# -- listen -------------------------------------------------------------------------------------------------------------


def test_one_event_ends_a_listen() -> None:
    run = started("do: [{l: {listen: {to: {one: {with: {type: t.a}}}}}}]")
    assert [key.split("/")[0] for key, _ in run.asked(m.TellEntity)] == ["~correlation"]
    assert run.deliver("/do/0/l", {"type": "t.b"}).events == ()
    run.deliver("/do/0/l", {"type": "t.a", "data": {"x": 1}})
    assert run.output == [{"x": 1}]
    messages = [json.loads(body.message) for _, body in run.asked(m.TellEntity)]
    assert [next(iter(message)) for message in messages] == ["subscribe", "unsubscribe"]
    run.verify()


def test_a_filter_s_expression_reads_the_event_s_data() -> None:
    run = started("do: [{l: {listen: {to: {any: [{with: {type: t, data: '${ .temperature > 38 }'}}]}}}}]")
    assert run.deliver("/do/0/l", {"type": "t", "data": {"temperature": 37}}).events == ()
    run.deliver("/do/0/l", {"type": "t", "data": {"temperature": 39}})
    assert run.output == [{"temperature": 39}]


def test_all_waits_for_one_event_of_each_filter() -> None:
    run = started("do: [{l: {listen: {to: {all: [{with: {type: a}}, {with: {type: b}}]}}}}]")
    run.deliver("/do/0/l", {"type": "b", "data": 1}, number=1)
    assert run.deliver("/do/0/l", {"type": "b", "data": 2}, number=1).events == ()
    run.deliver("/do/0/l", {"type": "a", "data": 3}, number=0)
    assert run.output == [1, 3]
    run.verify()


def test_reading_the_envelope() -> None:
    run = started("do: [{l: {listen: {to: {one: {with: {type: a}}}, read: envelope}}}]")
    run.deliver("/do/0/l", {"type": "a", "data": 1})
    assert run.output[0]["type"] == "a"
    assert run.output[0]["data"] == 1


def test_any_until_a_condition_collects() -> None:
    run = started("do: [{l: {listen: {to: {any: [], until: '( . | length ) > 2'}}}}]")
    for n in range(3):
        run.deliver("/do/0/l", {"type": f"t{n}", "data": n})
    assert run.output == [0, 1, 2]
    run.verify()


def test_any_until_an_event_does_not_give_that_event() -> None:
    text = "do: [{l: {listen: {to: {any: [{with: {type: a}}], until: {one: {with: {type: stop}}}}}}}]"
    run = started(text)
    run.deliver("/do/0/l", {"type": "a", "data": 1})
    run.deliver("/do/0/l", {"type": "stop", "data": 2}, number=1)
    assert run.output == [1]
    run.verify()


def test_foreach_works_off_events_one_after_the_other() -> None:
    run = started(
        """
do:
  - l:
      listen: {to: {any: [{with: {type: a}}], until: '( . | length ) == 2'}}
      foreach:
        item: event
        at: i
        do: [{w: {call: f, with: {e: '${ $event }', i: '${ $i }'}}}]
        output: {as: '{did: ., i: $i}'}
"""
    )
    run.deliver("/do/0/l", {"type": "a", "data": "x"})
    run.deliver("/do/0/l", {"type": "a", "data": "y"})
    w = "/do/0/l/foreach/do/0/w"
    assert run.waiting == [w]
    run.complete(w, "X")
    run.complete(w, "Y", run=2)
    assert run.output == [{"did": "X", "i": 0}, {"did": "Y", "i": 1}]
    assert [a for _, _, a in run.dispatched()] == [{"e": "x", "i": 0}, {"e": "y", "i": 1}]
    run.verify()


def test_a_correlation_expects_the_value_it_was_given() -> None:
    text = (
        "do: [{l: {listen: {to: {one: {with: {type: a}, correlate: "
        "{order: {from: .data.id, expect: '${ .order }'}}}}}}}]"
    )
    run = started(text, {"order": 7})
    key, body = run.asked(m.TellEntity)[0]
    assert len(key.split("/")) == 3
    assert json.loads(body.message)["subscribe"]["values"] == [7]
    assert run.deliver("/do/0/l", {"type": "a", "data": {"id": 8}}).events == ()
    run.deliver("/do/0/l", {"type": "a", "data": {"id": 7}})
    assert run.output == [{"id": 7}]


def test_without_an_expectation_the_first_value_binds_the_others() -> None:
    correlate = "correlate: {room: {from: .roomid}}"
    run = started(
        f"do: [{{l: {{listen: {{to: {{all: [{{with: {{type: a}}, {correlate}}}, {{with: {{type: b}}, {correlate}}}]}}}}}}}}]"
    )
    run.deliver("/do/0/l", {"type": "a", "roomid": "r1", "data": 1})
    assert run.deliver("/do/0/l", {"type": "b", "roomid": "r2", "data": 2}, number=1).events == ()
    run.deliver("/do/0/l", {"type": "b", "roomid": "r1", "data": 3}, number=1)
    assert run.output == [1, 3]
    run.verify()


def test_a_listen_can_time_out() -> None:
    run = started("do: [{l: {listen: {to: {one: {with: {type: a}}}}, timeout: {after: PT5S}}}]")
    run.advance(5)
    assert run.error.status == 408
    run.verify()


# -- emit ---------------------------------------------------------------------------------------------------------------


def test_emit_publishes_a_cloud_event_which_is_its_output() -> None:
    run = started(
        "do: [{e: {emit: {event: {with: {source: https://x.y, type: greeted, data: {hi: '${ .name }'}, room: r1}}}}}]",
        {"name": "Ada"},
    )
    assert run.output["data"] == {"hi": "Ada"}
    assert {"specversion", "id", "source", "type", "time", "room"} < run.output.keys()
    event = run.emitted()[0]
    assert (event.id, event.type, event.source, event.extensions) == (
        "f1/2",
        "greeted",
        "https://x.y",
        {"room": "r1"},
    )
    assert json.loads(event.data or b"") == {"hi": "Ada"}
    run.verify()


# -- sub-flows ----------------------------------------------------------------------------------------------------------

SUB = "do: [{s: {run: {workflow: {namespace: test, name: child, version: '1.0.0', input: {n: '${ .n }'}}}}}]"


def test_a_sub_flow_is_started_and_its_output_is_the_task_s() -> None:
    run = started(SUB, {"n": 1})
    (child, start) = run.asked(m.StartFlow)[0]
    assert (child, start.definition, start.input) == ("f1.2", "test/child@1.0.0", b'{"n":1}')
    assert start.parent == m.Parent("f1", "/do/0/s", 1, 1)
    run.complete("/do/0/s", {"done": True})
    assert run.output == {"done": True}
    run.verify()


def test_a_sub_flow_answers_its_parent() -> None:
    parent = m.Parent("f0", "/do/0/s", 1, 1)
    run = Run(definition("do: [{a: {call: f}}]"), "f0.2")
    run.send(m.StartFlow(run.definition.id, b"{}", parent))
    run.complete("/do/0/a", 5)
    assert run.asked(m.CompleteTask) == [("f0", m.CompleteTask("/do/0/s", 1, 1, b"5"))]
    run.verify()


def test_a_sub_flow_that_faults_fails_its_parent_s_task() -> None:
    run = Run(definition("do: [{r: {raise: {error: {type: https://x/e, status: 418}}}}]"), "f0.2")
    run.send(m.StartFlow(run.definition.id, b"{}", m.Parent("f0", "/do/0/s", 1, 1)))
    assert run.asked(m.FailTask) == [("f0", m.FailTask("/do/0/s", 1, 1, m.Error("https://x/e", 418)))]


def test_a_sub_flow_that_cannot_start_fails_its_parent_s_task() -> None:
    run = Run(definition("do: [{a: {call: f}}]"), "f0.2")
    run.send(m.StartFlow("test/none@1.0.0", b"{}", m.Parent("f0", "/do/0/s", 1, 1)), known=False)
    [(flow, body)] = run.asked(m.FailTask)
    assert flow == "f0"
    assert body.error.type.endswith("/configuration")
    assert run.rejected().code == "unknown-definition"


def test_a_cancelled_parent_cancels_its_sub_flow() -> None:
    run = started(SUB, {"n": 1})
    run.cancel()
    assert [flow for flow, _ in run.asked(m.CancelFlow)] == ["f1.2"]


def test_a_sub_flow_that_nobody_waits_for() -> None:
    run = started(SUB.replace("run: {", "run: {await: false, "), {"n": 1})
    assert run.output == {"n": 1}
    assert run.asked(m.StartFlow)[0][1].parent is None
    run.verify()


# -- people -------------------------------------------------------------------------------------------------------------

APPROVAL = """
do:
  - ok:
      call: approval
      with:
        title: Pay ${amount}?
        assignees: [ada]
        form: {type: object, required: [approved], properties: {approved: {type: boolean}}}
"""


def test_an_approval_waits_for_a_valid_answer() -> None:
    run = started(APPROVAL)
    assert run.dispatched() == []
    answer = m.CompleteTask("/do/0/ok", 1, 1, b'{"approved":"yes"}')
    run.send(answer, actor=USER)
    assert run.rejected().code == "invalid-answer"
    run.send(m.CompleteTask("/do/0/ok", 1, 1, b'{"approved":true}'), actor=USER)
    assert run.output == {"approved": True}
    assert run.log[2].event.actor == USER
    run.verify()


def test_a_suspended_flow_keeps_its_timers_for_its_resumption() -> None:
    run = started("do: [{w: {wait: PT10S}}]")
    run.send(m.SuspendFlow("lunch"), actor=USER)
    assert run.advance(20) == []
    run.send(m.ResumeFlow(), actor=USER)
    assert run.advance(0.001) == ["wait"]
    run.verify()


def test_what_was_parked_is_decided_on_resumption() -> None:
    run = started("do: [{a: {call: f}}]")
    run.send(m.SuspendFlow(), actor=USER)
    stored = encode_command(m.Command("p1", "f1", 1, WORKER, m.CompleteTask("/do/0/a", 1, 1, b"5")))
    from engine.core.decide import park
    from engine.core.redecide import Stored

    assert isinstance(run.state, m.LiveFlow)
    command = m.Command("p1", "f1", 1, WORKER, m.CompleteTask("/do/0/a", 1, 1, b"5"))
    parked = park(run.definition, run.state, command, stored, m.Cause("p1", 0, 99), run.now, "")
    run.state = parked.state
    run.log += [Stored(r.event, r.value) for r in parked.events]
    run.send(m.ResumeFlow("go on"), actor=USER)
    assert run.output == 5
    run.verify()


# -- workers that go silent ---------------------------------------------------------------------------------------------

SLOW = "do: [{a: {call: f, metadata: {heartbeat: PT10S, attempts: 2}}}]"


def test_heartbeats_keep_a_task_alive_and_show_its_progress() -> None:
    run = started(SLOW)
    for n in range(3):
        assert run.advance(9) == []
        run.send(m.HeartbeatTask("/do/0/a", 1, 1, json.dumps({"done": n}).encode()))
    assert run.kinds.count("TaskProgressed") == 3
    run.complete("/do/0/a", 1)
    run.verify()


def test_a_silent_worker_s_task_goes_to_another_and_then_to_a_person() -> None:
    run = started(SLOW)
    assert run.advance(10) == ["heartbeat"]
    assert len(run.dispatched()) == 2
    assert run.cancelled() == ["/do/0/a"]
    assert run.advance(10.1) == ["heartbeat"]
    assert isinstance(run.state, m.LiveFlow)
    assert run.state.status == "suspended"
    run.send(m.ResumeFlow(), actor=USER)
    assert len(run.dispatched()) == 3
    run.complete("/do/0/a", "at last", attempt=3)
    assert run.output == "at last"
    run.verify()


def test_a_worker_that_gives_up_leaves_the_task_to_a_person() -> None:
    run = started("do: [{a: {call: f}}]")
    run.send(m.FailTask("/do/0/a", 1, 1, m.Error("https://x/poison", 500, "Poison"), incident=True))
    assert run.kinds[-2:] == ["TaskRetried", "FlowSuspended"]
    run.send(m.ResumeFlow(), actor=USER)
    run.complete("/do/0/a", 1, attempt=2)
    assert run.output == 1
    run.verify()


# -- calls --------------------------------------------------------------------------------------------------------------


def test_a_call_nobody_waits_for_ends_with_its_input() -> None:
    run = started("do: [{s: {run: {shell: {command: echo}, await: false}}}]", {"n": 1})
    assert run.output == {"n": 1}
    assert len(run.dispatched()) == 1
    run.verify()


def test_a_limited_call_asks_its_limiter_and_gives_back() -> None:
    run = started(
        "do: [{a: {call: f, metadata: {concurrency: {limit: 2, key: '${ .customer }'}}}}]", {"customer": "c7"}
    )
    assert run.dispatched() == []
    key, body = run.asked(m.TellEntity)[0]
    assert key.startswith("~limiter/")
    assert key.endswith("/c7")
    assert json.loads(body.message)["acquire"]["concurrency"] == 2
    run.complete("/do/0/a", 1)
    assert "release" in json.loads(run.asked(m.TellEntity)[-1][1].message)
    run.verify()


def test_an_endless_loop_faults_after_many_decisions() -> None:
    run = started("do: [{a: {set: {n: '${ (.n // 0) + 1 }'}, then: a}}]")
    assert set(run.advance(0.001)) == {"continue"}
    assert run.error.title == "Endless loop"


# -- extensions ---------------------------------------------------------------------------------------------------------

EXTENDED = """
use:
  extensions:
    - log:
        extend: call
        when: $task.call == "f"
        before: [{b: {call: note, with: {text: '${ "before \\($task.reference)" }'}}}]
        after: [{c: {call: note, with: {text: '${ "after \\($task.reference)" }', got: '${ . }'}}}]
do:
  - x: {call: f, output: {as: '{f: .}'}}
  - y: {call: g}
"""


def test_an_extension_surrounds_a_task_and_leaves_its_data() -> None:
    run = started(EXTENDED, {"n": 1})
    run.complete("/do/0/x/extensions/0/before/0/b", "dropped")
    run.complete("/do/0/x/extended", 5)
    run.complete("/do/0/x/extensions/0/after/0/c", "dropped")
    run.complete("/do/1/y/extended", "end")
    assert [f for _, f, _ in run.dispatched()] == ["note", "f", "note", "g"]
    assert run.dispatched()[0][2] == {"text": "before /do/0/x"}
    assert run.dispatched()[2][2] == {"text": "after /do/0/x", "got": {"f": 5}}
    assert run.output == "end"
    run.verify()


def test_exit_before_a_task_answers_for_it() -> None:
    text = """
use:
  extensions: [{fake: {extend: call, before: [{b: {set: {faked: true}, then: exit}}]}}]
do: [{x: {call: f}}]
"""
    run = started(text)
    assert run.output == {"faked": True}
    assert run.dispatched() == []
    run.verify()


def test_an_extended_switch_goes_where_its_case_says_after_its_extensions() -> None:
    text = """
use: {extensions: [{log: {extend: switch, after: [{c: {call: note}}]}}]}
do:
  - s: {switch: [{yes: {when: .n == 1, then: two}}, {no: {then: exit}}]}
  - one: {set: {at: one}, then: end}
  - two: {set: {at: two}}
"""
    run = started(text, {"n": 1})
    run.complete("/do/0/s/extensions/0/after/0/c", None)
    assert run.output == {"at": "two"}
    run.verify()
    run = started(text, {"n": 2})
    run.complete("/do/0/s/extensions/0/after/0/c", None)
    assert run.output == {"n": 2}


def test_data_cannot_ask_for_a_secret() -> None:
    run = started("do: [{a: {call: f}}]", {"stolen": "\u27e6secret:password\u27e7"})
    assert run.error.type.endswith("/expression")
    assert run.dispatched() == []
