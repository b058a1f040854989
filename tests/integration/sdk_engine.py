"""The engine's side of a queue on real Kafka, and what tests of the SDK's worker do with it."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import orjson
from flowtrail import Worker

from engine.runtime import kafka
from engine.runtime.topics import partition_of
from schemas import messages as m
from schemas.codec import decode_command, encode_cancellation, encode_task
from schemas.registry import newest
from tests.sdk_api import KEY, serving

PARTITIONS = 4


class Engine:
    """The engine's side of a queue: hands out tasks in transactions, reads what comes back."""

    def __init__(self, servers: str, prefix: str, url: str, queue: str) -> None:
        self.servers, self.prefix, self.url, self.queue = servers, prefix, url, queue
        self._producer = kafka.transactional_producer(servers, f"{prefix}engine")
        self._producer.init_transactions(20)

    def worker(self, **given: Any) -> Worker:
        return Worker(self.queue, self.url, KEY, **given)

    def hand_out(self, function: str, arguments: list[Any], abort: bool = False) -> list[str]:
        """One task a flow; gives the flows' ids."""
        tasks = [
            m.Task(f"f-{uuid.uuid4().hex}", "demo/t@1.0.0", "/do/0/x", 1, 1, function, orjson.dumps(a), 1)
            for a in arguments
        ]
        self.hand_out_raw([(task.flow_id, encode_task(task)) for task in tasks], abort)
        return [task.flow_id for task in tasks]

    def give(self, function: str, arguments: Any = None, priority: str = "", **given: Any) -> m.Task:
        """One task with what `given` says of it, on the topic of `priority` (".high", "" or ".low")."""
        task = m.Task(
            f"f-{uuid.uuid4().hex}", "demo/t@1.0.0", "/do/0/x", 1, 1, function, orjson.dumps(arguments or {}), 1,
            **given,
        )  # fmt: skip
        self.hand_out_raw([(task.flow_id, encode_task(task))], priority=priority)
        return task

    def cancel(self, task: m.Task) -> None:
        cancelled = m.Cancellation(task.flow_id, task.task, task.run, task.attempt, self.queue, 1)
        self._producer.begin_transaction()
        self._producer.produce(
            f"{self.prefix}cancellations",
            encode_cancellation(cancelled),
            task.flow_id,
            headers=[("schema", newest("cancellation").fingerprint)],
        )
        self._producer.commit_transaction(20)

    def commands_of(self, task: m.Task) -> list[m.CommandBody]:
        return [command.body for command in self.outcomes() if command.flow_id == task.flow_id]

    def hand_out_raw(self, records: list[tuple[str, bytes]], abort: bool = False, priority: str = "") -> None:
        self._producer.begin_transaction()
        for key, value in records:
            self._producer.produce(
                f"{self.prefix}tasks.{self.queue}{priority}",
                value,
                key,
                headers=[("schema", newest("task").fingerprint)],
            )
        if abort:
            self._producer.flush(20)
            self._producer.abort_transaction(20)
        else:
            self._producer.commit_transaction(20)

    def outcomes(self) -> list[m.Command]:
        """Every command there is now; checks key, partition and header of each."""
        consumer = kafka.log_consumer(self.servers)
        topic = f"{self.prefix}commands"
        starts = [kafka.TopicPartition(topic, p, kafka.OFFSET_BEGINNING) for p in range(PARTITIONS)]
        found = []
        for message in kafka.read_partitions(consumer, starts, 30):
            value, key = message.value(), message.key()
            assert value is not None
            assert key is not None
            command = decode_command(value, kafka.fingerprint_of(message))
            assert key == command.flow_id.encode()
            assert message.partition() == partition_of(command.flow_id, PARTITIONS)
            assert kafka.fingerprint_of(message) == newest("command").fingerprint
            found.append(command)
        consumer.close()
        return found

    def await_outcomes(self, flows: list[str], seconds: float = 60) -> dict[str, m.Command]:
        """One command of each of `flows`, once there is one."""
        end = time.monotonic() + seconds
        while True:
            found = {command.flow_id: command for command in self.outcomes()}
            if found.keys() >= set(flows):
                return {flow: found[flow] for flow in flows}
            assert time.monotonic() < end, (
                f"{len(set(flows) - found.keys())} of {len(flows)} flows without outcome"
            )


@contextmanager
def an_engine(servers: str, prefix: str) -> Iterator[Engine]:
    """With a stand-in API (tests/sdk_api.py) and topics of its own."""
    admin = kafka.admin_client(servers)

    def ensure(topic: str) -> None:
        kafka.create(admin, {topic: {}}, PARTITIONS, 1)

    queue = f"q-{prefix.rstrip('.')}"  # the group is named after the queue: one of the test's own
    for topic in ("commands", "cancellations", *(f"tasks.{queue}{rank}" for rank in (".high", "", ".low"))):
        ensure(f"{prefix}{topic}")
    with serving(servers, prefix, ensure) as url:
        yield Engine(servers, prefix, url, queue)


@contextmanager
def running(worker: Worker) -> Iterator[threading.Thread]:
    """`worker` in a thread; stopped at the end, its exception raised."""
    raised: list[BaseException] = []

    def run() -> None:
        try:
            worker.run()
        except BaseException as problem:
            raised.append(problem)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield thread
    finally:
        worker.stop()
        thread.join(60)
        assert not thread.is_alive()
    if raised:
        raise raised[0]


def completed(command: m.Command) -> Any:
    assert isinstance(command.body, m.CompleteTask), command
    assert isinstance(command.body.output, bytes)
    return orjson.loads(command.body.output)


def failed(command: m.Command) -> m.Error:
    assert isinstance(command.body, m.FailTask), command
    return command.body.error


def until(condition: Callable[[], bool], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "the condition did not come true"
        threading.Event().wait(0.01)
