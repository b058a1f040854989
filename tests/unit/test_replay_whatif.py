"""Past flows decided again under another definition, with what the world told them then."""

from __future__ import annotations

from typing import Any

import pytest

from engine.core.redecide import Stored
from engine.dsl.model import Definition
from engine.errors import InputError
from projections.logged import Logged
from replay.again import decide_again, names_of, path_of
from replay.bisect import first_broken, invariant
from replay.whatif import Tally, judge
from schemas import messages as m
from tests.flows import Run, definition

OLD = """
do:
  - price: {set: {total: '${ .amount * 2 }'}}
  - choose:
      switch:
        - large: {when: '.total > 100', then: review}
        - small: {then: charge}
  - review: {call: review}
  - charge: {call: charge}
"""


def stored(run: Run) -> list[Stored]:
    return list(run.log)


def past(text: str = OLD, amount: int = 10, **results: Any) -> Run:
    run = Run(definition(text))
    run.start({"amount": amount})
    while isinstance(run.state, m.LiveFlow) and run.state.active:
        task = run.state.active[0].task
        if (name := task.rsplit("/", 1)[1]) not in results:
            break
        run.now += 5_000_000
        run.complete(task, results[name])
    return run


def other(text: str) -> Definition:
    return definition(text)


def test_a_task_is_known_by_its_names() -> None:
    assert names_of("/do/2/charge") == "/do/charge"
    assert names_of("/do/0/loop/for/do/1/7") == "/do/loop/for/do/7"
    assert names_of("/do/0/par/fork/branches/1/x") == "/do/par/fork/branches/x"


def test_the_same_definition_gives_the_same_path() -> None:
    for run in (past(amount=10, charge={"ok": True}), past(amount=90, review={"total": 9}, charge=1), past()):
        assert judge(run.definition, stored(run)).kind == "same"
        again = decide_again(run.definition, stored(run))
        assert [e.kind for e in again.events] == [one.event.kind for one in run.log]


def test_a_moved_task_keeps_its_result() -> None:
    run = past(amount=10, charge={"ok": True})
    moved = other(
        OLD.replace(
            "  - review: {call: review}\n",
            "  - note: {set: '${ . }', if: 'false'}\n  - review: {call: review}\n",
        )
    )
    verdict = judge(moved, stored(run))
    assert verdict.kind == "same"


def test_another_branch_is_a_different_decision_and_says_which() -> None:
    run = past(amount=90, review={"total": 9}, charge=1)
    verdict = judge(other(OLD.replace("> 100", "> 1000")), stored(run))
    assert (verdict.kind, verdict.at) == ("different", "/do/choose")
    assert (verdict.was, verdict.would) == ("/do/choose takes large", "takes small")


def test_what_was_never_recorded_stops_the_flow_there() -> None:
    run = past(amount=10, charge=1)
    verdict = judge(other(OLD.replace("> 100", "> 1")), stored(run))
    assert (verdict.kind, verdict.needs) == ("needs", ("/do/review",))
    assert verdict.at == "/do/choose"


def test_another_output_on_the_same_path_is_a_difference() -> None:
    run = past("do:\n  - charge: {call: charge}\n", charge=3)
    verdict = judge(other("do:\n  - charge: {call: charge, output: {as: '. + 1'}}\n"), stored(run))
    assert (verdict.kind, verdict.at, verdict.was, verdict.would) == ("different", "output", "3", "4")


def test_a_flow_that_lives_is_the_same_as_far_as_it_has_come() -> None:
    run = past(amount=90)  # waits for its review
    assert judge(run.definition, stored(run)).kind == "same"
    assert judge(other(OLD.replace("> 100", "> 1000")), stored(run)).kind == "needs"


