"""for, fork and the directives within them: tokens are neither lost nor doubled, and replay gives the same bytes."""

from __future__ import annotations

import pytest

from schemas import messages as m
from schemas.codec import encode_snapshot
from tests.flows import Run, definition

EXPRESSION = "https://serverlessworkflow.io/spec/1.0.0/errors/expression"


def ended(text: str, data: object = None) -> Run:
    run = Run(definition(text))
    run.start(data)
    run.verify()
    return run


# -- for ----------------------------------------------------------------------------------------------------------------


def test_a_for_performs_its_tasks_for_each_item_and_hands_the_data_on() -> None:
    run = ended(
        """
do:
  - loop:
      for: {each: color, in: .colors}
      do:
        - mark: {set: {colors: '${ .colors }', seen: '${ (.seen // []) + [{color: $color, at: $index}] }'}}
""",
        {"colors": ["red", "green"]},
    )
    assert run.output["seen"] == [{"color": "red", "at": 0}, {"color": "green", "at": 1}]


def test_a_for_without_items_gives_its_input() -> None:
    run = ended("do: [{loop: {for: {in: .xs}, do: [{a: {set: {n: 1}}}]}}]", {"xs": []})
    assert run.output == {"xs": []}


def test_item_and_index_are_the_default_names() -> None:
    text = "do: [{loop: {for: {in: '[5, 6]'}, do: [{a: {set: {last: '${ $item }', at: '${ $index }'}}}]}}]"
    assert ended(text, {}).output == {"last": 6, "at": 1}


def test_while_ends_a_loop_before_an_iteration() -> None:
    run = ended(
        """
do:
  - loop:
      for: {each: n, in: '[1, 2, 3, 4]'}
      while: .sum < 3
      do:
        - add: {set: {sum: '${ .sum + $n }'}}
""",
        {"sum": 0},
    )
    assert run.output == {"sum": 3}
    assert run.kinds.count("TaskIterated") == 2


def test_a_collection_that_is_no_list_faults_with_the_spec_s_error() -> None:
    run = ended("do: [{loop: {for: {in: .n}, do: [{a: {set: {n: 1}}}]}}]", {"n": 3})
    assert run.error.type == EXPRESSION
    assert "list" in (run.error.detail or "")


def test_each_iteration_waits_for_its_worker() -> None:
    run = Run(
        definition("do: [{loop: {for: {in: '[1, 2]'}, do: [{a: {call: f, with: {n: '${ $item }'}}}]}}]")
    )
    run.start({})
    run.complete("/do/0/loop/do/0/a", "one")
    run.complete("/do/0/loop/do/0/a", "two", run=2)
    assert run.output == "two"
    assert [arguments for _, _, arguments in run.dispatched()] == [{"n": 1}, {"n": 2}]
    run.verify()


def test_exit_ends_an_iteration_and_end_the_flow() -> None:
    text = """
do:
  - loop:
      for: {each: n, in: '[1, 2, 3]'}
      do:
        - pick:
            switch:
              - two: {when: $n == 2, then: DIRECTIVE}
              - other: {then: continue}
        - keep: {set: {kept: '${ (.kept // []) + [$n] }'}}
  - after: {set: {kept: '${ .kept }', after: true}}
"""
    assert ended(text.replace("DIRECTIVE", "exit"), {}).output == {"kept": [1, 3], "after": True}
    assert ended(text.replace("DIRECTIVE", "end"), {}).output == {"kept": [1]}


