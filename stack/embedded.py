"""The embedded stack of one data directory: real Kafka and real Postgres, ready when `start()` returns.

    with Stack(Path("data"), ports="auto") as addresses:
        ...  # addresses.kafka, addresses.postgres

FLOWTRAIL_KAFKA and FLOWTRAIL_POSTGRES point at servers of one's own; then nothing is embedded for that one.
Invariants: one launcher a data directory; what a killed launcher left is stopped before anything starts; data
are only added to. A server that ends is started again, on the same port, with the same data.
"""

from __future__ import annotations

import atexit
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Literal

from stack import jars, kafka, postgres, postgres_binaries, state
from stack import ports as port_choice
from stack.errors import StackError
from stack.leftovers import start_guard, stop_leftovers
from stack.ports import HOST, Ports
from stack.probes import kafka_answers, postgres_answers
from stack.processes import Identity, tail
from stack.processes import stop as stop_process
from stack.supervisor import Child, Supervisor

READY_DEADLINE_S = 120.0
OWN_SERVER_DEADLINE_S = 10.0
PROBE_PAUSE_S = 0.1
# A postmaster waits for nobody: it ends when children of a killed one still hold the shared memory
DEATHS_ALLOWED = {"kafka": 0, "postgres": 6}


@dataclass(frozen=True)
class Addresses:
    """`kafka` is host:port, `postgres` a connection string with the password."""

    kafka: str
    postgres: str


