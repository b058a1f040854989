"""The embedded stack with its real servers: started, killed, restarted, side by side, as root and as a user."""

from __future__ import annotations

import json
import os
import pwd
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from stack import jars, state
from stack.embedded import Addresses, Stack
from stack.errors import Refused, StackError
from stack.ports import Ports, choose
from stack.probes import kafka_answers, postgres_answers
from stack.processes import Identity

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def no_servers_of_ones_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FLOWTRAIL_KAFKA", raising=False)
    monkeypatch.delenv("FLOWTRAIL_POSTGRES", raising=False)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Stack, Addresses]]:
    """One stack that tests may hurt as long as it heals."""
    stack = Stack(tmp_path_factory.mktemp("running"), ports="auto", environment={})
    with stack as addresses:
        write_row(addresses, "kept")
        write_record(addresses, b"kept")
        yield stack, addresses


def eventually(condition: Callable[[], bool], within_s: float = 60.0) -> None:
    end = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < end, "the condition was not met in time"
        time.sleep(0.05)


def write_row(addresses: Addresses, text: str) -> None:
    with psycopg.connect(addresses.postgres) as connection:
        connection.execute("CREATE TABLE IF NOT EXISTS kept (text text)")
        connection.execute("INSERT INTO kept VALUES (%s)", (text,))


def rows(addresses: Addresses) -> list[str]:
    with psycopg.connect(addresses.postgres) as connection:
        return [text for (text,) in connection.execute("SELECT text FROM kept")]


def write_record(addresses: Addresses, value: bytes) -> None:
    admin = AdminClient({"bootstrap.servers": addresses.kafka})
    admin.create_topics([NewTopic("kept", 1, 1)])["kept"].result(30)
    producer = Producer({"bootstrap.servers": addresses.kafka, "acks": "all"})
    producer.produce("kept", value)
    assert producer.flush(30) == 0


def records(addresses: Addresses) -> list[bytes | None]:
    consumer = Consumer(
        {"bootstrap.servers": addresses.kafka, "group.id": "kept", "enable.partition.eof": False}
    )
    try:
        consumer.assign([TopicPartition("kept", 0, 0)])
        message = consumer.poll(30)
        assert message is not None
        assert message.error() is None
        return [message.value()]
    finally:
        consumer.close()


def flowtrail(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "cli.main", *words],
        cwd=ROOT,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )


def identities(data: Path) -> dict[str, Identity]:
    found = state.read(data)
    assert found is not None
    return {process.name: process.identity for process in found.processes}


def test_a_killed_broker_is_started_again_with_its_data(running: tuple[Stack, Addresses]) -> None:
    stack, addresses = running
    before = stack.kafka_pid
    os.kill(before, signal.SIGKILL)
    stack.restart_kafka()
    assert stack.kafka_pid != before
    assert records(addresses) == [b"kept"]


def test_a_killed_postgres_is_started_again_with_its_data(running: tuple[Stack, Addresses]) -> None:
    stack, addresses = running
    before = stack.pids()["postgres"]
    os.kill(before, signal.SIGKILL)
    eventually(lambda: stack.pids().get("postgres", before) != before)
    eventually(lambda: postgres_answers(addresses.postgres))
    assert rows(addresses) == ["kept"]


def test_a_second_launcher_of_the_same_data_is_refused(running: tuple[Stack, Addresses]) -> None:
    stack, addresses = running
    with pytest.raises(Refused, match=rf"Expected nobody else .* but process {os.getpid()} does"):
        Stack(stack.data, ports="auto", environment={}).start()
    assert kafka_answers(addresses.kafka)


def test_a_taken_port_is_refused_with_its_holder(running: tuple[Stack, Addresses], tmp_path: Path) -> None:
    stack, _ = running
    free = choose({})
    with pytest.raises(Refused, match=rf"Expected port {stack.ports.kafka} .* in use by java \(pid \d+\)"):
        Stack(tmp_path, ports=replace(free, kafka=stack.ports.kafka), environment={}).start()
    with pytest.raises(
        Refused, match=rf"Expected port {stack.ports.postgres} .* in use by postgres \(pid \d+\)"
    ):
        Stack(tmp_path, ports=replace(free, postgres=stack.ports.postgres), environment={}).start()
    assert not (tmp_path / "kafka").exists()


