"""The port to the place where unbounded expressions run. engine/tasks/sandbox.py provides it; this room only asks."""

from __future__ import annotations

from typing import Protocol


class Sandbox(Protocol):
    """Evaluates one jq program under a deadline and a memory limit.

    An implementor must return the JSON of the program's only result (`null` when it gave none), raise ExpressionError
    that names the limit when one was hit, and stay usable afterwards, whatever the program did. It may be called
    from several threads. It must not show the program anything but `value` and `arguments` (JSON; `arguments` is an
    object with exactly `names` as keys).
    """

    def evaluate(self, program: str, names: tuple[str, ...], value: bytes, arguments: bytes) -> bytes: ...
