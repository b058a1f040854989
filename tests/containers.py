"""Kafka and Postgres as containers, with the images and settings of docker-compose.yml (FLOWTRAIL_TEST_STACK=containers)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

COMPOSE = Path(__file__).parents[1] / "docker-compose.yml"


def kafka_environment(port: int) -> dict[str, str]:
    """Compose's settings with the outside listener advertised on the host's `port`."""
    settings = yaml.safe_load(COMPOSE.read_text())["services"]["kafka"]["environment"]
    found = {name: str(value) for name, value in settings.items()}
    found["KAFKA_ADVERTISED_LISTENERS"] = f"INTERNAL://localhost:19092,EXTERNAL://127.0.0.1:{port}"
    found["KAFKA_CONTROLLER_QUORUM_VOTERS"] = "1@localhost:9093"
    return found


def image(service: str) -> str:
    return str(yaml.safe_load(COMPOSE.read_text())["services"][service]["image"])


@contextmanager
def containers() -> Iterator[tuple[str, str]]:
    """host:port of Kafka, and a connection string of Postgres."""
    from testcontainers.core.container import DockerContainer
    from testcontainers.core.waiting_utils import wait_for_logs
    from testcontainers.postgres import PostgresContainer

    from stack.ports import free_port

    port = free_port()
    kafka: Any = DockerContainer(image("kafka")).with_bind_ports(9092, port)
    for name, value in kafka_environment(port).items():
        kafka = kafka.with_env(name, value)
    with kafka, PostgresContainer(image("postgres"), driver=None) as postgres:
        wait_for_logs(kafka, "Kafka Server started", timeout=90)
        yield f"127.0.0.1:{port}", postgres.get_connection_url()
