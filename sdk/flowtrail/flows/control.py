"""What a flow function says beyond calls of tasks: when, parallel, each, attempt, wait, emit, listen, raise_error, let, call.

Each records a step while a flow is traced. Outside of one, each does at once what the step would do, as far as that needs
nobody else: a flow function is an ordinary function, too (waits take no time, events go nowhere).
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from flowtrail.errors import RUNTIME, InputError, TaskError
from flowtrail.flows.tasks import Retry, Span, Task
from flowtrail.flows.tracing import Block, Definition, Trace, current, duration, needed
from flowtrail.flows.values import Source, Value

Branch = Callable[[], Any]


def when(condition: Any, then: Branch, otherwise: Branch | None = None) -> Any:
    """The result of `then` where the condition is true, else that of `otherwise` (None without one)."""
    trace = current()
    if trace is None:
        chosen = then if condition else otherwise
        return None if chosen is None else chosen()
    wanted = trace.expression(condition)

    def content(source: Source) -> Callable[[], Definition]:
        taken = _block(trace, source.name, then)
        other = None if otherwise is None else _block(trace, source.name, otherwise)

        def write() -> Definition:
            cases: list[Definition] = [{"yes": {"when": f"${{ {wanted} }}", "then": "then"}}]
            cases.append({"no": {"then": "otherwise"}})
            empty: Definition = {"set": f"${{ . + {{{source.name}: null}} }}"}
            steps = [
                {"choose": {"switch": cases}},
                {"then": {**taken(), "then": "exit"}},
                {"otherwise": empty if other is None else other()},
            ]
            return {"do": steps}

        return write

    return trace.add("when", content, named=True)


def _block(trace: Trace, name: str, function: Callable[..., Any], *given: Any) -> Callable[[], Definition]:
    """The steps of `function` as one task, which leaves its result among the data under `name`."""
    block, result = _traced(trace, function, *given)
    last = f"${{ . + {{{name}: {result}}} }}"

    def write() -> Definition:
        return {"do": block.write(), "output": {"as": last}} if block.steps else {"set": last}

    return write


def _traced(trace: Trace, function: Callable[..., Any], *given: Any) -> tuple[Block, str]:
    """The steps of `function` and its result, an expression on the data after them."""
    with trace.inside() as block:
        result = function(*given)
        return block, trace.operand(result)


def parallel(*branches: Branch, compete: bool = False) -> Any:
    """The results of all branches, performed at the same time; with `compete` that of the first to complete."""
    if not branches or not all(callable(one) and not isinstance(one, Value) for one in branches):
        raise InputError("Expected functions to perform in parallel, such as lambda: charge(order)")
    trace = current()
    if trace is None:
        return branches[0]() if compete else tuple(branch() for branch in branches)

    def content(_: Source) -> Callable[[], Definition]:
        made = [_traced(trace, branch) for branch in branches]
        names = [trace.name(_called(branch)) for branch in branches]

        def write() -> Definition:
            listed = [{name: _branch(*one)} for name, one in zip(names, made, strict=True)]
            return {"fork": {"branches": listed, **({"compete": True} if compete else {})}}

        return write

    found = trace.add("parallel", content)
    return found if compete else tuple(found[index] for index in range(len(branches)))


def _called(branch: Branch) -> str:
    name = str(getattr(branch, "__name__", ""))
    return name if name.isidentifier() else "branch"


def _branch(block: Block, result: str) -> Definition:
    shown = f"${{ {result} }}"
    return {"do": block.write(), "output": {"as": shown}} if block.steps else {"set": shown}


def each(items: Any, function: Callable[..., Any]) -> Any:
    """The list of what `function` gives for each item, one after the other. It may take the index as a second argument."""
    trace = current()
    parameters = _needed_by(function)
    two = len(parameters) > 1
    if trace is None:
        return [function(item, index) if two else function(item) for index, item in enumerate(items)]
    collection = trace.expression(items)
    item = trace.variable(parameters[0] if parameters else "item")
    index = trace.variable(parameters[1] if two else "index")

    def content(source: Source) -> Callable[[], Definition]:
        with trace.inside() as block:
            given = [Value(f"${one}", frozenset((Source(one, block),))) for one in (item, index)]
            result = function(*given[: 2 if two else 1])
            text = trace.expression(result)
        collected = trace.name("collect")
        name, loop = source.name, {"each": item, "at": index, "in": f"${{ {collection} }}"}

        def write() -> Definition:
            steps = block.write()
            if steps and not source.used:
                return {"for": loop, "do": steps}
            steps.append({collected: {"set": f"${{ . + {{{name}: (.{name} + [{text}])}} }}"}})
            return {"input": {"from": f"${{ . + {{{name}: []}} }}"}, "for": loop, "do": steps}

        return write

    return trace.add("each", content, named=True)


def _needed_by(function: Callable[..., Any]) -> list[str]:
    """The parameters that a function must be given."""
    if isinstance(function, Task):
        parameters = function.parameters()
    else:
        parameters = dict(inspect.signature(function).parameters)
    open_ended = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return [n for n, p in parameters.items() if p.default is p.empty and p.kind not in open_ended]


class Attempt:
    """What `attempt` begins; `catch` says which errors are caught and completes it."""

    def __init__(self, function: Branch) -> None:
        self._function = function
        self._trace = current()
        if self._trace is not None:
            self._trace.unfinished.append("attempt(…)")

    def catch(
        self,
        handler: Callable[..., Any] | None = None,
        *,
        type: str | None = None,  # noqa: A002 - the word of the definition language
        status: int | None = None,
        when: Callable[[Any], Any] | None = None,
        retry: Retry | int | None = None,
    ) -> Any:
        """The result of the function or, after an error that fits (and after the retries), that of `handler`.

        The handler may take the error: it has `type`, `status`, `title` and `detail`. Without a handler the result is None,
        or, with `retry`, the error goes on once the retries are used up.
        """
        trace = self._trace
        wanted = {k: v for k, v in (("type", type), ("status", status)) if v is not None}
        if trace is None:
            return _attempted(self._function, handler, wanted, when, retry is not None)
        trace.unfinished.remove("attempt(…)")
        policy = Retry(retry) if isinstance(retry, int) else retry

        def content(source: Source) -> Callable[[], Definition]:
            block, result = _traced(trace, self._function)
            catch: Definition = {"errors": {"with": wanted}} if wanted else {}
            variable = trace.variable("error")
            catch["as"] = variable
            handled: tuple[Block, str] | None = None
            with trace.inside() as around:
                error = Value(f"${variable}", frozenset((Source(variable, around),)))
                if when is not None:
                    catch["when"] = f"${{ {trace.expression(when(error))} }}"
                if handler is not None or policy is None:
                    handled = _traced(trace, _handling(handler, error))
            if policy is not None:
                catch["retry"] = policy.write()
            last, rest, name = trace.name("succeed"), trace.name("handle"), source.name

            def write() -> Definition:
                steps = [*block.write(), {last: {"set": f"${{ . + {{{name}: {result}}} }}"}}]
                if handled is None:
                    return {"try": steps, "catch": dict(catch)}
                done = {rest: {"set": f"${{ . + {{{name}: {handled[1]}}} }}"}}
                return {"try": steps, "catch": {**catch, "do": [*handled[0].write(), done]}}

            return write

        return trace.add("attempt", content, named=True)


def attempt(function: Branch) -> Attempt:
    """`attempt(lambda: charge(order)).catch(lambda error: …, status=503)`: try and except."""
    return Attempt(function)


def _handling(handler: Callable[..., Any] | None, error: Any) -> Branch:
    if handler is None:
        return lambda: None
    return (lambda: handler(error)) if _needed_by(handler) else handler


def _attempted(
    function: Branch,
    handler: Callable[..., Any] | None,
    wanted: Mapping[str, Any],
    fits: Callable[[Any], Any] | None,
    goes_on: bool,
) -> Any:
    try:
        return function()
    except InputError:
        raise  # the flow itself is wrong
    except Exception as problem:
        error = problem
        if not isinstance(error, TaskError):
            error = TaskError(RUNTIME, 500, type(problem).__name__, str(problem))
        wrong = any(getattr(error, name) != value for name, value in wanted.items())
        if wrong or (fits is not None and not fits(error)) or (handler is None and goes_on):
            raise
        return _handling(handler, error)()


# -- single steps ---------------------------------------------------------------------------------------------------


def wait(how_long: Span) -> None:
    """Waits; the wait outlives every process."""
    made = duration(how_long)
    if (trace := current()) is not None:
        trace.pass_by("wait", {"wait": made})


def emit(type: str, data: Any = None, *, source: str, **attributes: Any) -> None:  # noqa: A002
    """Publishes a CloudEvent. `source` is a URI; attributes are `subject` and extensions."""
    trace = current()
    if trace is None:
        return
    event = {"type": type, "source": source, **attributes, **({} if data is None else {"data": data})}
    # a task's output is the event it emitted; the flow's data go on as they are
    trace.pass_by(
        "emit", {"emit": {"event": {"with": trace.template(event)}}, "output": {"as": "${ $input }"}}
    )


def listen(
    type: str,  # noqa: A002
    *,
    source: str | None = None,
    correlate: Mapping[str, Any] | None = None,
    timeout: Span | None = None,
) -> Any:
    """The data of the first event of this type. `correlate`: properties its data must have, and their values."""
    trace = needed("listen")
    wanted: Definition = {"with": {"type": type, **({} if source is None else {"source": source})}}
    if correlate:
        wanted["correlate"] = {
            name: {"from": f"${{ .data.{name} }}", "expect": _expected(trace, value)}
            for name, value in correlate.items()
        }
    content: Definition = {"listen": {"to": {"one": wanted}}}
    if timeout is not None:
        content["timeout"] = {"after": duration(timeout)}
    return trace.add("listen", lambda _: lambda: dict(content), ".[0]")


def _expected(trace: Trace, value: Any) -> Any:
    return f"${{ {trace.expression(value)} }}" if isinstance(value, Value) else trace.template(value)


def raise_error(type: str, status: int = 500, title: str | None = None, detail: Any = None) -> Any:  # noqa: A002
    """Ends the flow with this error, unless an `attempt` around it catches it. `type` is a URI."""
    trace = current()
    if trace is None:
        raise TaskError(type, status, title, detail)
    error = {"type": type, "status": status, "title": title, "detail": detail}
    given = {name: value for name, value in error.items() if value is not None}
    trace.pass_by("raise_error", {"raise": {"error": trace.template(given)}})
    return None


def let(name: str, value: Any) -> Any:
    """Computes `value` once, under a name that the history shows."""
    trace = current()
    if trace is None:
        return value
    text = trace.expression(value)
    return trace.add(name, lambda _: lambda: {"set": f"${{ {text} }}"})


def call(
    function: str, arguments: Mapping[str, Any] | None = None, *, name: str | None = None, **metadata: Any
) -> Any:
    """Calls any function of the definition language: `http`, `openapi`, `decision`, `approval`, …"""
    trace = needed(f"call({function!r})")
    content: Definition = {"call": function, "with": trace.template(dict(arguments or {}))}
    if metadata:
        content["metadata"] = trace.template(metadata)
    return trace.add(name or function, lambda _: lambda: dict(content))
