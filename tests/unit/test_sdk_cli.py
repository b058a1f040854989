"""`flowtrail definitions|flows|worker`: arguments, output and exit codes, over an in-memory API."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
import pytest
from flowtrail import Client, Worker
from typer.testing import CliRunner, Result

import cli.definitions
import cli.flows
import cli.worker
from engine.errors import InputError

FLOW = {"id": "f1", "definition": "a/b@1.0.0", "status": "completed", "output": {"n": 1}, "error": None}
EVENT = {
    "sequence": 1,
    "kind": "FlowStarted",
    "time": "2020-01-02T03:04:05Z",
    "actor": {"kind": "user", "id": "u7"},
}

Routes = dict[tuple[str, str], tuple[int, Any]]
Run = Callable[..., Result]


class Api:
    """Answers by method and path; keeps the requests."""

    def __init__(self) -> None:
        self.routes: Routes = {
            ("POST", "/flows"): (
                202,
                {"id": "f1", "definition": "a/b@1.0.0", "command_id": "c", "position": "0:1"},
            ),
            ("GET", "/flows/f1"): (200, FLOW),
            ("GET", "/flows"): (200, {"flows": [FLOW], "next": None}),
            ("GET", "/flows/f1/history"): (200, {"events": [EVENT], "next": None}),
            ("POST", "/flows/f1/cancel"): (202, {"command_id": "c2"}),
            ("GET", "/definitions"): (
                200,
                {"definitions": [{"definition": "a/b@1.0.0", "title": "T"}], "next": None},
            ),
            ("POST", "/definitions"): (201, {"definition": "a/b@1.0.0"}),
            ("GET", "/definitions/a/b/1.0.0"): (200, {"document": {"dsl": "1.0.0"}, "do": []}),
            ("GET", "/definitions/a/b"): (200, {"versions": [{"version": "1.0.0"}]}),
        }
        self.requests: list[httpx2.Request] = []

    def __call__(self, request: httpx2.Request) -> httpx2.Response:
        self.requests.append(request)
        status, content = self.routes.get((request.method, request.url.path), (404, {"title": "Not found"}))
        return httpx2.Response(status, json=content)


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> Api:
    made = Api()
    transport = httpx2.MockTransport(made)

    def connect(url: str | None) -> Client:
        return Client(url or "http://api", "k.s", retry_s=0, transport=transport)

    monkeypatch.setattr(cli.flows, "connect", connect)
    monkeypatch.setattr(cli.definitions, "connect", connect)
    return made


def flows(*arguments: str, given: str | None = None) -> Result:
    return CliRunner().invoke(cli.flows.app, list(arguments), input=given)


def definitions(*arguments: str) -> Result:
    return CliRunner().invoke(cli.definitions.app, list(arguments))


def test_start_takes_its_input_as_text_file_or_stdin(api: Api, tmp_path: Path) -> None:
    file = tmp_path / "in.json"
    file.write_text('{"n": 2}')
    assert flows("start", "a/b", "--input", '{"n": 1}', "--id", "f1", "--key", "k").stdout == "f1\n"
    flows("start", "a/b", "--input", f"@{file}")
    flows("start", "a/b", "--input", "-", given='{"n": 3}')
    flows("start", "a/b")
    sent = [json.loads(request.content)["input"] for request in api.requests]
    assert sent == [{"n": 1}, {"n": 2}, {"n": 3}, {}]
    assert api.requests[0].headers["Idempotency-Key"] == "k"


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ("{", "Expected JSON in --input but"),
        ("@nowhere.json", "Expected the input's file nowhere.json but No such file"),
    ],
)
def test_bad_input_is_refused_before_anything_is_sent(api: Api, given: str, text: str) -> None:
    result = flows("start", "a/b", "--input", given)
    assert isinstance(result.exception, InputError)
    assert text in str(result.exception)
    assert api.requests == []


def test_start_prints_json_on_demand(api: Api) -> None:
    assert json.loads(flows("start", "a/b", "--json").stdout)["position"] == "0:1"


@pytest.mark.parametrize(("status", "code"), [("completed", 0), ("faulted", 1), ("cancelled", 1)])
def test_waiting_ends_with_1_unless_the_flow_completed(api: Api, status: str, code: int) -> None:
    api.routes["GET", "/flows/f1"] = (200, FLOW | {"status": status})
    assert flows("wait", "f1").exit_code == code
    result = flows("start", "a/b", "--wait", "--json")
    assert result.exit_code == code
    assert json.loads(result.stdout)["status"] == status


def test_flows_are_shown_listed_and_cancelled(api: Api) -> None:
    assert "status" in flows("get", "f1").stdout
    assert json.loads(flows("get", "f1", "--json").stdout) == FLOW
    assert "a/b@1.0.0" in flows("list", "--status", "completed").stdout
    assert json.loads(flows("list", "--json").stdout) == [FLOW]
    history = flows("history", "f1").stdout
    assert "FlowStarted" in history
    assert "u7" in history
    assert json.loads(flows("history", "f1", "--json").stdout) == [EVENT]
    assert flows("cancel", "f1", "--reason", "why").stdout == "asked to cancel f1\n"
    api.routes["GET", "/flows"] = (200, {"flows": [], "next": None})
    assert flows("list").stdout == "no flows\n"


def test_an_error_of_the_api_carries_its_exit_code(api: Api) -> None:
    assert getattr(flows("get", "nowhere").exception, "exit_code", None) == 2


def test_definitions_are_published_listed_and_printed(api: Api, tmp_path: Path) -> None:
    file = tmp_path / "d.yaml"
    file.write_text("document: {}")
    assert definitions("publish", str(file)).stdout == f"{file}: a/b@1.0.0 published\n"
    assert json.loads(definitions("publish", str(file), "--json").stdout) == [{"definition": "a/b@1.0.0"}]
    assert "a/b@1.0.0" in definitions("list").stdout
    assert json.loads(definitions("get", "a/b@1.0.0").stdout) == {"document": {"dsl": "1.0.0"}, "do": []}
    assert "1.0.0" in definitions("get", "a/b").stdout


def test_a_missing_file_is_noticed_before_any_definition_is_published(api: Api, tmp_path: Path) -> None:
    file = tmp_path / "d.yaml"
    file.write_text("document: {}")
    result = definitions("publish", str(file), str(tmp_path / "nowhere.yaml"))
    assert isinstance(result.exception, InputError)
    assert api.requests == []


VALID = """\
document: {dsl: 1.0.0, namespace: demo, name: hello, version: 1.0.0}
do:
  - greet: {call: greet}
