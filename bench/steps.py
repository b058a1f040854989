"""Tasks that need nobody: how many a second one engine performs, and what a step costs as more of them are finished.

`run` measures a whole installation (one engine; projections follow meanwhile). `curve` needs no servers: it performs a long
`for` and a wide `fork` through the core and prints, at each tenth, the bytes of the step's events and of the flow's snapshot.
"""

from __future__ import annotations

import time
from typing import Any

from bench.installation import Installation
from bench.load import Ends, Starter
from engine.core.decide import decide
from engine.core.evolve import FlowState
from engine.core.timers import due_commands
from engine.dsl.compile import compile_definition
from engine.dsl.model import Definition
from engine.dsl.source import parse
from engine.errors import AwayError
from schemas import messages as m
from schemas.codec import encode_snapshot

_HEAD = "document: {{dsl: '1.0.3', namespace: bench, name: {name}, version: '1.0.0', metadata: {{queue: bench}}}}\n"


def inline_definition(tasks: int) -> str:
    """`tasks` tasks in a line, every fifth a switch, the others set."""
    lines = []
    for number in range(tasks):
        if number % 5 == 4:
            lines.append(
                f"  - step{number}: {{switch: [{{big: {{when: .n > 1000, then: end}}}}, {{go: {{then: continue}}}}]}}\n"
            )
        else:
            lines.append(f"  - step{number}: {{set: {{n: '${{ .n + 1 }}', order: '${{ .order }}'}}}}\n")
    return _HEAD.format(name="inline") + "do:\n" + "".join(lines)


def run(flows: int, tasks: int) -> dict[str, Any]:
    """Starts `flows` flows of `tasks` in-engine tasks at once; the clock runs from the first start to the last end."""
    with Installation(workers=0) as installation:
        installation.publish(inline_definition(tasks))
        starter, ends = Starter(installation.kafka), Ends(installation.kafka)
        _drive(starter, ends, "warm", max(200, flows // 10))
        before = installation.processes.cpu_seconds()
        began = time.perf_counter()
        took = _drive(starter, ends, "flow", flows) - began
        cpu = {
            name: round(seconds - before.get(name, 0), 2)
            for name, seconds in installation.processes.cpu_seconds().items()
        }
        ends.close()
        return {
            "flows": flows,
            "tasks": tasks,
            "seconds": round(took, 2),
            "tasks_per_second": round(flows * tasks / took),
            "tasks_per_engine_cpu_second": round(flows * tasks / cpu["engine0"]),
            "cpu_seconds": cpu,
        }


def _drive(starter: Starter, ends: Ends, name: str, flows: int) -> float:
    waiting = {f"{name}-{number}" for number in range(flows)}
    for flow_id in sorted(waiting):
        starter.start(flow_id, "bench/inline@1.0.0", b'{"n":0,"order":12345}')
    starter.flush()
    last, give_up = time.perf_counter(), time.monotonic() + 300
    while waiting:
        for flow_id, at in ends.poll(0.05):
            waiting.discard(flow_id)
            last = at
        if time.monotonic() > give_up:
            raise AwayError(f"Expected every flow to end within 300 s but {len(waiting)} did not")
    return last


# -- the curve ------------------------------------------------------------------------------------------------------


class _Flow:
    """One flow in this process: no log is kept, only what a step costs."""

    def __init__(self, definition: Definition) -> None:
        self.definition = definition
        self.state: FlowState | None = None
        self.sent = 0
        self.event_bytes = 0
        self.events = 0

    def send(self, command: m.Command) -> None:
        self.sent += 1
        cause = m.Cause(command.command_id, 0, self.sent)
        made = decide(self.definition, self.state, command, cause, command.time)
        self.state = made.state
        self.event_bytes += sum(len(recorded.value) for recorded in made.events)
        self.events += len(made.events)

    def command(self, body: m.CommandBody) -> None:
        self.send(
            m.Command(
                f"c{self.sent}", "flow", 1_700_000_000_000_000 + self.sent, m.Actor("worker", "w"), body
            )
        )

    def take(self) -> tuple[int, int]:
        """Mean bytes an event since the last call, bytes of the snapshot now."""
        mean = round(self.event_bytes / max(1, self.events))
        self.event_bytes = self.events = 0
        return mean, 0 if self.state is None else len(encode_snapshot(self.state))


def curve(items: int, branches: int) -> dict[str, Any]:
    """At each tenth of the way: `[finished, bytes an event, bytes of the snapshot]`."""
    return {
        "for_in_engine": _for_in_engine(items),
        "for_with_worker": _for_with_worker(items),
        "fork_with_worker": _fork(branches),
    }


def _for_in_engine(items: int) -> list[list[int]]:
    text = (
        _HEAD.format(name="loop")
        + "do: [{l: {for: {each: n, in: .ns}, do: [{s: {set: {ns: '${ [] }', last: '${ $n }'}}}]}}]"
    )
    flow = _Flow(compile_definition(parse(text)))
    flow.command(m.StartFlow("bench/loop@1.0.0", _numbers(items)))
    points = [[0, *flow.take()]]
    while isinstance(flow.state, m.LiveFlow):
        for command in due_commands(flow.state, 1 << 60):
            flow.send(command)
        done = flow.state.active[0].index if isinstance(flow.state, m.LiveFlow) else items
        points.append([done, *flow.take()])
    return points


def _numbers(items: int) -> bytes:
    return b'{"ns":[' + b",".join(b"%d" % number for number in range(items)) + b"]}"


def _for_with_worker(items: int) -> list[list[int]]:
    text = (
        _HEAD.format(name="loop")
        + "do: [{l: {for: {each: n, in: .ns}, do: [{w: {call: f, with: {n: '${ $n }'}}}]}}]"
    )
    flow = _Flow(compile_definition(parse(text)))
    flow.command(m.StartFlow("bench/loop@1.0.0", _numbers(items)))
    points = [[0, *flow.take()]]
    for number in range(items):
        flow.command(m.CompleteTask("/do/0/l/do/0/w", number + 1, 1, b'{"done":true}'))
        if (number + 1) % max(1, items // 10) == 0:
            points.append([number + 1, *flow.take()])
    return points


def _fork(branches: int) -> list[list[int]]:
    listed = ", ".join(f"{{b{number}: {{call: f}}}}" for number in range(branches))
    flow = _Flow(
        compile_definition(
            parse(_HEAD.format(name="fork") + f"do: [{{f: {{fork: {{branches: [{listed}]}}}}}}]")
        )
    )
    flow.command(m.StartFlow("bench/fork@1.0.0", b"{}"))
    for command in due_commands(flow.state, 1 << 60):
        flow.send(command)
    points = [[0, *flow.take()]]
    for number in range(branches):
        flow.command(m.CompleteTask(f"/do/0/f/fork/branches/{number}/b{number}", 1, 1, b'{"done":true}'))
        if (number + 1) % max(1, branches // 10) == 0:
            points.append([number + 1, *flow.take()])
    return points
