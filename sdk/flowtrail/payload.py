"""Python values to JSON bytes, strictly: what JSON cannot hold is refused, never bent.

The standard library's encoder is used because msgspec and orjson write NaN as null; types that it does not know
(dataclasses, msgspec.Struct, datetime, UUID, Decimal, Enum) go through msgspec. A set has no order, hence no JSON.
"""

from __future__ import annotations

import json
from typing import Any, Final

import msgspec

PAYLOAD_BYTES_MAX: Final = 262_144


class NotJson(ValueError):
    """The value cannot travel; the text goes behind "Expected <what> ...": see `to_json`."""


def _known_to_msgspec(value: Any) -> Any:
    if isinstance(value, (set, frozenset)):
        raise NotJson("JSON can hold but found a set; give a list")
    try:
        return msgspec.to_builtins(value)
    except (TypeError, ValueError):
        raise NotJson(f"JSON can hold but found a {type(value).__name__}") from None


_encode: Final = json.JSONEncoder(
    ensure_ascii=False, allow_nan=False, separators=(",", ":"), default=_known_to_msgspec
).encode


def to_json(value: Any, what: str = "a value", limit: int | None = PAYLOAD_BYTES_MAX) -> bytes:
    """`value` as UTF-8 JSON of at most `limit` bytes. Raises NotJson with "Expected `what` ... but ..."."""
    try:
        encoded = _encode(value).encode()
    except NotJson as problem:
        raise NotJson(f"Expected {what} {problem}") from None
    except UnicodeEncodeError:
        raise NotJson(f"Expected {what} JSON can hold but found text with a lone surrogate") from None
    except RecursionError:
        raise NotJson(f"Expected {what} JSON can hold but it is nested too deeply") from None
    except ValueError as problem:
        found = "a reference to itself" if "Circular" in str(problem) else "NaN or an infinite number"
        raise NotJson(f"Expected {what} JSON can hold but found {found}") from None
    except TypeError as problem:
        raise NotJson(f"Expected {what} JSON can hold but {problem}") from None
    if limit is not None and len(encoded) > limit:
        raise NotJson(f"Expected {what} of at most {limit} bytes but got {len(encoded)}")
    return encoded
