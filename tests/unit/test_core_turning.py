"""Given/when/then of what turns a live flow: another version of its definition, and moments of its past."""

from __future__ import annotations

import json

import pytest

from schemas import messages as m
from schemas.codec import encode_snapshot
from tests.flows import USER, Run, definition

ORDER = definition(
    """
use:
  functions:
    unbook: {call: cancel, with: {id: '${ .output.id }'}}
    repay: {call: refund, with: {id: '${ .output.id }'}}
do:
  - book: {call: book, export: {as: '${ {booked: .id} }'}, metadata: {compensate: unbook}}
  - note: {set: '${ . + {noted: true} }'}
  - charge: {call: charge, metadata: {compensate: repay}}
  - ship: {call: ship}
""",
    "order",
)
LATER = definition(
    """
use:
  functions:
    unbook: {call: cancel, with: {id: '${ .output.id }'}}
    repay: {call: refund, with: {id: '${ .output.id }'}}
do:
  - check: {set: '${ . }'}
  - book: {call: book, export: {as: '${ {booked: .id} }'}, metadata: {compensate: unbook}}
  - charge: {call: charge, metadata: {compensate: repay}}
  - pack: {set: '${ . + {packed: true} }'}
  - ship: {call: ship}
""",
    "order",
    version="1.1.0",
)


def ordered() -> Run:
    run = Run(ORDER)
    run.start({"n": 1})
    run.complete("/do/0/book", {"id": "b1"})
    return run


# -- migration ----------------------------------------------------------------------------------------------------------


def test_a_flow_goes_on_under_another_version_and_its_worker_may_answer_by_the_old_place() -> None:
    run = ordered()
    assert run.waiting == ["/do/2/charge"]
    run.migrate(LATER, "packing")
    migrated = run.log[-1].event
    assert migrated.definition == "test/order@1.1.0"
    assert migrated.body == m.FlowMigrated(
        ORDER.id,
        ORDER.hash,
        {"/do/0/book": "/do/1/book"},
        (),
        "packing",
    )
    assert run.waiting == ["/do/2/charge"]
    run.complete("/do/2/charge", {"id": "c1"})
    assert run.waiting == ["/do/4/ship"]
    run.complete("/do/3/ship", {"id": "s1"})  # whoever was handed the task under another version
    assert run.kinds[-1] == "FlowCompleted"
    run.verify()


def test_an_active_task_moves_and_keeps_its_run() -> None:
    run = Run(ORDER)
    run.start({})
    run.migrate(LATER)
    body = run.log[-1].event.body
    assert isinstance(body, m.FlowMigrated)
    assert body.active == (m.ActiveRun("/do/1/book", 1, 1, "call", "/do/0/book"),)
    run.complete("/do/0/book", {"id": "b1"})
    assert run.log[-2].event.task == "/do/1/book"
    assert run.waiting == ["/do/2/charge"]
    run.verify()


def test_a_migration_is_undone_by_the_one_back() -> None:
    run = ordered()
    before = run.state
    run.migrate(LATER)
    run.migrate(ORDER)
    assert isinstance(before, m.LiveFlow)
    assert isinstance(run.state, m.LiveFlow)
    for name in ("active", "runs", "data", "context", "compensations", "definition", "definition_hash"):
        assert getattr(run.state, name) == getattr(before, name)
    run.verify()


def test_compensations_move_too() -> None:
    run = ordered()
    run.migrate(LATER)
    run.fail("/do/2/charge", m.Error("https://x.test/no", 500))
    assert run.waiting == ["/do/1/book/metadata/compensate"]
    run.verify()


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("do: [{book: {set: {a: 1}}}]", "to stay a call but it is a set"),
        ("do: [{other: {call: book}}]", "to have the task /do/book but it has none"),
        ("do: [{book: {call: elsewhere}}]", "to call book still but it calls elsewhere"),
        ("do: [{book: {call: book, metadata: {concurrency: 1}}}]", "keep its limits"),
    ],
)
def test_what_waits_must_mean_the_same(body: str, reason: str) -> None:
    run = Run(ORDER)
    run.start({})
    before = run.state
    run.migrate(definition(body, "order", version="2.0.0"))
    assert reason in run.rejected().reason
    assert run.rejected().code == "not-migratable"
    assert run.state is before


