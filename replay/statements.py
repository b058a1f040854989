"""The SQL of this room, read from `sql/`: statements under `-- name --` headers, as in projections/statements.py.

No other module of the room holds SQL text, except the list of columns that rows.py takes from the projections.
"""

from __future__ import annotations

import re
from functools import cache
from importlib import resources
from typing import Final

_HEADER: Final = re.compile(r"^-- ([a-z_]+) --$", re.MULTILINE)


@cache
def replay_statements(file: str) -> dict[str, bytes]:
    """Name -> statement of `sql/<file>.sql`."""
    text = resources.files("replay").joinpath("sql", f"{file}.sql").read_text("utf-8")
    parts = _HEADER.split(text)[1:]
    return {name: body.strip().encode() for name, body in zip(parts[::2], parts[1::2], strict=True)}
