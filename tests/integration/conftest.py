"""Fixtures that several modules of this folder share."""

from __future__ import annotations

import orjson
import pytest

from engine.runtime import kafka
from engine.runtime.topics import DEFINITIONS, create_topics
from projections.migrations import migrate
from schemas import messages as m
from schemas.codec import encode_definition
from schemas.registry import newest
from tests.conftest import Servers
from tests.integration.projection_log import EventLog
from tests.unit.replay_logs import ORDER, PARTITIONS


@pytest.fixture
def migrated(database: str) -> str:
    """A database of its own with Flowtrail's tables."""
    migrate(database)
    return database


@pytest.fixture
def order_log(servers: Servers, prefix: str) -> EventLog:
    """Empty topics, the definition of `replay_logs.order` published."""
    create_topics(kafka.admin_client(servers.kafka), prefix, PARTITIONS, 1)
    document = orjson.dumps(ORDER.document, option=orjson.OPT_SORT_KEYS)
    published = m.PublishedDefinition(ORDER.id, ORDER.hash, document, "", "application/yaml", 1, "test")
    sending = kafka.producer(servers.kafka)
    headers: list[tuple[str, str | bytes | None]] = [("schema", newest("definition").fingerprint)]
    value = encode_definition(published)
    sending.produce(prefix + DEFINITIONS, value, key=ORDER.id.encode(), headers=headers)
    assert sending.flush(30) == 0
    return EventLog(servers.kafka, prefix)
