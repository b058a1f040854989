"""Fills in what events leave out: a task's input or output that is "same as the data before".

Pure. The rules are those of engine/core/folding.py (raw input = output of the task before in the same scope; a branch
gets its fork's input; a retry and a catch begin with the try's input; a compensation gets what the task it undoes got
and gave), walked over the tasks of one flow in the order of their events. Rows keep what the log says; this runs when
they are read. JSON stays text all the way.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

import msgspec
import orjson

_BRANCHES: Final = "/fork/branches/"
_COMPENSATE: Final = "/metadata/compensate"


class Happening(msgspec.Struct):
    """An event in the life of a listen, one of EventConsumed, TaskIterated, TaskIterationCompleted."""

    sequence: int
    kind: str
    body: str


class Turn(msgspec.Struct):
    """FlowMigrated or FlowRestored: the tasks have other places now, or the data are those of a moment of the past."""

    sequence: int
    kind: str
    body: str


class _Held(msgspec.Struct):
    """What a composite held at the moment that is restored."""

    input: msgspec.Raw
    data: msgspec.Raw
    catching: bool = False
    branches: dict[str, msgspec.Raw] = {}


class _Undone(msgspec.Struct):
    input: msgspec.Raw
    output: msgspec.Raw


class _Turned(msgspec.Struct):
    """What is read of the bodies of turns. `data` is empty at a flow's beginning."""

    moved: dict[str, str] = {}
    data: msgspec.Raw = msgspec.Raw(b"")
    scopes: dict[str, _Held] = {}
    done: dict[str, list[_Undone]] = {}


class Step(msgspec.Struct):
    """One attempt of a task run. `begun` and `ended` are sequence numbers; `begun` is None for a task performed within
    one event. `happened` is what a listen went through."""

    task: str
    status: str
    begun: int | None
    ended: int | None
    input: str | None
    result: str | None
    output: str | None
    happened: list[Happening] = []


class _Body(msgspec.Struct):
    """What is read of the bodies of happenings. `read` "" marks an event that only ends the listening."""

    event: msgspec.Raw = msgspec.Raw(b"null")
    read: str = "data"
    index: int = 0
    output: msgspec.Raw = msgspec.Raw(b"")


class _Scope(msgspec.Struct):
    """What an active task holds: its input, the output of its last child, its branches' outputs or its events."""

    input: str | None
    data: str | None
    catching: bool = False
    listens: bool = False
    branches: dict[int, str | None] = {}
    events: list[str | None] = []


def fill(data: str | None, steps: list[Step], turns: Sequence[Turn] = ()) -> None:
    """Sets `input` of every step, and `output` of those completed or skipped, starting from the flow's `data`."""
    walk = _Walk(data, steps)
    moments: list[tuple[int, int, Callable[[], None]]] = [
        (turn.sequence, -1, partial(walk.turn, turn)) for turn in turns
    ]
    for step in steps:
        if step.begun is not None:
            moments.append((step.begun, 1, partial(walk.begin, step)))
        if step.ended is not None:
            # a retry ends one attempt and begins another by the same event
            moments.append((step.ended, 0 if step.status == "retried" else 2, partial(walk.end, step)))
        moments += [(one.sequence, 3, partial(walk.happen, step, one)) for one in step.happened]
    for _, _, happen in sorted(moments, key=lambda moment: moment[:2]):
        happen()


