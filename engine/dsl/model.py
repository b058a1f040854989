"""A compiled definition: what the core performs and every other room reads.

Everything here is immutable and holds no logic beyond names. `evaluate` and `problem` are functions made by the
compiler, stored in fields, so that one evaluation costs one call. Values given to them and got from them are shared:
nobody may change them. Pointers are RFC 6901 and name a task as the specification does: `/do/0/outer/do/1/inner`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Json = Any
"""A JSON value as orjson gives it."""

Evaluate = Callable[[Json, Mapping[str, Json]], Json]
"""(value, arguments) -> result. Raises ExpressionError. Reads no argument but those named in `reads`."""

Directive = str
"""`continue`, `exit`, `end`, or the pointer of the task to go on with (it starts with `/`)."""

Kind = Literal["do", "set", "switch", "raise", "call"]


@dataclass(frozen=True, slots=True)
class Expression:
    """A runtime expression. `reads` names the runtime arguments it needs, so that only those are built."""

    source: str
    reads: frozenset[str]
    evaluate: Evaluate = field(repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class Template:
    """A JSON value some of whose strings are expressions. `constant` when none is."""

    reads: frozenset[str]
    constant: bool
    evaluate: Evaluate = field(repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class Schema:
    """A JSON Schema. `problem` gives the first error as `Expected … but … at /path`, or None for valid data."""

    document: Json
    problem: Callable[[Json], str | None] = field(repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class Transform:
    """An `input`, `output` or `export` of the document; both parts absent means: leave the data as they are."""

    schema: Schema | None = None
    expression: Expression | Template | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """What every task has. `scope` is the pointer of the composite task around it, "" for the workflow."""

    pointer: str
    name: str
    kind: Kind
    scope: str
    definition: dict[str, Json] = field(repr=False)
    condition: Expression | None
    input: Transform
    output: Transform
    export: Transform
    then: Directive
    next: str | None
    metadata: dict[str, Json]


@dataclass(frozen=True, slots=True, kw_only=True)
class Do(Task):
    first: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Set(Task):
    value: Expression | Template


@dataclass(frozen=True, slots=True)
class Case:
    """`when` is None in the default case."""

    name: str
    when: Expression | None
    then: Directive


@dataclass(frozen=True, slots=True, kw_only=True)
class Switch(Task):
    cases: tuple[Case, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Raise(Task):
    """`error` gives `{type, status, title?, detail?, instance?}`; without an instance it is the task's pointer."""

    error: Template


@dataclass(frozen=True, slots=True, kw_only=True)
class Call(Task):
    """A call of a function that the workers of `queue` provide."""

    function: str
    queue: str
    arguments: Template | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Definition:
    """`hash` is the SHA-256 of the document's canonical JSON: equal documents, equal hashes, whatever the format."""

    namespace: str
    name: str
    version: str
    title: str | None
    hash: bytes
    document: dict[str, Json] = field(repr=False)
    input: Transform
    output: Transform
    tasks: Mapping[str, Task] = field(repr=False)
    first: str

    @property
    def id(self) -> str:
        return f"{self.namespace}/{self.name}@{self.version}"
