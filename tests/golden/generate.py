"""Writes the golden log of the newest event schema: run once, when a schema is released, and never again for it.

python -m tests.golden.generate > tests/golden/event-v3.jsonl
"""

from __future__ import annotations

import json

from schemas import messages as m
from schemas.registry import newest
from tests.flows import USER, Run, definition

DOWN = m.Error("https://x.test/down", 503, "Down")
_TRIP = """
use:
  functions: {undo: {call: cancel, with: {id: '${ .output.id }'}}}
timeout: {after: PT1H}
do:
  - book: {call: book, with: {name: '${ .name }'}, metadata: {compensate: undo, heartbeat: PT10S}}
  - both:
      fork:
        branches:
          - wait: {wait: PT5S}
          - loop: {for: {each: n, in: '[1, 2]'}, do: [{add: {set: {sum: '${ (.sum // 0) + $n }'}}}]}
  - decide:
      call: decision
      with:
        name: size
        inputs: [{name: big, expression: '.[1].sum > 2'}]
        outputs: [{name: kind}]
        rules: [{when: [true], then: [large]}, {when: [false], then: [small]}]
  - tell: {emit: {event: {with: {source: https://x.test, type: decided, data: '${ . }'}}}}
  - hear:
      listen: {to: {any: [{with: {type: heard}}], until: '( . | length ) == 2'}}
      foreach: {item: event, do: [{note: {set: '${ $event }'}}]}
  - pay:
      try: [{charge: {call: charge}}]
      catch: {errors: {with: {status: 503}}, retry: {delay: PT2S, limit: {attempt: {count: 1}}}, do: [{give: {set: {paid: false}}}]}
  - sub: {run: {workflow: {namespace: test, name: child, version: '1.0.0'}}}
  - ok: {call: approval, with: {title: Sure?, form: {type: object}}}
"""
TRIP = definition(_TRIP, "trip")
LATER = definition(
    _TRIP.replace("  - sub:", "  - size: {set: '${ . + {sized: true} }'}\n  - sub:"), "trip", version="1.1.0"
)


def until_payment(flow_id: str) -> Run:
    run = Run(TRIP, flow_id)
    run.start({"name": "Ada"})
    run.send(m.HeartbeatTask("/do/0/book", 1, 1, b'{"done":0.5}'))
    run.complete("/do/0/book", {"id": "b1"})
    run.advance(5)
    for number in range(2):
        run.deliver("/do/4/hear", {"type": "heard", "data": {"n": number}})
    run.fail("/do/5/pay/try/0/charge", DOWN)
    run.advance(2)
    return run


def flows() -> list[Run]:
    completed = until_payment("completed")
    completed.complete("/do/5/pay/try/0/charge", {"paid": True}, run=2)
    completed.complete("/do/6/sub", {"child": "done"})
    completed.send(m.CompleteTask("/do/7/ok", 1, 1, b'{"approved":true}'), actor=USER)

    faulted = until_payment("faulted")
    faulted.fail("/do/5/pay/try/0/charge", DOWN, run=2)
    faulted.fail("/do/6/sub", m.Error("https://x.test/child", 500))
    faulted.complete("/do/0/book/metadata/compensate", None)

    cancelled = until_payment("cancelled")
    cancelled.send(m.SuspendFlow("lunch"), actor=USER)
    cancelled.send(m.ResumeFlow("back"), actor=USER)
    cancelled.send(m.CancelFlow("enough", compensate=True), actor=USER)
    cancelled.complete("/do/0/book/metadata/compensate", None)

    late = Run(TRIP, "late")
    late.start({"name": "Eve"})
    late.advance(40)

    migrated = until_payment("migrated")
    migrated.migrate(LATER, "asks first")
    migrated.complete("/do/5/pay/try/0/charge", {"paid": True}, run=2)

    back = until_payment("back")
    back.send(m.RollBackFlow(back.moment(2), "another trip"), actor=USER)
    back.complete("/do/0/book/metadata/compensate", None)
    back.complete("/do/0/book", {"id": "b2"}, run=2)

    again = Run(TRIP, "again")
    again.send(
        m.StartFlow(TRIP.id, b'{"name":"Ada"}', None, faulted.moment(moment_of(faulted, "charge"))),
        actor=USER,
    )
    return [completed, faulted, cancelled, late, migrated, back, again]


def moment_of(run: Run, name: str) -> int:
    """The end of the decision that scheduled the task."""
    passed = 0
    for decision in run.decisions:
        passed += len(decision)
        last = decision[-1].event
        if isinstance(last.body, m.TaskScheduled) and (last.task or "").endswith(name):
            return passed
    raise AssertionError(name)


def main() -> None:
    head = {
        "schema": f"event-v{newest('event').version}",
        "definitions": [TRIP.document, LATER.document],
    }
    print(json.dumps(head))
    for run in flows():
        run.verify()
        for stored in run.log:
            print(json.dumps({"flow": run.flow_id, "value": stored.value.hex()}))


if __name__ == "__main__":
    main()
