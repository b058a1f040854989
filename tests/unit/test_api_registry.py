"""The registry's answers as Confluent's clients read them, and what an SDK begins with."""

from __future__ import annotations

import json

import pytest

from schemas.registry import newest, released
from tests.unit.api_calls import Desk, desk, problem


@pytest.fixture(scope="module")
def api() -> Desk:
    made = desk(kafka="kafka:19092", worker_kafka="outside:9092")
    made.publish()
    return made


def test_every_released_schema_is_found_by_its_id(api: Desk) -> None:
    for schema in released():
        answer = api.http.get(f"/registry/schemas/ids/{schema.id}?fetchMaxId=false&subject=x")
        assert answer.json()["schema"] == schema.text
        assert answer.headers["content-type"] == "application/vnd.schemaregistry.v1+json"
        assert api.http.get(f"/registry/schemas/ids/{schema.id}/schema").text == schema.text
        assert schema.name in api.http.get(f"/registry/schemas/ids/{schema.id}/subjects").json()
        versions = api.http.get(f"/registry/schemas/ids/{schema.id}/versions").json()
        assert {"subject": schema.name, "version": schema.version} in versions


def test_topics_and_records_are_subjects(api: Desk) -> None:
    subjects = api.http.get("/registry/subjects").json()
    assert "flowtrail.events-value" in subjects
    assert "flowtrail.tasks.orders-value" in subjects
    assert "io.flowtrail.v1.Rejection" in subjects
    for subject in subjects:
        versions = api.http.get(f"/registry/subjects/{subject}/versions").json()
        assert versions == list(range(1, len(versions) + 1)) != []
        latest = api.http.get(f"/registry/subjects/{subject}/versions/latest").json()
        assert latest["subject"] == subject
        last = f"/registry/subjects/{subject}/versions/{versions[-1]}"
        assert latest == api.http.get(last).json()
        assert api.http.get(f"{last}/schema").text == latest["schema"]


def test_a_schema_is_looked_up_whatever_its_layout(api: Desk) -> None:
    schema = newest("command")
    body = {"schema": json.dumps(json.loads(schema.text))}
    found = api.http.post("/registry/subjects/flowtrail.commands-value?normalize=false", json=body).json()
    assert (found["id"], found["version"]) == (schema.id, schema.version)
    assert api.http.post("/registry/subjects/io.flowtrail.v1.Command/versions", json=body).json() == {
        "id": schema.id
    }


def test_what_is_not_there_has_confluents_error_code(api: Desk) -> None:
    found = problem(api.http.get("/registry/subjects/nope/versions"), 404, "unknown-subject")
    assert found["error_code"] == 40401
    assert found["message"] == found["detail"]
    subject = "/registry/subjects/flowtrail.events-value"
    assert problem(api.http.get(f"{subject}/versions/99"), 404, "unknown-version")["error_code"] == 40402
    assert problem(api.http.get("/registry/schemas/ids/1"), 404, "unknown-schema")["error_code"] == 40403
    other = {"schema": '"string"'}
    assert problem(api.http.post(subject, json=other), 404, "unknown-schema")["error_code"] == 40403
    answer = api.http.post(f"{subject}/versions", json=other)
    assert problem(answer, 422, "read-only-registry")["error_code"] == 42205
    for bad in ("no json", '{"type": "record"}', '{"type": "nope"}', "[" * 10_000):
        answer = api.http.post(subject, json={"schema": bad})
        assert problem(answer, 422, "invalid-schema")["error_code"] == 42201
    answer = api.http.get("/registry/subjects", headers={"Authorization": "Bearer x"})
    assert problem(answer, 401, "unauthorized")["error_code"] == 401


def test_compatibility_and_mode_are_told(api: Desk) -> None:
    assert api.http.get("/registry/config").json() == {"compatibilityLevel": "BACKWARD_TRANSITIVE"}
    assert api.http.get("/registry/config/flowtrail.events-value?defaultToGlobal=true").status_code == 200
    assert api.http.get("/registry/mode").json() == {"mode": "READONLY"}
    assert api.http.get("/registry/schemas/types").json() == ["AVRO"]


def test_an_sdk_learns_brokers_topics_and_schemas(api: Desk) -> None:
    found = api.http.get("/registry/bootstrap").json()
    assert found["kafka"] == "outside:9092"
    assert found["topics"]["commands"] == "flowtrail.commands"
    assert found["topics"]["tasks_prefix"] == "flowtrail.tasks."
    task = newest("task")
    assert found["schemas"]["task"] == {
        "id": task.id,
        "fingerprint": task.fingerprint.hex(),
        "version": task.version,
        "schema": task.text,
    }


def test_a_queue_is_made_on_demand(api: Desk) -> None:
    topics = ["flowtrail.tasks.mail.high", "flowtrail.tasks.mail", "flowtrail.tasks.mail.low"]
    assert api.http.post("/queues/mail").json() == {"queue": "mail", "topic": topics[1], "topics": topics}
    assert "mail" in api.memory.queues.made
    for bad in ("UPPER", "a b", "-a", "x" * 65, "mail.high", "mail.low"):
        problem(api.http.post(f"/queues/{bad}"), 422, "invalid-queue")