def test_ten_thousand_items_end_and_the_state_does_not_grow() -> None:
    run = Run(
        definition("do: [{loop: {for: {in: '.xs'}, input: {from: '.'}, do: [{a: {set: '${ $index }'}}]}}]")
    )
    run.start({"xs": list(range(10_000))})
    sizes = set()
    while run.tick():
        assert isinstance(run.state, m.LiveFlow | m.EndedFlow)
        if isinstance(run.state, m.LiveFlow):
            sizes.add(len(encode_snapshot(run.state)) // 100)
    assert run.output == 9999
    assert len(sizes) == 1
    run.verify()


# -- fork ---------------------------------------------------------------------------------------------------------------

FORK = """
do:
  - both:
      fork:
        branches:
          - a: {call: f}
          - b: {set: {b: '${ .n }'}}
          - c: {do: [{x: {call: g}}, {y: {set: {c: '${ . }'}}}]}
  - after: {set: {got: '${ . }'}}
"""


@pytest.mark.parametrize("order", [("a", "c"), ("c", "a")])
def test_a_fork_collects_its_branches_in_the_order_of_the_document(order: tuple[str, str]) -> None:
    run = Run(definition(FORK))
    run.start({"n": 7})
    places = {"a": "/do/0/both/fork/branches/0/a", "c": "/do/0/both/fork/branches/2/c/do/0/x"}
    assert sorted(run.waiting) == sorted(places.values())
    for name in order:
        run.complete(places[name], name)
    assert run.output == {"got": ["a", {"b": 7}, {"c": "c"}]}
    run.verify()


def test_every_branch_gets_the_input_of_the_fork() -> None:
    text = "do: [{f: {fork: {branches: [{a: {set: {x: 1}}}, {b: {set: {seen: '${ . }'}}}]}}}]"
    assert ended(text, {"n": 1}).output == [{"x": 1}, {"seen": {"n": 1}}]


def test_the_first_of_a_race_wins_and_the_others_are_cancelled() -> None:
    text = """
do:
  - race:
      fork:
        compete: true
        branches: [{a: {call: f}}, {b: {call: g}}, {c: {do: [{d: {call: h}}]}}]
"""
    run = Run(definition(text))
    run.start({})
    run.complete("/do/0/race/fork/branches/1/b", {"by": "b"})
    assert run.output == {"by": "b"}
    assert sorted(run.cancelled()) == [
        "/do/0/race/fork/branches/0/a",
        "/do/0/race/fork/branches/2/c/do/0/d",
    ]
    run.verify()


def test_a_race_won_at_once_starts_no_other_branch() -> None:
    text = "do: [{r: {fork: {compete: true, branches: [{a: {set: {x: 1}}}, {b: {call: f}}]}}}]"
    run = ended(text, {})
    assert run.output == {"x": 1}
    assert run.dispatched() == []


def test_a_fault_in_a_branch_cancels_the_others_and_faults_the_fork() -> None:
    run = Run(definition("do: [{f: {fork: {branches: [{a: {call: f}}, {b: {call: g}}]}}}]"))
    run.start({})
    run.fail("/do/0/f/fork/branches/1/b", m.Error("https://x/e", 500))
    assert run.error.instance == "/do/0/f/fork/branches/1/b"
    assert run.cancelled() == ["/do/0/f/fork/branches/0/a"]
    run.verify()


def test_a_skipped_branch_gives_its_input() -> None:
    text = "do: [{f: {fork: {branches: [{a: {if: 'false', call: f}}, {b: {set: {x: 1}}}]}}}]"
    assert ended(text, {"n": 1}).output == [{"n": 1}, {"x": 1}]


def test_end_in_a_branch_ends_the_flow() -> None:
    text = """
do:
  - f: {fork: {branches: [{a: {call: f}}, {b: {set: {x: 1}, then: end}}]}}
  - never: {set: {never: true}}
"""
    run = ended(text, {})
    assert run.output == {"x": 1}
    assert run.cancelled() == ["/do/0/f/fork/branches/0/a"]


def test_a_thousand_branches_finish() -> None:
    branches = ", ".join(f"{{b{n}: {{call: f, with: {{n: {n}}}}}}}" for n in range(1000))
    run = Run(definition(f"do: [{{f: {{fork: {{branches: [{branches}]}}}}}}]"))
    run.start({})
    run.advance(0)
    assert len(run.dispatched()) == 1000
    for n in reversed(range(1000)):
        run.complete(f"/do/0/f/fork/branches/{n}/b{n}", n)
    assert run.output == list(range(1000))


def test_a_fork_in_a_loop_in_a_fork() -> None:
    text = """
do:
  - outer:
      fork:
        branches:
          - one:
              for: {each: i, in: '[1, 2]'}
              do:
                - inner: {fork: {branches: [{x: {call: f, with: {i: '${ $i }'}}}, {y: {set: '${ $i }'}}]}}
          - two: {call: g}
"""
    run = Run(definition(text))
    run.start({})
    x = "/do/0/outer/fork/branches/0/one/do/0/inner/fork/branches/0/x"
    run.complete(x, "first")
    run.complete("/do/0/outer/fork/branches/1/two", "two")
    run.complete(x, "second", run=2)
    assert run.output == [["second", 2], "two"]
    run.verify()
