"""Two schemas' tables compared, row by row in the order of their keys, each read in a snapshot of its own connection.

A table's SHA-256 is that of all its rows as COPY writes them; columns that are not from the log are left out. Of a part that
was rebuilt (beside.py) only its tables, and of these only the rows of its flows, are compared; the others are counted.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any

import msgspec
import psycopg
from psycopg import sql

from projections.statements import SCHEMA
from replay.beside import NEW, SQL, TABLES, Part


class TableReport(msgspec.Struct, frozen=True):
    """`sha256` of every row in the order of its key, in use and rebuilt; `first` is the first key that differs.

    `copied` rows were taken over from the table in use and are in neither count.
    """

    rows: int
    sha256: str
    rebuilt_rows: int
    rebuilt_sha256: str
    first: str | None = None
    copied: int = 0

    @property
    def equal(self) -> bool:
        return self.sha256 == self.rebuilt_sha256


def compare(
    one: psycopg.Connection[Any], other: psycopg.Connection[Any], part: Part
) -> dict[str, TableReport]:
    """The tables in use, read by `one`, with the rebuilt ones, read by `other`."""
    return {name: _compared(one, other, name, part.since is not None) for name in part.tables}


def copied(one: psycopg.Connection[Any], part: Part) -> dict[str, int]:
    """Rows of tables that were taken over whole."""
    return {name: _count(one, NEW, name) for name in TABLES if name not in part.tables}


def _compared(
    one: psycopg.Connection[Any], other: psycopg.Connection[Any], name: str, of_chosen: bool
) -> TableReport:
    key, without = TABLES[name]
    hashes = hashlib.sha256(), hashlib.sha256()
    counts = [0, 0]
    first: str | None = None
    columns = _columns(one, name, without)
    width = len(key)
    streams = tuple(
        _rows(connection, schema, name, columns, of_chosen)
        for connection, schema in ((one, SCHEMA), (other, NEW))
    )
    rows: list[bytes | None] = [b"", b""]
    while rows[0] is not None or rows[1] is not None:
        for side, stream in enumerate(streams):
            if rows[side] is not None:
                rows[side] = line = next(stream, None)
                if line is not None:
                    hashes[side].update(line)
                    counts[side] += 1
        if first is None and rows[0] != rows[1]:
            lines = [line for line in rows if line is not None]
            first = min(" ".join(line.decode("utf-8", "replace").split("\t")[:width]) for line in lines)
    others = _count(other, NEW, name) - counts[1] if of_chosen else 0
    return TableReport(counts[0], hashes[0].hexdigest(), counts[1], hashes[1].hexdigest(), first, others)


def _count(connection: psycopg.Connection[Any], schema: str, name: str) -> int:
    statement = sql.SQL(SQL["count"].decode())
    [(count,)] = connection.execute(
        statement.format(schema=sql.Identifier(schema), name=sql.Identifier(name))
    ).fetchall()
    return int(count)


def _columns(connection: psycopg.Connection[Any], name: str, without: tuple[str, ...]) -> list[str]:
    """The key first, then the others."""
    key = TABLES[name][0]
    found = connection.execute(SQL["columns"], {"schema": SCHEMA, "name": name}).fetchall()
    return [*key, *(column for (column,) in found if column not in (*key, *without))]


def _rows(
    connection: psycopg.Connection[Any], schema: str, name: str, columns: list[str], of_chosen: bool
) -> Iterator[bytes]:
    """Lines in COPY's text form, in the order of the key."""
    statement = sql.SQL(SQL["rows_of_chosen" if of_chosen else "rows"].decode()).format(
        columns=sql.SQL(", ").join(map(sql.Identifier, columns)),
        schema=sql.Identifier(schema),
        name=sql.Identifier(name),
        key=sql.SQL(", ").join(map(sql.Identifier, TABLES[name][0])),
    )
    with connection.cursor() as cursor, cursor.copy(statement) as copy:
        for row in copy:
            yield bytes(row)