def test_only_another_version_of_the_same_definition_is_one() -> None:
    run = ordered()
    run.migrate(definition("do: [{charge: {call: charge}}]", "other"))
    assert "Expected another version of test/order but found test/other" in run.rejected().reason
    run.migrate(ORDER)
    assert "Expected another definition" in run.rejected().reason
    run.send(m.MigrateFlow("test/order@9.9.9"))
    assert run.rejected().code == "unknown-definition"


# -- rolling back -------------------------------------------------------------------------------------------------------


def test_a_flow_is_rolled_back_to_a_moment_after_undoing_what_came_since() -> None:
    run = ordered()
    run.complete("/do/2/charge", {"id": "c1"})
    assert run.waiting == ["/do/3/ship"]
    moment = 5  # book completed, note set, charge scheduled
    assert run.log[moment - 1].event.kind == "TaskScheduled"
    run.roll_back(moment, "wrong card")
    assert run.cancelled() == ["/do/3/ship"]
    assert run.waiting == ["/do/2/charge/metadata/compensate"]
    assert run.dispatched()[-1] == ("default", "refund", {"id": "c1"})
    run.complete("/do/2/charge/metadata/compensate", None)
    assert run.waiting == ["/do/2/charge"]
    assert isinstance(run.state, m.LiveFlow)
    assert json.loads(run.state.context) == {"booked": "b1"}
    assert json.loads(run.state.data) == {"id": "b1", "noted": True}
    assert run.state.active[0].run == 2
    assert [c.task for c in run.state.compensations] == ["/do/0/book"]
    run.complete("/do/2/charge", {"id": "late"})  # the first run's worker, late
    assert run.rejected().code == "task-not-active"
    run.complete("/do/2/charge", {"id": "c2"}, run=2)
    run.complete("/do/3/ship", {}, run=2)
    assert run.kinds[-1] == "FlowCompleted"
    run.verify()


def test_without_anything_to_undo_it_goes_on_at_once_and_a_suspended_flow_too() -> None:
    run = ordered()
    run.send(m.SuspendFlow("stop"))
    run.roll_back(2)
    assert run.waiting == ["/do/0/book/metadata/compensate"]
    run.complete("/do/0/book/metadata/compensate", None)
    assert run.waiting == ["/do/0/book"]
    again = run.roll_back(2)
    assert [r.event.kind for r in again.events] == [
        "FlowRollingBack",
        "TaskCancelled",
        "FlowRestored",
        "TaskScheduled",
    ]
    run.verify()


NESTED = definition(
    """
do:
  - each:
      for: {each: n, in: '[1, 2]'}
      do:
        - both:
            fork:
              branches:
                - left: {do: [{a: {call: a}}, {b: {call: b}}]}
                - right: {wait: PT10S}
        - pay:
            try: [{charge: {call: charge}}]
            catch: {retry: {delay: PT5S, limit: {attempt: {count: 2}}}}
""",
    "nested",
)


def test_composites_are_entered_again_as_they_were() -> None:
    run = Run(NESTED)
    run.start({})
    run.complete("/do/0/each/do/0/both/fork/branches/0/left/do/0/a", 1)
    moment = len(run.log)
    waited = run.waiting
    run.complete("/do/0/each/do/0/both/fork/branches/0/left/do/1/b", 2)
    run.advance(20)
    run.fail("/do/0/each/do/1/pay/try/0/charge", m.Error("https://x.test/down", 503))
    retrying = len(run.log)
    run.advance(5)
    run.roll_back(moment)
    assert run.waiting == waited
    assert isinstance(run.state, m.LiveFlow)
    assert {a.task.rsplit("/", 1)[1]: a.run for a in run.state.active} == {
        "each": 2, "both": 2, "left": 2, "b": 2, "right": 2,
    }  # fmt: skip
    run.roll_back(retrying)
    assert [run.tick() for _ in range(1)] == ["retry"]
    run.complete("/do/0/each/do/1/pay/try/0/charge", {}, run=3)
    assert run.waiting[0].endswith("left/do/0/a")
    assert run.log[-1].event.kind in ("TaskStarted", "TaskScheduled")
    run.verify()


