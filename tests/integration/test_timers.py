"""Timers on a real broker: they fire once and never early, also when the engine is killed while they are pending."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from schemas import messages as m
from tests.conftest import Servers
from tests.integration.engines import Cluster, wait_for

pytestmark = pytest.mark.timeout(180)

WAIT = """
document: {dsl: '1.0.3', namespace: test, name: waiting, version: '1.0.0'}
do:
  - rest: {wait: PT3S}
"""
TIMEOUT = """
document: {dsl: '1.0.3', namespace: test, name: late, version: '1.0.0'}
do:
  - work: {call: f, timeout: {after: PT1S}}
"""
LONG = """
document: {dsl: '1.0.3', namespace: test, name: long, version: '1.0.0'}
do:
  - loop: {for: {each: i, in: '[range(3000)]'}, do: [{x: {set: {n: '${ $i }'}}}]}
"""


@pytest.fixture
def cluster(servers: Servers, prefix: str, tmp_path: Path) -> Iterator[Cluster]:
    found = Cluster(servers.kafka, prefix, tmp_path)
    try:
        yield found
    finally:
        found.stop()


def test_a_wait_survives_a_kill_and_fires_once_and_not_early(cluster: Cluster) -> None:
    cluster.publish(WAIT)
    process = cluster.start()
    names = cluster.begin(20, "test/waiting")
    wait_for(
        lambda: sum(e.kind == "TaskStarted" for e, _, _ in cluster.logged() if isinstance(e, m.Event)) == 20,
        what="all flows to wait",
    )
    process.kill()
    process.wait()
    cluster.start()
    cluster.wait_ended(names)
    cluster.assert_exact(names)
    events = [e for e, _, _ in cluster.logged() if isinstance(e, m.Event)]
    due = {e.flow_id: e.body.due for e in events if isinstance(e.body, m.TaskStarted)}
    fired = [e for e in events if isinstance(e.body, m.TimerFired)]
    assert len(fired) == 20
    assert all(e.time >= due[e.flow_id] for e in fired)
    assert all(e.actor.kind == "timer" for e in fired)


def test_a_call_times_out_without_anybody_s_help(cluster: Cluster) -> None:
    cluster.publish(TIMEOUT)
    cluster.start()
    names = cluster.begin(3, "test/late")
    cluster.wait_ended(names)
    faults = [e.body for e, _, _ in cluster.logged() if isinstance(e, m.Event) and e.kind == "FlowFaulted"]
    assert [f.error.status for f in faults if isinstance(f, m.FlowFaulted)] == [408] * 3
    assert len(list(cluster.read("cancellations"))) == 3


def test_a_long_flow_yields_and_goes_on_by_itself(cluster: Cluster) -> None:
    cluster.publish(LONG)
    cluster.start()
    names = cluster.begin(1, "test/long")
    cluster.wait_ended(names)
    cluster.assert_exact(names)


def test_an_engine_with_nothing_to_do_stays_alive_beside_transaction_markers(cluster: Cluster) -> None:
    cluster.publish(WAIT.replace("PT3S", "PT8S"))
    process = cluster.start(FLOWTRAIL_WATCHDOG_S="4")
    names = cluster.begin(5, "test/waiting")
    cluster.wait_ended(names)
    assert process.poll() is None
