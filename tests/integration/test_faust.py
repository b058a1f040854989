"""The properties of Faust, Kafka and the driver that exactness rests on: one test each, on a real broker.

A new version of Faust, mode, aiokafka or confluent-kafka may be taken when these pass.
"""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.runtime import kafka, topics
from engine.runtime.records import POSITION_KEY
from schemas import messages as m
from schemas.codec import decode_snapshot, encode_command
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


def test_an_exception_in_the_agent_loses_nothing(cluster: Cluster) -> None:
    cluster.publish(INLINE)
    names = cluster.begin(40)
    process = cluster.start(fail="raise:1")
    assert process.wait(60) == 70
    cluster.start()
    names += cluster.begin(10, first=100)
    cluster.wait_ended(names)
    cluster.assert_exact(names)


@pytest.mark.parametrize(
    "step", ["opened:2", "begun:1", "begun:3", "produced:1", "produced:3", "committed:1", "committed:3"]
)
def test_a_kill_at_any_step_of_a_transaction_loses_and_doubles_nothing(cluster: Cluster, step: str) -> None:
    cluster.publish(INLINE)
    names = cluster.begin(40)
    process = cluster.start(fail=step)
    assert process.wait(60) == -signal.SIGKILL
    cluster.start()
    names += cluster.begin(20, first=100)
    cluster.wait_ended(names)
    cluster.assert_exact(names)


@pytest.mark.parametrize("step", ["abort:1", "abort:2", "uncertain:1", "uncertain:3"])
def test_a_lost_producer_is_replaced_in_place(cluster: Cluster, step: str) -> None:
    cluster.publish(INLINE)
    process = cluster.start(fail=step)
    names = cluster.begin(40)
    cluster.wait_ended(names)
    wait_for(lambda: cluster.said("partition reloaded in place"), what="a reload in place")
    more = cluster.begin(40, first=100)
    cluster.wait_ended(more)
    assert process.poll() is None
    cluster.assert_exact(names + more)


def test_aborted_commands_are_invisible(cluster: Cluster) -> None:
    cluster.publish(INLINE)
    writer = kafka.transactional_producer(cluster.servers, f"{cluster.prefix}upstream")
    writer.init_transactions(10)

    def send(flow_id: str) -> None:
        body = m.StartFlow("test/inline", b'{"n":1}')
        command = m.Command(f"c-{flow_id}", flow_id, 0, m.Actor("user", "upstream"), body)
        writer.produce(cluster.prefix + topics.COMMANDS, encode_command(command), flow_id.encode())

    for i in range(12):
        writer.begin_transaction()
        send(f"flow-{i}")
        if i % 3 == 0:
            writer.flush(10)
            writer.abort_transaction(10)
        else:
            writer.commit_transaction(10)
    cluster.start()
    names = [f"flow-{i}" for i in range(12) if i % 3]
    cluster.wait_ended(names)
    cluster.assert_exact(names)


def test_the_position_moves_on_over_transaction_markers(cluster: Cluster) -> None:
    cluster.publish(INLINE)
    cluster.start()
    cluster.ready()
    writer = kafka.transactional_producer(cluster.servers, f"{cluster.prefix}upstream")
    writer.init_transactions(10)
    names = []
    for i in range(60):  # one marker a record: the pattern on which stock Faust's offset crawls
        flow_id = f"flow-{i}"
        body = m.StartFlow("test/inline", b'{"n":1}')
        command = m.Command(f"c-{flow_id}", flow_id, 0, m.Actor("user", "upstream"), body)
        writer.begin_transaction()
        writer.produce(cluster.prefix + topics.COMMANDS, encode_command(command), flow_id.encode())
        writer.commit_transaction(10)
        names.append(flow_id)
    cluster.wait_ended(names)
    last = {message.partition(): message.offset() for message in cluster.read(topics.COMMANDS)}

    def positions() -> dict[int | None, int]:
        found = {}
        for message in cluster.read(topics.STATE):
            if message.key() == POSITION_KEY:
                snapshot = decode_snapshot(message.value() or b"")
                assert isinstance(snapshot, m.Position)
                found[message.partition()] = snapshot.offset
        return found

    wait_for(lambda: positions() == last, 20, "every position at the last command")
    cluster.assert_exact(names)


def test_a_stop_with_work_in_flight_ends_soon_and_loses_nothing(cluster: Cluster) -> None:
    cluster.publish(INLINE)
    process = cluster.start()
    cluster.ready()
    names = cluster.begin(2000)
    wait_for(lambda: len(cluster.ended()) > 50, what="the first flows to end")
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) == 0
    cluster.start()
    cluster.wait_ended(names)
    cluster.assert_exact(names)


def test_a_frozen_owner_that_wakes_up_is_fenced(cluster: Cluster) -> None:
    cluster.publish(INLINE)
    zombie = cluster.start("e0", FLOWTRAIL_SESSION_TIMEOUT_MS="6000")
    cluster.ready("e0")
    names = cluster.begin(20)
    cluster.wait_ended(names)
    zombie.send_signal(signal.SIGSTOP)
    cluster.start("e1", FLOWTRAIL_SESSION_TIMEOUT_MS="6000")
    more = cluster.begin(200, first=100)
    cluster.wait_ended(more)
    zombie.send_signal(signal.SIGCONT)
    late = cluster.begin(200, first=1000)
    cluster.wait_ended(late)
    cluster.assert_exact(names + more + late)


