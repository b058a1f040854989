"""A definition as a picture: nodes, groups and edges, and these as a Mermaid flowchart.

Pure. Every task of the compiled definition has one node, and nothing else has its pointer. A composite task is a group
with its own node as the way in; what leaves its scope goes on where the task itself goes on, so each edge ends at a node.
Names are data: whatever a definition calls its tasks, the text is a flowchart of the same form.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from engine.dsl.expressions import unmarked
from engine.dsl.model import (
    Advice,
    Approval,
    Call,
    Consumption,
    Decide,
    Definition,
    Do,
    Emit,
    Expression,
    Extended,
    For,
    Fork,
    Listen,
    Raise,
    Subflow,
    Switch,
    Task,
    Try,
    Wait,
)

START: Final = "begin"
END: Final = "finish"
_LABEL_CHARACTERS_MAX: Final = 60

Style = Literal["solid", "dotted", "undo"]
Loose = list[tuple[str, str]]
"""Ends that still lead nowhere: node, label of the edge to come."""


@dataclass(frozen=True, slots=True)
class Node:
    """`kind`: a task's kind, or start, end, join, catch. `group`: the group it lies in, "" for none."""

    id: str
    kind: str
    lines: tuple[str, ...]
    pointer: str
    group: str


@dataclass(frozen=True, slots=True)
class Group:
    id: str
    title: str
    pointer: str
    group: str


@dataclass(frozen=True, slots=True)
class Edge:
    source: str
    target: str
    label: str = ""
    style: Style = "solid"


@dataclass(slots=True)
class Graph:
    definition: str
    nodes: list[Node] = field(default_factory=list)
    groups: list[Group] = field(default_factory=list)
    edges: list[Edge] = field(default_factory=list)


def graph_of(definition: Definition) -> Graph:
    return _Drawing(definition).draw()


