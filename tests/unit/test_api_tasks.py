"""Tasks completed from outside, approvals, and what else is asked of a flow that runs."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from flowtrail.tokens import token_of as sdk_token_of

from api.forgetting import forget_old_claims
from api.memory import Memory, MemoryStore
from api.ports import Claim, PendingApproval
from api.tokens import TaskPlace, read_token, token_of
from projections import views
from schemas import messages as m
from schemas.codec import decode_command
from tests.unit.api_calls import Desk, desk, flow, position, problem

PLACE = TaskPlace("order:17", "/do/0/größe", 2, 3)
TOKEN = token_of(PLACE)


@pytest.fixture
def api() -> Desk:
    return desk()


def commands(memory: Memory) -> list[m.Command]:
    return [decode_command(value or b"") for topic, _, value, _ in memory.log.sent if topic == "commands"]


def settled(api: Desk) -> None:
    """The read model has seen whatever is sent."""
    for partition in range(8):
        api.memory.reads.positions[partition] = position(partition, 1000)


def refuse(api: Desk, code: str, reason: str) -> None:
    def answer(parameters: dict[str, Any]) -> views.RejectionView:
        return views.RejectionView(
            time=datetime(2020, 1, 1, tzinfo=UTC),
            flow_id=parameters["flow_id"],
            command="CompleteTask",
            code=code,
            reason=reason,
            task=PLACE.task,
            actor=m.Actor("user", "tester"),
            cause=m.Cause(parameters["command_id"], 0, 1),
            partition=0,
            offset=1,
            trace=None,
        )

    api.memory.reads.answers["rejection_of_command"] = answer


# -- tokens ---------------------------------------------------------------------------------------------------------


def test_a_token_names_its_task_and_server_and_sdk_write_it_alike() -> None:
    assert read_token(TOKEN) == PLACE
    assert sdk_token_of(*PLACE) == TOKEN
    assert TOKEN.replace("-", "").replace("_", "").isalnum()


@pytest.mark.parametrize(
    "token",
    [
        "x",
        "!!",
        "e30",
        "WzFd",
        token_of(TaskPlace("../x", "/do", 1, 1)),
        token_of(TaskPlace("f", "do", 1, 1)),
        token_of(TaskPlace("f", "/do", -1, 1)),
        token_of(TaskPlace("f", "/do", 1, 2**31)),
        "A" * 9000,
    ],
)
def test_what_is_no_token_names_no_task(api: Desk, token: str) -> None:
    problem(api.http.post(f"/tasks/{token}/complete"), 404, "unknown-token")
    assert api.memory.log.sent == []


# -- completing -----------------------------------------------------------------------------------------------------


def test_completing_becomes_a_command_with_the_very_bytes_of_the_output(api: Desk) -> None:
    content = b'{"output": {"a" : 1.50}}'
    answer = api.http.post(
        f"/tasks/{TOKEN}/complete", content=content, headers={"Content-Type": "application/json"}
    )
    assert answer.status_code == 202
    (command,) = commands(api.memory)
    assert command.flow_id == "order:17"
    assert command.actor == m.Actor("user", "tester-abc123")
    assert command.body == m.CompleteTask(PLACE.task, 2, 3, b'{"a" : 1.50}')
    assert answer.json() == {
        "flow_id": "order:17",
        "task": PLACE.task,
        "run": 2,
        "attempt": 3,
        "command_id": command.command_id,
        "position": answer.json()["position"],
        "decided": False,
    }
    api.http.post(f"/tasks/{TOKEN}/complete")
    assert commands(api.memory)[1].body == m.CompleteTask(PLACE.task, 2, 3, b"null")


def test_failing_and_heartbeats_become_commands(api: Desk) -> None:
    said = {"type": "urn:declined", "status": 402, "title": "Declined", "detail": "expired"}
    api.http.post(f"/tasks/{TOKEN}/fail", json={"error": said, "incident": True})
    api.http.post(f"/tasks/{TOKEN}/fail", json={"error": {}})
    api.http.post(f"/tasks/{TOKEN}/heartbeat", json={"progress": {"done": 0.5}})
    api.http.post(f"/tasks/{TOKEN}/heartbeat")
    runtime = "https://serverlessworkflow.io/spec/1.0.0/errors/runtime"
    assert [command.body for command in commands(api.memory)] == [
        m.FailTask(PLACE.task, 2, 3, m.Error("urn:declined", 402, "Declined", "expired", PLACE.task), True),
        m.FailTask(PLACE.task, 2, 3, m.Error(runtime, 500, None, None, PLACE.task)),
        m.HeartbeatTask(PLACE.task, 2, 3, b'{"done":0.5}'),
        m.HeartbeatTask(PLACE.task, 2, 3),
    ]


def test_the_same_idempotency_key_is_the_same_command(api: Desk) -> None:
    for _ in range(2):
        api.http.post(f"/tasks/{TOKEN}/complete", headers={"Idempotency-Key": "k"})
    api.http.post(f"/tasks/{TOKEN}/fail", json={"error": {}}, headers={"Idempotency-Key": "k"})
    assert len({command.command_id for command in commands(api.memory)}) == 2


@pytest.mark.parametrize(
    ("verb", "body", "slug"),
    [
        ("complete", {"outptu": 1}, "invalid-body"),
        ("fail", {}, "invalid-body"),
        ("fail", {"error": {"status": 99}}, "invalid-body"),
        ("fail", {"error": {"type": ""}}, "invalid-body"),
        ("heartbeat", {"progess": 1}, "invalid-body"),
        ("complete", {"output": "x" * 262_144}, "payload-too-large"),
    ],
)
def test_bad_bodies_are_refused(api: Desk, verb: str, body: Any, slug: str) -> None:
    status = 413 if slug == "payload-too-large" else 422
    problem(api.http.post(f"/tasks/{TOKEN}/{verb}", json=body), status, slug)
    assert api.memory.log.sent == []


def test_who_waits_is_told_that_it_took_effect(api: Desk) -> None:
    settled(api)
    answer = api.http.post(f"/tasks/{TOKEN}/complete?wait=decided")
    assert (answer.status_code, answer.json()["decided"]) == (200, True)


def test_who_waits_in_vain_is_told_where_to_look(api: Desk) -> None:
    answer = api.http.post(f"/tasks/{TOKEN}/complete?wait=decided&timeout=0.02")
    assert (answer.status_code, answer.json()["decided"]) == (202, False)


@pytest.mark.parametrize(
    ("code", "status"),
    [("task-not-active", 409), ("flow-ended", 409), ("unknown-flow", 404), ("payload-not-json", 422)],
)
def test_who_waits_is_told_the_engines_refusal(api: Desk, code: str, status: int) -> None:
    settled(api)
    refuse(api, code, "Expected something else but found this")
    answer = api.http.post(f"/tasks/{TOKEN}/complete?wait=decided")
    assert problem(answer, status, code)["detail"] == "Expected something else but found this"


def test_a_repeated_request_is_no_refusal_when_it_had_effect_the_first_time(api: Desk) -> None:
    settled(api)
    refuse(api, "task-not-active", "Expected an active task but it is over")
    url, headers = f"/tasks/{TOKEN}/complete?wait=decided", {"Idempotency-Key": "k"}
    assert api.http.post(url, headers=headers).status_code == 409
    command_id = commands(api.memory)[0].command_id

    def history(parameters: dict[str, Any]) -> list[views.HistoryEntry]:
        event = msgspec.convert(
            {
                "time": "2020-01-01T00:00:00Z", "flow_id": "order:17", "sequence": 7, "event_id": "order:17/7",
                "kind": "TaskCompleted", "ce_type": "", "task": PLACE.task, "run": 2, "attempt": 3,
                "actor": {"kind": "user", "id": "t"}, "definition": "a/b@1.0.0", "trace": None, "partition": 0,
                "cause": {"command_id": command_id, "partition": 0, "offset": 0}, "offset": 0,
                "body": msgspec.Raw(b"{}"),
            },
            views.HistoryEntry,
        )  # fmt: skip
        return [event] if parameters["after"] < 7 else []

    api.memory.reads.answers["history_of"] = history
    assert api.http.post(url, headers=headers).status_code == 200


# -- approvals ------------------------------------------------------------------------------------------------------


def pending(flow_id: str, minute: int, definition: str = "shop/order@1.0.0") -> PendingApproval:
    since = datetime(2020, 1, 1, 0, minute, tzinfo=UTC)
    return PendingApproval(flow_id, "/do/0/ask", 1, 1, definition, "ask", since, '{"title": "Pay?"}')


def test_approvals_are_listed_oldest_first_in_pages(api: Desk) -> None:
    api.memory.store.pending = [pending(f"f{n}", 9 - n) for n in range(5)]
    first = api.http.get("/approvals?limit=3").json()
    second = api.http.get(f"/approvals?limit=3&cursor={first['next']}").json()
    listed = [one["flow_id"] for one in first["approvals"] + second["approvals"]]
    assert listed == ["f4", "f3", "f2", "f1", "f0"]
    assert second["next"] is None
    one = first["approvals"][0]
    assert one["request"] == {"title": "Pay?"}
    assert read_token(one["token"]) == TaskPlace("f4", "/do/0/ask", 1, 1)


def test_approvals_are_filtered(api: Desk) -> None:
    api.memory.store.pending = [pending("f1", 1), pending("f2", 2, "shop/other@2.0.0")]

    def listed(query: str) -> list[str]:
        return [one["flow_id"] for one in api.http.get(f"/approvals?{query}").json()["approvals"]]

    assert listed("definition=shop/other") == ["f2"]
    assert listed("definition=shop/order@1.0.0") == ["f1"]
    assert listed("flow_id=f1") == ["f1"]
    problem(api.http.get("/approvals?cursor=x"), 422, "invalid-parameter")
    problem(api.http.get("/approvals?definition=order"), 422, "invalid-request")
    problem(api.http.get("/approvals?flow=f1"), 422, "invalid-parameter")


def test_an_answer_is_given_in_the_name_of_the_key(api: Desk) -> None:
    settled(api)
    answer = api.http.post(f"/approvals/{TOKEN}", json={"answer": {"approved": True}})
    assert (answer.status_code, answer.json()["decided"]) == (200, True)
    (command,) = commands(api.memory)
    assert command.actor == m.Actor("user", "tester-abc123")
    assert command.body == m.CompleteTask(PLACE.task, 2, 3, b'{"approved":true}')
    problem(api.http.post(f"/approvals/{TOKEN}", json={}), 422, "invalid-body")


def test_an_answer_the_form_does_not_accept_is_422(api: Desk) -> None:
    settled(api)
    refuse(api, "invalid-answer", "Expected a boolean but found a string at /approved")
    problem(api.http.post(f"/approvals/{TOKEN}", json={"answer": {"approved": "yes"}}), 422, "invalid-answer")


# -- flows ----------------------------------------------------------------------------------------------------------


def test_a_flow_is_suspended_resumed_and_cancelled_with_compensation(api: Desk) -> None:
    api.memory.reads.flows["f1"] = flow("f1")
    for verb, body in (
        ("suspend", {"reason": "holiday"}),
        ("resume", None),
        ("cancel", {"reason": "no", "compensate": True}),
    ):
        assert api.http.post(f"/flows/f1/{verb}", json=body or {}).status_code == 202
    assert [command.body for command in commands(api.memory)] == [
        m.SuspendFlow("holiday"),
        m.ResumeFlow(None),
        m.CancelFlow("no", True),
    ]
    problem(api.http.post("/flows/f1/suspend", json={"compensate": True}), 422, "invalid-body")
    api.memory.reads.flows["f1"] = flow("f1", "completed")
    problem(api.http.post("/flows/f1/resume"), 409, "flow-ended")


def test_a_repeated_start_answers_a_position_that_is_reached(api: Desk) -> None:
    """The flow appears in the read model between the claim and the answer."""
    api.publish()
    first = api.start(**{"Idempotency-Key": "k1"}).json()
    starters = api.memory.store.starters

    class Later(dict[str, str]):
        """Empty at the first look."""

        looks = 0

        def __contains__(self, key: object) -> bool:
            self.looks += 1
            return self.looks > 1 and super().__contains__(key)

    api.memory.store.starters = Later(starters | {first["id"]: first["command_id"]})
    api.memory.reads.flows[first["id"]] = flow(first["id"], partition=3)
    api.memory.reads.positions[3] = position(3, 5)
    again = api.start(**{"Idempotency-Key": "k1"}).json()
    assert again == {**first, "position": "3:5"}
    assert len(commands(api.memory)) == 2


def test_old_idempotency_keys_are_forgotten_and_an_absent_database_is_waited_for() -> None:
    store = MemoryStore()
    for n in range(6000):
        store.claims["k", str(n)] = Claim("k", str(n), b"", f"f{n}", f"c{n}")
    store.old_claims = {("k", str(n)) for n in range(5999)}
    pauses: list[float] = []

    class Enough(Exception):
        pass

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)
        store.away = len(pauses) == 2
        if len(pauses) == 3:
            raise Enough

    with pytest.raises(Enough):
        asyncio.run(forget_old_claims(store, sleep))
    assert list(store.claims) == [("k", "5999")]
    assert pauses == [1.0, 3600.0, 3600.0]
