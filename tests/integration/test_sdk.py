"""The SDK's Worker on real Kafka: tasks in, commands out, at least once. The API is a stand-in (tests/sdk_api.py)."""

from __future__ import annotations

import asyncio
import logging
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from flowtrail import ApiError, FlowtrailError, TaskContext, TaskError, Worker
from prometheus_client import REGISTRY

from schemas import messages as m
from tests.conftest import Servers
from tests.integration.sdk_engine import Engine, an_engine, completed, failed, running, until
from tests.sdk_api import KEY, serving

ROOT = Path(__file__).parents[2]


@pytest.fixture
def engine(servers: Servers, prefix: str) -> Iterator[Engine]:
    with an_engine(servers.kafka, prefix) as made:
        yield made


def test_every_outcome_comes_back_as_a_command(engine: Engine) -> None:
    worker = engine.worker(instance="w1")

    @worker.task("add")
    def add(a: int, b: int = 1) -> int:
        return a + b

    @worker.task("later")
    async def later(context: TaskContext, a: int) -> dict[str, Any]:
        await asyncio.sleep(0.001)
        return {"flow": context.flow_id, "queue": context.queue, "a": a}

    @worker.task("raises")
    def raises() -> None:
        raise LookupError("no such account")

    @worker.task("declines")
    async def declines() -> None:
        raise TaskError("https://example.com/declined", 402, "Declined", "expired")

    @worker.task("holds")
    def holds(kind: str) -> Any:
        return {
            "nan": float("nan"),
            "set": {1},
            "object": object(),
            "large": "x" * 300_000,
            "lone": "\ud800",
        }[kind]

    kinds = ["nan", "set", "object", "large", "lone"]
    added = engine.hand_out("add", [{"a": 1}, {"a": 2, "b": 3}])
    awaited = engine.hand_out("later", [{"a": 5}])
    wrong = engine.hand_out("add", [{"a": "x"}, {"b": 1}])
    (raised,), (declined,) = engine.hand_out("raises", [{}]), engine.hand_out("declines", [{}])
    held = engine.hand_out("holds", [{"kind": kind} for kind in kinds])
    (unknown,) = engine.hand_out("nobody", [{}])
    flows = [*added, *awaited, *wrong, raised, declined, *held, unknown]
    with running(worker):
        found = engine.await_outcomes(flows)
    assert [completed(found[flow]) for flow in added] == [2, 5]
    assert completed(found[awaited[0]]) == {"flow": awaited[0], "queue": engine.queue, "a": 5}
    assert [failed(found[flow]).detail for flow in wrong] == [
        "Expected int but got str at $.a",
        "Expected argument a but it is missing",
    ]
    assert (failed(found[raised]).title, failed(found[raised]).detail) == ("LookupError", "no such account")
    assert failed(found[declined]) == m.Error(
        "https://example.com/declined", 402, "Declined", "expired", "/do/0/x"
    )
    for kind, flow in zip(kinds, held, strict=True):
        assert (failed(found[flow]).detail or "").startswith("Expected a result"), kind
    assert "Expected one of the functions of queue" in (failed(found[unknown]).detail or "")
    assert {command.actor for command in found.values()} == {m.Actor("worker", "w1")}
    assert found[added[0]].command_id == f"{added[0]}/do/0/x#1.1:completed"
    assert REGISTRY.get_sample_value(
        "flowtrail_worker_tasks_total", {"function": "raises", "outcome": "failed"}
    )


