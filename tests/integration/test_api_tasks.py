"""Approvals, tokens, heartbeats, cancellation and events through everything: API, Kafka, engine, worker, projector."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from flowtrail import (
    PENDING,
    ApiError,
    Client,
    Flow,
    Pending,
    Worker,
    current_task,
    each,
    flow,
    heartbeat,
    register,
    task,
    when,
)

from api.store import PostgresStore
from engine.runtime import kafka
from projections.readers import Reader
from tests.conftest import Servers
from tests.integration.api_process import PARTITIONS, Installed, installation, until
from tests.integration.sdk_engine import running

APPROVAL = """\
document: {dsl: '1.0.0', namespace: shop, name: approve, version: '1.0.0'}
do:
  - ask:
      call: approval
      with:
        title: '${ "Pay \\(.amount)?" }'
        form: {type: object, required: [approved], properties: {approved: {type: boolean}}}
"""
CALLS = """\
document: {dsl: '1.0.0', namespace: shop, name: NAME, version: '1.0.0', metadata: {queue: outside}}
do:
  - call: {call: NAME}
"""


@pytest.fixture(scope="module")
def installed(servers: Servers, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installed]:
    with installation(servers, tmp_path_factory.mktemp("installed")) as made:
        yield made


@pytest.fixture
def client(installed: Installed) -> Iterator[Client]:
    with Client(installed.url, installed.key) as made:
        yield made


@pytest.fixture
def worker(installed: Installed, client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Worker:
    monkeypatch.setenv("FLOWTRAIL_WORKER_STATE", str(tmp_path))
    return Worker("outside", installed.url, installed.key, instance="w1")


def test_an_approval_is_found_answered_wrongly_and_then_rightly_once(client: Client) -> None:
    client.publish(APPROVAL)
    flow = client.start("shop/approve", {"amount": 30})
    found = until(lambda: list(client.approvals(flow_id=flow.id)))
    assert len(found) == 1
    assert found[0]["request"]["title"] == "Pay 30?"
    assert list(client.approvals(definition="shop/other")) == []
    token = found[0]["token"]
    with pytest.raises(ApiError) as refused:
        client.answer(token, {"approved": "yes"})
    assert refused.value.problem["type"].endswith("#invalid-answer")
    assert client.answer(token, {"approved": True})["decided"]
    assert flow.wait(30)["output"] == {"approved": True}
    with pytest.raises(ApiError) as late:
        client.answer(token, {"approved": False})
    assert late.value.status == 409
    assert list(client.approvals(flow_id=flow.id)) == []
    answered = [event for event in flow.history() if event["kind"] == "TaskCompleted"]
    assert answered[0]["actor"]["kind"] == "user"


def test_a_pending_task_is_completed_or_failed_by_its_token(client: Client, worker: Worker) -> None:
    tokens: dict[str, str] = {}

    @worker.task("later")
    def later() -> Pending:
        tokens[current_task().context.flow_id] = current_task().token
        return PENDING

    client.publish(CALLS.replace("NAME", "later"))
    with running(worker):
        done, failed = client.start("shop/later"), client.start("shop/later")
        until(lambda: len(tokens) == 2)
        assert client.complete(tokens[done.id], {"n": 1})["decided"]
        assert client.fail(tokens[failed.id], "no reason")["decided"]
        assert done.wait(30)["output"] == {"n": 1}
        assert failed.wait(30)["status"] == "faulted"
        with pytest.raises(ApiError) as late:
            client.complete(tokens[done.id])
        assert late.value.status == 409


def test_cancelling_a_flow_ends_the_function_that_works_for_it(client: Client, worker: Worker) -> None:
    begun, ended = threading.Event(), threading.Event()

    @worker.task("endless")
    async def endless() -> None:
        begun.set()
        try:
            await asyncio.sleep(3600)
        finally:
            ended.set()

    client.publish(CALLS.replace("NAME", "endless"))
    with running(worker):
        flow = client.start("shop/endless")
        assert begun.wait(60)
        flow.cancel("not wanted")
        assert ended.wait(60)
        assert flow.wait(30)["status"] == "cancelled"


def kinds(flow: Flow) -> set[str]:
    """The kinds of the events in the read model, which may not know the flow yet."""
    try:
        return {event["kind"] for event in flow.history()}
    except ApiError as problem:
        if problem.status != 404:
            raise
        return set()


def test_a_flow_written_in_python_is_published_and_runs(client: Client, worker: Worker) -> None:
    @task(queue="outside")
    def pack(item: str) -> str:
        return f"box of {item}"

    @flow(namespace="shop", version="1.0.0")
    def parcel(items: list[str], price: float) -> Any:
        boxes = each(items, lambda item: pack(item))
        large = when(price > 100, lambda: "large", lambda: "small")
        return {"boxes": boxes, "size": large}

    client.publish(parcel)
    register(worker, parcel)
    with running(worker):
        given: dict[str, Any] = {"items": ["book", "pen"], "price": 120.5}
        output = client.start("shop/parcel", given).wait(30)["output"]
    assert output == parcel(**given) == {"boxes": ["box of book", "box of pen"], "size": "large"}


def test_progress_is_in_the_history(client: Client, worker: Worker) -> None:
    release = threading.Event()

    @worker.task("import")
    def load() -> None:
        heartbeat({"done": 1})
        release.wait(60)

    text = CALLS.replace("NAME", "import").replace(
        "{call: import}", "{call: import, metadata: {heartbeat: PT10S}}"
    )
    client.publish(text)
    with running(worker):
        flow = client.start("shop/import")
        until(lambda: "TaskProgressed" in kinds(flow))
        release.set()
        assert flow.wait(30)["status"] == "completed"


def test_a_suspended_flow_keeps_what_comes_in_until_it_is_resumed(client: Client, worker: Worker) -> None:
    tokens: list[str] = []

    @worker.task("held")
    def held() -> Pending:
        tokens.append(current_task().token)
        return PENDING

    client.publish(CALLS.replace("NAME", "held"))
    with running(worker):
        flow = client.start("shop/held")
        until(lambda: tokens)
        flow.suspend("holiday")
        until(lambda: flow.get()["status"] == "suspended")
        client.complete(tokens[0], {"n": 1})
        assert flow.get()["status"] == "suspended"
        flow.resume()
        assert flow.wait(30)["output"] == {"n": 1}


def test_events_reach_the_inbox_in_binary_mode(installed: Installed, client: Client) -> None:
    sent = client.publish_event("paid", {"n": 1}, source="/shop", id="e1", subject="o17")
    assert sent == {"events": [{"source": "/shop", "id": "e1"}]}
    consumer = kafka.log_consumer(installed.kafka)
    starts = [
        kafka.TopicPartition(f"{installed.prefix}inbox", p, kafka.OFFSET_BEGINNING) for p in range(PARTITIONS)
    ]
    found: list[Any] = list(kafka.read_partitions(consumer, starts))
    consumer.close()
    assert [message.value() for message in found] == [b'{"n":1}']
    headers = dict(found[0].headers() or [])
    assert headers["ce_type"] == b"paid"
    assert headers["content-type"] == b"application/json"


def test_old_idempotency_keys_are_deleted_and_pages_of_approvals_continue(installed: Installed) -> None:
    import psycopg

    with psycopg.connect(installed.postgres, autocommit=True) as connection:
        connection.execute(
            "INSERT INTO flowtrail_api.idempotency_keys SELECT 'k', n::text, '', 'f', 'c', now() - interval '31 days' "
            "FROM generate_series(1, 30) n"
        )

    async def ask() -> tuple[list[int], int]:
        reader = Reader(installed.postgres, connections_max=2, timeout_s=5)
        await reader.open()
        try:
            store = PostgresStore(reader.pool)
            deleted = [await store.forget_claims(30, 20) for _ in range(3)]
            after = (datetime.fromisoformat("2020-01-01T00:00:00+00:00"), "f", "/do/0/ask")
            return deleted, len(await store.approvals(None, "shop/approve", after, 10))
        finally:
            await reader.close()

    assert asyncio.run(ask()) == ([20, 10, 0], 0)
