"""What every request passes: limits, errors as problems, health, metrics."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from api.edge import BODY_BYTES_MAX
from api.memory import MemoryReads
from tests.unit.api_calls import Desk, desk, problem


@pytest.fixture
def api() -> Desk:
    return desk()


def test_a_body_over_the_limit_is_413_by_its_length_or_while_it_arrives(api: Desk) -> None:
    problem(api.http.post("/definitions", content=b"x" * (BODY_BYTES_MAX + 1)), 413, "too-large")

    def chunks() -> Iterator[bytes]:
        for _ in range(BODY_BYTES_MAX // 65536 + 2):
            yield b"x" * 65536

    problem(api.http.post("/definitions", content=chunks()), 413, "too-large")


def test_unknown_routes_and_methods_are_problems(api: Desk) -> None:
    problem(api.http.get("/flows/"), 404, "unknown-route")
    answer = api.http.delete("/flows")
    problem(answer, 405, "method-not-allowed")
    assert answer.headers["allow"] == "GET, POST"


def test_a_defect_is_500_and_tells_nothing(api: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    async def broken(*_: object) -> None:
        raise RuntimeError("a secret")

    monkeypatch.setattr(MemoryReads, "ask", broken)
    answer = api.http.get("/flows/f1")
    problem(answer, 500, "defect")
    assert "secret" not in answer.text


def test_liveness_needs_nothing(api: Desk) -> None:
    api.memory.store.away = api.memory.log.away = api.memory.definitions.away = True
    assert api.http.get("/livez", headers={"Authorization": ""}).status_code == 200


@pytest.mark.parametrize("missing", ["kafka", "postgres", "definitions"])
def test_readiness_names_what_is_missing(api: Desk, missing: str) -> None:
    port = {"kafka": api.memory.log, "postgres": api.memory.store, "definitions": api.memory.definitions}
    port[missing].away = True  # type: ignore[attr-defined]
    answer = api.http.get("/readyz", headers={"Authorization": ""})
    checks = problem(answer, 503, "not-ready")["checks"]
    assert [name for name, said in checks.items() if said != "ok"] == [missing]


def test_readiness_is_200_when_nothing_is(api: Desk) -> None:
    assert api.http.get("/readyz").json()["status"] == "ok"


def test_metrics_name_routes_and_never_paths(api: Desk) -> None:
    api.http.get("/flows/some-flow-id")
    api.http.request("FOO", "/nothing")
    text = api.http.get("/metrics", headers={"Authorization": ""}).text
    assert 'flowtrail_api_requests_total{method="GET",route="/flows/{flow_id}",status="404"}' in text
    assert 'method="other",route="unmatched"' in text
    assert "some-flow-id" not in text
    for name in ("flowtrail_api_in_flight", "flowtrail_api_waiters", "flowtrail_api_refused_keys_total"):
        assert name in text


def test_no_page_loads_scripts_from_elsewhere(api: Desk) -> None:
    assert api.http.get("/docs").status_code == 404