def test_unreadable_records_and_aborted_tasks_are_passed_over(
    engine: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    worker = engine.worker()
    performed: list[int] = []

    @worker.task("note")
    def note(n: int) -> None:
        performed.append(n)

    engine.hand_out("note", [{"n": -1}] * 20, abort=True)
    engine.hand_out_raw([(f"k{i}", value) for i, value in enumerate((b"", b"garbage", b"\0\0\0\0\7xyz"))])
    flows = engine.hand_out("note", [{"n": n} for n in range(20)])
    with running(worker):
        engine.await_outcomes(flows)
    assert sorted(performed) == list(range(20))
    assert caplog.text.count("passed over: Expected") == 3


def test_a_graceful_stop_loses_none_and_doubles_none(engine: Engine) -> None:
    performed: list[int] = []

    def made() -> Worker:
        worker = engine.worker(concurrency=4)

        @worker.task("slow")
        def slow(n: int) -> int:
            time.sleep(0.01)
            performed.append(n)
            return n

        return worker

    flows = engine.hand_out("slow", [{"n": n} for n in range(400)])
    with running(made()):
        until(lambda: len(performed) >= 50)
    assert 50 <= len(performed) < 400
    with running(made()):
        engine.await_outcomes(flows)
    # tasks that ended out of order behind one still running at the stop would be the only ones to come twice;
    # a graceful stop waits for those that run, so there are none
    assert Counter(performed) == Counter(range(400))
    assert Counter(command.flow_id for command in engine.outcomes()) == Counter(flows)


def test_a_slow_function_does_not_hold_up_the_others(engine: Engine) -> None:
    worker = engine.worker(concurrency=2)
    release = threading.Event()

    @worker.task("slow")
    def slow() -> None:
        release.wait(60)

    @worker.task("quick")
    def quick(n: int) -> int:
        return n

    (stuck,) = engine.hand_out("slow", [{}])
    with running(worker):
        quick_ones = engine.hand_out("quick", [{"n": n} for n in range(200)])
        found = engine.await_outcomes(quick_ones)
        assert len(found) == 200
        assert stuck not in {command.flow_id for command in engine.outcomes()}
        release.set()
        engine.await_outcomes([stuck])


def test_tasks_beyond_the_buffer_wait_in_kafka_and_the_membership_lasts(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flowtrail.session._BUFFER_LEAST", 20)
    worker = engine.worker(concurrency=2)
    release = threading.Event()
    performed: list[int] = []

    @worker.task("held")
    def held(n: int) -> None:
        release.wait(60)
        performed.append(n)

    flows = engine.hand_out("held", [{"n": n} for n in range(3000)])
    with running(worker):
        until(
            lambda: (
                (REGISTRY.get_sample_value("flowtrail_worker_in_flight", {"queue": engine.queue}) or 0) == 2
            )
        )
        threading.Event().wait(1.0)  # long enough for the pause; nothing tells its moment from outside
        buffered = REGISTRY.get_sample_value("flowtrail_worker_buffered", {"queue": engine.queue})
        assert buffered is not None
        assert 20 <= buffered <= 1000
        release.set()
        engine.await_outcomes(flows)
    assert Counter(performed) == Counter(range(3000))


def test_partitions_move_to_a_second_worker_and_back(engine: Engine) -> None:
    performed: Counter[str] = Counter()

    def made(name: str) -> Worker:
        worker = engine.worker(concurrency=2)

        @worker.task("note")
        def note(context: TaskContext) -> str:
            performed[name] += 1
            return name

        return worker

    flows: list[str] = []
    with running(made("first")):
        flows += engine.hand_out("note", [{}] * 50)
        engine.await_outcomes(flows)
        with running(made("second")):

            def second_takes_part() -> bool:
                flows.extend(engine.hand_out("note", [{}] * 20))
                engine.await_outcomes(flows)
                return performed["second"] > 0

            until(second_takes_part)
        before = performed["first"]
        flows += engine.hand_out("note", [{}] * 100)
        engine.await_outcomes(flows)
        assert performed["first"] >= before + 100


SCRIPT = """
import os, pathlib, threading
from flowtrail import Worker
worker = Worker({queue!r}, {url!r}, {key!r}, concurrency=4, instance="w0")
@worker.task("work")
def work(n: int) -> int:
    with open({log!r}, "a") as file:
        file.write(f"{{n}}\\n")
    if n % 10 == 7 and not pathlib.Path({release!r}).exists():
        threading.Event().wait(600)
    return n
if __name__ == "__main__":
    worker.run()
"""


@pytest.fixture
def process(engine: Engine, tmp_path: Path) -> Iterator[Callable[[], subprocess.Popen[bytes]]]:
    """Starts worker processes that share a static instance; kills what is left of them."""
    script = tmp_path / "work.py"
    script.write_text(
        SCRIPT.format(
            queue=engine.queue,
            url=engine.url,
            key=KEY,
            log=str(tmp_path / "log"),
            release=str(tmp_path / "release"),
        )
    )
    started: list[subprocess.Popen[bytes]] = []

    def start() -> subprocess.Popen[bytes]:
        started.append(subprocess.Popen([sys.executable, str(script)], cwd=ROOT))
        return started[-1]

    yield start
    for one in started:
        one.kill()
        one.wait()


def lines_of(file: Path) -> list[str]:
    return file.read_text().split() if file.exists() else []


def test_tasks_of_a_killed_worker_are_delivered_again(
    engine: Engine, process: Callable[[], subprocess.Popen[bytes]], tmp_path: Path
) -> None:
    flows = engine.hand_out("work", [{"n": n} for n in range(60)])
    first = process()
    until(
        lambda: sum(line.endswith("7") for line in lines_of(tmp_path / "log")) >= 4
    )  # all four hands are stuck
    first.kill()
    first.wait()
    (tmp_path / "release").touch()
    second = process()
    found = engine.await_outcomes(flows)
    assert sorted(completed(command) for command in found.values()) == list(range(60))
    second.send_signal(signal.SIGTERM)
    assert second.wait(60) == 0
    assert len(lines_of(tmp_path / "log")) > 60  # the stuck ones were begun twice


def test_sigterm_ends_a_worker_within_its_grace(
    engine: Engine, process: Callable[[], subprocess.Popen[bytes]], tmp_path: Path
) -> None:
    (tmp_path / "release").touch()
    worker = process()
    engine.await_outcomes(engine.hand_out("work", [{"n": 1}]))
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(30) == 0


def test_a_function_that_outlasts_the_grace_is_left_and_its_task_comes_again(engine: Engine) -> None:
    release, begun = threading.Event(), threading.Event()

    def made(grace: float) -> Worker:
        worker = engine.worker(grace=grace)

        @worker.task("stuck")
        def stuck() -> str:
            begun.set()
            release.wait(60)
            return "done"

        return worker

    flows = engine.hand_out("stuck", [{}])
    with running(made(0.1)):
        assert begun.wait(30)
    assert engine.outcomes() == []
    release.set()
    with running(made(10)):
        engine.await_outcomes(flows)


def test_a_worker_whose_instance_is_taken_over_says_so(engine: Engine) -> None:

    def made() -> Worker:
        worker = engine.worker(instance="twin")
        worker.task("note")(lambda: None)
        return worker

    ended: list[str] = []

    def run_first() -> None:
        try:
            made().run()
        except FlowtrailError as problem:
            ended.append(str(problem))

    first = threading.Thread(target=run_first)
    first.start()
    engine.await_outcomes(engine.hand_out("note", [{}]))
    with running(made()):
        first.join(30)
        assert not first.is_alive()
        engine.await_outcomes(engine.hand_out("note", [{}]))
    assert len(ended) == 1
    assert "Expected to be the only worker" in ended[0]
    assert "named twin but" in ended[0]


def test_a_worker_waits_for_an_api_that_is_away_and_refuses_a_wrong_key(
    servers: Servers, prefix: str, engine: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    with serving(servers.kafka, prefix, lambda _: None) as url:
        port = int(url.rsplit(":", 1)[1])
    worker = Worker(engine.queue, f"http://127.0.0.1:{port}", KEY)
    worker.task("note")(lambda: None)
    with running(worker):
        until(lambda: "trying again" in caplog.text)
        with serving(servers.kafka, prefix, lambda _: None, port):
            engine.await_outcomes(engine.hand_out("note", [{}]))
    stranger = Worker(engine.queue, engine.url, "wrong.key")
    stranger.task("note")(lambda: None)
    with pytest.raises(ApiError, match="Expected an API key"):
        stranger.run()


def test_a_worker_waits_for_a_kafka_that_is_away(prefix: str, caplog: pytest.LogCaptureFixture) -> None:
    with serving("127.0.0.1:9", prefix, lambda _: None) as url:
        worker = Worker("q", url, KEY)
        worker.task("note")(lambda: None)
        with running(worker):
            until(lambda: "Expected Kafka at 127.0.0.1:9 to answer but" in caplog.text)
    assert logging.getLogger("flowtrail.worker").name in {record.name for record in caplog.records}
