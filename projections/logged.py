"""What a fold gets: an event with its stored bytes and its place in the log. Pure."""

from __future__ import annotations

import msgspec

from schemas import messages as m


class Logged(msgspec.Struct, gc=False):
    event: m.Event
    value: bytes
    partition: int
    offset: int


class Record(msgspec.Struct, gc=False):
    """One record of the events topic as it was read; nothing decoded yet."""

    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    fingerprint: bytes | None


def error_json(error: m.Error) -> bytes:
    """Problem details without the members that are absent."""
    members = {name: getattr(error, name) for name in error.__struct_fields__}
    return msgspec.json.encode({name: value for name, value in members.items() if value is not None})
