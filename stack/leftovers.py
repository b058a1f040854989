"""What a launcher that was killed left running, found and stopped; and the guard that does so at once.

`python -m stack.leftovers DATA` is the guard: it waits on a pipe from the launcher, which the kernel closes
however the launcher ends, and then stops what it left. When the guard was killed too, the next start finds the
leftovers: recorded ones by pid and start time, unrecorded ones by what only this data directory's servers have.
"""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
from pathlib import Path

from stack import kafka, postgres, state
from stack.errors import Refused
from stack.processes import Identity, stop, wait_ended, with_argument

DEADLINE_S = 30.0


def stop_leftovers(data: Path) -> list[str]:
    """Stop every process of `data`, the last started first; gives their names. The caller holds the lock."""
    stopped: list[str] = []
    recorded = state.read(data)
    for process in reversed(recorded.processes if recorded else ()):
        if process.identity.alive():
            number = signal.SIGINT if process.name == "postgres" else signal.SIGTERM
            stop(process.identity, number, DEADLINE_S)
            stopped.append(process.name)
    place = data / "postgres"
    if place.exists():
        cluster = place.resolve()
        server = postgres.running(cluster)
        if server is not None:
            stop(server, signal.SIGINT, DEADLINE_S)
            stopped.append("postgres")
        postgres.remove_socket_folder(cluster)
    for broker in list(with_argument(kafka.mark(data / "kafka"))):
        stop(broker, signal.SIGTERM, DEADLINE_S)
        stopped.append("kafka")
    return stopped


def take_down(data: Path, deadline_s: float = 90.0) -> bool:
    """Stop the stack of `data`, launcher first. False when nothing ran."""
    found = state.read(data)
    launcher = found.launcher if found is not None and found.launcher.alive() else None
    if launcher is not None:
        launcher.send(signal.SIGTERM)
        if not wait_ended(launcher, deadline_s):
            raise Refused(
                f"Expected the launcher (pid {launcher.pid}) to end within {deadline_s:g} s but it runs still; "
                f"kill -9 {launcher.pid}, then repeat this command"
            )
    if not data.is_dir():
        return False
    lock = state.Lock(data)
    lock.take(patience_s=DEADLINE_S * 2)
    try:
        left = stop_leftovers(data)
        _mark_stopped(data)
    finally:
        lock.release()
    return launcher is not None or bool(left)


def start_guard(data: Path) -> subprocess.Popen[bytes]:
    """Closing its standard input, in whatever way, sets it off."""
    return subprocess.Popen(
        [sys.executable, "-m", "stack.leftovers", str(data)],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd=Path(__file__).parents[1],
        start_new_session=True,
    )


def _mark_stopped(data: Path) -> None:
    found = state.read(data)
    if found is not None:
        state.write(data, dataclasses.replace(found, phase="stopped", processes=()))


def guard(data: Path, launcher: Identity | None) -> None:
    sys.stdin.buffer.read()
    found = state.read(data)
    if found is None or found.phase == "stopped":
        return
    lock = state.Lock(data)
    try:
        lock.take(patience_s=1.0)
    except Refused:
        return  # the next launcher is there already, and clears up itself
    try:
        if launcher is None or not launcher.alive():
            stop_leftovers(data)
            _mark_stopped(data)
    finally:
        lock.release()


if __name__ == "__main__":
    guard(Path(sys.argv[1]), Identity.of(os.getppid()))
