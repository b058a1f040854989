"""Engine processes for tests, topics of their own, and an independent reading of what the log holds."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from engine.core.evolve import digest
from engine.dsl.compile import compile_definition
from engine.dsl.model import Definition
from engine.dsl.source import parse
from engine.runtime import kafka, topics
from schemas import messages as m
from schemas.codec import decode_logged, encode_command, encode_definition
from schemas.registry import newest

INLINE = """
document: {dsl: '1.0.3', namespace: test, name: inline, version: '1.0.0'}
do:
  - a: {set: {x: '${ .n }'}}
  - b: {set: {y: '${ .x + 1 }'}}
"""
LINE = """
document: {dsl: '1.0.3', namespace: test, name: line, version: '1.0.0'}
do:
  - a: {call: f}
  - b: {call: g}
"""


def wait_for(condition: Callable[[], Any], timeout_s: float = 60, what: str = "the condition") -> Any:
    end = time.monotonic() + timeout_s
    while time.monotonic() < end:
        if found := condition():
            return found
        time.sleep(0.05)
    raise AssertionError(f"expected {what} within {timeout_s} s")


@dataclass
class Cluster:
    """Topics under one prefix, and engine processes on them."""

    servers: str
    prefix: str
    folder: Path
    partitions: int = 4
    running: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        topics.create_topics(kafka.admin_client(self.servers), self.prefix, self.partitions, 1)
        self.producer = kafka.producer(self.servers, **{"linger.ms": 0})

    # -- processes ----------------------------------------------------------------------------------------------

    def start(self, name: str = "e0", *, fail: str = "", **environment: str) -> subprocess.Popen[bytes]:
        given = {
            "FLOWTRAIL_KAFKA": self.servers,
            "FLOWTRAIL_TOPIC_PREFIX": self.prefix,
            "FLOWTRAIL_PARTITIONS": str(self.partitions),
            "FLOWTRAIL_INSTANCE": name,
            "FAIL": fail,
        }
        with (self.folder / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "tests.integration.failing_engine"],
                env=os.environ | given | environment,
                stdout=log,
                stderr=log,
            )
        self.running[name] = process
        return process

    def log(self, name: str = "e0") -> list[dict[str, Any]]:
        found = []
        for line in (self.folder / f"{name}.log").read_text().splitlines():
            with contextlib.suppress(orjson.JSONDecodeError):
                found.append(orjson.loads(line))
        return found

    def said(self, event: str, name: str = "e0") -> list[dict[str, Any]]:
        return [entry for entry in self.log(name) if entry.get("event") == event]

    def ready(self, name: str = "e0", times: int = 1) -> None:
        wait_for(
            lambda: len(self.said("partitions assigned", name)) >= times, what=f"{name} to own its partitions"
        )

    def stop(self) -> None:
        for process in self.running.values():
            if process.poll() is None:
                process.kill()
            process.wait()

    # -- writing ------------------------------------------------------------------------------------------------

    def publish(self, text: str) -> Definition:
        found = compile_definition(parse(text))
        record = m.PublishedDefinition(
            found.id,
            found.hash,
            orjson.dumps(found.document, option=orjson.OPT_SORT_KEYS),
            text,
            "application/yaml",
            0,
            "test",
        )
        self.send(topics.DEFINITIONS, found.id, encode_definition(record), "definition")
        self.producer.flush(10)
        return found

    def send(self, topic: str, key: str, value: bytes, kind: str | None, **how: Any) -> None:
        headers = [] if kind is None else [("schema", newest(kind).fingerprint)]
        self.producer.produce(self.prefix + topic, value, key.encode(), headers=headers, **how)

    def command(self, flow_id: str, body: m.CommandBody, command_id: str | None = None) -> None:
        command = m.Command(
            command_id or f"{flow_id}-{type(body).__name__}", flow_id, 0, m.Actor("user", "test"), body
        )
        self.send(topics.COMMANDS, flow_id, encode_command(command), "command")

    def begin(self, count: int, definition: str = "test/inline", first: int = 0) -> list[str]:
        names = [f"flow-{i}" for i in range(first, first + count)]
        for i, name in enumerate(names):
            self.command(name, m.StartFlow(definition, b'{"n":%d}' % i))
        self.producer.flush(30)
        return names

    # -- reading ------------------------------------------------------------------------------------------------

    def read(self, topic: str, isolation: str = "read_committed") -> Iterator[kafka.Message]:
        name = self.prefix + topic
        if name not in kafka.partition_counts(kafka.admin_client(self.servers)):
            return
        consumer = kafka.log_consumer(self.servers, **{"isolation.level": isolation})
        starts = [kafka.TopicPartition(name, p, kafka.OFFSET_BEGINNING) for p in range(self.partitions)]
        try:
            yield from kafka.read_partitions(consumer, starts)
        finally:
            consumer.close()

    def logged(self) -> list[tuple[m.Event | m.Rejection, bytes, int]]:
        return [
            (
                decode_logged(message.value() or b"", kafka.fingerprint_of(message)),
                message.value() or b"",
                message.partition() or 0,
            )
            for message in self.read(topics.EVENTS)
        ]

    def ended(self) -> Counter[str]:
        return Counter(
            found.flow_id
            for found, _, _ in self.logged()
            if isinstance(found, m.Event) and found.kind in ("FlowCompleted", "FlowFaulted", "FlowCancelled")
        )

    def wait_ended(self, names: list[str], timeout_s: float = 90) -> None:
        wait_for(lambda: set(names) <= set(self.ended()), timeout_s, f"{len(names)} flows to end")

    def assert_exact(self, names: list[str]) -> None:
        """Every flow once, sequences without a gap, chains unbroken, each in one partition, nothing else."""
        assert self.ended() == Counter(names)
        last: dict[str, tuple[int, bytes, int]] = {}
        for found, value, partition in self.logged():
            if not isinstance(found, m.Event):
                continue
            sequence, head, home = last.get(found.flow_id, (0, b"", partition))
            assert found.sequence == sequence + 1
            assert found.previous_hash == head
            assert partition == home == topics.partition_of(found.flow_id, self.partitions)
            last[found.flow_id] = (found.sequence, digest(value), partition)
        assert set(last) == set(names)
