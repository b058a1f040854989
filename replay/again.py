"""A past flow decided again under another definition, with what the world told it then. Pure.

The world is what the log has recorded: results of workers and people, failures, heartbeats, events, cancellations. Each is
told again as long after its task began as it was then, on a virtual clock. So is a timer that was set then as it is now
(late when it was late, never when it never fired); any other fires when it is due. A task is known again by its name and those around it, not by its place in a list, so a definition may move tasks. The flow goes
on until it ends, or waits for something that was never recorded.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Final

import msgspec

from engine.core.decide import decide
from engine.core.evolve import FlowState, digest, evolve
from engine.core.names import names_of
from engine.core.redecide import Stored, command_of, groups
from engine.core.timers import TIMER, due_commands
from engine.dsl.model import Definition
from schemas import messages as m

Key = tuple[str, int, int]
"""A task by its names, run and attempt."""

Told = tuple[int, Callable[[str], m.CommandBody], m.Actor]
"""How long after its task began (microseconds), what to tell of a pointer, and who told it."""

Timer = tuple[Key, str, int]
"""A task, what its timer is for, and how long after the task began it is due."""

_BEGINNINGS: Final = (m.TaskScheduled, m.TaskStarted, m.ListenStarted, m.SubflowStarted)
_COMMANDS_LEAST: Final = 10_000
_EVER: Final = 1 << 62
_FLOW: Final[Key] = ("", 0, 0)


class Step(msgspec.Struct, frozen=True):
    """One step of a flow's path: which task, and what became of it."""

    task: str
    run: int
    what: str

    def __str__(self) -> str:
        run = f" (run {self.run})" if self.run > 1 else ""
        return f"{self.task or 'the flow'}{run} {self.what}"


class Again(msgspec.Struct, frozen=True):
    """`needs`: the tasks that wait for what was never recorded; empty when the flow ended."""

    events: list[m.Event]
    state: FlowState | None
    needs: tuple[str, ...]
    refused: str | None = None


def beginning(began: Mapping[Key, int], key: Key) -> int:
    """When that attempt began; a try's later attempts count from its first, and all that is unknown from the flow's."""
    name, run, _ = key
    return began.get(key) or began.get((name, run, 1)) or began[_FLOW]


def timers_of(state: FlowState | None, began: Mapping[Key, int]) -> Iterator[tuple[Timer, m.FireTimer]]:
    """Every timer that is set, and what fires it."""
    for command in due_commands(state, _EVER):
        body = command.body
        if isinstance(body, m.FireTimer):
            key = _FLOW if body.task is None else (names_of(body.task), body.run, max(1, body.attempt))
            yield (key, body.purpose, body.due - beginning(began, key)), body


def path_of(events: Iterable[m.Event]) -> list[Step]:
    """What was decided, in order: tasks begun and ended, branches taken, and the flow's end."""
    return [step for event in events if (step := _step(event)) is not None]


def _step(event: m.Event) -> Step | None:
    match event.body:
        case m.TaskScheduled() | m.ListenStarted() | m.SubflowStarted() | m.TaskStarted():
            what = "begins" if event.attempt == 1 else f"begins attempt {event.attempt}"
        case m.TaskCompleted(branch=branch):
            what = "is completed" if branch is None else f"takes {branch}"
        case m.TaskSkipped():
            what = "is skipped"
        case m.TaskFaulted(error=error):
            what = f"faults ({error.status})"
        case m.TaskCaught():
            what = "catches"
        case m.TaskCancelled():
            what = "is cancelled"
        case m.TaskIterated(index=index):
            what = f"begins iteration {index}"
        case m.FlowCompleted():
            what = "is completed"
        case m.FlowFaulted(error=error):
            what = f"faults ({error.status})"
        case m.FlowCancelled():
            what = "is cancelled"
        case m.FlowCompensating():
            what = "compensates"
        case _:
            return None
    return Step(names_of(event.task or ""), event.run, what)


class World:
    """What the log has recorded of the world around one flow."""

    def __init__(self, stored: Sequence[Stored]) -> None:
        self.first = stored[0].event
        self._told: dict[Key, deque[Told]] = {}
        self._began: dict[Key, int] = {_FLOW: self.first.time}
        self._timers: dict[Timer, int | None] = {}
        state: FlowState | None = None
        for group in groups(stored):
            self._record(group)
            for one in group:
                if isinstance(one.event.body, _BEGINNINGS):
                    self._began.setdefault(_key(one.event), one.event.time)
                state = evolve(state, one.event, digest(one.value))
                for timer, _ in timers_of(state, self._began):
                    self._timers.setdefault(timer, None)

    def _record(self, group: list[Stored]) -> None:
        first = group[0].event
        body = command_of(group)
        if body is None:
            return
        said = body.body
        tell: Callable[[str], m.CommandBody]
        match said:
            case m.CompleteTask() | m.FailTask() | m.HeartbeatTask() | m.DeliverEvent():
                tell = _telling(said)
                key = _key(first)
                if isinstance(said, m.FailTask):
                    key = (key[0], said.run, said.attempt)
            case m.CancelFlow():
                key, tell = _FLOW, lambda _: said
            case m.FireTimer():
                key = _FLOW if said.task is None else (names_of(said.task), said.run, max(1, said.attempt))
                began = beginning(self._began, key)
                self._timers[key, said.purpose, said.due - began] = first.time - began
                return
            case _:
                return
        after = first.time - beginning(self._began, key)
        self._told.setdefault(key, deque()).append((after, tell, first.actor))

    def fires(self, timer: Timer) -> int | None:
        """How long after its task began a timer fires; None: not while what is known went on."""
        return self._timers.get(timer, timer[2])

    def next_told(self, key: Key) -> Told | None:
        waiting = self._told.get(key)
        return waiting[0] if waiting else None

    def take(self, key: Key) -> Told:
        return self._told[key].popleft()


