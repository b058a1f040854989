"""The executor process: workers that perform the calls of the specification and, where enabled, its processes.

A process serves the queue `builtin` and, when a setting enables one of run's kinds, the queue `process`, each with a
Worker of its own that is like any other: at least once, drained when stopped. Invariant: `run` returns only when every
worker has ended; when one fails, the others are stopped and its error is raised.
"""

from __future__ import annotations

import contextlib
import inspect
import logging
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any, Final

from flowtrail import Worker

from engine.settings import Settings
from engine.tasks import functions, problems
from engine.tasks.configured import configure
from engine.tasks.networks import rules

POLL_S: Final = 0.5
_SWITCHES: Final = {"run.shell": "run_shell", "run.script": "run_script", "run.container": "run_container"}


def workers(settings: Settings, api_key: str, *, grace: float = 30.0) -> list[Worker]:
    """One worker for each queue, its functions registered."""
    found = []
    for queue in functions.queues(settings):
        worker = Worker(
            queue,
            settings.api_url,
            api_key,
            concurrency=settings.executor_concurrency,
            grace=grace,
            kafka=settings.kafka if "kafka" in settings.model_fields_set else None,
            metrics_port=settings.metrics_port if queue == functions.BUILTIN else 0,
        )
        for name, function in functions.of(queue):
            switch = _SWITCHES.get(name)
            if switch is not None and not getattr(settings, switch):
                wish = f"enabled by FLOWTRAIL_{switch.upper()}"
                worker.task(name)(refusing(name, wish))
            elif function is None:
                worker.task(name)(refusing(name, "part of this installation"))
            else:
                worker.task(name)(accepting(function))
        found.append(worker)
    return found


def accepting(function: functions.Function) -> Callable[..., Any]:
    """`function` as a worker calls it: with the call's arguments as a whole.

    A worker takes a key of that name for the parameter, hence a name that no call's arguments have.
    """
    if inspect.iscoroutinefunction(function):

        async def perform_async(call_arguments: dict[str, Any]) -> Any:
            return await function(call_arguments)

        return perform_async

    def perform(call_arguments: dict[str, Any]) -> Any:
        return function(call_arguments)

    return perform


def refusing(name: str, wish: str) -> Callable[..., Any]:
    """A function that is not to be had here: the flow learns it at once instead of waiting for ever."""

    def refuse() -> None:
        raise problems.configuration(f"Expected {name} to be {wish} but it is not on this executor")

    return refuse


def run(settings: Settings, api_key: str, *, grace: float = 30.0) -> None:
    """Performs tasks until SIGTERM or SIGINT; a second one ends the process at once. Raises what a worker raises."""
    rules(settings.http_rewrite)
    configure(settings)
    logging.getLogger("mcp").setLevel(
        logging.CRITICAL
    )  # it logs what servers send, which may be confidential
    crew = workers(settings, api_key, grace=grace)
    failures: list[BaseException] = []
    threads = [
        threading.Thread(target=_run_one, args=(worker, crew, failures), name=f"queue-{worker.queue}")
        for worker in crew
    ]
    with _stopping(crew):
        for thread in threads:
            thread.start()
        for thread in threads:
            while thread.is_alive():
                thread.join(POLL_S)
    if failures:
        raise failures[0]


def _run_one(worker: Worker, crew: list[Worker], failures: list[BaseException]) -> None:
    try:
        worker.run()
    except BaseException as failure:
        failures.append(failure)
        for other in crew:
            other.stop()


@contextlib.contextmanager
def _stopping(crew: list[Worker]) -> Iterator[None]:
    """SIGTERM and SIGINT stop every worker; then the former handlers are back."""
    former = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}

    def restore() -> None:
        for number, handler in former.items():
            signal.signal(number, handler)

    def heed(_number: int, _frame: FrameType | None) -> None:
        for worker in crew:
            worker.stop()
        restore()

    for number in former:
        signal.signal(number, heed)
    try:
        yield
    finally:
        restore()