def test_servers_of_ones_own_are_used_and_never_stopped(
    running: tuple[Stack, Addresses], tmp_path: Path
) -> None:
    _, addresses = running
    own = {"FLOWTRAIL_KAFKA": addresses.kafka, "FLOWTRAIL_POSTGRES": addresses.postgres}
    stack = Stack(tmp_path, environment=own)
    with stack as found:
        assert found == addresses
        assert stack.pids() == {}
    assert kafka_answers(addresses.kafka)
    assert postgres_answers(addresses.postgres)


def test_a_server_of_ones_own_that_is_away_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stack.embedded.OWN_SERVER_DEADLINE_S", 0.3)
    away = {"FLOWTRAIL_KAFKA": "127.0.0.1:1", "FLOWTRAIL_POSTGRES": "postgresql://a:secret@127.0.0.1:1/a"}
    with pytest.raises(StackError, match=r"kafka at 127.0.0.1:1 \(FLOWTRAIL_KAFKA\) to answer") as refused:
        Stack(tmp_path, environment=away).start()
    assert refused.value.exit_code == 3


def test_another_stack_beside_it_restarts_with_its_data_among_stale_files(
    running: tuple[Stack, Addresses], tmp_path: Path
) -> None:
    first, others = running
    data = tmp_path / "data"
    properties = {"log.flush.interval.messages": "1"}
    stack = Stack(data, "auto", properties, environment={})
    with stack as addresses:
        assert not set(stack.ports.as_dict().values()) & set(first.ports.as_dict().values())
        write_row(addresses, "second")
        write_record(addresses, b"second")
        pids = dict(stack.pids())
        assert kafka_answers(others.kafka)
    assert not any(Identity.of(pid) for pid in pids.values())
    assert "log.flush.interval.messages=1" in (data / "kafka" / "server.properties").read_text()

    stranger = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    try:
        leave_stale_files(data, stranger.pid)
        with Stack(data, ports="auto", environment={}) as again:
            assert rows(again) == ["second"]
            assert records(again) == [b"second"]
            assert again == addresses
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()
    assert rows(others) == ["kept"]


def leave_stale_files(data: Path, pid: int) -> None:
    """As after a crash of the machine, when a pid has gone to a stranger."""
    found = state.read(data)
    assert found is not None
    stale = tuple(state.Recorded(name, pid, 1000.0) for name in ("kafka", "postgres"))
    state.write(data, replace(found, phase="ready", launcher=Identity(pid, 1000.0), processes=stale))
    lock = data / "postgres" / "postmaster.pid"
    lock.write_text(f"{pid}\n{lock.parent}\n1\n1\n\n127.0.0.1\n\nready\n")
    owner = lock.parent.stat()
    if os.geteuid() == 0:
        os.chown(lock, owner.st_uid, owner.st_gid)
    lock.chmod(0o600)


def test_a_killed_launcher_and_what_it_leaves(tmp_path: Path) -> None:
    data = tmp_path / "data"
    up = ("up", "--data", str(data), "--servers-only", "--detach", "--ports", "auto", "--json")
    try:
        done = flowtrail(*up)
        assert done.returncode == 0, done.stderr
        summary = json.loads(done.stdout)
        assert set(summary["processes"]) == {"kafka", "postgres"}
        assert "password" not in done.stdout
        assert flowtrail("status", "--data", str(data)).returncode == 0
        doctor = flowtrail("doctor", "--data", str(data))
        assert doctor.returncode == 0, doctor.stdout
        assert "kafka answers: OK" in doctor.stdout
        assert flowtrail(*up).returncode == 2

        # Launcher and guard killed: the servers are left, recognised, and stopped by the next start
        launcher, first = summary["pid"], identities(data)
        kill_with_guard(launcher)
        assert all(server.alive() for server in first.values())
        done = flowtrail("status", "--data", str(data))
        assert done.returncode == 3
        assert "the launcher" in done.stdout
        done = flowtrail(*up)
        assert done.returncode == 0, done.stderr
        assert not any(server.alive() for server in first.values())

        # The launcher alone killed: its guard stops what it left
        second = identities(data)
        os.kill(json.loads(done.stdout)["pid"], signal.SIGKILL)
        eventually(lambda: not any(server.alive() for server in second.values()))
        done = flowtrail("status", "--data", str(data), "--json")
        assert done.returncode == 3
        assert json.loads(done.stdout)["running"] is False
    finally:
        done = flowtrail("down", "--data", str(data))
    assert done.returncode == 0, done.stderr