class _Drawing:
    """Draws scope after scope. Ids follow the order of the document, so equal definitions give equal texts."""

    def __init__(self, definition: Definition) -> None:
        self.tasks: Mapping[str, Task] = definition.tasks
        self.first = definition.first
        self.graph = Graph(definition.id)
        self.ids = {pointer: f"t{number}" for number, pointer in enumerate(definition.tasks)}

    def draw(self) -> Graph:
        self.graph.nodes += [Node(START, "start", ("start",), "", ""), Node(END, "end", ("end",), "", "")]
        self.edge(START, self.ids[self.first])
        self.join(self.scope(self.first, ""), END)
        return self.graph

    # -- scopes and tasks ---------------------------------------------------------------------------------------

    def scope(self, first: str, group: str) -> Loose:
        """Draws the tasks of a list; what leaves it, by its last task or by `exit`."""
        through, exits = self.both_ways(first, group)
        return through + exits

    def both_ways(self, first: str, group: str) -> tuple[Loose, Loose]:
        through: Loose = []
        exits: Loose = []
        pointer: str | None = first
        while pointer is not None:
            task = self.tasks[pointer]
            ends = self.task(task, group)
            self.direct(task, task.then, ends, through, exits)
            if isinstance(task, Switch):
                self.cases(task, through, exits)
            if task.condition is not None and (task.then != "continue" or not ends):
                self.direct(task, "continue", [(self.ids[pointer], "skipped")], through, exits)
            pointer = task.next
        return through, exits

    def direct(self, task: Task, then: str, ends: Loose, through: Loose, exits: Loose) -> None:
        match then:
            case "end":
                self.join(ends, END)
            case "exit":
                exits += ends
            case "continue" if task.next is None:
                through += ends
            case "continue":
                assert task.next is not None
                self.join(ends, self.ids[task.next])
            case _:
                self.join(ends, self.ids[then])

    def cases(self, task: Switch, through: Loose, exits: Loose) -> None:
        here = self.ids[task.pointer]
        for case in task.cases:
            label = case.name if case.when is None else f"{case.name}: {_program(case.when)}"
            self.direct(task, case.then, [(here, label)], through, exits)

    def task(self, task: Task, group: str) -> Loose:
        """Draws one task; its loose ends, before `then` says where they go."""
        here = self.ids[task.pointer]
        inside = group
        if isinstance(task, Do | For | Fork | Try | Extended) or (
            isinstance(task, Listen) and task.foreach is not None and task.foreach.first is not None
        ):
            inside = f"g{here[1:]}"
            self.graph.groups.append(Group(inside, task.name, task.pointer, group))
        self.graph.nodes.append(Node(here, _shape_of(task), tuple(_lines(task)), task.pointer, inside))
        if task.compensate is not None:
            undo = self.tasks[task.compensate]
            self.task(undo, group)
            self.edge(here, self.ids[undo.pointer], "undone by", "undo")
        match task:
            case Do():
                self.edge(here, self.ids[task.first])
                return self.scope(task.first, inside)
            case For():
                return self.loop(here, task.first, inside, "each")
            case Listen() if inside != group and task.foreach is not None and task.foreach.first is not None:
                return self.loop(here, task.foreach.first, inside, "each event")
            case Fork():
                return self.fork(task, here, inside)
            case Try():
                return self.try_(task, here, inside)
            case Extended():
                return self.extended(task, here, inside)
            case Raise():
                return []
            case Switch():
                return [] if any(case.when is None for case in task.cases) else [(here, "otherwise")]
            case _:
                return [(here, "")]

    def loop(self, here: str, first: str, inside: str, label: str) -> Loose:
        self.edge(here, self.ids[first], label)
        self.join(self.scope(first, inside), here, "dotted")
        return [(here, "done")]

    def fork(self, task: Fork, here: str, inside: str) -> Loose:
        joined = f"j{here[1:]}"
        for branch in task.branches:
            self.edge(here, self.ids[branch])
            self.join(self.scope(branch, inside), joined)
        what = "first one" if task.compete else "all"
        self.graph.nodes.append(Node(joined, "join", (what,), "", inside))
        return [(joined, "")]

    def try_(self, task: Try, here: str, inside: str) -> Loose:
        caught, catch = f"c{here[1:]}", task.catch
        self.edge(here, self.ids[task.first])
        ends = self.scope(task.first, inside)
        self.graph.nodes.append(Node(caught, "catch", tuple(_caught(task)), "", inside))
        self.edge(here, caught, "on error", "dotted")
        if catch.retry is not None:
            self.edge(caught, here, "retry", "dotted")
        if catch.first is None:
            return [*ends, (caught, "")]
        self.edge(caught, self.ids[catch.first])
        return ends + self.scope(catch.first, inside)

    def extended(self, task: Extended, here: str, inside: str) -> Loose:
        """before tasks, the task, after tasks; what leaves a before task by `exit` passes the task by."""
        ends, out = self.advice(task.before, [(here, "")], inside)
        inner = self.tasks[task.inner]
        self.join(ends, self.ids[inner.pointer])
        performed = self.task(inner, inside)
        if isinstance(inner, Switch):
            through: Loose = []
            self.cases(inner, through, out)
            performed += through
        ends, exits = self.advice(task.after, performed, inside)
        return ends + exits + out

    def advice(self, advices: tuple[Advice, ...], ends: Loose, inside: str) -> tuple[Loose, Loose]:
        out: Loose = []
        for one in advices:
            label = "" if one.when is None else _program(one.when)
            for source, before in ends:
                self.edge(source, self.ids[one.first], before or label)
            through, exits = self.both_ways(one.first, inside)
            out += exits
            ends = through if one.when is None else through + [(source, "otherwise") for source, _ in ends]
        return ends, out

    # -- edges --------------------------------------------------------------------------------------------------

    def edge(self, source: str, target: str, label: str = "", style: Style = "solid") -> None:
        self.graph.edges.append(Edge(source, target, label, style))

    def join(self, ends: Loose, target: str, style: Style = "solid") -> None:
        for source, label in ends:
            self.edge(source, target, label, style)


# -- labels ---------------------------------------------------------------------------------------------------------


def _shape_of(task: Task) -> str:
    match task:
        case Approval():
            return "approval"
        case Decide():
            return "decision"
        case _:
            return task.kind


def _lines(task: Task) -> list[str]:
    """A task's name, and what it is about."""
    lines = [task.name]
    match task:
        case Call():
            lines.append(f"call {task.function}")
        case Approval():
            lines.append("call approval")
        case Decide():
            lines.append(f"decision {task.table}")
        case Subflow():
            lines.append(f"run {task.workflow}" + ("" if task.wait else ", no waiting"))
        case For():
            lines.append(f"for ${task.each} in {_program(task.collection)}")
            if task.while_ is not None:
                lines.append(f"while {_program(task.while_)}")
        case Listen():
            lines.append(f"listen to {_strategy(task.to)}")
        case Wait():
            lines.append(f"wait {_plain(task.definition.get('wait'))}")
        case Emit():
            lines.append(f"emit {_path(task.definition, 'emit', 'event', 'with', 'type')}".rstrip())
        case Extended():
            lines.append("with extensions")
        case _:
            lines.append(task.kind)
    if task.condition is not None:
        lines.append(f"if {_program(task.condition)}")
    if task.timeout is not None:
        lines.append("with a timeout")
    return lines


