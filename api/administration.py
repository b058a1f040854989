"""What an administrator does next to the running system: prepare the servers, and keep API keys.

Everything here may be repeated. Talks to Kafka and Postgres directly, because without it the API cannot serve.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final, TypeVar

import psycopg

from api import keys
from api.statements import statements
from engine.errors import AwayError, InputError
from engine.runtime import kafka
from engine.runtime.topics import create_topics
from engine.settings import Settings
from projections.migrations import migrate

T = TypeVar("T")
KEY_FILE: Final = "api-key"
_PAUSE_S: Final = 0.5
_FIRST_KEY: Final = "local"


@dataclass(frozen=True, slots=True)
class Initialized:
    """What `initialize` made; empty lists and `key_made` False when everything was there."""

    topics: list[str]
    migrations: list[str]
    key_file: str
    key_made: bool


@dataclass(frozen=True, slots=True)
class ListedKey:
    id: str
    name: str
    created_at: datetime
    revoked_at: datetime | None
    last_used_at: datetime | None


def initialize(
    settings: Settings, within_s: float = 30.0, report: Callable[[str], None] = lambda _: None
) -> Initialized:
    """Topics, both database schemas, pepper and first key. Raises AwayError when a server stays away."""
    end = time.monotonic() + within_s
    admin = kafka.admin_client(settings.kafka)
    topics = _patiently(
        lambda: create_topics(admin, settings.topic_prefix, settings.partitions, settings.replication),
        end,
        report,
    )
    migrations = _patiently(lambda: migrate(settings.postgres), end, report)
    pepper = keys.read_pepper(settings.api_pepper, settings.data, create=True)
    file = Path(settings.data) / KEY_FILE
    made = not file.exists() and keys.write_private(file, keys.new_key(_FIRST_KEY) + "\n")
    _keep(settings.postgres, pepper, _read_key(file), _FIRST_KEY)
    return Initialized(topics, migrations, str(file), made)


def _patiently(act: Callable[[], T], end: float, report: Callable[[str], None]) -> T:
    while True:
        try:
            return act()
        except AwayError as problem:
            if time.monotonic() + _PAUSE_S > end:
                raise
            report(f"{problem}; trying again")
            time.sleep(_PAUSE_S)


def _read_key(file: Path) -> str:
    key = file.read_text("ascii").strip()
    if keys.split(key) is None:
        raise InputError(
            f"Expected an API key (id.secret) in {file} but found something else; remove the file"
        )
    return key


# -- keys -----------------------------------------------------------------------------------------------------------


def create_key(settings: Settings, name: str) -> str:
    """A new key. It is told once and kept nowhere."""
    key = keys.new_key(name)
    _keep(settings.postgres, keys.read_pepper(settings.api_pepper, settings.data), key, name)
    return key


def list_keys(settings: Settings) -> list[ListedKey]:
    return [ListedKey(*row) for row in _run(settings.postgres, "list_keys", {})]


def revoke_key(settings: Settings, key_id: str) -> None:
    """Takes effect within seconds (keyring.FRESH_S). Raises InputError for an unknown id."""
    if not _run(settings.postgres, "revoke_key", {"key_id": key_id}):
        raise InputError(f"Expected the id of an API key (flowtrail admin keys list) but found {key_id!r}")


def _keep(postgres: str, pepper: bytes, key: str, name: str) -> None:
    parts = keys.split(key)
    assert parts is not None
    digest = keys.digest(pepper, parts[1])
    _run(postgres, "keep_key", {"key_id": parts[0], "digest": digest, "name": name})


def _run(postgres: str, statement: str, parameters: dict[str, Any]) -> list[tuple[Any, ...]]:
    try:
        with psycopg.connect(
            postgres, autocommit=True, connect_timeout=5, options="-c timezone=UTC"
        ) as connection:
            return connection.execute(statements()[statement], parameters).fetchall()
    except psycopg.errors.UndefinedTable:
        raise AwayError(
            "Expected the database to hold Flowtrail's tables but it has none; run: flowtrail admin init"
        ) from None
    except psycopg.OperationalError as problem:
        raise AwayError(f"Expected Postgres to answer but {str(problem).strip()}") from None