def test_partitions_move_when_an_engine_joins_and_leaves(cluster: Cluster) -> None:
    cluster.publish(INLINE)
    cluster.start("e0", FLOWTRAIL_SESSION_TIMEOUT_MS="6000")
    cluster.ready("e0")
    names = cluster.begin(100)
    second = cluster.start("e1", FLOWTRAIL_SESSION_TIMEOUT_MS="6000")
    names += cluster.begin(100, first=100)
    cluster.ready("e1")
    names += cluster.begin(100, first=200)
    second.kill()
    names += cluster.begin(100, first=300)
    cluster.wait_ended(names)
    cluster.assert_exact(names)


def test_a_deleted_state_topic_is_rebuilt_from_the_log(cluster: Cluster) -> None:
    cluster.publish(LINE)
    process = cluster.start()
    names = cluster.begin(20, "test/line")
    wait_for(lambda: len(cluster.logged()) >= 40, what="every first task to be scheduled")
    process.kill()
    process.wait()
    admin = kafka.admin_client(cluster.servers)
    for future in admin.delete_topics([cluster.prefix + topics.STATE]).values():
        future.result(10)
    wait_for(
        lambda: cluster.prefix + topics.STATE not in kafka.partition_counts(admin),
        what="the topic to be gone",
    )
    topics.create_topics(admin, cluster.prefix, cluster.partitions, 1)
    cluster.start()
    wait_for(lambda: any(e["from_log"] for e in cluster.said("partition loaded")), what="a load from the log")
    for name in names:
        cluster.command(name, m.CompleteTask("/do/0/a", 1, 1, b"1"), f"{name}-a")
        cluster.command(name, m.CompleteTask("/do/1/b", 1, 1, b"2"), f"{name}-b")
    cluster.producer.flush(10)
    cluster.wait_ended(names)
    cluster.assert_exact(names)


def test_garbage_becomes_a_dead_letter_with_its_original_bytes(cluster: Cluster) -> None:
    cluster.publish(INLINE)
    cluster.start()
    cluster.send(topics.COMMANDS, "flow-0", b"no command at all", None)
    names = cluster.begin(5)
    cluster.wait_ended(names)
    letters = wait_for(lambda: list(cluster.read(topics.DEAD_LETTERS)), what="a dead letter")
    assert len(letters) == 1
    headers = dict(letters[0].headers() or [])
    assert letters[0].value() == b"no command at all"
    assert letters[0].key() == b"flow-0"
    assert headers["error.code"] == b"unknown-framing"
    assert b"Expected" in headers["error.message"]
    assert headers["src.topic"].decode() == cluster.prefix + topics.COMMANDS
    cluster.assert_exact(names)


def test_a_definition_published_a_moment_ago_is_known(cluster: Cluster) -> None:
    cluster.start()
    cluster.ready()
    for i in range(5):
        cluster.publish(INLINE.replace("1.0.0", f"1.0.{i}"))
        name = f"flow-v{i}"
        cluster.command(name, m.StartFlow(f"test/inline@1.0.{i}", b'{"n":1}'))
        cluster.producer.flush(10)
    names = [f"flow-v{i}" for i in range(5)]
    cluster.wait_ended(names)
    cluster.assert_exact(names)
    assert [found for found, _, _ in cluster.logged() if isinstance(found, m.Rejection)] == []


def test_commands_that_cannot_be_done_are_recorded_as_rejections(cluster: Cluster) -> None:
    cluster.publish(INLINE)
    cluster.start()
    names = cluster.begin(1)
    cluster.wait_ended(names)
    cluster.command("flow-0", m.CompleteTask("/do/0/a", 1, 1, b"1"))
    cluster.command("nobody", m.CancelFlow())
    cluster.command("flow-x", m.StartFlow("test/unknown@9.9.9", b"{}"))
    cluster.producer.flush(10)

    def codes() -> set[str]:
        return {found.code for found, _, _ in cluster.logged() if isinstance(found, m.Rejection)}

    wait_for(lambda: codes() == {"flow-ended", "unknown-flow", "unknown-definition"}, what="three rejections")
    cluster.assert_exact(names)


def test_a_partition_that_stands_still_ends_the_process(cluster: Cluster) -> None:
    cluster.publish(INLINE)
    process = cluster.start(fail="hang:1", FLOWTRAIL_WATCHDOG_S="3")
    names = cluster.begin(40)
    assert process.wait(60) == 70
    assert cluster.said("ending this process")[0]["why"].startswith("Expected partition")
    cluster.start()
    cluster.wait_ended(names)
    cluster.assert_exact(names)


def test_an_idle_engine_with_a_watchdog_stays(cluster: Cluster) -> None:
    cluster.publish(INLINE)
    process = cluster.start(FLOWTRAIL_WATCHDOG_S="2")
    names = cluster.begin(40)
    cluster.wait_ended(names)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(7)
    assert cluster.said("could not look") == []