def _program(expression: Expression) -> str:
    return unmarked(expression.source).strip()


def _strategy(to: Consumption) -> str:
    count = len(to.filters)
    text = "an event" if to.mode == "one" else f"{to.mode} of {count}"
    if to.forever:
        return f"{text}, for ever"
    if to.until is not None:
        return f"{text}, until {_program(to.until)}"
    return f"{text}, until events" if to.until_events is not None else text


def _caught(task: Try) -> list[str]:
    lines = ["catch"]
    wanted = _path(task.definition, "catch", "errors", "with")
    if isinstance(wanted, dict):
        lines += [f"{name}: {_plain(value)}" for name, value in wanted.items()]
    conditions: tuple[tuple[str, Expression | None], ...] = (
        ("when", task.catch.when),
        ("except when", task.catch.except_when),
    )
    lines += [f"{name} {_program(one)}" for name, one in conditions if one is not None]
    return lines


def _path(value: Any, *steps: str) -> Any:
    for step in steps:
        value = value.get(step, "") if isinstance(value, dict) else ""
    return value


def _plain(value: Any) -> str:
    if isinstance(value, dict):
        return " ".join(f"{part} {name}" for name, part in value.items())
    return str(value)


# -- Mermaid --------------------------------------------------------------------------------------------------------

_SHAPES: Final[Mapping[str, tuple[str, str]]] = {
    "start": ("([", "])"),
    "end": ("([", "])"),
    "switch": ("{", "}"),
    "decision": ("{{", "}}"),
    "approval": ("[/", "/]"),
    "listen": (">", "]"),
    "wait": ("([", "])"),
    "run": ("[[", "]]"),
    "raise": ("[\\", "/]"),
    "emit": ("[/", "\\]"),
    "join": ("((", "))"),
    "catch": ("[\\", "\\]"),
}
_ARROWS: Final[Mapping[Style, str]] = {"solid": "-->", "dotted": "-.->", "undo": "-.-x"}
_ESCAPED: Final = str.maketrans({c: f"#{ord(c)};" for c in '"#&<>`\\|[]{}()%'} | {"\n": " ", "\r": " "})
"""Mermaid's own way to write a character by its number; what is left has no meaning to it within quotes."""


def mermaid(graph: Graph) -> str:
    """The graph as the text of a Mermaid flowchart."""
    lines = ["flowchart TD", f"  %% {_shown(graph.definition)}"]
    lines += _members(graph, "", "  ")
    for edge in graph.edges:
        label = f'|"{_shown(edge.label)}"|' if edge.label else ""
        lines.append(f"  {edge.source} {_ARROWS[edge.style]}{label} {edge.target}")
    return "\n".join(lines) + "\n"


def _members(graph: Graph, group: str, indent: str) -> list[str]:
    lines: list[str] = []
    for node in graph.nodes:
        if node.group == group:
            left, right = _SHAPES.get(node.kind, ("[", "]"))
            label = "<br/>".join(_shown(line) for line in node.lines)
            lines.append(f'{indent}{node.id}{left}"{label}"{right}')
    for one in graph.groups:
        if one.group == group:
            lines.append(f'{indent}subgraph {one.id}["{_shown(one.title)}"]')
            lines += _members(graph, one.id, indent + "  ")
            lines.append(f"{indent}end")
    return lines


def _shown(text: str) -> str:
    short = text if len(text) <= _LABEL_CHARACTERS_MAX else text[: _LABEL_CHARACTERS_MAX - 1] + "…"
    return "".join(c for c in short if c.isprintable() or c in "\n\r").translate(_ESCAPED)


def as_json(graph: Graph) -> dict[str, Any]:
    return {
        "definition": graph.definition,
        "nodes": [
            {
                "id": n.id,
                "kind": n.kind,
                "label": list(n.lines),
                "pointer": n.pointer or None,
                "group": n.group or None,
            }
            for n in graph.nodes
        ],
        "groups": [
            {"id": g.id, "title": g.title, "pointer": g.pointer, "group": g.group or None}
            for g in graph.groups
        ],
        "edges": [
            {"source": e.source, "target": e.target, "label": e.label or None, "style": e.style}
            for e in graph.edges
        ],
    }
