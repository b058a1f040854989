"""The executor process over real Kafka: a flow calls HTTP and OpenAPI, with a secret and an error to catch."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Servers
from tests.integration.api_process import Installed, installation
from tests.local_http import Answer, LocalHttp, Request, as_json, local_http

FLOW = """\
document: {dsl: '1.0.0', namespace: shop, name: calls, version: '1.0.0'}
use:
  secrets: [shop-key]
  authentications:
    shop: {bearer: {token: '${ $secrets["shop-key"] }'}}
do:
  - read:
      call: http
      with: {method: get, endpoint: {uri: 'https://shop.example/items/{item}', authentication: {use: shop}}}
      output: {as: '${ {item: .name} }'}
  - described:
      call: openapi
      with:
        document: {endpoint: 'https://shop.example/openapi.json'}
        operationId: putItem
        parameters: {id: 7, body: '${ . }'}
  - absent:
      try:
        - missing: {call: http, with: {method: get, endpoint: 'https://shop.example/absent'}}
      catch:
        errors: {with: {type: 'https://serverlessworkflow.io/spec/1.0.0/errors/communication', status: 404}}
        do:
          - told: {set: {caught: '${ $error.status }', before: '${ $input }'}}
"""
OPENAPI = {
    "openapi": "3.0.0",
    "paths": {
        "/items/{id}": {
            "put": {
                "operationId": "putItem",
                "parameters": [{"name": "id", "in": "path", "required": True}],
                "requestBody": {"content": {"application/json": {}}},
            }
        }
    },
}
SECRET = "s3cret-of-the-shop"


def answered(request: Request) -> Answer:
    match request.method, request.path:
        case "GET", "/items/7":
            return as_json({"name": "milou", "price": 1})
        case "GET", "/openapi.json":
            return as_json(OPENAPI)
        case "PUT", "/items/7":
            return as_json({"kept": request.json()})
    return 404, {}, b""


@pytest.fixture
def shop() -> Iterator[LocalHttp]:
    with local_http(answered) as server:
        yield server


@pytest.fixture
def installed(
    servers: Servers, tmp_path: Path, shop: LocalHttp, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Installed]:
    monkeypatch.setenv("FLOWTRAIL_HTTP_REWRITE", f"https://shop.example={shop.url}")
    monkeypatch.setenv("FLOWTRAIL_SECRET_SHOP_KEY", SECRET)
    monkeypatch.setenv("FLOWTRAIL_WORKER_STATE", str(tmp_path / "journal"))
    with installation(servers, tmp_path / "data") as made:
        monkeypatch.setenv("FLOWTRAIL_API_URL", made.url)
        monkeypatch.setenv("FLOWTRAIL_HTTP_PRIVATE_NETWORKS", "deny")
        made.start("executor", "run")
        yield made


def test_a_flow_calls_http_and_openapi(installed: Installed, shop: LocalHttp) -> None:
    ended = perform(installed, FLOW, "shop/calls", {"item": 7})
    told = {"caught": 404, "before": {"kept": {"item": "milou"}}}
    assert (ended["status"], ended["output"]) == ("completed", told), f"{ended}\n{installed.logs()}"
    assert shop.requests[0].headers["authorization"] == f"Bearer {SECRET}"
    with installed.client() as client:
        history = client.get(f"/flows/{ended['id']}/history").text
    assert "milou" in history
    assert SECRET not in history
    assert SECRET not in installed.logs()
    began = time.monotonic()
    assert installed.stop("executor") == 0
    assert time.monotonic() - began < 15


def perform(installed: Installed, text: str, definition: str, value: Any) -> Any:
    with installed.client() as client:
        answer = client.post("/definitions", content=text, headers={"Content-Type": "application/yaml"})
        assert answer.status_code == 201, answer.text
        body = {"definition": definition, "input": value}
        answer = client.post("/flows?wait=completed&timeout=60", json=body, timeout=70)
        assert answer.status_code == 200, answer.text + installed.logs()
        return answer.json()