def kill_with_guard(launcher: int) -> None:
    import psutil

    guards = [p for p in psutil.Process(launcher).children() if "stack.leftovers" in p.cmdline()]
    assert len(guards) == 1
    guards[0].kill()
    os.kill(launcher, signal.SIGKILL)
    eventually(lambda: Identity.of(launcher) is None)


def test_up_in_the_foreground_stops_everything_on_ctrl_c(tmp_path: Path) -> None:
    data = tmp_path / "data"
    launcher = subprocess.Popen(
        [
            sys.executable, "-m", "cli.main", "up",
            "--data", str(data), "--servers-only", "--ports", "auto", "--json",
        ],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )  # fmt: skip
    assert launcher.stdout is not None
    ready = json.loads(launcher.stdout.readline())
    servers = identities(data)
    assert set(ready["processes"]) == set(servers)
    launcher.send_signal(signal.SIGINT)
    _, said = launcher.communicate(timeout=60)
    assert launcher.returncode == 0
    assert b"stopping" in said
    assert not any(server.alive() for server in servers.values())
    found = state.read(data)
    assert found is not None
    assert found.phase == "stopped"


def test_a_server_that_cannot_start_is_told_with_its_last_lines(tmp_path: Path) -> None:
    broken = {"log.retention.ms": "not a number"}
    with pytest.raises(StackError) as refused:
        Stack(tmp_path / "data", "auto", broken, environment={}).start()
    assert "not a number" in str(refused.value)
    found = state.read(tmp_path / "data")
    assert found is not None
    assert found.phase == "stopped"
    assert found.processes == ()


AS_USER = """
import os, sys
sys.path[:0] = sys.argv[2:]
from pathlib import Path
from stack.embedded import Stack
from stack.probes import kafka_answers, postgres_answers
assert os.geteuid() != 0
stack = Stack(Path(sys.argv[1]), ports="auto", environment={})
with stack as addresses:
    assert kafka_answers(addresses.kafka)
    assert postgres_answers(addresses.postgres)
    print(",".join(sorted(stack.pids())))
"""


def test_it_runs_as_a_user_who_is_not_root(tmp_path_factory: pytest.TempPathFactory) -> None:
    if os.geteuid() != 0:
        # every other test of this file has shown it
        return
    import tempfile

    nobody = pwd.getpwnam("nobody")
    with tempfile.TemporaryDirectory() as name:
        home = Path(name)
        cached = jars.jars_folder(jars.cache_folder())
        shutil.copytree(cached, home / "cache" / cached.name)
        for path in (home, *home.rglob("*")):
            os.chown(path, nobody.pw_uid, nobody.pw_gid)
        done = subprocess.run(
            [
                python_for(nobody.pw_uid), "-c", AS_USER, str(home / "data"), *reachable_paths(),
            ],
            cwd="/",
            env={
                "PATH": os.environ["PATH"],
                "HOME": name,
                "FLOWTRAIL_CACHE": str(home / "cache"),
                "PYTHONPATH": os.pathsep.join(reachable_paths()),
                "PYTHONDONTWRITEBYTECODE": "1",
            },
            user=nobody.pw_uid,
            group=nobody.pw_gid,
            extra_groups=[],
            capture_output=True,
            text=True,
            timeout=150,
            check=False,
        )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "kafka,postgres"


def reachable_paths() -> list[str]:
    import psutil

    return [str(ROOT), str(Path(psutil.__file__).parents[1])]


def python_for(user: int) -> str:
    """An interpreter outside root's home."""
    wanted = "import sys; sys.exit(sys.version_info < (3, 11))"
    for candidate in (sys.executable, "/usr/local/bin/python3", "/usr/bin/python3"):
        try:
            answer = subprocess.run([candidate, "-c", wanted], cwd="/", user=user, check=False)
        except OSError:
            continue
        if answer.returncode == 0:
            return candidate
    raise AssertionError("no Python >= 3.11 that a user other than root may run")


def test_ports_of_a_stack_are_the_chosen_ones(running: tuple[Stack, Addresses]) -> None:
    stack, addresses = running
    assert addresses.kafka == f"127.0.0.1:{stack.ports.kafka}"
    found = state.read(stack.data)
    assert found is not None
    assert Ports(**found.ports) == stack.ports
