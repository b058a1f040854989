"""Reads: pages, filters, positions, and what is refused."""

from __future__ import annotations

import msgspec
import pytest

from api.memory import Memory
from projections import views
from projections.views import Page
from tests.unit.api_calls import Desk, desk, flow, position, problem


@pytest.fixture
def api() -> Desk:
    made = desk()
    made.memory.reads.positions = {p: position(p, 10 + p) for p in range(8)}
    made.memory.reads.flows["f1"] = flow("f1")
    return made


def summaries(memory: Memory) -> list[dict[str, object]]:
    """Keeps the parameters of each list_flows and answers one flow."""
    asked: list[dict[str, object]] = []

    def answer(parameters: dict[str, object]) -> Page[views.FlowSummary]:
        asked.append(parameters)
        return Page([flow("f1")], "following")

    memory.reads.answers["list_flows"] = answer
    return asked


def test_a_flow_is_answered_with_its_payloads_untouched(api: Desk) -> None:
    nasty = b'{"a":1.0,"a":"\\u0000\\ud800","n":12345678901234567890.10}'
    api.memory.reads.flows["f1"] = flow("f1", input=msgspec.Raw(nasty))
    answer = api.http.get("/flows/f1")
    assert b'"input":' + nasty in answer.content
    assert answer.headers["content-type"] == "application/json"


def test_an_unknown_flow_is_404_everywhere(api: Desk) -> None:
    for path in ("/flows/none", "/flows/none/tasks", "/flows/none/history", "/flows/none?min_position=0:1"):
        found = problem(api.http.get(path), 404, "unknown-flow")
        assert found["instance"].startswith("/flows/none")


def test_a_flow_without_tasks_is_an_empty_list(api: Desk) -> None:
    assert api.http.get("/flows/f1/tasks").json() == {"tasks": [], "next": None}
    assert api.http.get("/flows/f1/history?cursor=7").json() == {"events": [], "next": None}


def test_filters_reach_the_query_and_a_page_names_the_next(api: Desk) -> None:
    asked = summaries(api.memory)
    answer = api.http.get(
        "/flows?status=completed&definition=shop/order@1.0.0&id_prefix=f&limit=7"
        "&started_after=2020-01-01T00:00:00Z&started_before=2020-01-02T00:00:00%2B01:00"
    )
    assert answer.json()["next"] == "following"
    assert [one["id"] for one in answer.json()["flows"]] == ["f1"]
    assert asked[0]["status"] == "completed"
    assert asked[0]["definition"] == "shop/order@1.0.0"
    assert asked[0]["limit"] == 8
    assert asked[0]["id_from"] == "f"


@pytest.mark.parametrize(
    "query",
    [
        "limit=0",
        "limit=1001",
        "limit=x",
        "status=done",
        "definition=shop",
        "cursor=%21%21",
        "started_after=yesterday",
        "started_after=2020-01-01T00:00:00",
        "statsu=completed",
        "id_prefix=a%00b",
        "min_position=x",
        "min_position=9:1",
        "min_position=-1:1",
    ],
)
def test_a_bad_filter_is_422(api: Desk, query: str) -> None:
    answer = api.http.get(f"/flows?{query}")
    assert answer.status_code == 422, answer.text
    assert answer.json()["detail"].startswith("Expected ")


def test_a_nul_in_a_path_is_422_and_reaches_no_server(api: Desk) -> None:
    asked = len(api.memory.reads.asked)
    problem(api.http.get("/flows/a%00b"), 422, "invalid-parameter")
    assert len(api.memory.reads.asked) == asked


def test_answers_say_what_they_are_as_of(api: Desk) -> None:
    summaries(api.memory)
    one = api.http.get("/flows/f1").headers["flowtrail-position"]
    partition = int(one.split(":")[0])
    assert one == f"{partition}:{10 + partition}"
    every = api.http.get("/flows").headers["flowtrail-position"]
    assert every == ",".join(f"{p}:{10 + p}" for p in range(8))
    assert api.http.get(f"/flows?min_position={every}").status_code == 200


def test_a_position_not_reached_is_503(api: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("api.positions.Positions.reached.__defaults__", (0.05,))
    answer = api.http.get("/flows/f1?min_position=2:13")
    found = problem(answer, 503, "position-not-reached")
    assert found["detail"].endswith("it is at 2:12 for 2:13")
    assert answer.headers["retry-after"] == "1"


def test_waiting_for_an_unknown_flow_is_404_once_the_time_is_over(api: Desk) -> None:
    problem(api.http.get("/flows/none?wait=completed&timeout=0.03"), 404, "unknown-flow")
    assert api.http.get("/flows/f1?wait=completed&timeout=0.03").json()["status"] == "running"


def test_tasks_come_in_pages(api: Desk) -> None:
    task = views.TaskView(
        task="/do/0/charge",
        run=1,
        attempt=1,
        name="charge",
        kind="call",
        queue="orders",
        function="charge",
        status="completed",
        sequence=3,
        scheduled_sequence=2,
        ended_sequence=3,
        scheduled_at=None,
        ended_at=None,
        duration_ms=None,
        ended_by=None,
        input=None,
        arguments=None,
        result=None,
        output=None,
        error=None,
        branch=None,
    )
    api.memory.reads.answers["tasks_of"] = lambda _: [task] * 5
    page = api.http.get("/flows/f1/tasks?limit=2").json()
    assert (len(page["tasks"]), page["next"]) == (2, "2")
    page = api.http.get("/flows/f1/tasks?limit=2&cursor=4").json()
    assert (len(page["tasks"]), page["next"]) == (1, None)
    problem(api.http.get("/flows/f1/tasks?cursor=x"), 422, "invalid-parameter")


def test_postgres_away_is_503_for_every_read(api: Desk) -> None:
    api.http.get("/livez")
    api.http.get("/flows/f1")  # the key is known from here on
    api.memory.reads.away = True
    for path in ("/flows", "/flows/f1", "/flows/f1/tasks", "/flows/f1/history", "/rejections"):
        problem(api.http.get(path), 503, "server-away")
    api.memory.reads.away = False
    assert api.http.get("/flows/f1").status_code == 200
