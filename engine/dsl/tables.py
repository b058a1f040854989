"""Decision tables: what `call: decision` performs. Compiled with the definition, evaluated within one decision. Pure.

`compile_table` gives (name of the table, arguments it reads, decide); `decide(value, arguments)` gives (output,
explanation). The explanation names the inputs, the rules that matched and, for every other rule, the first cell that
failed and the value it met; its size is bounded (EXPLANATION_BYTES_MAX). Tables of `tables` are decided before those
that read them as `$decisions.NAME`. Problems are noted with their place through `checks`; the cells' language is in
tables_cells, hit policies in tables_hits.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import orjson

from engine.dsl.checks import Checks
from engine.dsl.errors import ExpressionError
from engine.dsl.model import Json
from engine.dsl.results import shortened
from engine.dsl.tables_cells import fits_type
from engine.dsl.tables_hits import Hit, Output, apply_policy
from engine.dsl.tables_reading import Column, Draft, Rule, read_tables

Decider = Callable[[Json, Mapping[str, Json]], tuple[Json, Json]]

EXPLANATION_BYTES_MAX: Final = 192 * 1024
_SHOWN_MAX: Final = 40
_INPUT_SHOWN_MAX: Final = 200
_DECISIONS: Final = frozenset({"decisions"})


@dataclass(frozen=True, slots=True)
class _Table:
    name: str
    policy: str
    aggregator: str
    inputs: tuple[Column, ...]
    outputs: tuple[Output, ...]
    rules: tuple[Rule, ...]

    def decide(self, value: Json, arguments: Mapping[str, Json]) -> tuple[Json, dict[str, Json]]:
        values = [self._read(one, value, arguments) for one in self.inputs]
        hits: list[Hit] = []
        numbers: list[int] = []
        rules: list[Json] = []
        for rule in self.rules:
            failed = self._failed(rule, values, arguments)
            entry: dict[str, Json] = {"rule": rule.number, "matched": failed is None}
            if rule.name is not None:
                entry["name"] = _brief(rule.name)
            if failed is None:
                hits.append((rule.title, self._output(rule, value, arguments)))
                numbers.append(rule.number)
            else:
                entry["failed"] = failed
            rules.append(entry)
        try:
            output, chosen = apply_policy(self.policy, self.aggregator, self.outputs, hits)
        except ExpressionError as problem:
            raise ExpressionError(f"{problem} in the decision table {self.name}") from None
        return output, {
            "table": self.name,
            "hitPolicy": self.policy,
            "inputs": {
                one.name: _brief(found, _INPUT_SHOWN_MAX)
                for one, found in zip(self.inputs, values, strict=True)
            },
            "matched": numbers,
            "chosen": [numbers[index] for index in chosen],
            "rules": rules,
        }

    def _read(self, one: Column, value: Json, arguments: Mapping[str, Json]) -> Json:
        try:
            found = one.evaluate(value, arguments)
        except ExpressionError as problem:
            raise ExpressionError(
                f"The input {one.name} of the decision table {self.name}: {problem}"
            ) from None
        if found is not None and not fits_type(found, one.type):
            wish = f"a value of type {one.type} for the input {one.name} of the decision table {self.name}"
            raise ExpressionError(f"Expected {wish} but found {shortened(orjson.dumps(found).decode())}")
        return found

    def _failed(self, rule: Rule, values: list[Json], arguments: Mapping[str, Json]) -> Json:
        """The first cell that does not match, or None when all do."""
        for column, cell in rule.cells:
            test = cell.test
            if test is None:
                continue
            try:
                matches = test(values[column], arguments)
            except ExpressionError as problem:
                place = (
                    f"The cell {self.inputs[column].name} of {rule.title} of the decision table {self.name}"
                )
                raise ExpressionError(f"{place}: {problem}") from None
            if not matches:
                return {
                    "input": self.inputs[column].name,
                    "cell": _brief(cell.text),
                    "value": _brief(values[column]),
                }
        return None

    def _output(
        self, rule: Rule, value: Json, arguments: Mapping[str, Json]
    ) -> Callable[[], dict[str, Json]]:
        def evaluate() -> dict[str, Json]:
            found: dict[str, Json] = rule.then.evaluate(value, arguments)
            for output in self.outputs:
                if (refusal := output.refusal(found[output.name])) is not None:
                    wish, got = refusal
                    raise ExpressionError(f"Expected {wish} but {rule.title} gives {got}")
            return found

        return evaluate


def compile_table(
    checks: Checks, value: Json, pointer: str, available: frozenset[str]
) -> tuple[str, frozenset[str], Decider]:
    """Compiles the `with` of a `call: decision`, found at `pointer`, for a place where `available` exist."""
    drafts = read_tables(checks, value, pointer, available)
    reads = frozenset[str]().union(*(draft.reads for draft in drafts)) - _DECISIONS
    tables = tuple(_built(draft) for draft in drafts)
    name = tables[-1].name if tables else ""
    large = sum(len(table.rules) for table in tables) > 100
    return name, reads, _decider(tables, large)


def _built(draft: Draft) -> _Table:
    return _Table(
        name=draft.name,
        policy=draft.policy,
        aggregator=draft.aggregator,
        inputs=tuple(draft.inputs),
        outputs=tuple(draft.outputs),
        rules=tuple(draft.rules),
    )


def _decider(tables: tuple[_Table, ...], large: bool) -> Decider:
    """`tables` in the order of their dependencies; the last one is the decision."""

    def decide(value: Json, arguments: Mapping[str, Json]) -> tuple[Json, Json]:
        if len(tables) == 1:
            output, explanation = tables[0].decide(value, arguments)
        else:
            decisions: dict[str, Json] = {}
            given = {**arguments, "decisions": decisions}
            explained: list[dict[str, Json]] = []
            for table in tables:
                output, explanation = table.decide(value, given)
                decisions[table.name] = output
                explained.append(explanation)
            explanation["decisions"] = explained[:-1]
        return output, _bounded(explanation) if large or len(tables) > 1 else explanation

    return decide


def _bounded(explanation: dict[str, Json]) -> dict[str, Json]:
    """Without the cells' texts and values when it would be too large for an event; which cell failed stays."""
    if len(orjson.dumps(explanation)) <= EXPLANATION_BYTES_MAX:
        return explanation
    for one in (explanation, *explanation.get("decisions", ())):
        for rule in one["rules"]:
            rule.pop("name", None)
            if "failed" in rule:
                rule["failed"] = {"input": rule["failed"]["input"]}
    explanation["shortened"] = True
    return explanation


def _brief(value: Any, most: int = _SHOWN_MAX) -> Json:
    """A value as an explanation shows it: itself when it is small, else the beginning of its JSON."""
    if value is None or isinstance(value, bool | int | float):
        return value
    text = value if isinstance(value, str) else orjson.dumps(value).decode()
    if len(text) > most:
        return text[:most] + " …"
    return value
