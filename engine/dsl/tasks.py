"""The tasks of a definition: the lists that form its scopes, and what every kind of task has.

Flow directives become pointers here, so that the core never looks a name up; a target must be in the same scope. What is
special to a kind is in tasks_flow, tasks_calls and tasks_events; reusable functions are put in place of their calls,
extensions around the tasks they extend, so the core sees tasks only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Final

from engine.dsl import tasks_calls, tasks_events, tasks_flow
from engine.dsl.checks import Checks, described
from engine.dsl.model import Directive, Extended, Json, Task, Transform
from engine.dsl.reach import warn_unreachable
from engine.dsl.scopes import BEFORE_INPUT, BEFORE_TASK, IN_EXPORT, IN_TASK, Around, Spot
from engine.dsl.source import escape
from engine.dsl.timing import compile_timeout
from engine.dsl.use import Use

DIRECTIVES: Final = frozenset({"continue", "exit", "end"})
TASKS_MAX: Final = 20_000
"""Tasks of one definition, functions and extensions in place: more would only cost every node memory."""

_OWN: Final[Mapping[str, tuple[str, ...]]] = {
    "call": ("call", "with"),
    "do": ("do",),
    "emit": ("emit",),
    "for": ("for", "while", "do"),
    "fork": ("fork",),
    "listen": ("listen", "foreach"),
    "raise": ("raise",),
    "run": ("run",),
    "set": ("set",),
    "switch": ("switch",),
    "try": ("try", "catch"),
    "wait": ("wait",),
}
_KINDS: Final = tuple(_OWN)
_COMMON: Final = ("if", "input", "output", "export", "timeout", "then", "metadata")
_TRANSFORMING: Final = ("if", "input", "output", "export", "timeout", "then")

Common = dict[str, Any]
"""The fields of Task."""

Content = Callable[["TaskCompiler", dict[str, Json], Spot, Common], Task]

_CONTENT: Final[Mapping[str, Content]] = {
    "call": tasks_calls.call,
    "do": tasks_flow.do,
    "emit": tasks_events.emit,
    "for": tasks_flow.for_,
    "fork": tasks_flow.fork,
    "listen": tasks_events.listen,
    "raise": tasks_flow.raise_,
    "run": tasks_calls.run,
    "set": tasks_flow.set_,
    "switch": tasks_flow.switch,
    "try": tasks_flow.try_,
    "wait": tasks_flow.wait,
}


class TaskCompiler:
    """Compiles scope after scope into `tasks`."""

    def __init__(self, checks: Checks, queue: str, use: Use) -> None:
        self.checks = checks
        self.queue = queue
        self.use = use
        self._tasks: dict[str, Task | None] = {}
        self.full = False

    @property
    def tasks(self) -> dict[str, Task]:
        """What was compiled, in the order of the document."""
        return {pointer: task for pointer, task in self._tasks.items() if task is not None}

    def scope(self, value: Json, around: Around, path: str) -> str:
        """Compiles the list of tasks at `path` below `around`; the pointer of its first one."""
        pointer, place = around.pointer + path, around.place + path
        if not isinstance(value, list) or not value:
            found = "an empty list" if value == [] else described(value)
            self.checks.expected("a list of tasks", found, place)
            return ""
        targets: dict[str, str] = {}
        named: list[tuple[str, str, str, Json]] = []
        for index, item in enumerate(value):
            entry = self.named(item, f"{place}/{index}", "task")
            if entry is None:
                continue
            name, definition = entry
            step = f"/{index}/{escape(name)}"
            if name in targets:
                self.checks.expected("each task name once in a scope", f"{name!r} again", place + step)
            targets.setdefault(name, pointer + step)
            named.append((pointer + step, place + step, name, definition))
        allowed = {} if around.branches else targets
        for position, (at, shown, name, definition) in enumerate(named):
            last = around.branches or position + 1 == len(named)
            following = None if last else named[position + 1][0]
            spot = Spot(
                at,
                shown,
                name,
                around.scope,
                following,
                allowed,
                around.variables,
                around.reference,
                around.extendable,
            )
            self.add(definition, spot)
        if not around.branches:
            places = {at: shown for at, shown, _, _ in named}
            warn_unreachable(self.checks, self._tasks, places)
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

    def add(self, definition: Json, spot: Spot) -> None:
        """Compiles a task and keeps it, before the tasks in it."""
        if len(self._tasks) >= TASKS_MAX:
            self.full = True  # the caller refuses the definition: here nothing may be noted
            return
        self._tasks[spot.pointer] = None
        self._tasks[spot.pointer] = self.task(definition, spot)

    def keep(self, task: Task | None, pointer: str = "") -> None:
        """Keeps a task that the compiler made of a part of another one; None keeps the place of one."""
        self._tasks[task.pointer if task is not None else pointer] = task

    def drop(self, pointer: str) -> None:
        del self._tasks[pointer]

    @contextmanager
    def rehearsal(self) -> Iterator[None]:
        """What is compiled within is checked and thrown away: a function or an extension, where it is written."""
        kept, used = self._tasks, set(self.use.used)
        self._tasks = {}
        try:
            yield
        finally:
            self._tasks = kept
            self.use.used.clear()
            self.use.used.update(used)

    # -- one task -----------------------------------------------------------------------------------------------

    def task(self, definition: Json, spot: Spot) -> Task | None:
        checks = self.checks
        if not isinstance(definition, dict):
            checks.expected("a task (an object)", described(definition), spot.place)
            return None
        kind = self.kind(definition, spot.place)
        if kind is None:
            return None
        found = checks.properties(definition, spot.place, (*_OWN[kind], *_COMMON))
        common = self.common(found, kind, definition, spot)
        extensions = self.use.extending(kind) if spot.extendable else ()
        if extensions:
            return self.extended(extensions, found, spot, common)
        return self.content(kind, found, spot, common)

    def content(self, kind: str, found: dict[str, Json], spot: Spot, common: Common) -> Task:
        return _CONTENT[kind](self, found, spot, {**common, "kind": kind})

    def kind(self, definition: dict[str, Json], place: str) -> str | None:
        kinds = [kind for kind in _KINDS if kind in definition]
        if "for" in kinds and "do" in kinds:
            kinds.remove("do")
        if len(kinds) == 1:
            return kinds[0]
        unknown = [name for name in definition if name not in _COMMON]
        name = unknown[0] if len(unknown) == 1 and not kinds else None
        self.checks.expected(
            f"exactly one of {', '.join(_KINDS)}",
            " and ".join(kinds) or (repr(name) if name else "none of them"),
            place,
            name=name,
            known=_KINDS,
        )
        return None

    def common(self, found: dict[str, Json], kind: str, definition: dict[str, Json], spot: Spot) -> Common:
        checks, place = self.checks, spot.place
        before, inside = spot.available(BEFORE_TASK), spot.available(IN_TASK)
        timeout = None
        if "timeout" in found:
            timeout = compile_timeout(
                checks, found["timeout"], f"{place}/timeout", inside, self.use.timeouts, self.use.used
            )
        return {
            "pointer": spot.pointer,
            "name": spot.name,
            "kind": kind,
            "scope": spot.scope,
            "definition": definition,
            "condition": checks.expression(found["if"], f"{place}/if", before) if "if" in found else None,
            "input": checks.transform(found, "input", "from", place, spot.available(BEFORE_INPUT)),
            "output": checks.transform(found, "output", "as", place, inside),
            "export": checks.transform(found, "export", "as", place, spot.available(IN_EXPORT)),
            "then": self.directive(found.get("then", "continue"), f"{place}/then", spot.targets),
            "next": spot.following,
            "metadata": checks.object(found.get("metadata", {}), f"{place}/metadata"),
            "timeout": timeout,
            "variables": dict(spot.variables),
            "compensate": self.compensation(found, spot),
            "reference": spot.reference or place,
        }

    def directive(self, value: Json, pointer: str, targets: Mapping[str, str]) -> Directive:
        if not isinstance(value, str):
            self.checks.expected("a flow directive or a task's name", described(value), pointer)
            return "end"
        if value in DIRECTIVES:
            return value
        if value not in targets:
            wish = "continue, exit, end or the name of a task of the same scope"
            known = (*DIRECTIVES, *targets)
            self.checks.expected(wish, described(value), pointer, name=value, known=sorted(known))
            return "end"
        return targets[value]

    # -- tasks around tasks -------------------------------------------------------------------------------------

    def compensation(self, found: dict[str, Json], spot: Spot) -> str | None:
        """`metadata.compensate`: an inline task, or the name of a function of use.functions."""
        metadata = found.get("metadata")
        if not isinstance(metadata, dict) or "compensate" not in metadata:
            return None
        value, path = metadata["compensate"], "/metadata/compensate"
        if isinstance(value, str):
            if value not in self.use.functions:
                wish = "a task or the name of a function of use.functions"
                known = self.use.functions
                self.checks.expected(wish, described(value), spot.place + path, name=value, known=known)
                return None
            value = {"call": value}
        pointer = spot.pointer + path
        inner = Spot(pointer, spot.place + path, spot.name, "", None, {}, {}, None, False)
        self.add(value, inner)
        return pointer

    def extended(
        self,
        extensions: tuple[tuple[int, str, dict[str, Json]], ...],
        found: dict[str, Json],
        spot: Spot,
        common: Common,
    ) -> Task:
        inner = replace(spot, pointer=f"{spot.pointer}/extended", scope=spot.pointer, following=None)
        kind, reserved = common["kind"], inner.pointer
        self._tasks[reserved] = None
        own = {
            **common,
            "pointer": inner.pointer,
            "scope": inner.scope,
            "condition": None,
            "then": "continue",
            "next": None,
            "compensate": None,
        }
        self._tasks[reserved] = self.content(kind, found, inner, own)
        outside = {**common, "kind": "extended", "timeout": None}
        for name in ("input", "output", "export"):
            outside[name] = Transform()
        return Extended(
            **outside,
            before=tasks_flow.advice(self, extensions, "before", spot),
            inner=reserved,
            after=tasks_flow.advice(self, extensions, "after", spot),
        )

    def transforms(self, function: Mapping[str, Json]) -> bool:
        """Whether a function does more than its content, so that its call becomes a scope around it."""
        metadata = function.get("metadata")
        undone = isinstance(metadata, dict) and "compensate" in metadata
        return undone or any(name in function for name in _TRANSFORMING)