@pytest.mark.parametrize(
    ("restore", "reason"),
    [
        (m.Restore("f1", 2, b"what"), "Expected the state of a flow but"),
        (
            m.Restore("f1", 2, encode_snapshot(m.EndedFlow("f1", ORDER.id, "c", "completed", 2, 1))),
            "EndedFlow",
        ),
    ],
)
def test_what_is_no_moment_of_the_flow_is_refused(restore: m.Restore, reason: str) -> None:
    run = ordered()
    run.send(m.RollBackFlow(restore))
    assert reason in run.rejected().reason
    assert run.rejected().code == "not-restorable"


def test_moments_of_others_of_later_and_of_what_was_undone_are_refused() -> None:
    run = ordered()
    run.complete("/do/2/charge", {"id": "c1"})
    charged = run.moment(len(run.log))
    other = Run(ORDER, "f2")
    other.start({})
    run.send(m.RollBackFlow(other.moment(2)))
    assert "Expected a moment of f1 but found one of f2" in run.rejected().reason
    run.roll_back(2)
    run.send(m.RollBackFlow(charged))
    assert "compensations are under way" in run.rejected().reason
    for task in ("/do/2/charge", "/do/0/book"):
        run.complete(f"{task}/metadata/compensate", None)
    assert run.waiting == ["/do/0/book"]
    run.send(m.RollBackFlow(charged))
    assert "some of it was undone since" in run.rejected().reason
    run.cancel()
    run.send(m.RollBackFlow(charged))
    assert run.rejected().code == "flow-ended"
    run.verify()


# -- running again ------------------------------------------------------------------------------------------------------


def test_a_flow_begins_as_another_one_stood() -> None:
    first = ordered()
    first.fail("/do/2/charge", m.Error("https://x.test/down", 503))
    again = Run(ORDER, "f2")
    again.send(m.StartFlow(ORDER.id, b'{"n":1}', None, first.moment(5)))
    assert again.kinds == ["FlowStarted", "FlowRestored", "TaskScheduled"]
    assert again.waiting == ["/do/2/charge"]
    assert isinstance(again.state, m.LiveFlow)
    assert again.state.compensations == ()  # what the first one did is the first one's
    assert again.dispatched() == [("default", "charge", {"id": "b1", "noted": True})]
    again.complete("/do/2/charge", {"id": "c1"}, run=2)
    again.complete("/do/3/ship", "sent")
    assert again.output == "sent"
    again.verify()


def test_a_flow_begins_anew_and_remembers_whose_it_is() -> None:
    again = Run(ORDER, "f2")
    again.send(m.StartFlow(ORDER.id, b"{}", None, m.Restore("f1", 0, b"")))
    assert again.kinds == ["FlowStarted", "FlowRestored", "TaskScheduled"]
    assert again.log[1].event.body == m.FlowRestored(m.Restore("f1", 0, b""))
    again.verify()


def test_a_moment_of_another_definition_starts_nothing() -> None:
    first = ordered()
    again = Run(LATER, "f2")
    again.send(m.StartFlow(LATER.id, b"{}", None, first.moment(5)))
    assert again.rejected().code == "not-restorable"
    assert again.state is None


def test_the_task_that_is_performed_again_may_get_other_data() -> None:
    run = ordered()
    run.send(m.RollBackFlow(run.moment(5, b'{"id":"b9"}')), actor=USER)
    assert run.waiting == ["/do/2/charge"]
    assert run.dispatched()[-1] == ("default", "charge", {"id": "b9"})
    run.send(m.RollBackFlow(run.moment(5, b"{")), actor=USER)
    assert run.rejected().code == "payload-not-json"
    run.verify()


def test_a_flow_is_run_again_under_a_version_that_puts_it_right() -> None:
    first = ordered()
    first.fail("/do/2/charge", m.Error("https://x.test/down", 503))
    again = Run(LATER, "f2")
    again.published[ORDER.id] = ORDER
    again.send(m.StartFlow(LATER.id, b'{"n":1}', None, first.moment(5, b'{"id":"b3"}')))
    assert again.waiting == ["/do/2/charge"]
    again.complete("/do/2/charge", {}, run=2)
    assert again.waiting == ["/do/4/ship"]
    again.verify()


def test_a_moment_before_a_migration_is_restored_under_the_version_of_now() -> None:
    run = Run(ORDER)
    run.start({})
    run.migrate(LATER)
    run.roll_back(2)
    assert run.waiting == ["/do/1/book"]
    assert run.log[-2].event.body == m.FlowRestored(
        run.moment(2), {"/do/0/book": "/do/1/book"}, (), ("/do/1/book",)
    )
    run.verify()
