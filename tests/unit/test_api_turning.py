"""Turning a flow over HTTP: what is asked of the engine, what a dry run says, and what is refused."""

from __future__ import annotations

import json
from typing import Any

import pytest

from engine.core.moments import moment
from replay.flow import Log
from replay.turning import moment_of
from schemas import messages as m
from schemas.codec import decode_command
from tests.flows import Run
from tests.unit.api_calls import Desk, desk, problem
from tests.unit.test_core_turning import LATER, ORDER, ordered
from tests.unit.test_replay_blame import log_of


@pytest.fixture
def api() -> Desk:
    made = desk()
    for definition in (ORDER, LATER):
        made.publish(json.dumps(definition.document))
    run = ordered()
    run.complete("/do/2/charge", {"id": "c1"})
    made.memory.past.logs["f1"] = log_of(run)
    return made


def asked(api: Desk) -> m.Command:
    """The last command that was produced."""
    return decode_command(api.memory.log.sent[-1][2] or b"")


def post(api: Desk, path: str, body: Any, **query: str) -> Any:
    return api.http.post(path, json=body, params={"timeout": "0"} | query)


def test_a_rollback_carries_the_moment_before_the_task(api: Desk) -> None:
    answer = post(api, "/flows/f1/rollback", {"to": "charge", "reason": "wrong card"})
    assert answer.status_code == 202, answer.text
    assert answer.json()["moment"]["tasks"] == ["/do/2/charge"]
    body = asked(api).body
    assert isinstance(body, m.RollBackFlow)
    assert (body.reason, body.restore.sequence) == ("wrong card", 5)
    assert [a.task for a in moment(body.restore).active] == ["/do/2/charge"]


@pytest.mark.parametrize("to", ["charge", "/do/2/charge", "/do/charge", 5, 6])
def test_a_moment_is_named_by_its_task_or_an_event(api: Desk, to: int | str) -> None:
    told = post(api, "/flows/f1/rollback", {"to": to}, dry_run="true").json()
    assert (told["possible"], told["moment"]["sequence"]) == (True, 5)
    assert told["compensations"] == ["/do/2/charge"]
    assert [event["kind"] for event in told["events"]] == [
        "FlowRollingBack",
        "TaskCancelled",
        "TaskScheduled",
    ]
    assert not api.memory.log.sent[2:]


def test_a_migration_is_asked_for_when_the_past_is_the_same(api: Desk) -> None:
    told = post(api, "/flows/f1/migrate", {"definition": LATER.id}, dry_run="true").json()
    assert (told["possible"], told["past"]["kind"]) == (True, "different")  # it checks, and notes nothing
    problem(post(api, "/flows/f1/migrate", {"definition": LATER.id}), 409, "past-differs")
    answer = post(api, "/flows/f1/migrate", {"definition": LATER.id, "accept_different": True})
    assert answer.status_code == 202, answer.text
    assert asked(api).body == m.MigrateFlow(LATER.id)
    problem(post(api, "/flows/f1/migrate", {}), 409, "never-migrated")


def test_a_migration_is_taken_back(api: Desk) -> None:
    run = ordered()
    run.migrate(LATER)
    api.memory.past.logs["f2"] = log_of(run)
    assert post(api, "/flows/f2/migrate", {}).json()["definition"] == ORDER.id
    assert asked(api).body == m.MigrateFlow(ORDER.id)


def test_a_flow_is_run_again_from_a_task_or_from_the_beginning(api: Desk) -> None:
    answer = post(api, "/flows/f1/rerun", {"from": "book", "data": {"id": 7}, "id": "again"}).json()
    assert (answer["id"], answer["origin"]) == ("again", "f1")
    body = asked(api).body
    assert isinstance(body, m.StartFlow)
    assert (body.input, body.definition) == (b'{"n": 1}', ORDER.id)
    assert body.restore is not None
    assert (body.restore.flow_id, body.restore.sequence, body.restore.data) == ("f1", 2, b'{"id":7}')
    post(api, "/flows/f1/rerun", {"input": {"n": 2}})
    assert asked(api).body == m.StartFlow(ORDER.id, b'{"n":2}', None, m.Restore("f1", 0, b""))
    told = post(api, "/flows/f1/rerun", {"from": "charge", "definition": LATER.id}, dry_run="true").json()
    assert (told["possible"], told["definition"]) == (True, LATER.id)


@pytest.mark.parametrize(
    ("path", "body", "status", "word", "text"),
    [
        ("/flows/none/rollback", {"to": 1}, 404, "unknown-flow", "none"),
        ("/flows/f1/rollback", {"to": 99}, 422, "invalid-request", "from 1 to 7"),
        ("/flows/f1/rollback", {"to": "nothing"}, 422, "invalid-request", "/do/0/book, /do/2/charge"),
        ("/flows/f1/rollback", {"to": "note"}, 422, "invalid-request", "that waited for somebody"),
        ("/flows/f1/rollback", {}, 422, "invalid-body", "to"),
        ("/flows/f1/rollback", {"to": 1, "reason": "x" * 1001}, 422, "invalid-body", "1000"),
        ("/flows/f1/migrate", {"definition": "test/order@9.9.9"}, 422, "unknown-definition", "9.9.9"),
        ("/flows/f1/rerun", {"data": 1}, 422, "invalid-body", "from"),
        ("/flows/f1/rerun", {"id": "no way"}, 422, "invalid-body", "flow id"),
    ],
)
def test_what_cannot_be_meant_is_refused(
    api: Desk, path: str, body: Any, status: int, word: str, text: str
) -> None:
    assert text in problem(post(api, path, body), status, word)["detail"]


def test_only_what_lives_is_turned_and_what_ended_is_run_again(api: Desk) -> None:
    run = Run(ORDER)
    run.start({})
    run.cancel()
    api.memory.past.logs["f1"] = log_of(run)
    for verb, body in (("rollback", {"to": "book"}), ("migrate", {"definition": LATER.id})):
        problem(post(api, f"/flows/f1/{verb}", body), 409, "flow-ended")
    assert post(api, "/flows/f1/rerun", {"from": "book"}).status_code == 202


def test_a_moment_is_of_the_tasks_last_run() -> None:
    run = ordered()
    run.roll_back(2)
    run.complete("/do/0/book/metadata/compensate", None)
    log: Log = log_of(run)
    assert moment_of(log, "book").state.sequence == len(run.log)
