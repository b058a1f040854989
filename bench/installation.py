"""A whole Flowtrail for one measurement: own servers in a temporary directory, own processes, started and restarted here.

Processes are run as users run them (`flowtrail engine run` ...), so what is measured is what is shipped. `kill` sends
any signal; a monitor restarts what ended, at once, as a supervisor would.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

from engine.errors import AwayError
from stack.embedded import Stack
from stack.ports import free_port

WORKER_FILE = Path(__file__).with_name("tasks.py")


class Processes:
    """Named child processes that are restarted when they end. `exits` counts how they ended."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self._folder = folder
        self._environment = environment
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self._argv: dict[str, list[str]] = {}
        self._extra: dict[str, dict[str, str]] = {}
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self.exits: Counter[str] = Counter()
        self._thread = threading.Thread(target=self._monitor, name="monitor", daemon=True)
        self._thread.start()

    def start(self, name: str, *argv: str, environment: dict[str, str] | None = None) -> None:
        self._argv[name] = [sys.executable, "-m", "cli.main", *argv]
        self._extra[name] = environment or {}
        with self._lock:
            self._spawn(name)

    def _spawn(self, name: str) -> None:
        with (self._folder / f"{name}.log").open("ab") as log:
            self._running[name] = subprocess.Popen(
                self._argv[name],
                env=os.environ | self._environment | self._extra[name],
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
            )

    def _monitor(self) -> None:
        while not self._stop.wait(0.05):
            with self._lock:
                for name, process in list(self._running.items()):
                    code = process.poll()
                    if code is not None and not self._stop.is_set():
                        self.exits[f"{name}:{code}"] += 1
                        self._spawn(name)

    def names(self) -> list[str]:
        return sorted(self._running)

    def kill(self, name: str, number: signal.Signals = signal.SIGKILL) -> None:
        with self._lock:
            self._running[name].send_signal(number)

    def cpu_seconds(self) -> dict[str, float]:
        """User and system seconds of each running process."""
        ticks = os.sysconf("SC_CLK_TCK")
        found = {}
        for name, process in self._running.items():
            with contextlib.suppress(OSError):
                fields = Path(f"/proc/{process.pid}/stat").read_text().rsplit(")", 1)[1].split()
                found[name] = round((int(fields[11]) + int(fields[12])) / ticks, 2)
        return found

    def resident_mib(self) -> dict[str, float]:
        found = {}
        for name, process in self._running.items():
            with contextlib.suppress(OSError):
                pages = int(Path(f"/proc/{process.pid}/statm").read_text().split()[1])
                found[name] = round(pages * os.sysconf("SC_PAGE_SIZE") / 2**20, 1)
        return found

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()
        for process in self._running.values():
            process.terminate()
        end = time.monotonic() + 15
        for process in self._running.values():
            try:
                process.wait(max(0.1, end - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


class Installation:
    """Servers and processes. Attributes `kafka`, `postgres`, `api_url`, `api_key`, `processes`, `folder`."""

    def __init__(
        self,
        engines: int = 1,
        workers: int = 1,
        kafka_properties: dict[str, str] | None = None,
        partitions: int = 8,
        keep: bool = False,
    ) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="flowtrail-bench-"))
        self._engines, self._workers, self._keep = engines, workers, keep
        self.partitions = partitions
        self.metrics: dict[str, int] = {}
        self.stack = Stack(self.folder / "data", ports="auto", kafka_properties=kafka_properties)

    def __enter__(self) -> Installation:
        try:
            addresses = self.stack.start()
            self.kafka, self.postgres = addresses.kafka, addresses.postgres
            self.api_port = free_port()
            self.api_url = f"http://127.0.0.1:{self.api_port}"
            self.environment = {
                "FLOWTRAIL_KAFKA": self.kafka,
                "FLOWTRAIL_POSTGRES": self.postgres,
                "FLOWTRAIL_DATA": str(self.folder),
                "FLOWTRAIL_API_URL": self.api_url,
                "FLOWTRAIL_API_PORT": str(self.api_port),
                "FLOWTRAIL_PARTITIONS": str(self.partitions),
                "FLOWTRAIL_LOG_LEVEL": "info",
            }
            self._initialise()
            self.processes = Processes(self.folder, self.environment)
            self._start("api", "api", "run")
            self._start("projections", "projections", "run")
            for i in range(self._engines):
                self._start(f"engine{i}", "engine", "run", "--instance", f"e{i}")
            self._await_ready()
            for i in range(self._workers):
                self._start(f"worker{i}", "worker", "run", f"{WORKER_FILE}:worker", "--instance", f"w{i}")
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def _start(self, name: str, *argv: str) -> None:
        """`metrics` says where the process serves /metrics: the API on its own port, the others on one each."""
        self.metrics[name] = self.api_port if name == "api" else free_port()
        self.processes.start(name, *argv, environment={"FLOWTRAIL_METRICS_PORT": str(self.metrics[name])})

    def _initialise(self) -> None:
        argv = [sys.executable, "-m", "cli.main", "admin", "init"]
        done = subprocess.run(
            argv, env=os.environ | self.environment, capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise AwayError(
                f"Expected `admin init` to succeed but it ended with {done.returncode}: {done.stderr.strip()}"
            )
        self.api_key = (self.folder / "api-key").read_text().strip()
        self.environment["FLOWTRAIL_API_KEY"] = self.api_key

    def _await_ready(self, timeout_s: float = 60) -> None:
        end = time.monotonic() + timeout_s
        while time.monotonic() < end:
            with (
                contextlib.suppress(OSError, urllib.error.URLError),
                urllib.request.urlopen(f"{self.api_url}/readyz", timeout=2) as answer,
            ):
                if answer.status == 200:
                    return
            time.sleep(0.1)
        raise AwayError(f"Expected the API to be ready within {timeout_s:.0f} s; logs are in {self.folder}")

    def publish(self, source: str) -> None:
        request = urllib.request.Request(
            f"{self.api_url}/definitions",
            data=source.encode(),
            headers={"Authorization": f"Bearer {self.api_key}", "Content-Type": "application/yaml"},
            method="POST",
        )
        with urllib.request.urlopen(request, timeout=30) as answer:
            json.load(answer)

    def run(self, *argv: str) -> subprocess.CompletedProcess[str]:
        """A `flowtrail` command against this installation."""
        return subprocess.run(
            [sys.executable, "-m", "cli.main", *argv],
            env=os.environ | self.environment,
            capture_output=True,
            text=True,
            check=False,
        )

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        if hasattr(self, "processes"):
            self.processes.stop()
        self.stack.stop()
        if not self._keep:
            shutil.rmtree(self.folder, ignore_errors=True)


def definition_of(tasks: int) -> str:
    """A definition of `tasks` worker tasks in a line."""
    lines = "".join(f"  - step{i}: {{call: step}}\n" for i in range(tasks))
    return (
        "document: {dsl: '1.0.3', namespace: bench, name: line, version: '1.0.0', metadata: {queue: bench}}\n"
        f"do:\n{lines}"
    )


@contextlib.contextmanager
def measuring(title: str) -> Iterator[None]:
    began = time.monotonic()
    yield
    print(f"{title}: {time.monotonic() - began:.1f} s", file=sys.stderr)
