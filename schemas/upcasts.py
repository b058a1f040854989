"""How a record written under an older released schema becomes one of the next: one pure step a version.

`UPCASTS[(kind, n)]` turns the plain Avro data of version n into that of version n + 1. A step may fill in what the
old version did not say; it never drops what it did. Avro's own resolution is not used at run time: a step is plain to
read, and old records cost only their steps.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

Upcast = Callable[[dict[str, Any]], dict[str, Any]]

UPCASTS: Final[dict[tuple[str, int], Upcast]] = {}


def upcast(
    kind: str,
    version: int,
    newest: int,
    record: dict[str, Any],
    steps: dict[tuple[str, int], Upcast] = UPCASTS,
) -> dict[str, Any]:
    """`record` of `version`, as `newest` would have written it."""
    for step in range(version, newest):
        record = steps[(kind, step)](record)
    return record
