"""The SQL of this room, read from `sql/`: statements under `-- name --` headers, and the migrations' files.

No other module holds SQL text, except the few words of a transaction. Statements are bytes, which psycopg takes as
they are; values always travel as parameters.
"""

from __future__ import annotations

import re
from functools import cache
from importlib import resources
from importlib.resources.abc import Traversable
from typing import Final

SCHEMA: Final = "flowtrail"
"""Where the read models are; a rebuild makes others beside it."""

_HEADER = re.compile(r"^-- ([a-z_]+) --$", re.MULTILINE)


def sql_folder() -> Traversable:
    return resources.files("projections").joinpath("sql")


@cache
def statements(file: str, schema: str = SCHEMA) -> dict[str, bytes]:
    """Name -> statement of `sql/queries/<file>.sql`, over the read models in `schema`."""
    text = (
        sql_folder().joinpath("queries", f"{file}.sql").read_text("utf-8").replace("flowtrail.", f"{schema}.")
    )
    parts = _HEADER.split(text)[1:]
    return {name: body.strip().encode() for name, body in zip(parts[::2], parts[1::2], strict=True)}


@cache
def analysis_statements() -> dict[str, bytes]:
    """`QUESTION_SOURCE` -> statement: the questions of `sql/queries/analysis.sql`, each over driven and over recorded flows."""
    parts = {name: body.decode() for name, body in statements("analysis").items()}
    found = {}
    for name, text in parts.items():
        if name == "ordered" or name.startswith(("steps_of_", "cases_of_")):
            continue
        for source in ("flows", "trails"):
            whole = text.replace("{ordered}", parts["ordered"])
            whole = whole.replace("{steps}", parts[f"steps_of_{source}"])
            found[f"{name}_{source}"] = whole.replace("{cases}", parts[f"cases_of_{source}"]).encode()
    return found
