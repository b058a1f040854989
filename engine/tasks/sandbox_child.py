"""What runs inside the expression sandbox's process. Started by sandbox.py only, never imported by the engine.

It limits itself before it reads anything, and lets SIGALRM end it when an evaluation goes on after twice the deadline:
a child whose engine was killed must not spin for ever. Requests: four parts (program, names, value, arguments),
each behind its length. Answers: a status, a length, then the result or the reason for a person. First it greets.
"""

from __future__ import annotations

import os
import resource
import signal
import struct
import sys
from typing import Any, Final

import jaq
import orjson

from engine.dsl.errors import ExpressionError
from engine.dsl.results import shortened, single

RESULT_BYTES_MAX: Final = 4 * 1024 * 1024
_HEADER: Final = struct.Struct("<BI")
_LENGTH: Final = struct.Struct("<I")
_FILTERS_MAX: Final = 256


def main() -> None:
    memory_bytes, deadline_ms = int(sys.argv[2]), int(sys.argv[3])
    resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    answers = os.dup(1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # nothing else may write between the answers
    filters: dict[tuple[bytes, bytes], Any] = {}
    _answer(answers, 0, b"")
    while True:
        program, names, value, arguments = (_part() for _ in range(4))
        signal.setitimer(signal.ITIMER_REAL, 2 * deadline_ms / 1000)
        status, text = _evaluate(filters, program, names, value, arguments)
        signal.setitimer(signal.ITIMER_REAL, 0)
        _answer(answers, status, text)


def _evaluate(
    filters: dict[tuple[bytes, bytes], Any], program: bytes, names: bytes, value: bytes, arguments: bytes
) -> tuple[int, bytes]:
    try:
        if program.startswith(b"#cel\n"):
            result = _evaluate_cel(program, names, value, arguments)
        else:
            compiled = filters.get((program, names))
            if compiled is None:
                compiled = jaq.compile(program.decode(), vars=orjson.loads(names))
                if len(filters) >= _FILTERS_MAX:
                    filters.clear()
                filters[program, names] = compiled
            result = orjson.dumps(single(compiled.run(orjson.loads(value), vars=orjson.loads(arguments))))
    except ExpressionError as problem:
        return 1, str(problem).encode()
    except (jaq.JaqError, TypeError, ValueError) as problem:
        return 1, shortened(str(problem)).encode("utf-8", "replace")
    except (
        BaseException
    ) as problem:  # MemoryError, or a Rust panic, which is no Exception: mostly memory, too
        reason = shortened(f"{type(problem).__name__} {problem}".strip())
        return (
            1,
            f"Expected a result within the sandbox's memory but the expression needs more ({reason})".encode(),
        )
    if len(result) > RESULT_BYTES_MAX:
        return 1, f"Expected a result of at most {RESULT_BYTES_MAX} bytes but it has {len(result)}".encode()
    return 0, result


def _evaluate_cel(program: bytes, names: bytes, value: bytes, arguments: bytes) -> bytes:
    from engine.dsl.cel import evaluate_marked  # a large library, which few definitions need

    given = tuple(orjson.loads(names))
    return orjson.dumps(
        evaluate_marked(program.decode(), given, orjson.loads(value), orjson.loads(arguments))
    )


def _part() -> bytes:
    return _exactly(_LENGTH.unpack(_exactly(_LENGTH.size))[0])


def _exactly(size: int) -> bytes:
    data = bytearray()
    while len(data) < size:
        chunk = os.read(0, size - len(data))
        if not chunk:
            sys.exit(0)  # the engine is gone
        data += chunk
    return bytes(data)


def _answer(descriptor: int, status: int, text: bytes) -> None:
    view = memoryview(_HEADER.pack(status, len(text)) + text)
    while view:
        view = view[os.write(descriptor, view) :]
