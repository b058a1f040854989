"""`@task`: a function of a worker, and its calls in flows.

Called within a flow that is traced it becomes a call of the document; called anywhere else it is the function itself, so
a flow can be tried without a server. The worker performs the same function (`functions_of`, `register`).
"""

from __future__ import annotations

import functools
import inspect
import re
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final, Generic, Literal, ParamSpec, TypeVar

from flowtrail.errors import InputError
from flowtrail.flows.tracing import Definition, Trace, current, duration
from flowtrail.flows.values import Source, Value
from flowtrail.functions import TaskContext

P = ParamSpec("P")
R = TypeVar("R")
Span = timedelta | str | Mapping[str, int]

_QUEUE: Final = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9._/-]{0,127}")


@dataclass(frozen=True, slots=True)
class Retry:
    """At most `count` retries; the pause before the first is `delay`, and grows as `backoff` says."""

    count: int
    delay: Span = timedelta(seconds=1)
    backoff: Literal["constant", "linear", "exponential"] = "constant"

    def write(self) -> Definition:
        return {
            "delay": duration(self.delay),
            "backoff": {self.backoff: {}},
            "limit": {"attempt": {"count": self.count}},
        }


class Task(Generic[P, R]):
    """A function that workers perform. Its name for them is `name`."""

    def __init__(
        self,
        function: Callable[P, R],
        name: str,
        queue: str | None,
        retry: Retry | None,
        settings: Definition,
        compensate: Task[..., Any] | None,
        shown: str | None = None,
    ) -> None:
        self.function = function
        self.name = name
        self.queue = queue
        self.retry = retry
        self.settings = settings
        self.compensate = compensate
        self.shown = shown
        functools.update_wrapper(self, function)

    def named(self, name: str) -> Task[P, R]:
        """The same task, called `name` in the document."""
        made: Task[P, R] = Task.__new__(Task)
        made.__dict__.update(self.__dict__)
        made.shown = name
        return made

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        trace = current()
        if trace is None:
            return self.function(*args, **kwargs)
        return typing.cast("R", self._record(trace, self._bound(args, kwargs)))

    # -- recording ----------------------------------------------------------------------------------------------

    def parameters(self) -> dict[str, inspect.Parameter]:
        """Those that arguments are for: not the context, which the worker gives."""
        hints = typing.get_type_hints(self.function)
        found = inspect.signature(self.function).parameters
        return {name: p for name, p in found.items() if hints.get(name) is not TaskContext}

    def _bound(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
        signature = inspect.Signature(list(self.parameters().values()))
        try:
            bound = signature.bind(*args, **kwargs)
        except TypeError as problem:
            raise InputError(f"Expected the arguments of task {self.name!r} but {problem}") from None
        given: dict[str, Any] = {}
        for name, value in bound.arguments.items():
            kind = signature.parameters[name].kind
            if kind is inspect.Parameter.VAR_POSITIONAL:
                raise InputError(f"Expected named parameters for task {self.name!r} but found *{name}")
            given |= value if kind is inspect.Parameter.VAR_KEYWORD else {name: value}
        return given

    def _record(self, trace: Trace, given: dict[str, Any]) -> Value:
        known = trace.tasks.setdefault(self.name, self)
        if known.function is not self.function:
            raise InputError(
                f"Expected one function named {self.name!r} but found two; give one another name"
            )
        call: Definition = {"call": self.name, "with": trace.template(given)}
        metadata = {key: value for key, value in self.settings.items() if key != "timeout"}
        if self.queue is not None and self.queue != trace.queue:
            metadata["queue"] = self.queue
        if "timeout" in self.settings:
            call["timeout"] = {"after": self.settings["timeout"]}

        def content(source: Source) -> Callable[[], Definition]:
            name = source.name
            if self.compensate is not None:
                metadata["compensate"] = self._undoing(trace, source, given)
            single = {**call, "metadata": metadata} if metadata else call
            if self.retry is None:
                return lambda: dict(single)
            catch = {"retry": self.retry.write()}
            return lambda: {"try": [{name: single}], "catch": catch}

        return trace.add(self.shown or self.name, content)

    def _undoing(self, trace: Trace, source: Source, given: dict[str, Any]) -> Definition:
        """The call that undoes this one: parameters of the same name get the same arguments, another one the result.

        It is performed on `{input, output}`, the data before and after this task.
        """
        undo = self.compensate
        assert undo is not None
        trace.tasks.setdefault(undo.name, undo)
        arguments: Definition = {}
        for parameter in undo.parameters():
            if parameter in given:
                text = trace.expression(given[parameter])
                if text.startswith("$") or "($" in text or " $" in text:
                    raise InputError(
                        f"Expected arguments of {undo.name} that are known when {self.name} is undone but {parameter!r} "
                        f"comes from a loop or an error; give {undo.name} the task's result instead"
                    )
                arguments[parameter] = f"${{ .input | {text} }}"
            elif self.retry is None:
                source.used = True
                arguments[parameter] = f"${{ .output.{source.name} }}"
            else:
                arguments[parameter] = "${ .output }"
        made: Definition = {"call": undo.name, "with": arguments}
        if undo.queue is not None and undo.queue != trace.queue:
            made["metadata"] = {"queue": undo.queue}
        return made


def task(
    function: Any = None,
    /,
    *,
    name: str | None = None,
    queue: str | None = None,
    retries: int | Retry | None = None,
    timeout: Span | None = None,
    heartbeat: Span | None = None,
    priority: Literal["high", "normal", "low"] | None = None,
    concurrency: int | None = None,
    compensate: Task[..., Any] | None = None,
) -> Callable[[Callable[P, R]], Task[P, R]]:
    """Makes a function a task: `@task(queue="payments", retries=3)`.

    `retries` of every error; `timeout` of one attempt; `compensate` is the task that undoes this one when the flow faults.
    """
    if function is not None:
        raise InputError("Expected @task() but found @task without parentheses")
    if queue is not None and not _QUEUE.fullmatch(queue):
        raise InputError(f"Expected a queue's name of a-z, 0-9, '.', '_' and '-' but found {queue!r}")
    settings: Definition = {}
    if priority is not None:
        settings["priority"] = priority
    if concurrency is not None:
        settings["concurrency"] = concurrency
    if heartbeat is not None:
        settings["heartbeat"] = duration(heartbeat)
    if timeout is not None:
        settings["timeout"] = duration(timeout)
    retry = Retry(retries) if isinstance(retries, int) else retries

    def make(of: Callable[P, R]) -> Task[P, R]:
        known_as = str(name or getattr(of, "__name__", ""))
        if not _NAME.fullmatch(known_as):
            raise InputError(f"Expected the name of a worker's function but found {known_as!r}")
        return Task(of, known_as, queue, retry, dict(settings), compensate)

    return make
