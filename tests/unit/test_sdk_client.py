"""Client and transport over an in-memory HTTP transport: requests, retries, pages, errors."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
import pytest
from flowtrail import ApiError, Client, InputError, TaskError, Unreachable, WaitTimeout
from flowtrail.transport import Api

Answer = httpx2.Response | Exception


class Script:
    """Answers in turn (the last one for ever) and keeps the requests."""

    def __init__(self, *answers: Answer) -> None:
        self.answers = list(answers)
        self.requests: list[httpx2.Request] = []

    def __call__(self, request: httpx2.Request) -> httpx2.Response:
        self.requests.append(request)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return httpx2.Response(answer.status_code, headers=answer.headers, content=answer.content)


def client(script: Callable[[httpx2.Request], httpx2.Response], retry_s: float = 10.0) -> Client:
    made = Client("http://api", "id.secret", retry_s=retry_s, transport=httpx2.MockTransport(script))
    made._api._sleep = lambda _: None
    return made


def ok(content: Any, status: int = 200) -> httpx2.Response:
    return httpx2.Response(status, json=content)


STARTED = {"id": "f1", "definition": "a/b@1.0.0", "command_id": "c1", "position": "0:12"}


def test_start_sends_definition_input_key_and_authorisation() -> None:
    script = Script(ok(STARTED, 202))
    flow = client(script).start("a/b", {"n": 1}, id="f1", idempotency_key="k")
    request = script.requests[0]
    assert (request.method, request.url.path) == ("POST", "/flows")
    assert json.loads(request.content) == {"definition": "a/b", "input": {"n": 1}, "id": "f1"}
    assert request.headers["Idempotency-Key"] == "k"
    assert request.headers["Authorization"] == "Bearer id.secret"
    assert (flow.id, flow.definition, flow.position) == ("f1", "a/b@1.0.0", "0:12")


def test_start_is_repeated_with_the_same_key_while_the_api_is_away() -> None:
    script = Script(
        httpx2.ConnectError("refused"), httpx2.ReadError("gone"), ok({"title": "busy"}, 503), ok(STARTED, 202)
    )
    assert client(script).start("a/b").id == "f1"
    keys = {request.headers["Idempotency-Key"] for request in script.requests}
    assert len(script.requests) == 4
    assert len(keys) == 1


def test_a_request_that_may_have_been_done_is_not_repeated() -> None:
    script = Script(httpx2.ReadError("gone"), ok({}))
    api = Api("http://api", "", transport=httpx2.MockTransport(script), sleep=lambda _: None)
    with pytest.raises(Unreachable, match="Expected the API at http://api to answer but gone"):
        api.json("POST", "/x")
    assert len(script.requests) == 1


def test_a_request_that_was_never_sent_is_repeated() -> None:
    script = Script(httpx2.ConnectError("refused"), ok({}))
    Api("http://api", "", transport=httpx2.MockTransport(script), sleep=lambda _: None).json("POST", "/x")
    assert len(script.requests) == 2


def test_cancel_is_repeated_under_one_key() -> None:
    script = Script(httpx2.ReadError("gone"), ok({"id": "f1"}, 202))
    client(script).cancel("f1", "because")
    assert json.loads(script.requests[1].content) == {"reason": "because"}
    assert len({request.headers["Idempotency-Key"] for request in script.requests}) == 1


def test_an_api_that_stays_away_is_unreachable() -> None:
    with pytest.raises(Unreachable) as caught:
        client(Script(httpx2.ConnectError("refused")), retry_s=0.0).get("f1")
    assert caught.value.exit_code == 3


def test_retry_after_is_honoured() -> None:
    slept: list[float] = []
    script = Script(httpx2.Response(503, headers={"Retry-After": "3"}), ok({}))
    Api("http://api", "", transport=httpx2.MockTransport(script), sleep=slept.append).json("GET", "/x")
    assert slept[0] >= 3


def test_a_problem_becomes_a_readable_error() -> None:
    problem = {
        "title": "The definition is not valid",
        "status": 422,
        "detail": "2 problems",
        "problems": [{"message": "fork at /do/2 (line 31) is not supported yet", "pointer": "/do/2"}],
    }
    with pytest.raises(ApiError) as caught:
        client(Script(ok(problem, 422))).publish("document:\n  dsl: 1.0.0\n")
    assert str(caught.value) == (
        "The definition is not valid: 2 problems\n  fork at /do/2 (line 31) is not supported yet"
    )
    assert (caught.value.status, caught.value.exit_code) == (422, 2)


@pytest.mark.parametrize(("status", "exit_code"), [(401, 2), (404, 2), (409, 2), (503, 3), (500, 70)])
def test_a_status_tells_whose_fault_it_is(status: int, exit_code: int) -> None:
    with pytest.raises(ApiError) as caught:
        client(Script(httpx2.Response(status, content=b"<html>")), retry_s=0).get("x")
    assert caught.value.exit_code == exit_code


def test_an_answer_that_is_no_json_is_an_error() -> None:
    with pytest.raises(ApiError, match="Expected JSON"):
        client(Script(httpx2.Response(200, content=b"<html>"))).get("x")


def test_lists_follow_the_cursor() -> None:
    script = Script(
        ok({"flows": [{"id": "1"}, {"id": "2"}], "next": "c"}), ok({"flows": [{"id": "3"}], "next": None})
    )
    assert [flow["id"] for flow in client(script).flows(status="running")] == ["1", "2", "3"]
    assert script.requests[0].url.params["status"] == "running"
    assert "cursor" not in script.requests[0].url.params
    assert script.requests[1].url.params["cursor"] == "c"


def test_wait_polls_until_the_flow_has_ended_and_forgives_that_it_is_not_known_yet() -> None:
    script = Script(ok({"title": "none"}, 404), ok({"status": "running"}), ok({"status": "faulted"}))
    assert client(script).wait("f1", 5)["status"] == "faulted"
    assert script.requests[0].url.params["wait"] == "completed"


def test_wait_gives_up_when_the_time_is_over() -> None:
    with pytest.raises(WaitTimeout, match=r"Expected flow f1 to end within 0\.05 s but it is running"):
        client(Script(ok({"status": "running"}))).wait("f1", 0.05)


def test_wait_tells_why_a_flow_was_never_started() -> None:
    def answer(request: httpx2.Request) -> httpx2.Response:
        if request.url.path == "/rejections":
            return ok(
                {"rejections": [{"reason": "Expected a published definition but found 'a/b'"}], "next": None}
            )
        return ok({"title": "none"}, 404)

    with pytest.raises(
        WaitTimeout, match="not known; its command was refused: Expected a published definition"
    ):
        client(answer).wait("f1", 0.0)


def test_ids_are_quoted() -> None:
    script = Script(ok({}))
    client(script).get("a/../b")
    assert script.requests[0].url.raw_path == b"/flows/a%2F..%2Fb"


def test_publish_takes_text_path_and_mapping(tmp_path: Path) -> None:
    script = Script(ok({"id": "a/b@1.0.0"}, 201))
    file = tmp_path / "d.yaml"
    file.write_text("document: {}\n")
    for given, media_type in (
        ("document: {}\n", "application/yaml"),
        (file, "application/yaml"),
        (str(file), "application/yaml"),
        ('{"document":{}}', "application/json"),
        ({"document": {}}, "application/json"),
    ):
        client(script).publish(given)
        assert script.requests[-1].headers["Content-Type"] == media_type
    with pytest.raises(InputError, match=r"Expected a definition's file at nothing\.yaml but No such file"):
        client(script).publish("nothing.yaml")


@pytest.mark.parametrize("value", [float("nan"), {1, 2}, object(), "\ud800"])
def test_an_input_that_json_cannot_hold_is_refused_before_anything_is_sent(value: object) -> None:
    script = Script(ok(STARTED))
    with pytest.raises(InputError, match=r"^Expected a request JSON can hold but"):
        client(script).start("a/b", value)
    assert script.requests == []


def test_urls_and_keys_that_cannot_be_meant_are_refused() -> None:
    with pytest.raises(InputError, match="http://"):
        Client("localhost:8080")
    with pytest.raises(InputError, match="API key"):
        Client("http://x", "a\nb")


def test_url_and_key_default_to_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLOWTRAIL_API_URL", "http://elsewhere:1/")
    monkeypatch.setenv("FLOWTRAIL_API_KEY", "k.s")
    script = Script(ok({}))
    with Client(transport=httpx2.MockTransport(script)) as made:
        made.get("x")
    assert str(script.requests[0].url) == "http://elsewhere:1/flows/x"
    assert script.requests[0].headers["Authorization"] == "Bearer k.s"


# -- tasks, approvals, events ---------------------------------------------------------------------------------------

DONE = {"flow_id": "f1", "task": "/do/0/x", "run": 1, "attempt": 1, "decided": True}


def test_tasks_are_completed_and_failed_by_their_token() -> None:
    script = Script(ok(DONE))
    made = client(script)
    assert made.complete("t0k", {"n": 1}) == DONE
    made.fail("t0k", TaskError("urn:x", 402, "Declined"), incident=True)
    made.fail("t0k", "no reason", wait=False)
    made.heartbeat("t0k", 0.5)
    made.answer("t0k", {"approved": True})
    sent = [(request.url.path, request.url.query, json.loads(request.content)) for request in script.requests]
    assert sent == [
        ("/tasks/t0k/complete", b"wait=decided", {"output": {"n": 1}}),
        (
            "/tasks/t0k/fail",
            b"wait=decided",
            {
                "error": {"type": "urn:x", "status": 402, "title": "Declined", "detail": None},
                "incident": True,
            },
        ),
        ("/tasks/t0k/fail", b"", {"error": {"detail": "no reason"}, "incident": False}),
        ("/tasks/t0k/heartbeat", b"", {"progress": 0.5}),
        ("/approvals/t0k", b"", {"answer": {"approved": True}}),
    ]
    assert len({request.headers["Idempotency-Key"] for request in script.requests}) == 5
    with pytest.raises(InputError, match="Expected a task's token"):
        made.complete("")


def test_a_completion_the_engine_refuses_is_an_error() -> None:
    script = Script(httpx2.Response(409, json={"title": "In conflict", "detail": "Expected an active task"}))
    with pytest.raises(ApiError, match="Expected an active task") as refused:
        client(script).complete("t0k")
    assert (refused.value.status, refused.value.exit_code) == (409, 2)


def test_flows_are_suspended_resumed_and_cancelled_with_compensation() -> None:
    script = Script(ok(STARTED, 202))
    flow = client(script).start("a/b")
    flow.suspend("holiday")
    flow.resume()
    flow.cancel("no", compensate=True)
    flow.cancel("no")
    sent = [(request.url.path, json.loads(request.content)) for request in script.requests[1:]]
    assert sent == [
        ("/flows/f1/suspend", {"reason": "holiday"}),
        ("/flows/f1/resume", {"reason": None}),
        ("/flows/f1/cancel", {"reason": "no", "compensate": True}),
        ("/flows/f1/cancel", {"reason": "no"}),
    ]


def test_events_are_published_as_a_batch_and_completed() -> None:
    script = Script(ok({"events": []}, 202))
    made = client(script)
    made.publish_event("paid", {"n": 1}, source="/shop", id="e1", subject="o17", time=None)
    made.publish_events([{"source": "/shop", "type": "paid"}] * 2)
    (first,), second = (json.loads(request.content) for request in script.requests)
    assert first == {
        "specversion": "1.0", "id": "e1", "source": "/shop", "type": "paid", "subject": "o17", "data": {"n": 1},
    }  # fmt: skip
    assert len({event["id"] for event in second}) == 2
    assert script.requests[0].headers["Content-Type"] == "application/cloudevents-batch+json"


def test_approvals_come_page_by_page() -> None:
    script = Script(ok({"approvals": [{"token": "a"}], "next": "c"}), ok({"approvals": [], "next": None}))
    assert [one["token"] for one in client(script).approvals(definition="a/b")] == ["a"]
    assert script.requests[1].url.params["cursor"] == "c"


def test_a_flows_past_is_asked_for_by_number_or_time() -> None:
    script = Script(
        ok({"sequence": 4}), ok({"values": [{"path": "/data/n"}]}), ok({"changes": []}), ok({"changes": [1]})
    )
    with client(script) as made:
        assert made.state_at("f/1", 4) == {"sequence": 4}
        assert made.blame("f1", "/data/n", at="2026-01-31T12:00:00+01:00") == [{"path": "/data/n"}]
        assert made.changes("f1", 4) == []
        assert made.changes("f1", 4, 5) == [1]
    asked = [request.url for request in script.requests]
    assert [url.raw_path.decode().split("?")[0] for url in asked] == [
        "/flows/f%2F1/states/4",
        "/flows/f1/blame",
        "/flows/f1/changes",
        "/flows/f1/changes",
    ]
    assert dict(asked[1].params) == {"path": "/data/n", "at": "2026-01-31T12:00:00+01:00"}
    assert dict(asked[2].params) == {"since": "4"}
    assert dict(asked[3].params) == {"since": "4", "until": "5"}
