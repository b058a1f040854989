"""What-if and bisect over a real log: what they find, and that they produce nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from cli.replay import app
from engine.runtime import kafka
from engine.runtime.topics import EVENTS
from replay.log import read_spans
from tests.conftest import Servers
from tests.integration.projection_log import EventLog
from tests.unit.replay_logs import ORDER, order, records

OTHER = """
document: {dsl: '1.0.3', namespace: test, name: order, version: '2.0.0'}
do:
- prepare: {set: {n: "${ .n + 1 }", text: "${ .text }"}}
- route:
    switch:
    - gold: {when: .n > 5, then: charge}
    - rest: {then: charge}
- charge: {call: charge, export: {as: "${ $context + {paid: true} }"}}
- ship: {call: ship}
"""


@pytest.fixture
def installed(
    servers: Servers, prefix: str, order_log: EventLog, monkeypatch: pytest.MonkeyPatch
) -> EventLog:
    """Thirty flows; n is 0 to 29, every third has not ended. Whoever makes a producer from here on fails."""
    for name, value in {
        "KAFKA": servers.kafka,
        "TOPIC_PREFIX": prefix,
        "POSTGRES": "postgresql://nobody@127.0.0.1:9/x",
    }.items():
        monkeypatch.setenv(f"FLOWTRAIL_{name}", value)
    order_log.commit_records(
        record for i in range(30) for record in records(order(f"f-{i}", n=i, end=i % 3 > 0))
    )

    def forbidden(*_: Any, **__: Any) -> Any:
        raise AssertionError("a producer was made")

    monkeypatch.setattr(kafka, "producer", forbidden)
    monkeypatch.setattr(kafka, "transactional_producer", forbidden)
    return order_log


def ran(*words: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, list(words))
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.stdout


def test_past_flows_are_decided_under_another_definition_and_nothing_is_produced(
    servers: Servers, installed: EventLog, tmp_path: Path
) -> None:
    before = read_spans(servers.kafka, installed.topic)
    file = tmp_path / "other.yaml"
    file.write_text(OTHER)
    code, text = ran("what-if", "--definition", str(file), "--json")
    report = json.loads(text)
    assert (code, report["flows"]) == (1, 30)
    assert report["counts"] == {"same": 25, "different": 5, "needs": 0, "refused": 0}  # n + 1 is 6 to 10
    [group] = report["groups"]
    assert (group["at"], group["was"], group["would"]) == ("/do/route", "/do/route takes rest", "takes gold")
    code, text = ran("what-if", "--definition", str(file), "--where", ".n >= 20")
    assert code == 0
    assert text.startswith("10 flows under test/order@2.0.0: 10 go the same way")
    code, text = ran("what-if", "--definition", ORDER.id, "--flow", "f-7")
    assert (code, text.split(":")[0]) == (0, f"1 flows under {ORDER.id}")
    _, text = ran("what-if", "--definition", str(file), "--flow", "f-7")
    assert "1 flows at /do/route: /do/route takes rest -> takes gold" in text
    assert "such as f-7" in text
    assert read_spans(servers.kafka, installed.topic) == before
    assert installed.topic.endswith(EVENTS)


def test_bisect_finds_each_flows_first_event(installed: EventLog) -> None:
    code, text = ran("bisect", "--where", ".data.n <= 25", "--json")
    found = json.loads(text)
    assert (code, found["flows"]) == (1, 30)
    assert {one["flow"] for one in found["broken"]} == {f"f-{i}" for i in range(25, 30)}
    assert {(one["by"]["kind"], one["by"]["task"]) for one in found["broken"]} <= {
        ("TaskCompleted", "/do/0/prepare"),
        ("FlowStarted", None),
    }
    code, text = ran("bisect", "--where", ".data.n <= 25", "--flow", "f-28")
    assert (code, text.splitlines()[0]) == (1, "1 flows, 1 do not hold it")
    assert ran("bisect", "--where", ".input.n < 30")[0] == 0


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("what-if", "--definition", "test/none@1.0.0"), "Expected a file or a published definition"),
        (("what-if", "--definition", ORDER.id, "--where", ".a |"), "in --where"),
        (("what-if", "--definition", ORDER.id, "--since", "12"), "Expected --since to be a time"),
        (("bisect", "--where", ".", "--flow", "nobody"), "Expected flow nobody to be in the log"),
    ],
)
def test_bad_input_says_what_was_expected(installed: EventLog, words: tuple[str, ...], says: str) -> None:
    result = CliRunner().invoke(app, list(words))
    assert result.exception is not None
    assert says in str(result.exception)
