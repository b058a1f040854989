"""Starting and cancelling flows: what becomes a command, what is refused and how."""

from __future__ import annotations

import json
from typing import Any

import pytest

from api.memory import Memory
from api.ports import Outcome
from engine.core.decide import PAYLOAD_BYTES_MAX
from schemas import messages as m
from schemas.codec import decode_command
from schemas.registry import newest
from tests.unit.api_calls import YAML, Desk, desk, flow, position, problem

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.fixture
def api() -> Desk:
    made = desk()
    made.publish()
    made.memory.log.sent.clear()
    return made


def commands(memory: Memory) -> list[m.Command]:
    return [decode_command(value) for topic, _, value, _ in memory.log.sent if topic == "commands"]


# -- what is produced -----------------------------------------------------------------------------------------------


def test_a_start_becomes_a_command_with_the_very_bytes_of_its_input(api: Desk) -> None:
    body = b'{"definition":"shop/order","input":{"amount" : 1.50, "text":"\\u00e9\\u0000", "amount":2e0}}'
    answer = api.http.post("/flows", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == 202
    accepted = answer.json()
    topic, key, _, headers = api.memory.log.sent[0]
    command = commands(api.memory)[0]
    assert (topic, key) == ("commands", accepted["id"])
    assert dict(headers)["schema"] == newest("command").fingerprint
    assert command.flow_id == accepted["id"]
    assert command.command_id == accepted["command_id"]
    assert command.actor == m.Actor("user", "tester-abc123")
    body_of = command.body
    assert isinstance(body_of, m.StartFlow)
    assert body_of.definition == "shop/order@1.0.0" == accepted["definition"]
    assert body_of.input == b'{"amount" : 1.50, "text":"\\u00e9\\u0000", "amount":2e0}'
    assert answer.headers["location"] == f"/flows/{accepted['id']}"


def test_a_name_without_version_means_the_newest(api: Desk) -> None:
    api.publish(YAML.format(version="1.10.0"))
    api.publish(YAML.format(version="1.9.0"))
    assert api.start().json()["definition"] == "shop/order@1.10.0"
    exact = {"definition": "shop/order@1.0.0", "input": {"amount": 1}}
    assert api.start(exact).json()["definition"] == "shop/order@1.0.0"


def test_a_trace_context_travels_on_and_a_malformed_one_does_not(api: Desk) -> None:
    api.start(traceparent=TRACE)
    api.start(traceparent="00-zzz")
    assert [command.trace for command in commands(api.memory)] == [TRACE, None]
    assert dict(api.memory.log.sent[0][3])["traceparent"] == TRACE.encode()


def test_a_flow_may_have_an_id_of_its_callers_choice(api: Desk) -> None:
    answer = api.start({"definition": "shop/order", "input": {"amount": 1}, "id": "order:17"})
    assert answer.json()["id"] == "order:17"
    assert answer.headers["location"] == "/flows/order:17"


def test_an_id_in_use_is_409(api: Desk) -> None:
    api.memory.store.starters["taken"] = "somebody's command"
    body = {"definition": "shop/order", "input": {"amount": 1}, "id": "taken"}
    problem(api.start(body), 409, "flow-exists")
    assert commands(api.memory) == []


# -- idempotency ----------------------------------------------------------------------------------------------------


def test_the_same_key_and_body_is_the_same_command_again(api: Desk) -> None:
    first, second = (api.start(**{"Idempotency-Key": "k1"}).json() for _ in range(2))
    assert first["id"] == second["id"]
    assert first["command_id"] == second["command_id"]
    assert len({(c.flow_id, c.command_id) for c in commands(api.memory)}) == 1
    assert len(commands(api.memory)) == 2  # the engine takes it once; a crash before the first loses nothing


def test_a_lost_claim_leads_to_the_same_ids(api: Desk) -> None:
    first = api.start(**{"Idempotency-Key": "k1"}).json()
    api.memory.store.claims.clear()
    assert api.start(**{"Idempotency-Key": "k1"}).json()["id"] == first["id"]


def test_a_repetition_for_a_flow_that_runs_produces_nothing(api: Desk) -> None:
    first = api.start(**{"Idempotency-Key": "k1"}).json()
    api.memory.store.starters[first["id"]] = first["command_id"]
    api.memory.reads.flows[first["id"]] = flow(first["id"], partition=3)
    api.memory.reads.positions[3] = position(3, 99)
    again = api.start(**{"Idempotency-Key": "k1"}).json()
    assert again == {**first, "position": "3:99"}
    assert len(commands(api.memory)) == 1


def test_the_same_key_with_another_body_is_422(api: Desk) -> None:
    api.start(**{"Idempotency-Key": "k1"})
    other = {"definition": "shop/order", "input": {"amount": 2}}
    problem(api.start(other, **{"Idempotency-Key": "k1"}), 422, "idempotency-key-reused")


def test_other_keys_are_other_flows(api: Desk) -> None:
    ids = {api.start(**{"Idempotency-Key": key}).json()["id"] for key in ("a", "b", "c")}
    assert len(ids) == 3


@pytest.mark.parametrize("key", ["", "x" * 256])
def test_a_bad_idempotency_key_is_refused(api: Desk, key: str) -> None:
    problem(api.start(**{"Idempotency-Key": key}), 422, "invalid-parameter")


# -- bad input ------------------------------------------------------------------------------------------------------


def test_an_unknown_definition_is_422(api: Desk) -> None:
    found = problem(api.start({"definition": "shop/other"}), 422, "unknown-definition")
    assert found["detail"] == "Expected a published definition but found 'shop/other'"


def test_an_input_the_schema_refuses_is_422_with_its_place(api: Desk) -> None:
    found = problem(api.start({"definition": "shop/order", "input": {"amount": "1"}}), 422, "invalid-input")
    assert "/amount" in found["problems"][0]["message"]
    assert found["problems"][0]["pointer"] == "/input"
    assert commands(api.memory) == []


def test_a_missing_input_is_an_empty_object(api: Desk) -> None:
    problem(api.start({"definition": "shop/order"}), 422, "invalid-input")


@pytest.mark.parametrize(
    ("body", "slug", "place"),
    [
        (b"", "malformed-json", "nothing"),
        (b'{"definition":', "malformed-json", "line 1, column 15"),
        (b'{\n "definition": "shop/order",\n "input": nope}', "malformed-json", "line 3"),
        (b'{"definition": 3}', "invalid-body", "/definition"),
        (b'{"definition": "a/b", "inptu": {}}', "invalid-body", "inptu"),
        (b"[]", "invalid-body", "at the top"),
        (b'{"definition": "shop/order", "id": "../etc"}', "invalid-body", "flow id"),
        (b'{"definition": "shop/order", "id": ""}', "invalid-body", "flow id"),
        (b'{"definition": "shop/order", "input": NaN}', "malformed-json", "line 1"),
        (b'{"definition": "shop/order", "input": "\\ud800"}', "malformed-json", "surrogate"),
        (b'{"definition": "\xff"}', "malformed-json", ""),
        (b'{"definition": "shop/order", "input": ' + b"[" * 5000 + b"]" * 5000 + b"}", "malformed-json", ""),
    ],
)
def test_a_bad_body_is_422_and_says_where(api: Desk, body: bytes, slug: str, place: str) -> None:
    answer = api.http.post("/flows", content=body, headers={"Content-Type": "application/json"})
    assert place in problem(answer, 422, slug)["detail"]
    assert commands(api.memory) == []


def test_another_media_type_is_415(api: Desk) -> None:
    answer = api.http.post("/flows", content=b"a=b", headers={"Content-Type": "application/xml"})
    problem(answer, 415, "unsupported-media-type")


def test_a_payload_over_the_limit_is_413_and_one_at_the_limit_is_taken(api: Desk) -> None:
    def sized(size: int) -> Any:
        rest = len(json.dumps({"amount": 1, "text": ""}, separators=(",", ":")))
        return {"definition": "shop/order", "input": {"amount": 1, "text": "x" * (size - rest)}}

    problem(api.start(sized(PAYLOAD_BYTES_MAX + 1)), 413, "payload-too-large")
    assert api.start(sized(PAYLOAD_BYTES_MAX)).status_code == 202


def test_kafka_away_is_503_and_a_repetition_goes_through(api: Desk) -> None:
    api.memory.log.away = True
    answer = api.start(**{"Idempotency-Key": "k"})
    assert answer.headers["retry-after"]
    problem(answer, 503, "server-away")
    api.memory.log.away = False
    assert api.start(**{"Idempotency-Key": "k"}).status_code == 202


def test_definitions_that_cannot_be_read_are_503_and_not_unknown() -> None:
    api = desk()
    api.memory.definitions.away = True
    problem(api.start({"definition": "shop/order"}), 503, "server-away")


# -- waiting --------------------------------------------------------------------------------------------------------


def test_waiting_answers_the_ended_flow(api: Desk) -> None:
    api.memory.reads.flows["f1"] = flow("f1", "completed")
    body = {"definition": "shop/order", "input": {"amount": 1}, "id": "f1"}
    key = {"Idempotency-Key": "k"}
    command = api.http.post("/flows", json=body, headers=key).json()["command_id"]
    api.memory.store.outcomes_of["f1"] = Outcome("f1", command)
    answer = api.http.post("/flows?wait=completed", json=body, headers=key)
    assert (answer.status_code, answer.json()["status"]) == (200, "completed")
    assert b'"input":{"amount": 1.0}' in answer.content


def test_waiting_in_vain_answers_202(api: Desk) -> None:
    body = {"definition": "shop/order", "input": {"amount": 1}}
    answer = api.http.post("/flows?wait=completed&timeout=0.05", json=body)
    assert (answer.status_code, set(answer.json())) == (
        202,
        {"id", "definition", "command_id", "position"},
    )


def test_a_start_the_engine_refuses_is_told_to_the_one_who_waits(api: Desk) -> None:
    body = {"definition": "shop/order", "input": {"amount": 1}, "id": "f1"}
    headers = {"Idempotency-Key": "k"}
    command = api.http.post("/flows", json=body, headers=headers).json()["command_id"]
    api.memory.store.outcomes_of["f1"] = Outcome("f1", command, "flow-exists", "Expected ... but ...")
    problem(api.http.post("/flows?wait=completed", json=body, headers=headers), 409, "flow-exists")


@pytest.mark.parametrize(
    "query", ["wait=yes", "wait=completed&timeout=x", "timeout=61", "timeout=nan", "wiat=1"]
)
def test_bad_waits_are_refused_before_anything_is_done(api: Desk, query: str) -> None:
    answer = api.http.post(f"/flows?{query}", json={"definition": "shop/order", "input": {"amount": 1}})
    problem(answer, 422, "invalid-parameter")
    assert commands(api.memory) == []


# -- cancelling -----------------------------------------------------------------------------------------------------


def test_a_cancellation_becomes_a_command(api: Desk) -> None:
    api.memory.reads.flows["f1"] = flow("f1")
    answer = api.http.post("/flows/f1/cancel", json={"reason": "wrong order"})
    assert answer.status_code == 202
    assert [c.body for c in commands(api.memory)] == [m.CancelFlow("wrong order")]
    assert api.http.post("/flows/f1/cancel").status_code == 202


def test_a_repeated_cancellation_has_the_same_command_id(api: Desk) -> None:
    api.memory.reads.flows["f1"] = flow("f1")
    for _ in range(2):
        api.http.post("/flows/f1/cancel", headers={"Idempotency-Key": "k"})
    assert len({c.command_id for c in commands(api.memory)}) == 1


def test_an_unknown_or_ended_flow_cannot_be_cancelled(api: Desk) -> None:
    api.memory.reads.flows["old"] = flow("old", "faulted")
    found = problem(api.http.post("/flows/old/cancel"), 409, "flow-ended")
    assert found["detail"] == "Expected a running flow but flow old is faulted"
    problem(api.http.post("/flows/none/cancel"), 404, "unknown-flow")
    problem(api.http.post("/flows/-/cancel"), 404, "unknown-flow")
    assert commands(api.memory) == []


def test_a_reason_is_a_short_text(api: Desk) -> None:
    api.memory.reads.flows["f1"] = flow("f1")
    problem(api.http.post("/flows/f1/cancel", json={"reason": 1}), 422, "invalid-body")
    problem(api.http.post("/flows/f1/cancel", json={"reason": "x" * 1001}), 422, "invalid-body")
