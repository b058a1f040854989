"""Publishing, validating and reading definitions."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from tests.unit.api_calls import ORDER, YAML, Desk, desk, problem


@pytest.fixture
def api() -> Desk:
    return desk()


def test_publishing_makes_queue_claim_and_record_and_is_seen_at_once(api: Desk) -> None:
    answer = api.http.post("/definitions", content=ORDER, headers={"Content-Type": "application/yaml"})
    assert answer.status_code == 201
    view = answer.json()
    assert view["definition"] == "shop/order@1.0.0"
    assert view["published_by"] == "tester-abc123"
    assert view["queues"] == ["orders"]
    assert answer.headers["location"] == "/definitions/shop/order/1.0.0"
    assert api.memory.queues.made == {"orders"}
    assert api.memory.store.definitions["shop/order@1.0.0"].hex() == view["hash"]
    assert api.start().status_code == 202


def test_the_same_content_again_is_200_in_whatever_format(api: Desk) -> None:
    first = api.publish()
    as_json = json.dumps(yaml.safe_load(ORDER))
    again = api.http.post("/definitions", content=as_json, headers={"Content-Type": "application/json"})
    assert (again.status_code, again.json()["hash"]) == (200, first["hash"])
    assert len(api.memory.log.sent) == 1


def test_other_content_under_a_published_version_is_409(api: Desk) -> None:
    api.publish()
    changed = ORDER.replace("call: charge", "call: refund")
    found = problem(api.http.post("/definitions", content=changed), 409, "version-exists")
    assert "give it a new version" in found["detail"]


def test_the_loser_of_a_race_is_409_before_anything_is_written(api: Desk) -> None:
    api.memory.store.definitions["shop/order@1.0.0"] = b"another publisher's hash"
    problem(api.http.post("/definitions", content=ORDER), 409, "version-exists")
    assert api.memory.log.sent == []


def test_publishing_again_finishes_what_a_crash_left(api: Desk) -> None:
    api.memory.log.away = True
    problem(api.http.post("/definitions", content=ORDER), 503, "server-away")
    assert api.memory.store.definitions
    api.memory.log.away = False
    assert api.http.post("/definitions", content=ORDER).status_code == 201


def test_every_problem_is_listed_with_its_place(api: Desk) -> None:
    text = ORDER.replace("call: charge", "fork: {branches: []}").replace("'1.0.0'", "'2.0.0'", 1)
    answer = api.http.post("/definitions", content=text, headers={"Content-Type": "application/yaml"})
    places = problem(answer, 422, "invalid-definition")["problems"]
    assert len(places) == 2
    assert all(set(place) == {"message", "pointer", "line", "column"} for place in places)
    assert places[0]["line"] == 2
    assert "Expected a list of tasks but found an empty list" in places[1]["message"]


@pytest.mark.parametrize(
    ("body", "media_type", "slug", "text"),
    [
        ("a: [1", "application/yaml", "invalid-definition", ""),
        ("", "application/yaml", "invalid-definition", ""),
        ("a: 1", "application/json", "malformed-json", "line 1"),
        ('{"a": 1,}', "application/json", "malformed-json", "line 1, column 8"),
        (
            "a: &a [1]\nb: &b [*a,*a]\nc: " + "[" + "*b," * 40_000 + "*b]",
            "application/yaml",
            "invalid-definition",
            "",
        ),
        ("x" * 1_048_577, "application/yaml", "invalid-definition", ""),
    ],
)
def test_malformed_text_is_422(api: Desk, body: str, media_type: str, slug: str, text: str) -> None:
    answer = api.http.post("/definitions", content=body, headers={"Content-Type": media_type})
    assert text in problem(answer, 422, slug)["detail"]


def test_other_media_types_are_415_and_none_is_guessed(api: Desk) -> None:
    answer = api.http.post("/definitions", content=ORDER, headers={"Content-Type": "application/xml"})
    problem(answer, 415, "unsupported-media-type")
    assert api.http.post("/definitions/validate", content=ORDER).status_code == 200


def test_validating_publishes_nothing(api: Desk) -> None:
    answer = api.http.post("/definitions/validate", content=ORDER)
    assert answer.json()["definition"] == "shop/order@1.0.0"
    assert api.memory.log.sent == []
    problem(api.http.post("/definitions/validate", content="do: []"), 422, "invalid-definition")


def test_definitions_are_listed_in_pages_by_name_and_version(api: Desk) -> None:
    for version in ("1.10.0", "1.9.0", "1.9.0-rc.1"):
        api.publish(YAML.format(version=version))
    api.publish(ORDER.replace("name: order", "name: cart"))
    every = api.http.get("/definitions").json()
    ids = [one["definition"] for one in every["definitions"]]
    assert ids == ["shop/cart@1.0.0", "shop/order@1.9.0-rc.1", "shop/order@1.9.0", "shop/order@1.10.0"]
    assert every["next"] is None
    first = api.http.get("/definitions?limit=3").json()
    rest = api.http.get(f"/definitions?limit=3&cursor={first['next']}").json()
    assert [d["definition"] for d in first["definitions"] + rest["definitions"]] == ids
    assert len(api.http.get("/definitions?name=cart").json()["definitions"]) == 1
    problem(api.http.get("/definitions?cursor=a"), 422, "invalid-parameter")
    versions = api.http.get("/definitions/shop/order").json()
    assert versions["newest"] == "1.10.0"
    problem(api.http.get("/definitions/shop/none"), 404, "unknown-definition")


def test_a_version_is_answered_as_document_or_as_source(api: Desk) -> None:
    view = api.publish()
    document = api.http.get("/definitions/shop/order/1.0.0")
    assert document.json() == yaml.safe_load(ORDER)
    assert document.headers["etag"] == f'"{view["hash"]}"'
    for accept in ("application/yaml", "text/plain", "text/yaml;q=0.9, application/json;q=0.1"):
        source = api.http.get("/definitions/shop/order/1.0.0", headers={"Accept": accept})
        assert source.text == ORDER
        assert source.headers["content-type"].startswith("application/yaml")
    assert api.http.get("/definitions/shop/order/latest").json() == document.json()
    problem(api.http.get("/definitions/shop/order/2.0.0"), 404, "unknown-definition")


def test_a_published_document_holds_its_cataloged_functions(tmp_path: Path) -> None:
    function = tmp_path / "functions/log/1.0.0/function.yaml"
    function.parent.mkdir(parents=True)
    function.write_text("set: {logged: true}\n")
    api = desk(catalogs=str(tmp_path))
    text = ORDER.replace("call: charge", "call: 'log:1.0.0@default'")
    assert api.http.post("/definitions/validate", content=text).json()["warnings"] == []
    api.publish(text)
    function.unlink()  # nobody needs it any more
    published = api.http.get("/definitions/shop/order/1.0.0")
    assert published.json()["use"]["functions"] == {"log:1.0.0@default": {"set": {"logged": True}}}
    source = api.http.get("/definitions/shop/order/1.0.0", headers={"Accept": "application/yaml"})
    assert source.text == text
    answer = problem(api.http.post("/definitions", content=text), 422, "invalid-definition")
    assert "No such file" in answer["problems"][0]["message"]


def test_another_content_of_the_catalog_is_another_content_of_the_definition(tmp_path: Path) -> None:
    function = tmp_path / "functions/log/1.0.0/function.yaml"
    function.parent.mkdir(parents=True)
    function.write_text("set: {logged: true}\n")
    api = desk(catalogs=str(tmp_path))
    text = ORDER.replace("call: charge", "call: 'log:1.0.0@default'")
    api.publish(text)
    function.write_text("set: {logged: false}\n")
    problem(api.http.post("/definitions", content=text), 409, "version-exists")


def test_without_catalogs_a_cataloged_function_is_a_warning_with_its_place(api: Desk) -> None:
    text = ORDER.replace("call: charge", "call: 'log:1.0.0@default'")
    warnings = api.http.post("/definitions/validate", content=text).json()["warnings"]
    assert [warning["pointer"] for warning in warnings] == ["/do/0/charge/call"]
    assert "was not read" in warnings[0]["message"]
