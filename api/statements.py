"""The SQL of this room, read from `sql/api.sql`: statements under `-- name --` headers. No other module holds any."""

from __future__ import annotations

import re
from functools import cache
from importlib import resources

_HEADER = re.compile(r"^-- ([a-z_]+) --$", re.MULTILINE)


@cache
def statements() -> dict[str, bytes]:
    """Name -> statement."""
    text = resources.files("api").joinpath("sql", "api.sql").read_text("utf-8")
    parts = _HEADER.split(text)[1:]
    return {name: body.strip().encode() for name, body in zip(parts[::2], parts[1::2], strict=True)}
