"""Reading decision tables from a document: their form, names, types, cells and the order they depend on each other.

Every problem is noted with its place; what is built from a table with problems never leaves the compiler. Which tables
a table needs is what its `requires` names and what its expressions read as `$decisions.NAME`; a circle is refused. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from graphlib import CycleError, TopologicalSorter
from typing import Final

from engine.dsl.checks import Checks, described
from engine.dsl.errors import ExpressionError
from engine.dsl.expressions import is_marked
from engine.dsl.model import Evaluate, Json, Template
from engine.dsl.source import escape
from engine.dsl.tables_cells import TYPES, Cell, CellProblem, Test, parse_cell
from engine.dsl.tables_hits import AGGREGATORS, POLICIES, Output

RULES_MAX: Final = 1000
COLUMNS_MAX: Final = 64
TABLES_MAX: Final = 32
_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,63}")
_NAME_WISH: Final = "a name of at most 64 letters, digits, '_' and '-'"
_TABLE: Final = ("name", "hitPolicy", "aggregator", "inputs", "outputs", "rules", "requires")
_READ: Final = re.compile(
    r"(?<![\w.])\$?decisions(?:\.([A-Za-z_][A-Za-z0-9_]*)|\.?\[\s*[\"']([^\"']*)[\"']\s*\])?"
)
_REFUSED: Final = frozenset({"authorization", "secrets"})


@dataclass(frozen=True, slots=True)
class Column:
    name: str
    type: str
    evaluate: Evaluate = field(repr=False)


@dataclass(frozen=True, slots=True)
class Rule:
    """`cells`: (input's number, cell) of those that are not "any"."""

    number: int
    name: str | None
    cells: tuple[tuple[int, Cell], ...]
    then: Template

    @property
    def title(self) -> str:
        return f"rule {self.number}" if self.name is None else f"rule {self.number} ({self.name})"


@dataclass(slots=True)
class Draft:
    """A table as read. `needs` holds the names of the tables that are decided before it."""

    name: str
    policy: str = "unique"
    aggregator: str = "list"
    inputs: list[Column] = field(default_factory=list)
    outputs: list[Output] = field(default_factory=list)
    rules: list[Rule] = field(default_factory=list)
    reads: set[str] = field(default_factory=set)
    needs: dict[str, str] = field(default_factory=dict)


def read_tables(checks: Checks, value: Json, pointer: str, available: frozenset[str]) -> list[Draft]:
    """Every table of `value` in the order of deciding; the one of `value` itself is the last."""
    parts = pointer.split("/")
    default = parts[-2].replace("~1", "/").replace("~0", "~") if len(parts) > 2 else "decision"
    found = checks.properties(value, pointer, (*_TABLE, "tables"), required=("outputs", "rules"))
    inner = _inner(checks, found, pointer)
    for _, at, given in inner:
        checks.properties(given, at, _TABLE, required=("name", "outputs", "rules"))
    names = [name for name, _, _ in inner]
    available = (available - _REFUSED) | ({"decisions"} if inner else set())
    drafts = [_Reader(checks, given, at, available, name, names).read() for name, at, given in inner]
    own = _name(checks, found["name"], f"{pointer}/name") if "name" in found else default
    main = _Reader(checks, found, pointer, available, own, names).read()
    if own in names:
        checks.expected("a name that no other table has", described(own), f"{pointer}/name")
    if sum(len(draft.rules) for draft in (*drafts, main)) > RULES_MAX:
        checks.expected(f"at most {RULES_MAX} rules", "more", f"{pointer}/rules")
    return _ordered(checks, drafts, main, pointer)


def _name(checks: Checks, value: Json, pointer: str) -> str:
    return checks.text(value, pointer, _NAME_WISH, _NAME)


def _inner(checks: Checks, found: Mapping[str, Json], pointer: str) -> list[tuple[str, str, dict[str, Json]]]:
    """(name, place, table) of `tables` and of the tables written within `requires`."""
    places: list[tuple[str, Json]] = []
    for part in ("tables", "requires"):
        listed = found.get(part, [])
        if not isinstance(listed, list):
            checks.expected("a list of tables", described(listed), f"{pointer}/{part}")
            continue
        for index, one in enumerate(listed):
            if part == "tables" or not isinstance(one, str):
                places.append((f"{pointer}/{part}/{index}", one))
    if len(places) > TABLES_MAX:
        checks.expected(f"at most {TABLES_MAX} tables", str(len(places)), f"{pointer}/tables")
        places = places[:TABLES_MAX]
    inner: list[tuple[str, str, dict[str, Json]]] = []
    for at, one in places:
        if not isinstance(one, dict):
            checks.expected("a decision table (an object)", described(one), at)
            continue
        name = _name(checks, one["name"], f"{at}/name") if "name" in one else ""
        if name and any(name == other for other, _, _ in inner):
            checks.expected("a name that no other table has", described(name), f"{at}/name")
        inner.append((name, at, one))
    return inner


def _ordered(checks: Checks, drafts: list[Draft], main: Draft, pointer: str) -> list[Draft]:
    by_name = {draft.name: draft for draft in drafts}
    sorter: TopologicalSorter[str] = TopologicalSorter(
        {draft.name: [need for need in draft.needs if need in by_name] for draft in drafts}
    )
    try:
        ordered = [by_name[name] for name in sorter.static_order()]
    except CycleError as problem:
        circle: list[str] = problem.args[1]
        place = next((at for at in by_name[circle[0]].needs.values()), pointer)
        checks.expected("tables that do not depend on themselves", " -> ".join(reversed(circle)), place)
        ordered = drafts
    return [*ordered, main]


class _Reader:
    def __init__(
        self,
        checks: Checks,
        found: Mapping[str, Json],
        pointer: str,
        available: frozenset[str],
        name: str,
        names: list[str],
    ) -> None:
        self.checks = checks
        self.found = found
        self.pointer = pointer
        self.available = available
        self.names = names
        self.draft = Draft(name)

    def read(self) -> Draft:
        draft, found, pointer = self.draft, self.found, self.pointer
        draft.policy = self._choice("hitPolicy", POLICIES, "unique")
        draft.aggregator = self._choice("aggregator", AGGREGATORS, "list")
        if "aggregator" in found and draft.policy != "collect":
            self.checks.expected("an aggregator with the hit policy collect only", draft.policy, pointer)
        self._requires()
        draft.inputs = [self._input(one, at) for one, at in self._list("inputs", COLUMNS_MAX)]
        self._distinct([one.name for one in draft.inputs], "inputs")
        outputs = self._list("outputs", COLUMNS_MAX)
        draft.outputs = [self._output(one, at) for one, at in outputs]
        self._distinct([one.name for one in draft.outputs], "outputs")
        if "outputs" in found and not outputs and isinstance(found["outputs"], list):
            self.checks.expected("at least one output", "none", f"{pointer}/outputs")
        if draft.policy == "priority" and not any(one.values for one in draft.outputs):
            wish = "an output with values (the most important first) for the hit policy priority"
            self.checks.expected(wish, "none", f"{pointer}/outputs")
        rules = self._list("rules", RULES_MAX)
        if "rules" in found and not rules and isinstance(found["rules"], list):
            self.checks.expected("at least one rule", "none", f"{pointer}/rules")
        draft.rules = [self._rule(number, one, at) for number, (one, at) in enumerate(rules, 1)]
        return draft

    def _choice(self, name: str, known: tuple[str, ...], default: str) -> str:
        value = self.found.get(name, default)
        if isinstance(value, str) and value in known:
            return value
        wanted = value if isinstance(value, str) else None
        wish = f"one of {', '.join(known)}"
        self.checks.expected(wish, described(value), f"{self.pointer}/{name}", name=wanted, known=known)
        return default

    def _list(self, name: str, most: int) -> list[tuple[Json, str]]:
        value, at = self.found.get(name, []), f"{self.pointer}/{name}"
        if not isinstance(value, list):
            self.checks.expected("a list", described(value), at)
            return []
        if len(value) > most:
            self.checks.expected(f"at most {most} {name}", str(len(value)), at)
        return [(one, f"{at}/{index}") for index, one in enumerate(value[:most])]

    def _distinct(self, names: list[str], part: str) -> None:
        for index, name in enumerate(names):
            if name and name in names[:index]:
                at = f"{self.pointer}/{part}/{index}/name"
                self.checks.expected(f"{part} of different names", f"{name!r} twice", at)

    def _requires(self) -> None:
        listed = self.found.get("requires", [])
        if not isinstance(listed, list):
            if "tables" not in self.found:
                self.checks.expected("a list of tables", described(listed), f"{self.pointer}/requires")
            return
        for index, one in enumerate(listed):
            if isinstance(one, str):
                self._need(one, f"{self.pointer}/requires/{index}")

    def _need(self, name: str, pointer: str) -> None:
        if name in self.names:
            self.draft.needs.setdefault(name, pointer)
        else:
            self.checks.expected(
                "the name of a table of tables", described(name), pointer, name=name, known=self.names
            )

    def _noting(self, value: Json, pointer: str) -> None:
        """Which tables the expressions within `value` read."""
        if isinstance(value, str):
            if "decisions" in value and self.names:
                for found in _READ.finditer(value):
                    if name := found[1] or found[2]:
                        self._need(name, pointer)
                    else:
                        wish = "$decisions.NAME, which tells the table that is decided before"
                        self.checks.expected(wish, "$decisions as a whole", pointer)
        elif isinstance(value, dict):
            for key, one in value.items():
                self._noting(one, f"{pointer}/{escape(key)}")
        elif isinstance(value, list):
            for index, one in enumerate(value):
                self._noting(one, f"{pointer}/{index}")

    # -- columns ------------------------------------------------------------------------------------------------

    def _type(self, found: Mapping[str, Json], pointer: str) -> str:
        value = found.get("type", "any")
        if isinstance(value, str) and value in TYPES:
            return value
        wanted = value if isinstance(value, str) else None
        wish = f"one of {', '.join(TYPES)}"
        self.checks.expected(wish, described(value), f"{pointer}/type", name=wanted, known=TYPES)
        return "any"

    def _input(self, value: Json, pointer: str) -> Column:
        known = ("name", "expression", "type")
        found = self.checks.properties(value, pointer, known, required=("name",))
        name = _name(self.checks, found["name"], f"{pointer}/name") if "name" in found else ""
        wanted = self._type(found, pointer)
        if "expression" not in found:
            return Column(name, wanted, _property(name))
        at = f"{pointer}/expression"
        expression = self.checks.expression(found["expression"], at, self.available)
        self._noting(found["expression"], at)
        self.draft.reads |= expression.reads
        return Column(name, wanted, expression.evaluate)

    def _output(self, value: Json, pointer: str) -> Output:
        known = ("name", "type", "values", "default")
        found = self.checks.properties(value, pointer, known, required=("name",))
        name = _name(self.checks, found["name"], f"{pointer}/name") if "name" in found else ""
        wanted = self._type(found, pointer)
        values = found.get("values")
        if values is not None and (not isinstance(values, list) or not values):
            self.checks.expected("a list of at least one value", described(values), f"{pointer}/values")
            values = None
        output = Output(
            name, wanted, None if values is None else tuple(values), "default" in found, found.get("default")
        )
        for index, one in enumerate(values or ()):
            self._fits(output, one, f"{pointer}/values/{index}")
        if "default" in found and found["default"] is not None:
            self._fits(output, found["default"], f"{pointer}/default")
        return output

    def _fits(self, output: Output, value: Json, pointer: str) -> None:
        if (refusal := output.refusal(value)) is not None:
            self.checks.expected(*refusal, pointer)

    # -- rules --------------------------------------------------------------------------------------------------

    def _rule(self, number: int, value: Json, pointer: str) -> Rule:
        found = self.checks.properties(value, pointer, ("name", "when", "then"), required=("then",))
        name = self.checks.text(found["name"], f"{pointer}/name", "a name") if "name" in found else None
        return Rule(
            number,
            name or None,
            self._cells(found.get("when", {}), f"{pointer}/when"),
            self._then(found["then"], f"{pointer}/then") if "then" in found else self.checks.constant({}),
        )

    def _columns(self, value: Json, pointer: str, names: list[str], what: str) -> list[tuple[int, Json, str]]:
        """(column, value, place) of a row: a list with one for each column, or an object by name."""
        if isinstance(value, list):
            if len(value) != len(names):
                wish = f"one value for each of the {len(names)} {what}s"
                self.checks.expected(wish, str(len(value)), pointer)
            return [(index, one, f"{pointer}/{index}") for index, one in enumerate(value[: len(names)])]
        if not isinstance(value, dict):
            self.checks.expected(f"a list or an object by {what}", described(value), pointer)
            return []
        columns: list[tuple[int, Json, str]] = []
        for name, one in value.items():
            at = f"{pointer}/{escape(name)}"
            if name in names:
                columns.append((names.index(name), one, at))
            else:
                wish = f"an {what} ({', '.join(names) or 'there is none'})"
                self.checks.expected(wish, repr(name), pointer, at=at, name=name, known=names)
        return sorted(columns, key=lambda column: column[0])

    def _cells(self, value: Json, pointer: str) -> tuple[tuple[int, Cell], ...]:
        names = [one.name for one in self.draft.inputs]
        cells: list[tuple[int, Cell]] = []
        for column, one, at in self._columns(value, pointer, names, "input"):
            cell = self._cell(one, self.draft.inputs[column].type, at)
            if cell is not None and cell.test is not None:
                cells.append((column, cell))
        return tuple(cells)

    def _cell(self, value: Json, wanted: str, pointer: str) -> Cell | None:
        if isinstance(value, str) and is_marked(value):
            expression = self.checks.expression(value, pointer, self.available)
            self._noting(value, pointer)
            self.draft.reads |= expression.reads
            return Cell(value.strip(), _verdict(expression.evaluate))
        try:
            return parse_cell(value, wanted)
        except CellProblem as problem:
            self.checks.expected(problem.wish, problem.found, pointer)
            return None

    def _then(self, value: Json, pointer: str) -> Template:
        outputs = self.draft.outputs
        row: dict[str, Json] = {}
        for column, one, at in self._columns(value, pointer, [one.name for one in outputs], "output"):
            row[outputs[column].name] = one
            made = self.checks.template(one, at, self.available)
            if made.constant and one is not None:
                self._fits(outputs[column], one, at)
        for output in outputs:
            if output.name not in row:
                if isinstance(value, dict) and not output.has_default:
                    self.checks.missing(output.name, pointer)
                row[output.name] = output.default
        with self.checks.silently():
            template = self.checks.template(row, pointer, self.available)
        self._noting(row, pointer)
        self.draft.reads |= template.reads
        return template


def _property(name: str) -> Evaluate:
    def evaluate(value: Json, _arguments: Mapping[str, Json]) -> Json:
        return value.get(name) if isinstance(value, dict) else None

    return evaluate


def _verdict(evaluate: Evaluate) -> Test:
    """An expression as a cell: true matches, false and null do not, anything else is the author's mistake."""

    def test(value: Json, arguments: Mapping[str, Json]) -> bool:
        found = evaluate(value, arguments)
        if found is None or found is False:
            return False
        if found is True:
            return True
        raise ExpressionError(f"Expected true or false but the expression gave {described(found)}")

    return test
