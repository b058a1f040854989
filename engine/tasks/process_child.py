"""What a process of run.shell or run.script is started by: limits itself, then becomes the command.

Started as a program of its own (`python -I -S process_child.py CPU_S MEMORY_BYTES KIND COMMAND...`), because code between
fork and exec is not safe in a process with threads. KIND says which limit bounds the memory: `as`, or `data` for programs
that reserve far more addresses than they use (V8). Imports nothing of Flowtrail. Ends with 127 when there is no such
command, with 126 when it cannot be started.
"""

from __future__ import annotations

import os
import resource
import sys


def main() -> None:
    cpu_s, memory_bytes, kind, command = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4:]
    bounds = [
        (resource.RLIMIT_CORE, 0, 0),
        (resource.RLIMIT_CPU, cpu_s, cpu_s + 1),
        (resource.RLIMIT_DATA if kind == "data" else resource.RLIMIT_AS, memory_bytes, memory_bytes),
    ]
    for limit, soft, hard in bounds:
        most = resource.getrlimit(limit)[1]
        if most != resource.RLIM_INFINITY:
            soft, hard = min(soft, most), min(hard, most)
        resource.setrlimit(limit, (soft, hard))
    try:
        os.execvp(command[0], command)  # noqa: S606 - which is what this program is for
    except OSError as problem:
        os.write(2, f"Expected to start {command[0]} but {problem.strerror}\n".encode())
        os._exit(127 if isinstance(problem, FileNotFoundError) else 126)


if __name__ == "__main__":
    main()
