"""Random definitions under random results, crashes and timer orders: a state machine that looks for lost tokens.

Laws, after every step: a flow that lives waits for something named, or yielded; its state is the fold of its log and
survives its snapshot. At the end: every started run ended exactly once, and replay decides to the same bytes.
"""

from __future__ import annotations

import copy
import json
from collections import Counter
from itertools import chain
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from engine.core import interpret
from engine.core.evolve import digest, evolve
from engine.core.timers import next_due
from engine.dsl.compile import compile_definition
from engine.dsl.model import Approval, Call, Definition, Listen, Subflow, Try, Wait
from engine.tasks.sandbox import ProcessSandbox
from replay.whatif import judge
from schemas import messages as m
from schemas.codec import decode_snapshot, encode_snapshot
from tests.flows import Run
from tests.simulation.definitions import documents

SANDBOX = ProcessSandbox()
BEGUN = (m.TaskStarted, m.SubflowStarted, m.ListenStarted)
OVER = (m.TaskCompleted, m.TaskFaulted, m.TaskCancelled)
FAILED = m.Error("https://x.test/failed", 500)


class World:
    """Flows that start each other. `post` holds commands on their way; nothing else connects them."""

    def __init__(self, definitions: list[Definition]) -> None:
        self.definitions = {definition.id: definition for definition in definitions}
        self.runs: dict[str, Run] = {}
        self.post: list[m.Command] = []
        self.now = 1_700_000_000_000_000

    def start(self, definition: Definition) -> None:
        run = self.runs["f1"] = Run(definition, "f1")
        run.start({})
        self._collect(run)

    def _collect(self, run: Run) -> None:
        for effect in run.effects:
            if isinstance(effect, m.Command) and not isinstance(effect.body, m.TellEntity):
                self.post.append(effect)
        run.effects.clear()

    def carry(self, number: int) -> None:
        """One command arrives, whichever; per flow the order is kept."""
        command = self.post[number % len(self.post)]
        command = next(c for c in self.post if c.flow_id == command.flow_id)
        self.post.remove(command)
        body = command.body
        if isinstance(body, m.StartFlow):
            self.runs[command.flow_id] = Run(self.definitions[body.definition], command.flow_id)
        run = self.runs[command.flow_id]
        run.now = max(run.now, self.now)
        run.send(body, actor=command.actor, command_id=command.command_id)
        self._collect(run)

    def act(self, run: Run, body: m.CommandBody) -> None:
        run.now = max(run.now, self.now)
        run.send(body)
        self._collect(run)

    def wake(self, run: Run) -> None:
        run.tick()
        self.now = max(self.now, run.now)
        self._collect(run)

    @property
    def living(self) -> list[Run]:
        return [run for run in self.runs.values() if isinstance(run.state, m.LiveFlow)]

    def leaves(self, kind: Any) -> list[tuple[Run, m.ActiveTask]]:
        found: list[tuple[Run, m.ActiveTask]] = []
        for run in self.living:
            assert isinstance(run.state, m.LiveFlow)
            tasks = run.definition.tasks
            found += [(run, active) for active in run.state.active if isinstance(tasks[active.task], kind)]
        return found


def check_waits(run: Run) -> None:
    """A live flow waits for a worker, a person, an event, a sub-flow or a timer, in every branch; or it yielded."""
    state = run.state
    assert isinstance(state, m.LiveFlow)
    if state.ready:
        return
    waiting = run.waiting
    assert waiting, f"{run.flow_id} lives but waits for nothing"
    for pointer in waiting:
        task = run.definition.tasks[pointer]
        active = next(a for a in state.active if a.task == pointer)
        named = isinstance(task, Call | Approval | Listen | Subflow)
        timed = isinstance(task, Wait | Try) and active.due > 0
        assert named or timed, f"{pointer} of {run.flow_id} is active but nothing will wake it"


def _moved(counts: Counter[tuple[str, int]], moved: dict[str, str]) -> Counter[tuple[str, int]]:
    """By the names the tasks have now; a task that is not in the state of the flow keeps its own."""
    return Counter({(moved.get(task, task), run): count for (task, run), count in counts.items()})


