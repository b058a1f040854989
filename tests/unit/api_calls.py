"""The API over its in-memory twins, for the tests of this folder: a client with a good key, and things to send."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import msgspec
from starlette.testclient import TestClient

from api import keys
from api.app import create_app
from api.memory import Memory
from api.ports import StoredKey
from engine.settings import Settings
from projections import views
from schemas import messages as m

KEY = "tester-abc123.0123456789abcdefghij"
YAML = """\
document:
  dsl: '1.0.0'
  namespace: shop
  name: order
  version: '{version}'
  metadata: {{queue: orders}}
input:
  schema:
    document: {{type: object, required: [amount], properties: {{amount: {{type: number}}}}}}
do:
  - charge:
      call: charge
"""
ORDER = YAML.format(version="1.0.0")


@dataclass
class Desk:
    memory: Memory
    http: TestClient

    def publish(self, text: str = ORDER) -> Any:
        answer = self.http.post("/definitions", content=text, headers={"Content-Type": "application/yaml"})
        assert answer.status_code == 201, answer.text
        return answer.json()

    def start(self, body: Any = None, **headers: str) -> Any:
        given = {"definition": "shop/order", "input": {"amount": 1}} if body is None else body
        return self.http.post("/flows", json=given, headers=headers)


def desk(**given: Any) -> Desk:
    memory = Memory()
    key_id, secret = keys.split(KEY) or ("", "")
    memory.store.keys[key_id] = StoredKey(key_id, keys.digest(memory.pepper, secret), "tester", revoked=False)
    app = create_app(Settings.model_validate(given), memory.ports())
    http = TestClient(app, headers={"Authorization": f"Bearer {KEY}"}, raise_server_exceptions=False)
    return Desk(memory, http)


def position(partition: int, command_offset: int) -> views.PositionView:
    now = datetime(2020, 1, 1, tzinfo=UTC)
    return views.PositionView(
        projection="flowtrail",
        topic="flowtrail.events",
        partition=partition,
        next_offset=1,
        command_offset=command_offset,
        event_time=now,
        updated_at=now,
    )


def flow(flow_id: str, status: str = "running", **given: Any) -> views.Flow:
    now = datetime(2020, 1, 1, tzinfo=UTC)
    ended = now if status in ("completed", "faulted", "cancelled") else None
    values: dict[str, Any] = {
        "id": flow_id,
        "definition": "shop/order@1.0.0",
        "namespace": "shop",
        "name": "order",
        "version": "1.0.0",
        "definition_hash": "00",
        "status": status,
        "sequence": 1,
        "head": "00",
        "started_at": now,
        "updated_at": now,
        "ended_at": ended,
        "started_by": m.Actor("user", "tester-abc123"),
        "command_id": "c1",
        "trace": None,
        "reason": None,
        "partition": 0,
        "first_offset": 0,
        "last_offset": 0,
        "engine_version": "0",
        "error": None,
        "input": msgspec.Raw(b'{"amount": 1.0}'),
        "transformed": None,
        "context": None,
        "output": None,
        "active": [],
    }
    return views.Flow(**values | given)


def problem(answer: Any, status: int, slug: str) -> dict[str, Any]:
    """The problem of `answer`, which must be one of this status and type."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    content: dict[str, Any] = answer.json()
    assert content["status"] == status
    assert content["type"].endswith("#" + slug), content
    assert content["title"]
    return content
