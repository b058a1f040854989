"""The tasks of a definition: one function a kind, over the lists of tasks that form its scopes.

Flow directives become pointers here, so that the core never looks a name up; a target must be in the same scope.
Which runtime arguments exist at which place is the table at the end of the specification's Runtime Expressions.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from engine.dsl.checks import Checks, described
from engine.dsl.expressions import is_marked
from engine.dsl.model import Call, Case, Directive, Do, Json, Raise, Set, Switch, Task, Template
from engine.dsl.source import escape

SUPPORTED: Final = ("call", "do", "raise", "set", "switch")
UNSUPPORTED: Final = ("fork", "for", "listen", "emit", "run", "try", "wait")
PROTOCOLS: Final = frozenset({"http", "grpc", "openapi", "asyncapi", "mcp", "a2a"})
DIRECTIVES: Final = frozenset({"continue", "exit", "end"})
QUEUE: Final = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
QUEUE_WISH: Final = "a queue name such as default (at most 64 of a-z, 0-9, '.', '_', '-')"

BEFORE_TASK: Final = frozenset({"context", "task", "workflow", "runtime"})
IN_TASK: Final = BEFORE_TASK | {"input", "authorization"}
IN_EXPORT: Final = IN_TASK | {"output"}

_COMMON: Final = ("if", "input", "output", "export", "then", "metadata")
_FUNCTION: Final = re.compile(r"[A-Za-z_][A-Za-z0-9._/-]{0,127}")
_ABSOLUTE_URI: Final = re.compile(r"[A-Za-z][A-Za-z0-9+\-.]*://.*", re.DOTALL)
_JSON_POINTER: Final = re.compile(r"(?:/(?:[^~/]|~[01])*)*")


class TaskCompiler:
    """Compiles scope after scope. `errors` are the reusable errors by name."""

    def __init__(self, checks: Checks, queue: str, errors: Mapping[str, Template]) -> None:
        self.checks = checks
        self.queue = queue
        self.errors = errors
        self._tasks: dict[str, Task | None] = {}

    @property
    def tasks(self) -> dict[str, Task]:
        """What was compiled, in the order of the document."""
        return {pointer: task for pointer, task in self._tasks.items() if task is not None}

    def scope(self, value: Json, pointer: str, scope: str) -> str:
        """Compiles the list of tasks at `pointer`; the pointer of its first one."""
        if not isinstance(value, list) or not value:
            found = "an empty list" if value == [] else described(value)
            self.checks.expected("a list of tasks", found, pointer)
            return ""
        targets: dict[str, str] = {}
        named: list[tuple[str, str, Json]] = []
        for index, item in enumerate(value):
            entry = self.named(item, f"{pointer}/{index}", "task")
            if entry is None:
                continue
            name, definition = entry
            at = f"{pointer}/{index}/{escape(name)}"
            if name in targets:
                self.checks.expected("each task name once in a scope", f"{name!r} again", at)
            targets.setdefault(name, at)
            named.append((at, name, definition))
        for position, (at, name, definition) in enumerate(named):
            following = named[position + 1][0] if position + 1 < len(named) else None
            self._tasks[at] = None  # keeps the place: a composite task stands before the tasks in it
            self._tasks[at] = self.task(definition, at, name, scope, following, targets)
        return named[0][0] if named else ""

    def named(self, item: Json, pointer: str, what: str) -> tuple[str, Json] | None:
        """The name and content of an entry of a list of tasks or cases: an object of exactly one property."""
        if not isinstance(item, dict) or len(item) != 1:
            found = f"an object of {len(item)}" if isinstance(item, dict) else described(item)
            self.checks.expected(f"an object of one property, the {what}'s name,", found, pointer)
            return None
        name, content = next(iter(item.items()))
        if not name:
            self.checks.expected(f"a {what} name", "an empty one", pointer)
            return None
        return name, content

    def task(
        self,
        definition: Json,
        pointer: str,
        name: str,
        scope: str,
        following: str | None,
        targets: Mapping[str, str],
    ) -> Task | None:
        checks = self.checks
        if not isinstance(definition, dict):
            checks.expected("a task (an object)", described(definition), pointer)
            return None
        kind = self.kind(definition, pointer)
        if kind is None:
            return None
        own = ("call", "with") if kind == "call" else (kind,)
        found = checks.properties(definition, pointer, (*own, *_COMMON), unsupported=("timeout",))
        common: dict[str, Any] = {
            "pointer": pointer,
            "name": name,
            "kind": kind,
            "scope": scope,
            "definition": definition,
            "condition": checks.expression(found["if"], f"{pointer}/if", BEFORE_TASK)
            if "if" in found
            else None,
            "input": checks.transform(found, "input", "from", pointer, BEFORE_TASK),
            "output": checks.transform(found, "output", "as", pointer, IN_TASK),
            "export": checks.transform(found, "export", "as", pointer, IN_EXPORT),
            "then": self.directive(found.get("then", "continue"), f"{pointer}/then", targets),
            "next": following,
            "metadata": checks.object(found.get("metadata", {}), f"{pointer}/metadata"),
        }
        match kind:
            case "do":
                return Do(**common, first=self.scope(found["do"], f"{pointer}/do", pointer))
            case "set":
                return self.set_task(found["set"], pointer, common)
            case "switch":
                cases = self.cases(found["switch"], f"{pointer}/switch", targets)
                return Switch(**common, cases=cases)
            case "raise":
                return Raise(**common, error=self.raised(found["raise"], f"{pointer}/raise"))
            case _:
                return self.call(found, pointer, common)

    def kind(self, definition: dict[str, Json], pointer: str) -> str | None:
        for kind in UNSUPPORTED:
            if kind in definition:
                self.checks.unsupported(kind, pointer, at=f"{pointer}/{kind}")
                return None
        kinds = [kind for kind in SUPPORTED if kind in definition]
        if len(kinds) == 1:
            return kinds[0]
        wish = f"exactly one of {', '.join(SUPPORTED)}"
        self.checks.expected(wish, " and ".join(kinds) or "none of them", pointer)
        return None

    def directive(self, value: Json, pointer: str, targets: Mapping[str, str]) -> Directive:
        if not isinstance(value, str):
            self.checks.expected("a flow directive or a task's name", described(value), pointer)
            return "end"
        if value in DIRECTIVES:
            return value
        if value not in targets:
            wish = "continue, exit, end or the name of a task of the same scope"
            self.checks.expected(wish, described(value), pointer)
            return "end"
        return targets[value]

    # -- one kind each ------------------------------------------------------------------------------------------

    def set_task(self, value: Json, pointer: str, common: dict[str, Any]) -> Set:
        at = f"{pointer}/set"
        if value == {}:
            self.checks.expected("at least one property to set", "none", at)
        return Set(**common, value=self.checks.expression_or_template(value, at, IN_TASK))

    def cases(self, value: Json, pointer: str, targets: Mapping[str, str]) -> tuple[Case, ...]:
        checks = self.checks
        if not isinstance(value, list) or not value:
            checks.expected("a list of cases", "an empty list" if value == [] else described(value), pointer)
            return ()
        cases: list[Case] = []
        for index, item in enumerate(value):
            entry = self.named(item, f"{pointer}/{index}", "case")
            if entry is None:
                continue
            name, content = entry
            at = f"{pointer}/{index}/{escape(name)}"
            found = checks.properties(content, at, ("when", "then"), required=("then",))
            when = checks.expression(found["when"], f"{at}/when", IN_TASK) if "when" in found else None
            if when is None and found and any(case.when is None for case in cases):
                checks.expected("at most one default case", f"{name!r} without 'when'", at)
            if any(case.name == name for case in cases):
                checks.expected("each case name once", f"{name!r} again", at)
            cases.append(Case(name, when, self.directive(found.get("then", "end"), f"{at}/then", targets)))
        return tuple(cases)

    def raised(self, value: Json, pointer: str) -> Template:
        checks = self.checks
        error = checks.properties(value, pointer, ("error",), required=("error",)).get("error")
        at = f"{pointer}/error"
        if isinstance(error, str):
            known = self.errors.get(error)
            if known is not None:
                return known
            checks.expected("the name of an error of use.errors", described(error), at)
        elif error is not None or (isinstance(value, dict) and "error" in value):
            return compile_error(checks, error, at)
        return checks.template({}, at, IN_TASK)

    def call(self, found: dict[str, Json], pointer: str, common: dict[str, Any]) -> Call:
        checks, at = self.checks, f"{pointer}/call"
        function = found["call"]
        if isinstance(function, str) and function in PROTOCOLS:
            checks.unsupported(f"call {function}", pointer, at=at)
        elif isinstance(function, str) and ("@" in function or "://" in function):
            checks.unsupported(f"a call of the cataloged function {described(function)}", pointer, at=at)
        else:
            function = checks.text(function, at, "the name of a worker's function", _FUNCTION)
        arguments = None
        if "with" in found:
            given = checks.object(found["with"], f"{pointer}/with")
            if function not in PROTOCOLS:
                arguments = checks.template(given, f"{pointer}/with", IN_TASK)
        queue = self.queue
        if "queue" in common["metadata"]:
            queue = checks.text(common["metadata"]["queue"], f"{pointer}/metadata/queue", QUEUE_WISH, QUEUE)
        return Call(**common, function=str(function), queue=queue, arguments=arguments)


def compile_error(checks: Checks, value: Json, pointer: str) -> Template:
    """An error to raise: `{type, status, instance?, title?, detail?}`; all but the status may be expressions."""
    known = ("type", "status", "instance", "title", "detail")
    found = checks.properties(value, pointer, known, required=("type", "status"))
    for name, wish, pattern in (
        ("type", "an absolute URI or an expression", _ABSOLUTE_URI),
        ("instance", "a JSON pointer or an expression", _JSON_POINTER),
        ("title", "text", None),
        ("detail", "text", None),
    ):
        given = found.get(name, "")
        if name in found and not (isinstance(given, str) and is_marked(given)):
            checks.text(given, f"{pointer}/{name}", wish, pattern)
    status = found.get("status", 0)
    if not isinstance(status, int) or isinstance(status, bool):
        checks.expected("a whole number", described(status), f"{pointer}/status")
    return checks.template(found, pointer, IN_TASK)
