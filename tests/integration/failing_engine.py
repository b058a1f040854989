"""An engine that fails on purpose, run as a process of its own: `python -m tests.integration.failing_engine`.

FAIL names the step and which time it is reached: `begun:2` kills the process with -9 right after the second
`begin_transaction`. `raise:1` raises inside the agent's call, `abort:1` and `uncertain:1` make a commit fail as a broker
would; `hang:1` never returns from one. The product itself has no such hooks: its producer is wrapped here.
"""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from typing import Any

from engine.logs import configure
from engine.runtime import app, kafka, ownership, writer
from engine.settings import read_settings

STEP, _, NUMBER = os.environ.get("FAIL", "").partition(":")
_reached: Counter[str] = Counter()


def due(step: str) -> bool:
    _reached[step] += 1
    return step == STEP and _reached[step] == int(NUMBER or 1)


def kill_at(step: str) -> None:
    if due(step):
        os.kill(os.getpid(), signal.SIGKILL)


class FailingProducer:
    """Passes every call on, and fails where FAIL says."""

    def __init__(self, inner: kafka.Producer) -> None:
        self._inner = inner

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def init_transactions(self, timeout: float) -> None:
        self._inner.init_transactions(timeout)
        kill_at("opened")

    def begin_transaction(self) -> None:
        self._inner.begin_transaction()
        kill_at("begun")

    def commit_transaction(self, timeout: float) -> None:
        self._inner.flush(timeout)
        kill_at("produced")
        if due("hang"):
            time.sleep(3600)
        if due("abort"):
            self._inner.abort_transaction(timeout)
            raise kafka.KafkaException(kafka.KafkaError(kafka.KafkaError._INCONSISTENT, "aborted on purpose"))
        self._inner.commit_transaction(timeout)
        kill_at("committed")
        if due("uncertain"):
            raise kafka.KafkaException(
                kafka.KafkaError(kafka.KafkaError._TIMED_OUT, "uncertain on purpose", True)
            )


def main() -> None:
    settings = read_settings()
    configure(settings.log_level, "engine")
    make, take = kafka.transactional_producer, ownership.Ownership.take
    writer.kafka.transactional_producer = lambda *given: FailingProducer(make(*given))  # type: ignore[assignment,return-value]

    def failing_take(self: ownership.Ownership, *given: Any) -> None:
        if due("raise"):
            raise RuntimeError("raised on purpose")
        take(self, *given)

    ownership.Ownership.take = failing_take  # type: ignore[method-assign]
    app.run(settings)


if __name__ == "__main__":
    main()
