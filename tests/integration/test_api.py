"""The API on real Kafka and Postgres, with a real engine and projector behind it."""

from __future__ import annotations

import json
import os
import signal
import stat
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from engine.runtime import kafka
from schemas import messages as m
from schemas.codec import decode_command
from stack.embedded import Stack
from tests.conftest import Servers
from tests.integration.api_process import ORDER, PARTITIONS, Installed, installation, until
from tests.unit.api_calls import problem

YAML = {"Content-Type": "application/yaml"}


@pytest.fixture(scope="module")
def installed(servers: Servers, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installed]:
    with installation(servers, tmp_path_factory.mktemp("installed")) as made:
        yield made


@pytest.fixture
def http(installed: Installed) -> Iterator[httpx.Client]:
    with installed.client() as client:
        yield client


def start(http: httpx.Client, query: str = "", key: str | None = None, **given: Any) -> httpx.Response:
    body = {"definition": "shop/order", "input": {"amount": 2}} | given
    return http.post(f"/flows{query}", json=body, headers={} if key is None else {"Idempotency-Key": key})


def commands(installed: Installed, flow_id: str) -> list[m.Command]:
    consumer = kafka.log_consumer(installed.kafka)
    topic = f"{installed.prefix}commands"
    starts = [kafka.TopicPartition(topic, p, kafka.OFFSET_BEGINNING) for p in range(PARTITIONS)]
    found = [decode_command(message.value() or b"") for message in kafka.read_partitions(consumer, starts)]
    consumer.close()
    return [command for command in found if command.flow_id == flow_id]


def test_init_may_be_repeated_and_keeps_its_secrets_private(installed: Installed) -> None:
    key = installed.key
    again = installed.json("admin", "init")
    assert again == {
        "topics": [],
        "migrations": [],
        "key_file": str(installed.data / "api-key"),
        "key_made": False,
    }
    assert installed.key == key
    for name in ("api-key", "pepper"):
        assert stat.S_IMODE((installed.data / name).stat().st_mode) == 0o600


def test_a_flow_runs_and_is_read_in_every_way(http: httpx.Client) -> None:
    answer = start(http, "?wait=completed")
    assert answer.status_code == 200, answer.text
    flow = answer.json()
    assert flow["status"] == "completed"
    assert flow["output"] == {"amount": 4}
    again = http.get(f"/flows/{flow['id']}")
    assert again.json() == flow
    assert again.headers["flowtrail-position"]
    tasks = http.get(f"/flows/{flow['id']}/tasks").json()["tasks"]
    assert [task["task"] for task in tasks] == ["/do/0/double"]
    events = http.get(f"/flows/{flow['id']}/history").json()["events"]
    assert [event["sequence"] for event in events] == list(range(1, len(events) + 1))
    assert events[0]["actor"]["id"].startswith("local-")
    first = http.get(f"/flows/{flow['id']}/history?limit=1").json()
    rest = http.get(f"/flows/{flow['id']}/history?cursor={first['next']}").json()
    assert first["events"] + rest["events"] == events


def test_a_read_with_the_starts_position_sees_the_flow(http: httpx.Client) -> None:
    for _ in range(20):
        accepted = start(http).json()
        answer = http.get(f"/flows/{accepted['id']}?min_position={accepted['position']}")
        assert answer.json()["status"] == "completed", answer.text


def test_flows_are_listed_in_pages_that_hold_each_once(http: httpx.Client) -> None:
    ids = {start(http, "?wait=completed", id=f"page-{n}").json()["id"] for n in range(7)}
    seen: list[str] = []
    cursor = ""
    while True:
        page = http.get(f"/flows?id_prefix=page-&limit=3{cursor}").json()
        seen += [flow["id"] for flow in page["flows"]]
        if page["next"] is None:
            break
        cursor = f"&cursor={page['next']}"
    assert sorted(seen) == sorted(ids)
    assert http.get("/flows?status=faulted&id_prefix=page-").json()["flows"] == []


