"""The OpenAPI document: complete, closed, and true to what is answered."""

from __future__ import annotations

import re
from typing import Any

import jsonschema_rs
import pytest

from api.edge import OPEN
from tests.unit.api_calls import Desk, desk, flow, position


@pytest.fixture(scope="module")
def api() -> Desk:
    return desk()


@pytest.fixture(scope="module")
def document(api: Desk) -> Any:
    return api.http.get("/openapi.json", headers={"Authorization": ""}).json()


def references(value: Any) -> list[str]:
    if isinstance(value, dict):
        found = [value["$ref"]] if isinstance(value.get("$ref"), str) else []
        return found + [r for v in value.values() for r in references(v)]
    return [r for v in value for r in references(v)] if isinstance(value, list) else []


def test_every_reference_leads_somewhere(document: Any) -> None:
    names = {reference.removeprefix("#/components/schemas/") for reference in references(document)}
    assert names <= set(document["components"]["schemas"])


def test_the_routes_of_the_contract_are_all_there(document: Any) -> None:
    wanted = {
        "/definitions": {"get", "post"},
        "/definitions/validate": {"post"},
        "/definitions/{namespace}/{name}": {"get"},
        "/definitions/{namespace}/{name}/{version}": {"get"},
        "/flows": {"get", "post"},
        "/flows/{flow_id}": {"get"},
        "/flows/{flow_id}/tasks": {"get"},
        "/flows/{flow_id}/history": {"get"},
        "/flows/{flow_id}/cancel": {"post"},
        "/flows/{flow_id}/suspend": {"post"},
        "/flows/{flow_id}/resume": {"post"},
        "/tasks/{token}/complete": {"post"},
        "/tasks/{token}/fail": {"post"},
        "/tasks/{token}/heartbeat": {"post"},
        "/approvals": {"get"},
        "/approvals/{token}": {"post"},
        "/events": {"post"},
        "/rejections": {"get"},
        "/registry/bootstrap": {"get"},
        "/queues/{queue}": {"post"},
        "/livez": {"get"},
        "/readyz": {"get"},
        "/metrics": {"get"},
    }
    found = {path: set(operations) for path, operations in document["paths"].items()}
    assert {path: found.get(path) for path in wanted} == wanted


def test_every_operation_describes_problems_and_whether_it_is_open(document: Any) -> None:
    for path, operations in document["paths"].items():
        for operation in operations.values():
            assert "application/problem+json" in operation["responses"]["default"]["content"]
            assert (operation.get("security") == []) is (path in OPEN)


def test_every_described_route_is_closed_without_a_key(api: Desk, document: Any) -> None:
    for path, operations in document["paths"].items():
        for method in operations:
            concrete = re.sub(r"\{\w+\}", "1", path)
            status = api.http.request(method, concrete, headers={"Authorization": ""}).status_code
            assert (status == 401) is (path not in OPEN), (method, path, status)


def valid(document: Any, name: str, value: Any) -> None:
    schema = {"$ref": f"#/components/schemas/{name}", "components": document["components"]}
    jsonschema_rs.validate(schema, value)


def test_answers_are_what_the_document_says(api: Desk, document: Any) -> None:
    api.memory.reads.flows["f1"] = flow("f1")
    api.memory.reads.positions[0] = position(0, 3)
    valid(document, "DefinitionView", api.publish())
    valid(document, "Accepted", api.start().json())
    valid(document, "Flow", api.http.get("/flows/f1").json())
    valid(document, "Problem", api.http.get("/flows/f2").json())
    valid(document, "Problem", api.start({"definition": "shop/order", "input": {}}).json())
