"""Hit policies: from the rules that matched to the output of a decision table. Pure.

A rule's output is an object, output name -> value. The output of a table is such an object, too; `collect` without an
aggregator gives the list of them, and with one an object of what each output's values come to. Where no rule matched,
the outputs' defaults stand in; without any default the output is null.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import orjson

from engine.dsl.errors import ExpressionError
from engine.dsl.model import Json
from engine.dsl.results import shortened
from engine.dsl.tables_cells import fits_type, same

POLICIES: Final = ("unique", "first", "any", "priority", "collect")
AGGREGATORS: Final = ("list", "sum", "min", "max", "count")

Hit = tuple[str, Callable[[], dict[str, Json]]]
"""A rule that matched: what it is called, and how to get its output."""


@dataclass(frozen=True, slots=True)
class Output:
    """`values`: all it may be, the most important first. `default` counts only when `has_default`."""

    name: str
    type: str
    values: tuple[Json, ...] | None
    has_default: bool
    default: Json

    def refusal(self, value: Json) -> tuple[str, str] | None:
        """What was expected of `value` and what it is, when this output cannot be it."""
        if value is not None and not fits_type(value, self.type):
            return f"a value of type {self.type} for the output {self.name}", shown(value)
        if self.values is not None and not any(same(value, one) for one in self.values):
            return f"one of the values of the output {self.name}", shown(value)
        return None

    def rank(self, value: Json) -> int:
        return next(
            (n for n, one in enumerate(self.values or ()) if same(value, one)), len(self.values or ())
        )


def shown(value: Json) -> str:
    return shortened(orjson.dumps(value).decode())


def apply_policy(
    policy: str, aggregator: str, outputs: Sequence[Output], hits: Sequence[Hit]
) -> tuple[Json, list[int]]:
    """The output, and which of `hits` it comes from. Raises ExpressionError where the policy forbids what matched."""
    if policy == "collect":
        return _aggregate(aggregator, outputs, [hit() for _, hit in hits]), list(range(len(hits)))
    if not hits:
        return _default(outputs), []
    match policy:
        case "unique" if len(hits) > 1:
            raise ExpressionError(f"Expected at most one rule to match but {_names(hits)} do")
        case "any":
            found = [hit() for _, hit in hits]
            if not all(same(found[0], one) for one in found[1:]):
                raise ExpressionError(
                    f"Expected equal outputs of all rules that match but {_names(hits)} differ"
                )
            return found[0], list(range(len(hits)))
        case "priority":
            found = [hit() for _, hit in hits]
            ranked = [output for output in outputs if output.values is not None]
            ranks = [tuple(output.rank(one[output.name]) for output in ranked) for one in found]
            best = ranks.index(min(ranks))
            return found[best], [best]
    return hits[0][1](), [0]


def _names(hits: Sequence[Hit]) -> str:
    return shortened(" and ".join(name for name, _ in hits))


def _default(outputs: Sequence[Output]) -> Json:
    if any(output.has_default for output in outputs):
        return {output.name: output.default for output in outputs}
    return None


def _aggregate(aggregator: str, outputs: Sequence[Output], found: list[dict[str, Json]]) -> Json:
    if aggregator == "list":
        return found
    return {
        output.name: _aggregated(aggregator, output, [one[output.name] for one in found])
        for output in outputs
    }


def _aggregated(aggregator: str, output: Output, values: list[Json]) -> Json:
    if aggregator == "count":
        return len(values)
    if not values:
        return output.default
    for value in values:
        if not fits_type(value, "number"):
            raise ExpressionError(
                f"Expected numbers to aggregate in the output {output.name} but found {shown(value)}"
            )
    match aggregator:
        case "min":
            return min(values)
        case "max":
            return max(values)
    return sum(values)
