"""Pages of lists that are whole in memory; the big ones are cut by Postgres (projections.queries)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from api.errors import Invalid

T = TypeVar("T")


def cut(items: Sequence[T], cursor: str | None, limit: int) -> tuple[Sequence[T], str | None]:
    """(the page, the next cursor). A cursor is a count of items; lists cut here only grow at their end."""
    if cursor is not None and not (cursor.isascii() and cursor.isdigit() and len(cursor) < 10):
        raise Invalid(
            f"Expected the cursor of a page that was answered before but found {cursor[:100]!r}",
            slug="invalid-parameter",
        )
    start = int(cursor or 0)
    end = start + limit
    return items[start:end], str(end) if end < len(items) else None
