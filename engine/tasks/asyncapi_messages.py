"""Messages of AsyncAPI channels: from JSON to bytes and back. Pure.

A payload is JSON; a text is sent as it is when a header says that it is text. What arrives and is no JSON is text, and
what is no text is base 64.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from engine.tasks.http import json_of
from engine.tasks.uris import text_of


@dataclass(frozen=True)
class Received:
    """One message as it arrived; `size` is that of its payload's bytes."""

    payload: Any
    headers: Mapping[str, Any]
    size: int


def payload_of(content: bytes | None) -> Any:
    """None for nothing, which is also what a tombstone has."""
    if not content:
        return None
    try:
        return json_of(content)
    except ValueError:
        pass
    try:
        return content.decode()
    except UnicodeDecodeError:
        return base64.b64encode(content).decode()


def bytes_of(payload: Any, headers: Mapping[str, Any]) -> bytes:
    kind = next((str(value) for name, value in headers.items() if name.lower() == "content-type"), "")
    if isinstance(payload, str) and kind.startswith("text/"):
        return payload.encode("utf-8", "replace")
    return json.dumps(payload, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")


def header_text(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False) if isinstance(value, dict | list) else text_of(value)
