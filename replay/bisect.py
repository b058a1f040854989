"""The first event of a flow after which something does not hold that should.

The expression sees the flow's document after each event: `{status, input, data, context, output?, error?}`. Every event is
looked at, in order: halving would only find the first failure of an invariant that never holds again, and nothing says so
of the one that is asked.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

import msgspec

from engine.dsl.errors import ExpressionError
from engine.dsl.expressions import ExpressionProblem, compile_expression
from engine.dsl.model import Expression
from engine.dsl.sandbox import Sandbox
from engine.errors import InputError
from projections.logged import Logged
from replay.blame import Blamed, Folded

_NONE: Final[frozenset[str]] = frozenset()


class Broken(msgspec.Struct, frozen=True):
    """The first event after which the invariant does not hold, and why when it could not be evaluated."""

    flow_id: str
    by: Blamed
    problem: str | None = None

    def shown(self) -> dict[str, Any]:
        return {"flow": self.flow_id, "by": self.by.shown(), "problem": self.problem}


def invariant(text: str, sandbox: Sandbox | None) -> Expression:
    """A jq expression over a flow's document. Raises InputError."""
    try:
        return compile_expression(text, _NONE, sandbox)
    except ExpressionProblem as problem:
        raise InputError(f"{problem} in --where") from None


def first_broken(logged: Iterable[Logged], holds: Expression) -> Broken | None:
    """None when it holds after every event. Raises BrokenFlow."""
    folded = Folded()
    for one in logged:
        folded.take(one)
        problem: str | None = None
        try:
            result = holds.evaluate(folded.document, {})
        except ExpressionError as failed:
            result, problem = False, str(failed)
        if result is None or result is False:
            assert folded.newest is not None
            return Broken(one.event.flow_id, folded.newest, problem)
    return None
