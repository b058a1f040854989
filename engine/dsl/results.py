"""From what jq gave to one JSON value: the rule for the number of results, and what JSON cannot hold.

jq may give no result (`empty`, `select`): that is null, as a missing field is. More than one is an error, because
which one the author meant cannot be told. jaq also knows NaN, infinities, byte strings and keys that are no strings.
"""

from __future__ import annotations

import math
from typing import Any, Final

from engine.dsl.errors import ExpressionError
from engine.dsl.model import Json

SHOWN_MAX: Final = 200
_INT_MIN: Final = -(1 << 63)
_INT_MAX: Final = (1 << 64) - 1


def single(results: list[Any]) -> Json:
    """The only result, checked to be JSON."""
    if len(results) == 1:
        check_json(results[0])
        return results[0]
    if not results:
        return None
    raise ExpressionError(f"Expected one result but the expression gave {len(results)}")


def check_json(value: Any) -> None:
    """Raises ExpressionError unless JSON can hold `value`."""
    kind = type(value)
    if kind is str or kind is bool or value is None:
        return
    pending = [value]
    while pending:
        value = pending.pop()
        kind = type(value)
        if kind is dict:
            for key, item in value.items():
                if type(key) is not str:
                    raise ExpressionError(f"Expected a JSON value but the key {key!r} is not a string")
                if type(item) is not str:
                    pending.append(item)
        elif kind is list:
            pending.extend(value)
        elif kind is float:
            if not math.isfinite(value):
                raise ExpressionError(f"Expected a JSON value but the expression gave {value}")
        elif kind is int:
            if not _INT_MIN <= value <= _INT_MAX:
                raise ExpressionError(
                    "Expected a number of at most 64 bits but the expression gave a larger one"
                )
        elif kind is bytes:
            raise ExpressionError("Expected a JSON value but the expression gave bytes")


def shortened(text: str) -> str:
    """jaq shows the whole value in its message; a value can be large."""
    return text if len(text) <= SHOWN_MAX else text[:SHOWN_MAX] + " …"
