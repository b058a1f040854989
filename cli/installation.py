"""What `flowtrail up` runs in one data directory: the servers, then our own processes, all supervised.

The servers are stack/'s; here is what it must not know: our commands, their environment and when they are ready.
The order is: servers, `admin init`, then engines, projections, API and executor. Invariant: `stop()` ends all of it.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from engine.errors import AwayError, InputError
from stack import postgres
from stack.embedded import Stack
from stack.ports import HOST, free_port
from stack.probes import http_answers
from stack.supervisor import Child

ROOT: Final = Path(__file__).resolve().parents[1]
API_KEY_FILE: Final = "api-key"
OWN_PORTS: Final = {
    "api": "the API",
    "metrics_engine": "the engine's metrics",
    "metrics_projections": "the projections' metrics",
    "metrics_executor": "the executor's metrics",
}
READY_DEADLINE_S: Final = 60.0
DEATHS_ALLOWED: Final = 5  # a process may end while what it needs settles; its supervisor starts it again
INIT_DEADLINE_S: Final = 120.0
ANYWHERE: Final = ("0.0.0.0", "::", "")  # noqa: S104


@dataclass(frozen=True)
class Plan:
    """What `up` was asked for."""

    data: Path
    ports: Literal["default", "auto"] = "default"
    engines: int = 1
    servers_only: bool = False


def command(*words: str) -> list[str]:
    """A `flowtrail` command of this very installation. -P: a folder `cli` where the user stands is not ours."""
    return [sys.executable, "-P", "-m", "cli.main", *words]


def environment() -> dict[str, str]:
    """Ours, for a child that is to find the same code."""
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    return dict(os.environ) | {"PYTHONPATH": path, "PYTHONUNBUFFERED": "1"}


class Installation:
    """`urls` maps what a person may want to open or connect to to its address, without secrets."""

    def __init__(self, plan: Plan, report: Callable[[str], None]) -> None:
        own = {} if plan.servers_only else OWN_PORTS
        self.plan = plan
        self.stack = Stack(plan.data, plan.ports, own_ports=own, report=report)
        self.urls: dict[str, str] = {}
        self._report = report
        self._api_host = os.environ.get("FLOWTRAIL_API_HOST") or HOST

    def start(self) -> None:
        """Returns when everything answers. Raises what says whose fault it is; the caller stops in any case."""
        self._report(f"starting Kafka and Postgres in {self.stack.data}")
        addresses = self.stack.start()
        self.urls = {"kafka": addresses.kafka, "postgres": postgres.without_password(addresses.postgres)}
        if not self.plan.servers_only:
            self._initialise()
            self._start_own()
        self.stack.announce(self.urls, "ready")

    def stop(self) -> None:
        self.stack.stop()

    def summary(self) -> dict[str, object]:
        found: dict[str, object] = {
            "data": str(self.stack.data),
            "pid": os.getpid(),
            "urls": self.urls,
            "processes": self.stack.pids(),
        }
        if not self.plan.servers_only:
            found["api_key_file"] = str(self.stack.data / API_KEY_FILE)
        return found

    def _environment(self, metrics_port: int) -> dict[str, str]:
        addresses, ports = self.stack.addresses(), self.stack.ports
        return environment() | {
            "FLOWTRAIL_KAFKA": addresses.kafka,
            "FLOWTRAIL_POSTGRES": addresses.postgres,
            "FLOWTRAIL_API_HOST": self._api_host,
            "FLOWTRAIL_API_PORT": str(ports.api),
            "FLOWTRAIL_API_URL": self._api_url(),
            "FLOWTRAIL_METRICS_PORT": str(metrics_port),
            "FLOWTRAIL_DATA": str(self.stack.data),
        }

    def _api_url(self) -> str:
        host = HOST if self._api_host in ANYWHERE else self._api_host
        return f"http://{host}:{self.stack.ports.api}"

    def _initialise(self) -> None:
        self._report("creating topics, tables and the API key")
        try:
            done = subprocess.run(
                command("admin", "init"),
                env=self._environment(0),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=INIT_DEADLINE_S,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise AwayError(
                f"Expected `flowtrail admin init` to end within {INIT_DEADLINE_S:.0f} s but it did not"
            ) from None
        if done.returncode:
            kind = InputError if done.returncode == InputError.exit_code else AwayError
            said = "\n".join(f"  | {line}" for line in (done.stderr or done.stdout).splitlines()[-12:])
            raise kind(
                f"Expected `flowtrail admin init` to succeed but it ended with {done.returncode}:\n{said}"
            )

    def _start_own(self) -> None:
        self._report("starting engine, projections, API and executor")
        ports = self.stack.ports
        taken = set(ports.as_dict().values())
        metrics: dict[str, int] = {}
        for number in range(self.plan.engines):
            port = ports.metrics_engine if number == 0 else free_port(frozenset(taken))
            taken.add(port)
            metrics[f"engine-e{number}"] = port
            self._start_child(f"engine-e{number}", port, port, "engine", "run", "--instance", f"e{number}")
        metrics["projections"] = ports.metrics_projections
        self._start_child(
            "projections", ports.metrics_projections, ports.metrics_projections, "projections", "run"
        )
        self._start_child("api", ports.api, 0, "api", "run")
        self.urls["api"] = self._api_url()
        for name, port in metrics.items():
            url = f"http://{HOST}:{port}/metrics"
            self.urls[f"metrics of {name}"] = url
            self._await(name, url)
        self._await("api", f"{self.urls['api']}/readyz")
        self._start_executor()

    def _start_executor(self) -> None:
        """Last: it learns Kafka's address and its schemas from the API."""
        port = self.stack.ports.metrics_executor
        self._start_child("executor", port, port, "executor", "run")
        self.urls["metrics of executor"] = f"http://{HOST}:{port}/metrics"
        self._await("executor", self.urls["metrics of executor"])

    def _start_child(self, name: str, port: int, metrics_port: int, *words: str) -> None:
        self.stack.supervisor.start(
            Child(
                name=name,
                argv=tuple(command(*words)),
                log=self.stack.logs / f"{name}.log",
                environment=self._environment(metrics_port),
                port=port,
            )
        )

    def _await(self, name: str, url: str) -> None:
        self.stack.await_child(name, lambda: http_answers(url), DEATHS_ALLOWED, READY_DEADLINE_S)