def _key(event: m.Event) -> Key:
    if isinstance(event.body, m.TaskRetried):
        return names_of(event.task or ""), event.run, event.attempt - 1
    return names_of(event.task or ""), event.run, max(1, event.attempt)


def _telling(
    said: m.CompleteTask | m.FailTask | m.HeartbeatTask | m.DeliverEvent,
) -> Callable[[str], m.CommandBody]:
    return lambda pointer: msgspec.structs.replace(said, task=pointer)


def decide_again(definition: Definition, stored: Sequence[Stored]) -> Again:
    """Raises only on a defect; a definition that does not take the flow's input faults the flow, as it would have."""
    if (turned := next((one.event for one in stored if _turns(one.event.body)), None)) is not None:
        text = f"it went on from a moment of the past (event {turned.sequence}), which only its own definition had"
        return Again([], None, (), text)
    world = World(stored)
    first = world.first
    begun = command_of([stored[0]])
    if begun is None or not isinstance(begun.body, m.StartFlow):
        return Again([], None, (), "it does not begin with its start")
    start = msgspec.structs.replace(begun.body, definition=definition.id)
    body = first.body
    version = body.engine_version if isinstance(body, m.FlowStarted) else ""
    again = _Deciding(definition, first, version)
    if (refused := again.decide(msgspec.structs.replace(begun, body=start), first.time)) is not None:
        return Again([], None, (), refused)
    limit = _COMMANDS_LEAST + 10 * len(stored)
    for _ in range(limit):
        if not isinstance(again.state, m.LiveFlow) or not again.step(world):
            break
    return Again(again.events, again.state, waits_of(again.state))


def _turns(body: m.EventBody) -> bool:
    return isinstance(body, m.FlowRollingBack) or (
        isinstance(body, m.FlowRestored) and body.restore.sequence > 0
    )


def waits_of(state: FlowState | None) -> tuple[str, ...]:
    """The tasks that wait for a worker, a person, an event or a sub-flow: those with none within, and no clock."""
    if not isinstance(state, m.LiveFlow):
        return ()
    around = {a.task[:at] for a in state.active for at in range(len(a.task)) if a.task[at] == "/"}
    innermost = [a for a in state.active if a.task not in around]
    return tuple(names_of(a.task) for a in innermost if a.purpose not in ("wait", "retry"))


class _Deciding:
    """The flow as it goes on; `now` is the virtual clock."""

    def __init__(self, definition: Definition, first: m.Event, version: str) -> None:
        self.state: FlowState | None = None
        self.events: list[m.Event] = []
        self._definition = definition
        self._first = first
        self._version = version
        self._began: dict[Key, int] = {_FLOW: first.time}
        self._sent = 0

    def step(self, world: World) -> bool:
        """The next thing that happens; False when nothing that is known does."""
        state = self.state
        assert isinstance(state, m.LiveFlow)
        if state.ready:
            return self._fire(due_commands(state, state.updated_at)[0], state.updated_at)
        fires = min(self._firing(world, state), default=None, key=lambda found: found[0])
        coming = min(self._coming(world, state), default=None, key=lambda found: found[0])
        if fires is not None and (coming is None or fires[0] <= coming[0]):
            at, body = fires
            now = max(state.updated_at, at)
            return self._fire(m.Command(f"again:{self._sent}", state.flow_id, now, TIMER, body), now)
        if coming is None:
            return False
        at, key, pointer = coming
        _, tell, actor = world.take(key)
        now = max(state.updated_at, at)
        self.decide(m.Command(f"again:{self._sent}", state.flow_id, now, actor, tell(pointer)), now)
        return True

    def _fire(self, command: m.Command, now: int) -> bool:
        """False for a timer that changes nothing: it would be due for ever."""
        before = self.state
        self.decide(command, now)
        return self.state is not before

    def _firing(self, world: World, state: m.LiveFlow) -> Iterator[tuple[int, m.FireTimer]]:
        for timer, body in timers_of(state, self._began):
            if (after := world.fires(timer)) is not None:
                yield beginning(self._began, timer[0]) + after, body

    def _coming(self, world: World, state: m.LiveFlow) -> Iterable[tuple[int, Key, str]]:
        if (told := world.next_told(_FLOW)) is not None:
            yield self._began[_FLOW] + told[0], _FLOW, ""
        for active in state.active:
            key = (names_of(active.task), active.run, max(1, active.attempt))
            if (told := world.next_told(key)) is not None:
                yield beginning(self._began, key) + told[0], key, active.task

    def decide(self, command: m.Command, now: int) -> str | None:
        """The refusal, if it is one: what the world told does not fit any more, and is passed over."""
        self._sent += 1
        cause = msgspec.structs.replace(self._first.cause, command_id=command.command_id)
        decision = decide(self._definition, self.state, command, cause, now, engine_version=self._version)
        if decision.rejection is not None:
            return decision.rejection.reason
        self.state = decision.state
        for recorded in decision.events:
            self.events.append(recorded.event)
            if isinstance(recorded.event.body, _BEGINNINGS):
                self._began.setdefault(_key(recorded.event), recorded.event.time)
        return None
