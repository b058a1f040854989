"""Definitions as pictures: every task once, edges where the flow goes, and names that break nothing."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from engine.dsl.compile import compile_definition
from engine.dsl.graph import END, START, Graph, as_json, graph_of, mermaid
from engine.dsl.model import Definition
from tests.flows import definition

ROOT = Path(__file__).parents[2]


def sound(found: Definition) -> Graph:
    """A graph of which every task is a node, every edge has its ends, and every node can be reached."""
    graph = graph_of(found)
    assert sorted(n.pointer for n in graph.nodes if n.pointer) == sorted(found.tasks)
    ids = {node.id for node in graph.nodes}
    groups = {group.id for group in graph.groups}
    assert len(ids) == len(graph.nodes)
    assert all(edge.source in ids and edge.target in ids for edge in graph.edges)
    assert {n.group for n in graph.nodes} | {g.group for g in graph.groups} <= groups | {""}
    reached, pending = set(), [START]
    while pending:
        one = pending.pop()
        if one not in reached:
            reached.add(one)
            pending += [edge.target for edge in graph.edges if edge.source == one]
    if not found.warnings:
        assert ids - reached <= {END}
    return graph


def edges(body: str) -> set[tuple[str, str, str]]:
    """(from, to, label), by the first lines of the nodes."""
    graph = sound(definition(body))
    names = {node.id: node.lines[0] for node in graph.nodes}
    return {(names[e.source], names[e.target], e.label) for e in graph.edges}


def test_every_example_of_the_specification_has_a_sound_graph(shared: Path) -> None:
    for file in sorted((shared / "spec/examples").glob("*.yaml")):
        sound(compile_definition(file.read_text()))


def test_our_examples_have_sound_graphs() -> None:
    for file in (ROOT / "examples").rglob("*.yaml"):
        sound(compile_definition(file.read_text()))


def test_a_sequence_with_directives() -> None:
    found = edges(
        "do: [{a: {set: {x: 1}, then: c}}, {b: {set: {x: 1}, then: end}}, {c: {set: {x: 1}, then: b}}]"
    )
    assert found == {("start", "a", ""), ("a", "c", ""), ("c", "b", ""), ("b", "end", "")}


def test_a_switch_has_an_edge_for_each_case_and_one_for_none() -> None:
    found = edges(
        "do: [{s: {switch: [{big: {when: .n > 3, then: z}}, {odd: {when: .o, then: exit}}]}}, {a: {set: {x: 1}}}, {z: {wait: PT1S}}]"
    )
    assert ("s", "z", "big: .n > 3") in found
    assert ("s", "end", "odd: .o") in found
    assert ("s", "a", "otherwise") in found


def test_exit_leaves_a_scope_and_end_the_flow() -> None:
    found = edges(
        "do: [{outer: {do: [{a: {if: .x, set: {x: 1}, then: exit}}, {b: {set: {x: 1}, then: end}}]}}, {after: {set: {x: 1}}}]"
    )
    assert found >= {("a", "after", ""), ("a", "b", "skipped"), ("b", "end", "")}


def test_a_for_returns_to_its_head() -> None:
    found = edges("do: [{loop: {for: {in: .all}, do: [{a: {set: {x: 1}}}]}}]")
    assert found >= {("loop", "a", "each"), ("a", "loop", ""), ("loop", "end", "done")}


def test_a_fork_joins_and_says_how() -> None:
    branches = "branches: [{a: {set: {x: 1}}}, {b: {set: {x: 1}}}]"
    assert edges(f"do: [{{f: {{fork: {{{branches}}}}}}}]") >= {("a", "all", ""), ("b", "all", "")}
    assert ("a", "first one", "") in edges(f"do: [{{f: {{fork: {{compete: true, {branches}}}}}}}]")


def test_a_try_has_its_catch_and_its_retry() -> None:
    found = edges(
        "do: [{t: {try: [{a: {call: f}}], catch: {errors: {with: {status: 503}}, retry: {delay: PT1S}, do: [{h: {set: {x: 1}}}]}}}]"
    )
    assert found >= {
        ("t", "catch", "on error"),
        ("catch", "t", "retry"),
        ("catch", "h", ""),
        ("h", "end", ""),
    }
    assert ("a", "end", "") in found


def test_a_raise_leads_nowhere() -> None:
    error = "{type: 'https://a.b/c', status: 400}"
    found = edges(f"do: [{{r: {{raise: {{error: {error}}}, if: .bad}}}}]")
    assert found == {("start", "r", ""), ("r", "end", "skipped")}


def test_what_undoes_a_task_hangs_on_a_dashed_edge() -> None:
    body = "do: [{pay: {call: pay, metadata: {compensate: {call: refund}}}}]"
    graph = sound(definition(body))
    assert [e.style for e in graph.edges if e.label == "undone by"] == ["undo"]
    assert "-.-x" in mermaid(graph)


def test_extensions_stand_around_their_task() -> None:
    found = edges(
        "use: {extensions: [{log: {extend: call, when: .on, before: [{pre: {set: {x: 1}}}], after: [{post: {set: {x: 1}}}]}}]}\ndo: [{a: {call: f}}]"
    )
    assert found >= {("a", "pre", ".on"), ("pre", "a", ""), ("a", "a", "otherwise"), ("a", "post", ".on")}


def test_a_listen_with_foreach_is_a_loop_of_events() -> None:
    found = edges(
        "do: [{l: {listen: {to: {any: [], until: '${ false }'}}, foreach: {do: [{a: {set: {x: 1}}}]}}}]"
    )
    assert found >= {("l", "a", "each event"), ("a", "l", "")}


@pytest.mark.parametrize(
    "name", ['a"] --> b', "end", "x`y`", "<script>", "a #quot; b", "línea\nzwei", "click t0 href", "🦆" * 70]
)
def test_no_name_changes_the_form_of_the_text(name: str) -> None:
    def form(called: str) -> str:
        graph = graph_of(
            definition(
                f"do: [{{{json.dumps(called, ensure_ascii=False)}: {{do: [{{b: {{set: {{x: 1}}}}}}]}}}}]"
            )
        )
        return re.sub(r'"[^"]*"', '""', mermaid(graph))

    assert form(name) == form("plain")
    assert len(form(name).splitlines()) == 11


def test_the_text_of_a_small_definition() -> None:
    body = "do: [{check: {switch: [{big: {when: .n > 3, then: end}}]}}, {work: {do: [{call: {call: f}}]}}]"
    assert mermaid(sound(definition(body))) == (
        "flowchart TD\n"
        "  %% test/test@1.0.0\n"
        '  begin(["start"])\n'
        '  finish(["end"])\n'
        '  t0{"check<br/>switch"}\n'
        '  subgraph g1["work"]\n'
        '    t1["work<br/>do"]\n'
        '    t2["call<br/>call f"]\n'
        "  end\n"
        "  begin --> t0\n"
        '  t0 -->|"otherwise"| t1\n'
        '  t0 -->|"big: .n #62; 3"| finish\n'
        "  t1 --> t2\n"
        "  t2 --> finish\n"
    )


def test_the_json_form_names_the_tasks() -> None:
    plain = as_json(graph_of(definition("do: [{a: {set: {x: 1}}}]")))
    assert [node["pointer"] for node in plain["nodes"]] == [None, None, "/do/0/a"]
    assert plain["edges"] == [
        {"source": "begin", "target": "t0", "label": None, "style": "solid"},
        {"source": "t0", "target": "finish", "label": None, "style": "solid"},
    ]