class Stack:
    """`own_ports` names further ports of `Ports` that must be free, and for what."""

    def __init__(
        self,
        data: Path,
        ports: Literal["default", "auto"] | Ports = "default",
        kafka_properties: Mapping[str, str] | None = None,
        *,
        own_ports: Mapping[str, str] | None = None,
        report: Callable[[str], None] = lambda _: None,
        environment: Mapping[str, str] = os.environ,
    ) -> None:
        self.data = Path(data).absolute()
        self.logs = self.data / "logs"
        self.ports = Ports()
        self.supervisor = Supervisor(changed=self._record, report=report)
        self._wanted = ports
        self._own_ports = dict(own_ports or {})
        self._kafka_properties = dict(kafka_properties or {})
        self._report = report
        self._own_kafka = environment.get("FLOWTRAIL_KAFKA") or None
        own_postgres = environment.get("FLOWTRAIL_POSTGRES") or None
        self._own_postgres = postgres.require_url(own_postgres) if own_postgres else None
        self._lock: state.Lock | None = None
        self._cluster: Path | None = None
        self._guard: subprocess.Popen[bytes] | None = None
        self._state = state.State(Identity(0, 0.0))
        self._writing = threading.Lock()

    def __enter__(self) -> Addresses:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> Addresses:
        """Raises Refused for a taken port or data directory, StackError when a server cannot be had."""
        self._claim()
        atexit.register(self.stop)
        try:
            self._clear_and_choose()
            self._launch()
            return self._await_ready()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Stop everything, the last started first. Again is fine."""
        if self._lock is None:
            return
        self.supervisor.stop()
        if self._cluster is not None:
            postgres.remove_socket_folder(self._cluster)
        self._write(phase="stopped", processes=())
        if self._guard is not None:
            self._guard.kill()  # nothing is left for it to do
            self._guard.communicate()
            self._guard = None
        self._lock.release()
        self._lock = None
        atexit.unregister(self.stop)

    def pids(self) -> dict[str, int]:
        """Of what runs now; a child between two runs is not in it."""
        return {s.child.name: s.identity.pid for s in self.supervisor.statuses() if s.identity is not None}

    @property
    def kafka_pid(self) -> int:
        """Raises KeyError between two runs of it and where Kafka is one of one's own."""
        return self.pids()["kafka"]

    def restart_kafka(self, number: int = signal.SIGTERM) -> None:
        """End Kafka unless it has ended, and wait until it serves again."""
        before = self.supervisor.status("kafka")
        if before.identity is not None:
            stop_process(before.identity, number)
        self._await_restarted("kafka", before.restarts)
        end = time.monotonic() + READY_DEADLINE_S
        server = f"{HOST}:{self.ports.kafka}"
        while not kafka_answers(server):
            if time.monotonic() > end:
                raise StackError(
                    f"Expected Kafka to serve again but it did not within {READY_DEADLINE_S:g} s"
                )
            time.sleep(PROBE_PAUSE_S)

    def _await_restarted(self, name: str, restarts: int) -> None:
        end = time.monotonic() + READY_DEADLINE_S
        while (now := self.supervisor.status(name)).identity is None or (
            now.restarts == restarts and not now.identity.alive()
        ):
            if time.monotonic() > end:
                raise StackError(f"Expected {name} to be started again but it was not")
            time.sleep(PROBE_PAUSE_S)

    def addresses(self) -> Addresses:
        own = postgres.url(self.ports.postgres, postgres.password(self.data))
        return Addresses(
            kafka=self._own_kafka or f"{HOST}:{self.ports.kafka}", postgres=self._own_postgres or own
        )

    def announce(self, urls: Mapping[str, str], phase: str) -> None:
        """Publish in stack.json what else runs here, for `status` and for whoever waits for `ready`."""
        self._write(urls=self._state.urls | dict(urls), phase=phase)

    def _claim(self) -> None:
        try:
            self.logs.mkdir(parents=True, exist_ok=True)
        except OSError as problem:
            raise StackError(f"Expected to make the data directory {self.data} but {problem}") from None
        before = state.read(self.data)
        # With its launcher dead, whoever has the lock is about to clear up after it
        patience_s = 60.0 if before is not None and not before.launcher.alive() else 0.0
        lock = state.Lock(self.data)
        lock.take(patience_s)
        self._lock = lock

    def _clear_and_choose(self) -> None:
        for name in stop_leftovers(self.data):
            self._report(f"stopped {name}, which an earlier launcher had left running")
        before = state.read(self.data)
        launcher = Identity.of(os.getpid())
        assert launcher is not None
        self._state = state.State(launcher)
        self.ports = self._choose_ports(before.ports if before else {})
        self._write(ports=self.ports.as_dict())
        self._guard = start_guard(self.data)

    def _choose_ports(self, previous: Mapping[str, int]) -> Ports:
        if self._wanted == "auto":
            return port_choice.choose(previous)
        chosen = Ports() if self._wanted == "default" else self._wanted
        needed = dict(self._own_ports)
        if self._own_kafka is None:
            needed["kafka"] = "Kafka"
            if not chosen.kafka_controller:
                avoid = frozenset(chosen.as_dict().values())
                chosen = replace(chosen, kafka_controller=port_choice.free_port(avoid))
            else:
                needed["kafka_controller"] = "Kafka's controller"
        if self._own_postgres is None:
            needed["postgres"] = "Postgres"
        for name, purpose in needed.items():
            port_choice.require_free(getattr(chosen, name), purpose)
        return chosen

    def _launch(self) -> None:
        """Both at a time: each spends most of its start waiting for the disk or for itself."""
        makers = []
        if self._own_kafka is None:
            makers.append(self._make_kafka)
        if self._own_postgres is None:
            makers.append(self._make_postgres)
        if not makers:
            return
        with ThreadPoolExecutor(len(makers)) as pool:
            for future in [pool.submit(lambda make: self._begin(make()), make) for make in makers]:
                future.result()

    def _begin(self, child: Child) -> None:
        try:
            self.supervisor.start(child)
        except OSError as problem:
            raise StackError(f"Expected to start {child.name} but {problem}") from None

    def _make_kafka(self) -> Child:
        folder = self.data / "kafka"
        java = kafka.find_java()
        classpath = jars.classpath(jars.cache_folder(), self._report)
        properties = kafka.server_properties(
            folder, self.ports.kafka, self.ports.kafka_controller, self._kafka_properties
        )
        kafka.prepare(folder, java, classpath, properties)
        return kafka.child(folder, java, classpath, self.ports.kafka, self.logs / "kafka.log")

    def _make_postgres(self) -> Child:
        owner = postgres_binaries.account()
        cluster = postgres.cluster_folder(self.data, owner)
        binaries = postgres_binaries.find(owner, postgres.major_of(cluster))
        postgres.prepare(self.data, cluster, binaries, owner)
        self._cluster = cluster
        return postgres.child(cluster, binaries, owner, self.ports.postgres, self.logs / "postgres.log")

    def _await_ready(self) -> Addresses:
        addresses = self.addresses()
        servers: tuple[tuple[str, str | None, Callable[[], bool]], ...] = (
            ("kafka", self._own_kafka, lambda: kafka_answers(addresses.kafka)),
            ("postgres", self._own_postgres, lambda: postgres_answers(addresses.postgres)),
        )
        for name, own, answers in servers:
            if own is None:
                self.await_child(name, answers, DEATHS_ALLOWED[name])
            else:
                _await_own(name, own, answers)
        return addresses

    def await_child(
        self,
        name: str,
        answers: Callable[[], bool],
        deaths_allowed: int,
        deadline_s: float = READY_DEADLINE_S,
    ) -> None:
        """Wait until a supervised child answers. Raises StackError with its last lines when it keeps ending."""
        end = time.monotonic() + deadline_s
        while not answers():
            status = self.supervisor.status(name)
            ended = status.last_exit is not None and status.restarts >= deaths_allowed
            if ended or time.monotonic() > end:
                why = f"ended with {status.last_exit}" if ended else f"did not within {deadline_s:g} s"
                raise StackError(
                    f"Expected {name} to start but it {why}; the end of {status.child.log}:\n{tail(status.child.log)}"
                )
            time.sleep(PROBE_PAUSE_S)

    def _record(self) -> None:
        processes = tuple(
            state.Recorded(
                s.child.name,
                s.identity.pid if s.identity else 0,
                s.identity.started if s.identity else 0.0,
                s.child.port,
                s.restarts,
            )
            for s in self.supervisor.statuses()
        )
        self._write(processes=processes)

    def _write(
        self,
        *,
        phase: str | None = None,
        ports: dict[str, int] | None = None,
        urls: dict[str, str] | None = None,
        processes: tuple[state.Recorded, ...] | None = None,
    ) -> None:
        with self._writing:
            now = self._state
            self._state = replace(
                now,
                phase=now.phase if phase is None else phase,
                ports=now.ports if ports is None else ports,
                urls=now.urls if urls is None else urls,
                processes=now.processes if processes is None else processes,
            )
            state.write(self.data, self._state)


def _await_own(name: str, address: str, answers: Callable[[], bool]) -> None:
    end = time.monotonic() + OWN_SERVER_DEADLINE_S
    while not answers():
        if time.monotonic() > end:
            variable = f"FLOWTRAIL_{name.upper()}"
            shown = postgres.without_password(address) if name == "postgres" else address
            raise StackError(
                f"Expected {name} at {shown} ({variable}) to answer but it did not for {OWN_SERVER_DEADLINE_S:g} s"
            )
        time.sleep(PROBE_PAUSE_S)
