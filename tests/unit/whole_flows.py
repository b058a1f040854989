"""Flows of every kind of task, with the logs an engine writes of them, for the tests of projections and replay."""

from __future__ import annotations

from itertools import pairwise

from engine.dsl.model import Definition
from projections.logged import Logged
from schemas import messages as m
from tests.flows import USER, Run, definition

DOWN = m.Error("https://x.test/down", 503, "Down")

_BRANCHES = """
do:
  - cut: {set: {a: 1, b: 2}, if: .go}
  - split:
      input: {from: '{n: .a}'}
      fork:
        branches:
          - first: {do: [{one: {set: {x: '${ .n }'}}}, {two: {call: f}}]}
          - second: {if: 'false', set: {never: true}}
          - third: {wait: PT5S}
      output: {as: '{all: .}'}
  - nested: {fork: {branches: [{l: {fork: {branches: [{p: {set: {p: 1}}}, {q: {call: f}}]}}}, {r: {set: {r: 2}}}]}}
  - race: {fork: {compete: true, branches: [{slow: {wait: PT1H}}, {fast: {call: f, output: {as: .n}}}]}}
  - end: {set: {was: '${ . }'}}
"""
BRANCHES = definition(_BRANCHES, "branches")
MOVED = definition(
    _BRANCHES.replace("  - cut:", "  - added: {set: {never: here}}\n  - cut:"), "branches", version="1.1.0"
)
RETRIES = definition(
    """
do:
  - before: {set: {n: 1}}
  - outer:
      input: {from: '{n: (.n + 1)}'}
      try:
        - count: {set: {m: '${ .n }'}}
        - work: {call: f}
      catch:
        as: problem
        retry: {delay: PT2S, backoff: {constant: {}}, limit: {attempt: {count: 2, duration: PT1M}}}
        do: [{told: {set: {told: '${ $problem.status }'}}}, {ask: {call: g}}]
  - silent: {call: h, metadata: {heartbeat: PT10S}}
  - loop: {for: {in: '[1, 2, 3]', each: k}, while: '$k < 3', do: [{add: {call: f, with: {k: '${ $k }'}}}]}
  - after: {set: '${ . }'}
""",
    "retries",
)
EVENTS = definition(
    """
do:
  - one: {listen: {to: {one: {with: {type: a}}}}}
  - keep: {set: {got: '${ .[0] }'}}
  - some:
      listen: {to: {any: [{with: {type: a}}], until: '( . | length ) == 2'}, read: envelope}
      foreach:
        item: event
        do: [{note: {set: '${ {was: $event.data, data: .} }'}}, {work: {call: f}}]
        output: {as: '{did: .}'}
        export: {as: '{last: .}'}
  - stop: {listen: {to: {any: [{with: {type: a}}], until: {one: {with: {type: z}}}}, read: raw}}
  - tell: {emit: {event: {with: {source: https://x.test, type: told, data: '${ . }'}}}}
  - sure: {call: approval, with: {title: Sure?}}
  - child: {run: {workflow: {namespace: test, name: child, version: '1.0.0', input: {x: 1}}}}
  - big:
      call: decision
      with:
        name: size
        inputs: [{name: big, expression: '.x > 2'}]
        outputs: [{name: kind}]
        rules: [{when: [true], then: [large]}, {when: [false], then: [small]}]
""",
    "events",
)
TRIP = definition(
    """
timeout: {after: PT1H}
use:
  functions: {undo: {call: cancel, with: {id: '${ .output.id }'}}}
do:
  - hotel: {call: book, metadata: {compensate: undo}}
  - flight: {call: book, metadata: {compensate: {do: [{a: {call: cancel}}, {b: {call: cancel}}]}}}
  - rest: {wait: PT2H}
""",
    "trip",
)
EXTENDED = definition(
    """
use:
  extensions:
    - log:
        extend: call
        when: '$task.call == "pay"'
        before: [{b: {set: {seen: true}}}]
        after: [{c: {call: note}}]
do:
  - paid: {call: pay, output: {as: '{paid: .}'}}
  - other: {call: ship}
  - after: {set: '${ . }'}
""",
    "extended",
)
LONG = definition("do: [{loop: {for: {in: .items, each: n}, do: [{a: {set: {n: '${ $n }'}}}]}}]", "long")
DEFINITIONS: dict[str, Definition] = {
    d.id: d for d in (BRANCHES, MOVED, RETRIES, EVENTS, TRIP, EXTENDED, LONG)
}


def branches(flow_id: str = "branches") -> Run:
    run = Run(BRANCHES, flow_id)
    run.start({"go": True})
    run.complete("/do/1/split/fork/branches/0/first/do/1/two", "two")
    run.advance(5)
    run.complete("/do/2/nested/fork/branches/0/l/fork/branches/1/q", [3])
    run.complete("/do/3/race/fork/branches/1/fast", {"n": 7})
    return run


def retries(flow_id: str = "retries") -> Run:
    run = Run(RETRIES, flow_id)
    run.start({})
    work = "/do/1/outer/try/1/work"
    run.fail(work, DOWN)
    run.advance(2)
    run.advance(60)
    run.advance(2)
    run.fail(work, DOWN, run=3)
    run.complete("/do/1/outer/catch/do/1/ask", "asked")
    run.send(m.HeartbeatTask("/do/2/silent", 1, 1, b'{"done":0.5}'))
    run.advance(11)
    run.send(m.FailTask("/do/2/silent", 1, 2, DOWN, incident=True))
    run.send(m.ResumeFlow("looked at it"), actor=USER)
    run.complete("/do/2/silent", "heard", attempt=3)
    run.complete("/do/3/loop/do/0/add", 10)
    run.complete("/do/3/loop/do/0/add", 20, run=2)
    return run


