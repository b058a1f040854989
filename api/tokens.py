"""A task's token: URL-safe text that names one attempt of one run of a task.

Opaque to its bearers and no secret: the API key decides. The SDK writes it alike (a test compares).
"""

from __future__ import annotations

import base64
import binascii
from typing import Final, NamedTuple

import msgspec

from api.errors import NotFound
from engine.core.decide import FLOW_ID

_LENGTH_MAX: Final = 8192


class TaskPlace(NamedTuple):
    flow_id: str
    task: str
    run: int
    attempt: int


def token_of(place: TaskPlace) -> str:
    return base64.urlsafe_b64encode(msgspec.json.encode(place)).decode().rstrip("=")


def read_token(token: str) -> TaskPlace:
    """Raises NotFound: whatever is no token names no task."""
    try:
        if len(token) > _LENGTH_MAX:
            raise ValueError
        raw = base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True)
        flow_id, task, run, attempt = msgspec.json.decode(raw, type=tuple[str, str, int, int])
    except (binascii.Error, ValueError, msgspec.DecodeError):
        raise _unknown(token) from None
    if FLOW_ID.fullmatch(flow_id) is None or not task.startswith("/") or not 0 <= run < 2**31 > attempt >= 0:
        raise _unknown(token)
    return TaskPlace(flow_id, task, run, attempt)


def _unknown(token: str) -> NotFound:
    return NotFound(f"Expected a task's token but found {token[:100]!r}", slug="unknown-token")
