"""The state file, the lock and the identity of processes: nothing stale can mislead."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from stack import state
from stack.errors import Refused
from stack.processes import Identity, stop, tail
from stack.state import Lock, Recorded, State

HOLD = (
    "import sys, time; from pathlib import Path; from stack.state import Lock\n"
    "lock = Lock(Path(sys.argv[1])); lock.take(); print('held', flush=True); time.sleep(600)"
)


def test_what_was_written_is_read(tmp_path: Path) -> None:
    written = State(
        Identity(12, 3.5),
        "ready",
        {"kafka": 9092},
        {"api": "http://127.0.0.1:8080"},
        (Recorded("kafka", 13, 4.5, 9092, 2),),
    )
    state.write(tmp_path, written)
    assert state.read(tmp_path) == written
    assert stat.S_IMODE((tmp_path / "stack.json").stat().st_mode) == 0o600
    assert [p.name for p in tmp_path.iterdir()] == ["stack.json"]


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "7", "{}", '{"launcher": {"pid": 1}}', json.dumps({"launcher": None})]
)
def test_a_file_that_is_not_ours_reads_as_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "stack.json").write_text(text)
    assert state.read(tmp_path) is None


def test_no_file_reads_as_none(tmp_path: Path) -> None:
    assert state.read(tmp_path) is None


def test_a_second_launcher_is_refused_and_told_who_the_first_is(tmp_path: Path) -> None:
    first = Lock(tmp_path)
    first.take()
    with pytest.raises(Refused, match=rf"Expected nobody else .* but process {os.getpid()} does"):
        Lock(tmp_path).take()
    first.release()
    Lock(tmp_path).take()


def test_the_lock_of_a_killed_launcher_is_free(tmp_path: Path) -> None:
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)],
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[2],
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == b"held\n"
    with pytest.raises(Refused):
        Lock(tmp_path).take()
    holder.kill()
    holder.wait()
    holder.stdout.close()
    lock = Lock(tmp_path)
    lock.take()
    lock.release()


def test_a_pid_that_somebody_else_has_by_now_is_not_signalled() -> None:
    stranger = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    try:
        now = Identity.of(stranger.pid)
        assert now is not None
        assert now.alive()
        recorded = Identity(stranger.pid, now.started - 3600)
        assert not recorded.alive()
        assert stop(recorded, signal.SIGKILL, 1.0)
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


def test_an_ended_process_is_not_alive() -> None:
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    identity = Identity.of(process.pid)
    assert identity is not None
    process.kill()
    process.wait()
    assert not identity.alive()
    assert Identity.of(process.pid) is None


def test_the_end_of_a_log_is_shown(tmp_path: Path) -> None:
    log = tmp_path / "log"
    assert "no log" in tail(log)
    log.write_text("")
    assert "empty" in tail(log)
    log.write_text("java.lang.Error: why\n\tat a.B.c(B.java:1)\n\tat a.B.d(B.java:2)\n")
    assert tail(log) == "  | java.lang.Error: why"
    log.write_text("\n".join(f"line {i}" for i in range(100)))
    assert tail(log, 2) == "  | line 98\n  | line 99"
