"""`flowtrail definitions validate|schema|graph|publish`: files, folders, patterns, catalogs, every problem with its place."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
import pytest
from flowtrail import Client
from typer.testing import CliRunner, Result

import cli.definitions
from engine.errors import InputError

GOOD = "document: {dsl: '1.0.3', namespace: a, name: b, version: '1.0.0'}\ndo:\n  - x: {set: {y: 1}}\n"
BAD = """document: {dsl: '1.0.3', namespace: a, name: b, version: '1'}
do:
  - x: {sett: {y: 1}}
  - y: {set: {z: '${ .a | }'}, then: nowhere}
"""
LOGS = GOOD.replace("{set: {y: 1}}", "{call: 'log:1.0.0@global'}").replace(
    "do:", "use: {catalogs: {global: {endpoint: shared}}}\ndo:"
)


@pytest.fixture
def flowtrail(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    monkeypatch.chdir(tmp_path)
    runner = CliRunner()
    return lambda *words: runner.invoke(cli.definitions.app, list(words))


def test_every_problem_has_file_line_and_column(flowtrail: Callable[..., Result], tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text(BAD)
    (tmp_path / "good.yaml").write_text(GOOD)
    done = flowtrail("validate", "bad.yaml", "good.yaml")
    assert done.exit_code == 2
    assert done.stdout == "good.yaml: a/b@1.0.0: OK\n"
    lines = done.stderr.splitlines()
    assert [line.split(": ")[0] for line in lines] == [
        "bad.yaml:1:49", "bad.yaml:3:5", "bad.yaml:4:15", "bad.yaml:4:32",
    ]  # fmt: skip
    assert "did you mean" in lines[1]


def test_json_has_problems_and_warnings(flowtrail: Callable[..., Result], tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text(BAD)
    (tmp_path / "dead.yaml").write_text(GOOD.replace("y: 1}}", "y: 1}, then: end}\n  - dead: {set: {y: 2}}"))
    found = json.loads(flowtrail("validate", "--json", "bad.yaml", "dead.yaml").stdout)
    assert [problem["pointer"] for problem in found["problems"]][:2] == ["/document/version", "/do/0/x"]
    assert found["warnings"] == [
        {
            "file": "dead.yaml",
            "line": 4,
            "column": 5,
            "pointer": "/do/1/dead",
            "message": "The task 'dead' is never reached at /do/1/dead (line 4)",
        }
    ]


def test_a_warning_is_no_error(flowtrail: Callable[..., Result], tmp_path: Path) -> None:
    (tmp_path / "w.yaml").write_text(GOOD.replace("do:", "use: {timeouts: {t: {after: PT1S}}}\ndo:"))
    done = flowtrail("validate", "w.yaml")
    assert done.exit_code == 0
    assert done.stderr.startswith("w.yaml:2:18: warning: Nothing uses 't'")


def test_folders_and_patterns_mean_their_files_once(flowtrail: Callable[..., Result], tmp_path: Path) -> None:
    (tmp_path / "in/deep").mkdir(parents=True)
    for name in ("in/a.yaml", "in/deep/b.yml", "in/c.json", "in/notes.txt"):
        (tmp_path / name).write_text(GOOD)
    done = flowtrail("validate", "in", "in/*.yaml")
    assert [line.split(":")[0] for line in done.stdout.splitlines()] == [
        "in/a.yaml",
        "in/c.json",
        "in/deep/b.yml",
    ]
    for nothing in ("in/*.none", "in/deep/[x].yaml"):
        assert isinstance(flowtrail("validate", nothing).exception, InputError)


def test_several_documents_in_a_file_are_refused(flowtrail: Callable[..., Result], tmp_path: Path) -> None:
    (tmp_path / "two.yaml").write_text(f"{GOOD}---\n{GOOD}")
    done = flowtrail("validate", "two.yaml")
    assert done.exit_code == 2
    assert done.stderr == "two.yaml:4:1: Expected one document but found another at line 4, column 1\n"


def test_a_cataloged_function_is_read_from_the_catalog(
    flowtrail: Callable[..., Result], tmp_path: Path
) -> None:
    function = tmp_path / "catalogs/shared/functions/log/1.0.0/function.yaml"
    function.parent.mkdir(parents=True)
    function.write_text("set: {logged: true}\n")
    (tmp_path / "logs.yaml").write_text(LOGS)
    assert "was not read" in flowtrail("validate", "logs.yaml").stderr
    done = flowtrail("validate", "--catalog", "catalogs", "logs.yaml")
    assert (done.exit_code, done.stderr) == (0, "")
    function.unlink()
    done = flowtrail("validate", "--catalog", "catalogs", "logs.yaml")
    assert done.exit_code == 2
    assert "No such file" in done.stderr


def test_nothing_outside_of_the_catalog_is_read(flowtrail: Callable[..., Result], tmp_path: Path) -> None:
    (tmp_path / "catalogs").mkdir()
    (tmp_path / "logs.yaml").write_text(LOGS.replace("shared", "../.."))
    done = flowtrail("validate", "--catalog", "catalogs", "logs.yaml")
    assert done.exit_code == 2
    assert "outside" in done.stderr


def test_publishing_sends_what_the_catalog_holds(
    flowtrail: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[Any] = []

    def answer(request: httpx2.Request) -> httpx2.Response:
        sent.append(request.content.decode())
        return httpx2.Response(201, json={"definition": "a/b@1.0.0"})

    client = Client("http://api.test", "k", transport=httpx2.MockTransport(answer))
    monkeypatch.setattr(cli.definitions, "connect", lambda _: client)
    function = tmp_path / "shared/functions/log/1.0.0/function.yaml"
    function.parent.mkdir(parents=True)
    function.write_text("set: {logged: true}\n")
    (tmp_path / "good.yaml").write_text(GOOD)
    (tmp_path / "logs.yaml").write_text(LOGS)
    assert flowtrail("publish", "--catalog", ".", "good.yaml", "logs.yaml").exit_code == 0
    assert sent[0] == GOOD
    assert json.loads(sent[1])["use"]["functions"] == {"log:1.0.0@global": {"set": {"logged": True}}}


def test_the_schema_is_printed_as_json(flowtrail: Callable[..., Result]) -> None:
    assert json.loads(flowtrail("schema").stdout)["$schema"].endswith("2020-12/schema")


def test_a_file_is_drawn_and_a_published_definition_too(
    flowtrail: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from engine.dsl.source import parse

    asked: list[str] = []

    def answer(request: httpx2.Request) -> httpx2.Response:
        asked.append(request.url.path)
        return httpx2.Response(200, json=parse(GOOD).value)

    client = Client("http://api.test", "k", transport=httpx2.MockTransport(answer))
    monkeypatch.setattr(cli.definitions, "connect", lambda _: client)
    (tmp_path / "good.yaml").write_text(GOOD)
    drawn = flowtrail("graph", "good.yaml").stdout
    assert drawn.startswith("flowchart TD\n")
    assert flowtrail("graph", "a/b").stdout == drawn
    assert asked == ["/definitions/a/b/latest"]
    assert len(json.loads(flowtrail("graph", "good.yaml", "--json").stdout)["nodes"]) == 3
    (tmp_path / "bad.yaml").write_text(BAD)
    assert isinstance(flowtrail("graph", "bad.yaml").exception, InputError)