def events(flow_id: str = "events") -> Run:
    run = Run(EVENTS, flow_id)
    parent = m.Parent("parent-1", "/do/0/sub", 1, 1)
    run.send(m.StartFlow(EVENTS.id, b'{"x":1}', parent), actor=USER)
    run.deliver("/do/0/one", {"type": "a", "data": {"n": 1.50}})
    for number in range(2):
        run.deliver("/do/2/some", {"type": "a", "data": number})
    run.complete("/do/2/some/foreach/do/1/work", "A")
    run.complete("/do/2/some/foreach/do/1/work", "B", run=2)
    run.deliver("/do/3/stop", {"type": "a", "data": {"n": 1}})
    run.send(m.SuspendFlow("a moment"), actor=USER)
    run.send(m.ResumeFlow(), actor=USER)
    run.deliver("/do/3/stop", {"type": "z"}, number=1)
    run.complete("/do/5/sure", {"yes": True})
    run.complete("/do/6/child", {"x": 3})
    return run


def trip(flow_id: str = "trip", *, end: bool = True) -> Run:
    run = Run(TRIP, flow_id)
    run.start({"name": "Ada"})
    run.complete("/do/0/hotel", {"id": "h1"})
    run.complete("/do/1/flight", {"id": "f1"})
    if end:
        run.advance(3600)
        run.complete("/do/1/flight/metadata/compensate/do/0/a", "x")
        run.fail("/do/1/flight/metadata/compensate/do/1/b", DOWN)
        run.complete("/do/0/hotel/metadata/compensate", None)
    return run


def extended(flow_id: str = "extended") -> Run:
    run = Run(EXTENDED, flow_id)
    run.start({"n": 1})
    run.complete("/do/0/paid/extended", 5)
    run.complete("/do/0/paid/extensions/0/after/0/c", "dropped")
    run.complete("/do/1/other/extended", {"sent": True})
    return run


def long(flow_id: str = "long") -> Run:
    run = Run(LONG, flow_id)
    run.start({"items": list(range(1100))})
    while run.tick():
        pass
    return run


def turned(flow_id: str = "turned") -> Run:
    """Rolled back, within a loop and to before something that is undone, and migrated while branches are under way."""
    run = Run(BRANCHES, flow_id)
    run.start({"go": True})
    begun = len(run.log)
    run.complete("/do/1/split/fork/branches/0/first/do/1/two", "two")
    once = len(run.log)
    run.advance(5)
    run.roll_back(once, "again")
    run.advance(5)
    run.roll_back(begun)
    run.complete("/do/1/split/fork/branches/0/first/do/1/two", "other", run=2)
    run.migrate(MOVED)
    run.advance(5)
    run.complete("/do/2/nested/fork/branches/0/l/fork/branches/1/q", [3], run=3)
    run.complete("/do/4/race/fork/branches/1/fast", {"n": 8})
    return run


def turned_trip(flow_id: str = "turned-trip") -> Run:
    run = trip(flow_id, end=False)
    run.roll_back(4)
    run.complete("/do/1/flight/metadata/compensate/do/0/a", "x")
    run.complete("/do/1/flight/metadata/compensate/do/1/b", "x")
    run.complete("/do/1/flight", {"id": "f2"}, run=2)
    run.send(m.CancelFlow("enough", compensate=True), actor=USER)
    return run


def turned_retries(flow_id: str = "turned-retries") -> Run:
    run = retries(flow_id)
    first = run.moment(moment_before(run, "loop"))
    again = Run(RETRIES, flow_id)
    again.send(m.StartFlow(RETRIES.id, b"{}", None, first), actor=USER)
    return again


def moment_before(run: Run, name: str) -> int:
    """The end of the decision before the one that began the task."""
    passed = 0
    for decision in run.decisions:
        if any((one.event.task or "").endswith(name) for one in decision):
            return passed
        passed += len(decision)
    raise AssertionError(name)


def every() -> list[Run]:
    """One flow of each definition and their middles; together they hold every event that `decide` gives."""
    cancelled = trip("trip-cancelled", end=False)
    cancelled.send(m.CancelFlow("changed my mind", compensate=True), actor=USER)
    cancelled.complete("/do/1/flight/metadata/compensate/do/0/a", "x")
    waiting = trip("trip-waiting", end=False)
    return [
        branches(),
        retries(),
        events(),
        trip(),
        waiting,
        cancelled,
        extended(),
        long(),
        turned(),
        turned_trip(),
        turned_retries(),
    ]


def logged(run: Run, partition: int = 0, first: int = 0) -> list[Logged]:
    return [Logged(stored.event, stored.value, partition, first + at) for at, stored in enumerate(run.log)]


def decisions(run: Run) -> list[int]:
    """Where in the log a decision ends: the projector sees no part of one."""
    ends = [at for at, (a, b) in enumerate(pairwise(run.log), 1) if a.event.cause != b.event.cause]
    return [*ends, len(run.log)]
