"""What a worker does beyond performing: heartbeats, cancellation, deadlines, tokens, priorities, poison. Real Kafka."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from flowtrail import PENDING, Pending, current_task, heartbeat

from schemas import messages as m
from tests.conftest import Servers
from tests.integration.sdk_engine import Engine, an_engine, running, until
from tests.sdk_api import KEY

ROOT = Path(__file__).parents[2]


@pytest.fixture
def engine(
    servers: Servers, prefix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Engine]:
    monkeypatch.setenv("FLOWTRAIL_WORKER_STATE", str(tmp_path / "journal"))
    with an_engine(servers.kafka, prefix) as made:
        yield made


def test_a_task_that_asks_for_heartbeats_gets_them_while_its_function_is_busy(engine: Engine) -> None:
    worker = engine.worker(instance="w1")
    release = threading.Event()

    @worker.task("busy")
    def busy() -> str:
        release.wait(60)
        return "done"

    @worker.task("tells")
    async def tells() -> str:
        heartbeat({"done": 1})
        await asyncio.to_thread(release.wait, 60)
        return "done"

    silent = engine.give("busy", heartbeat=300_000)
    told = engine.give("tells", heartbeat=300_000)
    none = engine.give("busy")
    with running(worker):
        until(lambda: len(engine.commands_of(silent)) >= 3 and len(engine.commands_of(told)) >= 1)
        assert set(engine.commands_of(silent)) == {m.HeartbeatTask("/do/0/x", 1, 1)}
        assert engine.commands_of(told)[0] == m.HeartbeatTask("/do/0/x", 1, 1, b'{"done":1}')
        assert engine.commands_of(none) == []
        release.set()
        until(lambda: m.CompleteTask("/do/0/x", 1, 1, b'"done"') in engine.commands_of(silent))
        until(lambda: m.CompleteTask("/do/0/x", 1, 1, b'"done"') in engine.commands_of(told))
        after = len(engine.commands_of(silent))
        engine.await_outcomes([engine.give("busy").flow_id])
        assert len(engine.commands_of(silent)) == after


def test_cancelled_tasks_end_and_report_nothing(engine: Engine) -> None:
    worker = engine.worker()
    begun: list[str] = []
    ended: dict[str, str] = {}

    @worker.task("sync")
    def sync() -> None:
        begun.append("sync")
        try:
            while True:
                heartbeat()
                time.sleep(0.01)
        finally:
            ended["sync"] = "by its heartbeat"

    @worker.task("deaf")
    def deaf() -> str:
        begun.append("deaf")
        current_task().cancelled.wait(60)
        ended["deaf"] = "by itself"
        return "too late"

    @worker.task("async")
    async def waits() -> None:
        begun.append("async")
        try:
            await asyncio.sleep(3600)
        finally:
            ended["async"] = "where it waited"

    @worker.task("quick")
    def quick() -> str:
        return "done"

    tasks = [engine.give(function) for function in ("sync", "deaf", "async")]
    with running(worker):
        until(lambda: len(begun) == 3)

        def cancelled() -> bool:
            for task in tasks:  # again and again: the worker reads the topic from its end
                engine.cancel(task)
            return len(ended) == 3

        until(cancelled)
        engine.await_outcomes([engine.give("quick").flow_id])
    assert [engine.commands_of(task) for task in tasks] == [[], [], []]
    with running(engine_worker_that_fails_if_called(engine)):
        engine.await_outcomes([engine.give("quick").flow_id])


def engine_worker_that_fails_if_called(engine: Engine) -> Any:
    worker = engine.worker()
    for name in ("sync", "deaf", "async"):
        worker.task(name)(lambda: pytest.fail("a cancelled task was delivered again"))
    worker.task("quick")(lambda: None)
    return worker


def test_a_task_past_its_deadline_is_ended_and_one_that_comes_too_late_not_begun(engine: Engine) -> None:
    worker = engine.worker()
    begun: list[str] = []
    ended = threading.Event()

    @worker.task("slow")
    async def slow(name: str) -> None:
        begun.append(name)
        try:
            await asyncio.sleep(3600)
        finally:
            ended.set()

    late = engine.give("slow", {"name": "late"}, deadline=1)
    timed = engine.give("slow", {"name": "timed"}, deadline=int((time.time() + 30) * 1e6))
    with running(worker):
        until(lambda: begun == ["timed"])
        soon = engine.give("slow", {"name": "soon"}, deadline=int((time.time() + 1) * 1e6))
        assert ended.wait(20)
        assert begun in (["timed"], ["timed", "soon"])

        def all_ended() -> bool:
            engine.cancel(timed)
            return worker_is_idle(engine)

        until(all_ended)
    for task in (late, soon, timed):
        assert engine.commands_of(task) == []


def worker_is_idle(engine: Engine) -> bool:
    from prometheus_client import REGISTRY

    return REGISTRY.get_sample_value("flowtrail_worker_in_flight", {"queue": engine.queue}) == 0


def test_a_pending_task_and_one_nobody_waits_for_report_nothing_and_are_done_with(engine: Engine) -> None:
    tokens: list[str] = []
    performed: list[str] = []

    def made() -> Any:
        worker = engine.worker()

        @worker.task("ask")
        def ask() -> Pending:
            tokens.append(current_task().token)
            return PENDING

        @worker.task("note")
        def note() -> str:
            performed.append("note")
            return "done"

        return worker

    asked, noted = engine.give("ask"), engine.give("note", reply=False)
    with running(made()):
        until(lambda: len(tokens) == 1 and len(performed) == 1)
        engine.await_outcomes([engine.give("note").flow_id])
    with running(made()):
        engine.await_outcomes([engine.give("note").flow_id])
    assert engine.commands_of(asked) == engine.commands_of(noted) == []
    assert (len(tokens), len(performed)) == (1, 3)


def test_high_goes_before_normal_before_low_and_low_is_not_forgotten(engine: Engine) -> None:
    worker = engine.worker(concurrency=1)
    begun, release, order = threading.Event(), threading.Event(), []

    @worker.task("hold")
    def hold() -> None:
        begun.set()
        release.wait(60)

    @worker.task("note")
    def note(rank: str) -> None:
        order.append(rank)

    engine.give("hold")
    with running(worker):
        assert begun.wait(60)
        flows = [
            engine.give("note", {"rank": rank}, rank).flow_id
            for rank in (".low", "", ".high")
            for _ in range(30)
        ]
        threading.Event().wait(1.5)  # until all are fetched; nothing tells that from outside
        release.set()
        engine.await_outcomes(flows)
    assert len(order) == 90
    assert order[:30].count(".high") >= 24
    assert order[30:60].count("") >= 20
    assert ".low" in order[:40]


SCRIPT = """
import os
from flowtrail import Worker
worker = Worker({queue!r}, {url!r}, {key!r}, instance="w0")
@worker.task("poison")
def poison() -> None:
    os._exit(9)
@worker.task("note")
def note() -> str:
    return "done"
if __name__ == "__main__":
    worker.run()
"""


def test_a_task_that_kills_its_worker_three_times_becomes_an_incident(engine: Engine, tmp_path: Path) -> None:
    script = tmp_path / "work.py"
    script.write_text(SCRIPT.format(queue=engine.queue, url=engine.url, key=KEY))
    poison = engine.give("poison")

    def start() -> subprocess.Popen[bytes]:
        return subprocess.Popen([sys.executable, str(script)], cwd=ROOT, env=dict(os.environ))

    for _ in range(3):
        assert start().wait(60) == 9
    assert engine.commands_of(poison) == []
    survivor = start()
    try:
        until(lambda: len(engine.commands_of(poison)) == 1)
        (failed,) = engine.commands_of(poison)
        assert isinstance(failed, m.FailTask)
        assert failed.incident
        assert failed.error.title == "Task ends its worker"
        engine.await_outcomes([engine.give("note").flow_id])
        survivor.send_signal(signal.SIGTERM)
        assert survivor.wait(60) == 0
    finally:
        survivor.kill()
        survivor.wait()