def test_results_come_as_late_as_they_came_so_timeouts_decide_as_they_would_have() -> None:
    run = past("do:\n  - charge: {call: charge}\n", charge=1)  # after five seconds
    slow = other("do:\n  - charge: {call: charge, timeout: {after: {seconds: 2}}}\n")
    verdict = judge(slow, stored(run))
    assert (verdict.kind, verdict.at, verdict.would) == ("different", "/do/charge", "faults (408)")
    assert (
        judge(other("do:\n  - charge: {call: charge, timeout: {after: {seconds: 9}}}\n"), stored(run)).kind
        == "same"
    )


def test_waits_pass_on_the_virtual_clock() -> None:
    run = past("do:\n  - charge: {call: charge}\n", charge=1)
    waiting = other("do:\n  - charge: {call: charge}\n  - rest: {wait: P1D}\n")
    verdict = judge(waiting, stored(run))
    assert (verdict.kind, verdict.would) == ("different", "/do/rest begins")
    again = decide_again(waiting, stored(run))
    assert again.events[-1].time - again.events[0].time > 86_400_000_000


def test_failures_and_cancellations_are_told_again() -> None:
    text = "do:\n  - safe: {try: [{charge: {call: charge}}], catch: {do: [{note: {set: {failed: true}}}]}}\n"
    run = Run(definition(text))
    run.start({})
    run.fail("/do/0/safe/try/0/charge", m.Error("https://x/y", 503))
    assert judge(run.definition, stored(run)).kind == "same"
    cancelled = past(amount=90)
    cancelled.cancel("enough")
    assert judge(cancelled.definition, stored(cancelled)).kind == "same"


def test_an_input_the_other_definition_refuses_faults_there() -> None:
    run = past(amount=10, charge=1)
    strict = other("input: {schema: {document: {required: [customer]}}}" + OLD)
    verdict = judge(strict, stored(run))
    assert verdict.kind == "different"
    assert verdict.would == "does not come to it"


def test_flows_that_differ_alike_are_one_group() -> None:
    changed = other(OLD.replace("> 100", "> 1000"))
    tally = Tally(changed)
    for amount in (10, 20, 90, 95):
        tally.add(judge(changed, stored(past(amount=amount, review={"total": 9}, charge=1))))
    report = tally.report()
    assert (report.flows, report.counts) == (4, {"same": 2, "different": 2, "needs": 0, "refused": 0})
    [group] = report.groups
    assert (group.flows, group.at, group.examples) == (2, "/do/choose", ["f1", "f1"])
    assert report.tasks == {"/do/choose": 2}


@pytest.mark.parametrize("text", [OLD, "do:\n  - a: {set: {b: 1}}\n"])
def test_a_path_tells_branches_and_ends(text: str) -> None:
    run = past(text, amount=10, charge=1)
    told = [str(step) for step in path_of(one.event for one in run.log)]
    assert told[-1] == "the flow is completed"
    assert ("/do/choose takes small" in told) == (text == OLD)


def test_bisect_names_the_first_event_that_breaks_an_invariant() -> None:
    logged = [
        Logged(one.event, one.value, 0, at) for at, one in enumerate(past(amount=90, review={"total": 9}).log)
    ]
    assert first_broken(logged, invariant(".data.total // 0 | . < 1000", None)) is None
    broken = first_broken(logged, invariant(".data.total // 0 | . < 100", None))
    assert broken is not None
    assert (broken.by.kind, broken.by.task) == ("TaskCompleted", "/do/0/price")
    assert broken.shown()["by"]["sequence"] == 2
    failing = first_broken(logged, invariant('.status | error("no")', None))
    assert failing is not None
    assert failing.by.sequence == 1
    assert failing.problem is not None
    for wrong in ("${ . ", ".a |", "$nothing"):
        with pytest.raises(InputError, match="in --where"):
            invariant(wrong, None)


def test_what_went_on_from_its_past_is_not_decided_again() -> None:
    from replay.whatif import judge
    from tests.unit.whole_flows import BRANCHES, RETRIES, turned, turned_retries

    for own, run in ((BRANCHES, turned()), (RETRIES, turned_retries())):
        verdict = judge(own, run.log)
        assert (verdict.kind, "went on from a moment" in verdict.would) == ("refused", True)
