"""Events on a real broker: from the inbox to a flow that listens, whatever comes first, and schedules that start flows."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from engine.runtime import kafka, topics
from schemas import messages as m
from tests.conftest import Servers
from tests.integration.engines import Cluster, wait_for

pytestmark = pytest.mark.timeout(180)

KEYED = """
document: {dsl: '1.0.3', namespace: test, name: keyed, version: '1.0.0'}
do:
  - paid:
      listen:
        to:
          one:
            with: {type: order.paid}
            correlate: {order: {from: .data.order, expect: '${ .order }'}}
"""
TWICE = """
document: {dsl: '1.0.3', namespace: test, name: twice, version: '1.0.0'}
do:
  - first: {listen: {to: {one: {with: {type: tick}}}}, output: {as: '{first: .[0]}'}}
  - second: {listen: {to: {one: {with: {type: tick}}}}, output: {as: '{first: $input.first, second: .[0]}'}}
"""
EMITTING = """
document: {dsl: '1.0.3', namespace: test, name: emitting, version: '1.0.0'}
do:
  - tell: {emit: {event: {with: {type: order.paid, source: "https://shop.test/", data: {order: '${ .order }'}}}}}
"""
ON_EVENT = """
document: {dsl: '1.0.3', namespace: test, name: started, version: '1.0.0'}
schedule: {on: {one: {with: {type: order.placed}}}}
do:
  - keep: {set: {order: '${ .[0].data.order }'}}
"""
EVERY = """
document: {dsl: '1.0.3', namespace: test, name: often, version: '1.0.0'}
schedule: {every: PT1S}
do:
  - keep: {set: {x: 1}}
"""


@pytest.fixture
def cluster(servers: Servers, prefix: str, tmp_path: Path) -> Iterator[Cluster]:
    found = Cluster(servers.kafka, prefix, tmp_path)
    try:
        yield found
    finally:
        found.stop()


def send(cluster: Cluster, number: int, kind: str, data: Any) -> None:
    event = {"specversion": "1.0", "id": f"e{number}", "source": "/test", "type": kind, "data": data}
    cluster.producer.produce(
        cluster.prefix + topics.INBOX,
        orjson.dumps(event),
        b"k",
        headers=[("content-type", b"application/cloudevents+json; charset=UTF-8")],
    )
    cluster.producer.flush(10)


def outputs(cluster: Cluster) -> dict[str, Any]:
    return {
        found.flow_id: orjson.loads(found.body.output)
        for found, _, _ in cluster.logged()
        if isinstance(found, m.Event)
        and isinstance(found.body, m.FlowCompleted)
        and isinstance(found.body.output, bytes)
    }


def listening(cluster: Cluster, count: int) -> None:
    def found() -> bool:
        kinds = [e.kind for e, _, _ in cluster.logged() if isinstance(e, m.Event)]
        return kinds.count("ListenStarted") == count

    wait_for(found, what=f"{count} flows to listen")


def test_each_flow_gets_the_event_that_is_for_it_before_or_after_it_listens(cluster: Cluster) -> None:
    cluster.publish(KEYED)
    cluster.start()
    cluster.ready()
    for n in range(10):  # early events
        send(cluster, n, "order.paid", {"order": n})
    names = [f"flow-{n}" for n in range(20)]
    for n, name in enumerate(names):
        cluster.command(name, m.StartFlow("test/keyed", orjson.dumps({"order": n})))
    cluster.producer.flush(10)
    listening(cluster, 20)
    for n in range(20):  # the first ten a second time
        send(cluster, n, "order.paid", {"order": n})
    cluster.wait_ended(names)
    assert outputs(cluster) == {name: [{"order": n}] for n, name in enumerate(names)}
    cluster.assert_exact(names)


def test_a_flow_that_listens_twice_takes_every_event_once(cluster: Cluster) -> None:
    cluster.publish(TWICE)
    cluster.start()
    cluster.command("flow-0", m.StartFlow("test/twice", b"{}"))
    cluster.producer.flush(10)
    listening(cluster, 1)
    send(cluster, 1, "tick", 1)
    send(cluster, 2, "tick", 2)
    cluster.wait_ended(["flow-0"])
    assert outputs(cluster) == {"flow-0": {"first": 1, "second": 2}}


def test_what_a_flow_emits_reaches_the_outbox_and_the_flows_that_listen(cluster: Cluster) -> None:
    cluster.publish(KEYED)
    cluster.publish(EMITTING)
    cluster.start()
    cluster.command("waits", m.StartFlow("test/keyed", b'{"order": 7}'))
    cluster.command("tells", m.StartFlow("test/emitting", b'{"order": 7}'))
    cluster.producer.flush(10)
    cluster.wait_ended(["waits", "tells"])
    assert outputs(cluster)["waits"] == [{"order": 7}]
    [record] = cluster.read(topics.OUTBOX)
    headers = kafka.headers_of(record)
    assert (headers["ce_type"], headers["ce_source"]) == (b"order.paid", b"https://shop.test/")
    assert orjson.loads(record.value() or b"") == {"order": 7}


def test_listens_survive_the_loss_of_the_state_topic(cluster: Cluster) -> None:
    cluster.publish(KEYED)
    process = cluster.start()
    names = [f"flow-{n}" for n in range(8)]
    for n, name in enumerate(names):
        cluster.command(name, m.StartFlow("test/keyed", orjson.dumps({"order": n})))
    cluster.producer.flush(10)
    listening(cluster, 8)
    process.kill()
    process.wait()
    admin = kafka.admin_client(cluster.servers)
    name = cluster.prefix + topics.STATE
    admin.delete_topics([name])[name].result(30)
    wait_for(lambda: name not in kafka.partition_counts(admin), what="the topic to be gone")
    topics.create_topics(admin, cluster.prefix, cluster.partitions, 1)
    cluster.start()
    for n in range(8):
        send(cluster, n, "order.paid", {"order": n})
    cluster.wait_ended(names)
    cluster.assert_exact(names)


def test_an_event_starts_a_flow_once_and_a_wrong_one_becomes_a_dead_letter(cluster: Cluster) -> None:
    cluster.publish(ON_EVENT)
    cluster.start()
    cluster.ready()
    for _ in range(2):
        send(cluster, 1, "order.placed", {"order": 1})
    send(cluster, 2, "order.placed", {"order": 2})
    cluster.producer.produce(cluster.prefix + topics.INBOX, b"{no event", b"k")
    cluster.producer.flush(10)
    wait_for(lambda: len(outputs(cluster)) == 2, what="two flows")
    assert sorted(found["order"] for found in outputs(cluster).values()) == [1, 2]
    [letter] = wait_for(lambda: list(cluster.read(topics.DEAD_LETTERS)), what="a dead letter")
    assert b"Expected" in kafka.headers_of(letter)["error.message"]


def test_a_schedule_fires_each_time_once_although_the_engine_is_killed(cluster: Cluster) -> None:
    cluster.publish(EVERY)
    process = cluster.start()
    wait_for(lambda: len(cluster.ended()) >= 3, what="three flows")
    process.kill()
    process.wait()
    before = set(cluster.ended())
    began = time.time()
    cluster.start()
    wait_for(lambda: len(set(cluster.ended()) - before) >= 2, what="two more flows")
    ended = cluster.ended()
    assert max(ended.values()) == 1
    late = [e for e, _, _ in cluster.logged() if isinstance(e, m.Event) and e.kind == "FlowStarted"]
    assert all(e.time / 1e6 <= began for e in late if e.flow_id in before)
    assert len({e.flow_id for e in late}) == len(late)
