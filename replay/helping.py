"""Another process that folds beside this one: Python on two cores, in Postgres two connections.

It is forked before there is any client or thread, which costs nothing; a process that has threads already (clients of Kafka
do not survive a fork) spawns it, when there is so much to fold that its beginning pays. The helper ends when its pipe does:
a rebuild that is killed leaves none behind.
"""

from __future__ import annotations

import signal
import threading
from collections import deque
from collections.abc import Mapping
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Final

import msgspec
import psycopg

from engine.errors import AwayError, FlowtrailError
from replay.hands import Group, Hand, Passed, Target, fold_groups, share
from replay.log import Span

_TASKS: Final = Path("/proc/self/task")
_FORKED_MIN: Final = 10_000
_SPAWNED_MIN: Final = 100_000
"""So many records are folded before another process has begun."""
_GROUPS: Final = 8


class _Round(msgspec.Struct, frozen=True):
    """What the helper folds next; it asks for groups until there are none."""

    target: Target
    rate: float


class Helper:
    """To be made before anything else. Processes: none until it is needed, where it cannot be forked."""

    def __init__(self) -> None:
        self._forked = _is_alone()
        self._connection: Connection[Any, Any] | None = self._begin("fork") if self._forked else None

    def close(self) -> None:
        if self._connection is not None:
            self._process.terminate()
            self._process.join()
            self._connection.close()

    def _begin(self, method: str) -> Connection[Any, Any]:
        context = get_context(method)
        here, there = context.Pipe()
        # a forked process has a copy of this end, too, and must close it to see this process end
        ours = here if method == "fork" else None
        self._process = context.Process(target=_work, args=(there, ours), daemon=True)  # type: ignore[attr-defined]
        self._process.start()
        there.close()
        return here

    def fold(self, hand: Hand, target: Target, spans: Mapping[int, Span], rate: float, passed: Passed) -> int:
        """Folds `spans`, together with `hand`; how many flows the helper healed. Several threads call `passed`."""
        spans = {p: span for p, span in spans.items() if span[0] < span[1]}
        records = sum(end - start for start, end in spans.values())
        if len(spans) < 2 or records < (_FORKED_MIN if self._forked else _SPAWNED_MIN):
            fold_groups(hand, deque([dict(spans)]), rate, passed)
            return 0
        if self._connection is None:
            self._connection = self._begin("spawn")
        groups = share(spans, _GROUPS)
        serving = _Serving(self._connection, groups, passed)
        self._connection.send(_Round(target, rate / 2))
        serving.start()
        try:
            fold_groups(hand, groups, rate / 2, passed)
        except BaseException:
            self._process.terminate()
            raise
        return serving.result()


class _Serving(threading.Thread):
    """Hands groups to the helper, until there are none and it is done."""

    def __init__(self, connection: Connection[Any, Any], groups: deque[Group], passed: Passed) -> None:
        super().__init__(name="rebuild-helper", daemon=True)
        self._connection, self._groups, self._passed = connection, groups, passed
        self._healed: int | None = None
        self._problem: FlowtrailError | None = None

    def result(self) -> int:
        self.join()
        if self._problem is not None:
            raise self._problem
        if self._healed is None:
            raise FlowtrailError(
                "Expected both processes to fold their partitions but one ended before (killed, or out of memory)"
            )
        return self._healed

    def run(self) -> None:
        try:
            while self._healed is None and self._problem is None:
                match self._connection.recv():
                    case ("next",):
                        self._connection.send(self._next())
                    case ("passed", records):
                        self._passed(records)
                    case ("done", healed):
                        self._healed = healed
                    case problem:
                        self._problem = problem
        except (EOFError, OSError):
            return

    def _next(self) -> Group | None:
        try:
            return self._groups.popleft()
        except IndexError:
            return None


def _is_alone() -> bool:
    """Whether this process has one thread, those of libraries included."""
    try:
        return len(list(_TASKS.iterdir())) == 1
    except OSError:
        return False


# -- the other process ----------------------------------------------------------------------------------------------


def _work(connection: Connection[Any, Any], inherited: Connection[Any, Any] | None) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which ends this process
    if inherited is not None:
        inherited.close()
    try:
        while True:
            _help(connection, connection.recv())
    except (BrokenPipeError, EOFError, ConnectionResetError):
        return
    except FlowtrailError as problem:
        connection.send(problem)
    except psycopg.OperationalError as problem:
        connection.send(AwayError(f"Expected Postgres to answer but {str(problem).strip()}"))
    except Exception as defect:
        connection.send(FlowtrailError(f"{type(defect).__name__}: {defect} (while rebuilding)"))


def _help(connection: Connection[Any, Any], asked: _Round) -> None:
    hand = Hand(asked.target)
    try:
        while True:
            connection.send(("next",))
            if (group := connection.recv()) is None:
                break
            hand.fold(group, asked.rate, lambda records: connection.send(("passed", records)))
        hand.finish()
    finally:
        hand.close()
    connection.send(("done", hand.healed))
