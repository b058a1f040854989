"""Histograms that add up, and recommendations that name their evidence."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import InputError
from projections.analysis import histogram
from projections.analysis.asks import Cases, Queue, Rework, StepTimes, scope_of
from projections.analysis.asks import graph as graph_of
from projections.analysis.histogram import ACCURACY, Histogram
from projections.analysis.recommending import LEAST, Recommendation, recommend, together
from tests.unit.api_calls import desk, problem

SECONDS = st.floats(0, 1e7, allow_nan=False)


def filled(values: list[float]) -> Histogram:
    made = Histogram({})
    for value in values:
        made.add(histogram.of(value), 1, value, value, value)
    return made


@given(st.lists(SECONDS, min_size=1, max_size=200), st.sampled_from([0.0, 0.5, 0.95, 0.99, 1.0]))
def test_a_percentile_is_right_to_one_per_cent(values: list[float], share: float) -> None:
    true = sorted(values)[int(share * (len(values) - 1))]
    found = filled(values).percentile(share)
    assert abs(found - true) <= ACCURACY * 1.001 * true + 1e-6


@given(st.lists(SECONDS, max_size=50), st.lists(SECONDS, max_size=50))
def test_histograms_added_are_the_histogram_of_both(one: list[float], other: list[float]) -> None:
    both, whole = together([filled(one), filled(other)]), filled(one + other)
    assert (both.buckets, both.zeros, both.count) == (whole.buckets, whole.zeros, whole.count)
    assert both.percentile(0.5) == whole.percentile(0.5)
    assert both.total == pytest.approx(whole.total)


def times(step: str, count: int, working: float, waiting: float, failed: int = 0) -> StepTimes:
    return StepTimes(step, count, failed, filled([working] * count), filled([waiting] * count))


NOTHING = Cases(0, 0, 0, None, None, None, None, None, None)


def found(**parts: Any) -> list[Recommendation]:
    given_ = {"steps": [], "queues": [], "rework": [], "now": NOTHING} | parts
    return recommend(**given_)


def test_a_wait_for_busy_workers_asks_for_more_of_them() -> None:
    queue = Queue("orders", 100, 4, 90.0, 300.0, 0.94, ["charge"])
    [one] = found(steps=[times("charge", 100, 1, 3), times("set", 100, 0.1, 0)], queues=[queue])
    assert one.kind == "concurrency"
    assert one.text == (
        "step charge waits 73% of all flow time for queue orders, whose 4 workers are busy 94%: "
        "raise their number or concurrency from 4"
    )
    assert one.evidence["busy"] == 0.94


def test_a_wait_for_idle_workers_and_a_wait_for_nobody_say_so() -> None:
    queue = Queue("orders", 100, 4, 9.0, 300.0, 0.05, ["charge"])
    [one] = found(steps=[times("charge", 100, 1, 3)], queues=[queue])
    assert (one.kind, "it is not load" in one.text) == ("waiting", True)
    [other] = found(steps=[times("sign", 100, 0, 3)])
    assert "nobody works at it" in other.text


def test_failures_rework_and_slower_flows_are_told_the_weightiest_first() -> None:
    now = Cases(100, 100, 0, 1.0, 1.0, 9.0, 9.9, None, None)
    before = Cases(100, 100, 0, 1.0, 1.0, 3.0, 3.3, None, None)
    told = found(
        steps=[times("charge", 100, 1, 0, failed=10)],
        rework=[Rework("check", 100, 40, 70, 5)],
        now=now,
        before=before,
    )
    assert [one.kind for one in told] == ["slower", "rework", "failing"]
    assert "3.00 times as long" in told[0].text


def test_little_is_no_evidence() -> None:
    few = LEAST - 1
    assert found(steps=[times("a", few, 1, 9, failed=few)], rework=[Rework("a", few, few, few, 2)]) == []


def test_a_scope_names_its_process() -> None:
    assert scope_of("flows", "shop/order@1.0.0").version == "1.0.0"
    assert scope_of("trails", "ranking", "p1").namespace == "p1"
    assert scope_of("flows", "shop/order").before() is None
    for source, name in (("flows", "order"), ("logs", "shop/order")):
        with pytest.raises(InputError):
            scope_of(source, name)


def test_rows_become_a_graph_with_its_ends() -> None:
    rows = [("a", "b", 1, 3, 2.0), ("b", None, 2, 3, None), ("a", "b", 3, 1, 6.0)]
    graph = graph_of(scope_of("flows", "shop/order")).answer(rows)
    assert (graph.steps, graph.cases) == ({"a": 4, "b": 3}, 3)
    assert [(edge.from_, edge.to, edge.count, edge.seconds) for edge in graph.edges] == [
        ("a", "b", 4, 3.0),
        ("b", "■", 3, None),
        ("▶", "a", 3, None),
    ]


def test_questions_over_http_are_checked() -> None:
    api = desk()
    problem(api.http.get("/analysis/steps", params={"name": "order"}), 422, "invalid-request")
    problem(api.http.get("/analysis/steps"), 422, "invalid-parameter")
    naive = {"name": "shop/order", "since": "2026-01-01T00:00:00"}
    problem(api.http.get("/analysis/graph", params=naive), 422, "invalid-parameter")
    problem(
        api.http.get("/analysis/throughput", params={"name": "a/b", "bucket": "year"}), 422, "invalid-request"
    )
