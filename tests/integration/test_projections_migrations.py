"""Migrations on a real Postgres: what they give is schema.sql, once, whoever runs them and however often."""

from __future__ import annotations

import threading
from typing import Any

import psycopg
import pytest

from engine.errors import AwayError, InputError
from projections.migrations import Migration, check, migrate, released
from projections.statements import sql_folder

CATALOG = """
SELECT 'column', c.relnamespace::regnamespace::text, c.relname, a.attnum::text,
       concat_ws(' ', a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull, co.collname,
                 pg_get_expr(d.adbin, d.adrelid), col_description(c.oid, a.attnum))
FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
LEFT JOIN pg_collation co ON co.oid = a.attcollation
LEFT JOIN pg_attrdef d ON d.adrelid = c.oid AND d.adnum = a.attnum
WHERE c.relnamespace::regnamespace::text LIKE 'flowtrail%'
UNION ALL
SELECT 'relation', relnamespace::regnamespace::text, relname, relkind::text,
       concat_ws(' ', reloptions::text, pg_get_partkeydef(oid), pg_get_expr(relpartbound, oid), obj_description(oid))
FROM pg_class WHERE relnamespace::regnamespace::text LIKE 'flowtrail%'
UNION ALL
SELECT 'index', schemaname, indexname, '', indexdef FROM pg_indexes WHERE schemaname LIKE 'flowtrail%'
UNION ALL
SELECT 'constraint', connamespace::regnamespace::text, conname, '', pg_get_constraintdef(oid)
FROM pg_constraint WHERE connamespace::regnamespace::text LIKE 'flowtrail%'
ORDER BY 1, 2, 3, 4
"""


def catalog(database: str) -> list[tuple[Any, ...]]:
    with psycopg.connect(database) as connection:
        return connection.execute(CATALOG).fetchall()


def test_the_migrations_give_the_database_of_schema_sql(database: str) -> None:
    assert migrate(database) == [f"{m.number:04d}_{m.name}" for m in released()]
    migrated = catalog(database)
    with psycopg.connect(database) as connection:
        connection.execute("DROP SCHEMA flowtrail CASCADE; DROP SCHEMA flowtrail_api CASCADE")
        connection.execute(sql_folder().joinpath("schema.sql").read_text("utf-8").encode())
    described = catalog(database)
    assert len(migrated) > 100
    assert migrated == described


def test_migrating_again_changes_nothing(database: str) -> None:
    migrate(database)
    before = catalog(database)
    assert migrate(database) == []
    assert catalog(database) == before


def test_two_runners_at_once_apply_each_migration_once(database: str) -> None:
    applied: list[str] = []
    threads = [threading.Thread(target=lambda: applied.extend(migrate(database))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sorted(applied) == [f"{m.number:04d}_{m.name}" for m in released()]


def test_a_failing_migration_leaves_nothing_of_itself(database: str) -> None:
    broken = Migration(len(released()) + 1, "broken", "CREATE TABLE flowtrail.half (a int); SELECT 1 / 0")
    with pytest.raises(psycopg.errors.DivisionByZero):
        migrate(database, (*released(), broken))
    assert migrate(database) == []
    with psycopg.connect(database) as connection:
        assert connection.execute("SELECT to_regclass('flowtrail.half')").fetchone() == (None,)


def test_an_edited_released_file_is_refused(database: str) -> None:
    migrate(database)
    first, *others = released()
    edited = Migration(first.number, first.name, first.text + "-- more\n")
    with pytest.raises(InputError, match="put the change into a new file"):
        migrate(database, (edited, *others))


def test_a_migration_without_a_transaction_may_build_an_index_concurrently(database: str) -> None:
    text = "-- no-transaction\nCREATE INDEX CONCURRENTLY extra ON flowtrail.flows (version);\nSELECT 1;\n"
    extra = Migration(len(released()) + 1, "extra", text)
    assert migrate(database, (*released(), extra))[-1].endswith("extra")


def test_an_unmigrated_and_a_newer_database_are_told_apart(database: str) -> None:
    with psycopg.connect(database, autocommit=True) as connection:
        with pytest.raises(AwayError, match="has none; run: flowtrail admin init"):
            check(connection)
        migrate(database, released()[:1])
        lacking = ", ".join(f"{m.number:04d}_{m.name}" for m in released()[1:])
        with pytest.raises(AwayError, match=f"lacks {lacking}; run: flowtrail admin init"):
            check(connection)
        migrate(database, (*released(), Migration(len(released()) + 1, "later", "SELECT 1")))
        with pytest.raises(InputError, match="newer Flowtrail"):
            check(connection)


def test_a_postgres_that_is_away_is_an_away_error() -> None:
    with pytest.raises(AwayError, match="Expected Postgres to answer but"):
        migrate("postgresql://flowtrail@127.0.0.1:1/flowtrail")
