"""CloudEvents in all three HTTP modes, to records in Kafka's binary mode."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from tests.unit.api_calls import Desk, desk, problem

PLAIN = {"specversion": "1.0", "id": "e1", "source": "/shop", "type": "paid"}


@pytest.fixture
def api() -> Desk:
    return desk()


def structured(api: Desk, event: Any, batch: bool = False) -> Any:
    kind = "application/cloudevents-batch+json" if batch else "application/cloudevents+json; charset=utf-8"
    content = event if isinstance(event, bytes) else json.dumps(event).encode()
    return api.http.post("/events", content=content, headers={"Content-Type": kind})


def sent(api: Desk) -> list[tuple[str, str, bytes | None, dict[str, str]]]:
    return [
        (topic, key, value, {name: text.decode() for name, text in headers})
        for topic, key, value, headers in api.memory.log.sent
    ]


def test_a_structured_event_becomes_a_binary_record_with_the_very_bytes_of_its_data(api: Desk) -> None:
    body = (
        b'{"specversion":"1.0","id":"e1","source":"/shop","type":"paid","subject":"o17","time":'
        b'"2020-01-02T03:04:05.5Z","dataschema":"urn:s","tries":3,"vip":true,"none":null,"data":{"a" : 1.50}}'
    )
    answer = structured(api, body)
    assert answer.status_code == 202
    assert answer.json() == {"events": [{"source": "/shop", "id": "e1"}]}
    assert sent(api) == [
        (
            "inbox",
            "o17",
            b'{"a" : 1.50}',
            {
                "ce_specversion": "1.0", "ce_id": "e1", "ce_source": "/shop", "ce_type": "paid",
                "ce_subject": "o17", "ce_time": "2020-01-02T03:04:05.5Z", "ce_dataschema": "urn:s",
                "ce_tries": "3", "ce_vip": "true", "content-type": "application/json",
            },
        )
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("given", "value", "kind"),
    [
        ({}, None, None),
        ({"data": None}, None, None),
        ({"data": "text"}, b'"text"', "application/json"),
        ({"data": "text", "datacontenttype": "text/plain"}, b"text", "text/plain"),
        ({"data": [1], "datacontenttype": "application/x+json"}, b"[1]", "application/x+json"),
        (
            {
                "data_base64": base64.b64encode(b"\0\xff").decode(),
                "datacontenttype": "application/octet-stream",
            },
            b"\0\xff",
            "application/octet-stream",
        ),
    ],
)
def test_data_take_the_form_their_content_type_says(
    api: Desk, given: dict[str, Any], value: bytes | None, kind: str | None
) -> None:
    assert structured(api, PLAIN | given).status_code == 202
    (record,) = sent(api)
    assert (record[2], record[3].get("content-type")) == (value, kind)


def test_a_batch_becomes_a_record_each(api: Desk) -> None:
    answer = structured(api, [PLAIN | {"id": f"e{n}"} for n in range(3)], batch=True)
    assert [one["id"] for one in answer.json()["events"]] == ["e0", "e1", "e2"]
    assert [record[3]["ce_id"] for record in sent(api)] == ["e0", "e1", "e2"]


def test_binary_mode_takes_attributes_from_headers(api: Desk) -> None:
    headers = {
        "ce-specversion": "1.0", "ce-id": "e1", "ce-source": "/shop", "ce-type": "paid",
        "ce-subject": "Gr%C3%B6%C3%9Fe", "ce-partitionkey": "p", "Content-Type": "application/json",
    }  # fmt: skip
    assert api.http.post("/events", content=b'{"a" : 1}', headers=headers).status_code == 202
    (record,) = sent(api)
    assert record[:3] == ("inbox", "p", b'{"a" : 1}')
    assert record[3]["ce_subject"] == "Größe"


@pytest.mark.parametrize(
    ("event", "said", "pointer"),
    [
        ({"id": ""}, "Expected attribute id but it is missing or empty", "/id"),
        ({"source": None}, "Expected attribute source but it is missing or empty", "/source"),
        ({"specversion": "0.3"}, "Expected specversion 1.0 but found '0.3'", "/specversion"),
        ({"time": "yesterday"}, "Expected time as RFC 3339 has it but found 'yesterday' at /time", "/time"),
        ({"Order": "x"}, "Expected attributes' names of a-z and 0-9 but found 'Order' at /Order", "/Order"),
        ({"nested": {}}, "Expected attribute nested to be a text", "/nested"),
        ({"big": 2**31}, "Expected attribute big to be a text, an integer of 32 bits", "/big"),
        ({"subject": "a\nb"}, "printable characters but it is not at /subject", "/subject"),
        ({"data": 1, "data_base64": "AA=="}, "Expected data or data_base64 but found both", ""),
        ({"data_base64": "%"}, "Expected data_base64 to be Base64 but it is not", "/data_base64"),
    ],
)
def test_a_bad_event_is_400_and_says_where(api: Desk, event: dict[str, Any], said: str, pointer: str) -> None:
    found = problem(structured(api, PLAIN | event), 400, "invalid-event")
    assert said in found["detail"]
    assert found["problems"][0]["pointer"] == pointer
    batched = problem(structured(api, [PLAIN, PLAIN | event], batch=True), 400, "invalid-event")
    assert batched["problems"][0]["pointer"] == "/1" + pointer
    assert api.memory.log.sent == []


@pytest.mark.parametrize(
    ("headers", "content"),
    [
        ({"Content-Type": "application/cloudevents+json"}, b"[]"),
        ({"Content-Type": "application/cloudevents+json"}, b'{"id":'),
        ({"Content-Type": "application/cloudevents+json"}, b"\xff"),
        ({"Content-Type": "application/cloudevents-batch+json"}, b"[]"),
        ({"Content-Type": "application/cloudevents-batch+json"}, b"{}"),
        ({"Content-Type": "application/json"}, b"{}"),
        ({}, b""),
        ({"ce-specversion": "1.0", "ce-id": "e", "ce-source": "/s", "ce-type": "%ff"}, b""),
        ({"ce-specversion": "1.0", "ce-id": "e", "ce-source": "/s"}, b"{}"),
        (
            {
                "ce-specversion": "1.0", "ce-id": "e", "ce-source": "/s", "ce-type": "t",
                "Content-Type": "application/json",
            },
            b"{",
        ),
    ],
)  # fmt: skip
def test_what_is_no_event_is_400(api: Desk, headers: dict[str, str], content: bytes) -> None:
    found = problem(api.http.post("/events", content=content, headers=headers), 400, "invalid-event")
    assert found["detail"].startswith("Expected ")
    assert " but " in found["detail"]
    assert api.memory.log.sent == []


def test_data_over_the_limit_are_413(api: Desk) -> None:
    problem(structured(api, PLAIN | {"data": "x" * 262_144}), 413, "payload-too-large")


def test_kafka_away_is_503(api: Desk) -> None:
    api.memory.log.away = True
    problem(structured(api, PLAIN), 503, "server-away")
