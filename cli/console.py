"""What every command's output has in common: results on standard output, errors on standard error, exit codes.

Nothing heavy is imported here: every command imports this. Exit codes: 0 done, 1 found wrong, 2 bad input,
3 server away, 70 a defect, 130 interrupted.
"""

from __future__ import annotations

import json
import os
import sys
import time
import traceback
from collections.abc import Callable, Iterable
from typing import Final

DEFECT: Final = 70
INTERRUPTED: Final = 130
TRACEBACK: Final = "FLOWTRAIL_TRACEBACK"


def print_result(value: object, lines: Iterable[str], *, as_json: bool) -> None:
    """One JSON object on one line, or lines for people."""
    if as_json:
        print(json.dumps(value, default=str), flush=True)
        return
    for line in lines:
        print(line, flush=True)


def note(text: str) -> None:
    """Progress, on standard error, so that standard output stays the result."""
    print(text, file=sys.stderr, flush=True)


def progress_line(done: str) -> Callable[[int, int], None] | None:
    """On a terminal, a line on standard error that is written over; `done` is what happened to the records."""
    began = last = time.monotonic()

    def tell(read: int, of: int) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last < 0.2:
            return
        last = now
        rate = read / (now - began)
        left = (of - read) / rate if rate else 0.0
        text = f"{done} {read:,} of {of:,} records, {rate:,.0f}/s, {left:.0f} s left"
        print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)

    return tell if sys.stderr.isatty() else None


def print_error(text: str) -> None:
    print(f"error: {text}", file=sys.stderr, flush=True)


def exit_code_of(problem: BaseException) -> int:
    """Print what is to be said of a problem; the exit code its class carries, DEFECT when it is none of ours.

    Ours are known by their attribute `exit_code`: importing each room's errors would import the rooms.
    """
    code = getattr(problem, "exit_code", None)
    if os.environ.get(TRACEBACK):
        traceback.print_exception(problem)
    if isinstance(code, int):
        print_error(str(problem) or type(problem).__name__)
        return code
    detail = " ".join(str(problem).split())
    print_error(f"{type(problem).__name__}: {detail} (a defect; set {TRACEBACK}=1 for the traceback)")
    return DEFECT
