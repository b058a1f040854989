"""The AsyncAPI document against the specification's structure, the engine's topics and the records really written."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import jsonschema_rs
import pytest
import yaml

from engine.runtime import topics
from engine.runtime.records import event_headers
from schemas import messages as m
from schemas.asyncapi import TOPICS, document
from schemas.registry import newest, released

DOCUMENT = document("flowtrail.", 8, "127.0.0.1:9092")

# The structure AsyncAPI 3.0.0 demands, as far as the document uses it: objects closed, references in their form
_REF = {
    "type": "object",
    "required": ["$ref"],
    "additionalProperties": False,
    "properties": {"$ref": {"type": "string"}},
}
STRUCTURE: dict[str, Any] = {
    "type": "object",
    "required": ["asyncapi", "info", "channels", "operations", "components"],
    "additionalProperties": False,
    "properties": {
        "asyncapi": {"const": "3.0.0"},
        "id": {"type": "string", "format": "uri"},
        "defaultContentType": {"type": "string"},
        "info": {
            "type": "object",
            "required": ["title", "version"],
            "additionalProperties": False,
            "properties": {
                "title": {"type": "string"},
                "version": {"type": "string"},
                "description": {"type": "string"},
                "license": {"type": "object", "required": ["name"]},
            },
        },
        "servers": {
            "type": "object",
            "additionalProperties": {
                "type": "object",
                "required": ["host", "protocol"],
                "additionalProperties": False,
                "properties": {k: {"type": "string"} for k in ("host", "protocol", "description")},
            },
        },
        "channels": {
            "type": "object",
            "additionalProperties": {
                "type": "object",
                "additionalProperties": False,
                "required": ["address", "messages"],
                "properties": {
                    "address": {"type": "string"},
                    "description": {"type": "string"},
                    "messages": {"type": "object", "additionalProperties": _REF},
                    "parameters": {"type": "object"},
                    "bindings": {"type": "object", "required": ["kafka"]},
                },
            },
        },
        "operations": {
            "type": "object",
            "additionalProperties": {
                "type": "object",
                "required": ["action", "channel"],
                "additionalProperties": False,
                "properties": {
                    "action": {"enum": ["send", "receive"]},
                    "channel": _REF,
                    "summary": {"type": "string"},
                    "messages": {"type": "array", "items": _REF},
                },
            },
        },
        "components": {
            "type": "object",
            "required": ["messages"],
            "additionalProperties": False,
            "properties": {
                "messages": {
                    "type": "object",
                    "additionalProperties": {
                        "type": "object",
                        "required": ["payload", "headers", "contentType"],
                        "additionalProperties": False,
                        "properties": {
                            "name": {"type": "string"},
                            "title": {"type": "string"},
                            "summary": {"type": "string"},
                            "contentType": {"type": "string"},
                            "correlationId": {"type": "object", "required": ["location"]},
                            "headers": {"type": "object", "required": ["type", "properties"]},
                            "payload": {"type": "object"},
                            "bindings": {"type": "object"},
                        },
                    },
                }
            },
        },
    },
}


def test_the_document_has_the_structure_of_asyncapi_3() -> None:
    errors = [f"{e.instance_path}: {e.message}" for e in jsonschema_rs.iter_errors(STRUCTURE, DOCUMENT)]
    assert errors == []


def references(value: Any) -> list[str]:
    if isinstance(value, dict):
        found = [value["$ref"]] if isinstance(value.get("$ref"), str) else []
        return found + [r for v in value.values() for r in references(v)]
    return [r for v in value for r in references(v)] if isinstance(value, list) else []


def test_every_reference_leads_somewhere() -> None:
    for reference in references(DOCUMENT):
        place: Any = DOCUMENT
        for part in reference.removeprefix("#/").split("/"):
            place = place[part]


def test_the_topics_and_their_configuration_are_the_engines() -> None:
    assert {name.replace("{queue}", "") for name in TOPICS} == set(topics.CONFIGURATION)
    for name, (_, _, configuration, _) in TOPICS.items():
        real = topics.CONFIGURATION[name.replace("{queue}", "")]
        for key, value in configuration.items():
            assert real[key] == (",".join(value) if isinstance(value, list) else str(value)), (name, key)


def test_every_released_kind_is_a_message_with_its_newest_schema() -> None:
    messages = DOCUMENT["components"]["messages"]
    for kind in {schema.kind for schema in released()}:
        assert messages[kind]["payload"]["schema"] == json.loads(newest(kind).text)
        assert (
            newest(kind).fingerprint.hex() in messages[kind]["headers"]["properties"]["schema"]["description"]
        )


def test_the_headers_of_an_event_are_those_that_are_written() -> None:
    event = m.Event(
        flow_id="f",
        sequence=1,
        time=0,
        actor=m.Actor("user", "u"),
        cause=m.Cause("c", 0, 0),
        definition="a/b@1.0.0",
        definition_hash=b"",
        task=None,
        run=0,
        attempt=0,
        trace="00-" + "1" * 32 + "-" + "2" * 16 + "-01",
        previous_hash=b"",
        body=m.FlowStarted(b"{}"),
    )
    described = DOCUMENT["components"]["messages"]["event"]["headers"]
    written = {name for name, _ in event_headers(event)}
    assert written == set(described["properties"])
    assert set(described["required"]) == written - {"traceparent"}


@pytest.mark.parametrize("options", [["--json"], []], ids=["json", "yaml"])
def test_the_command_prints_the_document(options: list[str]) -> None:
    command = [sys.executable, "-m", "cli.main", "schemas", "asyncapi", *options]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert yaml.safe_load(printed)["channels"] == document()["channels"]


def test_check_ends_with_0_and_says_ok() -> None:
    command = [sys.executable, "-m", "cli.main", "schemas", "check", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, json.loads(done.stdout)["problems"]) == (0, [])
