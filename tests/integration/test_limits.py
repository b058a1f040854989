"""Limits and priorities on a real broker: never more tasks out than allowed, none forgotten, also across a kill -9."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.runtime import topics
from schemas import messages as m
from schemas.codec import decode_task
from tests.conftest import Servers
from tests.integration.engines import Cluster, wait_for

pytestmark = pytest.mark.timeout(180)

ONE_AT_A_TIME = """
document: {dsl: '1.0.3', namespace: test, name: limited, version: '1.0.0'}
do:
  - ship: {call: ship, metadata: {queue: dock, concurrency: {limit: 2, key: '${ .place }'}}}
"""
SLOWLY = """
document: {dsl: '1.0.3', namespace: test, name: slowly, version: '1.0.0'}
do:
  - mail: {call: mail, metadata: {queue: post, rateLimit: {limit: 2, per: PT2S}}}
"""
URGENT = """
document: {dsl: '1.0.3', namespace: test, name: urgent, version: '1.0.0'}
do:
  - now: {call: f, metadata: {queue: mixed, priority: high}}
"""


@pytest.fixture
def cluster(servers: Servers, prefix: str, tmp_path: Path) -> Iterator[Cluster]:
    found = Cluster(servers.kafka, prefix, tmp_path)
    try:
        yield found
    finally:
        found.stop()


def handed(cluster: Cluster, topic: str) -> list[m.Task]:
    return [decode_task(message.value() or b"") for message in cluster.read(topics.TASKS + topic)]


def finish(cluster: Cluster, task: m.Task) -> None:
    cluster.command(task.flow_id, m.CompleteTask(task.task, task.run, task.attempt, b"null"))
    cluster.producer.flush(10)


def test_no_more_tasks_of_a_key_are_out_than_its_limit_and_each_comes_in_turn(cluster: Cluster) -> None:
    cluster.publish(ONE_AT_A_TIME)
    cluster.start()
    cluster.ready()
    names = [f"{place}-{number}" for place in ("north", "south") for number in range(6)]
    for name in names:
        data = b'{"place":"%s"}' % name.split("-")[0].encode()
        cluster.command(name, m.StartFlow("test/limited", data))
    cluster.producer.flush(10)
    done: set[str] = set()
    killed = False
    while len(done) < len(names):
        wait_for(lambda: len(handed(cluster, "dock")) >= min(len(done) + 4, len(names)), 30, "the next tasks")
        out = [task for task in handed(cluster, "dock") if task.flow_id not in done]
        per_place = Counter(task.flow_id.split("-")[0] for task in out)
        assert all(count <= 2 for count in per_place.values()), per_place
        for place in per_place:
            task = next(task for task in out if task.flow_id.startswith(place))
            finish(cluster, task)
            done.add(task.flow_id)
        if len(done) >= 6 and not killed:
            killed = True
            cluster.running["e0"].kill()
            cluster.running["e0"].wait()
            cluster.start()
            cluster.ready(times=2)
    cluster.wait_ended(names)
    assert Counter(task.flow_id for task in handed(cluster, "dock")) == Counter(names)


def test_a_rate_is_kept(cluster: Cluster) -> None:
    cluster.publish(SLOWLY)
    cluster.start()
    cluster.ready()
    began = time.monotonic()
    for number in range(6):
        cluster.command(f"m-{number}", m.StartFlow("test/slowly", b"{}"))
    cluster.producer.flush(10)
    wait_for(lambda: len(handed(cluster, "post")) == 6, 60, "all six tasks")
    assert time.monotonic() - began > 3.5
    times = sorted(message.timestamp()[1] for message in cluster.read(topics.TASKS + "post"))
    assert all(later - earlier > 1900 for earlier, later in zip(times, times[2:], strict=False))


def test_an_urgent_task_has_a_topic_of_its_own(cluster: Cluster) -> None:
    cluster.publish(URGENT)
    cluster.start()
    cluster.ready()
    cluster.command("u-1", m.StartFlow("test/urgent", b"{}"))
    cluster.producer.flush(10)
    wait_for(lambda: handed(cluster, "mixed.high"), 30, "the task")
    assert handed(cluster, "mixed.high")[0].priority == "high"