"""


def test_validate_prints_each_problem_with_its_place_and_ends_with_2(tmp_path: Path) -> None:
    good, bad = tmp_path / "good.yaml", tmp_path / "bad.yaml"
    good.write_text(VALID)
    bad.write_text(VALID + "  - split:\n      fork: {branches: []}\n")
    result = definitions("validate", str(good))
    assert (result.exit_code, result.stdout) == (0, f"{good}: demo/hello@1.0.0: OK\n")
    result = definitions("validate", str(good), str(bad))
    assert result.exit_code == 2
    assert f"{bad}:" in result.stderr
    assert "fork" in result.stderr
    problems = json.loads(definitions("validate", str(bad), "--json").stdout)["problems"]
    assert problems[0]["line"] in (4, 5)


def test_a_worker_is_loaded_from_a_file_and_from_a_module(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = "from flowtrail import Worker\nworker = Worker('q1')\nother = 3\n"
    (tmp_path / "deeds_of_test.py").write_text(source)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.chdir(tmp_path)
    for target in (
        "deeds_of_test:worker",
        "deeds_of_test.py:worker",
        str(tmp_path / "deeds_of_test.py:worker"),
    ):
        assert cli.worker.load(target).queue == "q1"


@pytest.mark.parametrize(
    ("target", "text"),
    [
        ("worker", "Expected MODULE:NAME"),
        ("nowhere.py:worker", "Expected a file at nowhere.py but there is none"),
        ("no.such.module:worker", "Expected a module no.such.module but there is no"),
        ("json:worker", "Expected a flowtrail.Worker as worker in json but found nothing"),
        ("json:dumps", "found a function"),
    ],
)
def test_what_is_no_worker_is_refused(target: str, text: str) -> None:
    with pytest.raises(InputError, match=text.replace(".", r"\.")):
        cli.worker.load(target)


def test_run_gives_the_worker_what_the_command_line_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "deeds_two.py").write_text("from flowtrail import Worker\nworker = Worker('q1')\n")
    (tmp_path / "api-key").write_text("k.s\n")
    monkeypatch.setenv("FLOWTRAIL_DATA", str(tmp_path))
    monkeypatch.delenv("FLOWTRAIL_API_KEY", raising=False)
    ran: list[Worker] = []
    monkeypatch.setattr(Worker, "run", lambda worker: ran.append(worker))
    monkeypatch.setattr("engine.logs.configure", lambda *_: None)  # the process's logging is pytest's here
    monkeypatch.setattr(sys, "path", list(sys.path))
    arguments = ["run", f"{tmp_path / 'deeds_two.py'}:worker", "--concurrency", "3", "--instance", "w7"]
    result = CliRunner().invoke(cli.worker.app, [*arguments, "--url", "http://elsewhere"])
    assert result.exit_code == 0, result.output
    worker = ran[0]
    assert (worker.url, worker.api_key, worker.concurrency, worker.instance) == (
        "http://elsewhere",
        "k.s",
        3,
        "w7",
    )