def test_one_idempotency_key_is_one_flow_however_often_and_at_once(
    installed: Installed, http: httpx.Client
) -> None:
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: start(http, key="once").json(), range(16)))
    assert len({(a["id"], a["command_id"]) for a in answers}) == 1
    flow_id = answers[0]["id"]
    http.get(f"/flows/{flow_id}?wait=completed")
    before = len(commands(installed, flow_id))
    late = start(http, "?wait=completed", key="once")
    assert (late.status_code, late.json()["id"]) == (200, flow_id)
    assert len(commands(installed, flow_id)) == before
    kinds = [event["kind"] for event in http.get(f"/flows/{flow_id}/history").json()["events"]]
    assert kinds.count("FlowStarted") == 1
    problem(start(http, key="once", input={"amount": 3}), 422, "idempotency-key-reused")


def test_an_id_in_use_is_409_even_when_the_read_model_does_not_know_yet(http: httpx.Client) -> None:
    body = {"definition": "shop/order", "input": {"amount": 1}, "id": "taken"}
    answers = [http.post("/flows?wait=completed", json=body) for _ in range(2)]
    assert answers[0].status_code == 200
    problem(answers[1], 409, "flow-exists")
    with ThreadPoolExecutor(4) as pool:
        body["id"] = "raced"
        raced = list(pool.map(lambda _: http.post("/flows?wait=completed", json=body), range(4)))
    assert sorted(answer.status_code for answer in raced) == [200, 409, 409, 409]


def test_a_running_flow_is_cancelled_and_an_ended_one_is_not(http: httpx.Client) -> None:
    flow_id = start(http, definition="shop/call").json()["id"]
    assert http.post(f"/flows/{flow_id}/cancel", json={"reason": "no more"}).status_code == 202
    flow = http.get(f"/flows/{flow_id}?wait=completed").json()
    assert (flow["status"], flow["reason"]) == ("cancelled", "no more")
    problem(http.post(f"/flows/{flow_id}/cancel"), 409, "flow-ended")
    problem(http.post("/flows/never-started/cancel"), 404, "unknown-flow")


def test_a_refused_command_is_found_among_the_rejections(installed: Installed, http: httpx.Client) -> None:
    from schemas.codec import encode_command
    from schemas.registry import newest

    command = m.Command("late", "no-such-flow", 0, m.Actor("worker", "w"), m.CompleteTask("/x", 1, 1, b"1"))
    producer = kafka.producer(installed.kafka)
    headers: list[tuple[str, str | bytes | None]] = [("schema", newest("command").fingerprint)]
    producer.produce(f"{installed.prefix}commands", encode_command(command), "no-such-flow", headers=headers)
    producer.flush(10)
    found = until(
        lambda: http.get("/rejections?flow_id=no-such-flow").json()["rejections"], 20, "the rejection"
    )
    assert (found[0]["code"], found[0]["command"]) == ("unknown-flow", "CompleteTask")


def test_nasty_values_come_back_as_they_went_in(http: httpx.Client) -> None:
    text = '{"amount": 1.0, "z": "\\u0000\\u00e9 \\"\\\\", "a": [1e2, -0.0, 12345678901234567890]}'
    body = f'{{"definition":"shop/order","input":{text}}}'
    answer = http.post("/flows?wait=completed", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == 200
    assert f'"input":{text}' in answer.text


def test_two_publishers_at_once_give_one_version(http: httpx.Client) -> None:
    texts = [ORDER.replace("order", "raced").replace("* 2", f"* {n}") for n in range(6)]
    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(lambda t: http.post("/definitions", content=t, headers=YAML), texts))
    assert sorted(answer.status_code for answer in answers) == [201, 409, 409, 409, 409, 409]
    winner = texts[[answer.status_code for answer in answers].index(201)]
    assert http.post("/definitions", content=winner, headers=YAML).status_code == 200


def test_publishing_makes_the_topics_of_its_queues(installed: Installed, http: httpx.Client) -> None:
    assert http.post("/queues/mail").json()["topic"] == f"{installed.prefix}tasks.mail"
    counts = kafka.partition_counts(kafka.admin_client(installed.kafka))
    assert counts[f"{installed.prefix}tasks.nobody"] == PARTITIONS
    assert counts[f"{installed.prefix}tasks.mail"] == PARTITIONS


def test_many_wait_at_once(http: httpx.Client) -> None:
    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(lambda _: start(http, "?wait=completed"), range(100)))
    assert {answer.status_code for answer in answers} == {200}
    assert {answer.json()["status"] for answer in answers} == {"completed"}


