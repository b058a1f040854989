"""Worker: the public face. Registers functions, finds Kafka through the API, runs sessions until told to stop.

Here is no Kafka protocol (session.py) and no conversion (functions.py). At least once: a task may be performed twice
after a crash or a rebalance; the flow takes one result, but make functions safe for the world outside.
"""

from __future__ import annotations

import logging
import os
import random
import re
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from types import FrameType
from typing import Any, Final, TypeVar
from urllib.parse import quote

from flowtrail import metrics
from flowtrail.errors import ApiError, InputError, Unreachable
from flowtrail.functions import Function
from flowtrail.kafka import see_topic
from flowtrail.session import Session
from flowtrail.transport import Api
from flowtrail.wire import Wire

log: Final = logging.getLogger("flowtrail.worker")

_RETRY_FIRST_S: Final = 0.2
_RETRY_MAX_S: Final = 5.0

F = TypeVar("F", bound=Callable[..., Any])
R = TypeVar("R")


class Worker:
    """Performs the tasks of one queue.

        worker = Worker("default")

        @worker.task("charge")
        def charge(amount: float, currency: str = "EUR") -> dict[str, str]:
            return {"receipt": ...}

        worker.run()

    `url` and `api_key` default to FLOWTRAIL_API_URL and FLOWTRAIL_API_KEY. `concurrency` is how many tasks run at once.
    `instance` is a name that survives restarts and is used by one process at a time: with it a restarted worker gets
    its partitions back at once instead of after 10 s (static membership); without it every process is a new member.
    `grace` is how many seconds running tasks get when the worker is stopped. A task during which `max_deliveries`
    processes died is answered as an incident instead of being begun once more (0: is begun every time). `kafka` is where
    Kafka is for this process, when that is not what the API tells all workers.
    """

    def __init__(
        self,
        queue: str = "default",
        url: str | None = None,
        api_key: str | None = None,
        *,
        concurrency: int = 8,
        instance: str | None = None,
        grace: float = 30.0,
        metrics_port: int = 0,
        max_deliveries: int = 3,
        kafka: str | None = None,
    ) -> None:
        if not re.fullmatch(r"[a-z0-9][a-z0-9._-]{0,63}", queue):
            raise InputError(f"Expected a queue's name of a-z, 0-9, '.', '_' and '-' but found {queue!r}")
        if queue.endswith((".high", ".low")):
            raise InputError(f"Expected a queue's name without a priority at its end but found {queue!r}")
        self.queue = queue
        self.url = url
        self.api_key = api_key
        self.concurrency = concurrency
        self.instance = instance
        self.grace = grace
        self.metrics_port = metrics_port
        self.max_deliveries = max_deliveries
        self.kafka = kafka
        self.functions: dict[str, Function] = {}
        self._stop = threading.Event()

    def task(self, name: str | None = None) -> Callable[[F], F]:
        """Registers a sync or async function for tasks that call `name` (default: the function's own name)."""
        if callable(name):
            raise InputError('Expected @worker.task("name") but found @worker.task without parentheses')

        def register(function: F) -> F:
            known_as = name or getattr(function, "__name__", "")
            if not known_as or known_as in self.functions:
                raise InputError(f"Expected a name no other function has but found {known_as!r}")
            self.functions[known_as] = Function(known_as, function)
            return function

        return register

    def stop(self) -> None:
        """Ends `run` gracefully; any thread, any signal handler may call it."""
        self._stop.set()

    def run(self) -> None:
        """Performs tasks until `stop`, SIGTERM or SIGINT; a second signal ends the process at once.

        Waits for an API or a Kafka that is away. Raises InputError and ApiError (the key is refused) at once, and
        FlowtrailError when Kafka refuses an outcome for good or another process took over the instance.
        """
        self._check()
        if self.metrics_port:
            metrics.serve(self.metrics_port, os.environ.get("FLOWTRAIL_METRICS_HOST") or "127.0.0.1")
        with self._signals(), Api(self.url, self.api_key, retry_s=0) as api:
            found = self._patiently(lambda: self._find(api))
            if found is None:
                return
            wire, topics = found
            for topic in topics:
                if self._patiently(partial(see_topic, wire.kafka, topic)) is None:
                    return
            actor = self.instance or f"{socket.gethostname()}-{os.getpid()}"
            log.info(
                "worker %s performs %s of queue %s, %d at once",
                actor, ", ".join(sorted(self.functions)), self.queue, self.concurrency,
            )  # fmt: skip
            Session(
                wire,
                self.queue,
                topics,
                self.functions,
                concurrency=self.concurrency,
                instance=self.instance,
                actor=actor,
                stop=self._stop,
                max_deliveries=self.max_deliveries,
            ).serve(self.grace)

    def _check(self) -> None:
        if not isinstance(self.concurrency, int) or not 1 <= self.concurrency <= 1000:
            raise InputError(f"Expected a concurrency from 1 to 1000 but found {self.concurrency!r}")
        if not isinstance(self.max_deliveries, int) or self.max_deliveries < 0:
            raise InputError(f"Expected max_deliveries of 0 or more but found {self.max_deliveries!r}")
        if self.grace < 0:
            raise InputError(f"Expected a grace of 0 seconds or more but found {self.grace!r}")
        if not self.functions:
            raise InputError(f"Expected at least one @worker.task for queue {self.queue} but found none")
        if self.instance is not None and not re.fullmatch(r"[a-zA-Z0-9._-]{1,64}", self.instance):
            raise InputError(
                f"Expected an instance of letters, digits, '.', '_', '-' but found {self.instance!r}"
            )

    def _find(self, api: Api) -> tuple[Wire, list[str]]:
        """The contract, and the queue's topics (high, normal, low), made if they are missing."""
        bootstrap = api.json("GET", "/registry/bootstrap")
        if self.kafka:
            bootstrap = {**bootstrap, "kafka": self.kafka}
        answer = api.json("POST", f"/queues/{quote(self.queue, safe='')}", idempotent=True)
        topics = [str(topic) for topic in answer.get("topics") or [answer["topic"]]]
        return Wire(bootstrap, learn=lambda number: _schema_text(api, number)), topics

    def _patiently(self, step: Callable[[], R]) -> R | None:
        """`step`'s answer; tries again while a server is away. None when stopped meanwhile."""
        pause = _RETRY_FIRST_S
        while not self._stop.is_set():
            try:
                return step()
            except ApiError as refusal:
                if refusal.exit_code != Unreachable.exit_code:
                    raise
                away: Exception = refusal
            except Unreachable as silence:
                away = silence
            wait_s = pause * (0.5 + random.random() / 2)  # noqa: S311 - jitter
            log.warning("%s; trying again in %.1f s", away, wait_s)
            self._stop.wait(wait_s)
            pause = min(_RETRY_MAX_S, pause * 2)
        return None

    @contextmanager
    def _signals(self) -> Iterator[None]:
        """SIGTERM and SIGINT stop gracefully, once: then the former handlers are back."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        former = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}

        def restore() -> None:
            for number, handler in former.items():
                signal.signal(number, handler)

        def heed(_number: int, _frame: FrameType | None) -> None:
            self.stop()
            restore()

        for number in former:
            signal.signal(number, heed)
        try:
            yield
        finally:
            restore()


def _schema_text(api: Api, number: int) -> str:
    return str(api.json("GET", f"/registry/schemas/ids/{number}")["schema"])