def check_log(run: Run) -> None:
    """Every run that began ended exactly once, if the flow did; and deciding again gives the same bytes."""
    begun: Counter[tuple[str, int]] = Counter()
    over: Counter[tuple[str, int]] = Counter()
    for stored in run.log:
        event = stored.event
        key = (event.task or "", event.run)
        if isinstance(event.body, BEGUN) or (isinstance(event.body, m.TaskScheduled) and event.attempt == 1):
            begun[key] += 1
        if isinstance(event.body, m.FlowRestored):
            begun.update((again.task, again.run) for again in event.body.active)
        if isinstance(event.body, m.FlowMigrated):
            begun, over = (_moved(counts, event.body.moved) for counts in (begun, over))
        if isinstance(event.body, OVER):
            over[key] += 1
    assert all(count == 1 for count in begun.values()), begun
    assert all(count == 1 for count in over.values()), over
    if isinstance(run.state, m.EndedFlow):
        assert not begun.keys() - over.keys()
    run.verify()


class RandomFlows(RuleBasedStateMachine):
    """One flow and those it starts."""

    same_way = True
    """What-if under its own definition tells a flow the same results at the same times, so it goes the same way."""

    @initialize(parent=documents("parent", children=True), child=documents("child", children=False))
    def publish(self, parent: dict[str, Any], child: dict[str, Any]) -> None:
        compiled = [compile_definition(document, sandbox=SANDBOX) for document in (parent, child)]
        self.world = World(compiled)
        self.world.start(compiled[0])
        document = copy.deepcopy(parent)
        document["document"]["version"] = "2.0.0"
        document["do"].insert(0, {"added": {"set": {"added": True}}})
        later = compile_definition(document, sandbox=SANDBOX)
        self.world.runs["f1"].published[later.id] = later
        self.versions = {compiled[0].id: later.id, later.id: compiled[0].id}

    @rule(pick=st.integers(0, 99), result=st.sampled_from([None, 1, {"n": 1}, {"n": 2}, [3]]))
    def complete(self, pick: int, result: Any) -> None:
        if calls := self.world.leaves(Call):
            run, active = calls[pick % len(calls)]
            body = m.CompleteTask(active.task, active.run, active.attempt, json.dumps(result).encode())
            self.world.act(run, body)

    @rule(pick=st.integers(0, 99))
    def fail(self, pick: int) -> None:
        if calls := self.world.leaves(Call):
            run, active = calls[pick % len(calls)]
            self.world.act(run, m.FailTask(active.task, active.run, active.attempt, FAILED))

    @rule(pick=st.integers(0, 99))
    def late(self, pick: int) -> None:
        """A result that nobody waits for any more changes nothing."""
        if calls := self.world.leaves(Call):
            run, active = calls[pick % len(calls)]
            self.world.act(run, m.CompleteTask(active.task, active.run, active.attempt + 1, b"1"))
            assert run.last is not None
            assert run.last.events == ()

    @rule(pick=st.integers(0, 99), kind=st.sampled_from(["made", "other", "unknown"]))
    def event(self, pick: int, kind: str) -> None:
        if listens := self.world.leaves(Listen):
            run, active = listens[pick % len(listens)]
            event = {"specversion": "1.0", "id": "e", "source": "/t", "type": kind, "data": {"n": 5}}
            number = 0 if kind == "made" else 1
            self.world.act(run, m.DeliverEvent(active.task, active.run, number, json.dumps(event).encode()))

    @rule(pick=st.integers(0, 99))
    def carry(self, pick: int) -> None:
        if self.world.post:
            self.world.carry(pick)

    @rule(pick=st.integers(0, 99))
    def timer(self, pick: int) -> None:
        if timed := [run for run in self.world.living if next_due(run.state)]:
            self.world.wake(timed[pick % len(timed)])

    @rule(pick=st.integers(0, 99))
    def crash(self, pick: int) -> None:
        """The owner is gone: the next one has the snapshot, or folds the log."""
        runs = list(self.world.runs.values())
        run = runs[pick % len(runs)]
        folded = None
        for stored in run.log:
            folded = evolve(folded, stored.event, digest(stored.value))
        assert folded == run.state
        if run.state is not None:
            restored = decode_snapshot(encode_snapshot(run.state))
            assert restored == run.state
            assert isinstance(restored, m.LiveFlow | m.EndedFlow)
            run.state = restored

    @rule(compensate=st.booleans(), chance=st.integers(0, 9))
    def cancel(self, compensate: bool, chance: int) -> None:
        if chance == 0 and isinstance(self.world.runs["f1"].state, m.LiveFlow):
            self.world.act(self.world.runs["f1"], m.CancelFlow("enough", compensate))

    @rule(chance=st.integers(0, 9))
    def pause(self, chance: int) -> None:
        run = self.world.runs["f1"]
        if chance == 0 and isinstance(run.state, m.LiveFlow):
            self.world.act(run, m.SuspendFlow("wait"))
            self.world.act(run, m.ResumeFlow("go"))

    @rule(pick=st.integers(0, 999), chance=st.integers(0, 4))
    def roll_back(self, pick: int, chance: int) -> None:
        """To the end of any decision; a moment that cannot be restored is refused and changes nothing."""
        run = self.world.runs["f1"]
        if chance or not isinstance(run.state, m.LiveFlow):
            return
        ends = [len(list(chain(*run.decisions[: n + 1]))) for n in range(len(run.decisions))]
        self.world.act(run, m.RollBackFlow(run.moment(ends[pick % len(ends)])))
        assert run.last is not None
        if run.last.rejection is not None:
            assert run.last.rejection.code == "not-restorable"
        else:
            self.same_way = False  # what-if does not go back

    @rule(chance=st.integers(0, 4))
    def migrate(self, chance: int) -> None:
        """To a version whose tasks all stand one place further on, or back."""
        run = self.world.runs["f1"]
        if chance or not isinstance(run.state, m.LiveFlow):
            return
        self.world.act(run, m.MigrateFlow(self.versions[run.state.definition]))
        assert run.last is not None
        if run.last.rejection is not None:
            assert run.last.rejection.code == "not-migratable"

    @invariant()
    def every_flow_waits_for_something(self) -> None:
        for run in self.world.living if hasattr(self, "world") else ():
            check_waits(run)

    def teardown(self) -> None:
        """Everybody answers; then everything has ended, and the logs are checked."""
        if not hasattr(self, "world"):
            return
        world = self.world
        for _ in range(3000):
            if not world.living:
                break
            self._finish(world)
        assert not world.living, "flows that do not end although everybody answers"
        for run in world.runs.values():
            check_log(run)
            if self.same_way:
                first = run.published[run.log[0].event.definition]
                assert judge(first, run.log).kind == "same"

    def _finish(self, world: World) -> None:
        if world.post:
            world.carry(0)
        elif calls := world.leaves(Call):
            run, active = calls[0]
            world.act(run, m.CompleteTask(active.task, active.run, active.attempt, b'{"n":0}'))
        elif listens := world.leaves(Listen):
            run, active = listens[0]
            event = b'{"specversion":"1.0","id":"e","source":"/t","type":"made","data":{}}'
            world.act(run, m.DeliverEvent(active.task, active.run, 0, event))
        else:
            world.wake(next(run for run in world.living if next_due(run.state)))


class RandomYieldingFlows(RandomFlows):
    """The same, in decisions so short that nearly every one yields."""

    same_way = (
        False  # here time passes within what is one decision for what-if, and a race may go the other way
    )

    def __init__(self) -> None:
        super().__init__()
        self._steps = interpret.STEPS_OF_DECISION
        interpret.STEPS_OF_DECISION = 2  # type: ignore[misc]

    def teardown(self) -> None:
        try:
            super().teardown()
        finally:
            interpret.STEPS_OF_DECISION = self._steps  # type: ignore[misc]


TestRandomFlows = RandomFlows.TestCase
TestRandomYieldingFlows = RandomYieldingFlows.TestCase
TestRandomFlows.settings = TestRandomYieldingFlows.settings = settings(
    max_examples=150,
    stateful_step_count=30,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
)
