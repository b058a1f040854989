"""What the stack needs from a machine, checked one by one: each check is a fact and, when it fails, what to do next.

Nothing is started, fetched or changed here; the network beyond the loopback interface is not touched.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from stack import jars, kafka, postgres, postgres_binaries, state
from stack.errors import StackError
from stack.ports import HOST, Ports, holder, is_free
from stack.probes import http_answers, kafka_answers, postgres_answers

PYTHON_MIN = (3, 11)
DISK_FREE_GIB_MIN = 2
PURPOSES = {
    "kafka": "Kafka",
    "postgres": "Postgres",
    "api": "the API",
    "metrics_engine": "the engine's metrics",
    "metrics_projections": "the projections' metrics",
    "metrics_executor": "the executor's metrics",
}


@dataclass(frozen=True)
class Check:
    """`next_command` is for whoever sees it fail."""

    name: str
    ok: bool
    detail: str
    next_command: str = ""


def checks(data: Path, environment: Mapping[str, str] = os.environ) -> Iterator[Check]:
    """Every check that applies: of the machine, then of what runs in `data`, or of the ports it would need."""
    data = data.absolute()
    yield _python()
    own_kafka, own_postgres = environment.get("FLOWTRAIL_KAFKA"), environment.get("FLOWTRAIL_POSTGRES")
    if not own_kafka:
        yield _found("java", lambda: f"{kafka.find_java()}", "apt-get install openjdk-17-jre-headless")
        yield _jars()
    if not own_postgres:
        yield _found("postgres binaries", lambda: _postgres_binaries(data), "apt-get install postgresql")
    yield _disk(data)
    found = state.read(data)
    if found is not None and found.launcher.alive():
        yield from _running(data, found)
    else:
        skipped = {"kafka" if own_kafka else "", "postgres" if own_postgres else ""}
        yield from (
            _port(name, port) for name, port in Ports().as_dict().items() if name not in skipped and port
        )
    if own_kafka:
        yield _answers("kafka (FLOWTRAIL_KAFKA)", own_kafka, kafka_answers(own_kafka), "start it")
    if own_postgres:
        yield _own_postgres(own_postgres)


def _own_postgres(url: str) -> Check:
    name = "postgres (FLOWTRAIL_POSTGRES)"
    try:
        shown = postgres.without_password(postgres.require_url(url))
    except StackError as problem:
        return Check(f"{name} answers", False, str(problem), "export FLOWTRAIL_POSTGRES=postgresql://...")
    return _answers(name, shown, postgres_answers(url), "start it")


def _python() -> Check:
    wanted = ".".join(map(str, PYTHON_MIN))
    return Check(
        "python", sys.version_info >= PYTHON_MIN, sys.version.split()[0], f"install Python {wanted} or newer"
    )


def _found(name: str, find: Callable[[], str], next_command: str) -> Check:
    try:
        return Check(name, True, find())
    except StackError as problem:
        return Check(name, False, str(problem), next_command)


def _postgres_binaries(data: Path) -> str:
    owner = postgres_binaries.account()
    place = data / "postgres"
    binaries = postgres_binaries.find(owner, postgres.major_of(place) if place.exists() else None)
    return f"{binaries.major} in {binaries.folder}"


def _jars() -> Check:
    cache = jars.cache_folder()
    folder = jars.jars_folder(cache)
    if not folder.exists():
        return Check("kafka jars", True, f"not in {cache} yet: the first `flowtrail up` fetches them (45 MB)")
    bad = jars.damaged(cache)
    if bad:
        detail = (
            f"Expected the bytes of the release in {folder} but {', '.join(bad[:3])} differ or are absent"
        )
        return Check("kafka jars", False, detail, f"rm -r {folder}, then flowtrail up")
    return Check("kafka jars", True, f"{len(jars.locked_jars())} in {folder}")


def _disk(data: Path) -> Check:
    place = data
    while not place.exists():
        place = place.parent
    free_gib = shutil.disk_usage(place).free / 2**30
    detail = f"{free_gib:.1f} GiB free at {place}"
    if not os.access(place, os.W_OK):
        return Check("data directory", False, f"Expected to be allowed to write to {place}", "use --data DIR")
    if free_gib < DISK_FREE_GIB_MIN:
        expected = f"Expected at least {DISK_FREE_GIB_MIN} GiB but {detail}"
        return Check("disk space", False, expected, "free some space, or use --data DIR")
    return Check("disk space", True, detail)


def _port(name: str, port: int) -> Check:
    purpose = PURPOSES[name]
    if is_free(port):
        return Check(f"port {port}", True, f"free for {purpose}")
    detail = f"Expected port {port} to be free for {purpose} but it is in use by {holder(port)}"
    return Check(f"port {port}", False, detail, "flowtrail up --ports auto")


def _running(data: Path, found: state.State) -> Iterator[Check]:
    logs = data / "logs"
    for process in found.processes:
        detail = f"pid {process.pid}, restarted {process.restarts} times"
        log = f"less {logs / process.name}.log"
        yield Check(f"process {process.name}", process.identity.alive(), detail, log)
    names = {process.name for process in found.processes}
    if "kafka" in names:
        server = f"{HOST}:{found.ports['kafka']}"
        yield _answers("kafka", server, kafka_answers(server), f"less {logs / 'kafka.log'}")
    if "postgres" in names:
        url = postgres.url(found.ports["postgres"])
        yield _answers("postgres", url, postgres_answers(url), f"less {logs / 'postgres.log'}")
    if "api" in names:
        url = f"{found.urls['api']}/readyz"
        yield _answers("api", url, http_answers(url), f"less {logs / 'api.log'}")


def _answers(name: str, address: str, ok: bool, next_command: str) -> Check:
    return Check(
        f"{name} answers",
        ok,
        address if ok else f"Expected an answer from {address} but none came",
        next_command,
    )
