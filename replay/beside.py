"""The second schema of a rebuild: made beside the one in use, empty or with what is not rebuilt copied, and put in its place.

What is being rebuilt (`Part`) is written on the schema, so that a rebuild that was interrupted goes on only as the same one.
A part's schema begins as a copy: in one snapshot of the tables in use and their positions, everything goes over that is not
to be rebuilt; what is, is then folded from the log's beginning to those positions (projection AGAIN), and from there on the
schema is like any other. Statements are in sql/rebuild.sql.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec
import psycopg
from psycopg import sql

from engine.errors import InputError
from projections import migrations
from projections.statements import SCHEMA, sql_folder
from projections.store import PROJECTION
from replay.moment import parse_moment
from replay.statements import replay_statements

NEW: Final = f"{SCHEMA}_rebuild"
BEFORE: Final = f"{SCHEMA}_before"
AGAIN: Final = "again"
"""The projection that stands where the fold of a part has come to, until it is where the copy was made."""

TABLES: Final[dict[str, tuple[tuple[str, ...], tuple[str, ...]]]] = {
    "flows": (("flow_id",), ()),
    "tasks": (("flow_id", "task", "run", "attempt"), ()),
    "history": (("partition", "event_offset"), ()),
    "rejections": (("partition", "event_offset"), ()),
    "unreadable": (("partition", "event_offset"), ("seen_at",)),
    "broken": (("flow_id",), ()),
}
"""Table -> its key, and the columns that are not from the log."""

_FLOWS: Final = ("flows", "tasks", "broken")
NAMES: Final[dict[str, tuple[str, ...]]] = {
    PROJECTION: tuple(TABLES),
    "flows": _FLOWS,
    "tasks": _FLOWS,  # a row of flows counts its tasks: they are one
    "history": ("history",),
    "rejections": ("rejections",),
}
"""What can be rebuilt by name, and its tables. What is unreadable is so for all of them, and only rebuilt with them."""

SQL: Final = replay_statements("rebuild")


class Part(msgspec.Struct, frozen=True):
    """`name` of NAMES; with `since`, in microseconds, only flows that have an event at or after that time."""

    name: str = PROJECTION
    since: int | None = None

    @property
    def is_all(self) -> bool:
        return self.name == PROJECTION and self.since is None

    @property
    def tables(self) -> tuple[str, ...]:
        """Those that are folded again."""
        if self.since is None:
            return NAMES[self.name]
        return tuple(table for table in NAMES[self.name] if table != "unreadable")


def parse_part(name: str, since: str | None) -> Part:
    """Raises InputError."""
    if name not in NAMES:
        raise InputError(f"Expected one of {', '.join(NAMES)} but found {name[:100]!r}")
    if since is None:
        return Part(name)
    moment = parse_moment(since, "--since")
    if moment.time is None:
        raise InputError(f"Expected --since to be a time but found the sequence number {since}")
    return Part(name, moment.time)


def schemas(connection: psycopg.Connection[Any]) -> dict[str, str | None]:
    return dict(connection.execute(SQL["schemas"], {"names": [SCHEMA, NEW, BEFORE]}).fetchall())


def is_made(connection: psycopg.Connection[Any], part: Part) -> bool:
    """Whether an interrupted rebuild of this very program and part left its schema."""
    return schemas(connection).get(NEW) == _note(part)


def _note(part: Part) -> str:
    return f"migration {len(migrations.released())}, {part.name}, since {part.since}"


def make(connection: psycopg.Connection[Any], part: Part) -> None:
    """To be called in a transaction. Tables without the indexes that are no keys."""
    drop(connection, NEW)
    for statement in _statements(indexes=False):
        connection.execute(statement)
    note = sql.SQL("COMMENT ON SCHEMA {} IS {}").format(sql.Identifier(NEW), sql.Literal(_note(part)))
    connection.execute(note)


def copy(
    connection: psycopg.Connection[Any], part: Part, topic: str, positions: dict[int, int], chosen: set[str]
) -> None:
    """Everything but `part`, in the transaction whose snapshot stands at `positions`; `chosen` are its flows."""
    if part.since is not None:
        connection.execute(SQL["make_chosen"])
        with connection.cursor() as cursor, cursor.copy(SQL["copy_chosen"]) as rows:
            for flow_id in chosen:
                rows.write_row((flow_id,))
        connection.execute(SQL["analyze_chosen"])
    for name, bounds in connection.execute(SQL["months"]).fetchall():
        month = sql.SQL(SQL["add_month"].decode()).format(table=sql.Identifier(name), bounds=sql.SQL(bounds))
        connection.execute(month)
    for table in TABLES:
        if table not in part.tables:
            connection.execute(_filled("copy_table", table))
        elif part.since is not None:
            connection.execute(_filled("copy_others", table))
    for projection in (PROJECTION, AGAIN):
        starts = {
            "projection": projection,
            "topic": topic,
            "partitions": list(positions),
            "offsets": list(positions.values()) if projection == PROJECTION else [0] * len(positions),
        }
        connection.execute(SQL["set_positions"], starts)


def _filled(statement: str, table: str) -> sql.Composed:
    return sql.SQL(SQL[statement].decode()).format(table=sql.Identifier(table))


def chosen(connection: psycopg.Connection[Any]) -> set[bytes]:
    """Keys of the flows that are rebuilt."""
    return {flow_id.encode() for (flow_id,) in connection.execute(SQL["chosen"]).fetchall()}


def positions(
    connection: psycopg.Connection[Any], schema: str, topic: str, projection: str
) -> dict[int, int]:
    """Partition -> first offset not folded, of those that have one."""
    statement = sql.SQL(SQL["positions"].decode()).format(schema=sql.Identifier(schema))
    asked = {"projection": projection, "topic": topic}
    return dict(connection.execute(statement, asked).fetchall())


def folded_again(connection: psycopg.Connection[Any]) -> None:
    """The part has come to where the copy was made."""
    connection.execute(SQL["folded_again"], {"again": AGAIN})


def index(connection: psycopg.Connection[Any]) -> None:
    """One sort an index, after the load, instead of a place for every row."""
    for statement in _statements(indexes=True):
        connection.execute(statement)


def put_in_place(connection: psycopg.Connection[Any]) -> None:
    """To be called in a transaction that holds the projector."""
    connection.execute(SQL["drop_chosen"])
    drop(connection, BEFORE)
    _rename(connection, SCHEMA, BEFORE)
    _rename(connection, NEW, SCHEMA)


def put_back(connection: psycopg.Connection[Any]) -> None:
    """To be called in a transaction that holds the projector."""
    drop(connection, NEW)
    _rename(connection, SCHEMA, NEW)
    _rename(connection, BEFORE, SCHEMA)


def drop(connection: psycopg.Connection[Any], name: str) -> None:
    connection.execute(sql.SQL("DROP SCHEMA IF EXISTS {} CASCADE").format(sql.Identifier(name)))


def _rename(connection: psycopg.Connection[Any], name: str, new: str) -> None:
    statement = sql.SQL("ALTER SCHEMA {} RENAME TO {}")
    connection.execute(statement.format(sql.Identifier(name), sql.Identifier(new)))


def _statements(*, indexes: bool) -> list[bytes]:
    """What makes the read models' tables in the second schema, or the indexes that are no keys."""
    text = sql_folder().joinpath("schema.sql").read_text("utf-8")
    lines = [line for line in text.splitlines() if not line.startswith("--")]
    parts = [part.strip() for part in "\n".join(lines).split(";\n") if part.strip(" \n;")]
    return [
        part.replace("flowtrail.", f"{NEW}.")
        .replace("CREATE SCHEMA flowtrail", f"CREATE SCHEMA {NEW}")
        .replace("CREATE INDEX", "CREATE INDEX IF NOT EXISTS", 1)
        .encode()
        for part in parts
        if "flowtrail_api" not in part and part.startswith("CREATE INDEX") == indexes
    ]