class _Walk:
    """The data of a flow and of its active tasks, event by event."""

    def __init__(self, data: str | None, steps: list[Step]) -> None:
        self._top = data
        self._scopes: dict[str, _Scope] = {}
        self._again: dict[str, str | None] = {}  # inputs of attempts that were retried
        self._undone = {s.task.removesuffix(_COMPENSATE) for s in steps if s.task.endswith(_COMPENSATE)}
        self._done: dict[str, list[str]] = defaultdict(list)
        self._kept: set[str] = set()

    def turn(self, turn: Turn) -> None:
        body = msgspec.json.decode(turn.body, type=_Turned)
        if turn.kind == "FlowMigrated":
            moved = body.moved
            self._scopes = {moved.get(task, task): scope for task, scope in self._scopes.items()}
            self._again = {moved.get(task, task): given for task, given in self._again.items()}
            done = {moved.get(task, task): given for task, given in self._done.items()}
            self._done = defaultdict(list, done)
            self._undone |= {moved.get(task, task) for task in self._undone}
            self._kept = set(moved.values()) & self._scopes.keys()
        elif data := bytes(body.data).decode():
            self._top = data
            self._scopes = {task: _held(held) for task, held in body.scopes.items()}
            self._kept = set(self._scopes)
            self._again.clear()
            self._done = defaultdict(
                list, {task: [_undoing(undo) for undo in undone] for task, undone in body.done.items()}
            )

    def begin(self, step: Step) -> None:
        if step.task in self._kept:  # it goes on, under another pointer or as another run
            self._kept.discard(step.task)
            step.input = self._scopes[step.task].input
            return
        before = self._before(step.task)
        self._enter(step, before)
        self._scopes[step.task] = _Scope(step.input, step.input)

    def end(self, step: Step) -> None:
        if step.status == "moved":
            return
        own = None if step.begun is None else self._scopes.pop(step.task, None)
        if step.status == "retried":
            self._again[step.task] = step.input
            return
        before = self._before(step.task)
        if step.begun is None:
            self._enter(step, before)
        if step.status == "skipped":
            step.output = before
        elif step.status == "completed":
            if step.output is None:
                step.output = step.result if step.result is not None else _natural(own, before)
            if step.task in self._undone:
                self._done[step.task].append(f'{{"input":{step.input},"output":{step.output}}}')
        scope, at = self._around(step.task)
        if step.task.endswith(_COMPENSATE) and scope is None:
            self._done[step.task.removesuffix(_COMPENSATE)][-1:] = []
        elif step.status in ("completed", "skipped"):
            self._give(step, scope, at)

    def happen(self, step: Step, happening: Happening) -> None:
        scope = self._scopes.get(step.task)
        if scope is None:
            return
        scope.listens = True
        body = msgspec.json.decode(happening.body, type=_Body)
        if happening.kind == "EventConsumed":
            if body.read:
                scope.events.append(_read(bytes(body.event), body.read))
        elif not 0 <= body.index < len(scope.events):
            return  # rows that lack their first events
        elif happening.kind == "TaskIterated":
            scope.data = scope.events[body.index]
        else:
            scope.events[body.index] = bytes(body.output).decode() or scope.data

    def _enter(self, step: Step, before: str | None) -> None:
        given = self._again.pop(step.task, before)
        step.input = given if step.input is None else step.input

    def _around(self, task: str) -> tuple[_Scope | None, int]:
        """The innermost active task around `task`, and the length of its pointer."""
        at = task.rfind("/")
        while at > 0:
            if (scope := self._scopes.get(task[:at])) is not None:
                return scope, at
            at = task.rfind("/", 0, at)
        return None, 0

    def _before(self, task: str) -> str | None:
        """The raw input of `task`, were it performed now."""
        scope, at = self._around(task)
        if scope is None:
            undone = self._done.get(task.removesuffix(_COMPENSATE)) if task.endswith(_COMPENSATE) else None
            return undone[-1] if undone else self._top
        if task.startswith(_BRANCHES, at):
            return scope.input
        if task.startswith("/catch/", at) and not scope.catching:
            scope.catching, scope.data = True, scope.input
        return scope.data

    def _give(self, step: Step, scope: _Scope | None, at: int) -> None:
        """The output of `step` becomes the data of the task around it, or of the flow."""
        if scope is None:
            self._top = step.output
        elif step.task.startswith(_BRANCHES, at):
            number = step.task[at + len(_BRANCHES) :].partition("/")[0]
            scope.branches[int(number)] = step.output
            scope.data = step.output if step.status == "completed" else scope.data
        elif not step.task.startswith("/extensions/", at) and step.status == "completed":
            scope.data = step.output


def _held(held: _Held) -> _Scope:
    branches: dict[int, str | None] = {int(n): bytes(value).decode() for n, value in held.branches.items()}
    scope = _Scope(bytes(held.input).decode(), bytes(held.data).decode(), held.catching)
    scope.branches = branches
    return scope


def _undoing(undo: _Undone) -> str:
    return f'{{"input":{bytes(undo.input).decode()},"output":{bytes(undo.output).decode()}}}'


def _natural(own: _Scope | None, before: str | None) -> str | None:
    """The output of a task that said nothing of it."""
    if own is None:
        return before
    if not own.branches and not own.listens:
        return own.data
    parts = own.events if own.listens else [own.branches[number] for number in sorted(own.branches)]
    known = [part for part in parts if part is not None]
    return "[" + ",".join(known) + "]" if len(known) == len(parts) else None


def _read(event: bytes, form: str) -> str:
    """What a listen reads of a CloudEvent in JSON format."""
    if form == "envelope":
        return event.decode()
    envelope = orjson.loads(event)
    if "data_base64" in envelope:
        return orjson.dumps(envelope["data_base64"]).decode()
    data = orjson.dumps(envelope.get("data")).decode()
    return data if form == "data" else orjson.dumps(data).decode()
