"""What a command of run.shell, run.script or an MCP server is started by: its guard, and the limits it starts with.

Started as a program of its own, because code between fork and exec is not safe in a process with threads:
`python -I -S process_child.py PARENT CPU_S MEMORY_BYTES KIND OUTPUT_MAX COMMAND...`. KIND says which limit bounds the
memory: `as`, or `data` for programs that reserve far more addresses than they use (V8). With an OUTPUT_MAX the guard passes
on what the command writes, up to that many bytes; with 0 whoever reads it counts. Imports nothing of Flowtrail. Ends with
the command's code (128 + n after signal n), 127 when there is no such command, 126 when it cannot be started. Invariant:
the guard leads the process group, and when PARENT has ended, so that nobody else can, it kills the group.
"""

from __future__ import annotations

import os
import resource
import select
import signal
import sys
from typing import NoReturn

LOOK_S = 0.5
CHUNK = 65_536


def main() -> NoReturn:
    parent, cpu_s, memory = map(int, sys.argv[1:4])
    kind, output_max, command = sys.argv[4], int(sys.argv[5]), sys.argv[6:]
    ended, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.signal(signal.SIGCHLD, lambda _number, _frame: None)
    signal.set_wakeup_fd(wake)
    reading, writing = os.pipe() if output_max else (-1, -1)
    child = os.fork()
    if child == 0:
        if output_max:
            os.dup2(writing, 1)
        become(command, cpu_s, memory, kind)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # it is for the command; the guard ends after it
    nowhere = os.open(os.devnull, os.O_RDWR)
    for number in (0,) if output_max else (0, 1, 2):  # the pipes are the command's alone
        os.dup2(nowhere, number)
    if output_max:
        os.close(writing)
        relay(child, parent, ended, reading, output_max)
    else:
        watch(child, parent, ended)


def become(command: list[str], cpu_s: int, memory: int, kind: str) -> NoReturn:
    """The command in the place of this process, as a process has it that Python did not start."""
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGCHLD, signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(number, signal.SIG_DFL)
    bounds = [
        (resource.RLIMIT_CORE, 0, 0),
        (resource.RLIMIT_CPU, cpu_s, cpu_s + 1),
        (resource.RLIMIT_DATA if kind == "data" else resource.RLIMIT_AS, memory, memory),
    ]
    for limit, soft, hard in bounds:
        most = resource.getrlimit(limit)[1]
        if most != resource.RLIM_INFINITY:
            soft, hard = min(soft, most), min(hard, most)
        resource.setrlimit(limit, (soft, hard))
    try:
        os.execvp(command[0], command)  # noqa: S606 - which is what this program is for
    except OSError as problem:
        os.write(2, f"Expected to start {command[0]} but {problem.strerror}\n".encode("utf-8", "replace"))
        os._exit(127 if isinstance(problem, FileNotFoundError) else 126)


def watch(child: int, parent: int, ended: int) -> NoReturn:
    """Ends as the command does; the group is its reader's to kill."""
    while True:
        select.select([ended], [], [], LOOK_S)
        if (code := code_of(child)) is not None:
            os._exit(code)
        if os.getppid() != parent:
            kill_group()


def relay(child: int, parent: int, ended: int, reading: int, most: int) -> NoReturn:
    """Passes the command's output on until it has ended or written too much; then nothing of the group remains."""
    while True:
        ready, _, _ = select.select([reading, ended], [], [], LOOK_S)
        if reading in ready:  # first all it wrote, then whether it goes on
            chunk = os.read(reading, CHUNK)
            most -= len(chunk)
            if not chunk or most < 0:
                break
            try:
                while chunk:
                    chunk = chunk[os.write(1, chunk) :]
            except OSError:
                break
        elif code_of(child) is not None:
            kill_group()
        elif os.getppid() != parent:
            break
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)  # so that the group is gone with the guard, whoever inherits its orphans
    kill_group()


def code_of(child: int) -> int | None:
    """None while it runs."""
    number, status = os.waitpid(child, os.WNOHANG)
    if number == 0:
        return None
    code = os.waitstatus_to_exitcode(status)
    return 128 - code if code < 0 else code


def kill_group() -> NoReturn:
    os.killpg(os.getpgrp(), signal.SIGKILL)
    os._exit(1)


if __name__ == "__main__":
    main()
