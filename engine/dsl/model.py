"""A compiled definition: what the core performs and every other room reads.

Everything here is immutable and holds no logic beyond names. `evaluate` and `problem` are functions made by the
compiler, stored in fields, so that one evaluation costs one call. Values given to them and got from them are shared:
nobody may change them. Pointers are RFC 6901 and name a task as the specification does: `/do/0/outer/do/1/inner`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from engine.dsl.errors import Problem

Json = Any
"""A JSON value as orjson gives it."""

Evaluate = Callable[[Json, Mapping[str, Json]], Json]
"""(value, arguments) -> result. Raises ExpressionError. Reads no argument but those named in `reads`."""

Directive = str
"""`continue`, `exit`, `end`, or the pointer of the task to go on with (it starts with `/`)."""

Kind = Literal[
    "do", "set", "switch", "raise", "call", "emit", "for", "fork", "listen", "run", "try", "wait", "extended"
]

Variable = tuple[str, Literal["item", "index", "error"]]
"""Where a variable of an expression comes from: the pointer of the task around it that defines it, and which."""


@dataclass(frozen=True, slots=True)
class Expression:
    """A runtime expression. `reads` names the runtime arguments it needs, so that only those are built.

    `sealed`: the sealed references its result may hold (engine/dsl/secrets.py)."""

    source: str
    reads: frozenset[str]
    evaluate: Evaluate = field(repr=False, compare=False)
    sealed: frozenset[str] = frozenset()


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


@dataclass(frozen=True, slots=True)
class Duration:
    """`months` of the calendar (UTC) and `microseconds`; or an `expression` that gives an ISO 8601 duration (text)
    or a duration object, read by `durations.read`."""

    months: int = 0
    microseconds: int = 0
    expression: Expression | Template | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """What every task has. `scope` is the pointer of the composite task around it, "" for the workflow.

    `variables`: what a `for`, a `foreach` or a `catch` around it defines, by name without `$`. `compensate`: the
    pointer of the task that undoes it. `reference` is what `$task.reference` reads (the pointer, unless extended).
    """

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
    timeout: Duration | None = None
    variables: Mapping[str, Variable] = field(default_factory=dict)
    compensate: str | None = None
    reference: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Do(Task):
    first: str


@dataclass(frozen=True, slots=True, kw_only=True)
class For(Task):
    """`collection` is evaluated once, on the task's transformed input; `while_` before each iteration."""

    each: str
    at: str
    collection: Expression
    while_: Expression | None
    first: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Fork(Task):
    """`branches`: the pointers of its tasks, `POINTER/fork/branches/N/NAME`. Each is a scope of its own (`next` None)."""

    branches: tuple[str, ...]
    compete: bool


@dataclass(frozen=True, slots=True)
class Backoff:
    """Delay before retry n (1, 2, ...): constant d; linear d * n; exponential d * 2 ** (n - 1)."""

    kind: Literal["constant", "linear", "exponential"] = "constant"


@dataclass(frozen=True, slots=True)
class Retry:
    """`count`: retries at the most (not counting the first attempt). `attempt_limit`: of each attempt. `limit`: of all."""

    when: Expression | None = None
    except_when: Expression | None = None
    delay: Duration | None = None
    backoff: Backoff = Backoff()
    count: int | None = None
    attempt_limit: Duration | None = None
    limit: Duration | None = None
    jitter: tuple[Duration, Duration] | None = None


@dataclass(frozen=True, slots=True)
class Catch:
    """`errors`: property -> value an error must have (may hold expressions). `name` of the error's variable.

    `first` is the first task of `catch.do`, or None.
    """

    errors: Template | None
    name: str
    when: Expression | None
    except_when: Expression | None
    retry: Retry | None
    first: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Try(Task):
    first: str
    catch: Catch


@dataclass(frozen=True, slots=True, kw_only=True)
class Wait(Task):
    duration: Duration


@dataclass(frozen=True, slots=True, kw_only=True)
class Emit(Task):
    """`event` gives the CloudEvent's attributes and `data`; id and time are filled in when they are missing."""

    event: Template


@dataclass(frozen=True, slots=True)
class Correlation:
    """`from_` is evaluated on the whole event (JSON format); `expect` on the task's input, None: the first value wins."""

    name: str
    from_: Expression
    expect: Expression | Template | None


