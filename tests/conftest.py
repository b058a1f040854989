"""Servers for the tests: one embedded Kafka and Postgres a session (or yours, or containers).

FLOWTRAIL_KAFKA / FLOWTRAIL_POSTGRES point at servers of one's own; FLOWTRAIL_TEST_STACK=containers uses
testcontainers; otherwise the embedded stack starts on free ports with its data in a temporary directory.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# how long an example takes says how busy the machine is, not whether the code is right
settings.register_profile("flowtrail", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("flowtrail")


@dataclass(frozen=True)
class Servers:
    """`kafka` is host:port, `postgres` a connection string whose user may create databases."""

    kafka: str
    postgres: str


@pytest.fixture(scope="session")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    if os.environ.get("FLOWTRAIL_TEST_STACK") == "containers":
        from tests.containers import containers

        with containers() as (kafka, postgres):
            yield Servers(kafka, postgres)
        return
    kafka, postgres = os.environ.get("FLOWTRAIL_KAFKA"), os.environ.get("FLOWTRAIL_POSTGRES")
    if kafka and postgres:
        yield Servers(kafka, postgres)
        return
    from stack.embedded import Stack

    with Stack(tmp_path_factory.mktemp("stack"), ports="auto") as addresses:
        yield Servers(addresses.kafka, addresses.postgres)


@pytest.fixture
def prefix() -> str:
    """A topic prefix of the test's own."""
    return f"t{uuid.uuid4().hex[:10]}."


@pytest.fixture
def database(servers: Servers) -> Iterator[str]:
    """An empty database of the test's own."""
    import psycopg
    from psycopg.conninfo import conninfo_to_dict, make_conninfo

    name = f"t{uuid.uuid4().hex[:10]}"
    with psycopg.connect(servers.postgres, autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}"')
    try:
        yield make_conninfo(**conninfo_to_dict(servers.postgres) | {"dbname": name})
    finally:
        with psycopg.connect(servers.postgres, autocommit=True) as connection:
            connection.execute(f'DROP DATABASE "{name}" WITH (FORCE)')


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with the specification and the real event logs; tests that need it skip where it is absent."""
    folder = Path(os.environ.get("FLOWTRAIL_SHARED", Path(__file__).parents[2] / "shared"))
    if not folder.is_dir():
        pytest.skip(f"needs the shared folder ({folder} is absent)")
    return folder


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--seeds", type=int, default=500, help="how many seeds the simulation runs")
    parser.addoption("--seed", type=int, default=None, help="the one seed the simulation repeats")
