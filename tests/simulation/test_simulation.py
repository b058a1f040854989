"""Seeded simulation of the whole engine. `--seeds N` runs more, `--seed N` repeats one."""

from __future__ import annotations

import pytest

from engine.core.evolve import BrokenLog
from engine.dsl.compile import compile_definition
from engine.dsl.model import Definition
from engine.dsl.source import parse
from engine.simulation.log import PartitionLog
from engine.simulation.world import Broken, World

LINE = """
document: {dsl: '1.0.3', namespace: sim, name: line, version: '1.0.0'}
do:
  - a: {call: f}
  - b: {call: g, input: {from: .given}, output: {as: '{n: .n, was: $input}'}, export: {as: '{b: .n}'}}
  - c: {call: h, with: {n: '${ .n }', b: '${ $context.b }'}}
"""

LOOP = """
document: {dsl: '1.0.3', namespace: sim, name: loop, version: '1.0.0'}
input: {schema: {document: {type: object, required: [left]}}}
do:
  - work: {call: f, with: {left: '${ .left }'}, output: {as: '{left: ($input.left - 1)}'}}
  - again:
      switch:
        - more: {when: .left > 0, then: work}
        - done: {then: end}
"""

NESTED = """
document: {dsl: '1.0.3', namespace: sim, name: nested, version: '1.0.0'}
do:
  - outer:
      do:
        - skipped: {if: '.never == true', call: f}
        - inner:
            do:
              - first: {call: f}
              - stop: {if: '.n < 300', set: {stopped: true}, then: exit}
              - second: {call: g}
            output: {as: '. + {inner: true}'}
        - failing: {if: '.n > 900', raise: {error: {type: 'https://example.com/too-high', status: 422, title: Too high}}}
      export: {as: '{outer: .}'}
  - last: {set: {result: '${ . }', context: '${ $context }', at: '${ $task.startedAt.epoch.seconds }'}}
output: {as: .result}
"""

WAITING = """
document: {dsl: '1.0.3', namespace: sim, name: waiting, version: '1.0.0'}
do:
  - both:
      fork:
        branches:
          - rest: {wait: PT5S}
          - work: {call: f, timeout: {after: PT30S}}
  - last: {wait: PT2S}
"""

LISTENING = """
document: {dsl: '1.0.3', namespace: sim, name: listening, version: '1.0.0'}
do:
  - go:
      listen:
        to:
          one:
            with: {type: go}
            correlate: {flow: {from: .data.flow, expect: '${ $workflow.id }'}}
  - tell: {emit: {event: {with: {type: told, source: 'https://sim.test/', data: {flow: '${ $workflow.id }'}}}}}
  - heard:
      listen:
        to:
          one:
            with: {type: told}
            correlate: {flow: {from: .data.flow, expect: '${ $workflow.id }'}}
"""

LIMITED = """
document: {dsl: '1.0.3', namespace: sim, name: limited, version: '1.0.0'}
do:
  - one: {call: f, metadata: {concurrency: 1}}
  - two: {call: f, metadata: {concurrency: 1}, timeout: {after: PT1H}}
"""

AROUND = """
document: {dsl: '1.0.3', namespace: sim, name: around, version: '1.0.0'}
do:
  - child: {run: {workflow: {namespace: sim, name: line, version: '1.0.0', input: {order: 9}}}}
"""


@pytest.fixture(scope="module")
def definitions() -> list[Definition]:
    return [
        compile_definition(parse(text)) for text in (LINE, LOOP, NESTED, WAITING, LISTENING, LIMITED, AROUND)
    ]


INPUTS = [
    ("sim/line@1.0.0", b'{"order": 1}'),
    ("sim/loop", b'{"left": 3}'),
    ("sim/loop", b'{"left": 0}'),
    ("sim/loop", b"{}"),
    ("sim/nested@1.0.0", b'{"n": 5}'),
    ("sim/waiting", b"{}"),
    ("sim/listening", b"{}"),
    ("sim/limited", b"{}"),
    ("sim/around", b"{}"),
]


def test_flows_survive_crashes_duplicates_reordering_and_rebalances(
    definitions: list[Definition], request: pytest.FixtureRequest
) -> None:
    single = request.config.getoption("--seed")
    seeds = range(request.config.getoption("--seeds")) if single is None else [single]
    crashes = fenced = 0
    for seed in seeds:
        try:
            counts = World(seed, definitions, INPUTS).run()
        except (Broken, AssertionError) as broken:
            pytest.fail(f"{broken}\nrepeat: python -m pytest tests/simulation --seed {seed}")
        crashes += counts.crashes + counts.uncertain
        fenced += counts.fenced
    if single is None and len(seeds) >= 50:
        assert crashes > len(seeds)
        assert fenced > len(seeds) / 2


def run_twenty(definitions: list[Definition]) -> None:
    for seed in range(20):
        World(seed, definitions, INPUTS).run()


def test_a_node_that_restores_nothing_is_found(
    definitions: list[Definition], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(World, "_restore", lambda self, log: ({}, -1))
    with pytest.raises((Broken, BrokenLog)):
        run_twenty(definitions)


def test_a_zombie_that_is_not_fenced_is_found(
    definitions: list[Definition], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(PartitionLog, "fence", lambda self: 0)
    with pytest.raises((Broken, BrokenLog)):
        run_twenty(definitions)