@dataclass(frozen=True, slots=True)
class EventFilter:
    """`fixed(event)`: whether the constant parts match (equal, or a regular expression as a whole). `fits(event,
    arguments)`: whether the expressions match too; they read `reads`. `shape` is equal for filters that any event
    treats the same: the correlator's name is made of it (engine/core/entities)."""

    shape: str
    fixed: Callable[[Json], bool] = field(repr=False, compare=False)
    reads: frozenset[str]
    fits: Callable[[Json, Mapping[str, Json]], bool] = field(repr=False, compare=False)
    correlate: tuple[Correlation, ...]


@dataclass(frozen=True, slots=True)
class Consumption:
    """Which events: `one` and `any` end with the first match, `all` when every filter has had one. `any` with `until`
    (an expression on the array of what was consumed, or another consumption) goes on until that holds. `any` without
    filters takes every event (the compiler makes one filter without attributes of it). `forever`: until is absent-by-false."""

    mode: Literal["one", "any", "all"]
    filters: tuple[EventFilter, ...]
    until: Expression | None = None
    until_events: Consumption | None = None
    forever: bool = False


@dataclass(frozen=True, slots=True)
class Foreach:
    """What a listen does with each event: tasks from `first` (None: none), then `output` and `export`."""

    each: str
    at: str
    first: str | None
    output: Transform
    export: Transform


@dataclass(frozen=True, slots=True, kw_only=True)
class Listen(Task):
    to: Consumption
    read: Literal["data", "envelope", "raw"]
    foreach: Foreach | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Subflow(Task):
    """`run: {workflow}`. `workflow` is `namespace/name@version`, or `namespace/name` for the newest version."""

    workflow: str
    arguments: Template | None
    wait: bool


@dataclass(frozen=True, slots=True)
class Advice:
    """Tasks of an extension around a task: from `first`, when `when` holds."""

    when: Expression | None
    first: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Extended(Task):
    """A task with extensions: `before`, then `inner` (at POINTER/extended, with the task's own input, output, export and
    timeout), then `after`. The advice's tasks lie at POINTER/extensions/N/before|after/...; their outputs are dropped,
    unless a before task says `exit`: then its output is the task's, and `inner` is not performed."""

    before: tuple[Advice, ...]
    inner: str
    after: tuple[Advice, ...]


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
    """A call of a function that the workers of `queue` provide.

    `function` of the built-in executors: http, openapi, grpc, asyncapi, mcp, a2a, run.shell, run.script, run.container.
    Secrets in `arguments` are sealed references (engine/dsl/secrets.py). `wait` False: the task ends with its input
    at once. `limits`: for the limiter. `heartbeat`: how long a worker may be silent. `attempts`: how often a silent
    call is scheduled before a person has to look.
    """

    function: str
    queue: str
    arguments: Template | None
    priority: Literal["high", "normal", "low"] = "normal"
    heartbeat: Duration | None = None
    attempts: int = 3
    wait: bool = True
    limits: tuple[Limit, ...] = ()
    check_input: Callable[[Json], None] | None = field(default=None, repr=False, compare=False)
    """Without `arguments`: raises ExpressionError for an input that holds sealed references of its own (`secrets.MARKS`
    says which bytes may be such; only those need the check)."""


@dataclass(frozen=True, slots=True)
class Limit:
    """At most `concurrency` calls at once, or `rate` calls in `per` microseconds, of those with the same key.

    `key` (None: one for all calls of this name) is evaluated on the task's input.
    """

    name: str
    key: Expression | Template | None
    concurrency: int = 0
    rate: int = 0
    per: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Approval(Task):
    """`call: approval`. `request` gives {title?, assignees?, description?, ...} for people; `form` checks their answer."""

    request: Template
    form: Schema | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Decide(Task):
    """`call: decision`. `decide(value, arguments)` gives (output, explanation); raises ExpressionError."""

    table: str
    reads: frozenset[str]
    decide: Callable[[Json, Mapping[str, Json]], tuple[Json, Json]] = field(repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class Schedule:
    """When the engine starts flows of the newest version by itself. One of its parts is set."""

    every: Duration | None = None
    cron: str | None = None
    after: Duration | None = None
    on: Consumption | None = None


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
    timeout: Duration | None = None
    schedule: Schedule | None = None
    secrets: frozenset[str] = frozenset()
    metadata: dict[str, Json] = field(default_factory=dict, repr=False)
    warnings: tuple[Problem, ...] = field(default=(), repr=False, compare=False)

    @property
    def id(self) -> str:
        return f"{self.namespace}/{self.name}@{self.version}"
