"""`flowtrail tasks|approvals|events` and what `flowtrail flows` asks of a running flow, over an in-memory API."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx2
import pytest
import typer
from flowtrail import ApiError, Client
from typer.testing import CliRunner, Result

import cli.events
import cli.flows
import cli.tasks
from engine.errors import InputError

DONE = {"flow_id": "f1", "task": "/do/0/x", "run": 1, "attempt": 1, "decided": True}
PENDING = {
    "token": "t0k",
    "flow_id": "f1",
    "task": "/do/0/ask",
    "since": "2020-01-02T03:04:05Z",
    "request": {"title": "Pay?"},
}


class Api:
    """Answers by path; keeps the requests."""

    def __init__(self) -> None:
        self.answers: dict[str, tuple[int, Any]] = {
            "/tasks/t0k/complete": (200, DONE),
            "/tasks/t0k/fail": (202, DONE | {"decided": False}),
            "/approvals": (200, {"approvals": [PENDING], "next": None}),
            "/approvals/t0k": (200, DONE),
            "/events": (202, {"events": [{"source": "/s", "id": "e1"}]}),
            "/flows/f1/cancel": (202, {"command_id": "c"}),
            "/flows/f1/suspend": (202, {"command_id": "c"}),
            "/flows/f1/resume": (202, {"command_id": "c"}),
        }
        self.sent: list[tuple[str, Any]] = []

    def __call__(self, request: httpx2.Request) -> httpx2.Response:
        self.sent.append((request.url.path, json.loads(request.content or b"null")))
        status, content = self.answers[request.url.path]
        return httpx2.Response(status, json=content)


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> Api:
    made = Api()

    def connect(url: str | None) -> Client:
        return Client("http://api", "k.s", retry_s=0, transport=httpx2.MockTransport(made))

    for module in (cli.flows, cli.tasks, cli.events):
        monkeypatch.setattr(module, "connect", connect)
    return made


def run(app: typer.Typer, *arguments: str, given: str | None = None) -> Result:
    return CliRunner().invoke(app, list(arguments), input=given)


def test_a_task_is_completed(api: Api) -> None:
    assert (
        run(cli.tasks.app, "complete", "t0k", "--output", '{"n": 1}').stdout == "completed: /do/0/x of f1\n"
    )
    run(cli.tasks.app, "complete", "t0k")
    assert [body for _, body in api.sent] == [{"output": {"n": 1}}, {"output": None}]


def test_a_task_is_failed_and_the_answer_says_what_is_known(api: Api) -> None:
    result = run(
        cli.tasks.app, "fail", "t0k", "--type", "urn:x", "--status", "402", "--detail", "d", "--incident"
    )
    assert result.stdout == "asked; the engine has not decided yet: /do/0/x of f1\n"
    error = {"type": "urn:x", "status": 402, "title": None, "detail": "d"}
    assert api.sent == [("/tasks/t0k/fail", {"error": error, "incident": True})]


def test_a_refusal_ends_with_its_text(api: Api) -> None:
    api.answers["/tasks/t0k/complete"] = (409, {"title": "In conflict", "detail": "Expected an active task"})
    result = run(cli.tasks.app, "complete", "t0k")
    assert isinstance(result.exception, ApiError)
    assert result.exception.exit_code == 2
    assert "Expected an active task" in str(result.exception)


def test_approvals_are_listed_and_answered(api: Api) -> None:
    listed = run(cli.tasks.approvals, "list").stdout
    assert "t0k" in listed
    assert "Pay?" in listed
    assert json.loads(run(cli.tasks.approvals, "list", "--json").stdout) == [PENDING]
    answered = run(cli.tasks.approvals, "answer", "t0k", "--answer", '{"approved": true}')
    assert answered.stdout == "answered: /do/0/x of f1\n"
    assert api.sent[-1] == ("/approvals/t0k", {"answer": {"approved": True}})


def test_events_are_published_from_a_file_or_stdin(api: Api, tmp_path: Path) -> None:
    file = tmp_path / "events.json"
    event = {"specversion": "1.0", "id": "e1", "source": "/s", "type": "paid"}
    file.write_text(json.dumps(event))
    assert run(cli.events.app, "publish", str(file)).stdout == "e1\n"
    run(cli.events.app, "publish", "-", given=json.dumps([event, event]))
    assert [body for _, body in api.sent] == [[event], [event, event]]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("[]", "the array is empty"),
        ("[1]", "found int at /0"),
        ("{", "Expected JSON in"),
        (None, "No such file"),
    ],
)
def test_what_is_no_event_is_refused_before_anything_is_sent(
    api: Api, tmp_path: Path, content: str | None, said: str
) -> None:
    file = tmp_path / "events.json"
    if content is not None:
        file.write_text(content)
    result = run(cli.events.app, "publish", str(file))
    assert isinstance(result.exception, InputError)
    assert said in str(result.exception)
    assert api.sent == []


def test_flows_are_suspended_resumed_and_cancelled(api: Api) -> None:
    assert run(cli.flows.app, "suspend", "f1", "--reason", "r").stdout == "asked to suspend f1\n"
    assert run(cli.flows.app, "resume", "f1").stdout == "asked to resume f1\n"
    assert run(cli.flows.app, "cancel", "f1", "--compensate").stdout == "asked to cancel f1\n"
    assert api.sent == [
        ("/flows/f1/suspend", {"reason": "r"}),
        ("/flows/f1/resume", {"reason": None}),
        ("/flows/f1/cancel", {"reason": None, "compensate": True}),
    ]
