"""Numbered migrations: `sql/migrations/NNNN_name.sql`, each applied once, in order, in one transaction with its note.

A released file is never edited: its SHA-256 is kept in `flowtrail_api.migrations`, and a difference is refused. Two
runners at once are serialised by an advisory lock. A file whose first line is `-- no-transaction` runs statement by
statement (for CREATE INDEX CONCURRENTLY) and must be written so that it can run again.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from functools import cache
from typing import Final

import psycopg

from engine.errors import AwayError, InputError
from projections.statements import sql_folder, statements

NO_TRANSACTION: Final = "-- no-transaction"
_LOCK: Final = 0x466C6F77  # any constant that no other program of the database uses
_FILE: Final = re.compile(r"(\d{4})_([a-z0-9_]+)\.sql")
_SQL: Final = statements("migrations")


@dataclass(frozen=True, slots=True)
class Migration:
    number: int
    name: str
    text: str

    @property
    def sha256(self) -> bytes:
        return hashlib.sha256(self.text.encode()).digest()


@cache
def released() -> tuple[Migration, ...]:
    """Every migration of this program, in order; the numbers are 1, 2, 3 ... without a gap."""
    files = sorted(sql_folder().joinpath("migrations").iterdir(), key=lambda file: file.name)
    found = [
        Migration(int(match[1]), match[2], file.read_text("utf-8").replace("\r\n", "\n"))
        for file in files
        if (match := _FILE.fullmatch(file.name))
    ]
    numbers = [migration.number for migration in found]
    if numbers != list(range(1, len(found) + 1)):
        raise InputError(f"Expected migrations 1 ... {len(found)} without a gap but found {numbers}")
    return tuple(found)


def migrate(postgres: str, wanted: tuple[Migration, ...] | None = None) -> list[str]:
    """Applies what is missing; returns the names applied. Raises AwayError when Postgres does not answer."""
    wanted = released() if wanted is None else wanted
    try:
        with psycopg.connect(postgres, autocommit=True, connect_timeout=10) as connection:
            connection.execute(_SQL["lock"], {"key": _LOCK})
            connection.execute(_SQL["bookkeeping"])
            done = _applied(connection)
            _compare(done, wanted)
            missing = [migration for migration in wanted if migration.number not in done]
            for migration in missing:
                _apply(connection, migration)
            return [f"{migration.number:04d}_{migration.name}" for migration in missing]
    except psycopg.OperationalError as problem:
        raise AwayError(f"Expected Postgres to answer but {str(problem).strip()}") from None


def check(connection: psycopg.Connection) -> None:
    """Raises AwayError when the database was not migrated to what this program needs, InputError when it is newer."""
    try:
        done = _applied(connection)
    except psycopg.errors.UndefinedTable:
        raise AwayError(
            "Expected the database to hold Flowtrail's tables but it has none; run: flowtrail admin init"
        ) from None
    wanted = released()
    _compare(done, wanted)
    missing = [f"{m.number:04d}_{m.name}" for m in wanted if m.number not in done]
    if missing:
        raise AwayError(
            f"Expected the database to be migrated but it lacks {', '.join(missing)}; run: flowtrail admin init"
        )


def _applied(connection: psycopg.Connection) -> dict[int, tuple[str, bytes]]:
    rows = connection.execute(_SQL["applied"]).fetchall()
    return {number: (name, bytes(sha256)) for number, name, sha256 in rows}


def _compare(done: dict[int, tuple[str, bytes]], wanted: tuple[Migration, ...]) -> None:
    known = {migration.number: migration for migration in wanted}
    for number, (name, sha256) in sorted(done.items()):
        migration = known.get(number)
        if migration is None:
            raise InputError(
                f"Expected a database of at most migration {len(wanted):04d} but it has {number:04d}_{name}: "
                "it was migrated by a newer Flowtrail; use that one"
            )
        if migration.sha256 != sha256:
            raise InputError(
                f"Expected migration {number:04d}_{name}.sql to be the one that was applied (SHA-256 {sha256.hex()}) "
                f"but it was edited ({migration.sha256.hex()}); restore it and put the change into a new file"
            )


def _apply(connection: psycopg.Connection, migration: Migration) -> None:
    note = {"number": migration.number, "name": migration.name, "sha256": migration.sha256}
    if migration.text.startswith(NO_TRANSACTION):
        for statement in _split(migration.text):
            connection.execute(statement.encode())
        connection.execute(_SQL["note"], note)
        return
    with connection.transaction():
        connection.execute(migration.text.encode())
        connection.execute(_SQL["note"], note)


def _split(text: str) -> list[str]:
    """Statements that end with a semicolon at the end of a line; such a file holds no other kind."""
    lines = (line for line in text.splitlines() if not line.lstrip().startswith("--"))
    parts = "\n".join(lines).split(";\n")
    return [part.strip().rstrip(";") for part in parts if part.strip()]
