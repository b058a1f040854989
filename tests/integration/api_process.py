"""Our own processes over real servers: admin init, then the API and, where wanted, engine and projections."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psycopg
from psycopg.conninfo import make_conninfo

from stack.ports import free_port
from tests.conftest import Servers

PARTITIONS = 4

ORDER = """\
document: {dsl: '1.0.0', namespace: shop, name: order, version: '1.0.0'}
input:
  schema:
    document: {type: object, required: [amount], properties: {amount: {type: number}}}
do:
  - double: {set: {amount: '${ .amount * 2 }'}}
"""
CALL = """\
document: {dsl: '1.0.0', namespace: shop, name: call, version: '1.0.0', metadata: {queue: nobody}}
do:
  - charge: {call: charge}
"""


def until(condition: Callable[[], Any], timeout_s: float = 60, what: str = "the condition") -> Any:
    end = time.monotonic() + timeout_s
    while time.monotonic() < end:
        if found := condition():
            return found
        time.sleep(0.05)
    raise AssertionError(f"expected {what} within {timeout_s} s")


@dataclass
class Installed:
    """One installation under its own prefix, database and data directory."""

    kafka: str
    postgres: str
    prefix: str
    data: Path
    port: int = field(default_factory=free_port)
    running: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def key(self) -> str:
        return (self.data / "api-key").read_text().strip()

    def environment(self) -> dict[str, str]:
        return os.environ | {
            "FLOWTRAIL_KAFKA": self.kafka,
            "FLOWTRAIL_POSTGRES": self.postgres,
            "FLOWTRAIL_TOPIC_PREFIX": self.prefix,
            "FLOWTRAIL_PARTITIONS": str(PARTITIONS),
            "FLOWTRAIL_DATA": str(self.data),
            "FLOWTRAIL_API_PORT": str(self.port),
            "FLOWTRAIL_API_URL": self.url,
        }

    def command(self, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [sys.executable, "-m", "cli.main", *words],
            env=self.environment(),
            capture_output=True,
            text=True,
            timeout=90,
            check=False,
        )
        assert not check or done.returncode == 0, done.stderr
        return done

    def json(self, *words: str) -> Any:
        return json.loads(self.command(*words, "--json").stdout)

    def start(self, *words: str) -> None:
        self.data.mkdir(parents=True, exist_ok=True)
        with (self.data / f"{words[0]}.log").open("ab") as log:
            self.running[words[0]] = subprocess.Popen(
                [sys.executable, "-m", "cli.main", *words], env=self.environment(), stdout=log, stderr=log
            )

    def stop(self, name: str) -> int:
        """Gracefully; its exit code."""
        process = self.running.pop(name)
        process.terminate()
        return process.wait(20)

    def close(self) -> None:
        for process in self.running.values():
            process.kill()
            process.wait()

    def logs(self) -> str:
        """The ends of all logs, for a test that failed."""
        return "".join(f"\n{file.name}: {file.read_text()[-2000:]}" for file in self.data.glob("*.log"))

    def client(self, key: str | None = None) -> httpx.Client:
        headers = {"Authorization": f"Bearer {self.key if key is None else key}"}
        return httpx.Client(base_url=self.url, headers=headers, timeout=30)

    def status(self, path: str) -> int:
        try:
            return httpx.get(self.url + path, timeout=10).status_code
        except httpx.TransportError:
            return 0

    def ready(self, timeout_s: float = 60) -> None:
        until(lambda: self.status("/readyz") == 200, timeout_s, "the API to be ready")


@contextmanager
def installation(servers: Servers, folder: Path) -> Iterator[Installed]:
    """All of it: servers prepared, API, projections and engine running, ORDER and CALL published, a flow done."""
    name = f"t{uuid.uuid4().hex[:10]}"
    with psycopg.connect(servers.postgres, autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}"')
    made = Installed(servers.kafka, make_conninfo(servers.postgres, dbname=name), f"{name}.", folder)
    try:
        made.command("admin", "init")
        for words in (("api", "run"), ("projections", "run"), ("engine", "run")):
            made.start(*words)
        made.ready()
        with made.client() as http:
            for text in (ORDER, CALL):
                answer = http.post("/definitions", content=text, headers={"Content-Type": "application/yaml"})
                assert answer.status_code == 201, answer.text
            body = {"definition": "shop/order", "input": {"amount": 1}}
            answer = http.post("/flows?wait=completed&timeout=60", json=body, timeout=70)
            assert answer.status_code == 200, answer.text + made.logs()
        yield made
    finally:
        made.close()
