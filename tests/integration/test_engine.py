"""The engine process as its operators meet it: forgetting, servers away, and what it says then."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.runtime import topics
from schemas import messages as m
from schemas.codec import decode_snapshot
from tests.conftest import Servers
from tests.integration.engines import INLINE, LINE, Cluster, wait_for

pytestmark = pytest.mark.timeout(180)


@pytest.fixture
def cluster(servers: Servers, prefix: str, tmp_path: Path) -> Iterator[Cluster]:
    found = Cluster(servers.kafka, prefix, tmp_path)
    try:
        yield found
    finally:
        found.stop()


def engine(**environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "cli.main", "engine", "run"],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def remembered(cluster: Cluster) -> set[str]:
    found: dict[bytes | None, m.Snapshot | None] = {}
    for message in cluster.read(topics.STATE):
        value = message.value()
        found[message.key()] = None if value is None else decode_snapshot(value)
    return {state.flow_id for state in found.values() if isinstance(state, m.EndedFlow)}


def test_ended_flows_are_remembered_for_the_window_and_then_forgotten(cluster: Cluster) -> None:
    cluster.publish(INLINE)
    cluster.start(FLOWTRAIL_ENDED_WINDOW_HOURS="0.003")
    names = cluster.begin(20)
    cluster.wait_ended(names)
    assert remembered(cluster) == set(names)
    for name in names:  # the same command again, while it is remembered: nothing happens
        cluster.command(name, m.StartFlow("test/inline", b'{"n":1}'))
    cluster.producer.flush(10)
    wait_for(lambda: remembered(cluster) == set(), what="every ended flow to be forgotten")
    cluster.assert_exact(names)


def test_a_task_for_a_queue_without_a_topic_makes_the_topic(cluster: Cluster) -> None:
    cluster.publish(LINE.replace("{call: f}", "{call: f, metadata: {queue: brand-new}}"))
    cluster.start()
    names = cluster.begin(5, "test/line")
    tasks = wait_for(lambda: len(list(cluster.read("tasks.brand-new"))) == 5, what="five tasks")
    assert tasks
    assert len({found.flow_id for found, _, _ in cluster.logged()} & set(names)) == 5


def test_an_engine_without_kafka_says_so_and_ends_with_3() -> None:
    done = engine(FLOWTRAIL_KAFKA="127.0.0.1:1")
    assert done.returncode == 3
    assert "Expected Kafka to answer" in done.stderr
    assert "Traceback" not in done.stderr


def test_an_engine_without_topics_says_what_to_run(servers: Servers, prefix: str) -> None:
    done = engine(FLOWTRAIL_KAFKA=servers.kafka, FLOWTRAIL_TOPIC_PREFIX=prefix)
    assert done.returncode == 3
    assert "flowtrail admin init" in done.stderr


def test_an_engine_with_another_partition_count_refuses_to_start(cluster: Cluster) -> None:
    done = engine(
        FLOWTRAIL_KAFKA=cluster.servers, FLOWTRAIL_TOPIC_PREFIX=cluster.prefix, FLOWTRAIL_PARTITIONS="7"
    )
    assert done.returncode == 2
    assert "Expected topic" in done.stderr


def test_a_wrong_setting_is_named() -> None:
    done = engine(FLOWTRAIL_PARTITIONS="many")
    assert done.returncode == 2
    assert "FLOWTRAIL_PARTITIONS" in done.stderr