def test_keys_are_created_used_listed_and_revoked(installed: Installed) -> None:
    made = installed.json("admin", "keys", "create", "ci")
    with installed.client(made["key"]) as http:
        assert http.get("/flows").status_code == 200
        assert installed.command("admin", "keys", "revoke", made["id"]).returncode == 0
        until(lambda: http.get("/flows").status_code == 401, 15, "the revocation to take effect")
    listed = {key["id"]: key for key in installed.json("admin", "keys", "list")}
    assert listed[made["id"]]["revoked_at"] is not None
    assert listed[made["id"]]["last_used_at"] is not None
    assert "key" not in listed[made["id"]]
    unknown = installed.command("admin", "keys", "revoke", "nobody", check=False)
    assert unknown.returncode == 2
    assert "Expected the id of an API key" in unknown.stderr


def test_stopping_releases_those_who_wait(installed: Installed, http: httpx.Client) -> None:
    flow_id = start(http, definition="shop/call").json()["id"]
    http.get(f"/flows/{flow_id}?wait=completed&timeout=0.1")
    found: list[int] = []

    def wait() -> None:
        found.append(http.get(f"/flows/{flow_id}?wait=completed&timeout=30").status_code)

    waiting = threading.Thread(target=wait)
    waiting.start()
    until(lambda: "flowtrail_api_waiters 1.0" in httpx.get(f"{installed.url}/metrics").text, 10, "the wait")
    assert installed.stop("api") == 0
    waiting.join(10)
    assert found == [200]
    installed.start("api", "run")
    installed.ready()


def test_the_api_outlives_the_absence_of_its_servers(tmp_path: Path) -> None:
    environment = {k: v for k, v in os.environ.items() if k not in ("FLOWTRAIL_KAFKA", "FLOWTRAIL_POSTGRES")}
    stack = Stack(tmp_path / "stack", ports="auto", environment=environment)
    addresses = stack.start()
    installed = Installed(addresses.kafka, addresses.postgres, "t.", tmp_path / "data")
    try:
        installed.command("admin", "init")
        stack.stop()
        installed.start("api", "run")
        until(lambda: installed.status("/livez") == 200, 30, "the API to answer")
        checks = problem(httpx.get(f"{installed.url}/readyz", timeout=15), 503, "not-ready")["checks"]
        assert {name for name, said in checks.items() if said != "ok"} == {"kafka", "postgres", "definitions"}
        with installed.client() as http:
            problem(start(http), 503, "server-away")

            again = Stack(tmp_path / "stack", ports=stack.ports, environment=environment)
            stack = again
            assert again.start() == addresses
            installed.ready()
            assert http.post("/definitions", content=ORDER, headers=YAML).status_code == 201

            os.kill(again.kafka_pid, signal.SIGSTOP)
            silent = start(http, key="through")
            os.kill(again.kafka_pid, signal.SIGCONT)
            problem(silent, 503, "server-away")
            accepted = until(lambda: taken(start(http, key="through")), 30, "the start to be taken")

            os.kill(again.pids()["postgres"], signal.SIGKILL)
            until(lambda: http.get("/flows").status_code == 200, 60, "reads to recover")
            assert start(http, key="through").json()["id"] == accepted["id"]
            assert installed.stop("api") == 0
    finally:
        installed.close()
        stack.stop()


def taken(answer: httpx.Response) -> Any:
    return answer.json() if answer.status_code == 202 else None


def test_init_waits_for_servers_and_then_says_who_is_away(tmp_path: Path) -> None:
    installed = Installed("127.0.0.1:1", "postgresql://x@127.0.0.1:1/x", "t.", tmp_path)
    done = installed.command("admin", "init", "--wait", "1", check=False)
    assert done.returncode == 3
    assert "Expected Kafka to answer" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_missing_pepper_and_a_taken_port_are_clear_errors(installed: Installed, tmp_path: Path) -> None:
    bare = Installed(installed.kafka, installed.postgres, installed.prefix, tmp_path)
    done = bare.command("api", "run", check=False)
    assert (done.returncode, "flowtrail admin init" in done.stderr) == (2, True)
    (tmp_path / "pepper").write_text("x" * 43)
    bare.port = installed.port
    done = bare.command("api", "run", check=False)
    assert done.returncode == 2
    assert f"127.0.0.1:{installed.port}" in done.stderr
    assert json.loads(bare.command("admin", "init", "--json").stdout)["key_made"] is True
