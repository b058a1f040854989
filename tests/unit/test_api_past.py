"""A flow's past over HTTP: states, blame, changes, and what is refused."""

from __future__ import annotations

import pytest

from replay.flow import Log
from replay.past import state_at
from tests.unit.api_calls import Desk, desk, problem
from tests.unit.replay_logs import order
from tests.unit.test_replay_blame import log_of


@pytest.fixture
def api() -> Desk:
    made = desk()
    made.memory.past.logs["f1"] = log_of(order("f1"))
    return made


def test_a_state_is_the_flow_as_it_stood(api: Desk) -> None:
    state = api.http.get("/flows/f1/states/4").json()
    assert (state["sequence"], state["status"], state["events_in_log"]) == (4, "running", 8)
    assert [task["task"] for task in state["active"]] == ["/do/2/charge"]
    assert "events" not in state
    later = api.http.get(f"/flows/f1/states/{state['updated_at']}").json()
    assert later["sequence"] >= 4


def test_blame_and_changes_name_the_event(api: Desk) -> None:
    told = api.http.get("/flows/f1/blame", params={"path": "/context/paid"}).json()
    [paid] = told["values"]
    assert (paid["value"], paid["by"]["sequence"], paid["by"]["task"]) == (True, 5, "/do/2/charge")
    changes = api.http.get("/flows/f1/changes", params={"since": "4", "until": "5"}).json()["changes"]
    assert "/context/paid" in [change["path"] for change in changes]
    assert api.http.get("/flows/f1/changes", params={"since": "8"}).json()["changes"] == []


@pytest.mark.parametrize(
    ("path", "status", "word"),
    [
        ("/flows/none/states/1", 404, "unknown-flow"),
        ("/flows/f1/states/9", 422, "invalid-request"),
        ("/flows/f1/states/yesterday", 422, "invalid-request"),
        ("/flows/f1/blame?path=/context/nothing", 422, "invalid-request"),
        ("/flows/f1/blame?moment=1", 422, "invalid-parameter"),
        ("/flows/f1/changes", 422, "invalid-parameter"),
    ],
)
def test_what_is_not_there_is_refused(api: Desk, path: str, status: int, word: str) -> None:
    problem(api.http.get(path), status, word)


def test_a_damaged_log_is_said_to_be_damaged(api: Desk) -> None:
    log: Log = api.memory.past.logs["f1"]
    del log.logged[2]
    for path in ("/flows/f1/states/5", "/flows/f1/blame", "/flows/f1/changes?since=1"):
        assert "replay verify f1" in problem(api.http.get(path), 409, "damaged-log")["detail"]


def test_kafka_away_is_said(api: Desk) -> None:
    api.memory.past.away = True
    problem(api.http.get("/flows/f1/states/1"), 503, "server-away")


def test_the_state_is_the_one_the_command_shows(api: Desk) -> None:
    log: Log = api.memory.past.logs["f1"]
    assert api.http.get("/flows/f1/states/8").json()["head"] == state_at(log, None)["head"]
