"""`@flow`: from a typed function to a document of the definition language, by calling it once with traced values.

The document is all there is: what the engine performs is what `document()` gives, and nothing of the function runs
there. The types of the parameters become the schema of the flow's input. Called directly, a flow is its function.
"""

from __future__ import annotations

import functools
import inspect
import re
import typing
from collections.abc import Callable
from typing import Any, Final, Generic, ParamSpec, TypeVar

import msgspec

from flowtrail.errors import InputError
from flowtrail.flows import values
from flowtrail.flows.tasks import Span, Task
from flowtrail.flows.tracing import INPUT, Definition, Trace, current, duration, tracing
from flowtrail.flows.values import Source, Value
from flowtrail.flows.yaml_text import to_yaml

if typing.TYPE_CHECKING:
    from flowtrail.worker import Worker

P = ParamSpec("P")
R = TypeVar("R")

_DSL: Final = "1.0.3"
_LABEL: Final = re.compile(r"[a-zA-Z0-9](?:[a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?")


class FlowFunction(Generic[P, R]):
    """A function that is a definition. Within another flow its call starts a sub-flow and waits for it."""

    def __init__(self, function: Callable[P, R], head: Definition, queue: str | None, timeout: Any) -> None:
        self.function = function
        self.head = head
        self.queue = queue
        self.timeout = timeout
        self._made: tuple[Definition, dict[str, Task[..., Any]]] | None = None
        functools.update_wrapper(self, function)

    @property
    def id(self) -> str:
        return f"{self.head['namespace']}/{self.head['name']}@{self.head['version']}"

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        trace = current()
        if trace is None:
            return self.function(*args, **kwargs)
        return typing.cast("R", self._started(trace, args, kwargs))

    def document(self) -> Definition:
        """The document, traced the first time it is asked for. Raises InputError."""
        return msgspec.json.decode(msgspec.json.encode(self._traced()[0]), type=dict[str, Any])

    def yaml(self) -> str:
        """The document as YAML."""
        return to_yaml(self.document())

    def tasks(self) -> dict[str, Task[..., Any]]:
        """The tasks it calls, by the names workers know them by."""
        return dict(self._traced()[1])

    # -- tracing ------------------------------------------------------------------------------------------------

    def _traced(self) -> tuple[Definition, dict[str, Task[..., Any]]]:
        if self._made is None:
            self._made = self._trace()
        return self._made

    def _trace(self) -> tuple[Definition, dict[str, Task[..., Any]]]:
        trace = Trace(self.queue)
        with tracing(trace):
            result = self.function(**self._arguments(Source(INPUT, trace.block)))  # type: ignore[call-arg]
            output = trace.template(result)
        if trace.unfinished:
            raise InputError(f"Expected {trace.unfinished[0]} to be completed by .catch(…) but it is not")
        document: Definition = {"document": dict(self.head)}
        if self.queue is not None:
            document["document"]["metadata"] = {"queue": self.queue}
        schema = self._schema()
        document["input"] = {
            **({"schema": {"document": schema}} if schema else {}),
            "from": {INPUT: "${ . }"},
        }
        if self.timeout is not None:
            document["timeout"] = {"after": self.timeout}
        document["do"] = trace.block.write() or [{"nothing": {"set": "${ . }"}}]
        document["output"] = {"as": output if isinstance(output, str | dict) else _as_expression(result)}
        return document, trace.tasks

    def _parameters(self) -> list[inspect.Parameter]:
        found = list(inspect.signature(self.function).parameters.values())
        for parameter in found:
            if parameter.kind not in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
                raise InputError(
                    f"Expected plain parameters of flow {self.head['name']} but found {parameter}"
                )
        return found

    def _arguments(self, source: Source) -> dict[str, Any]:
        """One parameter is the whole input, several are its properties."""
        whole = Value(f".{INPUT}", frozenset((source,)))
        parameters = self._parameters()
        if len(parameters) == 1:
            return {parameters[0].name: whole}
        return {
            one.name: whole[one.name]
            if one.default is one.empty
            else values.default(whole[one.name], one.default)
            for one in parameters
        }

    def _schema(self) -> Definition | None:
        """Of the input, from the type hints; None when they say nothing."""
        hints = typing.get_type_hints(self.function)
        parameters = self._parameters()
        if len(parameters) == 1:
            return _schema_of(hints.get(parameters[0].name, Any), self.head["name"])
        if not parameters:
            return None
        fields: list[Any] = []
        for one in parameters:
            hint = hints.get(one.name, Any)
            fields.append((one.name, hint) if one.default is one.empty else (one.name, hint | None, None))
        return _schema_of(msgspec.defstruct("Input", fields, kw_only=True), self.head["name"])

    def _started(self, trace: Trace, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Value:
        try:
            bound = inspect.signature(self.function).bind(*args, **kwargs).arguments
        except TypeError as problem:
            raise InputError(f"Expected the arguments of flow {self.head['name']} but {problem}") from None
        single = len(self._parameters()) == 1
        given = next(iter(bound.values())) if single and bound else dict(bound)
        workflow = {name: self.head[name] for name in ("namespace", "name", "version")}
        content: Definition = {"run": {"workflow": {**workflow, "input": trace.template(given)}}}
        return trace.add(self.head["name"], lambda _: lambda: dict(content))


def _as_expression(result: Any) -> str:
    return f"${{ {values.expression(result)[0]} }}"


def _schema_of(hint: Any, name: str) -> Definition | None:
    if hint is Any:
        return None
    made = getattr(hint, "model_json_schema", None)
    try:
        schema: Definition = msgspec.json.schema(hint) if made is None else made()
    except TypeError as problem:
        raise InputError(
            f"Expected types that JSON can hold for the input of flow {name} but {problem}"
        ) from None
    return schema or None


def flow(
    function: Any = None,
    /,
    *,
    namespace: str = "default",
    name: str | None = None,
    version: str = "1.0.0",
    title: str | None = None,
    queue: str | None = None,
    timeout: Span | None = None,
) -> Callable[[Callable[P, R]], FlowFunction[P, R]]:
    """Makes a function a definition: `@flow(namespace="shop", version="1.0.0")`. `queue` is that of tasks which name none."""
    if function is not None:
        raise InputError("Expected @flow(…) but found @flow without parentheses")

    def make(of: Callable[P, R]) -> FlowFunction[P, R]:
        if inspect.iscoroutinefunction(of) or inspect.isgeneratorfunction(of):
            raise InputError(
                f"Expected a plain function as a flow but {of.__name__} is asynchronous or a generator"
            )
        called = name or getattr(of, "__name__", "").strip("_").replace("_", "-")
        for part, label in (("namespace", namespace), ("name", called)):
            if not _LABEL.fullmatch(label):
                raise InputError(f"Expected a {part} of letters, digits and '-' but found {label!r}")
        head: Definition = {"dsl": _DSL, "namespace": namespace, "name": called, "version": version}
        if title is not None:
            head["title"] = title
        return FlowFunction(of, head, queue, None if timeout is None else duration(timeout))

    return make


def functions_of(*flows: FlowFunction[..., Any]) -> dict[str, dict[str, Callable[..., Any]]]:
    """The functions that the tasks of these flows call: by queue, by name. The queue is `default` where none is named."""
    found: dict[str, dict[str, Callable[..., Any]]] = {}
    for one in flows:
        for name, called in one.tasks().items():
            queue = called.queue or one.queue or "default"
            known = found.setdefault(queue, {}).setdefault(name, called.function)
            if known is not called.function:
                raise InputError(f"Expected one function {name!r} of queue {queue!r} but found two")
    return found


def register(worker: Worker, *flows: FlowFunction[..., Any]) -> None:
    """Registers with `worker` the functions that tasks of its queue call in these flows."""
    found = functions_of(*flows).get(worker.queue, {})
    if not found:
        raise InputError(f"Expected a task of queue {worker.queue!r} in these flows but found none")
    for name, function in found.items():
        worker.task(name)(function)
