"""Tracing: the blocks and steps that a flow function leaves behind when it runs once with traced values.

A step is a task of the document, written when everything is traced: only then it is known whose results are read. A
block is a list of steps (a branch, a loop's body); what is known within a block is unknown outside of it, so a value
that leaves its block other than as the block's result is refused. Names are unique in the whole document.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

from flowtrail.errors import InputError
from flowtrail.flows import values
from flowtrail.flows.values import Source, Value

if TYPE_CHECKING:
    from flowtrail.flows.tasks import Task

Definition = dict[str, Any]
Content = Callable[[Source], Callable[[], Definition]]
"""Given the source that a step's result is, traces what is in the step, and gives what writes it."""

INPUT: Final = "input"
"""The name of the flow's input among its data."""


@dataclass(eq=False, slots=True)
class Block:
    """Steps in order. `steps` are filled while the function that makes them runs."""

    around: Block | None
    steps: list[Step] = field(default_factory=list)

    def knows(self, source: Source) -> bool:
        block: Block | None = self
        while block is not None:
            if block is source.block:
                return True
            block = block.around
        return False

    def write(self) -> list[Definition]:
        return [{step.name: step.write()} for step in self.steps]


@dataclass(eq=False, slots=True)
class Step:
    """`content` writes the task without `output`. `keep`: its result, an expression on the task's raw output."""

    name: str
    content: Callable[[], Definition]
    source: Source | None = None
    keep: str = "."

    def write(self) -> Definition:
        made = self.content()
        if self.source is not None:
            kept = f"$input + {{{self.name}: {self.keep}}}" if self.source.used else "$input"
            made = {**made, "output": {"as": f"${{ {kept} }}"}}
        return made


class Trace:
    """One run of a flow function with traced values."""

    def __init__(self, queue: str | None) -> None:
        self.queue = queue
        self.names = {INPUT}
        self.block = Block(None)
        self.tasks: dict[str, Task[..., Any]] = {}
        self.variables = 0
        self.unfinished: list[str] = []
        """What was begun and is not yet complete: an attempt without its catch."""

    # -- names and values ---------------------------------------------------------------------------------------

    def name(self, wish: str) -> str:
        """A name like `wish` that no step has: letters, digits and `_`, as jq reads them."""
        plain = re.sub(r"\W", "_", wish, flags=re.ASCII) or "step"
        plain = f"_{plain}" if plain[0].isdigit() else plain
        found, number = plain, 1
        while found in self.names or found in values.WORDS:
            number += 1
            found = f"{plain}_{number}"
        self.names.add(found)
        return found

    def variable(self, wish: str) -> str:
        self.variables += 1
        return f"{re.sub(r'[^A-Za-z0-9_]', '', wish) or 'item'}_{self.variables}"

    def use(self, sources: frozenset[Source]) -> None:
        for source in sources:
            if not self.block.knows(source):
                raise InputError(
                    f"Expected a value that is known here but {source.name} belongs to another block; "
                    "let the function of that block return it"
                )
            source.used = True

    def expression(self, value: Any) -> str:
        text, sources = values.expression(value)
        self.use(sources)
        return text

    def operand(self, value: Any) -> str:
        """As `expression`, in parentheses where it needs them as a part of another one."""
        text, sources = values.operand(value)
        self.use(sources)
        return text

    def template(self, value: Any) -> Any:
        made, sources = values.template(value)
        self.use(sources)
        return made

    # -- steps --------------------------------------------------------------------------------------------------

    def add(self, wish: str, content: Content, keep: str = ".", *, named: bool = False) -> Value:
        """A step with a result, which it returns. With `named` its tasks leave the result under the step's name."""
        name = self.name(wish)
        source = Source(name, self.block)
        made = content(source)
        self.block.steps.append(Step(name, made, source, f".{name}" if named else keep))
        return Value(f".{name}", frozenset((source,)))

    def pass_by(self, wish: str, content: Definition) -> None:
        """A step that leaves the data as they are."""
        self.block.steps.append(Step(self.name(wish), lambda: dict(content)))

    @contextmanager
    def inside(self) -> Iterator[Block]:
        """What is recorded within goes into a block of its own."""
        around = self.block
        self.block = Block(around)
        try:
            yield self.block
        finally:
            self.block = around


_current: ContextVar[Trace | None] = ContextVar("trace", default=None)


def current() -> Trace | None:
    """The trace that is being made, None where functions are called for good."""
    return _current.get()


@contextmanager
def tracing(trace: Trace) -> Iterator[Trace]:
    if _current.get() is not None:
        raise InputError("Expected a flow to be traced by itself but another one is being traced")
    token = _current.set(trace)
    try:
        yield trace
    finally:
        _current.reset(token)


def needed(what: str) -> Trace:
    """The trace, for what has no meaning outside of one."""
    trace = current()
    if trace is None:
        raise InputError(f"Expected {what} within a flow that is traced but the function was called directly")
    return trace


def duration(given: timedelta | str | Mapping[str, int]) -> Any:
    """A duration as the document has it."""
    if isinstance(given, str):
        return given
    if isinstance(given, Mapping):
        return dict(given)
    if not isinstance(given, timedelta):
        raise InputError(
            f"Expected a timedelta, ISO 8601 text or a mapping such as {{'seconds': 5}} but found {given!r}"
        )
    if given < timedelta():
        raise InputError(f"Expected a duration of nothing or more but found {given}")
    milliseconds = given // timedelta(milliseconds=1)
    if given % timedelta(milliseconds=1):
        raise InputError(f"Expected a duration of whole milliseconds but found {given}")
    days, rest = divmod(milliseconds, 86_400_000)
    hours, rest = divmod(rest, 3_600_000)
    minutes, rest = divmod(rest, 60_000)
    seconds, rest = divmod(rest, 1000)
    parts = {"days": days, "hours": hours, "minutes": minutes, "seconds": seconds, "milliseconds": rest}
    return {name: count for name, count in parts.items() if count} or {"seconds": 0}
